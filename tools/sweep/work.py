"""Doing one run in whatever process: its log, the program that it starts, and how it ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from storage.interrupts import interrupts_put_off
from storage.safe_text import escaped, last_line
from tools.common.paths import ROOT
from tools.common.scripts import SCRIPT_VARIABLES

# Environment variables of the machine that would make a script do something else than planned
OTHER_VARIABLES = (*SCRIPT_VARIABLES, "ASK", "SOURCE")
TAIL = 8192  # bytes at the end of a log in which its last lines stand
LONGEST = 300  # characters of an error
GRACE = 30.0  # seconds that a program has to end after SIGTERM

OUT_OF_MEMORY = re.compile(
    r"(CUDA|HIP|MPS)( backend)?( error:)? out of memory|OutOfMemoryError|CU(BLAS|DNN)_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
IN_USE = re.compile(r" is in use by ")  # in the words of storage.ownership

# Reads the number of a process group, and ends the group if the program that wrote it goes away before it writes more.
# It is not a child of that program: when Ray ends a worker, it kills the worker's children, and only these.
_GUARD = """
(
    read -r group || exit 0
    read -r _ && exit 0
    kill -TERM -- "-$group" 2> /dev/null
    for ((i = 0; i < 2 * GRACE; i++)); do
        kill -0 -- "-$group" 2> /dev/null || exit 0
        sleep 0.5
    done
    kill -KILL -- "-$group"
) <&0 &
""".replace("GRACE", f"{GRACE:.0f}")


class Ending(Enum):
    """How a run ended."""

    FINISHED = "finished"
    FAILED = "failed"
    OUT_OF_MEMORY = "GPU out of memory"
    IN_USE = "in use"  # another process has its folder


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ending: how.
        error: why it did not finish, in one line.
        seconds: how long it took.
    """

    ending: Ending
    error: str = ""
    seconds: float = 0.0


class CommandFailed(Exception):
    """A program ended with an error; its output says which."""


Task = Callable[[Path, Callable[[], None]], None]  # gets its log, and a function to call now and then while it waits


@dataclass(frozen=True)
class Run:
    """One run as the engine knows it.

    Attributes:
        name: for people; each run has another.
        task: does it; is pickled if another process does it.
        log: file of what it prints, while it runs and if it fails.
        needs: names of runs that must have finished before.
        weight: the larger, the earlier, among those that can start.
        seconds: how long it is expected to take; None if unknown.
        watched: file whose end says how far it is; the log if None.
    """

    name: str
    task: Task
    log: Path
    needs: tuple[str, ...] = ()
    weight: float = 0.0
    seconds: float | None = None
    watched: Path | None = None


@dataclass(frozen=True)
class Command:
    """A program as a task. Whatever ends the process that runs it ends the program and all that it has started.

    On Ctrl-C the program gets SIGTERM, and this process waits for it to end. After `GRACE` seconds it is killed. That
    holds whenever Ctrl-C comes, and however often.

    Attributes:
        arguments: the program and its arguments.
        environment: variables besides those of the machine that it runs on. Without `PYTHON`, scripts run the Python
            that runs this task.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __call__(self, log: Path, tick: Callable[[], None]) -> None:
        """Run it, with its output in `log`.

        Raises:
            CommandFailed: it ended with an error.
        """
        kept = {name: value for name, value in os.environ.items() if name not in OTHER_VARIABLES}
        environment = {**kept, "PYTHON": sys.executable, **self.environment}
        with interrupts_put_off(however_often=True) as interrupts, log.open("ab") as output, _guard() as guard:
            process = subprocess.Popen(
                self.arguments,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                guard(process.pid)
                with interrupts.at_once():
                    while _still_running(process, 1.0):
                        tick()
            finally:
                _end_group(process)
        if process.returncode:
            raise CommandFailed(_ended(process.returncode))


def perform(task: Task, log: Path, tick: Callable[[], None] = lambda: None) -> Outcome:
    """Do a run.

    Its log begins with the machine that does it. The log stays if the run fails, and is removed if it finishes.

    Args:
        task: what is to be done.
        log: file of its output.
        tick: is called about once a second while the task waits for another program.

    Returns:
        How it ended, including any error that the task meets.
    """
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"on {_where()}\n", encoding="utf-8")
    try:
        task(log, tick)
    except CommandFailed as error:
        lines = tail(log).splitlines()
        said = next((line for line in reversed(lines[-30:]) if line.strip()), "").strip()
        return _failed("\n".join(lines[-30:]), f"{said} ({error})", time.monotonic() - started)
    except Exception as error:  # whatever one run meets, the others go on
        with log.open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        said = f"{type(error).__name__}: {last_line(error)}"
        return _failed(said, said, time.monotonic() - started)
    log.unlink(missing_ok=True)
    return Outcome(Ending.FINISHED, "", time.monotonic() - started)


def tail(path: Path) -> str:
    """The end of a text file; empty if it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - TAIL, 0))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _end_group(process: subprocess.Popen) -> None:
    """End a program that leads a group of processes by SIGTERM, and then kill the rest of the group."""
    if process.poll() is None:
        process.terminate()
        _still_running(process, GRACE)
    with suppress(ProcessLookupError, PermissionError):  # macOS has the latter of groups that have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _still_running(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


@contextmanager
def _guard() -> Iterator[Callable[[int], None]]:
    """A process that ends a group of processes when this one is killed; yields the function that names the group."""
    with subprocess.Popen(
        ["bash", "-c", _GUARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as starts:

        def tell(text: object) -> None:
            if starts.stdin:
                starts.stdin.write(f"{text}\n".encode())
                starts.stdin.flush()

        starts.wait()
        try:
            yield tell
        finally:
            with suppress(BrokenPipeError):
                tell("ended")


def _ended(status: int) -> str:
    number = -status if status < 0 else status - 128  # a shell reports its program's signal as 128 plus the number
    try:
        return f"ended by {signal.Signals(number).name}"
    except ValueError:
        return f"exit status {status}"


def _failed(text: str, error: str, seconds: float) -> Outcome:
    ending = Ending.FAILED
    if OUT_OF_MEMORY.search(text):
        ending = Ending.OUT_OF_MEMORY
    elif IN_USE.search(error):
        ending = Ending.IN_USE
    error = escaped(" ".join(error.split()))
    return Outcome(ending, error if len(error) <= LONGEST else f"{error[: LONGEST - 1]}…", seconds)


def _where() -> str:
    """This machine and the GPUs that this process has."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return socket.gethostname() + (f", GPU {gpus}" if gpus else "")
