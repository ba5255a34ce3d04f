"""Backgrounds of the embedded world, coloured patterns, painted on first use.

$DATA/backgrounds/images/<colour>_<pattern>/<number>.png
$DATA/backgrounds/split_zhou_Backgrounds.json

The counterpart of `shapes`: the class is what is noise there, and the object in front is noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY

from . import world
from .rendered import RenderedDataset

_PATTERNS = tuple(pattern for pattern in world.BACKGROUNDS if pattern != "plain")
# Every other one of the combinations: each colour comes with three patterns, each pattern with six colours. They are
# in an order in which the first half of the classes has all colours and patterns, and so has the second.
CLASSES = tuple(
    (colour, _PATTERNS[2 * k + i % 2])
    for half in (0, 1)
    for i, colour in enumerate(world.COLOURS)
    for k in range(3)
    if (i // 2 + k) % 2 == half
)
CONTRAST = (0.35, 0.7)
NOISE = (0.04, 0.1)


@DATASET_REGISTRY.register()
class Backgrounds(RenderedDataset):
    """Coloured patterns behind shapes and characters."""

    key = 6
    dataset_dir = "backgrounds"
    split_file = "split_zhou_Backgrounds.json"
    classes = CLASSES

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """Anything before the background."""
        colour, pattern = CLASSES[label]
        quality: dict[str, Any] = {"contrast": float(rng.uniform(*CONTRAST)), "noise": float(rng.uniform(*NOISE))}
        return world.sample_scene(rng, world.FONTS, background=pattern, background_colour=colour, **quality)
