"""Intervals of differences: known cases, and how often they hold the truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tools.study.intervals import Interval, degrees_of_freedom, harmonic_means, paired_interval, shown


def plain(means):
    return means[..., 0]


def test_a_difference_that_never_varies_has_no_width():
    base = np.random.default_rng(0).normal(70, 10, (3, 4, 1))
    found = paired_interval(base + 2.0, base, plain)
    assert found == pytest.approx((2.0, 2.0, 2.0))
    assert found.is_real
    assert not paired_interval(base, base, plain).is_real


def test_bounds_are_those_of_a_normal_law():
    values = np.zeros((4, 100, 1))
    values[..., 0] = np.random.default_rng(1).normal(1.0, 3.0, (4, 100))
    found = paired_interval(values, np.zeros_like(values), plain)
    half = 1.96 * (values.var(axis=1, ddof=1).mean() / 400) ** 0.5
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.estimate == pytest.approx(half, rel=0.05)
    assert found.estimate - found.low == pytest.approx(half, rel=0.05)


def test_what_differs_between_data_sets_does_not_widen_it():
    values = np.zeros((3, 5, 1))
    values[:, :, 0] = np.array([-10.0, 0.0, 13.0])[:, None]
    assert paired_interval(values, np.zeros_like(values), plain) == pytest.approx((1.0, 1.0, 1.0))


def test_pairs_stay_together():
    """Two methods that go up and down with the seed alike differ surely, however much both vary."""
    values = np.random.default_rng(2).normal(70, 10, (2, 5, 1))
    noise = np.random.default_rng(3).normal(0, 0.1, values.shape)
    found = paired_interval(values + 0.5 + noise, values, plain)
    assert found.high - found.low < 0.3
    shuffled = paired_interval(values + 0.5, values[:, ::-1], plain)
    assert shuffled.high - shuffled.low > 3


def holds(n_sets, n_seeds, first, fails=0.0):
    """Percent of 1000 studies with normal errors in whose interval the truth lies.

    Args:
        first: how many times the others' deviation that of the first data set is.
        fails: the probability that a training fails, which lowers its value by ten deviations.
    """
    rng, held = np.random.default_rng(4), 0
    deviations = np.array([first, *[1.0] * (n_sets - 1)])
    for _ in range(1000):
        values = rng.normal(0.0, deviations[:, None, None], (n_sets, n_seeds, 1))
        values -= 10.0 * (rng.random(values.shape) < fails)
        found = paired_interval(values, np.zeros_like(values), plain, draws=500)
        held += found.low <= -10.0 * fails <= found.high
    return held / 10


@pytest.mark.parametrize("first", [1.0, 4.0, 20.0])
@pytest.mark.parametrize(("n_sets", "n_seeds"), [(6, 5), (3, 5), (2, 5), (1, 5), (3, 10)])
def test_it_holds_the_truth_about_as_often_as_it_says(n_sets, n_seeds, first):
    assert 92 <= holds(n_sets, n_seeds, first) <= 97


def test_of_two_seeds_it_is_rather_too_wide():
    assert holds(3, 2, 1.0) > 95


def test_it_holds_the_truth_too_seldom_where_a_training_can_fail():
    """A study in which none has failed cannot know of it; with many trainings one has."""
    assert 65 < holds(1, 5, 1.0, fails=0.1) < 80
    assert 65 < holds(2, 5, 1.0, fails=0.1) < 80
    assert 75 < holds(3, 5, 1.0, fails=0.1) < 85
    assert holds(6, 5, 1.0, fails=0.1) > 92
    assert holds(3, 10, 1.0, fails=0.1) > 92


def test_it_holds_the_truth_about_harmonic_means():
    rng, held, truth = np.random.default_rng(6), 0, 2 * 80 * 60 / 140 - 70.0
    for _ in range(1000):
        values = np.array([80.0, 60.0]) + rng.normal(0.0, [[[3.0, 3.0]], [[1.0, 6.0]]], (2, 5, 2))
        found = paired_interval(values, np.full((2, 5, 2), 70.0), harmonic_means, draws=500)
        held += found.low <= truth <= found.high
    assert 920 <= held <= 970


def test_degrees_of_freedom():
    one = np.array([-1.0, 0.0, 1.0])
    assert degrees_of_freedom(np.stack([one, one + 5.0])) == pytest.approx(4.0)
    assert degrees_of_freedom(np.stack([one, np.zeros(3)])) == pytest.approx(2.0)
    assert degrees_of_freedom(np.stack([2.0 * one, one])) == pytest.approx(25 / 17 * 2)  # variances 4 and 1
    assert degrees_of_freedom(np.zeros((2, 3))) == 4


def test_unequal_data_sets_widen_it():
    """To what the one that varies has alone, shared by two; of a harmonic mean, too."""
    rng = np.random.default_rng(5)
    values = np.stack([rng.normal(70.0, 0.01, (5, 2)), rng.normal(70.0, 2.0, (5, 2))])
    alone = paired_interval(values[1:], np.full((1, 5, 2), 70.0), harmonic_means)
    both = paired_interval(values, np.full((2, 5, 2), 70.0), harmonic_means)
    assert 2 * (both.high - both.low) == pytest.approx(alone.high - alone.low, rel=0.05)


def test_two_seeds_by_hand():
    """Of two values the draws have means from the lower to the higher, each of these in a quarter of the draws."""
    values = np.array([[[1.0], [3.0]]])
    found = paired_interval(values, np.zeros_like(values), plain)
    wider = 2**0.5 * 12.7062 / 1.95996  # Student's law with one degree of freedom
    assert found == pytest.approx((2.0, 2.0 - wider, 2.0 + wider), rel=1e-4)


def test_bounds_of_two_seeds_by_hand():
    """Draws have the means 1, 2 and 3; Student's quantile with one degree of freedom is 12.7062, the normal 1.95996."""
    found = paired_interval(np.array([[[11.0], [13.0]]]), np.full((1, 2, 1), 10.0), plain)
    half = 2**0.5 * 12.7062 / 1.95996
    assert found == pytest.approx((2.0, 2.0 - half, 2.0 + half), abs=1e-3)


