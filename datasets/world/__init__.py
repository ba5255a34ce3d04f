"""The embedded world: small pictures with known factors, and captions that name some of them.

`strokes` outlines things, `patterns` holds their textures and backgrounds, `scenes` draws the factors of a picture
at random and words captions, `render` paints.
"""

from __future__ import annotations

from .patterns import BACKGROUNDS, TEXTURES
from .render import render
from .scenes import (
    CHARACTERS,
    COLOURS,
    DIGITS,
    HELD_OUT_COLOURS,
    HELD_OUT_TEXTURES,
    LETTERS,
    NAMED,
    POSITIONS,
    SIZES,
    STYLES,
    SYMBOLS,
    UNSEEN_STYLES,
    Caption,
    Scene,
    caption,
    describe,
    held_out,
    is_true,
    sample_pretraining_scene,
    sample_scene,
)
from .strokes import FONTS, SHAPES, UNSEEN_FONTS, UNSEEN_TEXT_FONTS

__all__ = [
    "BACKGROUNDS",
    "CHARACTERS",
    "COLOURS",
    "DIGITS",
    "FONTS",
    "HELD_OUT_COLOURS",
    "HELD_OUT_TEXTURES",
    "LETTERS",
    "NAMED",
    "POSITIONS",
    "SHAPES",
    "SIZES",
    "STYLES",
    "SYMBOLS",
    "TEXTURES",
    "UNSEEN_FONTS",
    "UNSEEN_STYLES",
    "UNSEEN_TEXT_FONTS",
    "Caption",
    "Scene",
    "caption",
    "describe",
    "held_out",
    "is_true",
    "render",
    "sample_pretraining_scene",
    "sample_scene",
]
