"""Printed symbols of the embedded world, in fonts that the tiny CLIP has never seen, painted on first use.

$DATA/symbols/images/<name, with underscores>/<number>.png
$DATA/symbols/split_zhou_Symbols.json
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
class Symbols(RenderedDataset):
    """Sixteen symbols, of punctuation, money and mathematics; even ones come first, so that both halves have all."""

    key = 5
    dataset_dir = "symbols"
    split_file = "split_zhou_Symbols.json"
    class_folders = tuple(name.replace(" ", "_") for name in (*tuple(world.SYMBOLS)[::2], *tuple(world.SYMBOLS)[1::2]))
    renamed_classes = {name.replace(" ", "_"): name for name in world.SYMBOLS}  # noqa: RUF012

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """A faint symbol on any background, among bits and pieces."""
        return world.sample_scene(
            rng,
            world.UNSEEN_FONTS,
            "symbol",
            subject=self.renamed_classes[self.class_folders[label]],
            **quality(rng, CONTRAST, NOISE, CLUTTER),
        )
