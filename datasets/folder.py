"""A folder of your own images as a data set, without any Python: `DATASET=folder`.

$DATA/<DATASET.FOLDER>/train/<class>/*.jpg     either the parts, each with one folder per class; val/ may be left out,
                       val/<class>/*.jpg       and is then taken from train/
                       test/<class>/*.jpg
$DATA/<DATASET.FOLDER>/<class>/*.jpg           or only the classes, which are then split once for all runs, in
$DATA/<DATASET.FOLDER>/split.json              (CoOp's format; where there is one, it is what counts)
$DATA/<DATASET.FOLDER>/classnames.txt          if wanted: lines of a folder's name, a blank (or a tab, for folders with
blanks in their names) and the class name, in the order of the labels

Without `classnames.txt`, labels are in the alphabetical order of the folders, and a class has the name of its folder,
with blanks for underscores.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable

from dassl.config import cfg_default
from dassl.data.datasets import DATASET_REGISTRY, Datum

from .base import SplitDataset
from .files import OwnImage, describe_nearest, list_images, list_visible, note_strays, read_lines, shorten
from .splits import Item, Split, check_split, split_folders

if "FOLDER" not in cfg_default.DATASET:
    cfg_default.DATASET.FOLDER = "folder"

PARTS = Split._fields  # train, val, test
CLASSNAMES_FILE = "classnames.txt"
SPLIT_FILE = "split.json"
NO_CLASSES = (CLASSNAMES_FILE, SPLIT_FILE, "split_fewshot")  # what else may lie in the folder
SPLIT_SEED = 1  # of the split that is made here, so that it is the same on every machine
VAL_SHARE = 0.2  # of a class's training images


@DATASET_REGISTRY.register()
class Folder(SplitDataset):
    """The images in `DATASET.FOLDER`: a folder below `DATASET.ROOT`, or a path of its own."""

    image_dir = ""
    split_file = SPLIT_FILE

    def locate(self, cfg) -> str:
        """Set the paths of the folder that `DATASET.FOLDER` names; see `SplitDataset`.

        Raises:
            ValueError: it names none.
        """
        if not cfg.DATASET.FOLDER:
            raise ValueError("DATASET.FOLDER must name a folder below DATASET.ROOT (--root), or its path, but is empty")
        self.dataset_dir = os.path.expanduser(cfg.DATASET.FOLDER)
        return super().locate(cfg)

    def find_images(self) -> None:
        """Raise FileNotFoundError unless the folder exists."""
        if not os.path.isdir(self.dataset_dir):
            raise FileNotFoundError(
                f"DATASET.FOLDER must name the folder of your images, below DATASET.ROOT (--root) or by its path, but "
                f"there is no {self.dataset_dir}: {describe_nearest(self.dataset_dir)}"
            )

    def load_split(self) -> Split:
        """Read `split.json`; without it, the parts are a split by themselves, and classes are split for good."""
        if not os.path.exists(self.split_path):
            return self.make_split() if has_parts(self.dataset_dir) else super().load_split()
        split = super().load_split()
        note_unlisted(split, self.dataset_dir, self.split_path)
        note_other_names(split, self.dataset_dir, self.split_path)
        return split

    def make_split(self) -> Split:
        """Make the split from the folders."""
        split = read_folders(self.dataset_dir)
        # Before it is saved: a file that is then removed as broken would be missed ever after.
        self.check_content({item.path for part in split for item in part})
        return split

    def to_datum(self, item: Item) -> Datum:
        """Return Dassl's `Datum`, whose image is read as one's own."""
        path = OwnImage(os.path.join(self.image_dir, item.path))
        return Datum(impath=path, label=item.label, classname=item.classname)


def has_parts(folder: str) -> bool:
    """Whether the folder holds train/ and test/ with one folder per class in each.

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
            training lacks; names that are not one name per class.
    """
    if has_parts(folder):
        return read_parts(folder)
    names = name_classes([name for name in list_visible(folder)[0] if name not in NO_CLASSES], folder)
    shuffle = random.Random(SPLIT_SEED).shuffle
    return split_folders(folder, list(names), ignored=NO_CLASSES, renamed=names, shuffle=shuffle)


def read_parts(folder: str) -> Split:
    """The split that the folders train/, val/ and test/ are; see `read_folders`."""
    names = name_classes(list_visible(os.path.join(folder, "train"))[0], folder)
    strays = [name for found in list_visible(folder) for name in found if name not in (*PARTS, *NO_CLASSES)]
    split = Split([], [], [])
    for part, items in split._asdict().items():
        path = os.path.join(folder, part)
        classes, files = list_visible(path) if os.path.isdir(path) else ([], [])
        strays += [f"{part}/{file}" for file in files]
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise ValueError(
                f"{path} must hold only classes that train/ beside it has as well, but holds {shorten(unknown)}, and "
                f"train/ has {shorten(names, limit=12)}"
            )
        for label, (name, classname) in enumerate(names.items()):
            images, others = list_images(os.path.join(path, name)) if name in classes else ([], [])
            strays += [f"{part}/{name}/{other}" for other in others]
            items += [Item(f"{part}/{name}/{image}", label, classname) for image in images]
            if part == "train" and not images:
                raise ValueError(f"{os.path.join(path, name)} must hold at least one training image, but holds none")
    note_strays(strays, folder)
    if not split.val:
        split = take_validation(split)
        print(
            f"Note: {folder} has no images in val/: {len(split.val)} of those in train/ are for validation, and "
            f"{len(split.train)} remain for training"
        )
    check_split(split, folder)
    return split


def take_validation(split: Split) -> Split:
    """Take validation images from the training images of each class, whatever the other classes are."""
    classes: dict[str, list[Item]] = {}
    for item in split.train:
        classes.setdefault(os.path.dirname(item.path), []).append(item)
    train, val = [], []
    for path, images in classes.items():
        n_val = min(max(1, round(len(images) * VAL_SHARE)), len(images) - 1)
        random.Random(path).shuffle(images)
        val += images[:n_val]
        train += images[n_val:]
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
                f"{classname!r}, which are the same to CLIP, as it ignores capitals: rename one of them"
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
        ValueError: the file is not UTF-8 text, a folder has no line or several, or a line is a single word.
    """
    names = _read_names(path)
    unnamed = [name for name in folders if name not in names]
    if unnamed:
        raise ValueError(f"{path} must have a line for every class folder, but has none for {shorten(unnamed)}")
    here = set(folders)
    return {name: classname for name, classname in names.items() if name in here}


