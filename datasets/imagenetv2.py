"""ImageNetV2 (Recht et al., ICML 2019), its matched-frequency part: 10 new images of each of ImageNet's classes.

$DATA/imagenetv2/imagenetv2-matched-frequency-format-val/<label>/*.jpeg
$DATA/imagenetv2/classnames.txt              ImageNet's
"""

from __future__ import annotations

import os

from dassl.data.datasets import DATASET_REGISTRY

from .files import shorten
from .imagenet import CLASS_NAMES, ImageNetVariant, read_classnames


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetVariant):
    """ImageNetV2, with ImageNet's labels; folder `k` is line `k` of `classnames.txt`, counted from 0."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"

    def name_classes(self, folders: list[str]) -> dict[str, str]:
        """Return label, which is the folder -> class name; raise ValueError if a folder is missing or is no label."""
        path = os.path.join(self.dataset_dir, CLASS_NAMES)
        names = read_classnames(path)
        if list(names) != sorted(names):
            print(f"Note: {path} is not sorted by its first column, so folder k is perhaps not the class of its line k")
        labels = [str(label) for label in range(len(names))]
        differing = sorted(set(labels) ^ set(folders))
        if differing:
            raise ValueError(
                f"{self.image_dir} must hold the folders 0 to {len(names) - 1}, one for each line of {path}, but "
                f"{len(differing)} are missing or too many: {shorten(differing)}"
            )
        return dict(zip(labels, names.values()))
