"""SUN397 (Xiao et al., CVPR 2010): 397 scenes, 39,700 images in the first of its official partitions.

$DATA/sun397/SUN397/<letter>/<scene>[/<indoor, outdoor, ...>]/*.jpg
$DATA/sun397/ClassName.txt                             /<letter>/<scene>[/...] in the order of the labels
$DATA/sun397/{Training,Testing}_01.txt                 /<letter>/<scene>[/...]/<image>
$DATA/sun397/split_zhou_SUN397.json
"""

from __future__ import annotations

import os

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .files import read_lines, shorten
from .splits import Item, Split, split_trainval

LISTS = ("Training_01.txt", "Testing_01.txt")
CLASS_NAMES = "ClassName.txt"


@DATASET_REGISTRY.register()
class SUN397(SplitDataset):
    """SUN397; a class is called by its folders from the inside out: `/a/apse/indoor` is "indoor apse"."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
    required_files = (CLASS_NAMES, *LISTS)

    def make_split(self) -> Split:
        """Take the test images of the first partition, and a fifth of each scene's others for validation."""
        path = os.path.join(self.dataset_dir, CLASS_NAMES)
        folders = [folder for (folder,) in read_lines(path, r"/(.+)", "'/<letter>/<scene>'", of_paths=True)]
        label_of = {folder: label for label, folder in enumerate(folders)}
        trainval, test = (self.read_list(name, label_of) for name in LISTS)
        train, val = split_trainval(trainval, os.path.join(self.dataset_dir, LISTS[0]))
        return Split(train, val, test)

    def read_list(self, name: str, label_of: dict[str, int]) -> list[Item]:
        """Read one list of images; raise ValueError if it has a folder that `label_of` has not."""
        path = os.path.join(self.dataset_dir, name)
        lines = read_lines(path, r"/((.+)/[^/]+)", "'/<letter>/<scene>/<image>'", of_paths=True)
        unknown = sorted({folder for _, folder in lines if folder not in label_of})
        if unknown:
            raise ValueError(f"{path} has classes that {CLASS_NAMES} has not: {shorten(unknown)}")
        return [Item(image, label_of[folder], " ".join(folder.split("/")[:0:-1])) for image, folder in lines]
