"""The tables of the study's page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import mean, median

from tabulate import tabulate

from tools.results.published import display_name
from tools.study.intervals import Statistic, shown
from tools.study.measured import BASE, HM, NEW, NOTHING, Difference, Measured, Where, gap, tell_missing, value
from tools.study.methods import (
    ABLATION,
    CDC,
    CONFIGURED_DIVERSITY,
    COST_PAIRS,
    CURVES,
    DIVERSITY,
    EQUAL_COST,
    MAPLE,
    METHODS,
    PARTS,
    PARTS_WITHOUT_ONE,
    PLAIN,
    PROBE,
    RECOLOURED,
    REGIMES,
    START,
    ZERO_SHOT,
    Method,
    at_epoch,
    at_start,
    templates,
)

OTHERS = tuple(method for method in METHODS if method != CDC)
SCORES = (BASE, NEW, HM)
Pair = tuple[str, Method, Method]


def table(rows: list[list[str]], header: list[str]) -> str:
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def names_of(datasets: Iterable[str]) -> str:
    """Data sets in words."""
    *first, last = map(display_name, datasets)
    return f"{', '.join(first)} and {last}" if first else last


def with_missing(
    text: str, measured: Measured, methods: Iterable[Method], datasets: Iterable[str], where: Where
) -> str:
    """A table, and below it which seeds of which methods are missing."""
    datasets = list(datasets)
    lacking = {method.title: measured.missing(method, datasets, where) for method in methods}
    told = tell_missing(lacking, measured.plan.seeds)
    return f"{text}\n\n{told}" if told else text


def _real(names: Sequence[str], differences: Sequence[Difference]) -> str:
    """Which of the differences are real."""
    if all(difference.interval is None for difference in differences):
        return NOTHING
    return ", ".join(name for name, each in zip(names, differences) if each.is_real) or "none"


def rows_of_pairs(
    measured: Measured,
    pairs: Sequence[Pair],
    datasets: Sequence[str],
    where: Where,
    scores: dict[str, Statistic],
    widths: bool = False,
    one_training: bool = False,
) -> str:
    """A row for each pair: the differences of scores, the number of seeds, and which differences are real.

    Args:
        widths: whether to say how wide the intervals are.
        one_training: whether a seed's values on all data sets are of one training.
    """
    rows: list[list[str]] = []
    halves: dict[str, list[float]] = {name: [] for name in scores}
    for title, one, other in pairs:
        found = [measured.difference(one, other, datasets, where, score, one_training) for score in scores.values()]
        rows.append([title, *map(str, found), str(len(found[0].seeds) or NOTHING), _real(list(scores), found)])
        for name, each in zip(scores, found):
            if each.interval is not None:
                halves[name].append((each.interval.high - each.interval.low) / 2)
    methods = dict.fromkeys(method for _, *two in pairs for method in two)
    text = with_missing(table(rows, ["", *scores, "seeds", "real"]), measured, methods, datasets, where)
    told = [f"{name} {shown(mean(own))}" if own else f"{name} {NOTHING}" for name, own in halves.items()]
    of_what = "an interval, mean of the rows" if len(pairs) > 1 else "the interval"
    return f"{text}\n\nHalf the width of {of_what}: {', '.join(told)}." if widths else text


# ------------------------------------------------------------------------------------------------------ base to new
ACCURACIES: dict[str, Statistic] = {"Base": BASE, "New": NEW, "HM": HM}


def differences(measured: Measured, methods: Sequence[Method] = METHODS) -> str:
    """CDC minus each other system."""
    pairs = [(other.title, CDC, other) for other in methods if other != CDC]
    return rows_of_pairs(measured, pairs, measured.plan.sets, measured.halves(), ACCURACIES, widths=True)


def more_seeds(measured: Measured) -> str:
    """CDC minus MaPLe, with the seeds that only some methods have besides."""
    return rows_of_pairs(
        _with_seeds(measured, measured.plan.more_seeds),
        [(MAPLE.title, CDC, MAPLE)],
        measured.plan.sets,
        measured.halves(),
        ACCURACIES,
        widths=True,
    )


def _with_seeds(measured: Measured, more: Iterable[int]) -> Measured:
    plan = measured.plan
    return replace(measured, plan=replace(plan, seeds=tuple(dict.fromkeys((*plan.seeds, *more)))))


def differences_by_set(measured: Measured, methods: Sequence[Method]) -> str:
    """CDC minus each other system, on average and on each set."""
    text = [differences(measured, methods)]
    for dataset in measured.plan.sets:
        own = differences(replace(measured, plan=replace(measured.plan, sets=(dataset,))), methods)
        text.append(f"`{dataset}`:\n\n{own}")
    return "\n\n".join(text)


def on_harder_sets(measured: Measured) -> tuple[Measured, list[Method], list[Pair]]:
    """The same figures, with the harder sets in place of the others and of the ablation's; and what is run on these.

    Returns:
        The figures, the systems, and the parts of CDC.
    """
    plan = measured.plan
    there = {(method.trainer, method.run_config) for method in plan.harder_methods}  # titles differ

    def is_run(method: Method) -> bool:
        return (method.trainer, method.run_config) in there

    parts = [part for part in PARTS if is_run(part[1]) and is_run(part[2])]
    systems = [method for method in METHODS if is_run(method)]
    return replace(measured, plan=replace(plan, sets=plan.harder, ablated=plan.harder)), systems, parts


def subspace(measured: Measured, methods: Iterable[Method]) -> str:
    """CLIP-ICM minus zero-shot CLIP, which it is where its map keeps all directions; a dash where it is not run."""
    pairs = [("CLIP-ICM minus zero-shot CLIP", own, ZERO_SHOT) for own in methods if own.trainer == "CLIPICM"]
    return rows_of_pairs(measured, pairs, measured.plan.sets, measured.halves(), ACCURACIES) if pairs else NOTHING


def base_to_new(measured: Measured, methods: Sequence[Method] = METHODS) -> str:
    """The average row of the paper's Table 1."""
    sets, where = measured.plan.sets, measured.halves()
    rows = [
        [
            method.title,
            *(measured.show(method, sets, where, score) for score in (BASE, NEW)),
            measured.show_mean(method, sets, where, HM),
            measured.count(method, sets, where),
            seconds(measured, method, sets) if method.train else "",
        ]
        for method in methods
    ]
    text = table(rows, ["", "Base", "New", "HM", "seeds", "seconds"])
    return with_missing(text, measured, methods, sets, where)


