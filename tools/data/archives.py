"""Archives, unpacked without trusting them.

`unpack` takes named parts out of a tar or zip file, refuses what would leave its folder, and goes on where a killed
call has stopped.
"""

from __future__ import annotations

import errno
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

from storage.files import put, put_folder
from tools.data.download import BLOCK, check_space, describe

ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RecursionError)
LEVELS = 30  # of folders in folders
NAME_BYTES = 255  # of a file or folder, as file systems have it
# What the archives of a set may unpack to. Those of SUN397 have the largest images, of 350 kB on average, and 2.7 for
# each that its published split has; texts shrink to a tenth.
MOST_IMAGES = 1_500_000  # of a set that is not named
FILES_PER_IMAGE, BESIDE_FILES = 10, 10_000
BYTES_PER_IMAGE, BESIDE = 4 << 20, 64 << 20
RATIO = 20
# What is said in a tar file about the member that follows, a long name for example
ABOUT = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
ABOUT_BYTES = 1 << 20


class Member(NamedTuple):
    """One file in an archive."""

    name: str  # with "/", as checked by `safe_name`
    size: int
    entry: tarfile.TarInfo | zipfile.ZipInfo


def unpack(archive: str, parts: Mapping[str, str], folder: str, images: int = MOST_IMAGES) -> list[str]:
    """Unpack some folders or files of an archive under new names; each is whole when it has its name.

    They are unpacked into a hidden folder beside them and then renamed, so nothing is written twice. A killed call
    leaves that folder, and the next one takes from it what is whole. Nothing stays of an archive that is refused, or
    where the disk is full.

    Args:
        archive: a tar file, compressed or not, or a zip file.
        parts: path in the archive -> path below `folder`. What already exists there is left as it is.
        folder: where to, made if need be.
        images: how many are published of the set. An archive that holds far more than these take is refused.

    Returns:
        What was unpacked, as paths below `folder`.

    Raises:
        ValueError: the archive is damaged, lacks one of the parts, or holds in them a link, a device, a path that leads
            out of its folder or is too long, one path twice, or far more than it should.
        OSError: the disk is full or the folder not writable.
    """
    missing = {source: target for source, target in parts.items() if not os.path.exists(os.path.join(folder, target))}
    if not missing:
        return []
    hidden = os.path.join(folder, f".{os.path.basename(archive)}.part")
    begun = os.path.isdir(hidden)
    os.makedirs(hidden, exist_ok=True)
    try:
        if not begun and len(missing) == len(parts):
            check_space(hidden, os.path.getsize(archive))  # images do not shrink in an archive
        found = _fill(hidden, archive, missing, images)
        absent = sorted(set(missing) - found)
        if absent:
            raise ValueError(f"the archive {archive} must hold {', '.join(absent)}, but does not")
    except ARCHIVE_ERRORS as error:
        shutil.rmtree(hidden)  # files of the right length, which a later call would take for whole
        raise ValueError(f"the archive {archive} is damaged ({describe(error)}): remove it and get it again") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(hidden)
        raise
    for source, target in missing.items():
        place = os.path.join(folder, target)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.isdir(os.path.join(hidden, source)):
            put_folder(os.path.join(hidden, source), place)
        else:
            put(os.path.join(hidden, source), place)
    shutil.rmtree(hidden)
    return list(missing.values())


def _fill(hidden: str, archive: str, wanted: Mapping[str, str], images: int) -> set[str]:
    """Unpack what is wanted into the hidden folder, and return which of it there was."""
    found, seen = set(), set()
    bound = Bound(archive, images)
    # A name that no member has, as hidden files are not unpacked. `put_folder` brings all files to the disk at the end,
    # where `atomic_write` would do it for each.
    part = os.path.join(hidden, ".member.part")
    with open_archive(archive) as (members, read):
        for member in tqdm(members, unit=" files", desc=os.path.basename(archive), disable=None):
            source = next((s for s in wanted if member.name == s or member.name.startswith(f"{s}/")), None)
            if source is None or hidden_file(member.name):
                continue
            check_member(member, archive, hidden)
            bound.add(member)
            if member.name in seen:
                raise ValueError(f"the archive {archive} holds {member.name!r} twice")
            seen.add(member.name)
            found.add(source)
            path = os.path.join(hidden, member.name)
            if os.path.isfile(path) and os.path.getsize(path) == member.size:
                continue
            check_space(hidden, member.size)
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with read(member.entry) as content, open(part, "wb") as file:
                    shutil.copyfileobj(content, file, BLOCK)
                os.replace(part, path)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise ValueError(
                    f"the archive {archive} holds {member.name!r} both as a file and as a folder"
                ) from error
    return found


class Bound:
    """Counts what is taken from an archive, up to far more than the published one can have.

    Args:
        archive: its path.
        images: how many are published of the set.
    """

    def __init__(self, archive: str, images: int) -> None:
        self.archive, self.files, self.size = archive, 0, 0
        self.most_files = BESIDE_FILES + FILES_PER_IMAGE * images
        self.most = BESIDE + min(RATIO * os.path.getsize(archive), BYTES_PER_IMAGE * images)

    def add(self, member: Member) -> None:
        """Count a member.

        Raises:
            ValueError: it is too much.
        """
        self.files += 1
        self.size += member.size
        if self.size > self.most or self.files > self.most_files:
            raise ValueError(
                f"the archive {self.archive} unpacks to more than {self.most:,} bytes or {self.most_files:,} files, "
                "which the published one does not: remove it and get it again"
            )


@contextmanager
def open_archive(path: str) -> Iterator[tuple]:
    """An archive's files, in the order in which they lie there, and a function that opens one of them."""
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            entries = (entry for entry in archive.infolist() if not entry.is_dir())
            yield (Member(safe_name(e.filename, path), e.file_size, e) for e in entries), archive.open
        return
    try:
        tar = tarfile.open(path, "r:*", tarinfo=Header)  # noqa: SIM115  closed below
    except tarfile.ReadError as error:  # which tells of all compressions
        raise tarfile.ReadError("it is no tar or zip file, or its start is damaged") from error
    with tar:
        yield tar_members(tar, path), tar.extractfile


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
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        """Read a header, of a member or of what is said about one, which tarfile takes into memory whole."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in ABOUT and header.size > ABOUT_BYTES:
            raise tarfile.ReadError(f"what it says about a member has {header.size:,} bytes")
        return header

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
    """A member's path without "./"; raise ValueError if it leads out of its folder, or no file can have it."""
    steps = [step for step in name.split("/") if step not in ("", ".")]
    shown = name if len(name) <= 200 else f"{name[:200]}..."
    if name.startswith("/") or ".." in steps or not steps or "\0" in name:
        raise ValueError(f"the archive {archive} holds the unsafe path {shown!r}, so nothing more of it was unpacked")
    if len(steps) > LEVELS or max(len(os.fsencode(step)) for step in steps) > NAME_BYTES:
        raise ValueError(
            f"the archive {archive} holds {shown!r}, {len(steps):,} levels deep: there may be {LEVELS}, and "
            f"{NAME_BYTES} bytes a name"
        )
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
        name, plain = entry.name, entry.isreg() and not entry.issparse()
    if not plain:
        raise ValueError(
            f"the archive {archive} holds {name!r}, which is a link, a device, sparse or encrypted and is not unpacked "
            "here: unpack it yourself"
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
