"""A smaller set to choose settings on, made of a set's base classes: no new class and no test image is in it.

It trains on the few-shot images that every run of the seed trains on, and takes further training and validation images
of the same classes for its test images. Its own halves, by `DATASET.SUBSAMPLE_CLASSES`, are pseudo-base and pseudo-new
classes.
"""

from __future__ import annotations

import random
from collections import Counter

from .fewshot import Selection, draw_per_class
from .files import shorten
from .splits import Item, Split, subsample_classes

FEWEST_CLASSES = 4  # base classes: two in each half, or there would be nothing to tell apart


def pseudo_parts(split: Split, few: Selection, images: int, seed: int, name: str) -> Split:
    """The parts of the smaller set; the global `random` state stays as it is.

    The few-shot validation images stay validation images, unless a class has fewer than `images` others. Then they are
    test images, too, and the smaller set has no validation images.

    Args:
        split: of the whole set.
        few: its few-shot images.
        images: for the test, per class; drawn where there are more.
        seed: of the run, by which they are drawn.
        name: of the data set, for errors.

    Returns:
        Training, validation and test images of the base classes, with labels from 0.

    Raises:
        ValueError: `images` is below 1, there are fewer than four base classes, or no further image of one of them.
    """
    if images < 1:
        raise ValueError(f"DATASET.PSEUDO_IMAGES must be from 0 on, got {images}")
    train, val, few_train, few_val = subsample_classes(split.train, split.val, *few, subsample="base", name=name)
    names = {item.label: item.classname for item in train}
    if len(names) < FEWEST_CLASSES:
        raise ValueError(
            f"settings are chosen on halves of the base classes, so a set must have at least {FEWEST_CLASSES} base "
            f"classes, {2 * FEWEST_CLASSES - 1} in all; {name} has {len({item.label for item in split.train})}"
        )
    own = _others([*train, *val], split.test)  # a split may name an image of a test once more
    further = _others(own, [*few_train, *few_val])
    counts = Counter(item.label for item in further)
    if few_val and min(counts[label] for label in names) < images:
        print(f"Note: not all classes of {name} have {images} further images, so those for validation are among them")
        further, few_val = _others(own, few_train), []
    without = sorted(set(names) - {item.label for item in further})
    if without:
        raise ValueError(
            f"{name} has no further training or validation image to choose by, beside the few-shot ones, of "
            f"{shorten([names[label] for label in without])}: train on fewer shots, or add images"
        )
    chosen = draw_per_class(further, images, random.Random(seed).sample)
    return Split(few_train, few_val, chosen)


def _others(items: list[Item], taken: list[Item]) -> list[Item]:
    """The items whose images are not taken, each image once, as a split may name one twice."""
    paths = {item.path for item in taken}
    return list({item.path: item for item in items if item.path not in paths}.values())
