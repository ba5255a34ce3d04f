"""Calibration by the likelihood of held-out labels: one temperature of logits, or scale and shift of evidence.

Both change how certain a model is, by few numbers that a few images can determine. They are fitted to the mean negative
log-likelihood (NLL) of labels of images that the model was not trained on, in float64, by L-BFGS within bounds from
starts that are always the same. So the same scores give the same numbers, and the NLL is never higher than before.

Legend: N images, C classes, M templates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from .evidence import EvidenceFunction, fuse

# By how much a temperature, or the scale of evidence, may be off. Where all held-out images are classified correctly,
# the likelihood asks for infinitely certain predictions, and the bound is what is found.
MOST = 10.0
_GRID = 9  # scales, and shifts, between the bounds, where the search for both starts
_STARTS = 3  # of these, the best ones
_NOTHING = 1e-6  # nats that do not count as better
_ENDS = 1e-3  # what counts as at a bound, as a part of the range


class Calibration(NamedTuple):
    """Numbers that were fitted, and what they bring on the images that they were fitted on.

    Attributes:
        values: by name: `temperature`, or `scale` and `shift`.
        before: what they were, in the same way.
        nll_before, nll_after: mean NLL of the labels, in nats; huge where a label has no evidence at all.
        at_bound: names of the fitted values that are at the end of their range, as the images do not determine them.
    """

    values: dict[str, float]
    before: dict[str, float]
    nll_before: float
    nll_after: float
    at_bound: tuple[str, ...]


def mean_nll(log_prob: Tensor, label: Tensor) -> Tensor:
    """Mean negative log-likelihood of labels `(N,)` under scores `(N, C)`, logits or log-probabilities, in nats."""
    return F.cross_entropy(log_prob, label)


def fit_temperature(logits: Tensor, label: Tensor) -> Calibration:
    """The temperature T that `softmax(logits / T)` fits the labels best with (Guo et al., ICML 2017, section 4.2).

    The NLL is convex in 1 / T, so there is one best value.

    Args:
        logits: `(N, C)`.
        label: `(N,)`, in 0 to C - 1.

    Returns:
        `temperature`, in 1 / `MOST` to `MOST`: above 1 where the model is too certain.

    Raises:
        ValueError: the shapes do not fit, or logits are not finite.
    """
    _check(logits, label, 2)
    scores = logits.double()

    def nll(values: Tensor) -> Tensor:
        return mean_nll(scores * values[0], label)

    found = _fit(nll, (1.0,), [(1.0 / MOST, MOST)], [])
    values = {"temperature": 1.0 / found.values[0]}
    return Calibration(values, {"temperature": 1.0}, found.before, found.after, _names(values, found))


def fused_log_prob(log_evidence: Tensor) -> Tensor:
    """Log-probabilities `(N, C)` of eq. (6), of the templates' log-evidence `(M, N, C)`."""
    return fuse(log_evidence).log_prob


def fit_evidence(
    cosines: Tensor,
    label: Tensor,
    evidence: EvidenceFunction,
    decide: Callable[[Tensor], Tensor] = fused_log_prob,
) -> Calibration:
    """Scale and shift of the evidence function h of eq. (4) with which the fused prediction fits the labels best.

    The shift says how much all evidence is, and with it how templates are fused. Evidence that is large multiplies the
    templates' probabilities, eq. (5'), and small evidence averages them. Below the lowest cosine or above the highest
    one there is nothing to find: the prediction hardly changes there, and the uncertainty goes to 0 or 1 everywhere.

    Args:
        cosines: `(M, N, C)`, of image and class embeddings.
        label: `(N,)`, in 0 to C - 1.
        evidence: h as it is before.
        decide: log-probabilities `(N, C)` of log-evidence `(M, N, C)`, where they are not eq. (6)'s.

    Returns:
        `scale`, from 1 / `MOST` of that of `evidence` to `MOST` times it, and `shift`, from the lowest to the highest
        cosine. Where nothing better is found there, the values are those of `evidence`.

    Raises:
        ValueError: the shapes do not fit, or cosines are not finite.
    """
    _check(cosines, label, 3)
    cosines = cosines.double()
    # The scale by its logarithm, in units of its own size, and the shift in units of 1 / scale: numbers of size one
    unit = 1.0 / evidence.scale

    def nll(values: Tensor) -> Tensor:
        z = torch.exp(values[0]) * (cosines * evidence.scale - values[1])
        return mean_nll(decide(evidence._replace(scale=1.0, shift=0.0)(z)), label)

    bounds = [(-math.log(MOST), math.log(MOST)), (float(cosines.min()) / unit, float(cosines.max()) / unit)]
    grid = [np.linspace(*bound, _GRID) for bound in bounds]
    starts = [(float(scale), float(shift)) for scale in grid[0] for shift in grid[1]]
    found = _fit(nll, (0.0, evidence.shift / unit), bounds, starts)
    values = {"scale": evidence.scale * math.exp(found.values[0]), "shift": found.values[1] * unit}
    before = {"scale": evidence.scale, "shift": evidence.shift}
    return Calibration(values, before, found.before, found.after, _names(values, found))


class _Found(NamedTuple):
    values: tuple[float, ...]
    before: float
    after: float
    at_bound: tuple[bool, ...]


def _names(values: Mapping[str, float], found: _Found) -> tuple[str, ...]:
    """Those of the values that are at a bound."""
    return tuple(name for name, ends in zip(values, found.at_bound) if ends)


def _fit(
    nll: Callable[[Tensor], Tensor],
    own: tuple[float, ...],
    bounds: Sequence[tuple[float, float]],
    starts: Iterable[tuple[float, ...]],
) -> _Found:
    """Minimise from the values that a model has itself, and from the best ones of other starts."""

    def evaluate(values: Iterable[float]) -> float:
        with torch.no_grad():
            return float(nll(torch.tensor([*values], dtype=torch.float64)))

    def with_gradient(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, list[float]]:
        x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        loss = nll(x)
        loss.backward()
        return loss.item(), [0.0] * len(own) if x.grad is None else x.grad.tolist()

    before = evaluate(own)
    best, after = own, before
    others = sorted((evaluate(start), start) for start in starts)[:_STARTS]
    within = tuple(min(max(x, low), high) for x, (low, high) in zip(own, bounds))
    for start in [within, *(start for _, start in others)]:
        result = minimize(with_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds)
        value = evaluate(result.x)
        if value < after - _NOTHING:
            best, after = tuple(map(float, result.x)), value
    at_end = [min(x - low, high - x) <= _ENDS * (high - low) for x, (low, high) in zip(best, bounds)]
    ends = tuple(best is not own and end for end in at_end)
    return _Found(best, before, after, ends)


def _check(scores: Tensor, label: Tensor, ndim: int) -> None:
    wanted = {2: "(images, classes)", 3: "(templates, images, classes)"}[ndim]
    if scores.ndim != ndim or 0 in scores.shape or label.shape != scores.shape[-2:-1]:
        raise ValueError(
            f"scores must have the shape {wanted} and labels (images,), none of them 0, "
            f"got {tuple(scores.shape)} and {tuple(label.shape)}"
        )
    if int(label.min()) < 0 or int(label.max()) >= scores.shape[-1]:
        raise ValueError(
            f"labels must be from 0 to {scores.shape[-1] - 1}, got {int(label.min())} to {int(label.max())}"
        )
    if not bool(scores.isfinite().all()):
        raise ValueError(f"scores must be finite, got {int((~scores.isfinite()).sum())} that are not")
