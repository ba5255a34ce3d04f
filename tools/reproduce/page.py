"""The page of what came out, as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from storage.safe_text import escaped
from tools.data.check import Report
from tools.reproduce.numbers import SOURCE, Cell, TrainerTable, metric_of, trainer_table, unlike_images
from tools.reproduce.plan import PaperPlan
from tools.reproduce.results import NOT_RUN, Result
from tools.reproduce.there import Weights
from tools.results import published
from tools.results.tables import seeds_name
from tools.sweep.protocols import Step

NOTHING = "–"
TITLES = {
    "base2new": "Table 1: base to new",
    "xd": "Table 2: trained on ImageNet, tested on other data sets",
    "dg": "Table 3: trained on ImageNet, tested on its variants",
}
READING = """\
- **Ours**: mean ± standard deviation (that of a sample, n - 1) over the seeds, in percent. HM is the harmonic mean of
  the two means, as in the paper, and its deviation that of the seeds' own harmonic means.
- **paper**: {source}. A difference is taken before rounding.
- **within**: whether the paper's number lies within two standard deviations of ours, and half a digit as it is rounded.
  The paper prints no deviations of its own, and ours is of few seeds, so such a verdict is rough.
  ?: cannot be judged, as there is one seed alone, or nothing is trained. –: there is nothing to compare.
- **average**: over the data sets that have a result of every seed, and the paper's over the same ones. Where these are
  not all, its row says of how many, and such averages of two trainers may be of different data sets."""


@dataclass(frozen=True)
class Found:
    """All that the page tells of.

    Attributes:
        plan: the runs of the tables.
        results: of each of them.
        reports: of each data set.
        weights: the CLIPs that the configs name.
        papers_digest: of OpenAI's ViT-B/16; empty if no file of it is at hand.
        origin: its `command` and `date`.
    """

    plan: PaperPlan
    results: Mapping[Step, Result]
    reports: Mapping[str, Report]
    weights: Sequence[Weights]
    papers_digest: str
    origin: Mapping[str, str | None]

    def of(self, protocol: str, trainer: str) -> list[tuple[Step, Result]]:
        """One trainer's runs in a protocol, with their results."""
        steps = self.plan.steps[protocol]
        return [(step, self.results[step]) for step in steps if step.place.trainer == trainer]

    @property
    def counted(self) -> list[tuple[Step, Result]]:
        """The runs that have a result, each once."""
        return [
            (step, self.results[step]) for step in self.plan.every.values() if self.results[step].accuracy is not None
        ]

    def incomparable(self) -> dict[str, str]:
        """The data sets that are not the published ones, and how one sees it: by the data, or by the results."""
        unlike = {}
        for name, report in self.reports.items():
            if report.usable and not report.as_published:
                lines = [line for line in report.lines if line.startswith(("split ", "differs "))]
                unlike[name] = lines[-1].partition(" ")[2].strip()
        return {**unlike_images(self.counted), **unlike}

    def doubts(self) -> tuple[list[str], list[str]]:
        """Why the numbers are no results of the paper's model on its data, and why that cannot be told."""
        counted = self.counted
        against, unclear = [], []
        digests = {result.digest for _, result in counted}
        others = [known for known in self.weights if not known.is_the_papers]
        wanted = f"OpenAI's {published.BACKBONE}"
        if self.papers_digest and digests:
            wrong = sum(result.digest != self.papers_digest for _, result in counted)
            if wrong:
                against.append(f"{wrong} of {len(counted)} runs are of other weights of CLIP than {wanted}.")
        elif len(digests) > 1:
            against.append(f"The runs are of {len(digests)} CLIPs with other weights each.")
        elif any(known.path for known in others):
            files = ", ".join(f"`{known.path}`" for known in others if known.path)
            against.append(f"Their CLIP is {files}, which is not {wanted} by its SHA-256.")
        elif others:
            names = ", ".join(known.name for known in others)
            unclear.append(f"No file of {wanted} is at hand to hold the weights ({names}) against.")
        datasets = {step.dataset for step, _ in counted} or self.reports.keys()
        unlike = self.incomparable().keys() & datasets
        if unlike and unlike == datasets:
            which = f"the {len(datasets)} data sets" if len(datasets) > 1 else "its data sets"
            against.append(f"None of {which} has the published images, by their numbers.")
        return against, unclear


def render_page(found: Found) -> str:
    """The page's Markdown."""
    plan = found.plan
    against, unclear = found.doubts()
    incomparable = {} if against else found.incomparable()
    tables = [
        trainer_table(protocol, trainer, found.of(protocol, trainer), plan.seeds, incomparable)
        for protocol in plan.steps
        for trainer in plan.trainers
    ]
    parts = ["# Tables of the CDC paper, run again", *_head(found, against, unclear, incomparable)]
    parts += ["## In short", _summary(tables)]
    for protocol in plan.steps:
        parts.append(f"## {TITLES[protocol]}")
        for table in tables:
            if table.protocol == protocol:
                configs = sorted({step.place.config for step, _ in found.of(protocol, table.trainer)})
                title = f"### {table.trainer} ({', '.join(configs)})"
                parts += [escaped(title), _grid(table, plan.seeds, incomparable)]
    reading = READING.format(source=published.SOURCE)
    for name in plan.trainers:
        if name in published.OTHER_SOURCES:
            reading += f"\n- **paper** of {name}: {published.OTHER_SOURCES[name]}."
    parts += ["## What is missing", _missing(found)]
    parts += ["## Data sets", _data(found), "## Cost", _cost(found), "## How to read the numbers", reading]
    return "\n\n".join(parts) + "\n"


