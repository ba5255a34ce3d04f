"""Textures of the embedded world under DTD's words, each filling the frame, painted on first use.

$DATA/textures/images/<word>/<number>.png
$DATA/textures/split_zhou_Textures.json

The tiny CLIP saw these textures on shapes only. As in DTD the words are in the order of the alphabet, which mixes
stripes, lattices and blobs over both halves.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY

from . import world
from .rendered import RenderedDataset

CONTRAST = (0.4, 0.9)
NOISE = (0.02, 0.09)


@DATASET_REGISTRY.register()
class Textures(RenderedDataset):
    """Full-frame textures."""

    key = 2
    dataset_dir = "textures"
    split_file = "split_zhou_Textures.json"
    class_folders = tuple(world.TEXTURES)
    fixed: ClassVar[dict[str, Any]] = {}  # factors of all scenes

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """A texture in any two colours."""
        quality = {"contrast": float(rng.uniform(*CONTRAST)), "noise": float(rng.uniform(*NOISE))}
        texture = self.class_folders[label]
        return world.sample_scene(rng, world.FONTS, "texture", texture=texture, **quality, **self.fixed)
