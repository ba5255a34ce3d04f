"""What the study measures of one run in one way, from its cosines alone.

Legend: M templates, N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from torch import Tensor

from tools.study.uncertainty.ways import Way, discount
from trainers.modules.calibration import fit_evidence
from trainers.modules.evidence import EvidenceFunction, Opinion, fuse
from trainers.modules.predictions import Arrays, Predictions
from trainers.modules.uncertainty import calibration_metrics, error_detection_metrics, open_set_metrics

SCORES = ("confidence", "entropy", "uncertainty", "doubt")
ERRORS = ("auroc_error", "aurc", "eaurc")
OPEN = ("auroc", "fpr95")
NAMES = ("accuracy", "ece", "nll", *(f"{kind}_{score}" for kind in ERRORS for score in SCORES))


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
        far: the same of other data sets, one part each.
    """

    val: Part
    base: Part
    new: Part
    unknown: Part
    far: tuple[Part, ...] = ()


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
    """Figures in one way, as `figures_of` names them.

    Args:
        cosines: of the run.
        way: how templates are fused.
        evidence: h of the run.
    """
    if way.centred:
        val, base, new, unknown = map(centred, cosines[:4])
        cosines = Cosines(val, base, new, unknown, tuple(map(centred, cosines.far)))
        evidence = evidence._replace(shift=0.0)
    val = cosines.val
    reliability = (val.cosine.argmax(dim=2) == val.label).double().mean(dim=1).clamp(0.01, 0.99)
    if way.fitted:
        fitted = fit_evidence(val.cosine, val.label, evidence, lambda own: decide(own, way, reliability).log_prob)
        evidence = evidence._replace(scale=fitted.values["scale"], shift=fitted.values["shift"])

    def judged(images: Part) -> Arrays:
        return records(decide(evidence(images.cosine), way, reliability), images.label)

    return figures_of(
        judged(cosines.base), judged(cosines.new), judged(cosines.unknown), [judged(images) for images in cosines.far]
    )


def figures_of(base: Arrays, new: Arrays, unknown: Arrays, far: Sequence[Arrays] = ()) -> dict[str, float]:
    """The study's figures of a run.

    Args:
        base, new: records of the test images of both halves of the classes.
        unknown: of those of new classes under the names of base classes.
        far: of images of other data sets under these names, by set.

    Returns:
        Those of `NAMES` after "base_" and "new_", where a run has the score; the mean uncertainty; and of each score
        `auroc_open_<score>` and `fpr95_open_<score>`, with "far" in the place of "open" the means over the other sets.
    """
    figures = {}
    for part, found in (("base", base), ("new", new)):
        own = {"accuracy": 100.0 * float((found["prediction"] == found["label"]).mean())}
        own.update(calibration_metrics(found), **error_detection_metrics(found))
        figures.update({f"{part}_{name}": own[name] for name in NAMES if name in own})
        if "uncertainty" in found:
            figures[f"{part}_uncertainty"] = float(found["uncertainty"].mean())
    wanted = [f"{kind}_open_{score}" for kind in OPEN for score in SCORES]
    near = open_set_metrics(base, unknown)
    figures.update({name: near[name] for name in wanted if name in near})
    others = [open_set_metrics(base, images) for images in far]
    if others:
        figures.update(
            {name.replace("open", "far"): fmean(own[name] for own in others) for name in wanted if name in near}
        )
    return figures
