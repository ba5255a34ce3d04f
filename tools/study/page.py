"""The page of the study and its figures, from the `results.json` files of its runs alone.

What is written by hand on the page, what the results mean, stays as it is; everything else is made again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, median, stdev

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate

from tools.common.machine import cores, processor
from tools.common.page import fill
from tools.common.paths import ROOT
from tools.results.published import display_name
from tools.results.runs import read_results
from tools.results.tables import harmonic_mean
from tools.study.methods import (
    ABLATION,
    CDC,
    CONFOUNDED,
    CURVES,
    DIVERSITY,
    METHODS,
    PARTS,
    START,
    ZERO_SHOT,
    Method,
    at_epoch,
    templates,
)
from tools.study.plan import Plan

NEW_PAGE = """<!-- generated: overview -->
<!-- written by hand -->
Nothing has been written yet.
<!-- generated: results -->
"""
SEARCHES = "search_*.json"  # in docs, as `tools.sweep.search --save` writes them
BySeed = dict[int, float]


def write_page(plan: Plan, page: Path) -> None:
    """Write the page, and its figures beside it.

    Raises:
        FileNotFoundError: a run's results are missing.
        ValueError: a file of results is broken, or the page that is there lacks marks of its blocks.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else NEW_PAGE
    fill(text, {"overview": "", "results": ""}, page)  # fails before anything is drawn
    page.parent.mkdir(parents=True, exist_ok=True)
    pictures = [page.with_name(f"{page.stem}_{name}.png") for name in ("epochs", "templates")]
    draw_epochs(plan, pictures[0])
    draw_numbers(plan, pictures[1])
    overview = ["# The study", _how_it_was_made(plan), "## What it shows", _parts(plan)]
    results = [
        "## Base to new",
        _base_to_new(plan),
        "## Other data sets, other domains",
        _cross_data_set(plan),
        "## What each part of CDC brings",
        _ablation(plan),
        "## How many templates",
        _numbers(plan) + f"\n\n![Accuracy and training time over the number of templates]({pictures[1].name})",
        "## Over the epochs",
        _epochs(plan) + f"\n\n![Base and new accuracy over the epochs]({pictures[0].name})",
        "## Do the templates decouple?",
        _diversity(plan),
        "## A known confounder",
        _confounded(plan),
        "## How the settings were chosen",
        _choice(),
    ]
    blocks = {"overview": "\n\n".join(overview), "results": "\n\n".join(results)}
    page.write_text(fill(text, blocks, page), encoding="utf-8")


def _how_it_was_made(plan: Plan) -> str:
    versions = f"PyTorch {torch.__version__.split('+')[0]}, {cores()} cores of {processor()}"
    return (
        f"Made by `make study` ({versions}) from the results of its runs; every figure is a mean over the seeds "
        f"{', '.join(map(str, plan.seeds))}, with their standard deviation where a method depends on the seed: a "
        "difference within it shows nothing, one up to twice it is a hint. "
        "All methods see the same embedded data sets ([data.md](data.md)), the same small CLIP, "
        f"{plan.shots} images a class, and test images that nothing was chosen on. CoOp, CoCoOp and MaPLe train on "
        "pictures as they are, CDC's templates on four kinds of views, encoded once with text templates, as many of a "
        "picture as there are epochs. The figures say nothing about ViT-B/16."
    )


def _figure(folder: Path, name: str = "accuracy") -> float:
    path = folder / "results.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the study is not finished")
    return read_results(path).figures[name]


def _by_seed(plan: Plan, method: Method, figure: Callable[[int], float]) -> BySeed:
    return {seed: figure(seed) for seed in plan.seeds if method in plan.of_seed([method], seed)}


def half(
    plan: Plan, method: Method, datasets: Iterable[str], part: str, name: str = "accuracy", kind: str = ""
) -> BySeed:
    """A figure on base or new classes, mean over data sets, by seed."""
    datasets = list(datasets)
    return _by_seed(
        plan, method, lambda seed: mean(_figure(plan.half(method, d, seed, part, kind), name) for d in datasets)
    )


def elsewhere(plan: Plan, method: Method, datasets: Iterable[str]) -> BySeed:
    """Accuracy on data sets of what was trained on the source, mean over them, by seed."""
    datasets = list(datasets)
    return _by_seed(plan, method, lambda seed: mean(_figure(plan.tested_on(method, d, seed)) for d in datasets))


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
    text = (
        "VSD, the paper's semantic decoupling: each template has views of its own and losses that keep it apart from "
        "the others (2) and near the hand-written one (3). DSTC, its trusted classification: each template gives an "
        "opinion, Dempster's rule fuses them, loss (7) trains them.\n\nWhat each part changes, in points (mean and "
        f"standard deviation of the seeds' differences, average of {_names(plan.ablated)}), and by what factor it "
        "makes training longer, without encoding the pictures (a factor below 1.2 is within what the machine varies):"
    )
    return text + "\n\n" + table(rows, ["", "Base", "New", "HM", "time"])


