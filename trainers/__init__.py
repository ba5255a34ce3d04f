"""One file, one method, one registered trainer. `import trainers` registers them all.

Where there is no Dassl there is no registry; `trainers.modules`, which needs none, can then be imported by itself.
"""

import importlib.util

if importlib.util.find_spec("dassl"):
    from . import cdc, clip_icm, cocoop, coop, maple, zsclip

    __all__ = ["cdc", "clip_icm", "cocoop", "coop", "maple", "zsclip"]
