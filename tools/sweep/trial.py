"""Try a sweep on two Ray nodes of this machine while a worker, a node and the driver are killed.

    python -m tools.sweep.trial [--output FOLDER] [--data FOLDER]

It runs a small base-to-new sweep on the embedded digits one by one, and then again on a Ray cluster of two nodes.
There a worker, a node and the sweep's own process are killed, each in the middle of a training. A node is added in the
place of the dead one, and the sweep is started again. Meanwhile it looks ten times a second which programs run: no
folder may have two at once. In the end all figures, predictions and trained parameters must be those of the first
time. Needs Linux and Ray; takes some five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tools.common.commands import argument_parser
from tools.common.paths import ROOT
from tools.common.waiting import wait_for
from tools.sweep.view import duration, progress_of
from tools.sweep.work import tail

PROGRAM = "train.py"
PARENT, SESSION = 1, 3  # places in /proc/<number>/stat after the name
SWEEP = ["base2new", "--trainers", "CDC/tiny_text", "CoOp", "--datasets", "digits", "--seeds", "1"]
SETTINGS = ["OPTIM.MAX_EPOCH", "40", "TRAIN.CHECKPOINT_FREQ", "1"]
Found = TypeVar("Found")
STARTS = 3  # tries to start a part of the cluster
PATIENCE = 900.0  # seconds until something must have happened


class Watch:
    """Looks which programs write below an output folder.

    A program is a session of processes: a script, its `train.py`, and what that starts to read images. It counts
    as writing to a run once it has opened the run's log, which it does once it owns the folder.

    Attributes:
        twice: folders that two programs had at once.
        seen: the programs that have written to each folder.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.twice: set[str] = set()
        self.seen: dict[str, set[int]] = defaultdict(set)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            found: dict[str, set[int]] = defaultdict(set)
            for process, folder in programs(self.output):
                if f"{folder}/log.txt" in _open_files(process):
                    found[folder].add(_field(process, SESSION))
            for folder, sessions in found.items():
                self.seen[folder] |= sessions
                if len(sessions) > 1:
                    self.twice.add(folder)


def programs(output: Path) -> list[tuple[int, str]]:
    """The number of each process of a `train.py` that writes below an output folder, and its run's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        arguments = _arguments(int(entry.name)) if entry.name.isdigit() else []
        if PROGRAM in arguments and "--output-dir" in arguments:
            folder = arguments[arguments.index("--output-dir") + 1]
            if folder.startswith(f"{output}/"):
                found.append((int(entry.name), folder))
    return found


def _open_files(process: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):  # closed since
                found.add(os.readlink(link))
    return found


def _arguments(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _field(process: int, number: int) -> int:
    """A number in what Linux says of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[number])
    except OSError:
        return 0


def _ancestors(process: int) -> list[int]:
    found = []
    while process > 1:
        process = _field(process, PARENT)
        found.append(process)
    return found


def started(start: Callable[[], Found]) -> Found:
    """A part of a Ray cluster. Ray gives up after half a minute, which may be too short on a busy machine."""
    for _ in range(STARTS - 1):
        with suppress(Exception):  # a plain one
            return start()
    return start()


