"""A folder of one's own, for which no Python is written: `DATASET=folder`.

$DATA/<DATASET.FOLDER>/train/<class>/*.jpg     either the parts, each with one folder a class; val/ may be left out,
                       val/<class>/*.jpg       and is then taken from train/
                       test/<class>/*.jpg
$DATA/<DATASET.FOLDER>/<class>/*.jpg           or only the classes, which are then split once for all runs, in
$DATA/<DATASET.FOLDER>/split.json              (CoOp's format; where there is one, it is what counts)
$DATA/<DATASET.FOLDER>/classnames.txt          if wanted: lines of a folder's name, a blank (or a tab, for folders with
                                               blanks in their names) and the class name, in the order of the labels

Without `classnames.txt`, labels are in the alphabetical order of the folders, and a class is called as its folder is,
with blanks for underscores.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping, Sequence

from dassl.config import cfg_default
from dassl.data.datasets import DATASET_REGISTRY

from .base import (
    IMAGE_EXTENSIONS,
    Item,
    Split,
    SplitDataset,
    check_split,
    describe_nearest,
    list_visible,
    shorten,
)

if "FOLDER" not in cfg_default.DATASET:
    cfg_default.DATASET.FOLDER = "folder"

PARTS = Split._fields  # train, val, test
CLASSNAMES_FILE = "classnames.txt"
SPLIT_FILE = "split.json"
CACHE_FOLDER = "split_fewshot"  # where CoOp-type readers keep few-shot selections; no class
SPLIT_SEED = 1  # of what is drawn here, so that it is the same for every run and on every machine
TRAIN_SHARE, VAL_SHARE = 0.5, 0.2  # of a class's images, as in CoOp's readers; the rest is for testing


@DATASET_REGISTRY.register()
class Folder(SplitDataset):
    """The images in `DATASET.FOLDER`: a folder below `DATASET.ROOT`, or a path of its own."""

    image_dir = ""
    split_file = SPLIT_FILE

    def __init__(self, cfg) -> None:
        """Read the folder.

        Args:
            cfg: as in `SplitDataset`, and `DATASET.FOLDER`.

        Raises:
            FileNotFoundError: there is no such folder, or no image that its `split.json` names.
            ValueError: its content is not a usable data set.
        """
        if not cfg.DATASET.FOLDER:
            raise ValueError("DATASET.FOLDER must name a folder below DATASET.ROOT (--root), or its path, but is empty")
        self.dataset_dir = os.path.expanduser(cfg.DATASET.FOLDER)
        super().__init__(cfg)

    def find_images(self) -> None:
        """Raise FileNotFoundError unless the folder exists."""
        find_folder(self.dataset_dir)

    def load_split(self) -> Split:
        """Read `split.json`, else the part folders, which are a split by themselves, else split the classes for good."""
        if not os.path.exists(self.split_path):
            return self.make_split() if has_parts(self.dataset_dir) else super().load_split()
        split = super().load_split()
        note_unlisted(split, self.dataset_dir, self.split_path)
        check_files(split, self.dataset_dir)
        return split

    def make_split(self) -> Split:
        """Make the split from the folders."""
        split = read_folders(self.dataset_dir)
        check_files(split, self.dataset_dir)
        return split


def find_folder(folder: str) -> None:
    """Raise FileNotFoundError unless the folder exists."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"DATASET.FOLDER must name the folder of your images, below DATASET.ROOT (--root) or by its path, but "
            f"there is no {folder}: {describe_nearest(folder)}"
        )


def has_parts(folder: str) -> bool:
    """Whether the folder holds train/ and test/ with one folder a class in each.

    A folder of these names that holds images and no folders is a class (of vehicles, say).

    Raises:
        ValueError: it holds some of train/, val/ and test/, but not both train/ and test/.
    """
    parts = [part for part in PARTS if os.path.isdir(path := os.path.join(folder, part)) and list_visible(path)[0]]
    if parts and not {"train", "test"} <= set(parts):
        absent = " and ".join(f"{part}/" for part in ("train", "test") if part not in parts)
        raise ValueError(
            f"{folder} must hold train/<class>/ and test/<class>/ (val/<class>/ may be left out), or only folders of "
            f"classes, but holds {' and '.join(f'{part}/' for part in parts)} without classes in {absent}"
        )
    return bool(parts)


