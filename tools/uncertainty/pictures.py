"""Pictures of calibration, error detection and open sets, each drawn into axes that the caller has.

All are drawn from what a test kept of each image (`trainers.modules.predictions`), for any trainer alike. The colours
are Okabe and Ito's, which colour-blind people tell apart; lines also differ in their dashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from storage.safe_text import escaped
from tools.common import colours
from trainers.modules.predictions import split_open_set
from trainers.modules.uncertainty import (
    aurc,
    auroc,
    calibration_bins,
    expected_calibration_error,
    selective_risk,
    uncertainty_scores,
)

Records = Mapping[str, NDArray[Any]]

# What a score is called in pictures and tables
SCORES = {
    "confidence": "1 - confidence",
    "entropy": "entropy",
    "uncertainty": "uncertainty U",
    "conflict": "conflict",
    "doubt": "doubt",
    "disagreement": "disagreement",
}
BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000"
COLOURS = dict(zip(SCORES, (BLUE, SKY, ORANGE, GREEN, BLACK, PURPLE)))
DASHES = dict(zip(SCORES, ("-", (0, (5, 1)), "-", (0, (3, 1, 1, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1)))))
GREY = "#8C8C8C"
FLOOR = 1e-6  # scores below it are drawn there
ROW = (12.5, 3.9)  # inches of a run's pictures


class Kind(NamedTuple):
    """A kind of images in a histogram of a score."""

    name: str
    colour: str
    dashes: Any


KINDS = {
    "right": Kind("right", colours.KINDS["right"], "-"),
    "wrong": Kind("wrong", colours.KINDS["wrong"], (0, (5, 1))),
    "near": Kind("new classes", colours.KINDS["near"], (0, (3, 1, 1, 1))),
    "far": Kind("other data sets", colours.KINDS["far"], (0, (1, 1))),
}


def own_score(records: Records) -> str:
    """The score that a method has of its own, `uncertainty`; of one without it `confidence`."""
    return "uncertainty" if "uncertainty" in records else "confidence"


def score_of(records: Records, score: str) -> NDArray[np.float64]:
    """One score of each image.

    Raises:
        ValueError: the records have no such score.
    """
    scores = uncertainty_scores(records)
    if score not in scores:
        raise ValueError(f"the score must be one of {', '.join(scores)}, got {score!r}")
    return scores[score]


def draw_reliability(axis: Axes, below: Axes, records: Records, bins: int = 15) -> None:
    """A reliability diagram: the accuracy in each bin of confidence, and below it how many images each bin has.

    Args:
        axis: of the diagram.
        below: of the histogram; its x axis should be that of the diagram.
        records: of images of known classes.
        bins: as of `expected_calibration_error`.
    """
    confidence, correct = records["confidence"], records["prediction"] == records["label"]
    counts, sure, right = calibration_bins(confidence, correct, bins)
    filled = np.flatnonzero(counts)
    middles, width = (filled + 0.5) / bins, 1 / bins
    accuracy, mean_confidence = right[filled] / counts[filled], sure[filled] / counts[filled]
    axis.bar(middles, accuracy, width, color=BLUE, edgecolor="white", linewidth=0.5)
    axis.bar(
        middles,
        mean_confidence - accuracy,
        width,
        bottom=accuracy,
        facecolor="none",
        edgecolor=ORANGE,
        hatch="////",
        linewidth=0.8,
    )
    axis.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    gap = Patch(facecolor="none", edgecolor=ORANGE, hatch="////")
    axis.legend([Patch(color=BLUE), gap], ["accuracy", "gap to confidence"], loc="upper left", frameon=False)
    axis.set(ylim=(0, 1), ylabel="accuracy")
    error = 100 * expected_calibration_error(confidence, correct, bins)
    axis.set_title(f"Reliability: ECE {error:.1f}%")
    axis.tick_params(labelbottom=False)

    below.bar((np.arange(bins) + 0.5) / bins, 100 * counts / counts.sum(), width, color=GREY, edgecolor="white")
    below.axvline(float(correct.mean()), color=BLUE, linewidth=1.5)
    below.axvline(float(confidence.mean()), color=ORANGE, linestyle="--", linewidth=1.5)
    below.set(xlim=(0, 1), xlabel="confidence (lines: mean accuracy, mean confidence)", ylabel="images (%)")


def draw_risk_coverage(axis: Axes, records: Records) -> None:
    """The error among the most certain images over how many are kept, for each score and for a perfect one.

    Args:
        records: of images of known classes.
    """
    wrong = records["prediction"] != records["label"]
    coverage = 100 * np.arange(1, len(wrong) + 1) / len(wrong)
    for name, score in uncertainty_scores(records).items():
        label = f"{SCORES.get(name, name)}: AURC {100 * aurc(score, wrong):.1f}%"
        (line,) = axis.plot(coverage, 100 * selective_risk(score, wrong), label=label, linewidth=1.6)
        line.set(color=COLOURS.get(name, BLACK), linestyle=DASHES.get(name, "-"))
    best = 100 * selective_risk(wrong.astype(float), wrong)
    axis.plot(coverage, best, color=GREY, linestyle="--", linewidth=1, label="best possible")
    axis.set(xlim=(0, 100), xlabel="coverage: most certain images kept (%)", ylabel="error among them (%)")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize="small")
    axis.set_title("Risk and coverage")


def draw_score(axis: Axes, records: Records, others: Mapping[str, Records], score: str) -> None:
    """Histograms of a score for images of known classes, predicted rightly and wrongly, and for other images.

    Each kind has its own 100%. The legend says how well the score tells each kind from those predicted rightly, and
    other images from all of known classes.

    Args:
        records: of images of known classes.
        others: of other images, by the name of their set; all but near are far.
        score: its name.

    Raises:
        ValueError: the records have no such score.
    """
    values, wrong = score_of(records, score), records["prediction"] != records["label"]
    far = [score_of(part, score) for name, part in others.items() if name != "near"]
    shown = {"right": values[~wrong], "wrong": values[wrong]}
    shown.update({"near": score_of(others["near"], score)} if "near" in others else {})
    shown.update({"far": np.concatenate(far)} if far else {})
    shown = {name: own for name, own in shown.items() if len(own)}
    logarithmic = score != "disagreement"
    edges = _edges(np.concatenate([*shown.values()]), logarithmic)
    for name, own in shown.items():
        kind = KINDS[name]
        known = shown.get("right") if name == "wrong" else values
        share, _ = np.histogram(np.clip(own, edges[0], edges[-1]), edges)
        label = f"{kind.name}, {len(own):,}{_auroc(known, own) if name != 'right' else ''}"
        heights = 100 * share / len(own)
        axis.stairs(heights, edges, color=kind.colour, linestyle=kind.dashes, linewidth=1.6, label=label)
        if name in ("right", "wrong"):
            axis.stairs(heights, edges, color=kind.colour, fill=True, alpha=0.15)
    if logarithmic:
        axis.set_xscale("log")
    axis.set(xlim=(edges[0], edges[-1]), xlabel=f"{SCORES.get(score, score)} (right: less certain)")
    axis.set_ylabel("images of each kind (%)")
    axis.set_ylim(bottom=0, top=1.45 * axis.get_ylim()[1])  # room for the legend
    axis.legend(frameon=False, fontsize="small", loc="upper left")
    axis.set_title(f"Kinds of images by {SCORES.get(score, score)}")


def draw_runs(runs: Mapping[str, Records], path: str | Path, score: str = "", bins: int = 15) -> None:
    """Draw a row of pictures for each run: reliability, risk and coverage, and a score by kind of image.

    Args:
        runs: records of a test by the title of the run.
        path: the picture's; its ending says which format.
        score: the score of the last picture; by default each run's `own_score`.
        bins: of the reliability diagram.

    Raises:
        ValueError: there is no run, a run has no such score, or the ending names no format of pictures.
    """
    if not runs:
        raise ValueError("there must be at least one run to draw, got none")
    figure = Figure(figsize=(ROW[0], ROW[1] * len(runs)), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise ValueError(f"a picture's name must end in one of .{', .'.join(sorted(formats))}, got {path}")
    rows = figure.subfigures(len(runs), 1, squeeze=False)[:, 0]
    for (title, records), row in zip(runs.items(), rows):
        known, others = split_open_set(records)
        row.suptitle(escaped(title), fontweight="bold", fontsize="medium")
        mosaic = [["reliability", "risk", "score"], ["confidence", "risk", "score"]]
        axes = row.subplot_mosaic(mosaic, height_ratios=[3, 1])
        axes["confidence"].sharex(axes["reliability"])
        draw_reliability(axes["reliability"], axes["confidence"], known, bins)
        draw_risk_coverage(axes["risk"], known)
        draw_score(axes["score"], known, others, score or own_score(known))
    figure.savefig(path, dpi=110)


def _edges(values: NDArray[np.float64], logarithmic: bool, bins: int = 25) -> NDArray[np.float64]:
    """Edges of bins of equal width, on a logarithmic axis of equal ratio, that hold all values from `FLOOR` on."""
    if not logarithmic:
        return np.linspace(0, max(1.0, values.max()), bins + 1)
    low, high = max(FLOOR, values.min()), max(2 * FLOOR, values.max())
    return np.geomspace(min(low, high / 2), high, bins + 1)


def _auroc(known: NDArray[np.float64] | None, others: NDArray[np.float64]) -> str:
    """How well a score tells others from known ones, for a legend; empty where there are none."""
    if known is None or not len(known):
        return ""
    positive = np.arange(len(known) + len(others)) >= len(known)
    return f": AUROC {100 * auroc(np.concatenate([known, others]), positive):.1f}%"
