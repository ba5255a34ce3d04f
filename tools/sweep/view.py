"""What is shown while runs are done: bars on a terminal, else a line for each that starts or ends."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from storage.safe_text import escaped
from tools.sweep.work import Run, tail

EPOCH = re.compile(r"epoch \[(\d+)/(\d+)\] batch \[(\d+)/(\d+)\]")
PACE = re.compile(r"epoch \[.*\btime [\d.]+ \(([\d.]+)\).*\beta ((?:\d+ days?, )?\d+:\d\d:\d\d)")
LOOKS = 2.0  # seconds between two looks at the logs of runs
OVERVIEWS = 600.0  # seconds between two lines that list the running runs, if there is no terminal


def progress_of(text: str) -> float | None:
    """How much of a training is done, in [0, 1], by the last line of its log that says so; None if none does."""
    found = EPOCH.findall(text)
    if not found:
        return None
    epoch, epochs, batch, batches = map(int, found[-1])
    return max(epoch - 1 + batch / max(batches, 1), 0.0) / max(epochs, 1)


def pace_of(text: str) -> str:
    """How fast a training is and how long its rest takes, by the last line of its log that says so; else empty."""
    found = PACE.findall(text)
    return f"{float(found[-1][0]):.3g} s per batch, {found[-1][1]} left" if found else ""


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


class Forecast:
    """Estimates the time left from the runs' expected times and the true times of those that have ended."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._left = {run.name: run.seconds for run in runs}
        expected = [seconds for seconds in self._left.values() if seconds is not None]
        self._known, self._expected = len(expected), sum(expected)  # of the remaining: how many are known, their sum
        self._guessed = self._took = 0.0  # of those that have finished and were known: expected and true seconds
        self._all_took, self._finished = 0.0, 0
        self._most = 1  # runs at once

    def running(self, number: int) -> None:
        """Note how many run now."""
        self._most = max(self._most, number)

    def ended(self, run: Run, seconds: float | None) -> None:
        """Note that a run has ended, with the seconds it took if it has finished."""
        expected = self._left.pop(run.name, None)
        if expected is not None:
            self._known -= 1
            self._expected -= expected
        if seconds is not None:
            self._all_took += seconds
            self._finished += 1
            if expected:
                self._guessed += expected
                self._took += seconds

    @property
    def seconds(self) -> float | None:
        """Seconds that are left; None if there is no estimate."""
        known = self._expected * (self._took / self._guessed if self._guessed else 1.0)
        unknown = len(self._left) - self._known
        if unknown and self._known:
            known += unknown * known / self._known
        elif unknown and self._finished:
            known += unknown * self._all_took / self._finished
        elif unknown:
            return None
        return max(known, 0.0) / self._most


