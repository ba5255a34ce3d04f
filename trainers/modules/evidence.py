"""Dirichlet opinions and Dempster's rule, in logs (CDC, Zhang et al., NeurIPS 2024), eqs. (4) to (6) of docs/method.md.

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

# Stands for log 0. Finite, so that a class without evidence has a probability of exactly 0 whose p log p is 0, and an
# image without any evidence gets the uniform distribution, both with gradient 0 instead of NaN.
_LOG_ZERO = -1e30


class Opinion(NamedTuple):
    """One fused opinion on each image.

    Attributes:
        belief: `(B, C)`, in [0, 1]; `belief.sum(1) + uncertainty` is 1.
        uncertainty: `(B,)`, in [0, 1]; 1 when there is no evidence at all.
        log_prob: `(B, C)`, the log of eq. (6); a class without any evidence has -1e30, not -inf.
        conflict: `(B,)`, in [0, 1]: the total mass that Dempster's rule had to discard.
    """

    belief: Tensor
    uncertainty: Tensor
    log_prob: Tensor
    conflict: Tensor


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
        # log(softplus(z)) = z - exp(z) / 2 + O(exp(2 z)); the direct form loses all digits there.
        low = z < -15
        direct = torch.log(log1p_exp(z.masked_fill(low, 0.0)))
        return torch.where(low, z - 0.5 * torch.exp(z.clamp(max=-15)), direct)
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


def fuse(log_evidence: Tensor) -> Opinion:
    """Fuse the templates' opinions by Dempster's rule, eq. (5), in the closed form of eq. (5').

    `1 + R_c = prod_m (1 + e_c^m / C)`, `U = 1 / (1 + sum_c R_c)`, `B_c = R_c U`: equal to applying (5) template after
    template, but without a division, in O(M B C), and in any order of the templates.

    Args:
        log_evidence: `(M, B, C)`, in [-1e4, 1e4] or `-inf` for no evidence.

    Returns:
        The fused `Opinion`.

    Raises:
        ValueError: `log_evidence` is not three-dimensional or has an empty dimension.
    """
    log_ratio, shift, log_norms = _log_ratio(log_evidence)
    # (1 + sum_c R_c), scaled by exp(-shift) as log_ratio is
    log_norm = torch.logsumexp(torch.cat([-shift, log_ratio], dim=1), dim=1)  # (B,)
    # 1 - K = prod_m u^m / U, and both products carry the same scale
    log_kept = log_norm - log_norms  # (B,)
    return Opinion(
        belief=torch.exp(log_ratio - log_norm[:, None]),
        uncertainty=torch.exp(-shift[:, 0] - log_norm),
        log_prob=torch.log_softmax(log_ratio, dim=1),
        conflict=-torch.expm1(log_kept.clamp(max=0.0)) + 0.0,
    )


def fused_log_evidence(log_evidence: Tensor) -> Tensor:
    """Log of the evidence `R C` that the fused opinion stands for, so that its Dirichlet is `alpha = R C + 1`.

    Args:
        log_evidence: `(M, B, C)` as in `fuse`.

    Returns:
        `(B, C)`; for one template its own log-evidence, -1e30 standing for none.

    Raises:
        ValueError: as `fuse`.
    """
    log_ratio, shift, _ = _log_ratio(log_evidence)
    return log_ratio + shift + math.log(log_evidence.shape[-1])


def _log_ratio(log_evidence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`log R - shift` `(B, C)`, `shift` `(B, 1)`, and `sum_m log(1 + sum_c r_c^m) - shift` `(B,)`.

    `R = sum_m r^m prod_{j<m} (1 + r^j)` is a sum of positive terms, so its log is accurate for evidence of any size,
    where `log(prod(1 + r) - 1)` cancels for small and overflows for large. `shift`, the sum over templates of each
    one's largest log ratio, keeps numbers near 0 where float32 has digits to tell the classes apart.
    """
    if log_evidence.ndim != 3 or 0 in log_evidence.shape:
        raise ValueError(
            "log-evidence must have the shape (templates, images, classes), none of them 0, "
            f"got {tuple(log_evidence.shape)}"
        )
    log_evidence = to_float32(log_evidence)
    log_r = log_evidence.clamp(min=_LOG_ZERO) - math.log(log_evidence.shape[-1])  # (M, B, C)
    shifts = log_r.detach().amax(dim=2, keepdim=True).clamp(min=0.0)  # (M, B, 1)
    shift = shifts.sum(dim=0)  # (B, 1)

    scaled = log_r - shifts  # log r
    grown = torch.logaddexp(scaled, -shifts)  # log(1 + r)
    before = _sum_before(grown)
    after = _sum_before(shifts.flip(0)).flip(0)  # (M, B, 1)
    log_ratio = torch.logsumexp(before + scaled - after, dim=0)

    log_norms = torch.logsumexp(torch.cat([-shifts, scaled], dim=2), dim=2).sum(dim=0)
    return log_ratio, shift, log_norms


def _sum_before(x: Tensor) -> Tensor:
    """Sum over the earlier entries along the first dimension, 0 for the first."""
    return torch.cumsum(torch.cat([torch.zeros_like(x[:1]), x[:-1]]), dim=0)


def to_float32(x: Tensor) -> Tensor:
    """float32 for half precision, else `x` itself."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def log1p_exp(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the dtype's own precision; torch's switches to the identity at 20."""
    return torch.logaddexp(x, torch.zeros_like(x))
