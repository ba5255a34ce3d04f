"""What the study measures of one run in one way, from its cosines alone.

Legend: M templates, N images, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tools.study.uncertainty.ways import Way, discount
from trainers.modules.calibration import fit_evidence
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


def decide(log_evidence: Tensor, way: Way, reliability: Tensor) -> Opinion:
    """The opinions on images, of the templates' log-evidence `(M, N, C)` and reliability `(M,)`."""
    if way.discounted:
        log_evidence = discount(log_evidence, reliability)
    return fuse(way.rule(log_evidence)[None], probability=way.probability)


def centred(images: Part) -> Part:
    """Each cosine minus the mean of the image's cosines with all classes, under the same template."""
    return images._replace(cosine=images.cosine - images.cosine.mean(dim=2, keepdim=True))


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
    if way.centred:
        cosines, evidence = Cosines(*map(centred, cosines)), evidence._replace(shift=0.0)
    val, others = cosines.val, {"base": cosines.base, "new": cosines.new, "unknown": cosines.unknown}
    reliability = (val.cosine.argmax(dim=2) == val.label).double().mean(dim=1).clamp(0.01, 0.99)
    if way.fitted:
        fitted = fit_evidence(val.cosine, val.label, evidence, lambda own: decide(own, way, reliability).log_prob)
        evidence = evidence._replace(scale=fitted.values["scale"], shift=fitted.values["shift"])
    found = {
        part: records(decide(evidence(images.cosine), way, reliability), images.label)
        for part, images in others.items()
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
