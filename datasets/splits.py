"""Which image belongs to training, validation and test: made, checked, saved, and cut to base or new classes."""

from __future__ import annotations

import itertools
import math
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

from .files import is_a, list_classes, list_images, note_strays, posix_path, read_json, shorten, write_json

SUBSAMPLES = ("all", "base", "new")
MADE_BY = ("made_by", "this project's reader, as no split file was there")  # a key of the files that it saves


class Item(NamedTuple):
    """One image of a split, before it becomes Dassl's `Datum`, which asks the file system about every path."""

    path: str  # relative to the image folder, with "/"
    label: int  # 0 .. C-1
    classname: str


class Split(NamedTuple):
    """The three lists of a split file."""

    train: list[Item]
    val: list[Item]
    test: list[Item]


def split_folders(
    image_dir: str,
    folders: Sequence[str] | None = None,
    ignored: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
    p_train: float = 0.5,
    p_val: float = 0.2,
    shuffle: Callable[[list], None] = random.shuffle,
) -> Split:
    """Split one folder per class into train, val and test.

    CoOp's readers of DTD, Caltech101, EuroSAT and Food101 do this, and two points differ. Images are sorted before the
    shuffle, where CoOp takes them in the order in which the file system happens to list them, so a seed gives one split
    on all machines. Files that are not images are left out and counted; CoOp takes every file that is not hidden.

    Args:
        image_dir: folder that holds one folder per class.
        folders: the class folders in the order of their labels; None takes all that are there, sorted.
        ignored: folders that are no class.
        renamed: folder -> class name, where they differ.
        p_train, p_val: shares of each class, rounded to whole images; the rest is the test share.
        shuffle: shuffles a list in place; by default from the global `random` state, as CoOp does.

    Returns:
        The split, with paths `<folder>/<file>` and labels in the order of the folders.

    Raises:
        ValueError: no class folder, other folders than `folders`, or a class too small to have all three parts.
    """
    renamed = renamed or {}
    found, strays = list_classes(image_dir, ignored)
    if folders is None:
        folders = found
    elif set(folders) != set(found):
        raise ValueError(
            f"{image_dir} must hold the class folders {shorten(folders, limit=20)} and no others, "
            f"but holds {shorten(found, limit=20)}"
        )

    split = Split([], [], [])
    small = []
    for label, folder in enumerate(folders):
        images, others = list_images(os.path.join(image_dir, folder))
        strays += [f"{folder}/{name}" for name in others]
        shuffle(images)
        items = [Item(f"{folder}/{name}", label, renamed.get(folder, folder)) for name in images]
        if len(items) < fewest_images(p_train, p_val):
            small.append(f"{folder} ({len(items)})")
            continue
        for part, share in zip(split, divide(items, os.path.join(image_dir, folder), p_train, p_val)):
            part.extend(share)
    if small:
        raise ValueError(
            f"a class must have at least {fewest_images(p_train, p_val)} images, so that training, validation and test "
            f"get one each; in {image_dir} there are fewer in {shorten(small, limit=12)}: add images to these class "
            "folders, or move the folders away"
        )
    note_strays(strays, image_dir)
    return split


def divide(items: list[Item], source: str, p_train: float = 0.5, p_val: float = 0.2) -> Split:
    """Divide the images of one class, in their order, into train, val and test.

    Args:
        items: the images.
        source: where they come from, for the error.
        p_train, p_val: shares, rounded to whole images; the rest is the test share.

    Raises:
        ValueError: a part would be empty.
    """
    n_train, n_val, n_test = _shares(len(items), p_train, p_val)
    if min(n_train, n_val, n_test) < 1:
        raise ValueError(
            f"the class {source} must have at least {fewest_images(p_train, p_val)} images, so that training, "
            f"validation and test get one each, but has {len(items)}"
        )
    return Split(items[:n_train], items[n_train : n_train + n_val], items[n_train + n_val :])


def _shares(n: int, p_train: float, p_val: float) -> tuple[int, int, int]:
    """How many of n images are for training, validation and test."""
    n_train, n_val = round(n * p_train), round(n * p_val)
    return n_train, n_val, n - n_train - n_val


def fewest_images(p_train: float = 0.5, p_val: float = 0.2) -> int:
    """The smallest class that gives training, validation and test an image each; arguments as of `divide`."""
    return next(n for n in itertools.count(3) if min(_shares(n, p_train, p_val)) >= 1)


