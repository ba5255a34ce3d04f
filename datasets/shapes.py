"""Shapes of the embedded world: 48 classes of two words, colour + shape or texture + shape, painted on first use.

$DATA/shapes/images/<class, with underscores>/<number>.png
$DATA/shapes/split_zhou_Shapes.json

and four shifted variants of it to test on, with the same classes, under $DATA/shapes-v2, -sketch, -a and -r, as
ImageNet has them: new and fainter pictures, drawings in outline, scenes that the tiny CLIP finds hard, and renditions
in styles that it has never seen.

Both words count: each shape comes with several colours and textures, and the other way round. The two kinds take turns,
so that base and new classes are alike. A quarter of the classes, in both halves, are combinations that the tiny CLIP
has never seen (`world.HELD_OUT_COLOURS`, `world.HELD_OUT_TEXTURES`), so that zero-shot recognition is not memory.
Pictures are fainter, noisier and more cluttered than those of pre-training.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY

from . import world
from .rendered import Parts, RenderedDataset, quality

CONTRAST = (0.28, 0.575)
NOISE = (0.055, 0.1275)
CLUTTER = 8  # most pieces in a picture

CLASSES = (
    ("orange", "heart"),
    ("honeycombed", "circle"),
    ("red", "cross"),
    ("cracked", "house"),
    ("brown", "triangle"),
    ("banded", "circle"),
    ("yellow", "heart"),
    ("bubbly", "fish"),
    ("purple", "star"),
    ("gridded", "house"),
    ("yellow", "tree"),
    ("woven", "cup"),
    ("green", "circle"),
    ("gridded", "arrow"),
    ("green", "fish"),
    ("striped", "star"),
    ("blue", "fish"),
    ("spiralled", "star"),
    ("red", "tree"),
    ("bubbly", "tree"),
    ("brown", "square"),
    ("chequered", "heart"),
    ("cyan", "tree"),
    ("zigzagged", "ring"),
    ("cyan", "triangle"),
    ("zigzagged", "house"),
    ("green", "cup"),
    ("chequered", "triangle"),
    ("orange", "house"),
    ("spiralled", "ring"),
    ("blue", "ring"),
    ("dotted", "tree"),
    ("orange", "triangle"),
    ("striped", "heart"),
    ("purple", "heart"),
    ("woven", "circle"),
    ("yellow", "cross"),
    ("honeycombed", "star"),
    ("purple", "arrow"),
    ("dotted", "arrow"),
    ("blue", "circle"),
    ("cracked", "fish"),
    ("cyan", "ring"),
    ("polka-dotted", "cross"),
    ("brown", "arrow"),
    ("banded", "cross"),
    ("red", "house"),
    ("polka-dotted", "square"),
)


def sample_shape(look: str, shape: str, rng: np.random.Generator, **fixed: Any) -> world.Scene:
    """A scene of one class.

    Args:
        look: a colour or a texture.
        shape: a key of ``world.SHAPES``.
        rng: source of all other factors.
        fixed: factors of ``world.Scene`` that are given.
    """
    factors: dict[str, Any] = {"subject": shape, **quality(rng, CONTRAST, NOISE, CLUTTER)}
    factors.update({"colour": look, "texture": None} if look in world.COLOURS else {"texture": look})
    return world.sample_scene(rng, world.FONTS, "object", **{**factors, **fixed})


@DATASET_REGISTRY.register()
class Shapes(RenderedDataset):
    """Coloured and textured shapes."""

    key = 1
    dataset_dir = "shapes"
    split_file = "split_zhou_Shapes.json"
    classes = CLASSES

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """A scene as `sample_shape` draws it."""
        return sample_shape(*CLASSES[label], rng)


# ------------------------------------------------------------------------------------------------ shifted variants
# One training picture per class, as Dassl takes the classes from them; nobody trains on it.
VARIANT = Parts(1, 0, 25)


@DATASET_REGISTRY.register()
class ShapesV2(Shapes):
    """New pictures of the same classes, a little fainter, noisier and more crowded."""

    key = 11
    dataset_dir = "shapes-v2"
    split_file = "split_zhou_ShapesV2.json"
    parts = VARIANT

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """A scene of worse quality than any of the median in `Shapes`."""
        quality: dict[str, Any] = {
            "contrast": float(rng.uniform(CONTRAST[0], np.mean(CONTRAST))),
            "noise": float(rng.uniform(np.mean(NOISE), NOISE[1])),
            "clutter": int(rng.integers(CLUTTER // 2, CLUTTER + 1)),
        }
        return sample_shape(*CLASSES[label], rng, **quality)


@DATASET_REGISTRY.register()
class ShapesSketch(Shapes):
    """Drawings in crayon: outlines and hatching on pale paper."""

    key = 12
    dataset_dir = "shapes-sketch"
    split_file = "split_zhou_ShapesSketch.json"
    parts = VARIANT

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """A scene in the style "sketched"."""
        return sample_shape(*CLASSES[label], rng, style="sketched")


@DATASET_REGISTRY.register()
class ShapesR(Shapes):
    """Renditions: pixelated, posterised or embossed."""

    key = 13
    version = 2
    dataset_dir = "shapes-r"
    split_file = "split_zhou_ShapesR.json"
    parts = VARIANT

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """A scene in one of three styles, in turns, none of the faintest in `Shapes`."""
        style = ("pixelated", "posterised", "embossed")[number % 3]
        return sample_shape(*CLASSES[label], rng, style=style, contrast=float(rng.uniform(0.35, CONTRAST[1])))


@functools.lru_cache(maxsize=1)
def hard_scenes() -> dict[str, list[int]]:
    """For each class folder, the numbers of the scenes of ``ShapesA``, as `tools.tiny_clip.choose_hard` chose them.

    Raises:
        FileNotFoundError: the list of numbers is not beside this file.
        ValueError: it is of other classes.
    """
    path = Path(__file__).with_name("shapes_a.json")
    if not path.is_file():
        raise FileNotFoundError(
            f"the scenes of ShapesA must be listed in {path}: run python -m tools.tiny_clip.choose_hard"
        )
    chosen = json.loads(path.read_text(encoding="utf-8"))["scenes"]
    if list(chosen) != list(Shapes.class_folders) or {len(numbers) for numbers in chosen.values()} != {sum(VARIANT)}:
        raise ValueError(
            f"{path} must list {sum(VARIANT)} scenes of each of the classes of Shapes: run tools.tiny_clip.choose_hard"
        )
    return chosen


@DATASET_REGISTRY.register()
class ShapesA(Shapes):
    """Hard cases: scenes drawn as in `Shapes`, those that the tiny CLIP got wrong most, painted once more.

    They are chosen by how other paintings of the same scene fared, so that it is the scenes that are hard (place, size,
    background, style, colours), and not the noise of one picture; zero-shot recognition is low here, but not nil.
    """

    key = 14
    version = 2
    dataset_dir = "shapes-a"
    split_file = "split_zhou_ShapesA.json"
    parts = VARIANT

    @classmethod
    def candidate(cls, label: int, candidate: int) -> world.Scene:
        """Scene number `candidate` of those from which a class's scenes are chosen."""
        return sample_shape(*CLASSES[label], np.random.default_rng([cls.key + 1, label, candidate]))

    def generator(self) -> dict[str, Any]:
        """As of every painted set, with the chosen scenes."""
        return {**super().generator(), "scenes": hard_scenes()}

    def scene(self, label: int, number: int, rng: np.random.Generator) -> world.Scene:
        """The chosen scene."""
        return self.candidate(label, hard_scenes()[self.class_folders[label]][number])
