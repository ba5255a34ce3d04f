"""TensorBoard's log of a run that was cut: what was logged after the last checkpoint is taken out of its files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from storage.files import atomic_write

# A record is its length (8 bytes), a checksum of that (4), the event, and a checksum of that (4).
_HEAD, _TAIL = 12, 4


def drop_events(folder: str | Path, first_step: int, first_epoch: int) -> None:
    """Take out of the event files in a folder what a resumed run will log again.

    Args:
        folder: of the event files; may be missing.
        first_step: of `train/...`, whose values have the number of the training step.
        first_epoch: of `val/...`, whose values have the number of the epoch. All others are of the test at the end.
    """
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
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
