"""What the data set readers share: split file, few-shot selection, base and new classes, sets written on first use.

A reader is a subclass of `SplitDataset` that names its folders and, where its set needs it, says how the split is made:

    $DATA/<dataset_dir>/<image_dir>/...      the images
    $DATA/<dataset_dir>/<split_file>         {"train": [[path, label, class name], ...], "val": [...], "test": [...]}

This is CoOp's published layout, and for a seed the readers give what CoOp's published readers give: the same lists in
the same order, the same few-shot images, the same halves of the classes. Paths in the split file are relative to the
image folder, so a data folder may be moved.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable, ClassVar, NamedTuple

from dassl.config import cfg_default
from dassl.data.datasets import DatasetBase, Datum

if "SUBSAMPLE_CLASSES" not in cfg_default.DATASET:
    cfg_default.DATASET.SUBSAMPLE_CLASSES = "all"

IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SUBSAMPLES = ("all", "base", "new")
VAL_SHOTS = 4  # CoOp never takes more than four validation images a class, whatever the number of shots
ABANDONED_AFTER = 24 * 3600  # seconds after which a half-written folder cannot belong to a running process


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


class SplitDataset(DatasetBase):
    """A data set with a split file, as Dassl's trainers expect it.

    Subclasses set the class attributes; those whose split is not made from class folders override `make_split`.
    """

    dataset_dir: str = ""  # folder under DATASET.ROOT
    image_dir: str = "images"  # folder under `dataset_dir` that the split's paths start from
    split_file: str = ""  # file under `dataset_dir`
    ignored_folders: ClassVar[Sequence[str]] = ()  # folders under `image_dir` that are no class
    renamed_classes: ClassVar[Mapping[str, str]] = {}  # folder -> class name, where they differ

    def __init__(self, cfg) -> None:
        """Read the set.

        Args:
            cfg: Dassl's config. Read are `DATASET.ROOT`, `DATASET.NUM_SHOTS` (below 1: all images),
                `DATASET.SUBSAMPLE_CLASSES` (all | base | new) and `SEED` (for a note only: the few-shot images are
                drawn from the global `random` state, as `set_random_seed` has left it).

        Raises:
            FileNotFoundError: the data folder, or an image that the split names, does not exist.
            ValueError: the split or the class folders are not a usable data set.
        """
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, self.image_dir)
        self.split_path = os.path.join(self.dataset_dir, self.split_file)

        self.find_images()
        split = self.load_split()
        train, val = self.select_shots(split.train, split.val, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        train, val, test = subsample_classes(
            train, val, split.test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES, name=type(self).__name__
        )
        super().__init__(train_x=self.to_datums(train), val=self.to_datums(val), test=self.to_datums(test))

    def find_images(self) -> None:
        """Raise FileNotFoundError unless the image folder exists."""
        if not os.path.isdir(self.image_dir):
            raise FileNotFoundError(
                f"the images of {type(self).__name__} must lie in {self.image_dir} (below DATASET.ROOT, --root), "
                f"but {describe_nearest(self.image_dir)}"
            )

    def load_split(self) -> Split:
        """Read the split file, or make and save the split where there is none.

        The split is always read back from the file, so that of two processes which made one at the same time both use
        the one that was saved. Making it leaves the global `random` state as it was. CoOp goes on from the state after
        the shuffling in that one run and keeps its selection in a pickle; here the first run on a machine and all later
        ones draw the same few-shot images, with nothing to keep.
        """
        if os.path.exists(self.split_path):
            print(f"Reading the split from {self.split_path}")
        else:
            state = random.getstate()
            split = self.make_split()
            random.setstate(state)
            save_split(split, self.split_path)
            print(f"Saved a new split to {self.split_path}")
        split = read_split(self.split_path)
        check_images(split, self.image_dir, self.split_path)
        return split

    def make_split(self) -> Split:
        """Make the split where no split file exists: here from one folder a class, drawn from the global `random`."""
        return split_folders(self.image_dir, ignored=self.ignored_folders, renamed=self.renamed_classes)

    def select_shots(
        self, train: list[Item], val: list[Item], num_shots: int, seed: int
    ) -> tuple[list[Item], list[Item]]:
        """Draw `num_shots` training and at most four validation images a class from the global `random` state.

        Nothing is cached: the draw takes no time and is the seed's own, so a cache could only ever be wrong (made from
        another split, at another place, by another release). A selection that CoOp pickled is pointed out, not read.
        """
        if num_shots < 1:
            return train, val
        pickled = os.path.join(self.dataset_dir, "split_fewshot", f"shot_{num_shots}-seed_{seed}.pkl")
        if os.path.exists(pickled):
            print(f"Note: {pickled} is not read; its images are drawn anew from the seed")
        counts = Counter(item.classname for item in train)
        short = sorted((count, name) for name, count in counts.items() if count < num_shots)
        if short:
            print(
                f"Note: {len(short)} of {len(counts)} classes have fewer than {num_shots} training images "
                f"(fewest: {short[0][1]}, {short[0][0]}), all of which are taken"
            )
        train = self.generate_fewshot_dataset(train, num_shots=num_shots)
        val = self.generate_fewshot_dataset(val, num_shots=min(num_shots, VAL_SHOTS))
        return train, val

    def to_datums(self, items: Iterable[Item]) -> list[Datum]:
        """Return Dassl's `Datum` for each item, with the full path."""
        return [
            Datum(impath=os.path.join(self.image_dir, item.path), label=item.label, classname=item.classname)
            for item in items
        ]


