"""The log file of a run: everything that goes to standard output."""

from __future__ import annotations

import os.path as osp
import sys
import time
from typing import Any

from .tools import mkdir_if_missing

__all__ = ["Logger", "setup_logger"]


class Logger:
    """A stand-in for ``sys.stdout`` that writes to the console and to a file.

    What it does not define itself (``isatty``, ``encoding``, ``fileno``, ...) is the console's, since tqdm and others
    ask. The file is written line by line, so that a killed run leaves its log. Closing closes the file alone: the
    console is not ours.

    Args:
        fpath: the log file, overwritten when it exists; None writes to the console only.
    """

    def __init__(self, fpath: str | None = None) -> None:
        self.console = sys.stdout
        self.file = None
        if fpath is not None:
            mkdir_if_missing(osp.dirname(fpath))
            self.file = open(fpath, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 (open as long as the run)

    def __getattr__(self, name: str) -> Any:
        if name in ("console", "file"):  # not set yet: asking the console for it would never end
            raise AttributeError(name)
        return getattr(self.console, name)

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def write(self, msg: str) -> int:
        """Write ``msg`` to both and return its length."""
        self.console.write(msg)
        if self.file is not None:
            self.file.write(msg)
        return len(msg)

    def flush(self) -> None:
        """Flush both."""
        self.console.flush()
        if self.file is not None:
            self.file.flush()

    def close(self) -> None:
        """Close the file; from then on only the console is written to."""
        if self.file is not None:
            self.file.close()
            self.file = None


def setup_logger(output: str | None = None) -> None:
    """Copy standard output to a log file from now on.

    Args:
        output: a file when it ends in ``.txt`` or ``.log``, else a folder that gets a ``log.txt``; None does nothing.
            A log that exists stays: the new one carries the date and time in its name.
    """
    if output is None:
        return
    fpath = output if output.endswith((".txt", ".log")) else osp.join(output, "log.txt")
    if osp.exists(fpath):
        fpath += time.strftime("-%Y-%m-%d-%H-%M-%S")
    stamped, n = fpath, 1
    while osp.exists(fpath):  # two runs within one second
        fpath, n = f"{stamped}-{n}", n + 1
    sys.stdout = Logger(fpath)
