"""FGVC-Aircraft (Maji et al., arXiv 1306.5151): 100 variants of aircraft, 10,000 images.

$DATA/fgvc_aircraft/images/<number>.jpg
$DATA/fgvc_aircraft/variants.txt                              class names in the order of their labels
$DATA/fgvc_aircraft/images_variant_{train,val,test}.txt       <number> <class name>
"""

from __future__ import annotations

import os

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .files import read_lines, shorten
from .splits import Item, Split

LISTS = tuple(f"images_variant_{part}.txt" for part in Split._fields)
CLASS_NAMES = "variants.txt"


@DATASET_REGISTRY.register()
class FGVCAircraft(SplitDataset):
    """FGVC-Aircraft by variants, with its official three lists."""

    dataset_dir = "fgvc_aircraft"
    required_files = (CLASS_NAMES, *LISTS)

    def make_split(self) -> Split:
        """Read the three lists."""
        path = os.path.join(self.dataset_dir, CLASS_NAMES)
        names = [name for (name,) in read_lines(path, r"(.+)", "'<class name>'")]
        label_of = {name: label for label, name in enumerate(names)}
        if len(label_of) < len(names):
            raise ValueError(f"{path} must name each class once, but has {len(names)} lines and {len(label_of)} names")
        split = Split(*(self.read_list(name, label_of) for name in LISTS))
        unused = sorted(set(names) - {item.classname for part in split for item in part})
        if unused:
            print(f"Note: {len(unused)} of the {len(names)} classes in {path} have no image: {shorten(unused)}")
        return split

    def read_list(self, name: str, label_of: dict[str, int]) -> list[Item]:
        """Read one list of images; raise ValueError if it has a class that `label_of` has not."""
        path = os.path.join(self.dataset_dir, name)
        lines = read_lines(path, r"(\S+) (.+)", "'<number> <class name>'")
        unknown = sorted({classname for _, classname in lines if classname not in label_of})
        if unknown:
            raise ValueError(f"{path} has classes that {CLASS_NAMES} has not: {shorten(unknown)}")
        return [Item(f"{image}.jpg", label_of[classname], classname) for image, classname in lines]