class GeneratedDataset(SplitDataset):
    """A data set that writes its own images on first use; its split is the same on every machine and for every seed.

    Subclasses set `class_folders` and override `write_images`.
    """

    class_folders: ClassVar[Sequence[str]] = ()  # in the order of their labels
    split_seed: int = 1

    def find_images(self) -> None:
        """Write the images unless they are there."""
        generate_once(self.image_dir, self.write_images)

    def write_images(self, folder: str) -> None:
        """Write `folder/<class folder>/*.png`, from a generator of one's own and not from the global random states."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its images are made")

    def make_split(self) -> Split:
        """Split every class folder, in the order of `class_folders`, with the set's own seed."""
        return split_folders(
            self.image_dir,
            folders=self.class_folders,
            renamed=self.renamed_classes,
            shuffle=random.Random(self.split_seed).shuffle,
        )


def split_folders(
    image_dir: str,
    folders: Sequence[str] | None = None,
    ignored: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
    p_train: float = 0.5,
    p_val: float = 0.2,
    shuffle: Callable[[list], None] = random.shuffle,
) -> Split:
    """Split one folder a class into train, val and test, as CoOp's readers of DTD, Caltech101, EuroSAT and Food101 do.

    Departs from them in two points. Images are sorted before the shuffle, where CoOp takes them in the order in which
    the file system happens to list them: so a seed gives one split on all machines. And files that are no images are
    left out and counted, where CoOp takes every file that is not hidden.

    Args:
        image_dir: folder that holds one folder a class.
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
    found, strays = list_visible(image_dir)
    found = [folder for folder in found if folder not in ignored]
    if folders is None:
        folders = found
    elif set(folders) != set(found):
        raise ValueError(
            f"{image_dir} must hold the class folders {shorten(folders, limit=20)} and no others, "
            f"but holds {shorten(found, limit=20) or 'none'}"
        )
    if not folders:
        raise ValueError(f"{image_dir} must hold one folder a class, but {describe_nearest(image_dir)}")

    split = Split([], [], [])
    for label, folder in enumerate(folders):
        subfolders, files = list_visible(os.path.join(image_dir, folder))
        images = [name for name in files if name.lower().endswith(IMAGE_EXTENSIONS)]
        others = subfolders + [name for name in files if not name.lower().endswith(IMAGE_EXTENSIONS)]
        strays += [f"{folder}/{name}" for name in others]
        n_train, n_val = round(len(images) * p_train), round(len(images) * p_val)
        if min(n_train, n_val, len(images) - n_train - n_val) < 1:
            raise ValueError(
                f"the class folder {os.path.join(image_dir, folder)} must hold enough images to give train, val and "
                f"test at least one each, but holds {len(images)}"
            )
        shuffle(images)
        items = [Item(f"{folder}/{name}", label, renamed.get(folder, folder)) for name in images]
        split.train.extend(items[:n_train])
        split.val.extend(items[n_train : n_train + n_val])
        split.test.extend(items[n_train + n_val :])
    if strays:
        print(f"Note: {len(strays)} entries under {image_dir} are not images and are left out: {shorten(strays)}")
    return split


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


def read_split(path: str) -> Split:
    """Read and check a `split_zhou_*.json`.

    Raises:
        ValueError: not JSON, not the three lists of [path, label, class name], an empty train or test list, train
            labels that are not 0 .. C-1, a label with two names or two labels with one name, a class in val or test
            that has no training image.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except ValueError as error:
        raise ValueError(f"the split file {path} is not readable as JSON ({error})") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in Split._fields):
        raise ValueError(f"the split file {path} must be a JSON object with the lists train, val and test")
    for part in Split._fields:
        for index, entry in enumerate(content[part]):
            if not isinstance(entry, list) or [type(value) for value in entry] != [str, int, str]:
                raise ValueError(
                    f"entry {index} of {part} in the split file {path} must be [path, label, class name], got {entry!r}"
                )
    split = Split(*([Item(*entry) for entry in content[part]] for part in Split._fields))
    check_split(split, path)
    return split