def seconds(measured: Measured, method: Method, datasets: Iterable[str]) -> str:
    """Seconds of one training on base classes, mean over data sets and seeds."""
    return measured.show_mean(method, datasets, measured.half("base", "train_seconds"), value(0), 1)


def each_set(measured: Measured, methods: Sequence[Method] = METHODS) -> str:
    """The rows of the paper's Table 1 for each data set."""
    sets, where = measured.plan.sets, measured.halves()
    header, text = ["", *map(display_name, sets)], []
    for title, score in (("Accuracy on base classes:", BASE), ("Accuracy on new classes:", NEW)):
        rows = [[m.title, *(measured.show(m, [dataset], where, score) for dataset in sets)] for m in methods]
        text += [title, table(rows, header)]
    rows = [[m.title, *(measured.show_mean(m, [dataset], where, HM) for dataset in sets)] for m in methods]
    return with_missing("\n\n".join([*text, "Harmonic mean:", table(rows, header)]), measured, methods, sets, where)


# ----------------------------------------------------------------------------------------------------- parts of CDC
def parts(measured: Measured, pairs: Sequence[Pair] = PARTS) -> str:
    """What each part of CDC changes."""
    return rows_of_pairs(measured, pairs, measured.plan.ablated, measured.halves(), ACCURACIES, widths=True)


def more_parts(measured: Measured) -> str:
    """What parts of CDC change, with the seeds that only some methods have besides."""
    plan = measured.plan
    own = [part for part in PARTS_WITHOUT_ONE if part[1] in plan.more_methods and part[2] in plan.more_methods]
    return parts(_with_seeds(measured, plan.parts_seeds), own)


def _levels(measured: Measured, methods: Sequence[Method], name: str) -> str:
    """Accuracy, uncertainty on new classes and training time of some methods on the ablation's sets."""
    sets, where = measured.plan.ablated, measured.halves()
    rows = [
        [
            method.title,
            *(measured.show(method, sets, where, score) for score in (BASE, NEW)),
            measured.show_mean(method, sets, where, HM),
            _uncertainty(measured, method, sets),
            measured.count(method, sets, where),
            seconds(measured, method, sets),
        ]
        for method in methods
    ]
    text = table(rows, [name, "Base", "New", "HM", "uncertainty", "seeds", "seconds"])
    return with_missing(text, measured, methods, sets, where)


def _uncertainty(measured: Measured, method: Method, datasets: Sequence[str]) -> str:
    """Mean on new classes; nothing for a method that has none."""
    if method.trainer != CDC.trainer:
        return ""
    return measured.show_mean(method, datasets, measured.half("new", "uncertainty"), value(0), 3)


def ablation(measured: Measured) -> str:
    return _levels(measured, ABLATION, "")


def numbers(measured: Measured) -> str:
    return _levels(measured, [templates(number) for number in measured.plan.numbers], "M")


