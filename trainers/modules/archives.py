"""Opening files of `torch.save` and of TorchScript, of any origin, without running anything that is in them.

Both are a zip file with one pickle, `data.pkl`, and one uncompressed record for each storage of tensors; before PyTorch
1.6, `torch.save` wrote pickles and storages one after the other. All of these may be compressed with gzip. The pickle
is read as data (`inert_pickle`), storages as bytes. The code in a TorchScript archive is not looked at.

Nothing in the file is trusted, and nothing of it is written anywhere: a name is only compared, a size is compared with
what the file holds before memory is taken for it, and depth, number of records and unpacked size are bounded. Python's
`zipfile`, `gzip` and `pickletools` are trusted.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from storage.safe_text import escaped

from .inert_pickle import NAME_LENGTH, Foreign, Storage, StoredTensor, Unreadable, read_pickle

RECORDS = 65_536  # in a zip file
DIRECTORY_BYTES = 16 << 20  # of its list of records
PICKLE_BYTES = 32 << 20
DEPTH = 50  # of modules in modules, and of lists in lists
VALUES = 500_000  # in a file
TENSORS = 20_000  # of a module
SHARING = 4  # tensors that a stored value may be part of, on average
# What gzip may unpack: weights shrink little, single-precision values that are half-precision ones to a half.
UNPACKED_BYTES = 256 << 20
UNPACKED_RATIO = 4
LEGACY = 0x1950A86A20F9469CFC6C, 1001  # what files of PyTorch before 1.6 begin with


class Saved:
    """An opened file.

    Attributes:
        content: plain data, with a `StoredTensor` for each tensor and a `Foreign` for whatever else.
    """

    def __init__(self, content: object, read_storage: Callable[[Storage], bytearray]) -> None:
        self.content = content
        self._read_storage = read_storage
        self._storages: dict[str, Tensor] = {}

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read a tensor. Tensors of one storage share their values, as those that were written did.

        Raises:
            Unreadable: its storage is missing or shorter than its pickle says.
        """
        storage = stored.storage
        if storage.key not in self._storages:
            with _told():
                values = self._read_storage(storage)
            # PyTorch makes no tensor of an empty buffer.
            flat = torch.frombuffer(values, dtype=storage.dtype) if values else torch.empty(0, dtype=storage.dtype)
            self._storages[storage.key] = flat
        return self._storages[storage.key].as_strided(stored.size, stored.stride, stored.offset)

    def everything(self, device: torch.device | str = "cpu") -> Any:
        """The content with all its tensors read, on a device.

        Raises:
            Unreadable: as `tensor`, or there are more than `VALUES`, lists lie in lists deeper than `DEPTH`, or tensors
                share their values more than `SHARING` allows.
        """
        counted = _Count()
        n_values, n_stored = 0, {}

        def read(value: object, depth: int = 0) -> object:
            nonlocal n_values
            counted.one_more(depth)
            if isinstance(value, StoredTensor):
                # Each is copied to a GPU.
                n_values += math.prod(value.size)
                n_stored[value.storage.key] = value.storage.length
                if n_values > VALUES + SHARING * sum(n_stored.values()):
                    raise Unreadable("its tensors name the same stored values again and again")
                return self.tensor(value).to(device)
            if type(value) is dict:
                return {key: read(entry, depth + 1) for key, entry in value.items()}
            if type(value) is list or type(value) is tuple:
                return type(value)([read(entry, depth + 1) for entry in value])
            return value

        return read(self.content)

    def module_tensors(self) -> dict[str, StoredTensor]:
        """Tensors of a TorchScript module and of the modules in it, under the names of its state dict.

        A tensor that is neither parameter nor buffer but a plain attribute is among them: only the code tells these
        apart.

        Raises:
            Unreadable: there are more than `VALUES` or `TENSORS`, or modules lie in modules deeper than `DEPTH`.
        """
        counted = _Count()
        found: dict[str, StoredTensor] = {}

        def look(module: Foreign, prefix: str, depth: int) -> None:
            for name, value in module.attributes.items():
                counted.one_more(depth)
                full = f"{prefix}{str(name)[:NAME_LENGTH]}"
                if len(full) > NAME_LENGTH or len(found) > TENSORS:
                    raise Unreadable(f"it has more than {TENSORS:,} tensors, or names longer than {NAME_LENGTH}")
                if isinstance(value, StoredTensor):
                    found[full] = value
                elif isinstance(value, Foreign):
                    look(value, f"{full}.", depth + 1)

        if isinstance(self.content, Foreign):
            look(self.content, "", 0)
        return found


