"""TensorBoard's log: what a run that was cut has logged after its last checkpoint, and a log that cannot be written."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.files import atomic_write

# A record is its length (8 bytes), a checksum of that (4), the event, and a checksum of that (4).
_HEAD, _TAIL = 12, 4
_WRITER = "tensorboard."  # the package of TensorBoard's own thread, which writes the log


@contextmanager
def writer_tells_once() -> Iterator[None]:
    """The context in which an OSError of TensorBoard's own thread is raised where something is logged, and only there.

    TensorBoard raises it again in whichever thread logs next. Python's traceback of it is left out.
    """
    before = threading.excepthook

    def hook(uncaught: threading.ExceptHookArgs) -> None:
        of_writer = type(uncaught.thread).__module__.startswith(_WRITER)
        if not (of_writer and issubclass(uncaught.exc_type, OSError)):
            before(uncaught)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def naming(folder: str | Path) -> Iterator[None]:
    """The context in which an OSError that names no file names this folder of event files.

    Raises:
        OSError: with the name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error


def drop_events(folder: str | Path, first_step: int, first_epoch: int) -> None:
    """Take out of the event files in a folder what a resumed run will log again.

    Args:
        folder: of the event files; may be missing.
        first_step: of `train/...`, whose values have the number of the training step.
        first_epoch: of `val/...`, whose values have the number of the epoch. All others are of the test at the end.
    """
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        kept = b"".join(
            record for record in _records(content) if not _is_dropped(record[_HEAD:-_TAIL], first_step, first_epoch)
        )
        if kept != content:
            with atomic_write(path) as part:
                part.write_bytes(kept)


def _records(content: bytes) -> Iterator[bytes]:
    """The whole records of a file; a killed process may leave a part of one at the end."""
    start = 0
    while start + _HEAD <= len(content):
        end = start + _HEAD + struct.unpack_from("<Q", content, start)[0] + _TAIL
        if end > len(content):
            return
        yield content[start:end]
        start = end


def _is_dropped(data: bytes, first_step: int, first_epoch: int) -> bool:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event  # takes a second to import

    try:
        event = Event.FromString(data)
    except DecodeError:  # as a power failure may leave it; TensorBoard stops reading there
        return True
    firsts = {"train": first_step, "val": first_epoch}
    return any(event.step >= firsts.get(value.tag.split("/")[0], 0) for value in event.summary.value)
