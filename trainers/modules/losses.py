"""The losses of CDC (Zhang et al., NeurIPS 2024): (2) diversity, (3) consistency, (7) trusted cross-entropy, (8) total.

Equation numbers are those of docs/method.md. `knowledge_loss` is what KgCoOp and TCP add to the cross-entropy.

Legend: M templates, B images, C classes, D embedding width. All of them compute in float32 or wider.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .evidence import log1p_exp, to_float32

# Logits of eq. (2) kept for the gradient at once; where there are more, they are computed again when it is due.
LOGITS_AT_ONCE = 2**22
# Above this the asymptotic series below are exact to 1e-8 and better, and need only log(alpha).
_LOG_LARGE = math.log(100.0)


def total_loss(
    classification: Tensor, text_features: Tensor, anchor: Tensor, scale: Tensor | float, beta: float, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What CDC minimises, eq. (8): `L_tce + beta L_de + gamma L_con`.

    Args:
        classification: L_tce of eq. (7), or what stands in its place; a scalar.
        text_features, anchor, scale: see `consistency_loss`.
        beta: weight of the diversity loss.
        gamma: weight of the consistency loss.

    Returns:
        The total, L_de of eq. (2) and L_con of eq. (3), scalars.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    diversity = diversity_loss(text_features, scale)
    consistency = consistency_loss(text_features, anchor, scale)
    return classification + beta * diversity + gamma * consistency, diversity, consistency


def trusted_cross_entropy(log_evidence: Tensor, target: Tensor) -> Tensor:
    """Expected cross-entropy under each template's Dirichlet, eq. (7).

    `sum_m psi(S^m) - psi(alpha_y^m)`, `alpha = e + 1`, mean over the batch. With `psi(a) = log a + correction(a)` it
    is the plain cross-entropy of `log alpha` plus two small corrections, which holds for evidence of any size.

    Args:
        log_evidence: `(M, B, C)`, `-inf` for no evidence.
        target: `(B,)`, class indices in [0, C).

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    _check_target(log_evidence, target)
    log_alpha = log1p_exp(to_float32(log_evidence))  # (M, B, C)
    log_strength = torch.logsumexp(log_alpha, dim=2)  # (M, B)
    log_alpha_y = _take(log_alpha, target)
    cross_entropy = -_take(torch.log_softmax(log_alpha, dim=2), target)  # log S - log alpha_y
    loss = cross_entropy + _digamma_minus_log(log_strength) - _digamma_minus_log(log_alpha_y)
    return loss.sum(dim=0).mean()


