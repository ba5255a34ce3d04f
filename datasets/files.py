"""Files and folders of data sets: listed, read and written, with an error for what is wrong in them."""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from storage.files import atomic_write, part_of, put_folder, sweep
from storage.safe_text import escaped

# What Pillow reads of pictures. The list is the same whatever its version, as the split of a folder follows from it.
IMAGE_EXTENSIONS = (
    *(".avif", ".bmp", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)


class OwnImage(str):
    """The path of an image that no published reader reads: `read_image` scales its greys of 16 bits to 8."""

    scaled = True


def generate_once(folder: str, build: Callable[[str], None]) -> None:
    """Fill `folder` by `build` unless it has content already; afterwards it is complete, or an error was raised.

    `build` writes into a new folder beside it, which is renamed when it is done. So `folder` never exists half-made. If
    two processes build at once, the first one to finish is kept. What a killed process has left has a hidden name of
    its own, is never mistaken for the set, and is removed by the next call.

    Args:
        folder: the folder to make; its parents are made as needed.
        build: is given an empty folder and writes the content. Must give the same content each time.
    """
    if os.path.isdir(folder) and os.listdir(folder):
        return
    place = Path(folder).absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    sweep(place.parent)
    part = str(part_of(place))
    os.mkdir(part)
    print(f"Writing {folder} (once)")
    try:
        build(part)
        try:
            put_folder(part, folder)
        except OSError:
            if not (os.path.isdir(folder) and os.listdir(folder)):
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json(content: Any, path: str, replace: bool = True, indent: int | None = None) -> None:
    """Write a JSON file whole or not at all.

    Args:
        content: what to write.
        path: of the file.
        replace: whether a file that is there, or was written by another process in the meantime, is replaced.
        indent: blanks per level; None writes one line.

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    with atomic_write(path, replace) as part, part.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=indent)


def read_text(path: str) -> str:
    """Return the content of a text file with "\\n" as the end of lines, whatever system has written it.

    It is in UTF-8 or, by its byte order mark, in UTF-16, as Windows' editors and shell write; the mark is left out.

    Raises:
        FileNotFoundError: there is no such file.
        UnicodeDecodeError: it is no such text.
    """
    with open(path, "rb") as file:
        content = file.read()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if utf16 else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def posix_path(path: str) -> str:
    """A path that a file of Windows names, with "/" in the place of "\\"."""
    return path.replace("\\", "/")


def read_json(path: str, role: str) -> Any:
    """Return the content of a JSON file, which `read_text` reads.

    Args:
        path: of the file.
        role: what it is, for the error.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{role} {path} is not readable as JSON ({error})") from error


def read_lines(path: str, pattern: str, form: str, of_paths: bool = False) -> list[tuple[str, ...]]:
    """Read a text file in which every line that is not blank has the same form.

    Args:
        path: of the file, which `read_text` reads.
        pattern: regular expression of a whole line without the blanks around it.
        form: the same in words, for the error.
        of_paths: whether lines hold paths, which Windows may have written.

    Returns:
        The groups of the pattern, for each line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text, it is empty, or a line has another form.
    """
    try:
        lines = [line.strip() for line in read_text(path).split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not readable as UTF-8 text ({error})") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line:
            match = re.fullmatch(pattern, posix_path(line) if of_paths else line)
            if match is None:
                raise ValueError(f"line {number} of {path} must be {form}, got {line!r}")
            found.append(match.groups())
    if not found:
        raise ValueError(f"{path} must hold lines {form}, but is empty")
    return found


def read_mat(path: str, variable: str) -> Any:
    """Return one variable of a MATLAB file as SciPy gives it.

    Raises:
        ValueError: the file is damaged or lacks the variable.
    """
    from scipy.io import loadmat  # slow to import, and needed by two sets without a split file only

    try:
        return loadmat(path)[variable]
    except KeyError as error:
        raise ValueError(f"{path} must hold the variable {variable!r}") from error
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files make SciPy's reader raise almost anything
        raise ValueError(f"{path} cannot be read as a MATLAB file ({error})") from error


class Entries(NamedTuple):
    """What a folder holds, without hidden names.

    Attributes:
        folders: names, sorted.
        files: names, sorted; links that lead nowhere are among them, as they are missed where they are read.
        others: what is neither, by name, and what it is: a link to itself, or what would hang a program that reads it.
    """

    folders: list[str]
    files: list[str]
    others: dict[str, str]


def list_entries(folder: str) -> Entries:
    """Return what `folder` holds."""
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    found = Entries([], [], {})
    for entry in visible:
        if is_a(entry.is_file):  # asks the file system about links alone
            found.files.append(entry.name)
        elif is_a(entry.is_dir):
            found.folders.append(entry.name)
        elif reason := odd_kind(entry.path):
            found.others[entry.name] = reason
        else:
            found.files.append(entry.name)
    return found


def is_a(kind: Callable[[], bool]) -> bool:
    """What `is_file` or `is_dir` of an entry of a folder says; False where it is a link that cannot be followed."""
    try:
        return kind()
    except OSError:
        return False


def odd_kind(path: str) -> str:
    """What a path is, if it leads neither to a file nor to a folder nor to nothing; else ""."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return "it is a link to itself" if error.errno == errno.ELOOP else ""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    return "it is a named pipe (FIFO)" if stat.S_ISFIFO(mode) else "it is a device or socket"


def list_visible(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in `folder`, each sorted, without hidden ones."""
    return list_entries(folder)[:2]


def list_classes(image_dir: str, ignored: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Return the class folders, sorted, and what else lies beside them, both without hidden and `ignored` names.

    Raises:
        ValueError: there is no class folder.
    """
    entries = list_entries(image_dir)
    folders, files = ([name for name in names if name not in ignored] for names in entries[:2])
    if not folders:
        raise ValueError(f"{image_dir} must hold one folder per class, but {describe_nearest(image_dir)}")
    return folders, files + _described(entries)


def list_images(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the images in a class folder, sorted, and what else lies there, without hidden names."""
    entries = list_entries(folder)
    images = [name for name in entries.files if name.lower().endswith(IMAGE_EXTENSIONS)]
    rest = [name for name in entries.files if not name.lower().endswith(IMAGE_EXTENSIONS)]
    return images, entries.folders + rest + _described(entries)


def _described(entries: Entries) -> list[str]:
    """What is neither file nor folder, with what it is."""
    return [f"{name} ({reason})" for name, reason in entries.others.items()]


def note_strays(strays: Sequence[str], image_dir: str) -> None:
    """Print what was left out because it is no image."""
    if strays:
        print(f"Note: {len(strays)} entries under {image_dir} are not images and are left out: {shorten(strays)}")


def describe_nearest(path: str) -> str:
    """Say what the nearest existing folder at or above `path` holds: `/data holds caltech-101, eurosat`."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    folders, files = list_visible(path)
    content = shorten([f"{folder}/" for folder in folders] + files, limit=12)
    return f"{path} holds {content}" if content else f"{path} is empty"


def shorten(values: Iterable, limit: int = 5) -> str:
    """Join values, `escaped`, by commas; of more than `limit`, the first ones and how many more there are."""
    values = [escaped(str(value)) for value in values]
    rest = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(values[:limit]) + rest
