"""The pictures of the study's page. Each is written as far as its runs are there, and not at all where none is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.common.colours import Style, trainer_colours
from tools.results.curves import draw_line, put_grid
from tools.results.published import display_name
from tools.study.intervals import Statistic
from tools.study.measured import BASE, NEW, Measured, Where, value
from tools.study.methods import CDC, CURVES, ZERO_SHOT, Method, at_epoch, templates
from tools.study.tables import ACCURACIES, OTHERS

DASHES = {"base": "solid", "new": "dash"}
HALVES = {"base": BASE, "new": NEW}
Draw = Callable[[Measured, Path], bool]


def draw_differences(measured: Measured, path: Path) -> bool:
    """CDC minus each other system with its intervals, a panel for each accuracy; returns whether there is a picture."""
    figure = Figure(figsize=(9, 0.9 + 0.3 * len(OTHERS)))
    colors = trainer_colours(method.trainer for method in OTHERS)
    drawn = False
    for axis, (name, score) in zip(figure.subplots(1, len(ACCURACIES), sharey=True), ACCURACIES.items()):
        for row, other in enumerate(OTHERS):
            found = measured.difference(CDC, other, measured.plan.sets, measured.halves(), score)
            if found.interval is not None:
                drawn = True
                bounds = (found.interval.low, found.interval.high)
                axis.plot(bounds, (row, row), color=colors[other.trainer], linewidth=2)
                face = colors[other.trainer] if found.is_real else "white"
                axis.plot(found.interval.estimate, row, "o", color=colors[other.trainer], markerfacecolor=face)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(name)
        axis.set_xlabel("points")
        put_grid(axis)
    axis.set_yticks(range(len(OTHERS)), [other.title for other in OTHERS])
    axis.set_ylim(len(OTHERS) - 0.5, -0.5)
    figure.tight_layout()
    return drawn and _save(measured, figure, path)


def draw_numbers(measured: Measured, path: Path) -> bool:
    """Accuracy over the number of templates, and what training costs; returns whether there is a picture."""
    figure = Figure(figsize=(8, 3.2))
    left, right = figure.subplots(1, 2)
    color, points = trainer_colours(["CDC"])["CDC"], [(n, templates(n)) for n in measured.plan.numbers]
    sets = measured.plan.ablated
    drawn = [
        _curve(left, measured, points, sets, measured.halves(), score, Style(color, dash=DASHES[part]), part)
        for part, score in HALVES.items()
    ]
    left.set_ylabel("accuracy (%)")
    where = measured.half("base", "train_seconds")
    drawn.append(_curve(right, measured, points, sets, where, value(0), Style(color), "seconds"))
    right.set_ylabel("seconds of training")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.set_xlabel("templates")
        axis.set_xticks(measured.plan.numbers)
        put_grid(axis)
    if not any(drawn):
        return False
    left.legend()
    figure.tight_layout()
    return _save(measured, figure, path)


def draw_epochs(measured: Measured, path: Path) -> bool:
    """Accuracy over the epochs, a panel for each data set and half; returns whether there is a picture."""
    plan = measured.plan
    figure = Figure(figsize=(4 * len(plan.curve_sets), 6))
    colors, drawn = trainer_colours(method.trainer for method in (*CURVES, ZERO_SHOT)), []
    axes = figure.subplots(len(HALVES), len(plan.curve_sets), squeeze=False, sharex=True)
    for row, (part, score) in zip(axes, HALVES.items()):
        for axis, dataset in zip(row, plan.curve_sets):
            for method in CURVES:
                points = [(epoch, at_epoch(method, epoch)) for epoch in plan.curve_epochs]
                style = Style(colors[method.trainer], dash="dash" if method.tag.startswith("beta0") else "solid")
                where = measured.halves()
                drawn.append(_curve(axis, measured, points, [dataset], where, score, style, method.title))
            zero_shot = measured.by_seed(ZERO_SHOT, [dataset], measured.halves())
            for values in list(zero_shot.values())[:1]:
                axis.axhline(score(values[0]), color=colors[ZERO_SHOT.trainer], linestyle=":")
            axis.set_title(f"{display_name(dataset)}, {part}")
            axis.set_ylabel("accuracy (%)")
            put_grid(axis)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    if not any(drawn):
        return False
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    handles = dict(zip(*reversed(axes[0][0].get_legend_handles_labels())))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=2, frameon=False, fontsize="small")
    return _save(measured, figure, path)


def _curve(
    axis: Axes,
    measured: Measured,
    points: Sequence[tuple[int, Method]],
    datasets: Sequence[str],
    where: Where,
    score: Statistic,
    style: Style,
    label: str,
) -> bool:
    """Mean and standard deviation at each point that is there; returns whether any is."""
    found = {}
    for x, method in points:
        values = [float(score(each.mean(axis=0))) for each in measured.by_seed(method, datasets, where).values()]
        if values:
            found[x] = (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)
    if found:
        means, deviations = zip(*found.values())
        draw_line(axis, list(found), means, deviations, style, label)
    return bool(found)


def _save(measured: Measured, figure: Figure, path: Path) -> bool:
    """Write a picture; across that of a trial stands that it is one."""
    if measured.plan.is_trial:
        figure.text(
            0.5, 0.5, "a trial: means nothing", color="C3", alpha=0.6, size=28, rotation=15, ha="center", va="center"
        )
    figure.savefig(path, dpi=110)
    return True
