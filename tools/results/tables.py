"""From records of runs to the figures of a table: means over seeds, averages, what is missing, the paper's numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from statistics import mean, stdev
from typing import NamedTuple

from tools.results import published
from tools.results.runs import NEAR, Run

OPEN_SET_PARTS = ("near", "far")

# Figures that have a harmonic mean of base and new
ACCURACIES = ("accuracy", "accuracy_calibrated")
# What a metric's result is called in sentences; in the few-shot protocol it is that with so many shots
_RESULT = {"Base": "base result", "New": "new result", "Accuracy": "result"}
# How the names of figures in `results.json` begin of which more is better, and of which less is
_HIGHER = ("accuracy", "macro_f1", "auroc", "aupr", "acc80")
_LOWER = ("error_rate", "ece", "nll", "brier", "aurc", "eaurc", "fpr95")


class SeedMean(NamedTuple):
    """A cell: mean, standard deviation if there is one, the seeds, and the value of each if there is.

    Accuracies are in percent.
    """

    mean: float
    std: float | None
    seeds: tuple[int, ...]
    by_seed: dict[int, float]


class Column(NamedTuple):
    """A column group: all runs of a trainer under a config.

    Attributes:
        trainer: name of the trainer.
        config: name of the config; of several that are joined, the names with ", " between.
        shots: training images per class; in the few-shot protocol None, as each stands in a column of its own.
        title: the trainer, with config and shots where it has several of these.
        seeds: the seeds that each of its cells is to have.
        metrics: names of its columns.
        cells: (data set, metric) -> seed mean; none where there is no result.
        averages: metric -> seed mean, over `Table.averaged`; empty if it lacks one of these data sets.
        backbones: the CLIPs of its runs with a result, by name or path; "" for those that do not tell.
    """

    trainer: str
    config: str
    shots: int | None
    title: str
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    cells: dict[tuple[str, str], SeedMean]
    averages: dict[str, SeedMean]
    backbones: tuple[str, ...]


class Table(NamedTuple):
    """A table before it is printed.

    Attributes:
        protocol: one of `PROTOCOLS`.
        columns: the column groups.
        datasets: the rows, in the paper's order.
        source: the row that is trained on, and so no part of the average; empty if there is none.
        averaged: the data sets of the average; empty if there is no average.
        missing: a sentence for whatever is not there.
        figure: what it shows of each run, by its name in `results.json`; of an open set also a name without its score,
            for which all scores have columns.
        part: of an open set near or far, else empty. Rows of far are `<data set>/<other data set>`.
    """

    protocol: str
    columns: list[Column]
    datasets: list[str]
    source: str
    averaged: list[str]
    missing: list[str]
    figure: str = "accuracy"
    part: str = ""


def direction(figure: str) -> str:
    """Which values of a figure are better: "higher", "lower", or "" where neither is said."""
    if figure.startswith(_HIGHER) or figure.endswith("_accuracy"):
        return "higher"
    return "lower" if figure.startswith(_LOWER) else ""


def best_of(values: Iterable[float | None], figure: str) -> list[bool]:
    """Which of the values are the best by a figure's direction, as they are printed, with two decimals.

    None is where it has no direction, or where nothing is worse. None of the values stands for one that is not there.
    """
    shown = [None if value is None else round(value, 2) for value in values]
    there = {value for value in shown if value is not None}
    better = direction(figure)
    if len(there) < 2 or not better:
        return [False] * len(shown)
    best = max(there) if better == "higher" else min(there)
    return [value == best for value in shown]


def open_set_part(runs: Iterable[Run], part: str, figure: str) -> list[Run]:
    """The runs of one part of an open set, with what `build_table` takes for data set and part.

    Args:
        runs: of the protocol open_set.
        part: near, images of new classes; or far, images of other data sets.
        figure: as of `Table`. A run stands there once for each score that it has.

    Returns:
        Runs whose `dataset` is the row of the table, and whose `part` is the score, or empty.

    Raises:
        ValueError: no such part.
    """
    if part not in OPEN_SET_PARTS:
        raise ValueError(f"the part of an open set must be one of {', '.join(OPEN_SET_PARTS)}, got {part!r}")
    chosen = []
    for run in runs:
        if (run.part == NEAR) == (part == "near"):
            row = run.dataset if part == "near" else f"{run.dataset}/{run.part}"
            scores = [name[len(figure) + 1 :] for name in run.metrics if name.startswith(f"{figure}_")]
            if figure in run.metrics or not scores:
                chosen.append(replace(run, dataset=row, part=""))
            else:
                for score in scores:
                    chosen.append(replace(run, dataset=row, part=score, accuracy=run.metrics[f"{figure}_{score}"]))
    return chosen


def harmonic_mean(a: float, b: float) -> float:
    """Harmonic mean of two accuracies, 0 if one of them is."""
    return 2 * a * b / (a + b) if a and b else 0.0


def build_table(
    runs: Iterable[Run],
    *,
    join_configs: bool = False,
    seeds: Iterable[int] = (),
    figure: str = "accuracy",
    part: str = "",
    beside: Iterable[tuple[str, str]] = (),
) -> Table:
    """The table of the runs of one protocol.

    A mean is over the seeds that are there; in base-to-new over those that have both base and new accuracy.

    Args:
        runs: from `tools.results.find_runs`, the unfinished ones too, so that they are named.
        join_configs: whether a trainer's runs under all its configs stand in one column group, as in protocols that
            change the config with data set or shots.
        seeds: the seeds that each cell is to have; by default those that its column group has anywhere.
        figure: what to show of each run, by its name in `results.json`. Only of `ACCURACIES` there is a harmonic
            mean.
        part: near or far of runs from `open_set_part`, which has chosen what to show where it has given them scores.
        beside: trainers and configs of tables that stand beside, in which a system has the same title.

    Raises:
        ValueError: there are no runs, none in xd and dg is a test on another data set, configs to be joined have
            results for the same cell, or no run has the figure.
    """
    runs = [_showing(run, figure) for run in runs]
    if all(run.part == "source" for run in runs):
        raise ValueError(f"a table needs runs that are more than training on a source, got {len(runs)} that are not")
    if figure != "accuracy" and all(run.accuracy is None for run in runs):
        known = sorted({name for run in runs for name in run.metrics})
        raise ValueError(f"no run has the figure {figure}; there are {', '.join(known) or 'none'}")
    protocol, source = runs[0].protocol, runs[0].source
    groups = defaultdict(list)
    for run in runs:
        shots = None if protocol == "fewshot" else run.shots
        groups[run.trainer, "" if join_configs else run.config, shots].append(run)
    keys = sorted(groups, key=_place_in_table)
    configs = defaultdict(set)
    for trainer, config in () if join_configs else beside:
        configs[trainer].add(config)
    untested = [key for key in keys if all(run.part == "source" for run in groups[key])]
    without = [key for key in keys if all(run.problem.endswith(_without(figure)) for run in groups[key])]
    keys = [key for key in keys if key not in untested and key not in without]
    shown = {run.dataset for key in keys for run in groups[key]}
    datasets = published.in_order(shown | ({source} - {""}))
    columns, missing = [], []
    for key in keys:
        members = groups[key]
        column = Column(
            trainer=key[0],
            config=", ".join(sorted({run.config for run in members})),
            shots=key[2],
            title=_title(key, keys, configs[key[0]]),
            seeds=tuple(sorted(set(seeds) or {run.seed for run in members})),
            metrics=_metrics(protocol, members, figure),
            cells={},
            averages={},
            backbones=tuple(sorted({run.backbone for run in members if run.accuracy is not None})),
        )
        columns.append(column)
        missing += _fill(column, members, datasets)
    if untested:
        titles = ", ".join(_title(key, groups, configs[key[0]]) for key in untested)
        missing.append(f"tests on other data sets of what is trained on {published.display_name(source)}: {titles}")
    if without:
        titles = ", ".join(_title(key, groups, configs[key[0]]) for key in without)
        missing.append(f"{titles}: no run has {figure}")
    averaged = _average(columns, [dataset for dataset in datasets if dataset != source])
    return Table(protocol, columns, datasets, source, averaged, missing, figure, part)


def _showing(run: Run, figure: str) -> Run:
    """A run with another figure in the place of its accuracy, as if it had no result where it has no such figure."""
    if figure == "accuracy" or run.accuracy is None or (run.protocol == "open_set" and run.part):
        return run
    value = run.metrics.get(figure)
    return replace(run, accuracy=value, problem="" if value is not None else f"{run.path}{_without(figure)}")


def _without(figure: str) -> str:
    """The end of a run's problem that has a result, but not this figure."""
    return f" has no {figure}"


