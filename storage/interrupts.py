"""Ctrl-C and termination signals take effect where a program can stop, and are never lost."""

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
        """Let a signal that came take effect, of several Ctrl-C or else the first: what its handler raises."""
        number, self.came = self.came, None
        if number is not None:
            self.handlers[number](number, None)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """The context in which a signal takes effect at once, also one that came before it.

        The first one whose handler raises ends that, so that what follows in a `finally` is not interrupted.
        """
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def end(self) -> None:
        """Restore the handlers, and let a signal that came take effect, as `check` does.

        A handler that has been restored may raise before the others are. Signals of those that are not then go to
        their handlers at once.
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
    """The context in which Ctrl-C takes effect at the next `check`, at the latest at the end; a second one at once.

    Python raises KeyboardInterrupt wherever it is when the signal comes. Where that is in a hook that runs as a process
    forks, as when workers are started to read images, or in a destructor, Python prints the exception and goes on.
    A flag is not lost there.

    The same holds for SIGTERM and SIGHUP if the program has handlers for them, except that a second one waits, too: a
    script that is stopped sends both to this process, and a terminal may send Ctrl-C as well.

    Outside the main thread, and where the process ignores a signal, nothing is changed. The handlers that were there
    are restored at the end.

    Args:
        however_often: whether Ctrl-C, too, waits however often it comes, and takes effect at the end even after an
            error, which is otherwise all that is raised. For what must be done whole, as the start and the end of other
            programs.
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
