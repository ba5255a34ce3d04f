"""How far a model's probabilities and uncertainties can be trusted: calibration, error detection, open sets.

All functions take what a test kept of each image (`predictions.py`), as NumPy arrays or CPU tensors. A score says how
uncertain a prediction is: the higher, the less certain.

Legend: N images, M templates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

COVERAGE = 0.8  # share of the images at which selective accuracy is reported
KEPT = 0.95  # share of the images of known classes that a threshold keeps


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error with equal bins and the L1 norm (Guo et al., ICML 2017, eq. (3)).

    `sum_b n_b / N |accuracy_b - mean confidence_b|`, over all images at once. Bin b holds `b / bins <= confidence <
    (b + 1) / bins`, as in torchmetrics, and the last one 1 as well, for which torchmetrics has a bin of its own.

    Args:
        confidence: `(N,)`, in [0, 1].
        correct: `(N,)`, whether each prediction is right.
        bins: how many, at least 1.

    Returns:
        In [0, 1].

    Raises:
        ValueError: the arrays do not fit, or values are out of range.
    """
    counts, sure, right = calibration_bins(confidence, correct, bins)
    return float(np.abs(right - sure).sum() / counts.sum())


def calibration_bins(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> tuple[Floats, Floats, Floats]:
    """What a reliability diagram shows: sums over the images in each bin of `expected_calibration_error`.

    Returns:
        Each `(bins,)`: the number of images; the sum of their confidence; how many of them are predicted rightly.

    Raises:
        ValueError: as `expected_calibration_error`.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    values, right = _numbers("confidence", confidence), _flags("correct", correct)
    _check_same(confidence=values, correct=right)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"confidence must lie in 0 to 1, got {values.min()} to {values.max()}")
    edges = np.linspace(0, 1, bins + 1)
    index = np.minimum(np.searchsorted(edges, values, side="right") - 1, bins - 1)

    def sums(weights: Floats) -> Floats:
        return np.bincount(index, weights, bins).astype(np.float64)

    return sums(np.ones(len(values))), sums(values), sums(right.astype(np.float64))


def negative_log_likelihood(label_log_prob: ArrayLike) -> float:
    """Mean of `-log P(label)`, in nats, of log-probabilities `(N,)`; infinite where one of them is -inf.

    Raises:
        ValueError: one is not a number, or above 0.
    """
    return -float(_log_probabilities(label_log_prob).mean()) + 0.0


def brier_score(label_log_prob: ArrayLike, sum_of_squares: ArrayLike) -> float:
    """Mean over images of `sum_c (P(c) - [c is the label])^2` (Brier, 1950): `sum_c P(c)^2 - 2 P(label) + 1`.

    Args:
        label_log_prob: `(N,)`, log-probability of the label, -inf for none.
        sum_of_squares: `(N,)`, sum over classes of squared probabilities.

    Returns:
        In [0, 2].

    Raises:
        ValueError: the arrays do not fit, or log-probabilities are above 0 or not a number.
    """
    log_prob, squares = _log_probabilities(label_log_prob), _numbers("sum_of_squares", sum_of_squares)
    _check_same(label_log_prob=log_prob, sum_of_squares=squares)
    return max(0.0, float((squares - 2 * np.exp(log_prob) + 1).mean()))


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive image has a higher score than a negative one; ties count one half.

    Args:
        score: `(N,)`.
        positive: `(N,)`, as whether a prediction is wrong, or an image of no known class.

    Returns:
        In [0, 1].

    Raises:
        ValueError: the arrays do not fit, a score is not finite, or all images are of one kind.
    """
    return float(roc_auc_score(*_two_kinds(score, positive)[::-1]))


def aupr(score: ArrayLike, positive: ArrayLike) -> float:
    """Area under precision and recall as the average precision; arguments, range and errors as of `auroc`."""
    return float(average_precision_score(*_two_kinds(score, positive)[::-1]))


def false_positive_rate(score: ArrayLike, unknown: ArrayLike, kept: float = KEPT) -> float:
    """Share of unknown images that pass for known at the lowest threshold that keeps at least `kept` of the known ones.

    An image passes if its score is at most the threshold, so images with the same score pass together.

    Args:
        score: `(N,)`.
        unknown: `(N,)`, whether an image is of no known class.
        kept: in (0, 1].

    Returns:
        In [0, 1].

    Raises:
        ValueError: as `auroc`, and for `kept` out of range.
    """
    _check_share("kept", kept)
    values, out = _two_kinds(score, unknown)
    known = np.sort(values[~out])
    threshold = known[fewest_of_share(kept, len(known)) - 1]
    return float((values[out] <= threshold).mean())


def selective_risk(score: ArrayLike, wrong: ArrayLike) -> Floats:
    """Share of wrong predictions among the k most certain ones, for each k from 1 to N.

    Among images with the same score the order is left to chance, and the share is its mean over all orders. So it
    depends neither on the order of the images nor on how a sort treats ties.

    Args:
        score: `(N,)`.
        wrong: `(N,)`, whether each prediction is wrong.

    Returns:
        `(N,)`, in [0, 1]; the last one is the error of all.

    Raises:
        ValueError: the arrays do not fit, or a score is not finite.
    """
    values, errors = _numbers("score", score), _flags("wrong", wrong)
    _check_same(score=values, wrong=errors)
    order = np.argsort(values, kind="stable")
    values, found = values[order], np.cumsum(errors[order])
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # of each group of equal scores
    counts = np.arange(1, len(values) + 1)
    expected = np.interp(counts, np.append(0, last + 1), np.append(0, found[last]))
    risk: Floats = expected / counts
    return risk


def aurc(score: ArrayLike, wrong: ArrayLike) -> float:
    """Area under risk and coverage (Geifman and El-Yaniv, ICLR 2019): the mean of `selective_risk` over k = 1 to N."""
    return float(selective_risk(score, wrong).mean())


def excess_aurc(score: ArrayLike, wrong: ArrayLike) -> float:
    """E-AURC: `aurc` minus that of the best score, which puts all wrong predictions last.

    The best one is computed exactly, where Geifman and El-Yaniv (ICLR 2019) take `r + (1 - r) log(1 - r)` for the
    error r, its limit for many images.
    """
    return max(0.0, aurc(score, wrong) - aurc(_flags("wrong", wrong).astype(float), wrong))


def selective_accuracy(score: ArrayLike, wrong: ArrayLike, coverage: float = COVERAGE) -> float:
    """Accuracy of the `ceil(coverage N)` most certain predictions; arguments and ties as of `selective_risk`.

    Raises:
        ValueError: as `selective_risk`, or the coverage is not in (0, 1].
    """
    _check_share("coverage", coverage)
    risk = selective_risk(score, wrong)
    return 1.0 - float(risk[fewest_of_share(coverage, len(risk)) - 1])


def disagreement(template_prediction: ArrayLike, prediction: ArrayLike) -> Floats:
    """Share of templates that predict another class than all of them together, `(N,)` in [0, 1].

    Args:
        template_prediction: `(N, M)`.
        prediction: `(N,)`.

    Raises:
        ValueError: the shapes do not fit.
    """
    own, fused = np.asarray(template_prediction), np.asarray(prediction)
    if own.ndim != 2 or 0 in own.shape or fused.shape != own.shape[:1]:
        raise ValueError(
            f"predictions must have the shapes (images, templates) and (images,), got {own.shape} and {fused.shape}"
        )
    share: Floats = (own != fused[:, None]).mean(axis=1)
    return share


def uncertainty_scores(records: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """All scores that a test's records have, by name, each `(N,)`: the higher, the less certain.

    Returns:
        `confidence` (1 - confidence) and `entropy`; where the method has them `uncertainty`, `conflict` and `doubt`;
        with several templates their `disagreement`.
    """
    scores: dict[str, Floats] = {"confidence": 1.0 - np.asarray(records["confidence"], dtype=np.float64)}
    for name in ("entropy", "uncertainty", "conflict", "doubt"):
        if name in records:
            scores[name] = np.asarray(records[name], dtype=np.float64)
    templates = records.get("template_prediction")
    if templates is not None and templates.shape[1] > 1:
        scores["disagreement"] = disagreement(templates, records["prediction"])
    return scores


def calibration_metrics(records: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """How well probabilities fit the share of right predictions, of a test's records.

    Returns:
        In percent `mean_confidence`, `ece` (15 bins), `ece10` (10 bins) and `brier`; `nll` in nats, but not where it
        is infinite.

    Raises:
        ValueError: a record is not a number or out of range.
    """
    confidence, correct = records["confidence"], records["prediction"] == records["label"]
    ece, ece10 = (expected_calibration_error(confidence, correct, bins) for bins in (15, 10))
    nll = negative_log_likelihood(records["label_log_prob"])
    return {
        "mean_confidence": 100.0 * float(confidence.mean()),
        "ece": 100.0 * ece,
        "ece10": 100.0 * ece10,
        **({"nll": nll} if math.isfinite(nll) else {}),
        "brier": 100.0 * brier_score(records["label_log_prob"], records["sum_of_squares"]),
    }


def error_detection_metrics(records: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """How well each score of `uncertainty_scores` detects wrong predictions, in percent.

    Returns:
        For each score `auroc_error_<score>`, where there are both wrong and right predictions, `aurc_<score>`,
        `eaurc_<score>` and `acc80_<score>`, the accuracy at 80% coverage.

    Raises:
        ValueError: a score is not finite.
    """
    wrong = records["prediction"] != records["label"]
    metrics = {}
    for name, score in uncertainty_scores(records).items():
        if wrong.any() and not wrong.all():
            metrics[f"auroc_error_{name}"] = 100.0 * auroc(score, wrong)
        metrics[f"aurc_{name}"] = 100.0 * aurc(score, wrong)
        metrics[f"eaurc_{name}"] = 100.0 * excess_aurc(score, wrong)
        metrics[f"acc80_{name}"] = 100.0 * selective_accuracy(score, wrong)
    return metrics


def open_set_metrics(known: Mapping[str, NDArray[Any]], unknown: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """How well each score detects images of no known class, in percent.

    Args:
        known: records of a test on images of the model's classes.
        unknown: records of the same model under the same class names on other images; labels are not read.

    Returns:
        For each score that both have `auroc_open_<score>`, `aupr_open_<score>` (unknown images are the positive ones)
        and `fpr95_open_<score>`.

    Raises:
        ValueError: a score is not finite, or there are no images of one kind.
    """
    inside, outside = uncertainty_scores(known), uncertainty_scores(unknown)
    metrics = {}
    for name in inside:
        if name in outside:
            score = np.concatenate([inside[name], outside[name]])
            out = np.arange(len(score)) >= len(inside[name])
            metrics[f"auroc_open_{name}"] = 100.0 * auroc(score, out)
            metrics[f"aupr_open_{name}"] = 100.0 * aupr(score, out)
            metrics[f"fpr95_open_{name}"] = 100.0 * false_positive_rate(score, out)
    return metrics


def _numbers(name: str, values: ArrayLike) -> Floats:
    """Finite numbers `(N,)` in float64.

    Raises:
        ValueError: they are none.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"{name} must have the shape (images,), at least one, got {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(numbers))} values that are not")
    return numbers


def _flags(name: str, values: ArrayLike) -> Bools:
    """Truth values `(N,)`; 0 and 1 are taken for such.

    Raises:
        ValueError: they are none.
    """
    flags = np.asarray(values)
    if flags.ndim != 1 or not np.isin(flags, (0, 1)).all():
        raise ValueError(f"{name} must be truth values of the shape (images,), got {flags.dtype} of {flags.shape}")
    return flags.astype(np.bool_)


def _log_probabilities(values: ArrayLike) -> Floats:
    log_prob = np.asarray(values, dtype=np.float64)
    _numbers("log-probabilities", np.where(np.isneginf(log_prob), 0, log_prob))
    if log_prob.max() > 0:
        raise ValueError(f"log-probabilities must be at most 0, got {log_prob.max()}")
    return log_prob


def _two_kinds(score: ArrayLike, positive: ArrayLike) -> tuple[Floats, Bools]:
    values, flags = _numbers("score", score), _flags("positive", positive)
    _check_same(score=values, positive=flags)
    if flags.all() or not flags.any():
        raise ValueError(f"there must be images of both kinds, got {len(flags)} of one")
    return values, flags


def _check_same(**arrays: NDArray[Any]) -> None:
    if len({len(values) for values in arrays.values()}) > 1:
        sizes = ", ".join(f"{name} of {len(values)}" for name, values in arrays.items())
        raise ValueError(f"the arrays must be of the same images, got {sizes}")


def _check_share(name: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {share}")


def fewest_of_share(share: float, n: int) -> int:
    """The smallest number of n images, at least 1, that is at least a share of them; rounding does not add one."""
    return max(1, math.ceil(share * n - 1e-9 * n))
