"""Batches of pictures and captions, each made from the seed and the number of its step alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import compat  # noqa: F401  (makes `dassl`, which the readers beside the world need, importable)

import numpy as np
import torch
from torch.nn import functional

from datasets import world
from tools.tiny_clip.pictures import SIZE, to_input
from tools.tiny_clip.vocabulary import Vocabulary


class Factors:
    """A scene's named factors as numbers, -1 where a scene has no such factor."""

    def __init__(self) -> None:
        options = {
            "kind": ("object", *world.CHARACTERS),
            "subject": (*world.SHAPES, *itertools.chain(*world.CHARACTERS.values())),
            "texture": world.TEXTURES,
            "style": world.STYLES,
            "writing": ("printed", "handwritten"),
            "background": world.BACKGROUNDS,
            "size": world.SIZES,
            "position": world.POSITIONS,
        }
        table = {factor: tuple(options.get(factor, world.COLOURS)) for factor in world.NAMED}
        self.sizes = [len(values) for values in table.values()]
        self._number = {factor: {value: k for k, value in enumerate(values)} for factor, values in table.items()}

    def codes(self, named: Mapping[str, str | None]) -> list[int]:
        """Numbers of factors in the order of ``world.NAMED``, -1 for those not given."""
        values = ((factor, named.get(factor)) for factor in world.NAMED)
        return [-1 if value is None else self._number[factor].get(value, -1) for factor, value in values]


class Captions(NamedTuple):
    """The captions of a batch.

    Attributes:
        tokens: ``(B, L)``.
        named: numbers of the factors that the captions name ``(B, F)``, -1 for the others.
        true: ``(B, B)``, which caption (column) holds for which picture (row).
    """

    tokens: torch.Tensor
    named: torch.Tensor
    true: torch.Tensor


class Batch(NamedTuple):
    """Pictures and, unless they come alone, their captions.

    Attributes:
        pictures: ``(B, 3, 48, 48)``, normalised.
        shown: numbers of the scenes' factors ``(B, F)``, -1 where there is none.
        captions: None where the pictures come alone.
    """

    pictures: torch.Tensor
    shown: torch.Tensor
    captions: Captions | None = None


class Batches:
    """Batch number ``step``, made from seed and step alone; the first ``alone`` are without captions."""

    def __init__(
        self,
        pictures: torch.Tensor,
        scenes: list[world.Scene],
        vocabulary: Vocabulary,
        size: int,
        seed: int,
        alone: int = 0,
    ) -> None:
        self.pictures, self.scenes, self.vocabulary = pictures, scenes, vocabulary
        self.size, self.seed, self.alone = size, seed, alone
        self.factors = Factors()
        self.codes = np.array([self.factors.codes(vars(scene)) for scene in scenes], dtype=np.int64)

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, 2, step])
        rows = rng.choice(len(self.scenes), self.size, replace=False)
        pictures = torch.empty((self.size, 3, SIZE, SIZE), dtype=torch.uint8)
        padded = functional.pad(self.pictures[torch.from_numpy(rows)].float(), (3, 3, 3, 3), mode="replicate").byte()
        for k, (dx, dy) in enumerate(rng.integers(0, 7, (self.size, 2)).tolist()):
            pictures[k] = padded[k, :, dy : dy + SIZE, dx : dx + SIZE]
        shown = self.codes[rows]
        if step < self.alone:
            return Batch(to_input(pictures), torch.from_numpy(shown))
        described = [world.describe(self.scenes[row], rng) for row in rows]
        is_named = np.array([[factor in caption.named for factor in world.NAMED] for caption in described])
        true = (~is_named[None] | (shown[None] == shown[:, None])).all(axis=-1)
        captions = Captions(
            self.vocabulary.batch([caption.text for caption in described]),
            torch.from_numpy(np.where(is_named, shown, -1)),
            torch.from_numpy(true),
        )
        return Batch(to_input(pictures), torch.from_numpy(shown), captions)
