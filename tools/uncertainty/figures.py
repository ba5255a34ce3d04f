"""The figures of a run's calibration, error detection and open set as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from tabulate import tabulate

from storage.safe_text import escaped
from trainers.modules.predictions import split_open_set
from trainers.modules.uncertainty import (
    calibration_metrics,
    error_detection_metrics,
    expected_calibration_error,
    open_set_metrics,
    uncertainty_scores,
)

NOTHING = "–"


def text_of(records: Mapping[str, NDArray[Any]], bins: int = 15) -> str:
    """A line on the known images, and a table with a row for each score.

    Args:
        records: of a test.
        bins: of the calibration error.

    Raises:
        ValueError: a record is not a number or out of range.
    """
    known, others = split_open_set(records)
    right = known["prediction"] == known["label"]
    calibration = calibration_metrics(known)
    error = 100 * expected_calibration_error(known["confidence"], right, bins)
    line = f"{len(right):,} images of known classes: accuracy {100 * right.mean():.1f}%, "
    line += f"mean confidence {calibration['mean_confidence']:.1f}%, ECE {error:.1f}% ({bins} bins), "
    line += f"NLL {calibration['nll']:.3f}, " if "nll" in calibration else ""
    line += f"Brier {calibration['brier']:.1f}%"

    found = error_detection_metrics(known)
    columns = {"errors\nAUROC": "auroc_error", "\nAURC": "aurc", "\nE-AURC": "eaurc", "accuracy\nat 80%": "acc80"}
    headers, rows = ["score", *columns], [[score] for score in uncertainty_scores(known)]
    for row in rows:
        row += [_cell(found.get(f"{figure}_{row[0]}")) for figure in columns.values()]
    for name, part in others.items():
        found = open_set_metrics(known, part)
        headers += [f"{escaped(name)} ({len(part['label']):,})\nAUROC", "\nFPR95"]
        for row in rows:
            row += [_cell(found.get(f"{figure}_open_{row[0]}")) for figure in ("auroc", "fpr95")]
    table = tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
    return f"{line}\n\n{table}"


def _cell(number: float | None) -> str:
    return NOTHING if number is None else f"{number:.1f}"