def check_split(split: Split, source: str) -> None:
    """Raise ValueError unless the split's labels and class names are usable (see `read_split`); print what is odd."""
    if not split.train or not split.test:
        raise ValueError(f"{source} must have training and test images, got {len(split.train)} and {len(split.test)}")
    names: dict[int, str] = {}
    for item in (*split.train, *split.val, *split.test):
        if names.setdefault(item.label, item.classname) != item.classname:
            raise ValueError(
                f"{source} gives label {item.label} two class names, {names[item.label]!r} and {item.classname!r}"
            )
    for name, count in Counter(names.values()).items():
        if count > 1:
            labels = sorted(label for label in names if names[label] == name)
            raise ValueError(f"{source} gives the labels {shorten(labels)} the same class name {name!r}")
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
    repeated = [path for path, n in Counter(item.path for part in split for item in part).items() if n > 1]
    if repeated:
        print(f"Note: {source} names {len(repeated)} images more than once: {shorten(repeated)}")


def check_images(split: Split, image_dir: str, source: str) -> None:
    """Raise FileNotFoundError if `source`, the split file, names images that do not exist.

    Every folder is listed once, which is far quicker than to ask for every file; only what no listing has is asked for.
    """
    paths = {item.path for part in split for item in part}
    listed = set()
    for folder in {os.path.dirname(path) for path in paths}:
        if os.path.isdir(os.path.join(image_dir, folder)):
            with os.scandir(os.path.join(image_dir, folder)) as entries:
                listed.update(os.path.join(folder, entry.name) for entry in entries if entry.is_file())
    missing = sorted(path for path in paths - listed if not os.path.isfile(os.path.join(image_dir, path)))
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images that {source} names are not under {image_dir}: "
            f"{shorten(missing)}"
        )


def save_split(split: Split, path: str) -> None:
    """Write a split file whole or not at all; one that another process has saved in the meantime is left in place.

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    part = f"{path}.{uuid.uuid4().hex}.part"
    try:
        with open(part, "x", encoding="utf-8") as file:
            json.dump(split._asdict(), file, indent=4)
        try:
            os.link(part, path)  # unlike a rename, this fails if the file exists
        except FileExistsError:
            return
        except OSError:  # a file system without links
            os.replace(part, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"the split, which must stay the same for all runs, cannot be saved to {path} ({error.strerror}): make the "
            "folder writable or put a split file there",
        ) from error
    finally:
        if os.path.exists(part):
            os.remove(part)


def generate_once(folder: str, build: Callable[[str], None]) -> None:
    """Fill `folder` by `build` unless it has content already; afterwards it is complete, or an error was raised.

    `build` writes into a new folder beside it, which is renamed when it is done. So `folder` never exists half-made;
    two processes at once both build and the first one to finish is kept. What a killed process left behind has a hidden
    name of its own, is never mistaken for the set, and is removed by a later call once it is a day old.

    Args:
        folder: the folder to make; its parents are made as needed.
        build: is given an empty folder and writes the content. Must give the same content each time.
    """
    if os.path.isdir(folder) and os.listdir(folder):
        return
    parent, name = os.path.split(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    for entry in os.listdir(parent):
        path = os.path.join(parent, entry)
        if (
            entry.startswith(f".{name}-")
            and entry.endswith(".part")
            and time.time() - os.path.getmtime(path) > ABANDONED_AFTER
        ):
            shutil.rmtree(path, ignore_errors=True)

    part = os.path.join(parent, f".{name}-{uuid.uuid4().hex}.part")
    os.mkdir(part)
    print(f"Writing {folder} (once)")
    try:
        build(part)
        try:
            os.rename(part, folder)
        except OSError:
            if not (os.path.isdir(folder) and os.listdir(folder)):
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def list_visible(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in `folder`, each sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        visible = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    return [name for name, is_dir in visible if is_dir], [name for name, is_dir in visible if not is_dir]


def describe_nearest(path: str) -> str:
    """Say what the nearest existing folder at or above `path` holds: `/data holds caltech-101, eurosat`."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    folders, files = list_visible(path)
    content = shorten([f"{folder}/" for folder in folders] + files, limit=12)
    return f"{path} holds {content}" if content else f"{path} is empty"


def shorten(values: Iterable, limit: int = 5) -> str:
    """Join values by commas; of more than `limit`, the first ones and how many more there are."""
    values = [str(value) for value in values]
    rest = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(values[:limit]) + rest
