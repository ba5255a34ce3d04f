"""What command-line programs do when whoever reads their output has enough of it, as `head` has."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_quietly() -> Iterator[None]:
    """End the program without a word, with exit status 1, once nobody reads its stdout; also a decorator.

    What is printed inside goes out before its end, as it would else be found too late that nobody reads it.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more when it ends, and must not stumble over what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
