"""The transforms that a configuration may name, and their order in a pipeline.

`cfg.INPUT.TRANSFORMS` is a set of names: whatever their order there, the steps run in the order of the two tables
below; first those on PIL images, then those on tensors `(3, height, width)`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torchvision.transforms.functional as F
from torchvision.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    GaussianBlur,
    InterpolationMode,
    Normalize,
    RandomApply,
    RandomCrop,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)

from .autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from .randaugment import RandAugment, RandAugment2, RandAugmentFixMatch

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor
    from yacs.config import CfgNode

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


def interpolation_mode(name: str) -> InterpolationMode:
    """Return the interpolation of that name.

    Raises:
        ValueError: it is none of `INTERPOLATION_MODES`.
    """
    if name not in INTERPOLATION_MODES:
        raise ValueError(
            f"Unknown interpolation '{name}' (INPUT.INTERPOLATION); allowed are {list(INTERPOLATION_MODES)}."
        )
    return INTERPOLATION_MODES[name]


class Random2DTranslation:
    """Resizes to the target size or, with probability `p`, to 9/8 of it and crops the target size at random.

    Args:
        height: target height, pixels.
        width: target width, pixels.
        p: probability of the crop.
        interpolation: how the resizing interpolates.
    """

    def __init__(
        self,
        height: int,
        width: int,
        p: float = 0.5,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    ) -> None:
        self.height = height
        self.width = width
        self.p = p
        self.interpolation = interpolation

    def __call__(self, img: Image.Image) -> Image.Image:
        """Return an image of the target size."""
        if random.uniform(0, 1) > self.p:
            return F.resize(img, [self.height, self.width], self.interpolation)
        height, width = round(self.height * 1.125), round(self.width * 1.125)
        left = round(random.uniform(0, width - self.width))
        top = round(random.uniform(0, height - self.height))
        return F.crop(F.resize(img, [height, width], self.interpolation), top, left, self.height, self.width)


class InstanceNormalization:
    """Gives each channel of an image mean 0 and standard deviation 1 (Ulyanov et al., 2016).

    Args:
        eps: added to the deviation, for channels of one value.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps

    def __call__(self, img: Tensor) -> Tensor:
        """Return the normalised image, `(C, height, width)` like the one given."""
        pixels = img.flatten(1)
        mean, std = pixels.mean(1), pixels.std(1)
        return (img - mean[:, None, None]) / (std[:, None, None] + self.eps)


class Cutout:
    """Blanks square patches around random pixels (DeVries and Taylor, 2017); at the border they are cut off.

    Args:
        n_holes: patches.
        length: side of a patch, pixels.
    """

    def __init__(self, n_holes: int = 1, length: int = 16) -> None:
        self.n_holes = n_holes
        self.length = length

    def __call__(self, img: Tensor) -> Tensor:
        """Return a copy of the image, `(C, height, width)`, with the patches at 0."""
        height, width = img.shape[1:]
        half = self.length // 2
        mask = img.new_ones(height, width)
        for _ in range(self.n_holes):
            y, x = np.random.randint(height), np.random.randint(width)
            mask[max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        return img * mask


class GaussianNoise:
    """Adds normal noise to a tensor, with probability `p`.

    Args:
        mean: mean of the noise.
        std: standard deviation of the noise.
        p: probability that noise is added.
    """

    def __init__(self, mean: float = 0, std: float = 0.15, p: float = 0.5) -> None:
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, img: Tensor) -> Tensor:
        """Return the image, with or without noise."""
        if random.uniform(0, 1) > self.p:
            return img
        return img + (torch.randn(img.size()) * self.std + self.mean)


# A step: the line that announces it, and the transform. Each takes the INPUT section of the configuration.
Step = tuple[str, Callable[[Any], Any]]


def _random_resized_crop(inp: CfgNode) -> Step:
    return (
        f"random resized crop (size={inp.SIZE}, scale={inp.RRCROP_SCALE})",
        RandomResizedCrop(inp.SIZE, scale=inp.RRCROP_SCALE, interpolation=interpolation_mode(inp.INTERPOLATION)),
    )


def _color_jitter(inp: CfgNode) -> Step:
    strengths = {
        "brightness": inp.COLORJITTER_B,
        "contrast": inp.COLORJITTER_C,
        "saturation": inp.COLORJITTER_S,
        "hue": inp.COLORJITTER_H,
    }
    return f"color jitter ({', '.join(f'{key}={value}' for key, value in strengths.items())})", ColorJitter(**strengths)


def _normalize(inp: CfgNode) -> Step:
    return (
        f"normalization (mean={inp.PIXEL_MEAN}, std={inp.PIXEL_STD})",
        Normalize(mean=inp.PIXEL_MEAN, std=inp.PIXEL_STD),
    )


