"""Thresholds, what they keep, and which score is taken: by hand, with ties, at the limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainers.modules.rejection import best_score, choose_rejection, kept_by, threshold_of
from trainers.modules.uncertainty import selective_accuracy

SCORES = [0.4, 0.1, 0.3, 0.2, 0.5]
WRONG = [1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("coverage", "threshold", "kept"),
    [(1.0, 0.5, 5), (0.81, 0.5, 5), (0.8, 0.4, 4), (0.6, 0.3, 3), (0.41, 0.3, 3), (0.2, 0.1, 1), (1e-9, 0.1, 1)],
)
def test_threshold_by_hand(coverage, threshold, kept):
    assert threshold_of(SCORES, coverage) == threshold
    assert kept_by(SCORES, WRONG, threshold).kept == kept


def test_equal_scores_are_kept_together():
    scores = [0.1, 0.2, 0.2, 0.2, 0.3]
    assert threshold_of(scores, 0.4) == 0.2
    assert kept_by(scores, WRONG, 0.2).kept == 4


def test_every_coverage_is_kept():
    scores = np.random.default_rng(0).normal(size=101)
    wrong = scores > 1
    for coverage in np.linspace(0.01, 1, 100):
        kept = kept_by(scores, wrong, threshold_of(scores, coverage))
        assert coverage * 101 <= kept.kept + 1e-6
        assert kept.kept < coverage * 101 + 1
        assert kept.right / kept.kept == pytest.approx(selective_accuracy(scores, wrong, coverage))


def test_kept_by_hand():
    assert kept_by(SCORES, WRONG, 0.3) == (5, 3, 2)
    assert kept_by(SCORES, WRONG, 0.05) == (5, 0, 0)
    assert kept_by(SCORES, WRONG, math.inf) == (5, 5, 2)


def test_best_score():
    scores = {"confidence": SCORES, "entropy": [0.9, 0.1, 0.2, 0.8, 0.7], "uncertainty": [0.1, 0.9, 0.8, 0.2, 0.3]}
    assert best_score(scores, WRONG) == "entropy"
    assert best_score(scores, [0] * 5) == "confidence"  # nothing tells them apart
    with pytest.raises(ValueError, match="must be a score"):
        best_score({}, WRONG)


def test_choice():
    scores = {"confidence": SCORES, "entropy": [0.9, 0.1, 0.2, 0.8, 0.7]}
    assert choose_rejection(scores, WRONG, coverage=0.4) == ("entropy", 0.2, (5, 2, 2), 2)
    assert choose_rejection(scores, WRONG, "confidence", coverage=0.4) == ("confidence", 0.2, (5, 2, 1), 2)
    assert choose_rejection(scores, WRONG, threshold=0.75) == ("entropy", 0.75, (5, 3, 2), 2)
    assert choose_rejection(scores, WRONG, threshold=-1.0) == ("entropy", -1.0, (5, 0, 0), 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either a coverage or a threshold must be given, got None and None"),
        ({"coverage": 0.5, "threshold": 0.5}, "got 0.5 and 0.5"),
        ({"coverage": 0.0}, "above 0 and at most 1, got 0"),
        ({"coverage": 90.0}, "above 0 and at most 1, got 90"),
        ({"coverage": math.nan}, "above 0 and at most 1, got nan"),
        ({"threshold": math.nan}, "a finite number, got nan"),
        ({"coverage": 0.5, "score": "uncertainty"}, "one of confidence, which this run has, got 'uncertainty'"),
    ],
)
def test_wrong_choice(given, message):
    with pytest.raises(ValueError, match=message):
        choose_rejection({"confidence": SCORES}, WRONG, **given)


def test_wrong_arrays():
    for scores in ([], [[0.1]], [math.nan]):
        with pytest.raises(ValueError, match="finite scores"):
            threshold_of(scores, 0.5)
    with pytest.raises(ValueError, match="of the same images"):
        kept_by(SCORES, WRONG[1:], 0.5)
