"""The picture of a search: how much each setting matters, and what each of its values brought."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from storage.files import atomic_write
from storage.safe_text import escaped
from tools.search.outcome import Trial
from tools.search.plan import Search
from tools.search.space import Parameter

BLUE, ORANGE, GREY, BLACK = "#0072B2", "#E69F00", "#8C8C8C", "#000000"
COLUMNS = 3
LONGEST = 16  # characters of a choice
PANEL = (4.3, 3.1)  # inches


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each setting in how finished trials differ, by Optuna's fANOVA; empty where there are too few."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    except (ValueError, RuntimeError):
        return {}


def draw(search: Search, trials: Sequence[Trial], shares: Mapping[str, float], path: Path) -> None:
    """Draw the picture.

    Args:
        search: of which the trials are.
        trials: from `outcome.trials_of`.
        shares: from `importances`.
        path: of the picture, whose suffix says the format.
    """
    panels = 1 + len(search.space.parameters)
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    _draw_importances(axes[0], search, shares)
    for own, parameter in zip(axes[1:], search.space.parameters):
        _draw_slice(own, parameter, trials)
    for empty in axes[panels:]:
        empty.set_axis_off()
    if panels > 1:
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(
        f"{search.trainer}/{escaped(search.config)} on {escaped(', '.join(search.smaller))}: HM of pseudo-base and "
        "pseudo-new classes"
    )
    with atomic_write(path) as part:
        figure.savefig(part, dpi=110, format=path.suffix.lstrip("."))


def _draw_importances(axes: Axes, search: Search, shares: Mapping[str, float]) -> None:
    axes.set_title("Importance (fANOVA)")
    if not shares:
        axes.text(0.5, 0.5, "too few finished trials", ha="center", va="center", transform=axes.transAxes, color=GREY)
        axes.set_axis_off()
        return
    names = {parameter.key: parameter.name for parameter in search.space.parameters}
    ordered = sorted(shares.items(), key=lambda item: item[1])
    bars = axes.barh([names.get(key, key) for key, _ in ordered], [share for _, share in ordered], color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.15 * max(shares.values()))
    axes.spines[["top", "right"]].set_visible(False)


def _draw_slice(axes: Axes, parameter: Parameter, trials: Sequence[Trial]) -> None:
    """HM by the values of one setting; trials that were pruned with what they had when they were."""
    scored = [trial for trial in trials if trial.score and parameter.key in trial.values]
    places = {choice: place for place, choice in enumerate(parameter.choices)}
    kinds = {
        "pruned": {"marker": "x", "color": GREY, "s": 22},
        "finished": {"marker": "o", "color": BLUE, "s": 24, "alpha": 0.75},
    }
    for state, style in kinds.items():
        chosen = [trial for trial in scored if trial.state == state]
        _scatter(axes, parameter, chosen, places, label=state, **style)
    _scatter(axes, parameter, [t for t in scored if t.own], places, label="the config as it is", **_ring(BLACK, 190))
    best = [trial for trial in scored if trial.state == "finished"][:1]
    _scatter(axes, parameter, best, places, label="the best", **_ring(ORANGE, 90))
    axes.set_title(parameter.name)
    if parameter.choices:
        names = [escaped(str(choice)) for choice in parameter.choices]
        axes.set_xticks(range(len(names)), [n if len(n) <= LONGEST else f"{n[: LONGEST - 1]}…" for n in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif parameter.whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif parameter.log:
        axes.set_xscale("log")
    axes.set_ylabel("HM")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def _ring(colour: str, size: float) -> dict[str, object]:
    return {"marker": "o", "facecolors": "none", "edgecolors": colour, "s": size, "linewidths": 1.8}


def _scatter(axes: Axes, parameter: Parameter, trials: Sequence[Trial], places: Mapping, **style: object) -> None:
    values = [trial.values[parameter.key] for trial in trials]
    heights = [trial.score.mean for trial in trials if trial.score]
    axes.scatter([places[value] for value in values] if places else values, heights, **style)  # type: ignore[arg-type]
