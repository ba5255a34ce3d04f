"""Metrics of a test besides the evaluator's: accuracy of each template, calibration and error detection."""

from __future__ import annotations

from torch import Tensor

from .modules.predictions import COMMON, Arrays
from .modules.uncertainty import calibration_metrics, error_detection_metrics

LATER = ", after calibration"  # in the heading of metrics that are printed


def batch_totals(records: dict[str, Tensor], label: Tensor) -> dict[str, float]:
    """Sums over a batch of what `judge` records, and of how often each template is right, in percent."""
    totals = {name: values.sum().item() for name, values in records.items() if values.ndim == 1}
    if "template_prediction" in records:
        hits = (records["template_prediction"] == label[:, None]).sum(dim=0)
        totals.update({f"template{m}_accuracy": 100.0 * right for m, right in enumerate(hits.tolist(), 1)})
    return totals


def uncertainty_metrics(found: Arrays, when: str = "") -> dict[str, float]:
    """Print, in the evaluator's style, and return the calibration and error detection of a test."""
    metrics = {**calibration_metrics(found), **error_detection_metrics(found)}
    print(f"=> uncertainty{when}")
    for name, value in metrics.items():
        print(f"* {name}: {value:.4f}" if name == "nll" else f"* {name}: {value:.1f}%")
    return metrics


def calibrated_metrics(found: Arrays) -> dict[str, float]:
    """As `uncertainty_metrics`, of what was found after calibration, with the accuracy and the means of records."""
    metrics = {"accuracy": 100.0 * float((found["prediction"] == found["label"]).mean())}
    own = {name: values for name, values in found.items() if name not in COMMON and values.ndim == 1}
    metrics.update((name, float(values.mean())) for name, values in own.items())
    metrics.update(uncertainty_metrics(found, LATER))
    return {f"{name}_calibrated": value for name, value in metrics.items()}