def read_folders(folder: str) -> Split:
    """Make the split of a folder; nothing is written, and nothing drawn from the global `random` state.

    Args:
        folder: holds train/, test/ and perhaps val/, or the classes.

    Returns:
        The split, with paths that start from `folder`. Where there are only classes, half of each is for training, a
        fifth for validation and the rest for testing. Where there are parts, but no validation images, a fifth of each
        class's training images (at least one, never the last one) is for validation.

    Raises:
        ValueError: no class, only one, one that is too small or has no training images, or one in another part that
            training lacks; names that are not a name a class.
    """
    by_part = has_parts(folder)
    above, strays = list_visible(folder)
    strays = [name for name in strays if name not in (CLASSNAMES_FILE, SPLIT_FILE)]
    above = [name for name in above if name != CACHE_FOLDER]
    if by_part:
        strays += [name for name in above if name not in PARTS]
        names = name_classes(list_visible(os.path.join(folder, "train"))[0], folder)
        lists = {part: list_images(folder, part, names, strays) for part in PARTS if part in above}
        split = Split(lists["train"], lists.get("val", []), lists["test"])
    else:
        names = name_classes(above, folder)
        split = divide_classes(list_images(folder, "", names, strays), list(names), folder)
    if strays:
        print(f"Note: {len(strays)} entries under {folder} are not images and are left out: {shorten(strays)}")
    untrained = sorted(set(names.values()) - {item.classname for item in split.train})
    if untrained:
        raise ValueError(f"{os.path.join(folder, 'train')} must hold at least one image of {shorten(untrained)}")
    if not split.val:
        split = take_validation(split)
        print(
            f"Note: {folder} has no images in val/: {len(split.val)} of those in train/ are for validation, and "
            f"{len(split.train)} remain for training"
        )
    check_split(split, folder)
    return split


def list_images(folder: str, part: str, names: Mapping[str, str], strays: list[str]) -> list[Item]:
    """List the images below `<folder>/<part>`, class by class in the order of `names`.

    Args:
        folder: the data set's folder.
        part: "train", "val", "test", or "" where the classes lie in `folder` itself.
        names: class name of each class folder, in the order of the labels.
        strays: what is no image is appended to it.

    Raises:
        ValueError: there is a class that is not in `names`.
    """
    classes, files = list_visible(os.path.join(folder, part))
    if part:
        strays += [f"{part}/{file}" for file in files]
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise ValueError(
                f"{os.path.join(folder, part)} must hold only classes that train/ beside it has as well, but holds "
                f"{shorten(unknown)}, and train/ has {shorten(names, limit=12)}"
            )
    items = []
    for label, (name, classname) in enumerate(names.items()):
        if name in classes:
            path = f"{part}/{name}" if part else name
            below, files = list_visible(os.path.join(folder, path))
            images = [file for file in files if file.lower().endswith(IMAGE_EXTENSIONS)]
            strays += [f"{path}/{entry}" for entry in below]
            strays += [f"{path}/{file}" for file in files if not file.lower().endswith(IMAGE_EXTENSIONS)]
            items += [Item(f"{path}/{image}", label, classname) for image in images]
    return items


