"""The data set readers: importing this package registers them in Dassl's DATASET_REGISTRY."""

from __future__ import annotations

from . import (
    caltech101,
    digits,
    dtd,
    eurosat,
    fgvc_aircraft,
    folder,
    food101,
    imagenet,
    imagenet_a,
    imagenet_r,
    imagenet_sketch,
    imagenetv2,
    oxford_flowers,
    oxford_pets,
    shapes,
    stanford_cars,
    sun397,
    textures,
    ucf101,
)

__all__ = [
    "caltech101",
    "digits",
    "dtd",
    "eurosat",
    "fgvc_aircraft",
    "folder",
    "food101",
    "imagenet",
    "imagenet_a",
    "imagenet_r",
    "imagenet_sketch",
    "imagenetv2",
    "oxford_flowers",
    "oxford_pets",
    "shapes",
    "stanford_cars",
    "sun397",
    "textures",
    "ucf101",
]
