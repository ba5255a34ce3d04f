"""The image operations that AutoAugment and RandAugment choose from.

Every operation takes a PIL image in RGB, a strength and an `Affine`, and returns an image of the same size. The
strength is a slope, a share of the side, pixels, degrees, a factor, a threshold or a number of bits; some operations
ignore it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, float, "Affine"], Image.Image]

CUTOUT_COLOUR = (125, 123, 114)


class Affine(NamedTuple):
    """How an affine operation fills pixels: those it uncovers, and those that a shear interpolates."""

    fill: tuple[int, int, int] | None = None  # None = black
    shear: Image.Resampling = Image.Resampling.NEAREST


def _shear_x(img: Image.Image, slope: float, affine: Affine) -> Image.Image:
    return _transform(img, (1, slope, 0, 0, 1, 0), affine.shear, affine.fill)


def _shear_y(img: Image.Image, slope: float, affine: Affine) -> Image.Image:
    return _transform(img, (1, 0, 0, slope, 1, 0), affine.shear, affine.fill)


def _translate_x(img: Image.Image, share: float, affine: Affine) -> Image.Image:
    return _translate_x_pixels(img, share * img.width, affine)


def _translate_y(img: Image.Image, share: float, affine: Affine) -> Image.Image:
    return _translate_y_pixels(img, share * img.height, affine)


def _translate_x_pixels(img: Image.Image, pixels: float, affine: Affine) -> Image.Image:
    return _transform(img, (1, 0, pixels, 0, 1, 0), Image.Resampling.NEAREST, affine.fill)


def _translate_y_pixels(img: Image.Image, pixels: float, affine: Affine) -> Image.Image:
    return _transform(img, (1, 0, 0, 0, 1, pixels), Image.Resampling.NEAREST, affine.fill)


def _transform(
    img: Image.Image,
    coefficients: tuple[float, ...],
    resample: Image.Resampling,
    fill: tuple[int, int, int] | None,
) -> Image.Image:
    return img.transform(img.size, Image.Transform.AFFINE, coefficients, resample, fillcolor=fill)


def _rotate(img: Image.Image, degrees: float, affine: Affine) -> Image.Image:
    return img.rotate(degrees, fillcolor=affine.fill)


def _posterize(img: Image.Image, bits: float, _: Affine) -> Image.Image:
    return ImageOps.posterize(img, int(bits))


def _solarize(img: Image.Image, threshold: float, _: Affine) -> Image.Image:
    return ImageOps.solarize(img, math.ceil(threshold))  # levels are whole numbers


def _solarize_add(img: Image.Image, addition: float, _: Affine) -> Image.Image:
    brighter = [min(255, int(level + addition)) for level in range(256)]
    return ImageOps.solarize(img.point(brighter * len(img.getbands())), 128)


def _cutout(img: Image.Image, side: float, _: Affine) -> Image.Image:
    # The bounds are the wrong way round, as in the published code, which gives numpy the size alone: low = size, high
    # = 1.
    x, y = (max(0, np.random.uniform(size, 1.0) - side / 2) for size in img.size)
    left, top = int(x), int(y)
    box = (left, top, min(img.width, left + side), min(img.height, top + side))
    img = img.copy()
    ImageDraw.Draw(img).rectangle(box, CUTOUT_COLOUR)
    return img


OPERATIONS: dict[str, Operation] = {
    "identity": lambda img, _, __: img,
    "autocontrast": lambda img, _, __: ImageOps.autocontrast(img),
    "equalize": lambda img, _, __: ImageOps.equalize(img),
    "invert": lambda img, _, __: ImageOps.invert(img),
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda img, factor, _: ImageEnhance.Color(img).enhance(factor),
    "contrast": lambda img, factor, _: ImageEnhance.Contrast(img).enhance(factor),
    "brightness": lambda img, factor, _: ImageEnhance.Brightness(img).enhance(factor),
    "sharpness": lambda img, factor, _: ImageEnhance.Sharpness(img).enhance(factor),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,  # by a share of the width
    "translate_y": _translate_y,  # by a share of the height
    "translate_x_pixels": _translate_x_pixels,
    "translate_y_pixels": _translate_y_pixels,
    "rotate": _rotate,
    "cutout": _cutout,
}