def group_by_label(items: Iterable[Item]) -> dict[int, list[Item]]:
    """Group images by label, each group in an order of its own that is the same every time."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    shuffle = random.Random(SPLIT_SEED).shuffle
    for group in groups.values():
        shuffle(group)
    return groups


def divide_classes(items: list[Item], folders: Sequence[str], folder: str) -> Split:
    """Divide all images into the three parts, class by class.

    Raises:
        ValueError: a class is too small to have all three parts.
    """
    split = Split([], [], [])
    groups = group_by_label(items)
    for label, name in enumerate(folders):
        group = groups.get(label, [])
        n_train, n_val = round(len(group) * TRAIN_SHARE), round(len(group) * VAL_SHARE)
        if min(n_train, n_val, len(group) - n_train - n_val) < 1:
            raise ValueError(
                f"the class folder {os.path.join(folder, name)} must hold enough images to give train, val and test at "
                f"least one each, but holds {len(group)}"
            )
        split.train.extend(group[:n_train])
        split.val.extend(group[n_train : n_train + n_val])
        split.test.extend(group[n_train + n_val :])
    return split


def take_validation(split: Split) -> Split:
    """Take validation images from the training images of each class."""
    train, val = [], []
    for group in group_by_label(split.train).values():
        n_val = min(max(1, round(len(group) * VAL_SHARE)), len(group) - 1)
        val += group[:n_val]
        train += group[n_val:]
    return Split(train, val, split.test)


def name_classes(folders: list[str], folder: str) -> dict[str, str]:
    """Give each class folder its name.

    Args:
        folders: the class folders that are there.
        folder: the data set's folder, which may hold a `classnames.txt`.

    Returns:
        The class name of each folder, in the order of the labels.

    Raises:
        ValueError: fewer than two classes, a folder without a name, or two with names that CLIP reads as one.
    """
    if len(folders) < 2:
        raise ValueError(
            f"{folder} must hold train/<class>/ and test/<class>/, or <class>/, with two classes at least, but "
            f"has {f'only the class {folders[0]!r}' if folders else f'none: {describe_nearest(folder)}'}"
        )
    path = os.path.join(folder, CLASSNAMES_FILE)
    if os.path.exists(path):
        names = read_classnames(path, folders)
    else:
        names = {name: " ".join(name.replace("_", " ").split()) for name in folders}
    source = path if os.path.exists(path) else folder
    seen: dict[str, str] = {}
    for name, classname in names.items():
        if not classname:
            raise ValueError(f"{source} gives the class folder {name!r} no name")
        other = seen.setdefault(classname.casefold(), name)
        if other != name:
            raise ValueError(
                f"{source} gives the class folders {other!r} and {name!r} the names {names[other]!r} and "
                f"{classname!r}, which are one to CLIP, as it reads no capitals: rename one of them"
            )
    return names


def read_classnames(path: str, folders: Iterable[str]) -> dict[str, str]:
    """Read lines of a folder's name and its class name.

    Args:
        path: of the file; in a line the first tab separates, where there is none the first blank.
        folders: the class folders that are there, all of which must have a line; lines of others are left out, so the
            file may be that of a larger set.

    Returns:
        The class name of each of `folders`, in the order of the file.

    Raises:
        ValueError: the file is not UTF-8 text, a folder has no line or two, or a line is a single word.
    """
    names: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8 ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, classname = line.strip().partition("\t" if "\t" in line.strip() else " ")
        if not classname.strip():
            raise ValueError(f"line {number} of {path} must be a folder's name, a blank and a class name, got {line!r}")
        if name in names:
            raise ValueError(f"line {number} of {path} names the folder {name!r}, which an earlier line names too")
        names[name] = " ".join(classname.split())
    unnamed = [name for name in folders if name not in names]
    if unnamed:
        raise ValueError(f"{path} must have a line for every class folder, but has none for {shorten(unnamed)}")
    here = set(folders)
    return {name: classname for name, classname in names.items() if name in here}


def check_files(split: Split, folder: str) -> None:
    """Raise ValueError if images are empty files; others that cannot be read are named when they are opened."""
    empty = sorted(
        path for path in {item.path for part in split for item in part} if not os.path.getsize(f"{folder}/{path}")
    )
    if empty:
        raise ValueError(f"{len(empty)} images under {folder} are empty files: {shorten(empty)}")


def note_unlisted(split: Split, folder: str, source: str) -> None:
    """Print how many images there are, in the folders that the split names, which it does not name."""
    listed = {item.path for part in split for item in part}
    unlisted = []
    for below in sorted({os.path.dirname(path) for path in listed}):
        for file in list_visible(os.path.join(folder, below))[1]:
            path = f"{below}/{file}" if below else file
            if file.lower().endswith(IMAGE_EXTENSIONS) and path not in listed:
                unlisted.append(path)
    if unlisted:
        print(
            f"Note: {len(unlisted)} images are not in {source} and are not used: {shorten(unlisted)}; remove that file "
            "to have all images split anew, with other figures"
        )
