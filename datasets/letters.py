"""Capital letters of the embedded world, printed in fonts that the tiny CLIP has never seen, painted on first use.

$DATA/letters/images/<letter>/<number>.png
$DATA/letters/split_zhou_Letters.json
"""

from __future__ import annotations

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY

from . import world
from .rendered import RenderedDataset, quality

CONTRAST = (0.3, 0.6)
NOISE = (0.07, 0.16)
CLUTTER = 7  # most pieces in a picture


@DATASET_REGISTRY.register()
class Letters(RenderedDataset):
    """The 26 letters, in the order of the alphabet."""

    key = 4
    dataset_dir = "letters"
    split_file = "split_zhou_Letters.json"
    class_folders = tuple(world.LETTERS)

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """A printed letter on any background."""
        return world.sample_scene(
            rng,
            world.UNSEEN_TEXT_FONTS,
            "letter",
            subject=self.class_folders[label],
            writing="printed",
            **quality(rng, CONTRAST, NOISE, CLUTTER),
        )
