"""The public data sets: where they come from, and how many images are published. The facts are in `sources.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tools.common.facts import key_errors, read_facts

FILE = Path(__file__).with_name("sources.yaml")
COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


class Counts(NamedTuple):
    """Images in the published split; None where the set has no such part."""

    classes: int
    train: int | None
    val: int | None
    test: int


class Archive(NamedTuple):
    """A file that a data set is made from."""

    file: str
    parts: Mapping[str, str]  # path in the archive -> path in the set's folder; empty: the file itself belongs there
    url: str = ""  # where it is downloaded from; "" if it must be got by hand
    md5: str = ""  # "" where none is known
    by_hand: str = ""  # where to get it
    holder: Archive | None = None  # archive that holds this one
    member: str = ""  # path in the holder


class Source(NamedTuple):
    """What is known of a public data set besides its layout, which its reader knows."""

    section: str  # of CoOp's DATASETS.md
    published: Counts
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""  # what to put where, for a set that cannot be prepared

    @property
    def images(self) -> int:
        """How many are published, in all parts."""
        return sum(count or 0 for count in self.published[1:])


def read_sources(path: Path = FILE) -> dict[str, Source]:
    """Read the file of sources.

    Returns:
        Data set -> source, in the order of the file.

    Raises:
        ValueError: the file is not as its head describes it; names every error.
    """
    return {name: _source(**content) for name, content in read_facts(path, _errors).items()}


def _source(
    section: str, published: dict[str, int], archives: list[dict[str, Any]] | None = None, by_hand: str = ""
) -> Source:
    counts = Counts(published["classes"], published.get("train"), published.get("val"), published["test"])
    return Source(section, counts, tuple(_archive(**archive) for archive in archives or ()), by_hand)


def _archive(
    file: str, parts: dict[str, str] | None = None, holder: dict[str, Any] | None = None, **more: str
) -> Archive:
    return Archive(file, parts or {}, holder=_archive(**holder) if holder else None, **more)


def _errors(content: Any) -> list[str]:
    if not isinstance(content, dict) or not content:
        return ["it must map data sets to their sources"]
    errors = []
    for name, source in content.items():
        wrong = key_errors(source, name, ("section", "published"), ("archives", "by_hand"))
        errors += wrong or _source_errors(name, source)
    return errors


def _source_errors(name: str, source: dict[str, Any]) -> list[str]:
    errors = _text_errors(name, source, ("section", "by_hand"))
    counts, archives = source["published"], source.get("archives")
    where = f"{name}: published"
    errors += key_errors(counts, where, ("classes", "test"), ("train", "val"))
    if isinstance(counts, dict):
        wrong = [count for count in counts.values() if type(count) is not int or count < 1]
        errors += [f"{where} must hold numbers from 1 on, got {count!r}" for count in wrong]
    if archives is None:
        return errors if "by_hand" in source else [*errors, f"{name} must have archives or by_hand"]
    if not isinstance(archives, list) or not archives:
        return [*errors, f"{name}: archives must be a list of archives, got {archives!r}"]
    for archive in archives:
        errors += _archive_errors(name, archive)
    return errors


def _archive_errors(name: str, archive: Any, held: bool = False) -> list[str]:
    where = f"{name}: {archive['file']}" if isinstance(archive, dict) and "file" in archive else f"{name}: an archive"
    errors = key_errors(archive, where, ("file",), ("url", "md5", "by_hand", "holder", "member", "parts"))
    if errors:
        return errors
    errors = _text_errors(where, archive, ("file", "url", "md5", "by_hand", "member"))
    if errors:
        return errors
    if sum(key in archive for key in ("url", "by_hand", "holder")) != 1:
        errors.append(f"{where} must have one of url, by_hand and holder")
    if ("holder" in archive) != ("member" in archive):
        errors.append(f"{where} must have holder and member, or neither")
    if not re.match(r"https?://[^/\s]+/\S+$", archive.get("url", "http://a/b")):
        errors.append(f"{where}: url must be a whole http(s) address, got {archive['url']!r}")
    if not re.fullmatch(r"[0-9a-f]{32}", archive.get("md5", "0" * 32)):
        errors.append(f"{where}: md5 must be 32 hexadecimal digits, got {archive['md5']!r}")
    parts = archive.get("parts", {"as": "is"})
    if not isinstance(parts, dict) or not parts or not all(_is_path(path) for pair in parts.items() for path in pair):
        errors.append(f"{where}: parts must map paths in the archive to paths in the set's folder, got {parts!r}")
    if held and "parts" in archive:
        errors.append(f"{where} holds another archive and can have no parts")
    if not _is_path(archive["file"]) or "/" in archive["file"]:
        errors.append(f"{where}: file must be the name of a file, got {archive['file']!r}")
    return errors + (_archive_errors(name, archive["holder"], held=True) if "holder" in archive else [])


def _text_errors(where: str, content: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    wrong = [key for key in keys if key in content and not (isinstance(content[key], str) and content[key])]
    return [f"{where}: {key} must be text, got {content[key]!r}" for key in wrong]


def _is_path(path: Any) -> bool:
    """Whether this is a relative path that stays in its folder."""
    return isinstance(path, str) and bool(path) and not {"/", ".", ".."} & set(PurePosixPath(path).parts)


SOURCES = read_sources()
