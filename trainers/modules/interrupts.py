"""Ctrl-C where a training can stop, and never lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Whether Ctrl-C came while it was put off (`interrupts_put_off`)."""

    def __init__(self) -> None:
        self.came = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if it came."""
        if self.came:
            self.came = False
            raise KeyboardInterrupt


@contextmanager
def interrupts_put_off() -> Iterator[Interrupts]:
    """The context in which Ctrl-C takes effect at the next `check`, at the latest at the end; a second one at once.

    Python raises KeyboardInterrupt wherever it is when the signal comes. Where that is in a hook that runs as a process
    forks, as when workers are started to read images, or in a destructor, Python prints the exception and goes on.
    A flag is not lost there.

    Outside the main thread, and where the process ignores SIGINT, nothing is changed. The handler that was there is
    restored at the end.
    """
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupts
        return

    def note(number: int, frame: FrameType | None) -> None:
        if interrupts.came:
            before(number, frame)
        interrupts.came = True

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
    interrupts.check()
