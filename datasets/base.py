"""What the data set readers share: split file, few-shot selection, base and new classes, sets written on first use.

A reader is a subclass of `SplitDataset` that names its folders and, where its set needs it, says how the split is made:

    $DATA/<dataset_dir>/<image_dir>/...      the images
    $DATA/<dataset_dir>/<split_file>         {"train": [[path, label, class name], ...], "val": [...], "test": [...]}
    $DATA/<dataset_dir>/split_fewshot/       the few-shot images that runs used, one file for shots and seed

This is CoOp's published layout, and for a seed the readers give what CoOp's published readers give: the same lists in
the same order, the same few-shot images, the same halves of the classes. Paths in the files are relative to the image
folder, so a data folder may be moved. An image that the split names and the folder lacks, an empty image file, a label
with two names: each is an error that names it, because leaving it out would change the numbers.
"""

from __future__ import annotations

import functools
import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from dassl.config import cfg_default
from dassl.data.datasets import DatasetBase, Datum

from storage.files import sweep

from .fewshot import FOLDER, FewShotSelector
from .files import describe_nearest, generate_once, read_json, shorten, write_json
from .pseudo import pseudo_parts
from .splits import (
    Item,
    Split,
    check_images,
    check_places,
    check_split,
    parse_split,
    read_split,
    save_split,
    split_folders,
    subsample_classes,
    with_slashes,
)

GENERATOR = "generator.json"  # beside the images of a set that is written on first use: what wrote them

if "SUBSAMPLE_CLASSES" not in cfg_default.DATASET:
    cfg_default.DATASET.SUBSAMPLE_CLASSES = "all"
if "IMAGES_OUTSIDE" not in cfg_default.DATASET:
    cfg_default.DATASET.IMAGES_OUTSIDE = False
# To choose settings: the base classes stand for the whole set, and so many further training or validation images of
# each of them for its test images, or all where there are fewer; 0: the set as it is
if "PSEUDO_IMAGES" not in cfg_default.DATASET:
    cfg_default.DATASET.PSEUDO_IMAGES = 0


class SplitDataset(DatasetBase):
    """A data set with a split file, as Dassl's trainers expect it.

    Subclasses set the class attributes; those whose split is not made from class folders override `make_split`.
    """

    dataset_dir: str = ""  # folder under DATASET.ROOT
    image_dir: str = "images"  # folder under `dataset_dir` that the split's paths start from
    image_folders: ClassVar[Sequence[str]] = ()  # folders under `image_dir` that must be there, where it is not one
    split_file: str = ""  # file under `dataset_dir`; a set without one makes its split each time
    required_files: ClassVar[Sequence[str]] = ()  # under `dataset_dir`, to make the split where no split file lies
    ignored_folders: ClassVar[Sequence[str]] = ()  # names under `image_dir` that are no class
    renamed_classes: ClassVar[Mapping[str, str]] = {}  # folder -> class name, where they differ
    equal_names: bool = False  # whether two classes may have one name, as some of ImageNet's do

    def __init__(self, cfg) -> None:
        """Read the set.

        Args:
            cfg: Dassl's config. Read are `DATASET.ROOT`, `DATASET.NUM_SHOTS` (below 1: all images),
                `DATASET.SUBSAMPLE_CLASSES` (all | base | new) and `SEED` (in the name of the few-shot file; the images
                are drawn from the global `random` state, as `set_random_seed` has left it),
                `DATASET.IMAGES_OUTSIDE` (whether a split file may name images outside the data folder), and
                `DATASET.PSEUDO_IMAGES` (see `datasets.pseudo`).

        Raises:
            FileNotFoundError: the data folder, a file that the split is made from, or an image that the split names,
                does not exist.
            ValueError: the split, the class folders or a kept few-shot selection are not usable, the split names images
                outside the data folder, or an image is an empty file.
        """
        root = self.locate(cfg)
        self.tidy()
        # A set with a path of its own, as of `DATASET.FOLDER`, is its own data folder.
        below_root = os.path.join(self.dataset_dir, "").startswith(os.path.join(root, ""))
        self.data_dir = "" if cfg.DATASET.IMAGES_OUTSIDE else root if below_root else os.path.abspath(self.dataset_dir)
        self.find_images()
        parts = self.arrange(self.load_split(), cfg)
        self.check_content({item.path for part in parts for item in part})
        to_datum = functools.cache(self.to_datum)  # asks the file system once for an image of two parts
        train, val, test = ([to_datum(item) for item in part] for part in parts)
        super().__init__(train_x=train, val=val, test=test)

    @classmethod
    def check_there(cls, cfg) -> None:
        """Raise FileNotFoundError unless the image folders exist; nothing is read or written."""
        reader = cls.__new__(cls)
        reader.locate(cfg)
        reader.find_images()

    def locate(self, cfg) -> str:
        """Set the paths of the set's folders and its split file, and return the data folder."""
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.image_suffix = os.path.normpath(os.path.join(self.dataset_dir, self.image_dir))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(root, self.image_suffix)
        self.split_path = os.path.join(self.dataset_dir, self.split_file)
        return root

    def tidy(self) -> None:
        """Remove what readers in processes that were killed have left half-written."""
        for folder in (self.dataset_dir, os.path.join(self.dataset_dir, FOLDER)):
            sweep(folder)

    def find_images(self) -> None:
        """Raise FileNotFoundError unless the image folders exist."""
        for folder in self.image_folders or ("",):
            path = os.path.join(self.image_dir, folder) if folder else self.image_dir
            if not os.path.isdir(path):
                raise FileNotFoundError(
                    f"the images of {type(self).__name__} must lie in {path} (below DATASET.ROOT, --root), "
                    f"but {describe_nearest(path)}"
                )

    def load_split(self) -> Split:
        """Read the split file, or make and save the split where there is none.

        A new split is checked before it is saved, and compared with the file afterwards, so that of two processes which
        made one at the same time both use the one that was saved. Making it leaves the global `random` state as it was.
        CoOp goes on from the state after the shuffling in that one run and keeps its selection in a pickle; here the
        first run on a machine and all later ones draw the same few-shot images.
        """
        if not self.split_file or not os.path.exists(self.split_path):
            self.find_required_files()
            state = random.getstate()
            split = self.make_split()
            random.setstate(state)
            check_split(split, self.dataset_dir, self.equal_names)
            self.check_images(split, self.dataset_dir)
            if not self.split_file:
                return split
            save_split(split, self.split_path)
            print(f"Saved a new split to {self.split_path}")
            if parse_split(self.split_path) == split:
                return split
        print(f"Reading the split from {self.split_path}")
        split = with_slashes(read_split(self.split_path, self.equal_names), self.image_dir)
        self.check_images(split, self.split_path)
        return split

    def check_images(self, split: Split, source: str) -> None:
        """Raise ValueError or FileNotFoundError if `source` names images outside the data folder or none."""
        if self.data_dir:
            check_places(split, self.image_dir, self.data_dir, source)
        check_images(split, self.image_dir, source)

    def find_required_files(self) -> None:
        """Raise FileNotFoundError unless the files that the split is made from exist."""
        missing = [name for name in self.required_files if not os.path.exists(os.path.join(self.dataset_dir, name))]
        if missing:
            instead = f"{self.split_file}, or to make it " if self.split_file else ""
            raise FileNotFoundError(
                f"{type(self).__name__} needs {instead}{shorten(self.required_files)} in {self.dataset_dir}, but lacks "
                f"{shorten(missing)}: {describe_nearest(self.dataset_dir)}"
            )

    def make_split(self) -> Split:
        """Make the split where no split file exists: here from one folder per class, drawn from the global `random`."""
        return split_folders(self.image_dir, ignored=self.ignored_folders, renamed=self.renamed_classes)

    def arrange(self, split: Split, cfg) -> Split:
        """Return what the config asks for: the shots and the classes."""
        selector = FewShotSelector(cfg.DATASET.NUM_SHOTS, cfg.SEED, self.dataset_dir, self.image_suffix)
        few, name = selector.select(split.train, split.val), type(self).__name__
        parts = Split(*few, split.test)
        if cfg.DATASET.PSEUDO_IMAGES:
            parts = pseudo_parts(split, few, cfg.DATASET.PSEUDO_IMAGES, cfg.SEED, name)
        return Split(*subsample_classes(*parts, subsample=cfg.DATASET.SUBSAMPLE_CLASSES, name=name))

    def check_content(self, paths: Iterable[str]) -> None:
        """Raise ValueError if images are empty files, at which a run would stop only when it reads them."""
        empty = sorted(path for path in paths if os.path.getsize(os.path.join(self.image_dir, path)) == 0)
        if empty:
            raise ValueError(
                f"{len(empty)} of the images of {type(self).__name__} that this run needs are empty files (0 bytes), "
                f"as a broken copy leaves them, under {self.image_dir}: {shorten(empty)}"
            )

    def to_datum(self, item: Item) -> Datum:
        """Return Dassl's `Datum` for an item, with the full path."""
        return Datum(impath=os.path.join(self.image_dir, item.path), label=item.label, classname=item.classname)


