"""Oxford Flowers 102 (Nilsback and Zisserman, ICVGIP 2008): 102 flowers, 8,189 images.

$DATA/oxford_flowers/jpg/image_<number>.jpg
$DATA/oxford_flowers/imagelabels.mat       one label from 1 for each image
$DATA/oxford_flowers/cat_to_name.json      {"<label>": class name}
$DATA/oxford_flowers/split_zhou_OxfordFlowers.json
"""

from __future__ import annotations

import os
import random

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .files import read_json, read_mat, shorten
from .splits import Item, Split, divide

LABELS = "imagelabels.mat"
CLASS_NAMES = "cat_to_name.json"


@DATASET_REGISTRY.register()
class OxfordFlowers(SplitDataset):
    """Oxford Flowers 102 with CoOp's split, half of each class for training, which is not the official one."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    required_files = (LABELS, CLASS_NAMES)

    def make_split(self) -> Split:
        """Divide each class by chance; classes come in the order of their first image, as in CoOp's lists."""
        path = os.path.join(self.dataset_dir, LABELS)
        rows = read_mat(path, "labels")
        try:
            labels = [int(label) for label in rows[0]]
        except (IndexError, TypeError) as error:
            raise ValueError(f"{path} must hold labels, a row of numbers ({error})") from error
        names_path = os.path.join(self.dataset_dir, CLASS_NAMES)
        names = read_json(names_path, "the list of class names")
        nameless = sorted(label for label in set(labels) if not isinstance(names, dict) or str(label) not in names)
        if nameless:
            raise ValueError(f"{names_path} has no class name for the labels {shorten(nameless)} in {path}")

        classes: dict[int, list[str]] = {}
        for number, label in enumerate(labels, start=1):
            classes.setdefault(label, []).append(f"image_{number:05d}.jpg")
        split = Split([], [], [])
        for label, images in classes.items():
            random.shuffle(images)
            name = names[str(label)]
            items = [Item(image, label - 1, name) for image in images]
            for part, share in zip(split, divide(items, f"{name} in {path}")):
                part.extend(share)
        return split