def _head(found: Found, against: Sequence[str], unclear: Sequence[str], incomparable: Mapping[str, str]) -> list[str]:
    """What must be known before any number is read."""
    plan = found.plan
    parts = []
    if against:
        parts.append(
            "> **These are no results.** They show that the command works, and nothing about the paper's numbers. "
            + escaped(" ".join(against))
        )
    elif unclear:
        parts.append("> **It cannot be told whether these are results.** " + escaped(" ".join(unclear)))
    if incomparable:
        names = ", ".join(map(published.display_name, published.in_order(incomparable)))
        parts.append(
            f"> **Not comparable**, in no average and not judged, as the images are not the published ones: {names}."
        )
    given = [*plan.wanted.settings]
    configs = [name for name in plan.wanted.trainers if "/" in name]
    config = (plan.wanted.environment or {}).get("CFG")
    if given or configs or config:
        words = [*([f"CFG={config}"] if config else []), *configs, *([" ".join(given)] if given else [])]
        parts.append(f"> **Other settings** than the default configs were asked for: `{escaped(', '.join(words))}`.")
    counted, every = len(found.counted), len(plan.every)
    if counted < every:
        parts.append(
            f"> **Not complete**: {counted} of {every} runs have a result; [what is missing](#what-is-missing)."
        )
    if len(plan.seeds) == 1:
        parts.append("> **One seed**: there is no standard deviation, so no difference can be judged.")
    told = {result.commit.partition("-") for _, result in found.counted if result.commit}
    commits = {f"{commit[:12]}{dash}{rest}" for commit, dash, rest in told}
    last = (
        f"Written {found.origin['date']} by `{escaped(str(found.origin['command']))}`, {seeds_name(plan.seeds)}, "
        f"{published.SHOTS} images per class."
    )
    if commits:
        last += f" Runs are of commit{'s' * (len(commits) > 1)} {escaped(', '.join(sorted(commits)))}."
    return [*parts, last]


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table whose first columns are texts and the others numbers."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    align = ["left"] * texts + ["right"] * (len(headers) - texts)
    return tabulate(cells, list(headers), "pipe", disable_numparse=True, colalign=align if cells else None)


def _ours(cell: Cell, wanted: int = 0) -> str:
    if cell.ours is None:
        return NOTHING
    text = f"{cell.ours:.2f}" + ("" if cell.std is None else f" ± {cell.std:.2f}")
    return text if not wanted or cell.seeds == wanted else f"{text} ({cell.seeds} of {wanted} seeds)"


def _number(value: float | None, form: str = ".2f") -> str:
    return NOTHING if value is None else format(round(value, 2) + 0.0, form)  # and no -0.00


def _verdict(cell: Cell) -> str:
    if cell.difference is None or not cell.judged:
        return NOTHING
    return {True: "yes", False: "no", None: "?"}[cell.within]


def _beside(cell: Cell, wanted: int = 0) -> list[str]:
    return [_ours(cell, wanted), _number(cell.paper), _number(cell.difference, "+.2f"), _verdict(cell)]


def _grid(table: TrainerTable, seeds: Sequence[int], incomparable: Mapping[str, str]) -> str:
    """One trainer's table."""
    headers = [""]
    for metric in table.metrics:
        headers += [metric, "paper", "difference", "within"]
    rows = []
    for dataset in table.datasets:
        name = published.display_name(dataset)
        name += " (trained on)" if dataset == SOURCE and table.protocol != "base2new" else ""
        name += " (not comparable)" if dataset in incomparable else ""
        rows.append([name])
        for metric in table.metrics:
            rows[-1] += _beside(table.cells[dataset, metric], len(seeds))
    if table.averages:
        rows.append([_average_name(table)])
        for metric in table.metrics:
            rows[-1] += _beside(table.averages[metric])
    return _table(headers, rows)


def _average_name(table: TrainerTable) -> str:
    whole = len(table.averaged) == table.full
    return (
        f"**average** of all {table.full}" if whole else f"average of {len(table.averaged)} of {table.full} data sets"
    )


