"""Runs of `train.py` and of tools as processes that are forked off one which has imported everything, to be killed.

    python tests/faults/forks.py

reads one request per line from its standard input, JSON, and answers each with a line. `Forks` is who asks. A process
may end itself as if it were killed just before its n-th step on the way to the disk: a file that is opened for writing,
an fsync, a link, a rename or a removal, below given folders.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"os.rename": 2, "os.link": 2, "os.remove": 1}  # and how many paths each has
LIMIT = 300.0  # seconds that any run may take


class Forks:
    """Asks for processes.

    Args:
        log: file for what the processes print.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT
        )

    def close(self) -> None:
        """End the process that is forked."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, program, *arguments, below=(), kill_at=0, log=None) -> int:
        """Start a program, and return the number of its process.

        Args:
            program: a file or module.
            arguments: of its command line.
            below: folders whose steps count.
            kill_at: the step at which it kills itself; 0 for none.
            log: where its output goes.
        """
        return self._ask(
            program=program,
            arguments=[str(argument) for argument in arguments],
            below=[str(folder) for folder in below],
            kill_at=kill_at,
            log=str(log or self.log),
        )

    def wait(self, number: int) -> int:
        """The exit status of a process once it has ended, below 0 where a signal ended it.

        Raises:
            TimeoutError: it does not end.
        """
        status = self._ask(wait=number)
        if status is None:
            raise TimeoutError(f"still running after {LIMIT:.0f} seconds")
        return status

    def run(self, *arguments, **options) -> int:
        """Start a program and wait for its end."""
        return self.wait(self.start(*arguments, **options))

    def said(self) -> str:
        """What the processes have printed."""
        return self.log.read_text(errors="replace")

    def _ask(self, **request):
        self._process.stdin.write(json.dumps(request) + "\n")
        return json.loads(self._process.stdout.readline())


def _count_steps(below: list[str], kill_at: int, record: str) -> None:
    """Count this process's steps to the disk, into a file where there is one, and kill it at one of them."""
    folders = tuple(os.path.join(folder, "") for folder in below)
    steps = 0

    def step(*paths) -> None:
        nonlocal steps
        named = (os.path.abspath(os.fsdecode(path)) for path in paths if isinstance(path, (str, bytes, os.PathLike)))
        if not any(f"{path}/".startswith(folders) for path in named):
            return
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, arguments) -> None:
        if event in STEPS:
            step(*arguments[: STEPS[event]])
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            step(arguments[0])

    fsync = os.fsync

    def counted(descriptor) -> None:
        step(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    os.fsync = counted
    sys.addaudithook(hook)
    if record:
        import atexit

        atexit.register(lambda: Path(record).write_text(str(steps)))


def _become(program: str, arguments: list[str], below: list[str], kill_at: int, log: str) -> None:
    """Run a program in this process, which was forked for it, and end."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [program, *arguments]
    if below:
        _count_steps(below, kill_at, f"{log}.steps" if not kill_at else "")
    status = 1
    try:
        runpy.run_path(program, run_name="__main__") if program.endswith(".py") else runpy.run_module(
            program, run_name="__main__"
        )
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        import atexit

        sys.stdout.flush()
        atexit._run_exitfuncs()
        os._exit(status)


def _serve() -> None:
    sys.path.insert(0, str(ROOT))
    import compat  # noqa: F401

    import torch

    import datasets  # noqa: F401
    import tools.predict.classify  # noqa: F401
    import trainers

    trainers.register()
    import torch.utils.tensorboard
    from torch.utils import collect_env

    from trainers.modules import provenance
    from trainers.modules.loading import tokenize

    torch.set_num_threads(1)
    tokenize("")  # what is read once
    # And what takes other programs, pip and git.
    provenance.commit_of()
    machine = collect_env.get_pretty_env_info()
    collect_env.get_pretty_env_info = lambda: machine
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answers.write(json.dumps(_wait(request["wait"])) + "\n")
            continue
        child = os.fork()
        if child == 0:
            _become(**request)
        answers.write(f"{child}\n")


def _wait(child: int) -> int | None:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    _serve()