def split_trainval(items: list[Item], source: str, p_val: float = 0.2) -> tuple[list[Item], list[Item]]:
    """Divide the training images of a set that has no validation images, drawn from the global `random` as CoOp does.

    Args:
        items: the images; classes are taken in the order of their first image.
        source: where they come from, for the error.
        p_val: share of each class for validation, rounded to whole images.

    Returns:
        The training and the validation images, class by class.

    Raises:
        ValueError: a class has too few images to give validation any, or training any.
    """
    classes: dict[int, list[Item]] = {}
    for item in items:
        classes.setdefault(item.label, []).append(item)
    train, val = [], []
    for images in classes.values():
        n_val = round(len(images) * p_val)
        if not 0 < n_val < len(images):
            raise ValueError(
                f"{source} must name at least {next(n for n in itertools.count(2) if 0 < round(n * p_val) < n)} images "
                f"of the class {images[0].classname!r}, so that training and validation get one each, but names "
                f"{len(images)}"
            )
        random.shuffle(images)
        val.extend(images[:n_val])
        train.extend(images[n_val:])
    return train, val


def subsample_classes(*parts: list[Item], subsample: str, name: str) -> list[list[Item]]:
    """Keep all classes, the base classes or the new ones, relabelled from 0.

    Args:
        parts: lists of items; the first one (train) says which labels there are.
        subsample: `all`; `base`, the first ceil(C/2) labels; `new`, the others.
        name: of the data set, for the error.

    Raises:
        ValueError: another `subsample`, or fewer than two classes to divide.
    """
    if subsample not in SUBSAMPLES:
        raise ValueError(f"DATASET.SUBSAMPLE_CLASSES must be one of {', '.join(SUBSAMPLES)}, got {subsample!r}")
    if subsample == "all":
        return list(parts)
    labels = sorted({item.label for item in parts[0]})
    if len(labels) < 2:
        raise ValueError(f"{name} has one class only, {parts[0][0].classname!r}: there are no base and new halves")
    half = math.ceil(len(labels) / 2)
    selected = labels[:half] if subsample == "base" else labels[half:]
    new_label = {label: index for index, label in enumerate(selected)}
    print(f"Taking the {len(selected)} {subsample} classes of {len(labels)}")
    return [[item._replace(label=new_label[item.label]) for item in part if item.label in new_label] for part in parts]


def read_split(path: str, equal_names: bool = False) -> Split:
    """Read and check a `split_zhou_*.json`.

    Args:
        path: of the file.
        equal_names: whether two labels may have one class name, which is then noted.

    Raises:
        ValueError: not JSON, not the three lists of [path, label, class name], an empty train or test list, train
            labels that are not 0 .. C-1, a label with two names, two labels with one name, a class in val or test that
            has no training image.
    """
    split = parse_split(path)
    check_split(split, path, equal_names)
    return split


def parse_split(path: str) -> Split:
    """Read a `split_zhou_*.json` whatever its labels are; raise ValueError if it does not hold the three lists."""
    content = read_json(path, "the split file")
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in Split._fields):
        raise ValueError(f"the split file {path} must be a JSON object with the lists train, val and test")
    for part in Split._fields:
        for index, entry in enumerate(content[part]):
            if not isinstance(entry, list) or [type(value) for value in entry] != [str, int, str]:
                raise ValueError(
                    f"entry {index} of {part} in the split file {path} must be [path, label, class name], got {entry!r}"
                )
    return Split(*([Item(*entry) for entry in content[part]] for part in Split._fields))


def with_slashes(split: Split, image_dir: str) -> Split:
    """A split with "/" in its paths where a file of Windows has "\\", which elsewhere may be part of a file's name.

    Args:
        split: the split.
        image_dir: folder that its paths start from.
    """

    def named(item: Item) -> Item:
        if "\\" not in item.path or (os.sep == "/" and os.path.lexists(os.path.join(image_dir, item.path))):
            return item
        return item._replace(path=posix_path(item.path))

    return Split(*([named(item) for item in part] for part in split))


