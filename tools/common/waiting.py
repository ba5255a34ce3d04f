"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
PAUSE = 0.05  # seconds between two looks


def wait_for(found: Callable[[], Found | None], seconds: float = 90.0, what: str = "result") -> Found:
    """What `found` gives, once that is true.

    Args:
        found: is called again and again.
        seconds: how long.
        what: the name of what it finds, for the error.

    Raises:
        TimeoutError: it does not become true in that time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = found()
        if result:
            return result
        time.sleep(PAUSE)
    raise TimeoutError(f"there was no {what} in {seconds:g} s")
