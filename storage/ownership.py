"""One owner per folder: of all processes, including those on other machines, only one writes a run.

    with own_folder("output/run") as owned:
        ...
        owned.check()  # before something is replaced

The folder's `.owner` says which process on which machine owns it. It is made as a hard link, which shared file systems
make in one place. So it appears whole, and only if there is none yet. Its time of change is renewed every `BEAT`
seconds. A process that has ended without removing the file owns nothing. On the same machine this is seen at once, from
the process's number and start. On another machine it is assumed after `SILENT` seconds without a sign of life, or
`SILENT_ENDED` seconds if Slurm has started this very job again, which it does once it has ended the job's processes, or
has lost their machine. A process that takes over from owner T links its own file as `.owner.<key of T>`, which only one
can do, and then renames it to `.owner`. So two processes that find the same dead owner never remove each other's file.
Ages are differences of times that the file system itself gives, so clocks may disagree.

This file stands alone, on Python's standard library: `python storage/ownership.py FOLDER` removes the logs of
a failed run from a folder that holds nothing else.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE_NAME = ".owner"
BEAT = 15.0  # seconds between two signs of life
SILENT = 300.0  # seconds without one, after which an owner on another machine is taken for dead
SILENT_ENDED = 60.0  # likewise, of the same Slurm job before it was put back into the queue
ATTEMPTS = 20  # while others come and go
BYTES = 4096  # that are read of an owner's file
LOGS = ("log.txt", "tensorboard", "wandb")  # what a run writes before its first checkpoint; log.txt-<date>, too
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EINVAL)


class Process(NamedTuple):
    """Identifies one process, even if a later one gets the same number. Its text can be part of a file name.

    Attributes:
        machine: where the number holds: one boot of a machine and, in a container, the container's process table.
        number: the process's number there.
        started: when it started, as the system counts, in letters and digits; "" if the system does not say.
    """

    machine: str
    number: int
    started: str

    def __str__(self) -> str:
        return f"{self.machine}-{self.number}-{self.started}"

    @classmethod
    def parse(cls, text: str) -> Process | None:
        """The process that a text identifies; None if it identifies none."""
        found = re.fullmatch(r"([0-9a-f]{12})-(\d{1,10})-(\w*)", text)
        return cls(found[1], int(found[2]), found[3]) if found else None

    def alive(self) -> bool | None:
        """Whether it runs; None for one on another machine."""
        if self.machine != this_machine() or os.name != "posix":
            return None
        try:
            os.kill(self.number, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):  # another user's
            pass
        now = _started(self.number)
        return now is None or not self.started or now == self.started


class Job(NamedTuple):
    """A job of Slurm.

    Attributes:
        cluster, number: identify it; it keeps both when it is put back into the queue.
        restarts: how often it has been put back.
    """

    cluster: str
    number: str
    restarts: int

    @classmethod
    def parse(cls, told: object) -> Job | None:
        """The job that a value from JSON stands for; None if it stands for none."""
        if not isinstance(told, list) or len(told) != 3:
            return None
        cluster, number, restarts = told
        texts = all(isinstance(text, str) and re.fullmatch(r"[\w.-]{1,64}", text) for text in (cluster, number))
        return cls(cluster, number, restarts) if texts and type(restarts) is int else None

    @classmethod
    def own(cls) -> Job | None:
        """The job that this process belongs to, if any."""
        given = os.environ
        restarts = given.get("SLURM_RESTART_COUNT", "0")
        if not re.fullmatch(r"\d{1,9}", restarts):
            return None
        return cls.parse([given.get("SLURM_CLUSTER_NAME", "-"), given.get("SLURM_JOB_ID", ""), int(restarts)])

    def ended(self) -> bool:
        """Whether this process belongs to the same job, and the job has been put back into the queue since."""
        now = Job.own()
        return now is not None and now[:2] == self[:2] and now.restarts > self.restarts


class Owner(NamedTuple):
    """What an owner's file says.

    Attributes:
        process: the owner.
        host: the name of its machine, for people.
        since: when it began, for people.
        key: a hash of the file's content, different for each owner.
        job: the job that the process belongs to, if any.
    """

    process: Process
    host: str
    since: str
    key: str
    job: Job | None = None

    def __str__(self) -> str:
        known = f"process {self.process.number} on {self.host} since {self.since}"
        return known if self.host else "a process that has not said which"


class FolderInUse(OSError):
    """Another process owns a folder.

    Attributes:
        folder: the folder.
        owner: who owns it.
    """

    def __init__(self, folder: Path, owner: Owner, silence: float | None = None) -> None:
        seen = "" if silence is None else f", which gave a sign of life {max(silence, 0.0):.0f} s ago"
        super().__init__(f"{folder} is in use by {owner}{seen}: wait until it has ended, or take another folder")
        self.folder, self.owner = folder, owner
        self._arguments = folder, owner, silence

    def __reduce__(self) -> tuple[type, tuple[Path, Owner, float | None]]:
        return type(self), self._arguments  # to pickle it for another process


class OwnershipLost(OSError):
    """This process was taken for dead, for example because it was stopped for long, and another one owns the folder."""


class Ownership:
    """A folder that this process owns.

    Attributes:
        folder: the folder.
        made: the folder and those around it that were made for it, innermost first.
    """

    def __init__(self, folder: Path, made: list[Path], key: str) -> None:
        self.folder, self.made = folder, made
        self._key = key
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="owner of a folder", daemon=True)
        self._beats.start()

    def check(self) -> None:
        """Raise OwnershipLost if another process has taken over, or the owner's file was removed."""
        owner = _read(self.folder / FILE_NAME)
        if owner is None or owner.key != self._key:
            other = f"{owner} has taken over" if owner else f"its {FILE_NAME} was removed"
            raise OwnershipLost(f"{self.folder} is no longer this process's: {other}; nothing more is written there")

    def discard_logs(self) -> None:
        """Remove logs from a folder that was made for this ownership, if nothing else is there."""
        if self.folder in self.made:
            remove_logs(self.folder)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):  # another one's now, or the network is away
                self.check()
                os.utime(self.folder / FILE_NAME)

    def _release(self) -> None:
        self._ended.set()
        self._beats.join(BEAT)  # the network may be away
        _remove_own(self.folder, self._key, self.made)


