"""Run any CoOp-family ``train.py``, unchanged, on the Dassl that :mod:`compat` finds or embeds.

    cd /path/to/CoOp
    python /path/to/this/project/compat train.py --trainer CoOp ...

or, from this project's folder, ``python -m compat /path/to/CoOp/train.py ...``. As with ``python train.py``, relative
paths are seen from the current directory, and modules are looked for in the script's own folder: its ``clip``,
``datasets`` and ``trainers`` are used, none of this project's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os.path as osp
import runpy
import sys
from typing import Any

_PROJECT = osp.dirname(osp.dirname(osp.realpath(__file__)))


def _import_clip() -> None:
    """Import the script's `clip` ahead of it, with what some copies of CLIP want of pkg_resources where that is not."""
    if importlib.util.find_spec("clip") is None:
        return
    # From its file: `trainers` are the script's own.
    spec: Any = importlib.util.spec_from_file_location(
        "clip_import", osp.join(_PROJECT, "trainers", "modules", "clip_import.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with contextlib.suppress(ImportError), module.clip_importable():  # what else is missing the script will say
        import clip  # noqa: F401


def main() -> None:
    call = "python -m compat path/to/train.py [ARGUMENT ...]"
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(f"usage: {call}\n\n{__doc__.strip()}")
        return
    if len(sys.argv) < 2:
        sys.exit(f"call it as {call}")
    script = sys.argv[1]
    if not osp.isfile(script):
        sys.exit(f"python -m compat: there is no file {script}")
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # the current directory, or the folder of this file
    if not __package__:  # called by its folder's name
        sys.path.insert(0, _PROJECT)
    import compat

    print(f"Dassl: {compat.which()}", file=sys.stderr)
    sys.path[:] = [entry for entry in sys.path if osp.realpath(entry) != _PROJECT]
    sys.path.insert(0, osp.dirname(osp.realpath(script)))
    sys.argv = sys.argv[1:]
    _import_clip()
    runpy.run_path(script, run_name="__main__")


main()
