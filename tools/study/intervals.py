"""How sure a difference between two methods is: a bootstrap over the seeds of every data set, both methods in pairs.

Legend: S data sets, K seeds, V values of a run (base and new accuracy, say), R draws.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import norm as normal
from scipy.stats import t as student

Statistic = Callable[[np.ndarray], np.ndarray]
DRAWS = 10_000


class Interval(NamedTuple):
    """An estimate and the bounds that hold it in so many of a hundred studies as the level says."""

    estimate: float
    low: float
    high: float

    @property
    def is_real(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{shown(self.estimate, '+.2f')} [{shown(self.low, '+.2f')}, {shown(self.high, '+.2f')}]"


def shown(number: float, form: str = ".2f") -> str:
    """A number in this form, the same whatever the last bits of its computation are on a machine."""
    return format(round(number, 9) + 0.0, form)  # of -0.0 makes 0.0


def harmonic_means(values: np.ndarray) -> np.ndarray:
    """Harmonic mean of base and new accuracy, `(..., 2)` to `(...)`; 0 where either is 0."""
    base, new = values[..., 0], values[..., 1]
    total = base + new
    return np.divide(2 * base * new, total, out=np.zeros_like(total), where=total > 0)


def paired_interval(
    values: np.ndarray, others: np.ndarray, statistic: Statistic, level: float = 0.95, draws: int = DRAWS
) -> Interval:
    """Interval of `statistic(values' means) - statistic(others' means)`.

    The data sets are those of the study and stay; the seeds of each are drawn with replacement, the same for both
    methods. Few seeds drawn from themselves vary too little. So the bounds are moved away from the estimate, by the
    factor sqrt(K / (K - 1)) t / z with the quantiles of Student's law and of the normal one. Hesterberg (What Teachers
    Should Know About the Bootstrap, 2015) widens the percentiles' level for the same reason; both agree where the draws
    are normal. The degrees of freedom are those of `degrees_of_freedom`.

    Args:
        values: `(S, K, V)`, of the one method.
        others: `(S, K, V)`, of the other, of the same data sets and seeds.
        statistic: of the means over data sets and seeds, `(..., V)` to `(...)`.
        level: between 0 and 1.
        draws: R, at most where fewer are possible.

    Raises:
        ValueError: the shapes differ or are not three-dimensional, there is one seed only, or a value is not finite.
    """
    values, others = np.asarray(values, dtype=float), np.asarray(others, dtype=float)
    if values.shape != others.shape or values.ndim != 3:
        raise ValueError(f"both methods need values (data sets, seeds, values), got {values.shape} and {others.shape}")
    if not (np.isfinite(values).all() and np.isfinite(others).all()):
        raise ValueError("a value is not finite")
    n_sets, n_seeds, _ = values.shape
    if n_seeds < 2:
        raise ValueError("an interval needs two seeds or more, got 1")

    estimate = float(statistic(values.mean(axis=(0, 1))) - statistic(others.mean(axis=(0, 1))))
    tail = 100 * (1 - level) / 2
    weights = _weights(n_sets, n_seeds, draws)
    means = [weights @ each.reshape(n_sets * n_seeds, -1) for each in (values, others)]
    low, high = np.percentile(statistic(means[0]) - statistic(means[1]), (tail, 100 - tail))
    middle = (1 + level) / 2
    freedom = degrees_of_freedom(_influences(values, statistic) - _influences(others, statistic))
    wider = (n_seeds / (n_seeds - 1)) ** 0.5 * float(student.ppf(middle, freedom) / normal.ppf(middle))
    return Interval(estimate, estimate + wider * (float(low) - estimate), estimate + wider * (float(high) - estimate))


def degrees_of_freedom(runs: np.ndarray) -> float:
    """How many independent values the variance of a mean of data sets rests on, which may vary unequally.

    Welch (The Generalization of 'Student's' Problem when Several Different Population Variances are Involved, 1947):
    (sum of v)^2 / sum of v^2 * (K - 1), where v is a set's variance over its seeds. It is S (K - 1) if all are equal,
    and K - 1 if one set varies alone.

    Args:
        runs: `(S, K)`.
    """
    n_sets, n_seeds = runs.shape
    variances = runs.var(axis=1, ddof=1)
    if not variances.any():
        return n_sets * (n_seeds - 1)
    return float(variances.sum() ** 2 / (variances**2).sum()) * (n_seeds - 1)


def _influences(values: np.ndarray, statistic: Statistic) -> np.ndarray:
    """`(S, K)`: how fast the statistic of the means moves with each run's distance from the mean of its data set."""
    mean = values.mean(axis=(0, 1))
    step = 1e-3 * (values - values.mean(axis=1, keepdims=True))
    return (statistic(mean + step) - statistic(mean - step)) / 2e-3


@functools.cache
def _weights(n_sets: int, n_seeds: int, draws: int) -> np.ndarray:
    """`(R, S K)`: the weight of each run in the mean of a draw, which has K seeds of each data set with replacement.

    Where there can be at most R different draws, they are all of these, each the same number of times: random ones of
    so few would put a bound here or there by chance.
    """
    possible = n_seeds ** (n_sets * n_seeds)
    if possible <= draws:
        every = np.array(list(itertools.product(range(n_seeds), repeat=n_sets * n_seeds)))
        chosen = np.repeat(every, draws // possible, axis=0).reshape(-1, n_sets, n_seeds)
        draws = len(chosen)
    else:
        rng = np.random.default_rng(0)  # the page is the same each time that it is made
        chosen = rng.integers(n_seeds, size=(draws, n_sets, n_seeds))
    runs = np.arange(draws * n_sets).reshape(draws, n_sets, 1) * n_seeds + chosen  # of all draws, counted on
    counts = np.bincount(runs.ravel(), minlength=draws * n_sets * n_seeds)
    return counts.reshape(draws, -1) / (n_sets * n_seeds)