def _summary(tables: Iterable[TrainerTable]) -> str:
    rows = []
    for table in tables:
        metric = table.metrics[-1]
        cells = list(table.cells.values())
        judged = [cell for cell in cells if cell.within is not None]
        rows.append(
            [
                TITLES[table.protocol].partition(":")[0],
                table.trainer,
                f"{metric}, {_average_name(table).replace('*', '')}" if table.averages else f"{metric}: no average",
                *_beside(table.averages.get(metric, Cell())),
                f"{sum(bool(cell.within) for cell in judged)} of {len(judged)}",
                f"{sum(cell.ours is not None for cell in cells)} of {len(cells)}",
            ]
        )
    headers = ["table", "trainer", "average", "ours", "paper", "difference", "within"]
    return _table([*headers, "judged cells within", "cells with a result"], rows, 3)


def _missing(found: Found) -> str:
    """What has no result that counts, and why; runs that lack the same for the same reason in one line."""
    absent = [name for name, report in found.reports.items() if not report.usable]
    lines = []
    for name in published.in_order(absent):
        why = "; ".join(" ".join(line.split()) for line in found.reports[name].lines)
        lines.append(f"- **{published.display_name(name)}** is not there or cannot be used: {why}")
    by_dataset: dict[tuple[str, ...], list[int]] = defaultdict(list)  # the seeds of which the same is to say
    for step in found.plan.every.values():
        result = found.results[step]
        said = _reason(step, result, absent)
        if result.accuracy is None and said:
            by_dataset[(*_run_name(step), said, step.dataset)].append(step.place.seed)
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (name, what, said, dataset), seeds in by_dataset.items():
        together[name, what, seeds_name(seeds), said].append(dataset)
    for (name, what, seeds_named, said), datasets in together.items():
        names = ", ".join(map(published.display_name, published.in_order(datasets)))
        lines.append(f"- {name}, {names}, {what}, {seeds_named}: {said}")
    return "\n".join(map(escaped, lines)) or "Nothing."


def _reason(step: Step, result: Result, absent: Collection[str]) -> str:
    """Why a run has no result; empty where that is told of its data set."""
    if result.refused:
        return f"not counted: {result.problem}"
    if result.problem == NOT_RUN and step.dataset in absent:
        return ""
    if result.problem == NOT_RUN and step.trained and step.trained.dataset in absent:
        return f"not run, as {published.display_name(step.trained.dataset)} is not there to be trained on"
    return result.problem if result.problem == NOT_RUN else f"no result: {result.problem}"


def _run_name(step: Step) -> tuple[str, str]:
    """The trainer, and what is done, in words."""
    place = step.place
    what = {"Base": "base classes", "New": "new classes"}.get(metric_of(step), "")
    what = what or ("trained on all classes" if step.trains else "tested on all classes")
    return f"{place.trainer}/{place.config}", what


def _data(found: Found) -> str:
    unlike = found.incomparable()
    rows = []
    for name in published.in_order(found.reports):
        report = found.reports[name]
        lines = [line.partition(" ")[2].strip() for line in report.lines if line.startswith("split ")]
        if not report.usable:
            state, told = "not there or not usable", "see what is missing"
        else:
            state, told = ("no" if name in unlike else "yes"), unlike.get(name) or " ".join(lines)
        rows.append([published.display_name(name), state, escaped(told)])
    weights = "\n".join(
        f"- CLIP {escaped(known.name)}: "
        + (f"`{escaped(str(known.path))}`, " if known.path else "")
        + (f"OpenAI's {known.model}" if known.model else "not a file of OpenAI's" if known.path else "not at hand")
        for known in found.weights
    )
    return _table(["data set", "as published", ""], rows, 3) + f"\n\n{weights}"


def _cost(found: Found) -> str:
    """Hours by trainer and device. The training on ImageNet, of Tables 2 and 3, counts once."""
    hours: dict[tuple[str, str], dict[bool, float]] = defaultdict(lambda: {True: 0.0, False: 0.0})
    silent = 0
    for step, result in found.counted:
        if result.seconds is None:
            silent += 1
            continue
        unit = "CPU hours" if result.device == "cpu" else f"GPU hours, {result.device or 'not told which'}"
        hours[step.place.trainer, unit][step.place.classes != "all"] += result.seconds / 3600
    if not hours:
        return "No run tells what it cost."
    rows = [
        [trainer, escaped(unit), f"{own[True]:.2f}", f"{own[False]:.2f}", f"{sum(own.values()):.2f}"]
        for (trainer, unit), own in sorted(
            hours.items(), key=lambda item: (found.plan.trainers.index(item[0][0]), item[0])
        )
    ]
    for unit in sorted({unit for _, unit in hours}):
        own = [found_hours for (_, other), found_hours in hours.items() if other == unit]
        sums = [sum(one[half] for one in own) for half in (True, False)]
        rows.append(["**all**", escaped(unit), *(f"{number:.2f}" for number in (*sums, sum(sums)))])
    text = _table(["trainer", "unit", "Table 1", "Tables 2 and 3", "all"], rows, 2)
    text += (
        "\n\nHours of training and tests by the clock, from `train_seconds` and `test_seconds` of each run, without "
        "the start of its program. Of a run that was cut, those of the program that ended it. Runs that share a GPU or "
        "cores count whole."
    )
    return text + (f" {silent} runs do not tell." if silent else "")
