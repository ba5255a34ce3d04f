"""`trainers.modules.safe_text` for the tools, without all that `import trainers` loads where a Dassl is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tools.common.parts import load_part

_module = load_part("safe_text")
escaped: Callable[..., str] = _module.escaped
last_line: Callable[[BaseException], str] = _module.last_line
safe_cell: Callable[[Any], Any] = _module.safe_cell
