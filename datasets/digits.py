"""scikit-learn's 1,797 scans of handwritten digits: real pictures that need no download.

$DATA/digits/images/<zero .. nine>/<index in sklearn.datasets.load_digits()>.png
$DATA/digits/split_zhou_Digits.json
"""

from __future__ import annotations

import os

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY
from PIL import Image

from .base import GeneratedDataset

SIZE = 48  # pixels; the scans have 8, too few for a random crop to choose from
INK = 16  # the value of full ink in the scans, which count from 0


@DATASET_REGISTRY.register()
class Digits(GeneratedDataset):
    """Handwritten digits, bright on black as in the source; labels follow the value of the digit, not the alphabet."""

    dataset_dir = "digits"
    split_file = "split_zhou_Digits.json"
    class_folders = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def write_images(self, folder: str) -> None:
        """Write every scan as a grey PNG of 48 x 48 pixels, enlarged with a bicubic filter."""
        from sklearn.datasets import load_digits  # slow to import, and needed only once

        scans = load_digits()
        for word in self.class_folders:
            os.makedirs(os.path.join(folder, word))
        for index, (scan, value) in enumerate(zip(scans.images, scans.target)):
            grey = Image.fromarray(np.round(scan * (255 / INK)).astype(np.uint8))
            grey = grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            grey.save(os.path.join(folder, self.class_folders[value], f"{index:04d}.png"))
