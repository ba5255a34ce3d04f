"""What the study has measured: figures of methods by seed, their differences with intervals, and what is missing.

Legend: S data sets, K seeds, V values of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np

from tools.study.intervals import Interval, Statistic, harmonic_means, paired_interval, shown
from tools.study.methods import Method
from tools.study.plan import Plan
from tools.study.results import Figures

NOTHING = "—"
# The folders and figures of a method's values on a data set with a seed
Where = Callable[[Method, str, int], Sequence[tuple[Path, str]]]


def value(index: int) -> Statistic:
    """One of the values."""
    return lambda means: means[..., index]


def gap(index: int, other: int) -> Statistic:
    """One of the values less another one."""
    return lambda means: means[..., index] - means[..., other]


BASE, NEW = value(0), value(1)
HM: Statistic = harmonic_means


class Difference(NamedTuple):
    """One method's statistic less another's.

    Attributes:
        estimate: None where no seed is complete for both methods.
        interval: None below two such seeds.
        seeds: that both methods have.
    """

    estimate: float | None
    interval: Interval | None
    seeds: tuple[int, ...]

    @property
    def is_real(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.interval is not None and self.interval.is_real

    def __str__(self) -> str:
        if self.estimate is None:
            return NOTHING
        if self.interval is None:
            return shown(self.estimate, "+.2f")
        return f"**{self.interval}**" if self.is_real else str(self.interval)


@dataclass(frozen=True)
class Measured:
    """The figures of a plan's runs, as far as they are there.

    A mean is of the seeds that are complete: for which every run that it is made of is there. A difference is of the
    seeds that are complete for both methods.

    Attributes:
        plan: which runs there are to be.
        figures: of those that are there.
    """

    plan: Plan
    figures: Figures

    def figure(self, folder: Path, name: str) -> float | None:
        """A figure of a run; None if it is not there."""
        return self.figures.get(folder.relative_to(self.plan.output).as_posix(), {}).get(name)

    def by_seed(self, method: Method, datasets: Iterable[str], where: Where) -> dict[int, np.ndarray]:
        """The values `(S, V)` of each seed that is complete.

        A method that does not depend on the seed has the same with each.
        """
        datasets, found = list(datasets), {}
        for seed in self.plan.seeds:
            values = [[self.figure(*each) for each in where(method, dataset, seed)] for dataset in datasets]
            if not any(number is None for row in values for number in row):
                found[seed] = np.array(values, dtype=float)
        return found

    def missing(self, method: Method, datasets: Iterable[str], where: Where) -> tuple[int, ...]:
        """The seeds that are not complete."""
        found = self.by_seed(method, datasets, where)
        return tuple(seed for seed in self.plan.seeds if seed not in found)

    def difference(
        self,
        one: Method,
        other: Method,
        datasets: Iterable[str],
        where: Where,
        statistic: Statistic,
        one_training: bool = False,
    ) -> Difference:
        """The difference of a statistic of the means over data sets and seeds, paired over both.

        Args:
            one_training: whether a seed's values on all data sets are of one training, so that they vary together.
        """
        datasets = list(datasets)
        first, second = (self.by_seed(method, datasets, where) for method in (one, other))
        seeds = tuple(sorted(first.keys() & second.keys()))
        if not seeds:
            return Difference(None, None, ())
        values, others = (np.stack([found[seed] for seed in seeds], axis=1) for found in (first, second))  # (S, K, V)
        if one_training:
            values, others = (found.mean(axis=0, keepdims=True) for found in (values, others))
        if len(seeds) > 1:
            interval = paired_interval(values, others, statistic)
            return Difference(interval.estimate, interval, seeds)
        means = [found.mean(axis=(0, 1)) for found in (values, others)]
        return Difference(float(statistic(means[0]) - statistic(means[1])), None, seeds)

    def show(self, method: Method, datasets: Iterable[str], where: Where, statistic: Statistic) -> str:
        """Mean and standard deviation over the seeds of a statistic of the means over data sets; a dash if none."""
        found = self.by_seed(method, datasets, where)
        numbers = [float(statistic(values.mean(axis=0))) for values in found.values()]
        if not numbers:
            return NOTHING
        return shown(mean(numbers)) + (f" ± {shown(stdev(numbers))}" if method.seeded and len(numbers) > 1 else "")

    def show_mean(
        self, method: Method, datasets: Iterable[str], where: Where, statistic: Statistic, decimals: int = 2
    ) -> str:
        """A statistic of the means over data sets and seeds; a dash if no seed is complete."""
        found = self.by_seed(method, datasets, where)
        if not found:
            return NOTHING
        return shown(float(statistic(np.mean(list(found.values()), axis=(0, 1)))), f".{decimals}f")

    def count(self, method: Method, datasets: Iterable[str], where: Where) -> str:
        """How many seeds are complete; nothing where results do not depend on the seed."""
        found = self.by_seed(method, datasets, where)
        return (str(len(found)) if found else NOTHING) if method.seeded or not found else ""

    # Where values are

    def halves(self, figure: str = "accuracy") -> Where:
        """A figure on base and on new classes."""

        def where(method: Method, dataset: str, seed: int) -> list[tuple[Path, str]]:
            return [(self.plan.half(method, dataset, seed, part), figure) for part in ("base", "new")]

        return where

    def half(self, part: str, *figures: str) -> Where:
        """Figures on base or on new classes."""
        return lambda method, dataset, seed: [(self.plan.half(method, dataset, seed, part), name) for name in figures]

    def trained_on(self, *figures: str) -> Where:
        """Figures of runs on all classes of a set."""
        return lambda method, dataset, seed: [(self.plan.trained_on(method, dataset, seed), name) for name in figures]

    def transferred(self, *figures: str) -> Where:
        """Figures on a set of what was trained on the source; by default its accuracy."""
        names = figures or ("accuracy",)
        return lambda method, dataset, seed: [(self.plan.tested_on(method, dataset, seed), name) for name in names]

    def calibrated(self, kinds: Sequence[str], *figures: str) -> Where:
        """Figures of tests with calibration, each of all kinds (see `Plan.calibrated`)."""

        def where(method: Method, dataset: str, seed: int) -> list[tuple[Path, str]]:
            folders = [self.plan.calibrated(kind, method, dataset, seed) for kind in kinds]
            return [(folder, figure) for figure in figures for folder in folders]

        return where


def tell_missing(lacking: dict[str, tuple[int, ...]], seeds: tuple[int, ...]) -> str:
    """A line that says which seeds are missing, each with the rows that lack it; empty if none is.

    Args:
        lacking: the seeds that are not complete, by the method's title.
        seeds: of the plan.
    """
    of_all = set(seeds).intersection(*map(set, lacking.values())) if lacking else set()
    rows: dict[tuple[int, ...], list[str]] = {tuple(sorted(of_all)): ["all rows"]} if of_all else {}
    for title, own in lacking.items():
        if left := tuple(seed for seed in own if seed not in of_all):
            rows.setdefault(left, []).append(title)
    told = [f"{_seeds_name(found, seeds)}: {' · '.join(titles)}" for found, titles in rows.items()]
    return f"Missing: {'; '.join(told)}." if told else ""


def _seeds_name(found: Sequence[int], seeds: tuple[int, ...]) -> str:
    if len(found) == len(seeds):
        return "all seeds"
    return f"seed{'s' * (len(found) > 1)} {', '.join(map(str, found))}"