def _place_in_table(key: tuple) -> tuple:
    """Zero-shot CLIP first, then the paper's other trainers, then the rest, and CDC last."""
    trainer, config, shots = key
    named = published.TRAINERS.index(trainer) if trainer in published.TRAINERS else len(published.TRAINERS)
    return (trainer == "CDC", named, trainer, config, shots or 0)


def _title(key: tuple, keys: Iterable[tuple], more_configs: set[str]) -> str:
    trainer, config, shots = key
    configs, numbers = (set(values) for values in zip(*(other[1:] for other in keys if other[0] == trainer)))
    return " ".join([trainer] + [config] * (len(configs | more_configs) > 1) + [shots_name(shots)] * (len(numbers) > 1))


def shots_name(shots: int) -> str:
    """A number of shots in words, which in the few-shot protocol is the name of a metric."""
    return {-1: "all shots", 1: "1 shot"}.get(shots, f"{shots} shots")


def shots_of(metric: str) -> int:
    """The number of shots that a few-shot metric is named for; -1 for all images."""
    number = metric.split()[0]
    return -1 if number == "all" else int(number)


def _metrics(protocol: str, runs: list[Run], figure: str) -> tuple[str, ...]:
    if protocol == "base2new":
        return ("Base", "New", "HM") if figure in ACCURACIES else ("Base", "New")
    if protocol == "fewshot":
        numbers = sorted({run.shots for run in runs}, key=lambda shots: (shots == -1, shots))
        return tuple(shots_name(shots) for shots in numbers)
    scores = dict.fromkeys(run.part for run in runs if protocol == "open_set" and run.part)
    return tuple(scores) or ("Accuracy",)


