"""The order in which a loader visits a list of images.

Dassl counts the images of an epoch by drawing one when the sampler is built. That takes numbers from `random` and
numpy, so the samplers here do it too: what is drawn afterwards stays the same.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Union

import numpy as np
from torch.utils.data import RandomSampler, Sampler, SequentialSampler

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from .datasets import Datum


class _EpochSampler(Sampler[int]):
    """A sampler that draws a whole epoch of indices at once; subclasses say how."""

    def _count(self) -> None:
        # An estimate if the number of images changes from epoch to epoch.
        self.length = len(self._draw_epoch())

    def _draw_epoch(self) -> list[int]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(self._draw_epoch())

    def __len__(self) -> int:
        return self.length


class _DomainSampler(_EpochSampler):
    """Batches of the same number of images from each of `n_domain` domains, until a domain runs short."""

    def __init__(self, data_source: Sequence[Datum], batch_size: int, n_domain: int | None = None) -> None:
        self.data_source = data_source
        self.batch_size = batch_size
        self._indices = _indices_by(lambda item: item.domain, data_source)
        self.domains = list(self._indices)
        self.n_domain = n_domain if n_domain is not None and n_domain > 0 else len(self.domains)
        if self.n_domain > len(self.domains):
            raise ValueError(f"A batch cannot have {self.n_domain} domains: the images come from {len(self.domains)}.")
        if batch_size < 1 or batch_size % self.n_domain:
            raise ValueError(
                f"The batch size must be a multiple of the {self.n_domain} domains in it, not {batch_size}."
            )
        self.n_img_per_domain = batch_size // self.n_domain
        short = {name: len(found) for name, found in self._indices.items() if len(found) < self.n_img_per_domain}
        if short:
            raise ValueError(
                f"A batch of {batch_size} takes {self.n_img_per_domain} images of a domain, but domains have fewer "
                f"(domain: images): {short}."
            )

    def _draw_domains(self) -> list[int]:
        raise NotImplementedError

    def _draw_epoch(self) -> list[int]:
        left = {domain: list(indices) for domain, indices in self._indices.items()}
        epoch: list[int] = []
        while all(len(indices) >= self.n_img_per_domain for indices in left.values()):
            for domain in self._draw_domains():
                drawn = random.sample(left[domain], self.n_img_per_domain)
                epoch.extend(drawn)
                taken = set(drawn)
                left[domain] = [index for index in left[domain] if index not in taken]
        return epoch


class RandomDomainSampler(_DomainSampler):
    """Each batch: some domains drawn at random, the same number of images from each.

    Args:
        data_source: images; their domains count.
        batch_size: images in a batch, a multiple of the number of domains in it.
        n_domain: domains in a batch; None, 0 or less takes all of them.

    Raises:
        ValueError: batches of this kind cannot be made from these images.
    """

    def __init__(self, data_source: Sequence[Datum], batch_size: int, n_domain: int | None) -> None:
        super().__init__(data_source, batch_size, n_domain)
        self._count()

    def _draw_domains(self) -> list[int]:
        return random.sample(self.domains, self.n_domain)


class SeqDomainSampler(_DomainSampler):
    """Each batch: all domains in the order of their numbers, the same number of random images from each.

    Args:
        data_source: images; their domains count.
        batch_size: images in a batch, a multiple of the number of domains.

    Raises:
        ValueError: batches of this kind cannot be made from these images.
    """

    def __init__(self, data_source: Sequence[Datum], batch_size: int) -> None:
        super().__init__(data_source, batch_size)
        self.domains.sort()
        self._count()

    def _draw_domains(self) -> list[int]:
        return self.domains


class RandomClassSampler(_EpochSampler):
    """Each batch: some classes drawn at random, `n_ins` images from each.

    A class with fewer than `n_ins` images is filled by drawing with replacement. Images that do not fill a last group
    of `n_ins` are left out, and so are the last groups, when fewer classes than a batch needs have any left.

    Args:
        data_source: images; their labels count.
        batch_size: images in a batch; `batch_size // n_ins` classes are in it.
        n_ins: images of one class in a batch.

    Raises:
        ValueError: batches of this kind cannot be made from these images.
    """

    def __init__(self, data_source: Sequence[Datum], batch_size: int, n_ins: int) -> None:
        if not 1 <= n_ins <= batch_size:
            raise ValueError(f"n_ins must lie between 1 and the batch size {batch_size}, not {n_ins}.")
        self.data_source = data_source
        self.batch_size = batch_size
        self.n_ins = n_ins
        self.ncls_per_batch = batch_size // n_ins
        self._indices = _indices_by(lambda item: item.label, data_source)
        self.labels = list(self._indices)
        if len(self.labels) < self.ncls_per_batch:
            raise ValueError(
                f"A batch of {batch_size} with {n_ins} images of a class takes {self.ncls_per_batch} classes, "
                f"but the images come from {len(self.labels)}."
            )
        self._count()

    def _draw_epoch(self) -> list[int]:
        groups = {label: self._draw_groups(indices) for label, indices in self._indices.items()}
        labels = list(self.labels)
        epoch: list[int] = []
        while len(labels) >= self.ncls_per_batch:
            for label in random.sample(labels, self.ncls_per_batch):
                epoch.extend(groups[label].pop(0))
                if not groups[label]:
                    labels.remove(label)
        return epoch

    def _draw_groups(self, indices: list[int]) -> list[list[int]]:
        """Shuffle the images of one class into groups of `n_ins`."""
        if len(indices) < self.n_ins:
            indices = np.random.choice(indices, size=self.n_ins, replace=True).tolist()
        else:
            indices = list(indices)
        random.shuffle(indices)
        full = len(indices) - len(indices) % self.n_ins
        return [indices[start : start + self.n_ins] for start in range(0, full, self.n_ins)]


_SizedSampler = Union[RandomSampler, SequentialSampler, _EpochSampler]


def _indices_by(key: Callable[[Datum], int], data_source: Sequence[Datum]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[key(item)].append(index)
    return dict(groups)


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> _SizedSampler:
    """Build a sampler by its name.

    Args:
        sampler_type: RandomSampler, SequentialSampler, RandomDomainSampler, SeqDomainSampler or RandomClassSampler.
        cfg: not read; callers pass it.
        data_source: images.
        batch_size: images in a batch.
        n_domain: domains in a batch of RandomDomainSampler.
        n_ins: images of one class in a batch of RandomClassSampler.

    Raises:
        ValueError: the name is none of these, there are no images, or they do not make such batches.
    """
    images = () if data_source is None else data_source
    builders: dict[str, Callable[[], _SizedSampler]] = {
        "RandomSampler": lambda: RandomSampler(images),
        "SequentialSampler": lambda: SequentialSampler(images),
        "RandomDomainSampler": lambda: RandomDomainSampler(images, batch_size, n_domain),
        "SeqDomainSampler": lambda: SeqDomainSampler(images, batch_size),
        "RandomClassSampler": lambda: RandomClassSampler(images, batch_size, n_ins),
    }
    if sampler_type not in builders:
        raise ValueError(f"Unknown sampler '{sampler_type}'; allowed are {list(builders)}.")
    if len(images) == 0:
        raise ValueError(f"{sampler_type} has no images to choose from: the list is empty.")
    return builders[sampler_type]()