class _Count:
    """Counts the values of a file; a value that is named several times counts several times."""

    def __init__(self) -> None:
        self.number = 0

    def one_more(self, depth: int) -> None:
        self.number += 1
        if self.number > VALUES or depth > DEPTH:
            raise Unreadable(f"it has more than {VALUES:,} values, or is nested deeper than {DEPTH}")


@contextmanager
def opened(path: str | Path) -> Iterator[Saved]:
    """Open a file of `torch.save` or of TorchScript, gzip-compressed or not.

    Raises:
        Unreadable: the file is broken; the error says what it seems to be, and what to do.
        OSError: it cannot be opened.
    """
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(open(path, "rb"))
        with _told():
            file = stack.enter_context(_unpacked(file))
            saved = _open(file)
        yield saved


@contextmanager
def _told() -> Iterator[None]:
    """The context in which every error of a reader becomes an `Unreadable`."""
    try:
        yield
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        reason = printable(" ".join(f"{type(error).__name__} {error}".split()), 200)
        raise Unreadable(f"it is damaged ({reason}); download or copy it again") from error


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    """The file itself or, of a gzip file, what is in it."""
    start = file.read(2)
    file.seek(0)
    if start != b"\x1f\x8b":
        return file
    limit = max(UNPACKED_BYTES, UNPACKED_RATIO * os.fstat(file.fileno()).st_size)
    unpacked = io.BytesIO()
    with gzip.GzipFile(fileobj=file) as packed:
        while unpacked.tell() <= limit:
            block = packed.read(1 << 20)
            if not block:
                unpacked.seek(0)
                return unpacked
            unpacked.write(block)
    raise Unreadable(f"it unpacks to more than {limit >> 20} MB, which no weights do")


def _open(file: IO[bytes]) -> Saved:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(512)
    file.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return _open_zip(file, size)
    if start.startswith(b"\x80"):
        return _open_legacy(file, size)
    raise Unreadable(f"it is {describe(start, size)}")


