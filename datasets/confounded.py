"""Shapes whose background predicts the class in training, but not in the test: a confounder of known strength.

$DATA/confounded_rho<rho>/images/<class, with underscores>/<background>/<number>.png
$DATA/confounded_rho<rho>/split_zhou_Confounded.json
$DATA/confounded_colours_rho<rho>/...

Every class has a background of its own, which it shares with a quarter of the classes. The share `DATASET.RHO` of its
training and validation pictures has that background, and the rest are divided equally among the other three. In the
test each class has all four equally often, so the background says nothing. The test pictures are the same for every
rho, and so are the training pictures except for their background. With rho = 0.25 nothing is confounded.

Groups of test images, as in studies of distribution shift: Dassl's `domain` of an image is its background (a number in
`domains`), and `own_domains[label]` is the background that the class has in training. An image whose domain is not its
class's own conflicts with the confounder; the pairs (own domain, domain) are 16 groups of equal size, within the base
classes and the new ones too, for the accuracy of the worst group.

The backgrounds of `Confounded` resemble no class, so a model is misled only if it has learnt to rely on them. Those of
`ConfoundedColours` mislead CLIP itself: classes differ by colour, and a class is hard to recognise before backgrounds
of a colour near to its own, and easiest before the background of its training. Each thing of the test stands before
all four, and its pixels are the same there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from dassl.config import cfg_default
from dassl.data.datasets import DATASET_REGISTRY, Datum
from PIL import Image

from . import world
from .base import Item
from .rendered import SIZE, Parts, RenderedDataset

RHO = 0.9
if "RHO" not in cfg_default.DATASET:
    cfg_default.DATASET.RHO = RHO

# Colour and pattern; no class name has one of these colours.
BACKGROUNDS = (("white", "ruled"), ("black", "grainy"), ("gray", "tiled"), ("pink", "rayed"))
# Class k has background k % 4 in training.
CLASSES = (
    ("red", "diamond"),
    ("striped", "gear"),
    ("blue", "flower"),
    ("dotted", "drop"),
    ("zigzagged", "hexagon"),
    ("green", "bolt"),
    ("chequered", "crescent"),
    ("yellow", "oval"),
    ("orange", "gear"),
    ("honeycombed", "diamond"),
    ("purple", "drop"),
    ("banded", "flower"),
    ("spiralled", "oval"),
    ("cyan", "crescent"),
    ("gridded", "bolt"),
    ("brown", "hexagon"),
    ("green", "flower"),
    ("polka-dotted", "drop"),
    ("red", "oval"),
    ("woven", "gear"),
    ("cracked", "crescent"),
    ("orange", "diamond"),
    ("bubbly", "hexagon"),
    ("blue", "bolt"),
)
CONTRAST = (0.3, 0.6)
NOISE = (0.07, 0.14)


@DATASET_REGISTRY.register()
class Confounded(RenderedDataset):
    """Coloured and textured shapes before a background that follows the class in training."""

    key = 7
    dataset_dir = "confounded"
    split_file = "split_zhou_Confounded.json"
    parts = Parts(20, 5, 32)
    classes: ClassVar[Sequence[tuple[str, ...]]] = CLASSES
    backgrounds: ClassVar[Sequence[tuple[str, str]]] = BACKGROUNDS  # colour and pattern

    def __init__(self, cfg) -> None:
        """Read the set of `cfg.DATASET.RHO`; the other keys are those of `SplitDataset`.

        Raises:
            ValueError: RHO is not within 0 and 1.
        """
        self.rho = float(cfg.DATASET.RHO)
        if not 0 <= self.rho <= 1:
            raise ValueError(f"DATASET.RHO, a share of the training images, must be within 0 and 1, got {self.rho}")
        self.dataset_dir = f"{self.dataset_dir}_rho{self.rho:g}"
        self.domains = [" ".join(words) for words in self.backgrounds]  # type: ignore[misc]  # in Dassl the class's own
        super().__init__(cfg)
        own = {self.renamed_classes[folder]: self.own_domain(label) for label, folder in enumerate(self.class_folders)}
        self.own_domains = [own[name] for name in self.classnames]

    def generator(self) -> dict[str, Any]:
        """As of every painted set, with rho, of which the folder's name has six digits only."""
        return {**super().generator(), "rho": self.rho}

    @staticmethod
    def own_domain(label: int) -> int:
        """The background of a class in training, by its label among all classes."""
        return label % len(BACKGROUNDS)

    def domain(self, label: int, number: int) -> int:
        """The background of a class's picture `number`."""
        trained = self.parts.train + self.parts.val
        if number >= trained:
            return (number - trained) % len(BACKGROUNDS)
        first, count = (0, self.parts.train) if number < self.parts.train else (self.parts.train, self.parts.val)
        order = np.random.default_rng([self.key + 1, label, first]).permutation(count)
        place, own = int(order[number - first]), self.own_domain(label)
        if place < round(self.rho * count):
            return own
        # The last of the order are the first to leave their own background as rho falls.
        return (own + 1 + (count - 1 - place + label // len(BACKGROUNDS)) % (len(BACKGROUNDS) - 1)) % len(BACKGROUNDS)

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """A shape of the class before the picture's background."""
        look, shape = self.classes[label]
        background_colour, background = self.backgrounds[self.domain(label, number)]
        thing = {"colour": look, "texture": None} if look in world.COLOURS else {"texture": look}
        return world.sample_scene(
            rng,
            world.FONTS,
            "object",
            subject=shape,
            **thing,
            background=background,
            background_colour=background_colour,
            contrast=float(rng.uniform(*CONTRAST)),
            noise=float(rng.uniform(*NOISE)),
        )

    def file(self, label: int, number: int) -> str:
        """The background is a folder of its own."""
        background = "_".join(self.backgrounds[self.domain(label, number)])
        return f"{self.class_folders[label]}/{background}/{number:03d}.png"

    def to_datum(self, item: Item) -> Datum:
        """As for every set, with the background as domain."""
        domain = self.domains.index(item.path.split("/")[1].replace("_", " "))
        return Datum(os.path.join(self.image_dir, item.path), item.label, domain, item.classname)


# ------------------------------------------------------------------------------------------------ near colours
# By label % 4, as the background is the class's own in training.
COLOURS = ("red", "green", "blue", "yellow")
COLOUR_BACKGROUNDS = (("cyan", "plain"), ("pink", "plain"), ("orange", "plain"), ("purple", "plain"))
COLOUR_SHAPES = ("gear", "flower", "drop", "hexagon", "bolt", "crescent")
COLOUR_CLASSES = tuple((colour, shape) for shape in COLOUR_SHAPES for colour in COLOURS)


@DATASET_REGISTRY.register()
class ConfoundedColours(Confounded):
    """Coloured shapes before colours near to those of other classes, and far from their own in training.

    The test has each thing four times, before all four backgrounds.
    """

    key = 9
    version = 2
    dataset_dir = "confounded_colours"
    split_file = "split_zhou_ConfoundedColours.json"
    parts = Parts(20, 5, 64)
    classes = COLOUR_CLASSES
    backgrounds = COLOUR_BACKGROUNDS

    def random_numbers(self, label: int, number: int) -> np.random.Generator:
        """Of the thing; in the test four pictures in a row show the same one."""
        trained = self.parts.train + self.parts.val
        return super().random_numbers(label, number - max(number - trained, 0) % len(self.backgrounds))

    def paint(self, label: int, number: int) -> Image.Image:
        """Picture `number` of a class; its background has random numbers of its own."""
        rng = self.random_numbers(label, number)
        behind = np.random.default_rng([self.key, label, number, 1])
        return world.render(self.scene(label, number, rng), SIZE, rng, behind)