_IMAGE_STEPS: dict[str, Callable[[CfgNode], Step]] = {
    "random_translation": lambda inp: ("random translation", Random2DTranslation(inp.SIZE[0], inp.SIZE[1])),
    "random_crop": lambda inp: (
        f"random crop (padding = {inp.CROP_PADDING})",
        RandomCrop(inp.SIZE, padding=inp.CROP_PADDING),
    ),
    "random_resized_crop": _random_resized_crop,
    "random_flip": lambda inp: ("random flip", RandomHorizontalFlip()),
    "imagenet_policy": lambda inp: ("imagenet policy", ImageNetPolicy()),
    "cifar10_policy": lambda inp: ("cifar10 policy", CIFAR10Policy()),
    "svhn_policy": lambda inp: ("svhn policy", SVHNPolicy()),
    "randaugment": lambda inp: (
        f"randaugment (n={inp.RANDAUGMENT_N}, m={inp.RANDAUGMENT_M})",
        RandAugment(inp.RANDAUGMENT_N, inp.RANDAUGMENT_M),
    ),
    "randaugment_fixmatch": lambda inp: (
        f"randaugment_fixmatch (n={inp.RANDAUGMENT_N})",
        RandAugmentFixMatch(inp.RANDAUGMENT_N),
    ),
    "randaugment2": lambda inp: (f"randaugment2 (n={inp.RANDAUGMENT_N})", RandAugment2(inp.RANDAUGMENT_N)),
    "colorjitter": _color_jitter,
    "randomgrayscale": lambda inp: ("random gray scale", RandomGrayscale(p=inp.RGS_P)),
    "gaussian_blur": lambda inp: (
        f"gaussian blur (kernel={inp.GB_K})",
        RandomApply([GaussianBlur(inp.GB_K)], p=inp.GB_P),
    ),
}

_TENSOR_STEPS: dict[str, Callable[[CfgNode], Step]] = {
    "cutout": lambda inp: (
        f"cutout (n_holes={inp.CUTOUT_N}, length={inp.CUTOUT_LEN})",
        Cutout(inp.CUTOUT_N, inp.CUTOUT_LEN),
    ),
    "normalize": _normalize,
    "gaussian_noise": lambda inp: (
        f"gaussian noise (mean={inp.GN_MEAN}, std={inp.GN_STD})",
        GaussianNoise(inp.GN_MEAN, inp.GN_STD),
    ),
    "instance_norm": lambda inp: ("instance normalization", InstanceNormalization()),
}

_TEST_STEPS = ("normalize", "instance_norm")  # the named steps that a test image takes too
_RESIZING_STEPS = {"random_crop", "random_resized_crop"}  # with one of these, no resizing goes before

# `center_crop` does nothing: test images are cropped anyway, training images never.
AVAI_CHOICES = ["center_crop", *_IMAGE_STEPS, *_TENSOR_STEPS]


def build_transform(cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None) -> Compose | None:
    """Build the transform of training or test images, printing a line for each step.

    Args:
        cfg: a configuration; its INPUT section is read.
        is_train: for training images (random) or test images (resize, centre crop).
        choices: names of `AVAI_CHOICES` in place of `cfg.INPUT.TRANSFORMS`.

    Returns:
        A transform from a PIL image to a tensor `(3, height, width)`, or None if `cfg.INPUT.NO_TRANSFORM` says so.

    Raises:
        ValueError: a transform's name or the interpolation's is not known.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None

    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    if isinstance(choices, str):
        raise ValueError(f"Transforms must be given as a list of names, not as the string '{choices}'.")
    unknown = [name for name in choices if name not in AVAI_CHOICES]
    if unknown:
        raise ValueError(f"Unknown transforms {unknown} (INPUT.TRANSFORMS); allowed are {AVAI_CHOICES}.")

    interpolation_mode(cfg.INPUT.INTERPOLATION)  # a wrong name is an error even if no step uses it

    print(f"Building transform_{'train' if is_train else 'test'}")
    transforms = []
    for line, transform in (_train_steps if is_train else _test_steps)(cfg.INPUT, choices):
        print(f"+ {line}")
        transforms.append(transform)
    return Compose(transforms)


def _train_steps(inp: CfgNode, choices: Sequence[str]) -> Iterator[Step]:
    if _RESIZING_STEPS.isdisjoint(choices):
        yield f"resize to {_target(inp)}", Resize(inp.SIZE, interpolation=interpolation_mode(inp.INTERPOLATION))
    yield from (step(inp) for name, step in _IMAGE_STEPS.items() if name in choices)
    yield "to torch tensor of range [0, 1]", ToTensor()
    yield from (step(inp) for name, step in _TENSOR_STEPS.items() if name in choices)


def _test_steps(inp: CfgNode, choices: Sequence[str]) -> Iterator[Step]:
    side = max(inp.SIZE)
    yield f"resize the smaller edge to {side}", Resize(side, interpolation=interpolation_mode(inp.INTERPOLATION))
    yield f"{_target(inp)} center crop", CenterCrop(inp.SIZE)
    yield "to torch tensor of range [0, 1]", ToTensor()
    yield from (_TENSOR_STEPS[name](inp) for name in _TEST_STEPS if name in choices)


def _target(inp: CfgNode) -> str:
    return f"{inp.SIZE[0]}x{inp.SIZE[1]}"
