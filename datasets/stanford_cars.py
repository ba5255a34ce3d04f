"""Stanford Cars (Krause et al., 3dRR 2013): 196 makes, models and years of cars, 16,185 images.

$DATA/stanford_cars/{cars_train,cars_test}/<number>.jpg
$DATA/stanford_cars/devkit/{cars_train_annos,cars_meta}.mat
$DATA/stanford_cars/cars_test_annos_withlabels.mat
$DATA/stanford_cars/split_zhou_StanfordCars.json
"""

from __future__ import annotations

import os

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .files import read_mat
from .splits import Item, Split, split_trainval

TRAIN_LABELS = "devkit/cars_train_annos.mat"
TEST_LABELS = "cars_test_annos_withlabels.mat"
CLASS_NAMES = "devkit/cars_meta.mat"


@DATASET_REGISTRY.register()
class StanfordCars(SplitDataset):
    """Stanford Cars; a class is called by its year first, "2012 Tesla Model S Sedan"."""

    dataset_dir = "stanford_cars"
    image_dir = ""
    image_folders = ("cars_train", "cars_test")
    split_file = "split_zhou_StanfordCars.json"
    required_files = (TRAIN_LABELS, TEST_LABELS, CLASS_NAMES)

    def make_split(self) -> Split:
        """Take the official test images, and a fifth of each class's others for validation."""
        path = os.path.join(self.dataset_dir, CLASS_NAMES)
        rows = read_mat(path, "class_names")
        try:
            names = [str(name[0]) for name in rows[0]]
        except (IndexError, TypeError) as error:
            raise ValueError(f"{path} must hold class_names, a row of texts ({error})") from error
        trainval = self.read_labels(TRAIN_LABELS, "cars_train", names)
        test = self.read_labels(TEST_LABELS, "cars_test", names)
        train, val = split_trainval(trainval, os.path.join(self.dataset_dir, TRAIN_LABELS))
        return Split(train, val, test)

    def read_labels(self, name: str, folder: str, names: list[str]) -> list[Item]:
        """Read the images of one folder with their labels.

        Args:
            name: of the file with the labels, under `dataset_dir`.
            folder: of the images.
            names: class names as in the devkit, the year last.

        Raises:
            ValueError: the file is not the devkit's, or has a label that no class has.
        """
        path = os.path.join(self.dataset_dir, name)
        rows = read_mat(path, "annotations")
        try:
            annotations = [(str(entry["fname"][0]), int(entry["class"][0, 0])) for entry in rows[0]]
        except (IndexError, TypeError, ValueError) as error:  # ValueError: NumPy's word for a field that is not there
            raise ValueError(f"{path} must hold annotations, a row with fname and class ({error})") from error
        items = []
        for image, label in annotations:
            if not 1 <= label <= len(names):
                raise ValueError(f"{path} gives {image} the label {label}, but the classes are 1 to {len(names)}")
            model, _, year = names[label - 1].rpartition(" ")
            items.append(Item(f"{folder}/{image}", label - 1, f"{year} {model}".rstrip()))
        return items