def cost(measured: Measured) -> str:
    """One template at the cost of four, and four that were trained alone."""
    return _levels(measured, EQUAL_COST, "")


def cost_differences(measured: Measured) -> str:
    sets = measured.plan.ablated
    text = rows_of_pairs(measured, COST_PAIRS, sets, measured.halves(), ACCURACIES)
    ratios = [f"{title}: {ratio(measured, one, other, sets)}" for title, one, other in COST_PAIRS]
    return f"{text}\n\nTraining time, median of the seeds' ratios: {'; '.join(ratios)}."


def ratio(measured: Measured, one: Method, other: Method, datasets: Iterable[str]) -> str:
    """By which factor one method's training takes longer."""
    datasets, where = list(datasets), measured.half("base", "train_seconds")
    first, second = (measured.by_seed(method, datasets, where) for method in (one, other))
    found = [first[seed].sum() / second[seed].sum() for seed in first.keys() & second.keys()]
    return shown(median(found), ".1f") if found else NOTHING


def diversity(measured: Measured) -> str:
    """How far templates are apart, and what that is worth, by the weight of loss (2)."""
    sets, methods = measured.plan.ablated, (START, *DIVERSITY)
    single = [f"template{m}_accuracy" for m in range(1, 5)]
    rows = []
    for method in methods:
        row = [method.title]
        for part in ("base", "new"):
            row += [
                measured.show_mean(method, sets, measured.half(part, "template_similarity"), value(0), 3),
                measured.show_mean(method, sets, measured.half(part, *single), lambda means: means.mean(axis=-1)),
                _best(measured, method, sets, measured.half(part, *single)),
                measured.show_mean(method, sets, measured.half(part, "accuracy"), value(0)),
            ]
        rows.append(row)
    names = ("similarity", "mean template", "best template", "fused")
    text = table(rows, ["beta", *(f"{part}: {name}" for part in ("base", "new") for name in names)])
    others = [(f"beta {own.title}", own, CONFIGURED_DIVERSITY) for own in DIVERSITY if own != CONFIGURED_DIVERSITY]
    differences = rows_of_pairs(measured, others, sets, measured.halves(), ACCURACIES)
    return f"{with_missing(text, measured, methods, sets, measured.halves())}\n\nMinus the config's:\n\n{differences}"


def _best(measured: Measured, method: Method, datasets: Sequence[str], where: Where) -> str:
    """Accuracy of the template that is best in each run."""
    found = measured.by_seed(method, datasets, where)
    return shown(mean(float(values.max(axis=1).mean()) for values in found.values())) if found else NOTHING


def regimes(measured: Measured) -> str:
    """What losses (2) and (3) bring from other starts, on other views, in more epochs, on harder sets."""
    rows, lacking = [], {}
    where, alike = measured.halves(), measured.half("base", "template_similarity")
    for title, pieces, datasets in REGIMES:
        sets, (with_losses, without) = measured.plan.sets_of(datasets), measured.plan.regime(pieces)
        found = [measured.difference(with_losses, without, sets, where, score) for score in SCORES]
        levels = [
            measured.show_mean(method, sets, alike, value(0), 3) for method in (at_start(*pieces), without, with_losses)
        ]
        levels += [measured.show_mean(method, sets, where, HM) for method in (without, with_losses)]
        rows.append([title, *levels, *map(str, found), str(len(found[0].seeds) or NOTHING)])
        rows[-1].append(_real(list(ACCURACIES), found))
        lacking[title] = tuple(seed for seed in measured.plan.seeds if seed not in found[0].seeds)
    header = ["", "similarity at the start", "without", "with", "HM without", "HM with"]
    header += ["Base", "New", "HM", "seeds", "real"]
    told = tell_missing(lacking, measured.plan.seeds)
    return "\n\n".join(filter(None, [table(rows, header), told]))