_owned: dict[tuple[int, int, str], Ownership] = {}  # by process, thread and folder


@contextmanager
def own_folder(path: str | os.PathLike[str]) -> Iterator[Ownership]:
    """The context in which this thread alone owns a folder, which is made if it is not there.

    If it owns the folder already, it keeps it. At the end, folders that were made for it and are empty are removed.

    Args:
        path: the folder.

    Raises:
        FolderInUse: another process or thread owns it; nothing has changed there.
        OSError: it cannot be made or written.
    """
    folder = Path(path).absolute()
    held = (os.getpid(), threading.get_ident(), os.path.realpath(folder))
    if held in _owned:
        yield _owned[held]
        return
    made: list[Path] = []
    content = _new_content()
    try:
        _acquire(folder, content, made)
    except BaseException:  # Ctrl-C, too
        _remove_own(folder, _key(content), made)
        raise
    ownership = _owned[held] = Ownership(folder, made, _key(content))
    try:
        yield ownership
    finally:
        if held[0] == os.getpid():  # not in a process that was forked off
            del _owned[held]
            ownership._release()


def owner_of(path: str | os.PathLike[str]) -> Owner | None:
    """The owner of a folder, dead or alive; None if there is none."""
    chain = _chain(Path(path))
    return chain[-1][1] if chain else None


def remove_logs(folder: Path) -> None:
    """Remove what a run writes before its first checkpoint, unless more is there; its owner's file stays.

    Args:
        folder: the run's folder; the caller owns it.
    """
    found = [path for path in folder.iterdir() if not path.name.startswith(FILE_NAME)]
    if all(path.name in LOGS or path.name.startswith(f"{LOGS[0]}-") for path in found):
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)  # on NFS what is still open stays
            else:
                path.unlink()


@cache
def this_machine() -> str:
    """Where process numbers of this process hold (`Process.machine`), until the machine is started again."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        name = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        name = f"{socket.gethostname()} {uuid.getnode():x}"
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def this_process() -> Process:
    """The process that calls."""
    return Process(this_machine(), os.getpid(), _started(os.getpid()) or "")


def _started(number: int) -> str | None:
    """When a process started; "ended" for a zombie; None if it is not known."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "ended" if fields[0] in "ZXx" else fields[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    command = ["ps", "-o", "lstart=", "-p", str(number)]
    with suppress(OSError):
        said = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
        return re.sub(r"\W", "", said.stdout) or None
    return None


def _new_content() -> bytes:
    """What the file of this process says, if it becomes the owner."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())[:255] or "a machine without a name"
    return json.dumps([*this_process(), host, since, uuid.uuid4().hex, Job.own()]).encode()


def _remove_own(folder: Path, key: str, made: list[Path]) -> None:
    """Remove the owner's file if it is this one, and folders that were made for it and are empty."""
    with suppress(OSError):
        owner = _read(folder / FILE_NAME)
        if owner is not None and owner.key == key:
            (folder / FILE_NAME).unlink()
    for place in made:
        with suppress(OSError):  # somebody has put something into it
            place.rmdir()


