"""`trainers.modules.safe_text` for the tools, without all that `import trainers` loads where a Dassl is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from tools.common.paths import ROOT


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("safe_text", ROOT / "trainers" / "modules" / "safe_text.py")
    if spec is None or spec.loader is None:
        raise ImportError("trainers/modules/safe_text.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_module = _load()
escaped: Callable[..., str] = _module.escaped
last_line: Callable[[BaseException], str] = _module.last_line
safe_cell: Callable[[Any], Any] = _module.safe_cell