def check_split(split: Split, source: str, equal_names: bool = False) -> None:
    """Raise ValueError unless the split's labels and class names are usable (see `read_split`); print what is odd."""
    if not split.train or not split.test:
        raise ValueError(f"{source} must have training and test images, got {len(split.train)} and {len(split.test)}")
    names: dict[int, str] = {}
    for item in (*split.train, *split.val, *split.test):
        if names.setdefault(item.label, item.classname) != item.classname:
            raise ValueError(
                f"{source} gives label {item.label} two class names, {names[item.label]!r} and {item.classname!r}"
            )
    labels: dict[str, list[int]] = {}
    for label in sorted(names):
        labels.setdefault(names[label], []).append(label)
    for name, shared in labels.items():
        if len(shared) > 1:
            problem = f"{source} gives the labels {shorten(shared)} the same class name {name!r}"
            if not equal_names:
                raise ValueError(problem)
            print(f"Note: {problem}, so no text tells them apart")
    trained = {item.label for item in split.train}
    untrained = sorted(set(names) - trained)
    if untrained:
        raise ValueError(
            f"{source} has no training image of {shorten([f'{names[label]} (label {label})' for label in untrained])}"
        )
    unexpected = sorted(trained - set(range(len(trained))))
    if unexpected:
        raise ValueError(
            f"{source} must give its {len(trained)} classes the labels 0 to {len(trained) - 1} without gaps, "
            f"but also gives {shorten(unexpected)}"
        )
    untested = sorted(trained - {item.label for item in split.test})
    if untested:
        print(
            f"Note: {source} has no test image of {len(untested)} of {len(trained)} classes: "
            f"{shorten([names[label] for label in untested])}"
        )
    parts = split[:2] if split.test is split.train else split  # a set for testing only has one list as both
    repeated = [path for path, n in Counter(item.path for part in parts for item in part).items() if n > 1]
    if repeated:
        print(f"Note: {source} names {len(repeated)} images more than once: {shorten(repeated)}")


def check_places(split: Split, image_dir: str, data_dir: str, source: str) -> None:
    """Raise ValueError if `source`, the split file, names images outside the data folder.

    Paths count as they are written: a link in the data folder may lead elsewhere, as its owner has wanted.

    Args:
        split: the split.
        image_dir: folder that its paths start from.
        data_dir: the data folder, which holds `image_dir`.
        source: the split file.
    """
    start = os.path.join(os.path.abspath(data_dir), "")
    paths = {item.path for part in split for item in part}
    outside = sorted(path for path in paths if not os.path.abspath(os.path.join(image_dir, path)).startswith(start))
    if outside:
        raise ValueError(
            f"{source} names images outside the data folder {data_dir}, which only DATASET.IMAGES_OUTSIDE True allows: "
            f"{shorten(map(repr, outside))}"
        )


def check_images(split: Split, image_dir: str, source: str) -> None:
    """Raise FileNotFoundError if `source`, the split file, names images that do not exist.

    Every folder is listed once, which is far quicker than to ask for every file; only what no listing has is asked for.
    """
    paths = {item.path for part in split for item in part}
    listed: set[str] = set()
    for folder in {os.path.dirname(path) for path in paths}:
        if os.path.isdir(os.path.join(image_dir, folder)):
            with os.scandir(os.path.join(image_dir, folder)) as entries:
                listed.update(os.path.join(folder, entry.name) for entry in entries if is_a(entry.is_file))
    missing = sorted(path for path in paths - listed if not os.path.isfile(os.path.join(image_dir, path)))
    if missing:
        lost = set(missing)
        present = {item.label for part in split for item in part if item.path not in lost}
        names = {item.label: item.classname for part in split for item in part if item.label not in present}
        classes = [f"{name} (label {label})" for label, name in sorted(names.items())]
        without = f", and no image at all of {shorten(classes)}" if classes else ""
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images that {source} names are not under {image_dir}: "
            f"{shorten(missing)}{without}"
        )


def is_own_making(path: str) -> bool:
    """Whether a split file is one that `save_split` has written, and so not the published one."""
    content = read_json(path, "the split file")
    return isinstance(content, dict) and MADE_BY[0] in content


def save_split(split: Split, path: str) -> None:
    """Write a split file whole or not at all; one that another process has saved in the meantime is left in place.

    It says that it is not the published one, in a key that readers of such files ignore (`is_own_making`).

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    try:
        write_json(dict([MADE_BY], **split._asdict()), path, replace=False, indent=4)
    except OSError as error:
        raise OSError(
            error.errno,
            f"the split, which must stay the same for all runs, cannot be saved to {path} ({error.strerror}): make the "
            "folder writable or put a split file there",
        ) from error
