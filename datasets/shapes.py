"""Shapes of the embedded world: 48 classes of two words, colour + shape or texture + shape, painted on first use.

$DATA/shapes/images/<class, with underscores>/<number>.png
$DATA/shapes/split_zhou_Shapes.json

Both words count: each shape comes with several colours and textures, and the other way round. The two kinds take turns,
so that base and new classes are alike. A quarter of the classes, in both halves, are combinations that the tiny CLIP
has never seen (`world.HELD_OUT_COLOURS`, `world.HELD_OUT_TEXTURES`), so that zero-shot recognition is not memory.
Pictures are fainter, noisier and more cluttered than those of pre-training.
"""

from __future__ import annotations

import os

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY

from . import world
from .base import GeneratedDataset, Split, split_folders

SIZE = 48
EACH = 50  # pictures of a class: 20 train, 5 val, 25 test
CONTRAST = (0.35, 0.7)
NOISE = (0.04, 0.1)
CLUTTER = 6  # most pieces in a picture

CLASSES = (
    ("orange", "heart"),
    ("honeycombed", "circle"),
    ("red", "cross"),
    ("cracked", "house"),
    ("brown", "triangle"),
    ("banded", "circle"),
    ("yellow", "heart"),
    ("bubbly", "fish"),
    ("purple", "star"),
    ("gridded", "house"),
    ("yellow", "tree"),
    ("woven", "cup"),
    ("green", "circle"),
    ("gridded", "arrow"),
    ("green", "fish"),
    ("striped", "star"),
    ("blue", "fish"),
    ("spiralled", "star"),
    ("red", "tree"),
    ("bubbly", "tree"),
    ("brown", "square"),
    ("chequered", "heart"),
    ("cyan", "tree"),
    ("zigzagged", "ring"),
    ("cyan", "triangle"),
    ("zigzagged", "house"),
    ("green", "cup"),
    ("chequered", "triangle"),
    ("orange", "house"),
    ("spiralled", "ring"),
    ("blue", "ring"),
    ("dotted", "tree"),
    ("orange", "triangle"),
    ("striped", "heart"),
    ("purple", "heart"),
    ("woven", "circle"),
    ("yellow", "cross"),
    ("honeycombed", "star"),
    ("purple", "arrow"),
    ("dotted", "arrow"),
    ("blue", "circle"),
    ("cracked", "fish"),
    ("cyan", "ring"),
    ("polka-dotted", "cross"),
    ("brown", "arrow"),
    ("banded", "cross"),
    ("red", "house"),
    ("polka-dotted", "square"),
)


def sample_shape(look: str, shape: str, rng: np.random.Generator, **fixed: object) -> world.Scene:
    """A scene of one class.

    Args:
        look: a colour or a texture.
        shape: a key of ``world.SHAPES``.
        rng: source of all other factors.
        fixed: factors of ``world.Scene`` that are given.
    """
    factors: dict[str, object] = {
        "subject": shape,
        "contrast": float(rng.uniform(*CONTRAST)),
        "noise": float(rng.uniform(*NOISE)),
        "clutter": int(rng.integers(0, CLUTTER + 1)),
    }
    factors.update({"colour": look, "texture": None} if look in world.COLOURS else {"texture": look})
    return world.sample_scene(rng, world.FONTS, "object", **{**factors, **fixed})


@DATASET_REGISTRY.register()
class Shapes(GeneratedDataset):
    """Coloured and textured shapes."""

    dataset_dir = "shapes"
    split_file = "split_zhou_Shapes.json"
    class_folders = tuple(f"{look}_{shape}" for look, shape in CLASSES)
    renamed_classes = {f"{look}_{shape}": f"{look} {shape}" for look, shape in CLASSES}  # noqa: RUF012

    def write_images(self, folder: str) -> None:
        """Paint ``EACH`` pictures a class; every class has a generator of its own."""
        for label, (look, shape) in enumerate(CLASSES):
            rng = np.random.default_rng([1, label])
            path = os.path.join(folder, self.class_folders[label])
            os.makedirs(path)
            for number in range(EACH):
                world.render(sample_shape(look, shape, rng), SIZE, rng).save(os.path.join(path, f"{number:02d}.png"))

    def make_split(self) -> Split:
        """The first 20 pictures of a class train, the next 5 validate, the last 25 test: all are drawn alike."""
        return split_folders(
            self.image_dir,
            folders=self.class_folders,
            renamed=self.renamed_classes,
            p_train=0.4,
            p_val=0.1,
            shuffle=lambda images: None,
        )