def _metric(run: Run) -> str:
    """The metric that a run's accuracy, or what is shown in its place, is of."""
    if run.protocol == "base2new":
        return run.part.capitalize()
    if run.protocol == "open_set" and run.part:
        return run.part
    return shots_name(run.shots) if run.protocol == "fewshot" else "Accuracy"


def _fill(column: Column, runs: list[Run], datasets: list[str]) -> list[str]:
    """Fill a column group's cells, and tell in sentences what they lack."""
    by_dataset = defaultdict(list)
    for run in runs:
        by_dataset[run.dataset].append(run)
    nowhere = ", ".join(published.display_name(dataset) for dataset in datasets if dataset not in by_dataset)
    missing = [f"{column.title}: no run on {nowhere}"] if nowhere else []
    for dataset in datasets:
        if dataset in by_dataset:
            accuracies = _accuracies(column, by_dataset[dataset])
            for metric, seed_mean in _seed_means(accuracies, "HM" in column.metrics).items():
                column.cells[dataset, metric] = seed_mean
            missing += _lacking(column, accuracies, by_dataset[dataset])
    return missing


def _accuracies(column: Column, runs: list[Run]) -> dict[str, dict[int, float]]:
    """The accuracies on one data set by metric, of those that are measured, and seed."""
    taken: dict[str, dict[int, Run]] = {metric: {} for metric in column.metrics if metric != "HM"}
    for run in runs:
        if run.accuracy is not None:
            other = taken[_metric(run)].setdefault(run.seed, run)
            if other is not run:
                raise ValueError(
                    f"the configs {other.config} and {run.config} of {column.trainer} cannot be joined: both have "
                    f"results on {run.dataset} with seed {run.seed}"
                )
    return {
        metric: {seed: run.accuracy for seed, run in by_seed.items() if run.accuracy is not None}
        for metric, by_seed in taken.items()
    }


