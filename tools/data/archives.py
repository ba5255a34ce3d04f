"""Archives, unpacked without trusting them.

`unpack` takes named parts out of a tar or zip file, refuses what would leave its folder, and goes on where a killed
call has stopped.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from tqdm import tqdm

from tools.data.download import BLOCK, describe

ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


class Member(NamedTuple):
    """One file in an archive."""

    name: str  # with "/", as checked by `safe_name`
    size: int
    entry: tarfile.TarInfo | zipfile.ZipInfo


def unpack(archive: str, parts: Mapping[str, str], folder: str) -> list[str]:
    """Unpack some folders or files of an archive under new names; each is whole when it has its name.

    They are unpacked into a hidden folder beside them and then renamed, so nothing is written twice. A killed call
    leaves that folder, and the next one takes from it what is whole.

    Args:
        archive: a tar file, compressed or not, or a zip file.
        parts: path in the archive -> path below `folder`. What already exists there is left as it is.
        folder: where to, made if need be.

    Returns:
        What was unpacked, as paths below `folder`.

    Raises:
        ValueError: the archive is damaged, lacks one of the parts, or holds in them a link, a device, or a path that
            leads out of its folder.
        OSError: the disk is full or the folder not writable.
    """
    missing = {source: target for source, target in parts.items() if not os.path.exists(os.path.join(folder, target))}
    if not missing:
        return []
    hidden = os.path.join(folder, f".{os.path.basename(archive)}.part")
    os.makedirs(hidden, exist_ok=True)
    found = set()
    try:
        with open_archive(archive) as (members, read):
            for member in tqdm(members, unit=" files", desc=os.path.basename(archive), disable=None):
                source = next((s for s in missing if member.name == s or member.name.startswith(f"{s}/")), None)
                if source is None or hidden_file(member.name):
                    continue
                check_member(member, archive, hidden)
                found.add(source)
                path = os.path.join(hidden, member.name)
                if not (os.path.isfile(path) and os.path.getsize(path) == member.size):
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with read(member.entry) as content, open(f"{path}.part", "wb") as file:
                        shutil.copyfileobj(content, file, BLOCK)
                    os.replace(f"{path}.part", path)
    except ARCHIVE_ERRORS as error:
        shutil.rmtree(hidden)  # files of the right length, which a later call would take for whole
        raise ValueError(f"the archive {archive} is damaged ({describe(error)}): remove it and get it again") from error
    absent = sorted(set(missing) - found)
    if absent:
        raise ValueError(f"the archive {archive} must hold {', '.join(absent)}, but does not")
    for source, target in missing.items():
        place = os.path.join(folder, target)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.rename(os.path.join(hidden, source), place)
    shutil.rmtree(hidden)
    return list(missing.values())


@contextmanager
def open_archive(path: str) -> Iterator[tuple]:
    """An archive's files, in the order in which they lie there, and a function that opens one of them."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path, "r:*", tarinfo=Header) as archive:
            yield tar_members(archive, path), archive.extractfile
    else:
        with zipfile.ZipFile(path) as archive:
            entries = (entry for entry in archive.infolist() if not entry.is_dir())
            yield (Member(safe_name(e.filename, path), e.file_size, e) for e in entries), archive.open


def tar_members(archive: tarfile.TarFile, path: str) -> Iterator[Member]:
    """The files of a tar file, which then is read on to its very end, where a compressed one has its checksum."""
    for entry in archive:
        if not entry.isdir():
            yield Member(safe_name(entry.name, path), entry.size, entry)
    while archive.fileobj is not None and archive.fileobj.read(BLOCK):
        pass


class Header(tarfile.TarInfo):
    """A member of a tar file; where there should be one and is not, that is an error and not the file's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Header:
        """Read the next member's header."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed leaves it out
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset:,}") from error


def safe_name(name: str, archive: str) -> str:
    """A member's path without "./"; raise ValueError if it leads out of the folder that it is unpacked into."""
    steps = [step for step in name.split("/") if step not in ("", ".")]
    if name.startswith("/") or ".." in steps or not steps:
        raise ValueError(f"the archive {archive} holds the unsafe path {name!r}, so nothing more of it was unpacked")
    return "/".join(steps)


def hidden_file(name: str) -> bool:
    """Whether this is what macOS puts beside the files of an archive, or another hidden file."""
    return any(step.startswith(".") or step == "__MACOSX" for step in name.split("/"))


def check_member(member: Member, archive: str, folder: str) -> None:
    """Raise ValueError unless an archive's member is a plain file that stays in its folder.

    Where Python has tarfile's data filter, a tar file's member must pass that one, too. It would not do alone: it lets
    links within the folder through, and takes the root off an absolute path.

    Args:
        member: of the archive.
        archive: its path, for the error.
        folder: where it is unpacked.
    """
    entry = member.entry
    if isinstance(entry, zipfile.ZipInfo):
        kind = stat.S_IFMT(entry.external_attr >> 16)
        name, plain = entry.filename, kind in (0, stat.S_IFREG) and not entry.flag_bits & 1
    else:
        name, plain = entry.name, entry.isreg()
    if not plain:
        raise ValueError(
            f"the archive {archive} holds {name!r}, which is a link, a device or encrypted and is not unpacked here: "
            "unpack it yourself"
        )
    outside = ""
    if isinstance(entry, tarfile.TarInfo) and hasattr(tarfile, "data_filter"):  # Python 3.12, and later 3.9 to 3.11
        try:
            tarfile.data_filter(entry, folder)
        except tarfile.FilterError as error:
            outside = describe(error)
    elif os.path.realpath(os.path.join(folder, member.name)) != os.path.join(os.path.realpath(folder), member.name):
        outside = "a link that lies there leads elsewhere"
    if outside:
        raise ValueError(f"the archive {archive} holds {name!r}, which cannot be unpacked into {folder}: {outside}")
