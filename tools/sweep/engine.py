"""One place where lists of runs are done: in order, each after those that it needs, the longest first.

On Ray if it is installed (`tools.sweep.on_ray`), else one after the other in this process.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.util
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from storage.interrupts import interrupts_put_off
from tools.sweep.view import View
from tools.sweep.work import Ending, Outcome, Run, perform

LOGS = "sweep"  # folder of the logs of runs that are running or have failed, below the output folder
INSTALL = "pip install -e '.[cluster]'"
# A folder's owner on another machine is taken for dead after five minutes without a sign of life.
IN_USE_TRIES = 16
IN_USE_PAUSE = 30.0  # seconds


@dataclass(frozen=True)
class Failure:
    """A run that failed, or one that could not start because a run that it needs failed (`needed`)."""

    run: Run
    error: str
    needed: bool = False

    def __str__(self) -> str:
        return f"{self.run.name}: {self.error}" + ("" if self.needed else f"; log: {self.run.log}")


class Engine(Protocol):
    """What does runs.

    Attributes:
        shares_gpus: whether several runs may be on one GPU.
    """

    shares_gpus: bool

    def room(self) -> int:
        """How many runs it takes at once, including those that wait for a free place."""

    def submit(self, run: Run, alone: bool) -> None:
        """Take a run, which has a GPU of its own if it is to be alone there."""

    def wait(self, tick: Callable[[], None]) -> list[tuple[Run, Outcome]]:
        """Wait for runs to end, and return those that have, perhaps none yet; may call `tick` meanwhile."""

    def stop(self) -> None:
        """End all that is running, so that it can go on later, and what was started for this engine."""


class OneByOne:
    """Does one run after the other in this process."""

    shares_gpus = False

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def room(self) -> int:
        return 1

    def submit(self, run: Run, alone: bool) -> None:
        self._runs.append(run)

    def wait(self, tick: Callable[[], None]) -> list[tuple[Run, Outcome]]:
        ended = [(run, perform(run.task, run.log, tick)) for run in self._runs]
        self._runs.clear()
        return ended

    def stop(self) -> None:
        self._runs.clear()


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `choose_engine`."""
    group = parser.add_argument_group("where runs are done")
    group.add_argument("--address", help="a Ray cluster that is there: auto, or host:port (default: this machine)")
    group.add_argument("--gpus-per-run", type=float, metavar="N", help="also less than 1 (default: 1 if there are any)")
    group.add_argument("--cpus-per-run", type=float, metavar="N", help="(default: 1)")
    group.add_argument("--one-by-one", action="store_true", help="one after the other, without Ray")


def add_report_to(parser: argparse.ArgumentParser) -> None:
    """The option that each run takes over from `train.py`."""
    parser.add_argument(
        "--report-to", default="", metavar="wandb", help="where figures of the runs go besides TensorBoard"
    )


def choose_engine(
    runs: int,
    address: str | None = None,
    gpus_per_run: float | None = None,
    cpus_per_run: float | None = None,
    one_by_one: bool = False,
    cpus: int | None = None,
) -> Engine:
    """Ray, or one after the other if it is not installed or not wanted, or if there is only one run and no address.

    Args:
        runs: how many there are.
        address: a Ray cluster's address; None for a cluster on this machine, unless `RAY_ADDRESS` names one.
        gpus_per_run: a part of a GPU or whole ones; None for one if there are any.
        cpus_per_run: cores; None for one.
        one_by_one: whether Ray is not wanted.
        cpus: how many cores of this machine a cluster here takes; None for all.

    Raises:
        ValueError: what is asked for needs Ray, which is not installed, or the cluster has no such thing.
        ConnectionError: there is no cluster at the address that can be used, or Ray does not start on this machine.
    """
    if one_by_one and address:
        raise ValueError("--address is of a Ray cluster, and --one-by-one is without Ray: give one of them")
    for name, value in (("--gpus-per-run", gpus_per_run), ("--cpus-per-run", cpus_per_run)):
        if value is not None and value < 0:
            raise ValueError(f"{name} must be 0 or more, got {value:g}")
    if gpus_per_run is not None and gpus_per_run > 1 and gpus_per_run % 1:
        raise ValueError(f"--gpus-per-run must be a whole number where it is more than 1, got {gpus_per_run:g}")
    address = address or os.environ.get("RAY_ADDRESS")
    if one_by_one or (runs <= 1 and not address):
        return OneByOne()
    if importlib.util.find_spec("ray") is None:
        if address:
            raise ValueError(f"a cluster needs Ray, which is not installed: {INSTALL}")
        return OneByOne()
    from tools.sweep.on_ray import RayEngine

    return RayEngine(address, gpus_per_run, 1.0 if cpus_per_run is None else cpus_per_run, cpus)


def carry_out(runs: Sequence[Run], engine: Engine, view: View) -> list[Failure]:
    """Do all runs, and report each as it ends.

    Args:
        runs: the remaining runs; a run that one of them needs and that is not listed has finished.
        engine: does them; it is stopped in the end.
        view: reports them.

    Returns:
        What failed, and what could not start for that reason.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; all that was running has been ended and can go on later. A further one
            does not cut that short.
    """
    queue = _Queue(runs)
    under_way: dict[str, Run] = {}
    interrupted = False
    with _terminated_as_interrupted(), interrupts_put_off(however_often=True) as interrupts:
        try:
            with interrupts.at_once():
                _carry_out(queue, under_way, engine, view)
        except KeyboardInterrupt:
            interrupted = True
            view.tell("interrupted: waiting for the current runs to end")
            raise
        finally:
            engine.stop()
            for run in under_way.values() if interrupted else ():
                view.stopped(run)
            view.close()
    return queue.failures