def _seed_means(accuracies: dict[str, dict[int, float]], harmonic: bool) -> dict[str, SeedMean]:
    """The means of one data set by metric, with their harmonic mean or without; none of a metric without results."""
    if "Base" in accuracies:
        both = accuracies["Base"].keys() & accuracies["New"].keys()
        accuracies = {metric: {seed: by_seed[seed] for seed in both} for metric, by_seed in accuracies.items()}
    means = {metric: _seed_mean(by_seed) for metric, by_seed in accuracies.items() if by_seed}
    return _with_harmonic_mean(means, harmonic)


def _seed_mean(by_seed: dict[int, float]) -> SeedMean:
    by_seed = dict(sorted(by_seed.items()))
    numbers = list(by_seed.values())
    return SeedMean(mean(numbers), stdev(numbers) if len(numbers) > 1 else None, tuple(by_seed), by_seed)


def _with_harmonic_mean(means: dict[str, SeedMean], harmonic: bool) -> dict[str, SeedMean]:
    if "Base" in means and harmonic:
        base, new = means["Base"], means["New"]
        means["HM"] = SeedMean(harmonic_mean(base.mean, new.mean), None, base.seeds, {})
    return means


def _lacking(column: Column, accuracies: dict[str, dict[int, float]], runs: list[Run]) -> list[str]:
    """What a column group lacks on one data set; seeds that lack the same in one sentence."""
    reasons = {(_metric(run), run.seed): run.problem for run in runs if run.accuracy is None}
    seeds_by_lack = defaultdict(list)
    for seed in column.seeds:
        lack = tuple(metric for metric in accuracies if seed not in accuracies[metric])
        if lack:
            seeds_by_lack[lack].append(seed)
    sentences = []
    for lack, seeds in seeds_by_lack.items():
        if all(metric in _RESULT for metric in lack):
            results = " and ".join(f"no {_RESULT[metric]}" for metric in lack)
        else:
            results = f"no result with {', '.join(lack)}"
        named = dict.fromkeys([*lack, "Accuracy"])  # a run without any result has no score
        why = [reasons[metric, seed] for seed in seeds for metric in named if (metric, seed) in reasons]
        where = f"{column.title}, {published.display_name(runs[0].dataset)}, {seeds_name(seeds)}"
        sentences.append(f"{where}: {results}" + (f" ({'; '.join(why)})" if why else ""))
    return sentences


def seeds_name(seeds: Iterable[int]) -> str:
    """Seeds in words."""
    numbers = [str(seed) for seed in seeds]
    return f"seed{'s' * (len(numbers) > 1)} {', '.join(numbers)}"


def some_lack_averages(table: Table) -> bool:
    """Whether columns that have results have no average, in a table that has averages."""
    return any(column.cells and not column.averages for column in table.columns)


def who_has_averages(table: Table, column: str) -> str:
    """Whose the averages of a table are, in words: "every method has", or "2 of 3 methods have".

    Args:
        table: that has averages.
        column: what one of its columns is called.
    """
    averages, there = (sum(map(bool, parts)) for parts in zip(*((own.averages, own.cells) for own in table.columns)))
    return f"every {column} has" if averages == there else f"{averages} of {there} {column}s have"


