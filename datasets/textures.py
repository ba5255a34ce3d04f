"""Textures of the embedded world under DTD's words, each filling the frame, painted on first use.

$DATA/textures/images/<word>/<number>.png
$DATA/textures/split_zhou_Textures.json

The tiny CLIP saw these textures on shapes only. As in DTD the words are in the order of the alphabet, which mixes
stripes, lattices and blobs over both halves.
"""

from __future__ import annotations

import os

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY

from . import world
from .base import GeneratedDataset, Split, split_folders

SIZE = 48
EACH = 50  # pictures of a class: 20 train, 5 val, 25 test
CONTRAST = (0.4, 0.9)
NOISE = (0.02, 0.09)


@DATASET_REGISTRY.register()
class Textures(GeneratedDataset):
    """Full-frame textures."""

    dataset_dir = "textures"
    split_file = "split_zhou_Textures.json"
    class_folders = tuple(world.TEXTURES)

    def write_images(self, folder: str) -> None:
        """Paint ``EACH`` pictures a class; every class has a generator of its own."""
        for label, texture in enumerate(self.class_folders):
            rng = np.random.default_rng([2, label])
            path = os.path.join(folder, texture)
            os.makedirs(path)
            for number in range(EACH):
                contrast, noise = float(rng.uniform(*CONTRAST)), float(rng.uniform(*NOISE))
                scene = world.sample_scene(rng, world.FONTS, "texture", texture=texture, contrast=contrast, noise=noise)
                world.render(scene, SIZE, rng).save(os.path.join(path, f"{number:02d}.png"))

    def make_split(self) -> Split:
        """The first 20 pictures of a class train, the next 5 validate, the last 25 test: all are drawn alike."""
        return split_folders(
            self.image_dir, folders=self.class_folders, p_train=0.4, p_val=0.1, shuffle=lambda images: None
        )