def describe(start: bytes, size: int) -> str:
    """What a file that is none of PyTorch's seems to be, and what to do.

    Args:
        start: its first bytes.
        size: the number of all its bytes.
    """
    text = start.lstrip()[:200].lower()
    if not start:
        return "empty; download or copy it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page by its looks, as a failed download leaves; download it again"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in place of the file; `git lfs pull` gets the file"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
        return "a safetensors file, which is read where weights or trained prompts are asked for, and not compressed"
    if start[257:262] == b"ustar" or start.startswith(
        (b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
    ):
        return "a packed file; unpack it first"
    if start.isascii() and text:
        return f"a text, which begins {start[:40].decode('ascii')!r}; download or copy the file again"
    return "in none of the formats of torch.save and TorchScript; download or copy it again"


class _Reader:
    """A file that refuses to read more at once than a limit: memory is taken for as much as is asked for.

    `zipfile` asks for all the list of records, and `pickletools` for all the text, as long as these claim to be.
    """

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self.limit = limit
        self.seek, self.tell, self.seekable, self.readline = file.seek, file.tell, file.seekable, file.readline
        self._read = file.read

    def read(self, number: int = -1) -> bytes:
        if number > self.limit:
            raise Unreadable(f"it claims {number:,} bytes in one piece, more than it can have")
        return self._read(number)


def _open_zip(file: IO[bytes], size: int) -> Saved:
    reader = _Reader(file, DIRECTORY_BYTES)
    try:
        archive = zipfile.ZipFile(reader)
    except zipfile.BadZipFile as error:
        raise Unreadable("it is cut off, as a broken download leaves it; download or copy it again") from error
    reader.limit = size
    records = {record.filename: record for record in archive.infolist()}
    if len(records) > RECORDS or len(records) < len(archive.infolist()):
        raise Unreadable(f"it has more than {RECORDS:,} records or two of one name, as PyTorch does not write them")
    if any(name.startswith("/") or "\\" in name or ".." in name.split("/") for name in records):
        raise Unreadable("it has records outside its folder, as PyTorch does not write them")
    pickles = [name for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Unreadable("it is a zip file, but not one of PyTorch; if the weights are in it, unpack it")
    folder = pickles[0][: -len("data.pkl")]

    taken = 0

    def content(name: str, limit: int) -> bytes:
        nonlocal taken
        record = records.get(folder + name)
        if record is None:
            raise Unreadable(f"its record {name[:40]!r} is missing")
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise Unreadable(f"its record {name[:40]!r} is compressed, as PyTorch does not write it")
        taken += record.file_size  # records may lie on each other
        if record.file_size > limit or taken > size:
            raise Unreadable(f"its record {name[:40]!r} claims {record.file_size:,} bytes, more than there can be")
        return archive.read(record)

    def read_storage(storage: Storage) -> bytearray:
        return _whole(storage, content(f"data/{storage.key}", size))

    if folder + "byteorder" in records and content("byteorder", 10) != b"little":
        raise Unreadable("it was written on a big-endian machine, whose byte order is not read")
    return Saved(read_pickle(io.BytesIO(content("data.pkl", PICKLE_BYTES))).content, read_storage)


def _open_legacy(file: IO[bytes], size: int) -> Saved:
    reader = _Reader(file, min(PICKLE_BYTES, size))
    first = read_pickle(reader)
    if first.content != LEGACY[0]:
        objects = f" and that holds objects, of {printable(first.foreign)} first" if first.foreign else ""
        raise Unreadable(f"it seems to be a pickle that torch.save did not write{objects}; only torch.save's are read")
    version, machine = read_pickle(reader).content, read_pickle(reader).content
    if version != LEGACY[1] or not isinstance(machine, dict) or not machine.get("little_endian"):
        raise Unreadable("it is of an old format of torch.save that is not read")
    content, storages, _ = read_pickle(reader)
    keys = read_pickle(reader).content
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise Unreadable("its storages are not those of its pickle, or of types that are not read")
    places, end = {}, file.tell()
    for key in keys:  # each after its number of values
        places[key] = end + 8
        end += 8 + storages[key].length * _item_size(storages[key])
    if end > size:
        raise Unreadable("it is cut off, as a broken download leaves it; download or copy it again")

    def read_storage(storage: Storage) -> bytearray:
        file.seek(places[storage.key])
        return _whole(storage, file.read(storage.length * _item_size(storage)))

    return Saved(content, read_storage)


def _item_size(storage: Storage) -> int:
    return torch.empty(0, dtype=storage.dtype).element_size()


def _whole(storage: Storage, values: bytes) -> bytearray:
    """The bytes of a storage, after a check that there are as many as its pickle says."""
    wanted = storage.length * _item_size(storage)
    if len(values) < wanted:
        raise Unreadable(f"its storage {storage.key[:20]!r} has {len(values):,} bytes where {wanted:,} are claimed")
    return bytearray(memoryview(values)[:wanted])


def kind(value: object) -> str:
    """What an entry of a file is, in words."""
    return f"an object of {printable(value.name)}" if isinstance(value, Foreign) else f"a {type(value).__name__}"


def printable(text: str, length: int = 80) -> str:
    """The start of a text of a file, as it can be printed."""
    return escaped(text[:length])


def shortened(names: Iterable[str]) -> str:
    """The first names of a file as they can be printed, and how many more there are."""
    names = list(names)
    shown = ", ".join(map(printable, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
