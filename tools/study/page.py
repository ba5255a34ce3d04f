"""The page of the study and its figures, from the `results.json` files of its runs alone.

docs/study.md is written by hand; its tables are generated blocks (`tools.common.blocks`), which are made again here.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, median, stdev

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate

from tools.common.blocks import fill, skeleton
from tools.common.colours import Style, trainer_colours
from tools.common.machine import cores, processor
from tools.common.paths import ROOT
from tools.results.curves import draw_line, put_grid
from tools.results.published import display_name
from tools.results.runs import read_results
from tools.results.tables import harmonic_mean
from tools.study.methods import (
    ABLATION,
    CONFOUNDED,
    CURVES,
    DIVERSITY,
    METHODS,
    PARTS,
    START,
    TEXT_ONLY,
    ZERO_SHOT,
    Method,
    at_epoch,
    templates,
)
from tools.study.plan import Plan

PAGE = ROOT / "docs" / "study.md"
SEARCHES = PAGE.parent / "search"  # tables as `tools.search --save` writes them
DASHES = {"base": "solid", "new": "dash"}
BySeed = dict[int, float]
TRIAL = (
    "> **A trial: the figures on this page mean nothing.** Each part of the study was run once and briefly, to show "
    "that it runs: few images, few epochs, few data sets."
)


def write_page(plan: Plan, page: Path) -> None:
    """Write the page's blocks, and its figures beside it. A page that is not there yet gets headings and blocks alone.

    Raises:
        FileNotFoundError: a run's results are missing.
        ValueError: a file of results is broken, or the page that is there lacks a block.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else skeleton(PAGE.read_text(encoding="utf-8"))
    page.parent.mkdir(parents=True, exist_ok=True)
    pictures = [page.with_name(f"{page.stem}_{name}.png") for name in ("epochs", "templates")]
    draw_epochs(plan, pictures[0])
    draw_numbers(plan, pictures[1])
    picture = "![{}]({})".format
    contents = {
        "runs": _runs(plan),
        "parts": _parts(plan),
        "base to new": _base_to_new(plan),
        "base to new, each set": _each_set(plan),
        "other sets": _elsewhere(plan, plan.sets[1:]),
        "variants": _elsewhere(plan, plan.variants),
        "ablation": _ablation(plan),
        "templates": _numbers(plan),
        "templates, drawn": picture("Accuracy and training time by number of templates", pictures[1].name),
        "epochs, drawn": picture("Base and new accuracy over the epochs", pictures[0].name),
        "diversity": _diversity(plan),
        "confounder": _confounded(plan),
        "searches": searches(),
    }
    text = fill(text, contents).replace(f"{TRIAL}\n\n", "")
    page.write_text(f"{TRIAL}\n\n{text}" if plan.is_trial else text, encoding="utf-8")


def _runs(plan: Plan) -> str:
    """What the figures are of."""
    return "\n".join(
        [
            f"- PyTorch {torch.__version__.split('+')[0]}, {cores()} cores of {processor()};",
            f"- seeds {', '.join(map(str, plan.seeds))}; {plan.shots} training images per class;",
            f"- base to new: {_names(plan.sets)}; parts of CDC, number of templates and times: {_names(plan.ablated)}.",
        ]
    )


def _metric(folder: Path, name: str = "accuracy") -> float:
    path = folder / "results.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the study is not finished")
    return read_results(path).metrics[name]


def _by_seed(plan: Plan, method: Method, metric: Callable[[int], float]) -> BySeed:
    return {seed: metric(seed) for seed in plan.seeds if method in plan.of_seed([method], seed)}


def half(
    plan: Plan, method: Method, datasets: Iterable[str], part: str, name: str = "accuracy", kind: str = ""
) -> BySeed:
    """A metric on base or new classes, mean over data sets, by seed."""
    datasets = list(datasets)
    return _by_seed(
        plan, method, lambda seed: mean(_metric(plan.half(method, d, seed, part, kind), name) for d in datasets)
    )


def elsewhere(plan: Plan, method: Method, datasets: Iterable[str]) -> BySeed:
    """Accuracy on data sets of what was trained on the source, mean over them, by seed."""
    datasets = list(datasets)
    return _by_seed(plan, method, lambda seed: mean(_metric(plan.tested_on(method, d, seed)) for d in datasets))


def training_seconds(plan: Plan, method: Method) -> BySeed:
    """Seconds of training on base classes, mean over the ablation's data sets, by seed."""

    def seconds(dataset: str, seed: int) -> float:
        return json.loads((plan.half(method, dataset, seed, "base") / "results.json").read_text())["train_seconds"]

    return _by_seed(plan, method, lambda seed: mean(seconds(dataset, seed) for dataset in plan.ablated))


def _seconds(plan: Plan, method: Method) -> str:
    return f"{mean(training_seconds(plan, method).values()):.1f}"