# ------------------------------------------------------------------------------------------------------- over epochs
def epochs(measured: Measured) -> str:
    """Whether base accuracy rises and new accuracy falls: the last point of the curves minus earlier ones."""
    points = measured.plan.curve_epochs
    return "\n\n".join(_since(measured, early, points[-1]) for early in sorted({points[0], points[len(points) // 3]}))


def _since(measured: Measured, early: int, late: int) -> str:
    """Accuracies after an epoch minus those after an earlier one."""
    where = measured.halves()
    rows, lacking = [], {}
    for dataset in measured.plan.curve_sets:
        for method in CURVES:
            last, first = at_epoch(method, late), at_epoch(method, early)
            found = [measured.difference(last, first, [dataset], where, score) for score in SCORES]
            title = f"{method.title}, {display_name(dataset)}"
            rows.append([title, *map(str, found), str(len(found[0].seeds) or NOTHING), _figure_1b(found)])
            lacking[title] = tuple(seed for seed in measured.plan.seeds if seed not in found[0].seeds)
    header = [f"epoch {late} minus epoch {early}", "Base", "New", "HM", "seeds", "base rises, new falls"]
    told = tell_missing(lacking, measured.plan.seeds)
    return "\n\n".join(filter(None, [table(rows, header), told]))


def _figure_1b(found: Sequence[Difference]) -> str:
    """Whether the paper's Figure 1b is seen: base rises and new falls, both surely."""
    base, new = (difference.interval for difference in found[:2])
    if base is None or new is None:
        return NOTHING
    return "yes" if base.low > 0 and new.high < 0 else "no"


# -------------------------------------------------------------------------------------------------------- confounder
GROUPS = ("accuracy", "aligned_accuracy", "conflicting_accuracy", "worst_group_accuracy")
GAPS: dict[str, Statistic] = {
    "aligned - conflicting": gap(1, 2),
    "accuracy - worst group": gap(0, 3),
    "worst group": value(3),
    "accuracy": value(0),
    "aligned": value(1),
    "conflicting": value(2),
}
CONFOUNDED_METHODS = (*METHODS, PROBE, *ABLATION, RECOLOURED)


def confounder(measured: Measured) -> str:
    """Accuracy where the background is that of the class in training, and where it is another."""
    where, text = measured.trained_on(*GROUPS), []
    scores = [*(value(index) for index in range(len(GROUPS))), *list(GAPS.values())[:2]]
    header = [
        "",
        "accuracy",
        "aligned",
        "conflicting",
        "worst group",
        "aligned - conflicting",
        "accuracy - worst group",
    ]
    for dataset in measured.plan.confounded:
        rows = [
            [
                method.title,
                *(measured.show(method, [dataset], where, score) for score in scores),
                measured.count(method, [dataset], where),
            ]
            for method in CONFOUNDED_METHODS
        ]
        own = with_missing(table(rows, [*header, "seeds"]), measured, CONFOUNDED_METHODS, [dataset], where)
        text.append(f"`{dataset}`:\n\n{own}")
    return "\n\n".join(text)


def confounder_differences(measured: Measured) -> str:
    """CDC minus each other system, and with each part of CDC minus without: gaps and worst group."""
    systems = [(f"CDC minus {other.title}", CDC, other) for other in (*OTHERS, PROBE)]
    own = [*PARTS, ("recoloured views in place of plain pictures", RECOLOURED, PLAIN)]
    where, text = measured.trained_on(*GROUPS), []
    for dataset in measured.plan.confounded:
        text.append(f"`{dataset}`:\n\n{rows_of_pairs(measured, [*systems, *own], [dataset], where, GAPS)}")
    return "\n\n".join(text)


# ---------------------------------------------------------------------------------------------------------- transfer
def transfer(measured: Measured, names: Sequence[str], methods: Sequence[Method]) -> str:
    """The paper's Tables 2 and 3: trained on the source, tested on other data sets."""
    source, where = measured.plan.sets[0], measured.transferred()
    rows = []
    for method in methods:
        cells = [measured.show(method, [dataset], where, value(0)) for dataset in (source, *names)]
        cells += [measured.show(method, names, where, value(0)), measured.count(method, [source, *names], where)]
        rows.append([method.title, *cells])
    header = ["", f"{display_name(source)} (source)", *map(display_name, names), f"average of {len(names)}", "seeds"]
    return with_missing(table(rows, header), measured, methods, [source, *names], where)


def other_sets(measured: Measured) -> str:
    return transfer(measured, measured.plan.sets[1:], (*METHODS, START))


def variants(measured: Measured) -> str:
    return transfer(measured, measured.plan.variants, (*METHODS, PROBE, START))


def transfer_differences(measured: Measured) -> str:
    """CDC minus each other system, on average over the other sets and over the variants."""
    plan, rows, lacking = measured.plan, [], {}
    for other in (*OTHERS, PROBE):
        found = [
            measured.difference(CDC, other, names, measured.transferred(), value(0), one_training=True)
            for names in (plan.sets[1:], plan.variants)
        ]
        cells = ["" if other.own_classes and index == 0 else str(each) for index, each in enumerate(found)]
        rows.append([other.title, *cells, str(len(found[1].seeds) or NOTHING)])
        rows[-1].append(_real(["other sets", "variants"], found))
        complete = set(found[1].seeds) & set(found[0].seeds if not other.own_classes else plan.seeds)
        lacking[other.title] = tuple(seed for seed in plan.seeds if seed not in complete)
    told = tell_missing(lacking, plan.seeds)
    text = table(rows, ["", "other sets", "variants", "seeds", "real"])
    return "\n\n".join(filter(None, [text, told]))
