"""From results to the cells of a table: means over seeds, averages over data sets, the paper's numbers, the verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import NamedTuple

from tools.common.layout import trains_nothing
from tools.data.sources import SOURCES
from tools.reproduce.results import Result
from tools.results import published
from tools.results.tables import harmonic_mean
from tools.sweep.protocols import Step

HALF_A_DIGIT = 0.005  # the paper prints two decimals
SOURCE = "imagenet"  # of Tables 2 and 3


class Cell(NamedTuple):
    """A number beside the paper's.

    Attributes:
        ours: mean over seeds, in percent; None where there is no result.
        std: standard deviation over seeds, of a sample; None of one seed, or where nothing is trained.
        seeds: how many it is of.
        paper: the paper's; None where it prints none.
        judged: whether it may be compared at all.
    """

    ours: float | None = None
    std: float | None = None
    seeds: int = 0
    paper: float | None = None
    judged: bool = True

    @property
    def difference(self) -> float | None:
        return None if self.ours is None or self.paper is None else self.ours - self.paper

    @property
    def within(self) -> bool | None:
        """Whether the paper's number lies within two standard deviations, and its rounding; None: cannot be judged."""
        if self.difference is None or self.std is None or not self.judged:
            return None
        return abs(self.difference) <= 2 * self.std + HALF_A_DIGIT + 1e-9


@dataclass(frozen=True)
class TrainerTable:
    """One trainer in one table.

    Attributes:
        protocol: a key of `published.METRICS`.
        trainer: its name.
        datasets: the rows, in the paper's order.
        cells: by data set and metric.
        averages: by metric, over `averaged`.
        averaged: the data sets that have all seeds and are comparable, without the source.
        full: of how many data sets the paper's average is.
    """

    protocol: str
    trainer: str
    datasets: Sequence[str]
    cells: Mapping[tuple[str, str], Cell]
    averages: Mapping[str, Cell]
    averaged: Sequence[str]
    full: int

    @property
    def metrics(self) -> tuple[str, ...]:
        return published.METRICS[self.protocol]


Accuracies = Mapping[str, Mapping[int, float]]  # by metric, and by seed


def metric_of(step: Step) -> str:
    """The metric that a run's accuracy is of."""
    return {"base": "Base", "new": "New", "all": "Accuracy"}[step.place.classes]


def trainer_table(
    protocol: str,
    trainer: str,
    results: Iterable[tuple[Step, Result]],
    seeds: Sequence[int],
    incomparable: Collection[str] = (),
) -> TrainerTable:
    """Set one trainer's results beside the paper's.

    A mean is over the seeds that are there; of base to new over those with both halves. An average is over the data
    sets that have all seeds, and the paper's beside it over the same ones.

    Args:
        protocol: a key of `published.METRICS`.
        trainer: its name.
        results: all its runs in the protocol.
        seeds: that were asked for.
        incomparable: data sets that are not the published ones: they are in no average, and not judged.
    """
    metrics = [metric for metric in published.METRICS[protocol] if metric != "HM"]
    accuracies: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: {metric: {} for metric in metrics})
    rows = set()
    for step, result in results:
        rows.add(step.dataset)
        if result.accuracy is not None:
            accuracies[step.dataset][metric_of(step)][step.place.seed] = result.accuracy
    datasets = published.in_order(rows)
    paper = published.numbers(protocol).get(trainer, {})
    known = not trains_nothing(trainer)
    cells = {}
    for dataset in datasets:
        found = _cells(accuracies[dataset], paper.get(dataset, {}), known, dataset not in incomparable)
        cells.update({(dataset, metric): cell for metric, cell in found.items()})
    averaged = [
        dataset
        for dataset in datasets
        if dataset in published.averaged(protocol)
        and dataset not in incomparable
        and all(set(by_seed) == set(seeds) for by_seed in accuracies[dataset].values())
    ]
    averages: dict[str, Cell] = {}
    if len(averaged) > 1:
        by_seed = {
            metric: {seed: mean(accuracies[dataset][metric][seed] for dataset in averaged) for seed in seeds}
            for metric in metrics
        }
        averages = _cells(by_seed, _papers_average(protocol, paper, averaged), known, True)
    return TrainerTable(protocol, trainer, datasets, cells, averages, averaged, len(published.averaged(protocol)))


def _cells(accuracies: Accuracies, paper: Mapping[str, float], with_deviation: bool, judged: bool) -> dict[str, Cell]:
    """The cells of one row by metric."""
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in accuracies.values())))
    values = {metric: [by_seed[seed] for seed in seeds] for metric, by_seed in accuracies.items()}
    means = {metric: mean(numbers) for metric, numbers in values.items() if numbers}
    if "Base" in values:
        values["HM"] = [harmonic_mean(base, new) for base, new in zip(values["Base"], values["New"])]
        if means:
            means["HM"] = harmonic_mean(means["Base"], means["New"])
    return {
        metric: Cell(
            means.get(metric),
            stdev(numbers) if with_deviation and len(numbers) > 1 else None,
            len(seeds),
            paper.get(metric),
            judged,
        )
        for metric, numbers in values.items()
    }


def _papers_average(
    protocol: str, paper: Mapping[str, Mapping[str, float]], averaged: Sequence[str]
) -> Mapping[str, float]:
    """The paper's average over data sets: as printed over all, else of its numbers for these; empty if it has none."""
    if set(averaged) == published.averaged(protocol):
        return paper.get(published.AVERAGE, {})
    if not set(averaged) <= paper.keys():
        return {}
    averages = {metric: mean(paper[dataset][metric] for dataset in averaged) for metric in published.METRICS[protocol]}
    if "HM" in averages:
        averages["HM"] = harmonic_mean(averages["Base"], averages["New"])
    return averages


def unlike_images(results: Iterable[tuple[Step, Result]]) -> dict[str, str]:
    """The data sets whose tested images are not as many as published, and how many they are, by the results."""
    tested: dict[tuple[str, str, int, str], dict[str, int]] = defaultdict(dict)
    for step, result in results:
        if result.accuracy is not None:
            place = step.place
            kind = "all" if place.classes == "all" else "halves"
            tested[step.dataset, place.trainer, place.seed, kind][place.classes] = result.images
    unlike = {}
    for (dataset, _, _, kind), images in tested.items():
        wanted = SOURCES[dataset].published.test
        if len(images) == {"all": 1, "halves": 2}[kind] and sum(images.values()) != wanted:
            unlike[dataset] = f"{sum(images.values()):,} images were tested where {wanted:,} are published"
    return unlike