def _average(columns: list[Column], datasets: list[str]) -> list[str]:
    """Fill the averages over the data sets that every column has, and return these; none of fewer than two.

    Where those are fewer than two, it is over the most that every trainer has in one column of its own, and columns
    that lack one have no average. A column without any result has no say in this. An average has a standard deviation,
    that of the seeds' averages, where all its means are over the same seeds.
    """
    whole = {
        index: frozenset(name for name in datasets if all((name, metric) in column.cells for metric in column.metrics))
        for index, column in enumerate(columns)
        if column.cells
    }
    if not whole:
        return []
    common = frozenset(datasets).intersection(*whole.values())
    if len(common) < 2:
        common = _most_of_trainers((columns[index].trainer, own) for index, own in whole.items())
    averaged = [dataset for dataset in datasets if dataset in common]
    if len(averaged) < 2:
        return []
    for column in (columns[index] for index, own in whole.items() if common <= own):
        averages = {}
        for metric in column.metrics:
            if metric != "HM":
                means = [column.cells[dataset, metric] for dataset in averaged]
                if len({cell.seeds for cell in means}) == 1:
                    seeds = means[0].seeds
                    averages[metric] = _seed_mean({seed: mean(f.by_seed[seed] for f in means) for seed in seeds})
                else:
                    averages[metric] = SeedMean(mean(cell.mean for cell in means), None, (), {})
        column.averages.update(_with_harmonic_mean(averages, "HM" in column.metrics))
    return averaged


def _most_of_trainers(columns: Iterable[tuple[str, frozenset[str]]]) -> frozenset[str]:
    """The most data sets that every trainer has in one column; of several such, those that most columns have.

    Args:
        columns: trainer and data sets of each.
    """
    columns = list(columns)
    by_trainer = defaultdict(set)
    for trainer, own in columns:
        by_trainer[trainer].add(own)
    first, *others = by_trainer.values()
    found = set(first)
    for sets in others:
        found = {one & other for one in found for other in sets}
    return max(found, key=lambda names: (len(names), sum(names <= own for _, own in columns), sorted(names)))


def paper_numbers(table: Table) -> tuple[dict[tuple[int, str, str], float], list[str]]:
    """The paper's numbers for the cells of a table, where all runs of a column group are of the paper's CLIP.

    Its average stands beside an average over the same data sets; over a part of these, the average of its numbers.

    Returns:
        (number of the column group, data set or "average", metric) -> percent; and a sentence for what the paper does
        not have.

    Raises:
        ValueError: it has no table of this protocol, or not of this figure.
    """
    if table.figure != "accuracy":
        raise ValueError(f"the paper has accuracies alone, got {table.figure}")
    tables = published.numbers(table.protocol)
    numbers, notes = {}, []
    for index, column in enumerate(table.columns):
        if table.source not in ("", "imagenet"):
            notes.append(f"trains on ImageNet, not on {table.source}")
            continue
        rows = tables.get(column.trainer, {})
        average_alone = bool(
            list(rows) == [published.AVERAGE]
            and column.averages
            and set(table.averaged) == published.averaged(table.protocol)
        )
        if column.shots not in (0, published.SHOTS) or (rows.keys().isdisjoint(table.datasets) and not average_alone):
            notes.append(f"has no such numbers of {column.title}")
            continue
        others = [name or "a CLIP that is not told" for name in column.backbones if not published.is_backbone(name)]
        if others:
            notes.append(f"is of {published.BACKBONE}, and {column.title} has runs of {', '.join(others)}")
            continue
        for dataset in table.datasets:
            for metric in column.metrics:
                if dataset in rows:
                    numbers[index, dataset, metric] = rows[dataset][metric]
        own = {name for name in rows if name not in ("average", table.source)}
        if average_alone:
            own = set(table.averaged)
        if column.averages and own.issuperset(table.averaged):
            averages = rows["average"]
            if own != set(table.averaged):
                averages = {
                    metric: mean(rows[dataset][metric] for dataset in table.averaged) for metric in column.metrics
                }
                if "HM" in averages:
                    averages["HM"] = harmonic_mean(averages["Base"], averages["New"])
                notes.append("averages beside are of its numbers for the same data sets")
            numbers.update({(index, "average", metric): averages[metric] for metric in column.averages})
    return numbers, list(dict.fromkeys(notes))
