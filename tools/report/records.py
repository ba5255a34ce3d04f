"""Per-image records of tests, reduced to what the page draws.

Legend: N images of a test, C classes, M templates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.modules.uncertainty import calibration_bins, selective_risk, uncertainty_scores

Records = Mapping[str, NDArray[Any]]

BINS = 15  # of a reliability diagram, as of the expected calibration error
POINTS = 50  # of a curve of risk over coverage
BARS = 25  # of a histogram
LOWEST = -8.0  # log10 of the smallest uncertainty that a histogram distinguishes from none
PAIRS = 12  # of classes that are confused most often


def class_accuracy(records: Records, classes: int) -> list[float | None]:
    """Accuracy of each class in percent; None for one without images."""
    label = records["label"]
    total = np.bincount(label, minlength=classes)
    right = np.bincount(label[records["prediction"] == label], minlength=classes)
    return [None if not n else 100.0 * r / n for r, n in zip(right.tolist(), total.tolist())]


def confusions(runs: Sequence[Records]) -> list[tuple[int, int, float]]:
    """The pairs of classes that are confused most often: label, prediction, and mean number of images per run."""
    counts: Counter[tuple[int, int]] = Counter()
    for records in runs:
        wrong = records["prediction"] != records["label"]
        counts.update(zip(records["label"][wrong].tolist(), records["prediction"][wrong].tolist()))
    return [(label, found, count / len(runs)) for (label, found), count in counts.most_common(PAIRS)]


def reliability(runs: Sequence[Records]) -> list[tuple[int, float, float]]:
    """For each bin of confidence the number of images, their mean confidence and accuracy, in percent; runs pooled."""
    confidence = np.concatenate([records["confidence"] for records in runs])
    right = np.concatenate([records["prediction"] == records["label"] for records in runs])
    number, sure, correct = calibration_bins(confidence, right, BINS)
    several = np.maximum(number, 1)
    return list(zip(number.astype(int).tolist(), (100 * sure / several).tolist(), (100 * correct / several).tolist()))


def risk_curves(runs: Sequence[Records]) -> dict[str, list[float]]:
    """For each score the error in percent at coverages of 1 / POINTS to 1, in the mean over runs."""
    curves: dict[str, list[NDArray[np.float64]]] = {}
    for records in runs:
        wrong = records["prediction"] != records["label"]
        at = np.maximum(1, np.ceil(np.arange(1, POINTS + 1) / POINTS * len(wrong) - 1e-9).astype(int)) - 1
        for name, score in uncertainty_scores(records).items():
            curves.setdefault(name, []).append(100.0 * selective_risk(score, wrong)[at])
    return {name: np.mean(found, axis=0).tolist() for name, found in curves.items() if len(found) == len(runs)}


def histograms(runs: Sequence[Records]) -> dict[str, dict[str, list[float]]]:
    """How right and how wrong predictions spread over a score, each in percent of its kind: BARS bars, runs pooled.

    Returns:
        "confidence", bars over 0 to 1, and, if the method has it, "uncertainty", bars over its log10 from LOWEST to 0;
        each has "right", "wrong" and, for open-set tests, "out"; a kind without images is missing.
    """
    right = np.concatenate([records["prediction"] == records["label"] for records in runs])
    out = np.concatenate([records.get("out", np.zeros(len(records["label"]), dtype=bool)) for records in runs])
    kinds = {"right": right & ~out, "wrong": ~right & ~out, "out": out}
    found = {}
    for name in ("confidence", "uncertainty"):
        if all(name in records for records in runs):
            values = np.concatenate([records[name] for records in runs]).astype(np.float64)
            if name == "uncertainty":
                values = 1.0 - np.log10(np.maximum(values, 10.0**LOWEST)) / LOWEST
            index = np.clip((values * BARS).astype(int), 0, BARS - 1)
            found[name] = {
                kind: (100.0 * np.bincount(index[chosen], minlength=BARS) / chosen.sum()).tolist()
                for kind, chosen in kinds.items()
                if chosen.any()
            }
    return found


def template_metrics(runs: Sequence[Records]) -> dict[str, Any]:
    """What the templates say by themselves, in percent and in the mean over runs; {} for a method without templates.

    Returns:
        "accuracy" of each template, "fused", "mean" and "best" (that of each run), and "agreement", `(M, M)`: how often
        two templates predict the same class.
    """
    numbers = {records["template_prediction"].shape[1] for records in runs if "template_prediction" in records}
    if len(numbers) != 1 or any("template_prediction" not in records for records in runs):
        return {}
    own, fused, agreement = [], [], []
    for records in runs:
        predictions = records["template_prediction"]  # (N, M)
        own.append(100.0 * (predictions == records["label"][:, None]).mean(axis=0))
        fused.append(100.0 * (records["prediction"] == records["label"]).mean())
        agreement.append(100.0 * (predictions[:, :, None] == predictions[:, None, :]).mean(axis=0))
    return {
        "accuracy": np.mean(own, axis=0).tolist(),
        "fused": float(np.mean(fused)),
        "mean": float(np.mean(own)),
        "best": float(np.mean([accuracies.max() for accuracies in own])),
        "agreement": np.mean(agreement, axis=0).tolist(),
    }


def most_conflict(records: Records, number: int) -> list[int]:
    """The images on which the templates' opinions conflict most; none for a method without conflict."""
    if "conflict" not in records:
        return []
    return np.argsort(-records["conflict"], kind="stable")[:number].tolist()


def certain_mistakes(records: Records, number: int) -> list[int]:
    """The wrong predictions of the highest confidence."""
    wrong = np.flatnonzero(records["prediction"] != records["label"])
    return wrong[np.argsort(-records["confidence"][wrong], kind="stable")][:number].tolist()


def judged_differently(records: Records, others: Records, number: int) -> list[int]:
    """The images on which one of two methods is right and the other wrong, the most certain of the wrong ones first.

    Args:
        records, others: records of two tests on the same images in the same order.
        number: at most how many images, half of them for each method that is right.
    """
    right, other_right = (found["prediction"] == found["label"] for found in (records, others))
    chosen: list[int] = []
    for only, confidence in (
        (right & ~other_right, others["confidence"]),
        (other_right & ~right, records["confidence"]),
    ):
        images = np.flatnonzero(only)
        chosen += images[np.argsort(-confidence[images], kind="stable")][: (number + 1) // 2].tolist()
    return chosen[:number]
