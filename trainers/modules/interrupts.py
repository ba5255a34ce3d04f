"""Ctrl-C and termination signals take effect where a training can stop, and are never lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupts:
    """What came while it was put off (`interrupts_put_off`)."""

    def __init__(self) -> None:
        self.came: int | None = None
        self.handlers: dict[int, Callable[[int, FrameType | None], object]] = {}

    def check(self) -> None:
        """Let the first signal that came take effect: KeyboardInterrupt, or as its handler has it."""
        number, self.came = self.came, None
        if number is not None:
            self.handlers[number](number, None)


@contextmanager
def interrupts_put_off() -> Iterator[Interrupts]:
    """The context in which Ctrl-C takes effect at the next `check`, at the latest at the end; a second one at once.

    Python raises KeyboardInterrupt wherever it is when the signal comes. Where that is in a hook that runs as a process
    forks, as when workers are started to read images, or in a destructor, Python prints the exception and goes on.
    A flag is not lost there.

    The same holds for SIGTERM and SIGHUP if the program has handlers for them, except that a second one waits, too: a
    script that is stopped sends both to this process, and a terminal may send Ctrl-C as well.

    Outside the main thread, and where the process ignores a signal, nothing is changed. The handlers that were there
    are restored at the end.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == interrupts.came:
            interrupts.handlers[number](number, frame)
        if interrupts.came is None or number == signal.SIGINT:
            interrupts.came = number

    for number in SIGNALS:
        before = signal.getsignal(number)
        if callable(before):
            interrupts.handlers[number] = before
            signal.signal(number, note)
    try:
        yield interrupts
    finally:
        for number, handler in interrupts.handlers.items():
            signal.signal(number, handler)
    interrupts.check()