class Watched:
    """A run that has been handed to the engine: where it runs once it has started, and how far it is."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.where = ""
        self.share: float | None = None
        self.pace = ""
        self._seen: tuple[int, int] | None = None

    def look(self) -> bool:
        """Look at its log; whether it has started."""
        try:
            if not self.where:
                with self.run.log.open(encoding="utf-8", errors="replace") as file:
                    self.where = escaped(file.readline().strip().removeprefix("on "))
            path: Path = self.run.watched or self.run.log
            found = path.stat()
        except OSError:
            return bool(self.where)
        if self._seen != (found.st_size, found.st_mtime_ns):
            self._seen = (found.st_size, found.st_mtime_ns)
            text = tail(path)
            self.share = progress_of(text) or self.share
            self.pace = pace_of(text) or self.pace
        return bool(self.where)

    def __str__(self) -> str:
        return f"{self.run.name} on {self.where}"


class View:
    """Reports runs on a stream, by default stderr, so that a table on stdout stands alone."""

    def __init__(self, runs: Iterable[Run], stream: TextIO | None = None) -> None:
        runs = list(runs)
        self.stream = stream or sys.stderr
        self.total, self.ended = len(runs), 0
        self.forecast = Forecast(runs)
        self._watched: dict[str, Watched] = {}
        self._looked = 0.0
        self._told = self._started = time.monotonic()

    def tell(self, line: str) -> None:
        """Print a line."""
        print(line, file=self.stream, flush=True)

    def update(self, under_way: Iterable[Run]) -> None:
        """Look at what runs, every few seconds.

        Args:
            under_way: the runs that an engine has; some may still wait for a place.
        """
        now = time.monotonic()
        if now - self._looked < LOOKS:
            return
        self._looked = now
        running = []
        for run in under_way:
            watched = self._watched.setdefault(run.name, Watched(run))
            was = bool(watched.where)
            if watched.look():
                running.append(watched)
                if not was:
                    self.started(watched)
        self.forecast.running(len(running))
        self.show(running)

    def started(self, watched: Watched) -> None:
        """Report that a run has started."""
        self.tell(f"started {watched}")

    def show(self, running: list[Watched]) -> None:
        """Show what runs."""
        if running and time.monotonic() - self._told >= OVERVIEWS:
            self._told = time.monotonic()
            parts = [f"{w.run.name}" + ("" if w.share is None else f" {w.share:.0%}") for w in running]
            self.tell(f"[{self.ended}/{self.total}{self._rate()}{self._left()}] running: {'; '.join(parts)}")

    def finished(self, run: Run, seconds: float) -> None:
        """Report that a run has finished."""
        self._end(run, seconds)
        self.tell(f"[{self.ended}/{self.total}] finished {run.name} in {duration(seconds)}{self._left()}")

    def failed(self, run: Run, line: str) -> None:
        """Report that a run has failed, or will not run."""
        self._end(run, None)
        self.tell(f"[{self.ended}/{self.total}] failed {line}")

    def stopped(self, run: Run) -> None:
        """Report how far an interrupted run came, if its log says so."""
        said = [line.strip() for line in tail(run.log).splitlines()[1:] if line.strip()]
        if said:
            self.tell(f"stopped {run.name}: {escaped(said[-1])}")

    def close(self) -> None:
        """Nothing is shown any more."""

    def _end(self, run: Run, seconds: float | None) -> None:
        self.ended += 1
        self._watched.pop(run.name, None)
        self.forecast.ended(run, seconds)

    def _rate(self) -> str:
        """How many runs end in an hour, since the start."""
        rate = 3600 * self.ended / max(time.monotonic() - self._started, 1e-3)
        return f", {rate:,.0f} runs per hour" if rate >= 10 else f", {rate:.1f} runs per hour" if rate else ""

    def _left(self) -> str:
        seconds = self.forecast.seconds
        return f", about {duration(seconds)} left" if seconds else ""


class Bars(View):
    """On a terminal: a bar for all runs, and one for each that runs."""

    def __init__(self, runs: Iterable[Run], stream: TextIO | None = None) -> None:
        super().__init__(runs, stream)
        form = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} runs, {elapsed} since the start{postfix}"
        self._all = tqdm(total=self.total, file=self.stream, bar_format=form, dynamic_ncols=True)
        self._bars: list[tqdm] = []

    def tell(self, line: str) -> None:
        tqdm.write(line, file=self.stream)

    def started(self, watched: Watched) -> None:
        pass

    def show(self, running: list[Watched]) -> None:
        rows = max(min(len(running), shutil.get_terminal_size().lines - 3), 0)
        while len(self._bars) < rows:
            form = "  {desc} {percentage:3.0f}%|{bar:20}|{postfix}"
            position = len(self._bars) + 1
            self._bars.append(tqdm(total=1.0, file=self.stream, bar_format=form, position=position, leave=False))
        while len(self._bars) > rows:
            self._bars.pop().close()
        for bar, watched in zip(self._bars, running):
            bar.n = watched.share or 0.0
            bar.set_description_str(str(watched), refresh=False)
            bar.set_postfix_str(watched.pace, refresh=False)
            bar.refresh()
        more = len(running) - rows
        shown = (f"{more} more running" if more else "") + self._rate() + self._left()
        self._all.set_postfix_str(shown.removeprefix(", "), refresh=True)

    def finished(self, run: Run, seconds: float) -> None:
        self._end(run, seconds)
        self._all.update(1)

    def failed(self, run: Run, line: str) -> None:
        self._end(run, None)
        self._all.update(1)
        self.tell(f"failed {line}")

    def close(self) -> None:
        for bar in reversed(self._bars):
            bar.close()
        self._bars.clear()
        self._all.close()


def view_of(runs: Iterable[Run], stream: TextIO | None = None) -> View:
    """Bars if the stream is a terminal, else lines."""
    stream = stream or sys.stderr
    return Bars(runs, stream) if stream.isatty() else View(runs, stream)
