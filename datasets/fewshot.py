"""Few-shot selections kept on disk: as plain JSON with relative paths, keyed by what the draw depends on.

$DATA/<dataset_dir>/split_fewshot/shot_<n>-seed_<k>.json
    {"num_shots": n, "seed": k, "split": digest of the lists drawn from,
     "train": [[path, label, class name], ...], "val": [...]}
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .files import read_json, shorten, write_json
from .splits import Item

VAL_SHOTS = 4  # CoOp never takes more than four validation images a class, whatever the number of shots


def check_selection(selected: Sequence[list[Item]], split: Sequence[list[Item]], num_shots: int, source: str) -> None:
    """Raise ValueError unless a kept few-shot selection is one that could have been drawn from the split.

    Args:
        selected: training and validation images of the selection.
        split: all training and validation images.
        num_shots: training images a class; of validation images at most `VAL_SHOTS`.
        source: the file that keeps the selection, for the error.
    """
    for part, items, all_items, shots in zip(("train", "val"), selected, split, (num_shots, min(num_shots, VAL_SHOTS))):
        chosen = set(items)
        available = Counter(item for item in all_items if item in chosen)  # a split may name an image twice
        strange = list((Counter(items) - available).elements())
        if strange:
            raise ValueError(
                f"{source} keeps few-shot images that the split's {part} list does not have (or not so often) with "
                f"this label and class name: {shorten([tuple(item) for item in strange], limit=2)}; remove it to draw "
                "them anew"
            )
        counts = Counter(item.label for item in items)
        sizes = Counter(item.label for item in all_items)
        wrong = [label for label, size in sorted(sizes.items()) if counts[label] != min(shots, size)]
        if wrong:
            raise ValueError(
                f"{source} must keep {shots} {part} images of each class, or all where there are fewer, which is not "
                f"so of the labels {shorten(wrong)}; remove it to draw them anew"
            )


def fingerprint(*parts: list[Item]) -> str:
    """Return a digest of lists of images: of their paths, labels, class names and order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part, separators=(",", ":")).encode())
    return digest.hexdigest()


def read_selection(path: str, depends_on: Mapping[str, Any]) -> tuple[list[Item], list[Item]] | None:
    """Read a few-shot selection that `keep_selection` kept, None where there is none for this split.

    Raises:
        ValueError: the file is damaged.
    """
    if not os.path.exists(path):
        return None
    content = read_json(path, "the few-shot selection")
    try:
        kept_for = {key: content[key] for key in depends_on}
        train, val = ([Item(*entry) for entry in content[part]] for part in ("train", "val"))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the few-shot selection {path} must hold {', '.join(depends_on)}, train and val; remove it to draw anew"
        ) from error
    if kept_for != depends_on:
        print(f"Note: the few-shot images in {path} were drawn from another split, and are drawn anew")
        return None
    return train, val


def keep_selection(path: str, depends_on: Mapping[str, Any], selected: Sequence[list[Item]]) -> None:
    """Keep a few-shot selection for later runs, whole or not at all; a folder that cannot be written is noted."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_json({**depends_on, "train": selected[0], "val": selected[1]}, path)
    except OSError as error:
        print(f"Note: the few-shot images are not kept in {path} ({error.strerror}); each run draws them anew")
    else:
        print(f"Kept the few-shot images in {path}")