def _carry_out(queue: _Queue, under_way: dict[str, Run], engine: Engine, view: View) -> None:
    def tick() -> None:
        view.update(under_way.values())

    while queue or under_way:
        room = engine.room() - len(under_way)
        while room > 0:
            entry = queue.pop()
            if entry is None:
                break
            run, alone = entry
            under_way[run.name] = run
            engine.submit(run, alone)
            room -= 1
        tick()
        if under_way:
            for run, outcome in engine.wait(tick):
                del under_way[run.name]
                _note(run, outcome, queue, engine, view)
        else:
            time.sleep(0.2)  # what is in use is tried again later


def _note(run: Run, outcome: Outcome, queue: _Queue, engine: Engine, view: View) -> None:
    """Note how a run ended."""
    if outcome.ending is Ending.FINISHED:
        queue.finished(run)
        view.finished(run, outcome.seconds)
        return
    if outcome.ending is Ending.OUT_OF_MEMORY:
        if engine.shares_gpus and queue.once_more_alone(run):
            view.tell(f"GPU out of memory: {run.name}; it is tried once more, alone on its GPU")
            return
        outcome = Outcome(Ending.FAILED, f"GPU out of memory, alone on its GPU: {outcome.error}", outcome.seconds)
    if outcome.ending is Ending.IN_USE and queue.later(run):
        view.tell(f"in use: {run.name}; it is tried again in {IN_USE_PAUSE:g} s ({outcome.error})")
        return
    for failure in queue.failed(run, outcome.error):
        view.failed(failure.run, str(failure))


class _Queue:
    """The remaining runs. Those that can start are in the order in which they should start."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.failures: list[Failure] = []
        self._runs = {run.name: run for run in runs}
        if len(self._runs) < len(runs):
            raise ValueError("each run must have a name of its own")
        self._open = {run.name: {name for name in run.needs if name in self._runs} for run in runs}
        self._after: dict[str, list[str]] = defaultdict(list)
        for name, needs in self._open.items():
            for need in needs:
                self._after[need].append(name)
        self._order = {run.name: number for number, run in enumerate(runs)}
        self._ready: list[tuple[float, int, str]] = []
        self._alone: dict[str, bool] = {}  # whether those that run out of memory have been started again
        self._tries: dict[str, int] = defaultdict(int)
        self._paused: list[tuple[float, str]] = []
        for name, needs in self._open.items():
            if not needs:
                self._push(name)
        self._left = len(runs)
        self._check_order()

    def __bool__(self) -> bool:
        """Whether some run has neither been given out nor given up."""
        return bool(self._ready or self._paused)

    def pop(self) -> tuple[Run, bool] | None:
        """The next run and whether it must be alone on its GPU; None if none can start now."""
        now = time.monotonic()
        while self._paused and self._paused[0][0] <= now:
            self._push(heapq.heappop(self._paused)[1])
        if not self._ready:
            return None
        name = heapq.heappop(self._ready)[2]
        return self._runs[name], name in self._alone

    def finished(self, run: Run) -> None:
        """Note that a run has finished; what waits for it alone can start."""
        for name in self._after.pop(run.name, ()):
            self._open[name].discard(run.name)
            if not self._open[name]:
                self._push(name)

    def failed(self, run: Run, error: str) -> list[Failure]:
        """Note that a run has failed, and what cannot start without it; returns both, this one first."""
        failures, found = [Failure(run, error)], [run.name]
        for name in found:
            for after in self._after.pop(name, ()):
                if after not in found:
                    found.append(after)
                    failures.append(Failure(self._runs[after], f"not run, as it needs {run.name}", needed=True))
        self.failures += failures
        return failures

    def once_more_alone(self, run: Run) -> bool:
        """Put a run at the end of the queue, to be alone on its GPU; False if it has been so before."""
        if run.name in self._alone:
            return False
        self._alone[run.name] = True
        heapq.heappush(self._ready, (float("inf"), self._order[run.name], run.name))
        return True

    def later(self, run: Run) -> bool:
        """Try a run again after a pause; False if it has been tried too often."""
        self._tries[run.name] += 1
        if self._tries[run.name] >= IN_USE_TRIES:
            return False
        heapq.heappush(self._paused, (time.monotonic() + IN_USE_PAUSE, run.name))
        return True

    def _push(self, name: str) -> None:
        heapq.heappush(self._ready, (-self._runs[name].weight, self._order[name], name))

    def _check_order(self) -> None:
        """Raise ValueError if runs need each other in a circle."""
        reached = [name for name, needs in self._open.items() if not needs]
        left = {name: len(needs) for name, needs in self._open.items()}
        for name in reached:
            for after in self._after.get(name, ()):
                left[after] -= 1
                if not left[after]:
                    reached.append(after)
        if len(reached) < len(left):
            raise ValueError(f"these runs need each other: {', '.join(sorted(left.keys() - set(reached)))}")


def clear_logs(output: Path) -> None:
    """Remove the empty folders that logs of finished runs have left below an output folder."""
    for folder, _, _ in os.walk(output / LOGS, topdown=False):
        with suppress(OSError):  # a log of a failed run is there
            os.rmdir(folder)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which Slurm sends before it kills, does what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
