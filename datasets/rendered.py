"""What the painted sets of the embedded world share: so many pictures per class for each part, painted on first use.

$DATA/<dataset_dir>/images/<class folder>/<number>.png
$DATA/<dataset_dir>/<split_file>
$DATA/<dataset_dir>/generator.json

A picture is made from the set's key, its class and its number alone, so that neither the order of painting nor the
number of pictures changes it. The first ones of a class train, the next ones validate, the last ones test.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from . import world
from .base import GeneratedDataset, Item, Split

SIZE = 48  # pixels, what the tiny CLIP takes
# Of the painter and of how the sets draw their scenes; to be raised whenever a picture of any set changes
VERSION = 1


def quality(rng: np.random.Generator, contrast: tuple, noise: tuple, clutter: int) -> dict[str, float | int]:
    """How well a scene shows its subject: contrast and noise from these ranges, up to so many pieces beside it."""
    return {
        "contrast": float(rng.uniform(*contrast)),
        "noise": float(rng.uniform(*noise)),
        "clutter": int(rng.integers(0, clutter + 1)),
    }


class Parts(NamedTuple):
    """Pictures of a class in each part."""

    train: int
    val: int
    test: int


class RenderedDataset(GeneratedDataset):
    """A set whose pictures are scenes of the world.

    Subclasses set `key`, `class_folders` and the attributes of every reader, and override `scene`. Those whose class
    names have several words set `classes`; `class_folders` and `renamed_classes` follow from it.
    """

    classes: ClassVar[Sequence[tuple[str, ...]]] = ()  # the words of each class's name, in the order of the labels
    key: int = 0  # tells the generators of the sets apart; two sets with one key would share their random numbers
    parts: Parts = Parts(20, 5, 25)
    version = VERSION

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "classes" in vars(cls):
            cls.class_folders = tuple("_".join(words) for words in cls.classes)
            cls.renamed_classes = {"_".join(words): " ".join(words) for words in cls.classes}

    def generator(self) -> dict[str, Any]:
        """As of every generated set, with the key and the size of the pictures, and how many there are."""
        return {**super().generator(), "key": self.key, "pixels": SIZE, "parts": self.parts._asdict()}

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """Draw the scene of a class's picture `number`; `rng` then paints it."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its pictures show")

    def random_numbers(self, label: int, number: int) -> np.random.Generator:
        """What chance decides in picture `number` of a class."""
        return np.random.default_rng([self.key, label, number])

    def paint(self, label: int, number: int) -> Image.Image:
        """Picture `number` of a class."""
        rng = self.random_numbers(label, number)
        return world.render(self.scene(label, number, rng), SIZE, rng)

    def file(self, label: int, number: int) -> str:
        """Where picture `number` of a class lies under the image folder, with "/"."""
        return f"{self.class_folders[label]}/{number:03d}.png"

    def write_images(self, folder: str) -> None:
        """Paint all pictures."""
        for label in range(len(self.class_folders)):
            for number in range(sum(self.parts)):
                path = os.path.join(folder, self.file(label, number))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                self.paint(label, number).save(path)

    def make_split(self) -> Split:
        """Part by part, class by class."""
        split, first = Split([], [], []), 0
        for items, count in zip(split, self.parts):
            for label, folder in enumerate(self.class_folders):
                name = self.renamed_classes.get(folder, folder)
                items.extend(Item(self.file(label, number), label, name) for number in range(first, first + count))
            first += count
        return split
