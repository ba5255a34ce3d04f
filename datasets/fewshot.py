"""Few-shot selection: a few images per class, the ones that CoOp picks for the seed, the same for every method.

A selection is kept beside the images, so that all runs of a seed train on the same ones:

    $DATA/<dataset_dir>/split_fewshot/shot_<n>-seed_<k>.json
        {"num_shots": n, "seed": k, "split": digest of the lists that it was drawn from,
         "train": [[path, label, class name], ...], "val": [...]}

    $DATA/<dataset_dir>/split_fewshot/shot_<n>-seed_<k>.pkl      the same, as CoOp's readers keep it
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from storage.safe_text import escaped

from .files import read_json, shorten, write_json
from .pickles import read_pickled
from .splits import Item

FOLDER = "split_fewshot"
VAL_SHOTS = 4  # CoOp never takes more than four validation images per class, whatever the number of shots


class Selection(NamedTuple):
    """The images that a run trains and validates on."""

    train: list[Item]
    val: list[Item]


class FewShotSelector:
    """Selects `num_shots` training images and at most four validation images per class.

    The first of these that exists is taken:

    1. the selection that CoOp's reader pickled. As there, the global `random` state stays as it is;
    2. the selection that an earlier run kept as JSON, if it was drawn from the same split. The file decides, as CoOp's
       does; where other images would be drawn now, a note says so. The `random` state goes on as if they were drawn,
       so a run gives the same numbers with the file and without;
    3. a draw from the global `random` state, which is then kept as JSON.

    A file holds the images of its seed. So 2 and 3 read and write files only if the images drawn are those that the
    seed gives, as in every run of `train.py`. They differ in a notebook that has not called `set_random_seed`: there
    the draw is used, a note says so, and no file is read or written. Runs without a fixed seed (below 0) share nothing
    either.

    Args:
        num_shots: training images per class; below 1: all images are taken.
        seed: of the run; it is part of the file's name.
        dataset_dir: folder of the data set.
        image_suffix: the end of the image folder's path on every machine, which CoOp's pickles hold in full.
    """

    def __init__(self, num_shots: int, seed: int, dataset_dir: str, image_suffix: str) -> None:
        self.num_shots, self.seed, self.image_suffix = num_shots, seed, image_suffix
        name = os.path.join(dataset_dir, FOLDER, f"shot_{num_shots}-seed_{seed}")
        self.pickle_path, self.json_path = f"{name}.pkl", f"{name}.json"

    def select(self, train: list[Item], val: list[Item]) -> Selection:
        """Select from all training and validation images of a split.

        Raises:
            ValueError: a kept selection is damaged or does not fit the split.
        """
        everything = Selection(train, val)
        if self.num_shots < 1:
            return everything
        self.note_small_classes(train)
        if os.path.exists(self.pickle_path):
            lists = read_pickled(self.pickle_path, self.image_suffix)
            pickled = Selection(*([Item(*entry) for entry in lists.get(part, [])] for part in Selection._fields))
            self.check(pickled, everything, self.pickle_path)
            print(f"Taking the few-shot images that CoOp's reader kept in {self.pickle_path}")
            return pickled

        for shots in (self.num_shots, self.val_shots) if val else (self.num_shots,):
            print(f"Creating a {shots}-shot dataset")  # Dassl's line, which scripts look for in logs
        drawn = self.draw(everything, random.sample)
        if self.seed < 0:
            return drawn
        if drawn != self.draw(everything, random.Random(self.seed).sample):
            print(
                f"Note: the few-shot images are not those of seed {self.seed}, because the state of Python's random is "
                f"not the one that set_random_seed({self.seed}) leaves; they are not kept"
            )
            return drawn
        depends_on = {"num_shots": self.num_shots, "seed": self.seed, "split": fingerprint(train, val)}
        kept = self.read(depends_on)
        if kept is None:
            self.keep(drawn, depends_on)
            return drawn
        self.check(kept, everything, self.json_path)
        print(f"Taking the few-shot images of earlier runs from {self.json_path}")
        if kept != drawn:
            print("Note: this seed would now draw other images")
        return kept

    @property
    def val_shots(self) -> int:
        """Validation images per class."""
        return min(self.num_shots, VAL_SHOTS)

    def note_small_classes(self, train: list[Item]) -> None:
        """Print how many classes have fewer training images than shots."""
        counts = Counter((item.label, item.classname) for item in train)
        small = sorted((count, label, name) for (label, name), count in counts.items() if count < self.num_shots)
        if small:
            fewest, _, name = small[0]
            print(
                f"Note: {len(small)} of {len(counts)} classes have fewer than {self.num_shots} training images "
                f"(fewest: {escaped(name)}, {fewest}), all of which are taken"
            )

    def draw(self, everything: Selection, sample: Callable[[Sequence[Item], int], list[Item]]) -> Selection:
        """Draw training images, then validation images, as Dassl's `generate_fewshot_dataset` does.

        Args:
            everything: all images.
            sample: draws so many of a list without replacement, as `random.sample`.
        """
        return Selection(
            draw_per_class(everything.train, self.num_shots, sample),
            draw_per_class(everything.val, self.val_shots, sample),
        )

    def check(self, selection: Selection, everything: Selection, source: str) -> None:
        """Raise ValueError unless a kept selection is one that could have been drawn.

        Args:
            selection: what was kept.
            everything: all images.
            source: the file that keeps the selection, for the error.
        """
        for part, chosen, available, shots in zip(
            Selection._fields, selection, everything, (self.num_shots, self.val_shots)
        ):
            candidates = set(chosen)
            counts = Counter(item for item in available if item in candidates)  # a split may name an image twice
            unknown = list((Counter(chosen) - counts).elements())
            if unknown:
                raise ValueError(
                    f"{source} keeps few-shot images that the split's {part} list does not have (or not so often) with "
                    f"this label and class name: {shorten([tuple(item) for item in unknown], limit=2)}; remove it to "
                    "draw them again"
                )
            found = Counter(item.label for item in chosen)
            sizes = Counter(item.label for item in available)
            wrong = [label for label, size in sorted(sizes.items()) if found[label] != min(shots, size)]
            if wrong:
                raise ValueError(
                    f"{source} must keep {shots} {part} images of each class, or all where there are fewer, which is "
                    f"not so for the labels {shorten(wrong)}; remove it to draw them again"
                )

    def read(self, depends_on: Mapping[str, Any]) -> Selection | None:
        """Read the selection that `keep` kept; None where there is none, or one of another split.

        Raises:
            ValueError: the file is damaged.
        """
        if not os.path.exists(self.json_path):
            return None
        content = read_json(self.json_path, "the few-shot selection")
        try:
            kept_for = {key: content[key] for key in depends_on}
            kept = Selection(*([Item(*entry) for entry in content[part]] for part in Selection._fields))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"the few-shot selection {self.json_path} must hold {', '.join(depends_on)}, train and val; remove it "
                "to draw again"
            ) from error
        if kept_for != depends_on:
            print(f"Note: the few-shot images in {self.json_path} were drawn from another split, and are drawn again")
            return None
        return kept

    def keep(self, drawn: Selection, depends_on: Mapping[str, Any]) -> None:
        """Keep a selection for later runs, whole or not at all; a folder that cannot be written is noted."""
        try:
            os.makedirs(os.path.dirname(self.json_path), exist_ok=True)
            write_json({**depends_on, **drawn._asdict()}, self.json_path)
        except OSError as error:
            print(f"Note: the few-shot images are not kept in {self.json_path} ({error.strerror}); each run draws them")
        else:
            print(f"Kept the few-shot images in {self.json_path}")


def draw_per_class(
    items: list[Item], shots: int, sample: Callable[[Sequence[Item], int], list[Item]] = random.sample
) -> list[Item]:
    """Draw `shots` images of each class, or all where a class has fewer; classes are in the order of their first image.

    Args:
        items: the images.
        shots: images per class.
        sample: draws from a list without replacement, as `random.sample`, which is the default.
    """
    classes: dict[int, list[Item]] = {}
    for item in items:
        classes.setdefault(item.label, []).append(item)
    return [item for own in classes.values() for item in (sample(own, shots) if len(own) >= shots else own)]


def fingerprint(*parts: list[Item]) -> str:
    """Return a digest of lists of images: of their paths, labels, class names and order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part, separators=(",", ":")).encode())
    return digest.hexdigest()
