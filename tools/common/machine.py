"""The machine, as pages of figures name it."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """The processor's model."""
    information = Path("/proc/cpuinfo")  # of Linux; platform has the architecture alone there
    for line in information.read_text().splitlines() if information.is_file() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many cores it has."""
    return os.cpu_count() or 1
