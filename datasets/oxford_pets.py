"""Oxford-IIIT Pets (Parkhi et al., CVPR 2012): 37 breeds of cats and dogs, 7,349 images.

$DATA/oxford_pets/images/<Breed>_<number>.jpg
$DATA/oxford_pets/annotations/{trainval,test}.txt      <Breed>_<number> <label from 1> <species> <breed of the species>
$DATA/oxford_pets/split_zhou_OxfordPets.json
"""

from __future__ import annotations

import os

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .files import read_lines
from .splits import Item, Split, split_trainval

LISTS = ("annotations/trainval.txt", "annotations/test.txt")


@DATASET_REGISTRY.register()
class OxfordPets(SplitDataset):
    """Oxford-IIIT Pets; a class is called by its breed, in lower case."""

    dataset_dir = "oxford_pets"
    split_file = "split_zhou_OxfordPets.json"
    required_files = LISTS

    def make_split(self) -> Split:
        """Take the official test images, and a fifth of each breed's others for validation."""
        trainval, test = map(self.read_list, LISTS)
        train, val = split_trainval(trainval, os.path.join(self.dataset_dir, LISTS[0]))
        return Split(train, val, test)

    def read_list(self, name: str) -> list[Item]:
        """Read one of the two lists of annotations."""
        form = "'<Breed>_<number> <label> <species> <breed>'"
        lines = read_lines(os.path.join(self.dataset_dir, name), r"((\S+)_[^_ ]*) ([1-9]\d*) \S+ \S+", form)
        return [Item(f"{image}.jpg", int(label) - 1, breed.lower()) for image, breed, label in lines]
