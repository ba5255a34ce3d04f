"""RandAugment (Cubuk et al., 2020) and two of its kind: random operations from one list, without a learned policy."""

from __future__ import annotations

import random

from PIL import Image

from .operations import OPERATIONS, Affine

# (operation, strength at 0, strength at 1). The order counts: operations are drawn by their place.
Choice = tuple[str, float, float]

RANDAUGMENT_CHOICES: tuple[Choice, ...] = (
    ("autocontrast", 0, 1),
    ("equalize", 0, 1),
    ("invert", 0, 1),
    ("rotate", 0, 30),
    ("posterize", 4, 8),
    ("solarize", 0, 256),
    ("solarize_add", 0, 110),
    ("color", 0.1, 1.9),
    ("contrast", 0.1, 1.9),
    ("brightness", 0.1, 1.9),
    ("sharpness", 0.1, 1.9),
    ("shear_x", 0, 0.3),
    ("shear_y", 0, 0.3),
    ("cutout", 0, 40),
    ("translate_x_pixels", 0, 100),
    ("translate_y_pixels", 0, 100),
)


def _symmetric_choices(lowest: float, highest: float, invert: bool) -> tuple[Choice, ...]:
    """The list whose geometry goes both ways, with the range of its four enhancement factors."""
    return (
        ("autocontrast", 0, 1),
        ("brightness", lowest, highest),
        ("color", lowest, highest),
        ("contrast", lowest, highest),
        ("equalize", 0, 1),
        ("identity", 0, 1),
        *((("invert", 0, 1),) if invert else ()),
        ("posterize", 4, 8),
        ("rotate", -30, 30),
        ("sharpness", lowest, highest),
        ("shear_x", -0.3, 0.3),
        ("shear_y", -0.3, 0.3),
        ("solarize", 0, 256),
        ("translate_x", -0.3, 0.3),
        ("translate_y", -0.3, 0.3),
    )


RANDAUGMENT2_CHOICES = _symmetric_choices(0.1, 1.9, invert=True)
FIXMATCH_CHOICES = _symmetric_choices(0.05, 0.95, invert=False)

# Strengths that change their sign with probability 1/2, even if the range has both signs already.
_EITHER_WAY = {
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "translate_x_pixels",
    "translate_y_pixels",
}
_AFFINE = Affine()


def _apply(img: Image.Image, choice: Choice, level: float) -> Image.Image:
    """Apply one operation at a level in [0, 1] of its range."""
    operation, at_0, at_1 = choice
    strength = level * (at_1 - at_0) + at_0
    if operation in _EITHER_WAY and random.random() > 0.5:
        strength = -strength
    return OPERATIONS[operation](img, strength, _AFFINE)


class RandAugment:
    """`n` operations, all at the same level.

    Args:
        n: operations on one image, drawn with replacement.
        m: level, 0 to 30.

    Raises:
        ValueError: the level is outside its range.
    """

    def __init__(self, n: int = 2, m: float = 10) -> None:
        if not 0 <= m <= 30:
            raise ValueError(f"RandAugment's level must lie between 0 and 30, not {m} (INPUT.RANDAUGMENT_M).")
        self.n = n
        self.m = m

    def __call__(self, img: Image.Image) -> Image.Image:
        """Return the augmented image, of the same size."""
        for choice in random.choices(RANDAUGMENT_CHOICES, k=self.n):
            img = _apply(img, choice, self.m / 30)
        return img


class RandAugment2:
    """`n` operations, each applied with probability `p`, at a random level.

    Args:
        n: operations drawn for one image, with replacement.
        p: probability of each to be applied.
    """

    def __init__(self, n: int = 2, p: float = 0.6) -> None:
        self.n = n
        self.p = p

    def __call__(self, img: Image.Image) -> Image.Image:
        """Return the augmented image, of the same size."""
        for choice in random.choices(RANDAUGMENT2_CHOICES, k=self.n):
            if random.random() <= self.p:
                img = _apply(img, choice, random.random())
        return img


class RandAugmentFixMatch:
    """`n` operations at random levels, as FixMatch (Sohn et al., NeurIPS 2020) uses for its strong view.

    Args:
        n: operations on one image, drawn with replacement.
    """

    def __init__(self, n: int = 2) -> None:
        self.n = n

    def __call__(self, img: Image.Image) -> Image.Image:
        """Return the augmented image, of the same size."""
        for choice in random.choices(FIXMATCH_CHOICES, k=self.n):
            img = _apply(img, choice, random.random())
        return img
