"""What the study measures of one run in one way, from its cosines alone.

Legend: M templates, N images, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.optimize import minimize
from torch import Tensor

from tools.study.uncertainty.ways import Way, discount
from trainers.modules.evidence import EvidenceFunction, Opinion, fuse
from trainers.modules.predictions import Arrays, Predictions
from trainers.modules.uncertainty import calibration_metrics, error_detection_metrics, open_set_metrics

SCORES = ("confidence", "entropy", "uncertainty", "doubt")
NAMES = ("accuracy", "ece", "nll", *(f"{kind}_{score}" for kind in ("auroc_error", "aurc") for score in SCORES))


class Part(NamedTuple):
    """Cosines `(M, N, C)` of images and classes, in float64, and the images' labels `(N,)`."""

    cosine: Tensor
    label: Tensor


class Cosines(NamedTuple):
    """A run's cosines.

    Attributes:
        val: validation images of base classes.
        base, new: test images of base and of new classes, each under its own class names.
        unknown: test images of new classes under the names of base classes; their labels mean nothing.
    """

    val: Part
    base: Part
    new: Part
    unknown: Part


def opinions(cosine: Tensor, way: Way, evidence: EvidenceFunction, reliability: Tensor) -> Opinion:
    """The opinions on images, of cosines `(M, N, C)`; `reliability` `(M,)` is that of the templates."""
    if way.centred:
        cosine = cosine - cosine.mean(dim=2, keepdim=True)
    log_evidence = evidence(cosine)
    if way.discounted:
        log_evidence = discount(log_evidence, reliability)
    return fuse(way.rule(log_evidence)[None], probability=way.probability)


def evidence_of(cosines: Cosines, way: Way, evidence: EvidenceFunction, reliability: Tensor) -> EvidenceFunction:
    """The evidence function in a way: centred, or with scale and shift that fit the validation labels best."""
    if way.centred:
        evidence = evidence._replace(shift=0.0)
    if not way.fitted:
        return evidence

    def changed(values: tuple[float, float]) -> EvidenceFunction:
        return evidence._replace(scale=evidence.scale * math.exp(values[0]), shift=evidence.shift + values[1])

    def nll(values: tuple[float, float]) -> float:
        log_prob = opinions(cosines.val.cosine, way, changed(values), reliability).log_prob
        return -log_prob.gather(1, cosines.val.label[:, None]).mean().item()

    # Two numbers, and a value that takes a millisecond: no gradient is needed
    found = minimize(nll, (0.0, 0.0), method="Nelder-Mead", bounds=((-2.3, 2.3), (-0.5, 0.5)))
    return changed(tuple(found.x))


def records(opinion: Opinion, label: Tensor) -> Arrays:
    """What a test keeps of each image."""
    kept = Predictions()
    own = {"uncertainty": opinion.uncertainty, "doubt": opinion.doubt}
    kept.add(opinion.log_prob, label, [""] * len(label), own)
    return kept.arrays()


def measure(cosines: Cosines, way: Way, evidence: EvidenceFunction) -> dict[str, float]:
    """Figures in one way: those of `NAMES` after "base_" and "new_", and `auroc_open_<score>`.

    Args:
        cosines: of the run.
        way: how templates are fused.
        evidence: h of the run.
    """
    right = cosines.val.cosine.argmax(dim=2) == cosines.val.label
    reliability = right.double().mean(dim=1).clamp(0.01, 0.99)
    evidence = evidence_of(cosines, way, evidence, reliability)
    found = {
        part: records(opinions(images.cosine, way, evidence, reliability), images.label)
        for part, images in (("base", cosines.base), ("new", cosines.new), ("unknown", cosines.unknown))
    }
    figures = {}
    for part in ("base", "new"):
        own = {"accuracy": 100.0 * float((found[part]["prediction"] == found[part]["label"]).mean())}
        own.update(calibration_metrics(found[part]), **error_detection_metrics(found[part]))
        figures.update({f"{part}_{name}": own[name] for name in NAMES if name in own})
        figures[f"{part}_uncertainty"] = float(found[part]["uncertainty"].mean())
    unknown = open_set_metrics(found["base"], found["unknown"])
    figures.update({f"auroc_open_{score}": unknown[f"auroc_open_{score}"] for score in SCORES})
    return figures