def _acquire(folder: Path, content: bytes, made: list[Path]) -> None:
    """Become the owner, whose file has this content, and note the folders that are made for it."""
    own = folder / f"{FILE_NAME}-{uuid.uuid4().hex}"
    for _ in range(ATTEMPTS):
        made[:] = [place for place in (folder, *folder.parents) if place in made or not place.exists()]
        try:
            _make(folder)
            chain = _chain(folder)
            if chain:
                _refuse_if_alive(folder, *chain[-1])
            _write(own, content)
            if chain and chain[-1][1].process.alive() is None:
                _refuse_unless_silent(folder, *chain[-1], own)
            place = folder / (f"{FILE_NAME}.{chain[-1][1].key}" if chain else FILE_NAME)
            _link(own, place, content)
            if _settle(folder, place, _key(content)):
                return
        except FileNotFoundError:  # the folder or one around it is gone with its owner, or a new owner has swept it
            pass
        finally:
            with suppress(FileNotFoundError, NotADirectoryError):
                own.unlink()
        time.sleep(0.05 * random.random())
    _make(folder)  # if no folder can ever be made, as below /proc, the system's own error says so
    raise OSError(errno.EAGAIN, "owners come and go too fast", str(folder))


def _make(folder: Path) -> None:
    """Make a folder and those around it.

    Raises:
        FileNotFoundError: another owner has removed one of them in the meantime.
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file, or a folder that has gone since
        place = Path(error.filename)
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise
        raise FileNotFoundError(errno.ENOENT, "it was removed", str(place)) from error


def _refuse_if_alive(folder: Path, _: Path, owner: Owner) -> None:
    if owner.process.alive():
        raise FolderInUse(folder, owner)


def _refuse_unless_silent(folder: Path, place: Path, owner: Owner, own: Path) -> None:
    """Raise FolderInUse if an owner on another machine gave a sign of life lately, by the file system's own clock.

    An owner from an earlier start of this Slurm job is waited for, until it gives another sign of life or has been
    silent for long enough.
    """
    ended = owner.job is not None and owner.job.ended()
    limit = SILENT_ENDED if ended else SILENT
    seen = place.stat().st_mtime
    while True:
        os.utime(own)
        last = place.stat().st_mtime
        silence = own.stat().st_mtime - last
        if silence > limit:
            return
        if not ended or last != seen:
            raise FolderInUse(folder, owner, silence)
        time.sleep(min(BEAT, limit - silence + 1.0))


def _settle(folder: Path, place: Path, key: str) -> bool:
    """Whether the chain of owners ends with this one, which then stands alone; else its file is withdrawn."""
    chain = _chain(folder)
    if not chain or chain[-1][1].key != key:
        mine = _read(place)
        if mine is not None and mine.key == key:
            place.unlink(missing_ok=True)
        return False
    if place.name != FILE_NAME:
        os.replace(place, folder / FILE_NAME)
    for left in folder.glob(f"{FILE_NAME}?*"):  # of processes that were killed here
        with suppress(OSError):
            left.unlink()
    return True


def _chain(folder: Path) -> list[tuple[Path, Owner]]:
    """The owners' files in order. Each but the first belongs to an owner that takes over from the one before."""
    chain: list[tuple[Path, Owner]] = []
    place = folder / FILE_NAME
    while place not in [before for before, _ in chain]:
        owner = _read(place)
        if owner is None:
            break
        chain.append((place, owner))
        place = folder / f"{FILE_NAME}.{owner.key}"
    return chain


def _read(place: Path) -> Owner | None:
    """What an owner's file says; None if there is no file. An unfinished file counts as an unknown process's."""
    try:
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it should be a file that tells the folder's owner", str(place))
        content = file.read(BYTES)
    try:
        machine, number, started, host, since, _, *job = json.loads(content)
        known = all(isinstance(text, str) for text in (machine, started, host, since)) and type(number) is int
        known = known and 0 < number < 2**31 and bool(re.fullmatch(r"[\w. -]{1,255} [\d :-]{1,30}", f"{host} {since}"))
    except (ValueError, TypeError, RecursionError):
        known = False
    if known:
        return Owner(Process(machine, number, started), host, since, _key(content), Job.parse(job[0] if job else None))
    return Owner(Process("", 0, ""), "", "", _key(content))


def _key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(own: Path, place: Path, content: bytes) -> None:
    """Give `own` a second name unless it is taken, which the chain of owners then shows."""
    try:
        os.link(own, place)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with suppress(FileExistsError):
            _write(place, content)


if __name__ == "__main__":
    with own_folder(sys.argv[1]) as _owner:
        remove_logs(_owner.folder)
