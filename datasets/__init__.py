"""The data set readers: importing this package registers them in Dassl's DATASET_REGISTRY."""

from __future__ import annotations

from . import (
    backgrounds,
    confounded,
    digits,
    dtd,
    letters,
    shapes,
    symbols,
    textures,
)

__all__ = [
    "backgrounds",
    "confounded",
    "digits",
    "dtd",
    "letters",
    "shapes",
    "symbols",
    "textures",
]
