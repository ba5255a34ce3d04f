"""Ctrl-C and termination signals take effect at points where a program can stop, and are never lost."""

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
        self._at_once = False
        self._over = False

    def check(self) -> None:
        """Call the handler of the waiting signal, which may raise.

        If several signals came, only one counts: Ctrl-C if it is among them, else the first.
        """
        number, self.came = self.came, None
        if number is not None:
            self.handlers[number](number, None)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In this context a signal takes effect at once, including one that came earlier.

        Once a handler has raised, signals wait again, so a `finally` that follows is not interrupted.
        """
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def end(self) -> None:
        """Restore the handlers, and let the waiting signal take effect, as `check` does.

        A restored handler may raise before the others have been restored. Signals whose handlers have not been restored
        then go to these handlers at once.
        """
        try:
            for number, handler in reversed(self.handlers.items()):  # SIGINT last: it may raise once it is restored
                signal.signal(number, handler)
        finally:
            self._over = True
        self.check()

    def note(self, number: int, frame: FrameType | None, however_often: bool) -> None:
        """Take a signal: it takes effect now or waits."""
        if self._over:
            self.handlers[number](number, frame)
            return
        if self._at_once:
            self._at_once = False
            self.handlers[number](number, frame)
            self._at_once = True
            return
        if number == signal.SIGINT == self.came and not however_often:
            self.handlers[number](number, frame)
        if self.came is None or number == signal.SIGINT:
            self.came = number


@contextmanager
def interrupts_put_off(however_often: bool = False) -> Iterator[Interrupts]:
    """In this context Ctrl-C takes effect at the next `check`, or at the end at the latest.

    A second Ctrl-C takes effect at once, unless `however_often`.

    Python raises KeyboardInterrupt wherever it is when the signal comes. In a destructor, or in a hook that runs as a
    process forks, for example to start workers that read images, Python only prints the exception and goes on. A flag
    is not lost there.

    The same holds for SIGTERM and SIGHUP if the program has handlers for them, except that a second one waits, too: a
    script that is stopped sends both to this process, and a terminal may send Ctrl-C as well.

    Nothing is changed outside the main thread, nor for a signal that the process ignores. The handlers that were there
    are restored at the end.

    Args:
        however_often: whether Ctrl-C, too, waits however often it comes. It then takes effect at the end even after an
            error; otherwise only that error is raised. For what must not be cut short, such as starting and ending
            other programs.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return

    def note(number: int, frame: FrameType | None) -> None:
        interrupts.note(number, frame, however_often)

    try:
        for number in SIGNALS:
            before = signal.getsignal(number)
            if callable(before):
                interrupts.handlers[number] = before
                signal.signal(number, note)
        yield interrupts
    except BaseException:
        if not however_often:
            interrupts.came = None
        raise
    finally:
        interrupts.end()