def dirichlet_kl(log_evidence: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the Dirichlets without the target's evidence from the uniform one.

    The regulariser of trusted multi-view classification (Han et al., ICLR 2021, eq. (8)): evidence for wrong classes
    is driven to 0. With `h(a) = lgamma(a) - (a - 1) psi(a) + a` it reads
    `h(S) - sum_c h(alpha_c) + (C - 1) psi(S) - lgamma(C)`, in which nothing cancels for large evidence; for small
    evidence on many classes it does, so it is computed in float64.

    Args:
        log_evidence: `(M, B, C)`, `-inf` for no evidence.
        target: `(B,)`, class indices in [0, C).

    Returns:
        A scalar >= 0: sum over templates, mean over the batch.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    _check_target(log_evidence, target)
    n_classes = log_evidence.shape[2]
    is_target = target[:, None] == torch.arange(n_classes, device=target.device)  # (B, C)
    log_alpha = log1p_exp(log_evidence.double()).masked_fill(is_target, 0.0)
    log_strength = torch.logsumexp(log_alpha, dim=2)
    kl = (
        _entropy_term(log_strength)
        - _entropy_term(log_alpha).sum(dim=2)
        + (n_classes - 1) * (log_strength + _digamma_minus_log(log_strength))
        - math.lgamma(n_classes)
    )
    return kl.sum(dim=0).mean().to(to_float32(log_evidence).dtype)


def diversity_loss(text_features: Tensor, scale: Tensor | float) -> Tensor:
    """Negative entropy of telling one template's classes by another's, eq. (2): the diversity loss.

    `sum_m 1/(M-1) sum_{m' != m} 1/C sum_c sum_k P(k | w_c^m, w^m') log P(k | w_c^m, w^m')` with
    `P(k | w, W) = softmax_k(scale * cos(w, W_k))`. The sum over m is our reading; the poster prints one m.

    Args:
        text_features: `(M, C, D)`, class embeddings under each template, of any length.
        scale: CLIP's `logit_scale.exp()`.

    Returns:
        A scalar in [-M log C, 0]; 0 for one template.

    Raises:
        ValueError: `text_features` is not three-dimensional.
    """
    text_features = _unit(text_features, "text features", 3)
    n_templates, n_classes, _ = text_features.shape
    rows = max(1, LOGITS_AT_ONCE // n_classes)
    keep = n_templates * (n_templates - 1) * n_classes**2 <= LOGITS_AT_ONCE or not torch.is_grad_enabled()
    total = text_features.new_zeros(())
    for m, own in enumerate(text_features):
        for other in (*text_features[:m], *text_features[m + 1 :]):
            for part in own.split(rows):
                if keep:
                    total = total + _negative_entropy(part, other, scale)
                else:
                    total = total + checkpoint(
                        _negative_entropy, part, other, scale, use_reentrant=False, preserve_rng_state=False
                    )
    return total / (max(n_templates - 1, 1) * n_classes)


def consistency_loss(text_features: Tensor, anchor: Tensor, scale: Tensor | float) -> Tensor:
    """Cross-entropy of finding each class among the hand-written template's, eq. (3).

    `- sum_m 1/C sum_c log P(c | w_c^m, w^0)`.

    Args:
        text_features: `(M, C, D)`, class embeddings under each learned template, of any length.
        anchor: `(C, D)`, class embeddings under the hand-written template.
        scale: CLIP's `logit_scale.exp()`.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    text_features = _unit(text_features, "text features", 3)
    anchor = _unit(anchor, "anchor", 2)
    if text_features.shape[1:] != anchor.shape:
        raise ValueError(
            f"anchor must have the shape {tuple(text_features.shape[1:])} of one template's text features, "
            f"got {tuple(anchor.shape)}"
        )
    log_prob = torch.log_softmax(scale * text_features @ anchor.T, dim=2)  # (M, C, C)
    return -log_prob.diagonal(dim1=1, dim2=2).mean(dim=1).sum()


def knowledge_loss(text_features: Tensor, anchor: Tensor) -> Tensor:
    """How far learnt class embeddings are from the hand-written template's: one minus their mean cosine.

    KgCoOp (Yao et al., CVPR 2023, arXiv 2303.13283). The paper's squared distance of unit vectors is twice this; its
    code has the cosine.

    Args:
        text_features: `(C, D)`, class embeddings under the learnt prompt, of any length.
        anchor: `(C, D)`, class embeddings under the hand-written template, of any length.

    Returns:
        A scalar in [0, 2].

    Raises:
        ValueError: the shapes do not fit each other.
    """
    text_features, anchor = _unit(text_features, "text features", 2), _unit(anchor, "anchor", 2)
    if text_features.shape != anchor.shape:
        raise ValueError(
            f"anchor must have the shape {tuple(text_features.shape)} of the text features, got {tuple(anchor.shape)}"
        )
    return 1 - (text_features * anchor).sum(dim=1).mean()


def template_similarity(text_features: Tensor) -> Tensor:
    """Mean cosine of one class's embeddings under two templates, over all classes and pairs, in [-1, 1].

    Args:
        text_features: `(M, C, D)`, L2-normalised, of at least two templates.
    """
    n_templates, n_classes, _ = text_features.shape
    # The square of a sum holds every pair twice, and each embedding with itself
    total = text_features.sum(dim=0).square().sum() - n_templates * n_classes
    return total / (n_templates * (n_templates - 1) * n_classes)


def _check_target(log_evidence: Tensor, target: Tensor) -> None:
    if log_evidence.ndim != 3 or target.shape != log_evidence.shape[1:2]:
        raise ValueError(
            "log-evidence must be (templates, images, classes) and target (images,), "
            f"got {tuple(log_evidence.shape)} and {tuple(target.shape)}"
        )


def _take(x: Tensor, target: Tensor) -> Tensor:
    """The target's entry: `(M, B, C)`, `(B,)` -> `(M, B)`."""
    return x.gather(2, target.expand(len(x), -1)[:, :, None])[:, :, 0]


def _unit(features: Tensor, name: str, ndim: int) -> Tensor:
    if features.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got the shape {tuple(features.shape)}")
    return F.normalize(to_float32(features), dim=-1)


def _negative_entropy(features: Tensor, others: Tensor, scale: Tensor | float) -> Tensor:
    """`sum_c sum_k P log P` of telling rows `(c, D)` among `(k, D)`, both L2-normalised."""
    log_prob = torch.log_softmax(scale * features @ others.T, dim=1)
    return (log_prob.exp() * log_prob).sum()


def _split_by_size(log_a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where alpha is large, alpha with the large ones replaced by 1, and 1/alpha with the small ones replaced."""
    large = log_a > _LOG_LARGE
    return large, log_a.masked_fill(large, 0.0).exp(), (-log_a.clamp(min=_LOG_LARGE)).exp()


def _digamma_minus_log(log_a: Tensor) -> Tensor:
    """`psi(a) - log a` from log a >= 0, in (-0.578, 0)."""
    large, a, inverse = _split_by_size(log_a)
    series = -inverse / 2 - inverse**2 / 12 + inverse**4 / 120
    return torch.where(large, series, torch.digamma(a) - a.log())


def _entropy_term(log_a: Tensor) -> Tensor:
    """`lgamma(a) - (a - 1) psi(a) + a` from log a >= 0."""
    large, a, inverse = _split_by_size(log_a)
    series = 0.5 * log_a + 0.5 * math.log(2 * math.pi) + 0.5 - inverse / 3 - inverse**2 / 12 - inverse**3 / 90
    return torch.where(large, series, torch.lgamma(a) - (a - 1) * torch.digamma(a) + a)
