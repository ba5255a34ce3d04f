"""Dirichlet opinions and their fusion, in logs (CDC, Zhang et al., NeurIPS 2024), eqs. (4) to (6) of docs/method.md.

Legend: M templates, B images, C classes; e evidence, r = e / C = belief / uncertainty of one template,
R the same ratio of the fused opinion.

Evidence itself overflows (float16 above exp(11), float32 above exp(88)), so every function takes and returns
log-evidence, `-inf` meaning none, and computes in float32 or wider whatever precision comes in.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

EVIDENCE_FUNCTIONS = ("exp", "softplus", "relu")
FUSIONS = ("dempster", "averaging")
PROBABILITIES = ("belief", "expected")

# Stands for log 0. Finite, so that a class without evidence has a probability of exactly 0 whose p log p is 0, and an
# image without any evidence gets the uniform distribution, both with gradient 0 instead of NaN.
_LOG_ZERO = -1e30
# Below this log(1 + exp(x)) and log(exp(x) - 1) of exp(x) come from their series, which are exact to 1e-13 there
_SMALL = -15.0


class Opinion(NamedTuple):
    """One fused opinion on each image.

    Attributes:
        belief: `(B, C)`, in [0, 1]; `belief.sum(1) + uncertainty` is 1.
        uncertainty: `(B,)`, in [0, 1]; 1 when there is no evidence at all.
        log_prob: `(B, C)`, the log of eq. (6), where a class without any evidence has -1e30, not -inf; or of eq. (6').
        conflict: `(B,)`, in [0, 1]: the total mass that Dempster's rule discards, whatever rule fused the templates.
        doubt: `(B,)`, in [0, 1]: `1 - max_c belief`, the plausibility (Shafer, 1976) that the predicted class is wrong.
    """

    belief: Tensor
    uncertainty: Tensor
    log_prob: Tensor
    conflict: Tensor
    doubt: Tensor


def log_evidence(similarity: Tensor, function: str, scale: float, shift: float) -> Tensor:
    """Log of the evidence `e = h(cos)` of eq. (4).

    The sources do not give `h`; with `z = scale * (similarity - shift)` the choices are `exp(z)`, `softplus(z)` and
    `relu(z)`.

    Args:
        similarity: cosine of image and class embedding, any shape, in [-1, 1].
        function: one of `EVIDENCE_FUNCTIONS`.
        scale: how steeply evidence grows with similarity, > 0.
        shift: the similarity at which `z` is 0.

    Returns:
        log e, the shape of `similarity`, float32 or wider; `-inf` where `relu` gives no evidence.

    Raises:
        ValueError: `function` is none of the three.
    """
    z = scale * (to_float32(similarity) - shift)
    if function == "exp":
        return z
    if function == "softplus":
        return _log_softplus(z)
    if function == "relu":
        positive = z > 0
        return torch.where(positive, torch.log(z.masked_fill(~positive, 1.0)), -math.inf)
    raise ValueError(f"evidence function must be one of {', '.join(EVIDENCE_FUNCTIONS)}, got {function!r}")


class EvidenceFunction(NamedTuple):
    """h of eq. (4): see `log_evidence` for its three parameters."""

    function: str
    scale: float
    shift: float

    def __call__(self, similarity: Tensor) -> Tensor:
        """Log-evidence of cosines."""
        return log_evidence(similarity, self.function, self.scale, self.shift)


def fuse(log_evidence: Tensor, fusion: str = "dempster", probability: str = "belief") -> Opinion:
    """Fuse the templates' opinions, eqs. (5) and (6).

    `1 + R_c = prod_m (1 + e_c^m / C)^w`, `U = 1 / (1 + sum_c R_c)`, `B_c = R_c U`, in O(M B C) and in any order of the
    templates. With `w = 1` this is Dempster's rule, eq. (5'): equal to applying (5) template after template, but
    without a division. It takes the templates for independent witnesses. With `w = 1 / M`, averaging, eq. (5''), equal
    templates fuse to one of them. Both put the classes in the same order.

    Args:
        log_evidence: `(M, B, C)`, in [-1e4, 1e4] or `-inf` for no evidence.
        fusion: one of `FUSIONS`.
        probability: one of `PROBABILITIES`: belief for eq. (6), `B_c / sum_k B_k`; expected for eq. (6'),
            `B_c + U / C`, the mean of the fused Dirichlet. Both put the classes in the same order, as far as float32
            tells them apart: under (6') an uncertainty above 1 - 1e-7 leaves no order.

    Returns:
        The fused `Opinion`.

    Raises:
        ValueError: `log_evidence` is not three-dimensional or has an empty dimension; or there is no such fusion or
            probability.
    """
    if probability not in PROBABILITIES:
        raise ValueError(f"probability must be one of {', '.join(PROBABILITIES)}, got {probability!r}")
    ratio = _log_ratio(log_evidence, fusion)
    log_ratio, shift = ratio.log_ratio, ratio.shift
    # (1 + sum_c R_c), scaled by exp(-shift) as log_ratio is
    log_norm = torch.logsumexp(torch.cat([-shift, log_ratio], dim=1), dim=1)  # (B,)
    predicted = torch.zeros_like(log_ratio, dtype=torch.bool).scatter(1, log_ratio.argmax(dim=1, keepdim=True), True)
    others = log_ratio.masked_fill(predicted, 2 * _LOG_ZERO)  # so below what any class has
    if probability == "belief":
        log_prob = torch.log_softmax(log_ratio, dim=1)
    else:
        prior = -shift - math.log(log_ratio.shape[1])  # log(1 / C)
        log_prob = torch.logaddexp(log_ratio, prior) - log_norm[:, None]
    return Opinion(
        belief=torch.exp(log_ratio - log_norm[:, None]),
        uncertainty=torch.exp(-shift[:, 0] - log_norm),
        log_prob=log_prob,
        conflict=-torch.expm1(ratio.log_kept.clamp(max=0.0)) + 0.0,
        doubt=torch.exp((torch.logsumexp(torch.cat([-shift, others], dim=1), dim=1) - log_norm).clamp(max=0.0)),
    )


def template_certainty(log_evidence: Tensor) -> tuple[Tensor, Tensor]:
    """What each template says by itself: its largest probability, eq. (6), and its uncertainty `u = C / S`, eq. (4).

    Args:
        log_evidence: `(M, B, C)` as in `fuse`.

    Returns:
        Both `(M, B)`, in [0, 1]; of a template without evidence 1 / C and 1.
    """
    log_evidence = to_float32(log_evidence)
    probability = log_evidence.clamp(min=_LOG_ZERO).softmax(dim=2)
    # u = 1 / (1 + sum_c e_c / C)
    uncertainty = torch.sigmoid(math.log(log_evidence.shape[2]) - log_evidence.logsumexp(dim=2))
    return probability.amax(dim=2), uncertainty


def fused_log_evidence(log_evidence: Tensor, fusion: str = "dempster") -> Tensor:
    """Log of the evidence `R C` that the fused opinion stands for, so that its Dirichlet is `alpha = R C + 1`.

    Args:
        log_evidence: `(M, B, C)` as in `fuse`.
        fusion: one of `FUSIONS`.

    Returns:
        `(B, C)`; for one template its own log-evidence, -1e30 standing for none.

    Raises:
        ValueError: as `fuse`.
    """
    ratio = _log_ratio(log_evidence, fusion)
    return ratio.log_ratio + ratio.shift + math.log(log_evidence.shape[-1])


class _Ratio(NamedTuple):
    """`log R - shift` `(B, C)`, `shift` `(B, 1)`, and the log of what Dempster's rule keeps, `1 - conflict`, `(B,)`."""

    log_ratio: Tensor
    shift: Tensor
    log_kept: Tensor


def _log_ratio(log_evidence: Tensor, fusion: str) -> _Ratio:
    """The fused opinion's ratio R.

    `shift`, the sum or mean over templates of each one's largest log ratio, keeps numbers near 0 where float32 has
    digits to tell the classes apart.
    """
    if fusion not in FUSIONS:
        raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}")
    if log_evidence.ndim != 3 or 0 in log_evidence.shape:
        raise ValueError(
            "log-evidence must have the shape (templates, images, classes), none of them 0, "
            f"got {tuple(log_evidence.shape)}"
        )
    log_evidence = to_float32(log_evidence)
    log_r = log_evidence.clamp(min=_LOG_ZERO) - math.log(log_evidence.shape[-1])  # (M, B, C)
    shifts = log_r.detach().amax(dim=2, keepdim=True).clamp(min=0.0)  # (M, B, 1)
    scaled = log_r - shifts  # log r
    grown = torch.logaddexp(scaled, -shifts)  # log(1 + r)

    # `R = sum_m r^m prod_{j<m} (1 + r^j)` is a sum of positive terms, so its log is accurate for evidence of any size,
    # where `log(prod(1 + r) - 1)` cancels for small and overflows for large.
    after = _sum_before(shifts.flip(0)).flip(0)  # (M, B, 1)
    dempster = torch.logsumexp(_sum_before(grown) + scaled - after, dim=0)
    shift = shifts.sum(dim=0)  # (B, 1)
    # 1 - K = prod_m u^m / U, and both products carry the same scale
    log_norms = torch.logsumexp(torch.cat([-shifts, scaled], dim=2), dim=2).sum(dim=0)
    log_kept = torch.logsumexp(torch.cat([-shift, dempster], dim=1), dim=1) - log_norms
    if fusion == "dempster":
        return _Ratio(dempster, shift, log_kept)

    # T = log(1 + R) = mean_m log(1 + r^m), and log R = T + log(1 - exp(-T)), which is log T + T / 2 + O(T^2)
    shift = shifts.mean(dim=0)
    log_total = torch.logsumexp(_log_softplus(log_r), dim=0) - math.log(len(log_r))  # log T
    low = log_total < _SMALL
    total = log_total.masked_fill(low, 0.0).exp()
    high = grown.mean(dim=0) + torch.log(-torch.expm1(-total))
    averaging = torch.where(low, log_total + 0.5 * log_total.clamp(max=_SMALL).exp() - shift, high)
    return _Ratio(averaging, shift, log_kept)


def _sum_before(x: Tensor) -> Tensor:
    """Sum over the earlier entries along the first dimension, 0 for the first."""
    return torch.cumsum(torch.cat([torch.zeros_like(x[:1]), x[:-1]]), dim=0)


def to_float32(x: Tensor) -> Tensor:
    """float32 for half precision, else `x` itself."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _log_softplus(x: Tensor) -> Tensor:
    """log(log(1 + exp(x))), which is `x - exp(x) / 2 + O(exp(2 x))` where the direct form loses all digits."""
    low = x < _SMALL
    direct = torch.log(log1p_exp(x.masked_fill(low, 0.0)))
    return torch.where(low, x - 0.5 * torch.exp(x.clamp(max=_SMALL)), direct)


def log1p_exp(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the dtype's own precision; torch's switches to the identity at 20."""
    return torch.logaddexp(x, torch.zeros_like(x))