def _base_to_new(plan: Plan) -> str:
    """The paper's Table 1: on average, and for each data set."""
    rows = []
    for method in METHODS:
        base, new = (half(plan, method, plan.sets, part) for part in ("base", "new"))
        seconds = _seconds(plan, method) if method.train else ""
        rows.append([method.title, show(base), show(new), f"{hm(base, new):.2f}", seconds])
    text = [
        f"Average of {len(plan.sets)} data sets. Seconds are of a training, average of {_names(plan.ablated)}; those "
        "of MaPLe and coupled CDC, with prompts in the image encoder too, include encoding the pictures.",
        table(rows, ["", "Base", "New", "HM", "seconds"]),
    ]
    header = ["", *map(display_name, plan.sets)]
    for part in ("base", "new"):
        rows = [[m.title, *(show(half(plan, m, [d], part)) for d in plan.sets)] for m in METHODS]
        text += [f"Accuracy on {part} classes:", table(rows, header)]
    rows = []
    for method in METHODS:
        means = [hm(*(half(plan, method, [d], part) for part in ("base", "new"))) for d in plan.sets]
        rows.append([method.title, *(f"{value:.2f}" for value in means)])
    return "\n\n".join([*text, "Harmonic mean:", table(rows, header)])


def _cross_data_set(plan: Plan) -> str:
    """The paper's Tables 2 and 3."""
    source, *targets = plan.sets
    text = []
    for title, names in (("the other data sets", targets), ("its variants", plan.variants)):
        rows = []
        for method in (*METHODS, START):
            cells = [elsewhere(plan, method, [d]) for d in (source, *names)] + [elsewhere(plan, method, names)]
            rows.append([method.title, *map(show, cells)])
        header = ["", f"{display_name(source)} (source)", *map(display_name, names), f"average of {len(names)}"]
        text += [f"Trained on all classes of `{source}`, tested on {title}:", table(rows, header)]
    text.append(
        "Zero-shot CLIP has a hand-written template for each set, as in CoOp's code; what was trained on the source "
        "brings its own words, which CDC before training has too. The pictures of `shapes_a` are those that zero-shot "
        "CLIP gets wrong most surely."
    )
    return "\n\n".join(text)


def _ablation(plan: Plan) -> str:
    rows = []
    for method in ABLATION:
        base, new = (half(plan, method, plan.ablated, part) for part in ("base", "new"))
        unsure = mean(half(plan, method, plan.ablated, "new", "uncertainty").values())
        rows.append(
            [method.title, show(base), show(new), f"{hm(base, new):.2f}", f"{unsure:.3f}", _seconds(plan, method)]
        )
    text = (
        f"Average of {_names(plan.ablated)}. Without DSTC templates learn by plain cross-entropy and predict by the "
        "mean of their logits (`TRAINER.CDC.DECISION mean`). Uncertainty is that of the prediction on new "
        "classes, from 0 to 1, (5). Seconds are of a training, without encoding its views."
    )
    return text + "\n\n" + table(rows, ["", "Base", "New", "HM", "uncertainty", "seconds"])


def _numbers(plan: Plan) -> str:
    rows = []
    for number in plan.numbers:
        method = templates(number)
        base, new = (half(plan, method, plan.ablated, part) for part in ("base", "new"))
        rows.append([str(number), show(base), show(new), f"{hm(base, new):.2f}", _seconds(plan, method)])
    text = (
        f"CDC with M text templates, average of {_names(plan.ablated)}; seconds as above. With M grow the wordings "
        "that templates start from and, up to four, the kinds of views; one template sees plain pictures."
    )
    return text + "\n\n" + table(rows, ["M", "Base", "New", "HM", "seconds"])


def draw_numbers(plan: Plan, path: Path) -> None:
    """Accuracy over the number of templates, and what training costs."""
    figure = Figure(figsize=(8, 3.2))
    left, right = figure.subplots(1, 2)
    for part, colour in (("base", "C0"), ("new", "C1")):
        values = [half(plan, templates(n), plan.ablated, part) for n in plan.numbers]
        _curve(left, plan.numbers, values, colour, part)
    left.set_ylabel("accuracy (%)")
    left.legend()
    seconds = [training_seconds(plan, templates(number)) for number in plan.numbers]
    _curve(right, plan.numbers, seconds, "C2", "seconds")
    right.set_ylabel("seconds of training")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.set_xlabel("templates")
        axis.set_xticks(plan.numbers)
        _style(axis)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _curve(axis: Axes, x: Iterable[int], values: list[BySeed], colour: str, label: str, style: str = "-") -> None:
    means = [mean(by_seed.values()) for by_seed in values]
    spread = [stdev(by_seed.values()) if len(by_seed) > 1 else 0.0 for by_seed in values]
    axis.errorbar(
        list(x), means, spread, color=colour, linestyle=style, marker="o", markersize=4, capsize=2, label=label
    )