def show(values: BySeed, sign: str = "-") -> str:
    """Mean and standard deviation in percent; with `sign` + a positive mean has one."""
    numbers = list(values.values())
    return f"{mean(numbers):{sign}.2f}" + (f" ± {stdev(numbers):.2f}" if len(numbers) > 1 else "")


def hm(base: BySeed, new: BySeed) -> float:
    """Harmonic mean of the averages, as the paper takes it."""
    return harmonic_mean(mean(base.values()), mean(new.values()))


def _names(datasets: Iterable[str]) -> str:
    """Data sets in words."""
    *first, last = map(display_name, datasets)
    return f"{', '.join(first)} and {last}" if first else last


def _gain(with_it: BySeed, without: BySeed) -> str:
    """Difference in points, mean and standard deviation of the seeds' differences."""
    return show({seed: with_it[seed] - without[seed] for seed in with_it}, sign="+")


def table(rows: list[list[str]], header: list[str]) -> str:
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _parts(plan: Plan) -> str:
    """What each part changes, and its cost."""
    rows = []
    for title, *methods in PARTS:
        halves = [[half(plan, method, plan.ablated, part) for part in ("base", "new")] for method in methods]
        means = [{seed: harmonic_mean(base[seed], new[seed]) for seed in base} for base, new in halves]
        seconds = [training_seconds(plan, method) for method in methods]
        cost = median(seconds[0][seed] / seconds[1][seed] for seed in plan.seeds)
        rows.append([title, *map(_gain, *halves), _gain(*means), f"{cost:.1f}"])
    return table(rows, ["", "Base", "New", "HM", "time"])


def _base_to_new(plan: Plan) -> str:
    """The average row of the paper's Table 1."""
    rows = []
    for method in METHODS:
        base, new = (half(plan, method, plan.sets, part) for part in ("base", "new"))
        seconds = _seconds(plan, method) if method.train else ""
        rows.append([method.title, show(base), show(new), f"{hm(base, new):.2f}", seconds])
    return table(rows, ["", "Base", "New", "HM", "seconds"])


def _each_set(plan: Plan) -> str:
    """The rows of the paper's Table 1 for each data set."""
    header = ["", *map(display_name, plan.sets)]
    text = []
    for part in ("base", "new"):
        rows = [[m.title, *(show(half(plan, m, [d], part)) for d in plan.sets)] for m in METHODS]
        text += [f"Accuracy on {part} classes:", table(rows, header)]
    rows = []
    for method in METHODS:
        means = [hm(*(half(plan, method, [d], part) for part in ("base", "new"))) for d in plan.sets]
        rows.append([method.title, *(f"{value:.2f}" for value in means)])
    return "\n\n".join([*text, "Harmonic mean:", table(rows, header)])


def _elsewhere(plan: Plan, names: Sequence[str]) -> str:
    """The paper's Tables 2 and 3: trained on the source, tested on other data sets."""
    source = plan.sets[0]
    rows = []
    for method in (*METHODS, START):
        cells = [elsewhere(plan, method, [d]) for d in (source, *names)] + [elsewhere(plan, method, names)]
        rows.append([method.title, *map(show, cells)])
    header = ["", f"{display_name(source)} (source)", *map(display_name, names), f"average of {len(names)}"]
    return table(rows, header)


def _ablation(plan: Plan) -> str:
    rows = []
    for method in ABLATION:
        base, new = (half(plan, method, plan.ablated, part) for part in ("base", "new"))
        unsure = mean(half(plan, method, plan.ablated, "new", "uncertainty").values())
        rows.append(
            [method.title, show(base), show(new), f"{hm(base, new):.2f}", f"{unsure:.3f}", _seconds(plan, method)]
        )
    return table(rows, ["", "Base", "New", "HM", "uncertainty", "seconds"])


def _numbers(plan: Plan) -> str:
    rows = []
    for number in plan.numbers:
        method = templates(number)
        base, new = (half(plan, method, plan.ablated, part) for part in ("base", "new"))
        rows.append([str(number), show(base), show(new), f"{hm(base, new):.2f}", _seconds(plan, method)])
    return table(rows, ["M", "Base", "New", "HM", "seconds"])


def draw_numbers(plan: Plan, path: Path) -> None:
    """Accuracy over the number of templates, and what training costs."""
    figure = Figure(figsize=(8, 3.2))
    left, right = figure.subplots(1, 2)
    color = trainer_colours(["CDC"])["CDC"]
    for part, dash in DASHES.items():
        values = [half(plan, templates(n), plan.ablated, part) for n in plan.numbers]
        _curve(left, plan.numbers, values, Style(color, dash=dash), part)
    left.set_ylabel("accuracy (%)")
    left.legend()
    seconds = [training_seconds(plan, templates(number)) for number in plan.numbers]
    _curve(right, plan.numbers, seconds, Style(color), "seconds")
    right.set_ylabel("seconds of training")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.set_xlabel("templates")
        axis.set_xticks(plan.numbers)
        put_grid(axis)
    figure.tight_layout()
    _save(plan, figure, path)


