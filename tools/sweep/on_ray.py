"""The engine on Ray: one task for each run, on a cluster or on all GPUs and cores of this machine."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported: nothing is reported to anyone

import ray
from ray.exceptions import RayError, TaskCancelledError

from storage.interrupts import interrupts_put_off
from storage.safe_text import escaped, last_line
from tools.common.paths import ROOT
from tools.sweep.work import LONGEST, Ending, Outcome, Run

RETRIES = 5  # of a run whose worker or node has died
OBJECTS = 80 * 2**20  # bytes of the object store here, in which a run leaves nothing
LOOK = 5.0  # seconds after which the cluster is asked again how large it is


def _task(root: str) -> Callable[[bytes], Outcome]:
    """The function that workers run. It is a local one, which Ray sends as it is: workers import from `root`."""

    def work(pickled: bytes) -> Any:
        import pickle
        import signal
        import sys

        # Ray cancels a run by Python's handler. Workers have none if whatever started Ray ignores Ctrl-C, as all that a
        # script starts in the background does. They would then be killed, and so would their programs.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if root not in sys.path:
            sys.path.insert(0, root)
        from tools.sweep.work import perform

        return perform(*pickle.loads(pickled))

    return work


class RayEngine:
    """Does runs on a Ray cluster.

    Args:
        address: an existing cluster's address; None to start a cluster on this machine.
        gpus_per_run: a part of a GPU or whole ones; None for one if the cluster has any.
        cpus_per_run: cores.
        cpus: how many cores of this machine a cluster that is started here takes; None for all.

    Raises:
        ConnectionError: there is no cluster at the address that can be used, or Ray does not start on this machine.
        ValueError: the cluster has less than one run needs.
    """

    def __init__(
        self, address: str | None, gpus_per_run: float | None, cpus_per_run: float, cpus: int | None = None
    ) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address:
            _check_address(address)
            options: dict[str, Any] = {"address": address}
            hint = "if the cluster has a token, RAY_AUTH_MODE must be token"
        else:
            store = {"include_dashboard": False, "object_store_memory": OBJECTS}
            options = {"address": "local", "num_cpus": cpus, **store}
            hint = "try again if the machine is busy; --one-by-one does without Ray"
        try:
            ray.init(**options, **quiet)
        except Exception as error:  # Ray raises a plain one if it has not started after half a minute
            ray.shutdown()
            where = f"the Ray cluster at {address} cannot be used" if address else "Ray did not start"
            raise ConnectionError(f"{where}: {' '.join(str(error).split())} ({hint})") from error
        try:
            self._resources = ray.cluster_resources()
            self._asked = monotonic()
            if gpus_per_run is None:
                gpus_per_run = 1.0 if self._resources.get("GPU") else 0.0
            self._needs = {"CPU": cpus_per_run, "GPU": gpus_per_run}
            for name, needed in self._needs.items():
                if needed > self._resources.get(name, 0.0):
                    there = self._resources.get(name, 0.0)
                    raise ValueError(f"a run needs {needed:g} {name}, and the cluster has {there:g}")
        except BaseException:
            ray.shutdown()
            raise
        self.shares_gpus = 0 < gpus_per_run < 1
        remote = ray.remote(max_retries=RETRIES)(_task(str(ROOT)))
        needs = {alone: 1.0 if alone else gpus_per_run for alone in (False, True)}
        # All tasks share one name, because Ray's client keeps some 2 KiB for every different task name.
        common: dict[str, Any] = {"num_cpus": cpus_per_run, "name": "tools.sweep"}
        self._tasks = {alone: remote.options(num_gpus=gpus, **common) for alone, gpus in needs.items()}
        self._runs: dict[Any, Run] = {}

    @property
    def slots(self) -> int:
        """How many runs the cluster has room for now."""
        if monotonic() - self._asked > LOOK:  # nodes come and go
            self._resources, self._asked = ray.cluster_resources(), monotonic()
        places = [self._resources.get(name, 0.0) / needed for name, needed in self._needs.items() if needed]
        return max(int(min(places, default=1.0) + 1e-6), 1)

    def room(self) -> int:
        return 2 * self.slots  # one that waits for each that runs, so that no place stays empty

    def submit(self, run: Run, alone: bool) -> None:
        with interrupts_put_off(however_often=True):  # `stop` ends what is noted
            self._runs[self._tasks[alone].remote(pickle.dumps((run.task, run.log)))] = run

    def wait(self, tick: Callable[[], None]) -> list[tuple[Run, Outcome]]:
        references = list(self._runs)
        if ray.wait(references, num_returns=1, timeout=1.0)[0]:
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
            return [(self._runs.pop(reference), _outcome(reference)) for reference in ready]
        return []

    def stop(self) -> None:
        """Interrupt all runs, and wait until they have ended."""
        try:
            for reference in self._runs:
                ray.cancel(reference, force=False)
            if self._runs:
                ray.wait(list(self._runs), num_returns=len(self._runs), timeout=60)
        finally:
            self._runs.clear()
            ray.shutdown()


def _check_address(address: str) -> None:
    """Raise ConnectionError at once if nothing answers; Ray would wait for minutes."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdigit() and "://" not in address:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"there is no Ray cluster at {address}: {error}") from error


def _outcome(reference: Any) -> Outcome:
    try:
        return ray.get(reference)
    except TaskCancelledError:
        return Outcome(Ending.FAILED, "interrupted")
    except RayError as error:
        said = escaped(f"{type(error).__name__}: {last_line(error)}")
        return Outcome(Ending.FAILED, f"its worker died {RETRIES + 1} times, or Ray failed: {said}"[:LONGEST])