def _read_names(path: str) -> dict[str, str]:
    """All lines of a `classnames.txt`; errors as of `read_classnames`."""
    names: dict[str, str] = {}
    for line in read_lines(path, r"([^\t]+\t.+|\S+ .+)", "a folder's name, a blank (or a tab) and a class name"):
        name, _, classname = line[0].partition("\t" if "\t" in line[0] else " ")
        if name in names:
            raise ValueError(f"{path} must have one line for a folder, but has several for {name!r}")
        names[name] = " ".join(classname.split())
    return names


def note_unlisted(split: Split, folder: str, source: str) -> None:
    """Print how many images there are which the split does not name: in the folders that it names, or in new ones."""
    listed = {item.path for part in split for item in part}
    named = {os.path.dirname(path) for path in listed}
    unlisted, new = [], []
    for below in sorted(named | set(_class_folders(folder))):
        names = list_images(os.path.join(folder, below))[0] if os.path.isdir(os.path.join(folder, below)) else []
        paths = [os.path.join(below, name) for name in names]
        unlisted += [path for path in paths if path not in listed]
        new += [below] * (bool(paths) and below not in named)
    if unlisted:
        classes = f" (and no image of {shorten(new)})" if new else ""
        print(
            f"Note: {len(unlisted)} images are not in {source} and are not used: {shorten(unlisted)}{classes}; remove "
            "that file to have all images split again, with other results"
        )


def _class_folders(folder: str) -> list[str]:
    """Folders that may hold the images of a class, seen from the data set's folder."""
    parts = [part for part in PARTS if os.path.isdir(path := os.path.join(folder, part)) and list_visible(path)[0]]
    tops = parts if {"train", "test"} <= set(parts) else [""]
    below = [os.path.join(top, name) for top in tops for name in list_visible(os.path.join(folder, top))[0]]
    return [path for path in below if path not in NO_CLASSES]


def note_other_names(split: Split, folder: str, source: str) -> None:
    """Print that `classnames.txt` has other class names, or another order, than the split file, which counts."""
    path = os.path.join(folder, CLASSNAMES_FILE)
    if not os.path.exists(path):
        return
    used = {os.path.basename(os.path.dirname(item.path)): item for part in split for item in part}
    names = {name: classname for name, classname in _read_names(path).items() if name in used}
    others = [f"{name} ({classname!r})" for name, classname in names.items() if used[name].classname != classname]
    labels = [used[name].label for name in names]
    if others or labels != sorted(labels):
        what = f"other names of {shorten(others)}" if others else "another order of the classes"
        print(
            f"Note: {path} has {what}, which is not used, as {source} has names and labels already; remove {source} to "
            "have it used and all images split again, with other results"
        )