def _save(plan: Plan, figure: Figure, path: Path) -> None:
    """Write a picture; across that of a trial stands that it is one."""
    if plan.is_trial:
        figure.text(
            0.5, 0.5, "a trial: means nothing", color="C3", alpha=0.6, size=28, rotation=15, ha="center", va="center"
        )
    figure.savefig(path, dpi=110)


def _curve(axis: Axes, x: Sequence[float], values: list[BySeed], style: Style, label: str) -> None:
    means = [mean(by_seed.values()) for by_seed in values]
    spread = [stdev(by_seed.values()) if len(by_seed) > 1 else 0.0 for by_seed in values]
    draw_line(axis, x, means, spread, style, label)


def draw_epochs(plan: Plan, path: Path) -> None:
    """Accuracy over the epochs, a panel for each data set."""
    figure = Figure(figsize=(4 * len(plan.curve_sets), 3.6))
    colors = trainer_colours(method.trainer for method in (*CURVES, ZERO_SHOT))
    for axis, dataset in zip(figure.subplots(1, len(plan.curve_sets), squeeze=False)[0], plan.curve_sets):
        for part, dash in DASHES.items():
            for method in CURVES:
                values = [
                    half(plan, at_epoch(method, epoch), [dataset], part, kind="test") for epoch in plan.curve_epochs
                ]
                style = Style(colors[method.trainer], dash=dash)
                _curve(axis, plan.curve_epochs, values, style, f"{method.title}, {part}")
            zero_shot = half(plan, ZERO_SHOT, [dataset], part)
            level, width = mean(zero_shot.values()), 1 if part == "base" else 2
            axis.axhline(level, color=colors[ZERO_SHOT.trainer], linestyle=":", linewidth=width)
        axis.set_title(display_name(dataset))
        axis.set_xlabel("epoch")
        axis.set_ylabel("accuracy (%)")
        put_grid(axis)
    n_columns = 2 * min(len(plan.curve_sets), 2)
    figure.tight_layout(rect=(0, 0.36 / n_columns, 1, 1))
    figure.legend(
        *axis.get_legend_handles_labels(), loc="lower center", ncols=n_columns, frameon=False, fontsize="small"
    )
    _save(plan, figure, path)


def best_template(plan: Plan, method: Method, part: str) -> BySeed:
    """Accuracy of the template that is best in each run, mean over the ablation's data sets, by seed."""

    def best(dataset: str, seed: int) -> float:
        return max(_metric(plan.half(method, dataset, seed, part), f"template{m}_accuracy") for m in range(1, 5))

    return _by_seed(plan, method, lambda seed: mean(best(dataset, seed) for dataset in plan.ablated))


def _diversity(plan: Plan) -> str:
    rows = []
    for method in (START, *DIVERSITY):
        row = [method.title]
        for part in ("base", "new"):
            own = [half(plan, method, plan.ablated, part, f"template{m}_accuracy") for m in range(1, 5)]
            row += [
                f"{mean(half(plan, method, plan.ablated, part, 'template_similarity').values()):.3f}",
                f"{mean(mean(by_seed.values()) for by_seed in own):.2f}",
                f"{mean(best_template(plan, method, part).values()):.2f}",
                f"{mean(half(plan, method, plan.ablated, part).values()):.2f}",
            ]
        rows.append(row)
    names = ("similarity", "mean template", "best template", "fused")
    return table(rows, ["beta", *(f"{part}: {name}" for part in ("base", "new") for name in names)])


def _confounded_metric(plan: Plan, method: Method, name: str, seed: int) -> float:
    return _metric(plan.trained_on(method, CONFOUNDED, seed), name)


def _confounded(plan: Plan) -> str:
    names = ("accuracy", "aligned_accuracy", "conflicting_accuracy", "worst_group_accuracy")
    rows = []
    for method in (*(method for method in METHODS if method != TEXT_ONLY), *ABLATION):
        cells = [_by_seed(plan, method, functools.partial(_confounded_metric, plan, method, name)) for name in names]
        rows.append([method.title, *map(show, cells)])
    return table(rows, ["", "accuracy", "aligned", "conflicting", "worst group"])


def searches() -> str:
    """The grids that the settings were chosen from, each folded away under its command."""
    text = []
    for path in sorted(SEARCHES.glob("*.json")):
        search = json.loads(path.read_text(encoding="utf-8"))
        rows = [[cell if isinstance(cell, str) else f"{cell:.2f}" for cell in row] for row in search["rows"]]
        title = f"<summary><code>docs/search/{path.name}</code></summary>"
        text += [f"<details>{title}", f"```\n{search['command']}\n```", table(rows, search["header"]), "</details>"]
    return "\n\n".join(text)
