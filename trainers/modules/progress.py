"""Progress of a loop, with its rate and the time left: a bar on a terminal, elsewhere a line per minute."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

from tqdm import tqdm

T = TypeVar("T")

EVERY = 60.0  # seconds between two lines, where there is no terminal
LINE = "{desc}: {n_fmt}/{total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left"


class _Lines(tqdm):  # type: ignore[type-arg]  # tqdm takes its parameter in stubs alone
    """tqdm, in lines. Its switches hold: TQDM_DISABLE, and what `compat.console` turns off."""

    _instances: ClassVar[WeakSet[Any]] = WeakSet()  # not tqdm's own, as `tqdm.write` clears those and shows them again

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """What prints the state."""

        def tell(text: str) -> None:
            file.write(f"{text}\n")
            file.flush()

        return tell

    def close(self) -> None:
        """Print no line at the end, which would be one for each of many tests."""
        if not self.disable:
            self.last_print_t = self.start_t  # as if nothing had been shown, which would then be cleared
        super().close()


def progress(items: Iterable[T], what: str, unit: str = "batches", total: int | None = None) -> Iterable[T]:
    """Yield items one by one, and show the progress on stderr.

    Without a terminal, as in a job of Slurm, it takes a minute before the first line, so what is brief is silent.

    Args:
        items: the things.
        what: is done with them.
        unit: what they are called.
        total: how many there are; None for their length.
    """
    options: dict[str, Any] = {"desc": what, "unit": f" {unit}", "total": total}
    if sys.stderr.isatty():
        return tqdm(items, **options)
    options.update(mininterval=EVERY, maxinterval=EVERY, delay=EVERY, miniters=1, bar_format=LINE)
    return _Lines(items, **options)
