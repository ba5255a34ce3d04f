"""One file, one method, one registered trainer. `import trainers` registers them all.

Where there is no Dassl there is no registry; `trainers.modules`, which needs none, can then be imported by itself.
"""

import importlib
import importlib.util

METHODS = ("cdc", "clip_icm", "cocoop", "coop", "kgcoop", "maple", "mmrl", "promptsrc", "tcp", "zsclip")


def register() -> None:
    """Register all trainers, also where `trainers` was imported before there was a Dassl.

    Raises:
        ModuleNotFoundError: there is still none; `import compat` brings one.
    """
    for name in METHODS:
        importlib.import_module(f"{__name__}.{name}")


if importlib.util.find_spec("dassl"):
    register()
