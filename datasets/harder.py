"""Harder sets of the embedded world: classes whose names the tiny CLIP knows, drawn as it has never seen them.

$DATA/reliefs/images/<word>/<number>.png
$DATA/reliefs/split_zhou_Reliefs.json
$DATA/turned/...

As on the harder public sets (EuroSAT, DTD, FGVC-Aircraft), zero-shot recognition is low though the image features tell
the classes apart: a ridge classifier on the features of 16 images per class is 27 to 50 points better. All classes of a
set are shifted alike, so what is learnt on base classes can serve the new ones.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY
from PIL import Image

from . import world
from .rendered import RenderedDataset
from .textures import CONTRAST, NOISE, Textures


@DATASET_REGISTRY.register()
class Reliefs(Textures):
    """Full-frame textures as embossed reliefs, whose colours are muted."""

    key = 21
    dataset_dir = "reliefs"
    split_file = "split_zhou_Reliefs.json"
    fixed: ClassVar[dict[str, Any]] = {"style": "embossed"}


@DATASET_REGISTRY.register()
class Turned(RenderedDataset):
    """Things that lie on their side: pictures turned by a quarter, counter-clockwise."""

    key = 22
    dataset_dir = "turned"
    split_file = "split_zhou_Turned.json"
    class_folders = tuple(sorted(world.SHAPES))

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """A thing that stands upright before any background, with the contrast and noise of `Textures`."""
        contrast, noise = float(rng.uniform(*CONTRAST)), float(rng.uniform(*NOISE))
        subject = self.class_folders[label]
        return world.sample_scene(rng, world.FONTS, "object", subject=subject, contrast=contrast, noise=noise)

    def paint(self, label: int, number: int) -> Image.Image:
        """Picture `number` of a class, turned."""
        return super().paint(label, number).transpose(Image.Transpose.ROTATE_90)
