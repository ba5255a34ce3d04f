"""Class names of a data set as CLIP reads them, which are base and which new, and choosing them for a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from datasets.base import SplitDataset
from datasets.files import list_visible, shorten
from datasets.folder import CLASSNAMES_FILE, NO_CLASSES, SPLIT_FILE, has_parts, name_classes
from storage.files import atomic_write
from trainers.modules.loading import words_read
from trainers.modules.templates import format_template


def class_lines(dataset: SplitDataset, name: str) -> list[str]:
    """A line for each class, in the order of the labels: base or new, its name, and its prompt as CLIP reads it.

    Args:
        dataset: with all its classes.
        name: of the data set, as the config calls it, for its hand-written template.
    """
    names = list(dataset.classnames)
    prompts = format_template(names, name)
    n_base = math.ceil(len(names) / 2)
    width = max(map(len, names))
    lines = [f"template  {format_template(['{}'], name)[0]}, of methods that learn no prompts of their own"]
    for label, (classname, prompt) in enumerate(zip(names, prompts)):
        half = "base" if label < n_base else "new"
        words, n_tokens = words_read(prompt)
        lines.append(f"{half:9} {classname:{width}}  {words} ({n_tokens} tokens)")
    return lines


def choose(folder: str, base: Sequence[str] = ()) -> Path:
    """Write `classnames.txt` of a folder of one's own, whose order says which classes are base.

    Args:
        folder: the data set's.
        base: folders or names of the base classes, half of all, rounded up; empty: those that are base now.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the classes are split already, are no usable classes, or `base` is not half of them.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder}")
    split = os.path.join(folder, SPLIT_FILE)
    if os.path.exists(split):
        raise ValueError(
            f"the classes are split in {split}, which holds their names and order: remove it first, and the folders of "
            "finished runs, which would have other classes"
        )
    below = os.path.join(folder, "train") if has_parts(folder) else folder
    names = name_classes([name for name in list_visible(below)[0] if name not in NO_CLASSES], folder)
    path = Path(folder, CLASSNAMES_FILE)
    if path.exists() and not base:
        raise ValueError(f"{path} is there already: edit it, or choose base classes by --base")
    chosen = []
    for wanted in base:
        found = [each for each, classname in names.items() if wanted in (each, classname)]
        if len(found) != 1:
            raise ValueError(f"--base names {wanted!r}, which is none of the classes {shorten(list(names), limit=20)}")
        chosen += found
    n_base = math.ceil(len(names) / 2)
    if base and len(set(chosen)) != n_base:
        raise ValueError(
            f"--base must name {n_base} of the {len(names)} classes, half of them rounded up, as everywhere in the "
            f"protocol, got {len(set(chosen))}"
        )
    order = [*dict.fromkeys(chosen), *(name for name in names if name not in chosen)]
    with atomic_write(path) as unfinished:
        unfinished.write_text("".join(f"{name}\t{names[name]}\n" for name in order), encoding="utf-8")
    return path