def _style(axis: Axes) -> None:
    axis.grid(color="0.9")
    axis.set_axisbelow(True)


def _epochs(plan: Plan) -> str:
    return (
        "Base (solid) and new accuracy (dashed) of CoOp and CDC, each trained for "
        f"{plan.curve_epochs[-1]} epochs (in all other tables CoOp has its published 50, CDC 10) at its own learning "
        "rate, as in the paper's Figure 1b; dotted: zero-shot CLIP, thin on base and thick on new classes."
    )


def draw_epochs(plan: Plan, path: Path) -> None:
    """Accuracy over the epochs, a panel for each data set."""
    figure = Figure(figsize=(4 * len(plan.curve_sets), 3.6))
    for axis, dataset in zip(figure.subplots(1, len(plan.curve_sets), squeeze=False)[0], plan.curve_sets):
        for part, style in (("base", "-"), ("new", "--")):
            for index, method in enumerate(CURVES):
                values = [
                    half(plan, at_epoch(method, epoch), [dataset], part, kind="test") for epoch in plan.curve_epochs
                ]
                _curve(axis, plan.curve_epochs, values, f"C{index}", f"{method.title}, {part}", style)
            zero_shot = half(plan, ZERO_SHOT, [dataset], part)
            axis.axhline(mean(zero_shot.values()), color="0.4", linestyle=":", linewidth=1 if part == "base" else 2)
        axis.set_title(display_name(dataset))
        axis.set_xlabel("epoch")
        axis.set_ylabel("accuracy (%)")
        _style(axis)
    n_columns = 2 * min(len(plan.curve_sets), 2)
    figure.tight_layout(rect=(0, 0.36 / n_columns, 1, 1))
    figure.legend(
        *axis.get_legend_handles_labels(), loc="lower center", ncols=n_columns, frameon=False, fontsize="small"
    )
    figure.savefig(path, dpi=110)


def best_template(plan: Plan, method: Method, part: str) -> BySeed:
    """Accuracy of the template that is best in each run, mean over the ablation's data sets, by seed."""

    def best(dataset: str, seed: int) -> float:
        return max(_figure(plan.half(method, dataset, seed, part), f"template{m}_accuracy") for m in range(1, 5))

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
    text = (
        "Similarity is the mean cosine of a class's embeddings under two templates; beside it stand the mean of the "
        "four templates' own accuracies, that of the template which turned out best in each run (known only after the "
        f"test), and that of the fused prediction. Average of {_names(plan.ablated)}."
    )
    names = ("similarity", "mean template", "best template", "fused")
    return text + "\n\n" + table(rows, ["beta", *(f"{part}: {name}" for part in ("base", "new") for name in names)])


def _confounded_figure(plan: Plan, method: Method, name: str, seed: int) -> float:
    return _figure(plan.trained_on(method, CONFOUNDED, seed), name)


def _confounded(plan: Plan) -> str:
    names = ("accuracy", "aligned_accuracy", "conflicting_accuracy", "worst_group_accuracy")
    rows = []
    for method in (*(method for method in METHODS if method != CDC), *ABLATION):
        cells = [_by_seed(plan, method, functools.partial(_confounded_figure, plan, method, name)) for name in names]
        rows.append([method.title, *map(show, cells)])
    text = (
        "`confounded`, all classes: in training the background of nine in ten images follows the class, in the test it "
        "is independent. *Aligned* test images have the background that their class had in training, *conflicting* "
        "ones another; the groups are the pairs of these two backgrounds."
    )
    return text + "\n\n" + table(rows, ["", "accuracy", "aligned", "conflicting", "worst group"])


def _choice() -> str:
    """The grids that the settings were chosen from."""
    text = [
        "On further pictures of base classes that are in no part of a set, with half of these classes as *pseudo-new* "
        "ones (`tools.sweep.search`); never on new classes or test images. CoOp, CoCoOp and MaPLe have the published "
        "settings but for the crops, without which they are better here, and for MaPLe's learning rate and epochs; of "
        "learning rates only CoOp's, MaPLe's and those of CDC were searched. CDC has the most settings, and the most "
        "were tried for it. Of what the tables below put first not all is used: CDC's views differ from template to "
        "template, as the method has them, where plain pictures are better; GAMMA is 1, which is steadier; coupled CDC "
        "keeps the published rate and epochs, as all that were tried are level."
    ]
    for path in sorted((ROOT / "docs").glob(SEARCHES)):
        search = json.loads(path.read_text())
        rows = [[cell if isinstance(cell, str) else f"{cell:.2f}" for cell in row] for row in search["rows"]]
        text += [f"`{search['command']}`:", table(rows, search["header"])]
    return "\n\n".join(text)
