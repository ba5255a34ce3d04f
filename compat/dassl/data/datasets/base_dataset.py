"""What a data set is to Dassl: lists of `Datum` for training, validation and test, and the classes found in them."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import ClassVar


class Datum:
    """One image of a data set: where it lies and what it shows. Read-only.

    Args:
        impath: path of the image file.
        label: class number, from 0.
        domain: domain number, from 0.
        classname: class name.

    Raises:
        ValueError: the path is no string.
        FileNotFoundError: no file lies there.
    """

    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = "") -> None:
        if not isinstance(impath, str):
            raise ValueError(f"An image path must be a string, not {type(impath).__name__}: {impath!r}.")
        if not os.path.isfile(impath):
            raise FileNotFoundError(f"There is no image file at '{impath}' (class '{classname}', label {label}).")
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        """Path of the image file."""
        return self._impath

    @property
    def label(self) -> int:
        """Class number."""
        return self._label

    @property
    def domain(self) -> int:
        """Domain number."""
        return self._domain

    @property
    def classname(self) -> str:
        """Class name."""
        return self._classname

    def __repr__(self) -> str:
        return f"Datum({self._impath!r}, label={self._label}, domain={self._domain}, classname={self._classname!r})"


class DatasetBase:
    """Base of every data set: holds the splits, knows the classes, picks few-shot subsets.

    A reader names its `dataset_dir`, builds lists of `Datum` and hands them to `super().__init__`. The classes are
    those of `train_x`. Dassl's `download_data` is left out: no reader of the CoOp family calls it, and their users
    place the files.

    Args:
        train_x: labelled training images.
        train_u: unlabelled training images, or None.
        val: validation images, or None.
        test: test images.

    Raises:
        ValueError: `train_x` is empty, or gives one label two class names.
    """

    dataset_dir: str = ""  # the data set's folder below cfg.DATASET.ROOT
    domains: ClassVar[list[str]] = []  # names of all its domains, if it has several

    def __init__(
        self,
        train_x: Sequence[Datum] | None = None,
        train_u: Sequence[Datum] | None = None,
        val: Sequence[Datum] | None = None,
        test: Sequence[Datum] | None = None,
    ) -> None:
        if not train_x:
            raise ValueError(f"The data set {type(self).__name__} has no labelled training images (train_x is empty).")
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    @property
    def train_x(self) -> Sequence[Datum]:
        """Labelled training images."""
        return self._train_x

    @property
    def train_u(self) -> Sequence[Datum] | None:
        """Unlabelled training images, if any."""
        return self._train_u

    @property
    def val(self) -> Sequence[Datum] | None:
        """Validation images, if any."""
        return self._val

    @property
    def test(self) -> Sequence[Datum] | None:
        """Test images."""
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name of each label, in the order of the labels."""
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Class names in the order of their labels."""
        return self._classnames

    @property
    def num_classes(self) -> int:
        """Largest label plus one."""
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: Iterable[Datum]) -> int:
        """Return the largest label plus one: labels that no image has count too."""
        labels = {item.label for item in data_source}
        if not labels:
            raise ValueError("The number of classes of an empty list of images is not known.")
        return max(labels) + 1

    @staticmethod
    def get_lab2cname(data_source: Iterable[Datum]) -> tuple[dict[int, str], list[str]]:
        """Return the class name of each label, and the names in the order of their labels.

        Raises:
            ValueError: one label has two names. Dassl takes one of them, and which one changes from run to run.
        """
        names: dict[int, str] = {}
        for item in data_source:
            name = names.setdefault(item.label, item.classname)
            if name != item.classname:
                raise ValueError(f"Label {item.label} has two class names: '{name}' and '{item.classname}'.")
        names = dict(sorted(names.items()))
        return names, list(names.values())

    def check_input_domains(self, source_domains: Sequence[str], target_domains: Sequence[str]) -> None:
        """Raise ValueError unless both lists name at least one domain, each one of the data set's."""
        for role, names in (("source", source_domains), ("target", target_domains)):
            if len(names) == 0:
                raise ValueError(f"No {role} domain is given; {type(self).__name__} has {self.domains}.")
            self.is_input_domain_valid(names)

    def is_input_domain_valid(self, input_domains: Iterable[str]) -> None:
        """Raise ValueError if a name is none of the data set's domains."""
        for name in input_domains:
            if name not in self.domains:
                raise ValueError(f"{type(self).__name__} has the domains {self.domains}, not '{name}'.")

    def generate_fewshot_dataset(
        self, *data_sources: Sequence[Datum], num_shots: int = -1, repeat: bool = False
    ) -> Sequence[Datum] | Sequence[Sequence[Datum]]:
        """Draw the same number of images from each class, with Python's `random`.

        Classes come in the order of their first image. For a seed these are the images that Dassl picks.

        Args:
            data_sources: lists of images.
            num_shots: images per class; less than 1 returns the lists as they are.
            repeat: fill a class that has fewer images by drawing with replacement; otherwise it keeps what it has.

        Returns:
            One list for one list, else one for each.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources

        print(f"Creating a {num_shots}-shot dataset")
        subsets = []
        for data_source in data_sources:
            subset: list[Datum] = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    items = random.sample(items, num_shots)
                elif repeat:
                    items = random.choices(items, k=num_shots)
                subset.extend(items)
            subsets.append(subset)
        return subsets[0] if len(subsets) == 1 else subsets

    def split_dataset_by_label(self, data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Group images by label, labels in the order of their first image."""
        groups: dict[int, list[Datum]] = defaultdict(list)
        for item in data_source:
            groups[item.label].append(item)
        return groups

    def split_dataset_by_domain(self, data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Group images by domain, domains in the order of their first image."""
        groups: dict[int, list[Datum]] = defaultdict(list)
        for item in data_source:
            groups[item.domain].append(item)
        return groups
