"""Old names of commands and modules: each says which name replaces it.

`tools` looks for its modules in this folder last, so `python -m tools.runs` runs `moved/runs.py`. Every old name is a
line in `MOVED` and a file that calls `refuse`: of this folder or, where it was a module of a room, of that room.
"""

from __future__ import annotations

import sys

MOVED = {
    "tools.choose_hard": "tools.tiny_clip.choose_hard",
    "tools.features": "tools.predict.features",
    "tools.pretrain_tiny": "tools.tiny_clip",
    "tools.runs": "tools.results",
    "tools.sweep.search": "tools.search",
}


def refuse(module: str, old: str) -> None:
    """Tell the new name, as an error of the import or, of a command, with exit status 2.

    Args:
        module: `__name__` of the old name's file.
        old: the old name.

    Raises:
        ImportError: the old name is imported.
    """
    if module != "__main__":
        raise ImportError(f"{old} has moved: import {MOVED[old]} instead")
    print(f"{old} has moved: call it as python -m {MOVED[old]}", file=sys.stderr)
    sys.exit(2)
