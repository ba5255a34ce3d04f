"""Getting public data sets, and arranging them as their readers expect them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import compat  # noqa: F401  makes `import dassl` work

from datasets.base import SplitDataset
from datasets.files import write_json
from datasets.folder import Folder
from storage.files import atomic_write
from tools.data.archives import unpack
from tools.data.check import Report, check, reader_of
from tools.data.download import check_md5, download, lock
from tools.data.sources import COOP, SOURCES, Archive


def prepare(name: str, root: str, archives: str) -> Report:
    """Get a public data set and arrange it as its reader expects it, as far as it is not there yet.

    Args:
        name: as in configs/datasets.
        root: folder of the data sets.
        archives: folder of the archives; those that are not there and can be downloaded are downloaded to it. The
            split file and `classnames.txt` are taken from it, too.

    Returns:
        What `check` then finds.

    Raises:
        ValueError: there is nothing to prepare by this name, or an archive is damaged.
        FileNotFoundError: something must be got by hand first; says all of it.
        OSError: a download fails, the disk is full, or another call prepares the same set.
    """
    reader = reader_of(name)
    if name not in SOURCES:
        raise ValueError(
            f"{name} needs no preparation: "
            + ("its folder is read as it is" if reader is Folder else "its images are written on first use")
        )
    place = os.path.join(root, reader.dataset_dir)
    with held(place):
        take_small_files(reader, name, root, place, archives)
        report = check(name, root)
        if report.usable:
            return report
        problems = []
        for archive in SOURCES[name].archives:
            try:
                arrange(archive, place, archives, SOURCES[name].images)
            except FileNotFoundError as error:
                problems.append(str(error))
        report = check(name, root)
        if not report.usable and (problems or SOURCES[name].by_hand):
            problems = problems or [f"{name} must be put into {place} by hand: {SOURCES[name].by_hand}"]
            raise FileNotFoundError(f"{'; '.join(problems)} ({COOP}#{SOURCES[name].section})")
        if not report.usable:
            report.lines.append(
                f"hint      folders that were there before are left as they are: move what is incomplete in {place} "
                "away, and call this again"
            )
        return report


@contextlib.contextmanager
def held(place: str) -> Iterator[None]:
    """Make a folder and keep other calls from preparing it.

    Raises:
        OSError: one does so already.
    """
    made = not os.path.isdir(place)
    os.makedirs(place, exist_ok=True)
    handle = os.open(place, os.O_RDONLY)
    try:
        lock(handle, f"another process is preparing {place}")
        yield
    finally:
        os.close(handle)
        if made and not os.listdir(place):
            os.rmdir(place)


def arrange(archive: Archive, place: str, archives: str, images: int) -> None:
    """Put what an archive holds into the set's folder, unless it is there.

    Args:
        archive: one of the set's.
        place: the set's folder.
        archives: folder of the archives.
        images: how many are published of the set.

    Raises:
        FileNotFoundError: the archive is not there and must be got by hand.
    """
    targets = list(archive.parts.values()) or [archive.file]
    if all(os.path.exists(os.path.join(place, target)) for target in targets):
        return
    path = obtain(archive, archives, images)
    if not archive.parts:
        take(path, os.path.join(place, archive.file))
        return
    done = unpack(path, archive.parts, place, images)
    print(f"Unpacked {', '.join(done)} into {place}; {path} ({os.path.getsize(path):,} bytes) is no longer needed")


def obtain(archive: Archive, archives: str, images: int) -> str:
    """Path of an archive, downloaded or taken out of its holder if it is not there.

    Raises:
        FileNotFoundError: it must be got by hand.
        ValueError: the one that is there has another checksum.
    """
    path = os.path.join(archives, archive.file)
    if os.path.isfile(path):
        check_md5(path, archive.md5)
    elif archive.holder:
        unpack(obtain(archive.holder, archives, images), {archive.member: archive.file}, archives, images)
        check_md5(path, archive.md5)
    elif archive.url:
        os.makedirs(archives, exist_ok=True)
        print(f"Downloading {archive.url} to {path}" + ("" if archive.md5 else "; no checksum of it is known"))
        download(archive.url, path, md5=archive.md5)
    else:
        raise FileNotFoundError(
            f"{archive.file} cannot be downloaded and must be put into {archives} ({archive.by_hand})"
        )
    return path


def take_small_files(reader: type[SplitDataset], name: str, root: str, place: str, archives: str) -> None:
    """Put the split file and files with class names into the set's folder, where they are needed and can be had."""
    wanted = [reader.split_file, "classnames.txt"] if "classnames.txt" in reader.required_files else [reader.split_file]
    for file in filter(None, wanted):
        for folder in (archives, os.path.join(root, "imagenet")):
            target = os.path.join(place, file)
            if os.path.isfile(os.path.join(folder, file)) and not os.path.exists(target):
                take(os.path.join(folder, file), target)
    if name == "oxford_flowers":
        write_flower_names(os.path.join(place, "cat_to_name.json"))


def take(path: str, target: str) -> None:
    """Copy a small file, whole or not at all."""
    with atomic_write(target) as part:
        shutil.copyfile(path, part)
    print(f"Copied {path} to {target}")


def write_flower_names(path: str) -> None:
    """Write the flowers' names, which CoOp has on Google Drive only, as torchvision has them; older ones lack them."""
    from torchvision.datasets import Flowers102  # slow to import

    names = getattr(Flowers102, "classes", None)
    if names and not os.path.exists(path):
        write_json({str(number): name for number, name in enumerate(names, start=1)}, path, indent=4)
        print(f"Wrote {path} from torchvision's names of the flowers")
