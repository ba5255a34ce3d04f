"""Interventions on pictures: what CLIP-ICM (Song et al., ICML 2025, arXiv 2405.15289) compares an image with.

Legend: N images, n interventions an image, S image size in pixels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
import torchvision.transforms.functional as TF
from PIL import ImageFilter
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset


def _color_jitter(image: Image, rng: random.Random) -> Image:
    steps = [
        (TF.adjust_brightness, rng.uniform(0.6, 1.4)),
        (TF.adjust_contrast, rng.uniform(0.6, 1.4)),
        (TF.adjust_saturation, rng.uniform(0.6, 1.4)),
        (TF.adjust_hue, rng.uniform(-0.1, 0.1)),
    ]
    rng.shuffle(steps)
    for adjust, amount in steps:
        image = adjust(image, amount)
    return image


def _gaussian_blur(image: Image, rng: random.Random) -> Image:
    """By 0.1 to 2 pixels where the shorter side has 224, and as much to the eye in any other size."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0) * min(image.size) / 224))


# The paper names the operations; their strengths are our choice (the released code takes them from its command line).
OPERATIONS: dict[str, Callable[[Image, random.Random], Image]] = {
    "color_jitter": _color_jitter,
    "grayscale": lambda image, rng: TF.rgb_to_grayscale(image, num_output_channels=3),
    "gaussian_blur": _gaussian_blur,
    "invert": lambda image, rng: TF.invert(image),
    "posterize": lambda image, rng: TF.posterize(image, bits=2),
    "solarize": lambda image, rng: TF.solarize(image, threshold=128),
    "equalize": lambda image, rng: TF.equalize(image),
}


def intervene(image: Image, rng: random.Random) -> Image:
    """One of `OPERATIONS`, each with the same probability, on an RGB picture."""
    return OPERATIONS[rng.choice(list(OPERATIONS))](image, rng)


class InterventionViews(Dataset[Tensor]):
    """Each picture as it is, then n interventions on it, `(1 + n, 3, S, S)`.

    As in the released code the intervention is made on the whole picture, before it is resized and cropped. What is
    drawn for a picture depends on the seed and the picture's number alone, not on global random states, workers or the
    other pictures.

    Args:
        paths: files of N pictures.
        read: path -> RGB picture.
        transform: picture -> `(3, S, S)`, not random, as the encoder takes it.
        n_interventions: n.
        seed: of the random operations.
    """

    def __init__(
        self,
        paths: Sequence[str],
        read: Callable[[str], Image],
        transform: Callable[[Image], Tensor],
        n_interventions: int,
        seed: int,
    ) -> None:
        self.paths = paths
        self.read = read
        self.transform = transform
        self.n_interventions = n_interventions
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        rng = random.Random(f"{self.seed} {index}")
        image = self.read(self.paths[index])
        pictures = [image] + [intervene(image, rng) for _ in range(self.n_interventions)]
        return torch.stack([self.transform(picture) for picture in pictures])