def test_bounds_of_one_data_set_are_those_of_all_draws():
    """Of 3125 draws of five seeds the 79th from either end: random draws give another bound under another seed."""
    values = np.array([3.0, -41.0, 17.0, 60.0, -12.0])
    means = sorted(np.mean(draw) for draw in itertools.product(values, repeat=5))
    found = paired_interval(values.reshape(1, 5, 1), np.zeros((1, 5, 1)), plain)
    wider = (5 / 4) ** 0.5 * 2.776445 / 1.959964  # Student's law with four degrees of freedom
    estimate = values.mean()
    assert found.low == pytest.approx(estimate + wider * (means[78] - estimate), rel=1e-6)
    assert found.high == pytest.approx(estimate + wider * (means[-79] - estimate), rel=1e-6)


def test_harmonic_mean_is_of_the_averages():
    values = np.array([[[80.0, 60.0], [60.0, 80.0]]])  # means 70 and 70; the harmonic mean of each run is 68.57
    found = paired_interval(values, np.zeros_like(values), harmonic_means)
    assert found.estimate == pytest.approx(70.0)
    assert harmonic_means(np.array([0.0, 0.0])) == 0.0


@pytest.mark.parametrize(
    ("shape", "other", "message"),
    [((2, 3, 1), (2, 4, 1), "same|need"), ((6, 1), (6, 1), "need"), ((2, 1, 1), (2, 1, 1), "two seeds")],
)
def test_what_cannot_be_compared_is_refused(shape, other, message):
    with pytest.raises(ValueError, match=message):
        paired_interval(np.ones(shape), np.ones(other), plain)


def test_values_that_are_no_numbers_are_refused():
    values = np.ones((2, 3, 1))
    values[1, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        paired_interval(values, np.ones((2, 3, 1)), plain)


def test_an_interval_is_told_with_its_signs():
    assert str(Interval(0.5, -0.25, 1.0)) == "+0.50 [-0.25, +1.00]"


def test_the_last_bits_of_a_number_are_not_shown():
    """A mean of 0.125 is one on every machine, and nothing is no negative number."""
    assert shown(0.125 + 1e-13) == shown(0.125 - 1e-13) == "0.12"
    assert shown(-1e-13, "+.2f") == "+0.00"
    assert str(Interval(-1e-13, 0.375 + 1e-13, 1.0)) == "+0.00 [+0.38, +1.00]"
