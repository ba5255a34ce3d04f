"""AutoAugment's learned policies for ImageNet, CIFAR-10 and SVHN (Cubuk et al., CVPR 2019).

A line of a table is a sub-policy, written as in the paper's appendix: (operation, probability, level) twice. The
values, the strengths at each level and the order of the random draws are Dassl's, so that a seed makes the same
images.
"""

from __future__ import annotations

import random
from typing import ClassVar

import numpy as np
from PIL import Image

from .operations import OPERATIONS, Affine

SubPolicy = tuple[tuple[str, float, int], tuple[str, float, int]]

# The strength at each of the levels 0 to 9. Operations that are not here have none.
_STRENGTHS = {
    "shear_x": np.linspace(0, 0.3, 10),
    "shear_y": np.linspace(0, 0.3, 10),
    "translate_x": np.linspace(0, 150 / 331, 10),
    "translate_y": np.linspace(0, 150 / 331, 10),
    "rotate": np.linspace(0, 30, 10),
    "color": np.linspace(0, 0.9, 10),
    "contrast": np.linspace(0, 0.9, 10),
    "sharpness": np.linspace(0, 0.9, 10),
    "brightness": np.linspace(0, 0.9, 10),
    "posterize": np.linspace(8, 4, 10).round(),
    "solarize": np.linspace(256, 0, 10),
}
_FACTORS = {"color", "contrast", "sharpness", "brightness"}  # 1 plus or minus the strength
_EITHER_WAY = {"shear_x", "shear_y", "translate_x", "translate_y"} | _FACTORS


class _Policy:
    """Applies one of the sub-policies of a table, drawn at random: two operations, each with its own probability.

    Args:
        fillcolor: colour of the pixels that an affine operation uncovers.
    """

    name: ClassVar[str]
    sub_policies: ClassVar[tuple[SubPolicy, ...]]

    def __init__(self, fillcolor: tuple[int, int, int] = (128, 128, 128)) -> None:
        self.affine = Affine(fill=fillcolor, shear=Image.Resampling.BICUBIC)

    def __call__(self, img: Image.Image) -> Image.Image:
        """Return the augmented image, of the same size."""
        for operation, probability, level in random.choice(self.sub_policies):
            if random.random() < probability:
                img = OPERATIONS[operation](img, self._strength(operation, level), self.affine)
        return img

    @staticmethod
    def _strength(operation: str, level: int) -> float:
        strength = float(_STRENGTHS[operation][level]) if operation in _STRENGTHS else 0.0
        if operation in _EITHER_WAY:
            strength *= random.choice((-1, 1))
        return 1 + strength if operation in _FACTORS else strength

    def __repr__(self) -> str:
        return f"AutoAugment {self.name} Policy"


class ImageNetPolicy(_Policy):
    """The policy learned on ImageNet."""

    name = "ImageNet"
    sub_policies = (
        (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
        (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
        (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
        (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
        (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
        (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
        (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
        (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
        (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
        (("rotate", 0.8, 8), ("color", 0.4, 0)),
        (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
        (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
        (("invert", 0.6, 4), ("equalize", 1.0, 8)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("rotate", 0.8, 8), ("color", 1.0, 2)),
        (("color", 0.8, 8), ("solarize", 0.8, 7)),
        (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
        (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
        (("color", 0.4, 0), ("equalize", 0.6, 3)),
        (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
        (("invert", 0.6, 4), ("equalize", 1.0, 8)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    )


class CIFAR10Policy(_Policy):
    """The policy learned on CIFAR-10."""

    name = "CIFAR10"
    sub_policies = (
        (("invert", 0.1, 7), ("contrast", 0.2, 6)),
        (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
        (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
        (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
        (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
        (("color", 0.4, 3), ("brightness", 0.6, 7)),
        (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
        (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
        (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
        (("color", 0.7, 7), ("translate_x", 0.5, 8)),
        (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
        (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
        (("brightness", 0.9, 6), ("color", 0.2, 8)),
        (("solarize", 0.5, 2), ("invert", 0.0, 3)),
        (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
        (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
        (("color", 0.9, 9), ("equalize", 0.6, 6)),
        (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
        (("brightness", 0.1, 3), ("color", 0.7, 0)),
        (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
        (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
        (("equalize", 0.8, 8), ("invert", 0.1, 3)),
        (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
    )


class SVHNPolicy(_Policy):
    """The policy learned on SVHN."""

    name = "SVHN"
    sub_policies = (
        (("shear_x", 0.9, 4), ("invert", 0.2, 3)),
        (("shear_y", 0.9, 8), ("invert", 0.7, 5)),
        (("equalize", 0.6, 5), ("solarize", 0.6, 6)),
        (("invert", 0.9, 3), ("equalize", 0.6, 3)),
        (("equalize", 0.6, 1), ("rotate", 0.9, 3)),
        (("shear_x", 0.9, 4), ("autocontrast", 0.8, 3)),
        (("shear_y", 0.9, 8), ("invert", 0.4, 5)),
        (("shear_y", 0.9, 5), ("solarize", 0.2, 6)),
        (("invert", 0.9, 6), ("autocontrast", 0.8, 1)),
        (("equalize", 0.6, 3), ("rotate", 0.9, 3)),
        (("shear_x", 0.9, 4), ("solarize", 0.3, 3)),
        (("shear_y", 0.8, 8), ("invert", 0.7, 4)),
        (("equalize", 0.9, 5), ("translate_y", 0.6, 6)),
        (("invert", 0.9, 4), ("equalize", 0.6, 7)),
        (("contrast", 0.3, 3), ("rotate", 0.8, 4)),
        (("invert", 0.8, 5), ("translate_y", 0.0, 2)),
        (("shear_y", 0.7, 6), ("solarize", 0.4, 8)),
        (("invert", 0.6, 4), ("rotate", 0.8, 4)),
        (("shear_y", 0.3, 7), ("translate_x", 0.9, 3)),
        (("shear_x", 0.1, 6), ("invert", 0.6, 5)),
        (("solarize", 0.7, 2), ("translate_y", 0.6, 7)),
        (("shear_y", 0.8, 4), ("invert", 0.8, 8)),
        (("shear_x", 0.7, 9), ("translate_y", 0.8, 3)),
        (("shear_y", 0.8, 5), ("autocontrast", 0.7, 3)),
        (("shear_x", 0.7, 2), ("invert", 0.1, 5)),
    )
