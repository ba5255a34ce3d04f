"""Modules of `trainers.modules` that need nothing of it, without all that `import trainers` loads."""

from __future__ import annotations

import importlib.util
from typing import Any

from tools.common.paths import ROOT


def load_part(name: str) -> Any:
    """The module `trainers/modules/<name>.py`, under that name alone.

    Raises:
        ImportError: it cannot be loaded.
    """
    spec = importlib.util.spec_from_file_location(name, ROOT / "trainers" / "modules" / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"trainers/modules/{name}.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
