"""Atomic and durable writing of files."""

from __future__ import annotations

import ctypes
import glob
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .ownership import Process, this_process

ABANDONED_AFTER = 24 * 3600.0  # seconds after which nothing half-written can be a running process's
_PART = re.compile(r"\..+-(?P<process>[0-9a-f]{12}-\d+-\w*)-[0-9a-f]{8}\.part|\..+-[0-9a-f]{32}\.part", re.DOTALL)


@contextmanager
def atomic_write(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """A path beside `path` to write to. Its file takes the place of `path` once the block is done.

    A reader finds the old file or the new one, never half of it. This also holds after a power failure, if the file
    system can do this: the data reach the disk before the name does, and the name does so before this call returns. An
    error in the block leaves the old file. Several processes may write the same path at once, and the last one to
    finish is kept. What a killed process left behind is removed by a later call for the same path, and by `sweep`.

    Args:
        path: the file's path; its folder exists.
        replace: whether a file that is there already, or was written by another process in the meantime, is replaced.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}-*.part"):
        _remove_abandoned(left, ABANDONED_AFTER)
    part = part_of(path)
    try:
        yield part
        put(part, path, replace)
    except OSError as error:  # a write to a full disk does not say where
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def put(part: str | Path, path: str | Path, replace: bool = True) -> None:
    """Rename a written file durably: first its data are flushed to the disk, then its name.

    Args:
        part: the file, in the same file system. Unless it is renamed, it stays.
        path: its name from now on.
        replace: whether a file that has the name is replaced.

    Raises:
        OSError: the disk is full or the folder not writable.
    """
    with open(part, "r+b") as file:
        os.fsync(file.fileno())
    if replace or not _settled(Path(part), Path(path)):
        os.replace(part, path)
    _sync_folder(os.path.dirname(path) or ".")


def put_folder(part: str | Path, path: str | Path) -> None:
    """Rename a folder as `put` does, after everything in it has been flushed to the disk.

    Raises:
        OSError: the disk is full, the folder around it not writable, or `path` is there and not an empty folder.
    """
    _sync_tree(part)
    os.rename(part, path)
    _sync_folder(os.path.dirname(path) or ".")


def part_of(path: Path) -> Path:
    """A name beside `path` for what is being written: hidden, and of this process and this call alone."""
    return path.with_name(f".{path.name}-{this_process()}-{uuid.uuid4().hex[:8]}.part")


def sweep(folder: str | Path, below: bool = False, abandoned_after: float = ABANDONED_AFTER) -> None:
    """Remove what killed processes were writing when they were killed: files and folders that `part_of` has named.

    What a running process writes stays. Whether a process on another machine runs is not known; what it was writing is
    removed once it has not been written to for long.

    Args:
        folder: where to look. If it cannot be read or written, nothing happens.
        below: whether to look in all folders below it, too.
        abandoned_after: after how many seconds without a change the files of a process on another machine are removed.
    """
    with suppress(OSError):
        for place in list(os.scandir(folder)):
            if _PART.fullmatch(place.name):
                _remove_abandoned(Path(place.path), abandoned_after)
            elif below and place.is_dir(follow_symlinks=False):
                sweep(place.path, below, abandoned_after)


def _remove_abandoned(part: Path, abandoned_after: float) -> None:
    """Remove a file or folder that `part_of` or an earlier version of it has named, unless a process may write it."""
    found = _PART.fullmatch(part.name)
    if not found:
        return
    process = Process.parse(found["process"] or "")
    alive = process.alive() if process else None
    with suppress(OSError):  # its process has just finished, or it is another user's
        if alive is None:
            alive = time.time() - part.lstat().st_mtime < abandoned_after
        if not alive:
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part)
            else:
                part.unlink()


def _settled(part: Path, path: Path) -> bool:
    """Give the file its name unless another file has it.

    False if the file system has no links and no file has the name.
    """
    try:
        os.link(part, path)  # unlike a rename, this fails if the file exists
    except FileExistsError:
        return True
    except OSError:
        return path.exists()
    return True


def _sync_folder(folder: str | Path) -> None:
    """Flush a folder's names to the disk, if the file system can: some network mounts refuse."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_tree(folder: str | Path) -> None:
    """Flush everything in a folder to the disk: on Linux the whole file system, which is faster."""
    syncfs = getattr(ctypes.CDLL(None), "syncfs", None) if os.name == "posix" else None
    if syncfs:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if syncfs(descriptor) == 0:
                return
        finally:
            os.close(descriptor)
    for place, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(place, name), "r+b") as file:
                os.fsync(file.fileno())
        _sync_folder(place)