class GeneratedDataset(SplitDataset):
    """A data set that writes its own images on first use; its split is the same on every machine and for every seed.

    `generator.json` beside the images says how they were made, so images of an older version of the reader are
    recognised. Subclasses set `class_folders` and override `write_images`, and `generator` if the images follow from
    more than is there.
    """

    class_folders: ClassVar[Sequence[str]] = ()  # in the order of their labels
    split_seed: int = 1
    version: int = 1  # to be raised whenever the same settings give other images

    @classmethod
    def check_there(cls, cfg) -> None:
        """Nothing: the images are written when the set is read."""

    def find_images(self) -> None:
        """Write the images unless they are there.

        Raises:
            ValueError: those that are there were made by another generator.
        """
        path = os.path.join(self.dataset_dir, GENERATOR)
        if os.path.isfile(self.split_path) or (os.path.isdir(self.image_dir) and os.listdir(self.image_dir)):
            self.check_generator(path)
        else:
            os.makedirs(self.dataset_dir, exist_ok=True)
            write_json(self.generator(), path)  # before the images, which are there all at once
        generate_once(self.image_dir, self.write_images)

    def generator(self) -> dict[str, Any]:
        """What images and split follow from, as plain data."""
        return {
            "set": type(self).__name__,
            "version": self.version,
            "class_folders": list(self.class_folders),
            "renamed_classes": dict(self.renamed_classes),
            "split_seed": self.split_seed,
        }

    def check_generator(self, path: str) -> None:
        """Raise ValueError unless `path` says that this generator has written the images that are there."""
        wanted = json.loads(json.dumps(self.generator()))
        found = read_json(path, "what generated the images") if os.path.isfile(path) else {}
        found = found if isinstance(found, dict) else {}
        if found != wanted:
            differing = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
            reason = f"which differs in {', '.join(differing)}" if found else f"from before there was a {GENERATOR}"
            raise ValueError(
                f"the images in {self.dataset_dir} were made by another version of {type(self).__name__}, {reason}: "
                f"delete the folder {self.dataset_dir}, and they are made again"
            )

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
