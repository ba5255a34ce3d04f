"""The data set readers: importing this package registers them in Dassl's DATASET_REGISTRY."""

from __future__ import annotations

from . import (
    digits,
    dtd,
    folder,
    shapes,
    textures,
)

__all__ = [
    "digits",
    "dtd",
    "folder",
    "shapes",
    "textures",
]