class Trial:
    """The trial, in a folder of its own."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.output = folder / "cluster"
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{duration(time.monotonic() - self.started)} {text}", flush=True)

    def sweep(self, output: Path, *options: str) -> subprocess.Popen:
        """Start the sweep; what it prints is added to a log beside its output."""
        environment = {
            **os.environ,
            "DATA": str(self.data),
            "OUTPUT": str(output),
            "SHOTS": "4",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "tools.sweep", *SWEEP, *options, *SETTINGS]
        with output.with_suffix(".log").open("a") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def wait_for(self, what: str, found: Callable[[], Found | None]) -> Found:
        """Wait until something is found, and return it.

        Raises:
            TimeoutError: it is not found in `PATIENCE` seconds.
        """
        try:
            return wait_for(found, PATIENCE, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {self.output}.log says more") from None

    def in_the_middle(self, raylet: int | None = None) -> tuple[int, str, str] | None:
        """The process of a training that has done a part of its epochs, its folder, and how far it is in words.

        If a node's raylet is given, only a training on that node counts. The log must be the process's own: when a run
        is started again, its dead program's log is still there.
        """
        for process, folder in programs(self.output):
            log = f"{folder}/log.txt"
            share = progress_of(tail(Path(log))) if log in _open_files(process) else None
            if share and 0.1 < share < 0.9 and (raylet is None or raylet in _ancestors(process)):
                return process, folder, f"at {share:.0%} of its steps"
        return None

    def run(self) -> list[str]:
        """Run the trial; returns what was wrong."""
        from ray.cluster_utils import Cluster

        sequential = self.folder / "sequential"
        if self.sweep(sequential, "--one-by-one").wait():
            return [f"the sweep one by one failed: {sequential}.log"]
        self.say("one by one: all runs have finished")
        watch = Watch(self.output)
        head = {"num_cpus": 0, "include_dashboard": False}
        cluster = started(lambda: Cluster(initialize_head=True, head_node_args=head))
        nodes = [started(lambda: cluster.add_node(num_cpus=1)) for _ in range(2)]
        try:
            driver = self.sweep(self.output, "--address", cluster.address)
            self.say("a cluster of two nodes, and the sweep on it")

            process, folder, far = self.wait_for("training", self.in_the_middle)
            worker = next(number for number in _ancestors(process) if "ray::" in " ".join(_arguments(number)))
            os.kill(worker, signal.SIGKILL)
            self.say(f"killed the worker of {self.name(folder)}, {far}")
            self.wait_for("end of its program", lambda: process not in dict(programs(self.output)))
            self.say("its program has ended, too")

            raylet = nodes[1].all_processes["raylet"][0].process.pid
            _, folder, far = self.wait_for("training on the second node", lambda: self.in_the_middle(raylet))
            cluster.remove_node(nodes[1], allow_graceful=False)
            self.say(f"killed the node of {self.name(folder)}, {far}")
            started(lambda: cluster.add_node(num_cpus=1))
            self.say("added another node")
            time.sleep(5)

            _, folder, far = self.wait_for("training", self.in_the_middle)
            driver.kill()
            driver.wait()
            self.say(f"killed the driver while it had {self.name(folder)} run, {far}")
            self.wait_for("end of its programs", lambda: not programs(self.output))
            self.say("no program of it runs any more; the same command once more")
            driver = self.sweep(self.output, "--address", cluster.address)
            status = driver.wait()
            self.say(f"it ended with exit status {status}")
        finally:
            watch.close()
            cluster.shutdown()
        problems = [f"{self.name(folder)} ran twice at once" for folder in sorted(watch.twice)]
        if status:
            problems.append(f"the sweep on the cluster failed: {self.output}.log")
        again = sum(len(processes) > 1 for processes in watch.seen.values())
        self.say(f"{len(watch.seen)} folders were written, {again} of them by several programs, one after the other")
        return problems + compare(sequential, self.output)

    def name(self, folder: str) -> str:
        return os.path.relpath(folder, self.output)


def compare(one: Path, other: Path) -> list[str]:
    """What differs between the results, predictions and trained parameters below two output folders."""
    import numpy as np
    import torch

    problems = []
    runs = sorted(path.parent.relative_to(one) for path in one.rglob("results.json"))
    if runs != sorted(path.parent.relative_to(other) for path in other.rglob("results.json")):
        problems.append("not the same runs have finished")
    for run in runs:
        contents = [json.loads((output / run / "results.json").read_text()) for output in (one, other)]
        if contents[0]["figures"] != contents[1]["figures"]:
            problems.append(f"{run}: figures differ")
        with np.load(one / run / "predictions.npz") as left, np.load(other / run / "predictions.npz") as right:
            if not all(np.array_equal(left[name], right[name]) for name in left.files):
                problems.append(f"{run}: predictions differ")
        models = sorted((one / run).glob("*/model.pth.tar-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        if models:
            paths = (models[-1], other / models[-1].relative_to(one))
            states = [torch.load(path, map_location="cpu", weights_only=True)["state_dict"] for path in paths]
            if not all(torch.equal(states[0][name], states[1][name]) for name in states[0]):
                problems.append(f"{run}: trained parameters differ")
    print(f"{len(runs)} runs compared: figures, predictions, trained parameters", flush=True)
    return problems


def main() -> None:
    parser = argument_parser("tools.sweep.trial", __doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "sweep_trial", help="must not be there yet")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of the data sets")
    args: argparse.Namespace = parser.parse_args()
    output = args.output.absolute()
    if output.exists():
        parser.error(f"{output} is there: remove it, or give another --output")
    output.mkdir(parents=True)
    problems = Trial(output, args.data.absolute()).run()
    for problem in problems:
        print(f"wrong: {problem}")
    print("the trial failed" if problems else "all runs ended, and nothing differs from the runs one by one")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
