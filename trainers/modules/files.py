"""Files that are written whole or not at all."""

from __future__ import annotations

import glob
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED_AFTER = 24 * 3600  # seconds after which a half-written file cannot belong to a running process


@contextmanager
def atomic_write(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """A path beside `path` to write to. Its file takes the place of `path` once the block is done.

    A reader finds the old file or the new one, never half of it. That holds after a power failure too, where the file
    system can: the data are on the disk before the name is, and the name before this returns. An error in the block
    leaves the old file. Several processes may write the same path at once, and the last one to finish is kept. What a
    killed process left behind is removed by a later call for the same path once it is a day old.

    Args:
        path: of the file; its folder exists.
        replace: whether a file that is there already, or was written by another process in the meantime, is replaced.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    remove_abandoned(path)
    part = part_of(path)
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        if replace or not _settled(part, path):
            os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """A name beside `path` for what is being written: hidden, and of this call alone."""
    return path.with_name(f".{path.name}-{uuid.uuid4().hex}.part")


def abandoned(path: Path) -> Iterator[Path]:
    """What calls of `part_of` for this path have left behind for a day."""
    for part in path.parent.glob(f".{glob.escape(path.name)}-*.part"):
        with suppress(FileNotFoundError):  # its process has just finished
            if time.time() - part.stat().st_mtime > ABANDONED_AFTER:
                yield part


def remove_abandoned(path: Path) -> None:
    """Remove the files that `abandoned` finds."""
    for part in abandoned(path):
        with suppress(OSError):  # of another user, say; that is no reason not to write
            part.unlink()


def _settled(part: Path, path: Path) -> bool:
    """Give the file its name unless a file has it already; False where the file system has no links and none has it."""
    try:
        os.link(part, path)  # unlike a rename, this fails if the file exists
    except FileExistsError:
        return True
    except OSError:
        return path.exists()
    return True


def _sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the file system can: some network mounts refuse."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
