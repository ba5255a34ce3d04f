"""Ways from the templates' evidence to one opinion: the paper's, the one that is kept, and what was tried besides.

Each is a function from log-evidence `(M, N, C)` to that of the fused opinion, `(N, C)`, whose Dirichlet is
`alpha = e + 1`. `trainers.modules.evidence` makes the opinion of it.

Legend: M templates, N images, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.modules.evidence import FUSIONS, fused_log_evidence

Rule = Callable[[Tensor], Tensor]


class Way(NamedTuple):
    """One way, as the page has it.

    Attributes:
        title: in the tables.
        rule: how templates are fused.
        probability: belief, eq. (6), or expected, eq. (6').
        centred: whether evidence is of a cosine minus the mean of the image's cosines with all classes.
        discounted: whether each template is discounted by its share of errors on validation images.
        fitted: whether scale and shift of the evidence are fitted on validation images.
    """

    title: str
    rule: Rule
    probability: str = "belief"
    centred: bool = False
    discounted: bool = False
    fitted: bool = False


def witnesses(log_evidence: Tensor, number: float) -> Tensor:
    """Templates counted as so many independent witnesses: `1 + R = prod_m (1 + e^m / C)^(number / M)`.

    M is Dempster's rule, and 1 is averaging.
    """
    n_templates, _, n_classes = log_evidence.shape
    total = number / n_templates * F.softplus(log_evidence - math.log(n_classes)).sum(dim=0)  # log(1 + R)
    return total + torch.log(-torch.expm1(-total)) + math.log(n_classes)


def cautious(log_evidence: Tensor) -> Tensor:
    """Denoeux's rule for sources that are not distinct (2008): for each class the template with the most evidence."""
    return log_evidence.amax(dim=0)


def belief_averaging(log_evidence: Tensor) -> Tensor:
    """Josang's averaging belief fusion (2016): the mean of the templates' evidence."""
    return log_evidence.logsumexp(dim=0) - math.log(len(log_evidence))


def cumulative(log_evidence: Tensor) -> Tensor:
    """Josang's cumulative belief fusion (2016): the sum of the templates' evidence."""
    return log_evidence.logsumexp(dim=0)


def discount(log_evidence: Tensor, reliability: Tensor) -> Tensor:
    """Shafer's discounting (1976): beliefs times a template's reliability, the rest is left for no class.

    Args:
        log_evidence: `(M, N, C)`.
        reliability: `(M,)`, in (0, 1).

    Returns:
        Log-evidence of the discounted opinions.
    """
    a, n_classes = reliability[:, None, None], log_evidence.shape[2]
    log_norm = F.softplus(log_evidence.logsumexp(dim=2, keepdim=True) - math.log(n_classes))  # - log u
    belief = (log_evidence - math.log(n_classes) - log_norm).exp()
    return torch.log(a * belief / (1 - a + a * torch.exp(-log_norm))) + math.log(n_classes)


def _fused(fusion: str) -> Rule:
    return lambda log_evidence: fused_log_evidence(log_evidence, fusion)


def _counted(number: float) -> Rule:
    return lambda log_evidence: witnesses(log_evidence, number)


DEMPSTER, AVERAGING = map(_fused, FUSIONS)
PAPER = Way("Dempster (5), belief (6): the paper's", DEMPSTER)
KEPT = Way("averaging (5''), expected (6')", AVERAGING, "expected")
WAYS = {
    "paper": PAPER,
    "expected": Way("Dempster (5), expected (6')", DEMPSTER, "expected"),
    "averaging": Way("averaging (5''), belief (6)", AVERAGING),
    "kept": KEPT,
    "fitted": PAPER._replace(title="the paper's, scale and shift fitted", fitted=True),
    "kept_fitted": KEPT._replace(title="averaging, expected, scale and shift fitted", fitted=True),
    "two": Way("as two witnesses, expected", _counted(2), "expected"),
    "half": Way("as half a witness, expected", _counted(0.5), "expected"),
    "belief_averaging": Way("mean of evidence, expected", belief_averaging, "expected"),
    "cumulative": Way("sum of evidence, expected", cumulative, "expected"),
    "cautious": Way("cautious rule, expected", cautious, "expected"),
    "discounted": PAPER._replace(title="the paper's, templates discounted", discounted=True),
    "kept_discounted": KEPT._replace(title="averaging, expected, templates discounted", discounted=True),
    "centred": PAPER._replace(title="the paper's, evidence centred", centred=True),
    "kept_centred": KEPT._replace(title="averaging, expected, evidence centred", centred=True),
}
