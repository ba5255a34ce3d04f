"""What of a run goes to the terminal; its log.txt has everything, whatever stands here."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["MetricsOnly", "log_alone", "metrics_alone"]

METRICS = ("=> ", "* ")  # how Dassl's evaluator, and ours after it, begin their lines


class MetricsOnly:
    """A console that shows the lines of metrics alone; what it does not define itself is the console's.

    Args:
        console: where they go.
    """

    def __init__(self, console: Any) -> None:
        self.console = console
        self.line = ""

    def __getattr__(self, name: str) -> Any:
        if name in ("console", "line"):  # not set yet: asking the console for it would never end
            raise AttributeError(name)
        return getattr(self.console, name)

    def write(self, text: str) -> int:
        """Take text; lines go out once they are whole."""
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            if line.startswith(METRICS):
                self.console.write(f"{line}\n")
        return len(text)


def metrics_alone() -> None:
    """From now on show the lines of metrics alone, where stdout is a log that Dassl's `setup_logger` has made.

    Bars of progress are not shown in this process any more.
    """
    tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)  # type: ignore[assignment, method-assign]
    log: Any = sys.stdout
    if getattr(log, "file", None) is not None:
        log.console = MetricsOnly(log.console)


@contextmanager
def log_alone() -> Iterator[str]:
    """The context in which nothing but the log gets what is printed.

    Yields:
        The log's path; "" where there is none, and everything is shown.
    """
    log = sys.stdout
    file = getattr(log, "file", None)
    if file is None:
        yield ""
        return
    sys.stdout = file
    try:
        yield str(file.name)
    finally:
        sys.stdout = log
