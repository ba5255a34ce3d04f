"""Leaving out what is too uncertain: thresholds of a score from images whose labels are known.

A score says how uncertain a prediction is: the higher, the less certain. An image is kept if its score is at most the
threshold.

Legend: N images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .uncertainty import aurc, fewest_of_share


class Kept(NamedTuple):
    """What a threshold keeps of N images.

    Attributes:
        images: N.
        kept: how many of them are kept.
        right: how many of these are classified correctly.
    """

    images: int
    kept: int
    right: int


class Rejection(NamedTuple):
    """What is rejected: images whose score is above a threshold.

    Attributes:
        score: its name.
        threshold: above which an image is rejected.
        kept: what the threshold keeps of the images that it was taken from.
        right: how many of all of these are classified correctly.
    """

    score: str
    threshold: float
    kept: Kept
    right: int


def choose_rejection(
    scores: Mapping[str, ArrayLike],
    wrong: ArrayLike,
    score: str = "",
    coverage: float | None = None,
    threshold: float | None = None,
) -> Rejection:
    """The score and the threshold to reject by.

    Args:
        scores: of images whose labels are known, by name `(N,)`.
        wrong: `(N,)`, whether each prediction is wrong.
        score: the name of the one to take; "" for `best_score`.
        coverage: share of the images to keep, in (0, 1]; or
        threshold: of the score.

    Raises:
        ValueError: no such score, a number is out of range, or not exactly one of coverage and threshold is given.
    """
    if (coverage is None) == (threshold is None):
        raise ValueError(f"either a coverage or a threshold must be given, got {coverage} and {threshold}")
    name = score or best_score(scores, wrong)
    if name not in scores:
        raise ValueError(f"the score must be one of {', '.join(scores)}, which this run has, got {name!r}")
    if threshold is None:
        threshold = threshold_of(scores[name], coverage or 0.0)
    elif not math.isfinite(threshold):
        raise ValueError(f"the threshold must be a finite number, got {threshold}")
    everything = kept_by(scores[name], wrong, math.inf)
    return Rejection(name, threshold, kept_by(scores[name], wrong, threshold), everything.right)


def threshold_of(scores: ArrayLike, coverage: float) -> float:
    """The lowest threshold that keeps at least a share of the images.

    Args:
        scores: `(N,)`.
        coverage: the share, in (0, 1].

    Returns:
        One of the scores. Images with the same score are kept together, so that it may keep more than the share.

    Raises:
        ValueError: there are no scores, some are not finite, or the coverage is out of range.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"the coverage must be above 0 and at most 1, got {coverage:g}")
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"there must be finite scores of the shape (images,), got the shape {values.shape}")
    return float(values[fewest_of_share(coverage, len(values)) - 1])


def kept_by(scores: ArrayLike, wrong: ArrayLike, threshold: float) -> Kept:
    """What a threshold keeps.

    Args:
        scores: `(N,)`.
        wrong: `(N,)`, whether each prediction is wrong.
        threshold: an image is kept if its score is at most this.

    Raises:
        ValueError: the arrays do not fit.
    """
    values, errors = np.asarray(scores, dtype=np.float64), np.asarray(wrong, dtype=np.bool_)
    if values.ndim != 1 or values.shape != errors.shape:
        raise ValueError(f"scores and errors must be of the same images, got {values.shape} and {errors.shape}")
    kept = values <= threshold
    return Kept(len(values), int(kept.sum()), int((kept & ~errors).sum()))


def best_score(scores: Mapping[str, ArrayLike], wrong: ArrayLike) -> str:
    """The score that orders the images best, by the lowest AURC; of equal ones the first.

    Args:
        scores: by name `(N,)`, at least one.
        wrong: `(N,)`, whether each prediction is wrong.

    Raises:
        ValueError: the arrays do not fit, or there is no score.
    """
    areas = {name: aurc(values, wrong) for name, values in scores.items()}
    if not areas:
        raise ValueError("there must be a score to choose from")
    return min(areas, key=lambda name: areas[name])
