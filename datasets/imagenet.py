"""ImageNet (Deng et al., CVPR 2009), and what its four variants share with it.

$DATA/imagenet/images/{train,val}/<WordNet id>/*.JPEG
$DATA/imagenet/classnames.txt              <WordNet id> <class name>
$DATA/imagenet/preprocessed.pkl            lists of images that CoOp's reader kept, if it ever ran on this folder

The class names are CLIP's, which call two pairs of classes by one name each, "missile" and "sunglasses"; such pairs are
accepted here and noted. There is no split file. CoOp's reader takes a class's images in the order in which the file
system happens to list them, and keeps that order in `preprocessed.pkl`; here they are sorted where there is no such
file, so that a seed draws the same few-shot images on all machines.
"""

from __future__ import annotations

import os

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .files import list_classes, list_images, note_strays, read_lines, shorten
from .pickles import read_pickled
from .splits import Item, Split, check_split

CLASS_NAMES = "classnames.txt"
PICKLED = "preprocessed.pkl"


@DATASET_REGISTRY.register()
class ImageNet(SplitDataset):
    """ImageNet's 1,000 classes in the order of their WordNet ids; its validation images are for testing.

    They are also what Dassl is given as validation images, so that no part of the training images is set aside.
    """

    dataset_dir = "imagenet"
    image_folders = ("train", "val")
    required_files = (CLASS_NAMES,)
    equal_names = True

    def load_split(self) -> Split:
        """Take the lists that CoOp's reader kept in this folder, else list the images."""
        path = os.path.join(self.dataset_dir, PICKLED)
        if not os.path.exists(path):
            return super().load_split()
        print(f"Reading the lists of images that CoOp's reader kept in {path}")
        lists = read_pickled(path, self.image_suffix)
        if not {"train", "test"} <= set(lists):
            raise ValueError(
                f"{path} must hold the lists train and test, got {shorten(lists)}; remove it to list the images"
            )
        split = Split([Item(*entry) for entry in lists["train"]], [], [Item(*entry) for entry in lists["test"]])
        check_split(split, path, equal_names=True)
        self.check_images(split, path)
        names_path = os.path.join(self.dataset_dir, CLASS_NAMES)
        if os.path.exists(names_path):
            names = read_classnames(names_path)
            kept = {item.path.split("/")[1]: item.classname for item in split.train}
            others = [f"{folder} {kept[folder]!r}" for folder in sorted(kept) if names.get(folder) != kept[folder]]
            if others:
                print(f"Note: {path}, which decides, has class names that {CLASS_NAMES} has not: {shorten(others)}")
        return split

    def make_split(self) -> Split:
        """List the images; raise ValueError if the two folders do not hold the same classes."""
        names = read_classnames(os.path.join(self.dataset_dir, CLASS_NAMES))
        parts = {}
        for part in self.image_folders:
            folders, strays = list_classes(os.path.join(self.image_dir, part))
            parts[part] = name_folders(folders, names, os.path.join(self.image_dir, part))
            note_strays(strays, os.path.join(self.image_dir, part))
        differing = sorted(set(parts["train"]) ^ set(parts["val"]))
        if differing:
            raise ValueError(
                f"{self.image_dir} must hold the same class folders in train and val, but {len(differing)} are in one "
                f"of them only: {shorten(differing)}"
            )
        train, test = (list_class_images(self.image_dir, parts[part], part) for part in self.image_folders)
        return Split(train, [], test)

    def arrange(self, split: Split, cfg) -> Split:
        """As for any set, with the test images as validation images; not on the smaller set that has others."""
        arranged = super().arrange(split, cfg)
        return arranged if cfg.DATASET.PSEUDO_IMAGES else arranged._replace(val=arranged.test)


class ImageNetVariant(SplitDataset):
    """A set of images of ImageNet's classes, for testing only.

    All images are test images. As in CoOp they are also given as training images, from which Dassl takes the classes,
    and the number of shots and the choice of classes have no effect.
    """

    image_dir = ""
    required_files = (CLASS_NAMES,)
    equal_names = True

    def make_split(self) -> Split:
        """List the images."""
        folders, strays = list_classes(self.image_dir, self.ignored_folders)
        note_strays(strays, self.image_dir)
        images = list_class_images(self.image_dir, self.name_classes(folders))
        return Split(images, [], images)

    def name_classes(self, folders: list[str]) -> dict[str, str]:
        """Return folder -> class name in the order of the labels, for the class folders that are there, sorted."""
        return name_folders(folders, read_classnames(os.path.join(self.dataset_dir, CLASS_NAMES)), self.image_dir)

    def arrange(self, split: Split, cfg) -> Split:
        """Return all images, whatever the config asks for.

        Raises:
            ValueError: it asks for a smaller set to choose settings on.
        """
        if cfg.DATASET.PSEUDO_IMAGES:
            raise ValueError(f"{type(self).__name__} is for testing only, and no settings are chosen on it")
        if cfg.DATASET.NUM_SHOTS >= 1 or cfg.DATASET.SUBSAMPLE_CLASSES != "all":
            print(f"Note: {type(self).__name__} is for testing on all its images and classes, and is taken whole")
        return split


def read_classnames(path: str) -> dict[str, str]:
    """Read `classnames.txt`.

    Returns:
        Folder (WordNet id) -> class name, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line has another form, or a folder comes twice.
    """
    lines = read_lines(path, r"(\S+) (.+)", "'<folder> <class name>'")
    names = {line[0]: line[1] for line in lines}
    if len(names) < len(lines):
        raise ValueError(f"{path} must name each folder once, but has {len(lines)} lines for {len(names)} folders")
    return names


def name_folders(folders: list[str], names: dict[str, str], parent: str) -> dict[str, str]:
    """Return folder -> class name for some of the folders in `names`.

    Args:
        folders: the class folders in the order of their labels.
        names: folder -> class name, of all classes.
        parent: where the folders lie, for what is printed.

    Raises:
        ValueError: a folder has no class name.
    """
    nameless = [folder for folder in folders if folder not in names]
    if nameless:
        raise ValueError(
            f"{CLASS_NAMES} has no class name for {len(nameless)} of the {len(folders)} folders in {parent}: "
            f"{shorten(nameless)}"
        )
    if len(folders) < len(names):
        print(f"Note: {len(folders)} of the {len(names)} classes in {CLASS_NAMES} have a folder in {parent}")
    return {folder: names[folder] for folder in folders}


def list_class_images(image_dir: str, names: dict[str, str], part: str = "") -> list[Item]:
    """List the images of class folders, each folder's sorted.

    Args:
        image_dir: folder that the paths start from.
        names: class folder -> class name, in the order of the labels.
        part: folder under `image_dir` that holds the class folders.

    Raises:
        ValueError: a folder has no image.
    """
    items, strays = [], []
    for label, (folder, name) in enumerate(names.items()):
        path = os.path.join(part, folder)
        images, others = list_images(os.path.join(image_dir, path))
        if not images:
            raise ValueError(f"the class folder {os.path.join(image_dir, path)} holds no image")
        items += [Item(f"{path}/{image}", label, name) for image in images]
        strays += [f"{path}/{other}" for other in others]
    note_strays(strays, image_dir)
    return items
