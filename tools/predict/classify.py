"""What `python -m tools.predict` does: predictions as rows of a table or as JSON objects.

Legend: M templates.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable, TextIO

import compat  # noqa: F401  makes `import dassl` work; stands before it

import numpy as np
from tqdm import tqdm

from datasets.files import shorten
from storage.safe_text import escaped, safe_cell
from tools.predict.predictor import Prediction, Predictor, Skipped, find_images, read_class_names
from trainers.modules.progress import progress


def to_dict(prediction: Prediction) -> dict[str, Any]:
    """A prediction as a JSON object, its numbers as short as float32 allows; score and rejection if it has them."""
    rejection = {"score": short(prediction.score), "rejected": prediction.rejected}
    return {
        "path": prediction.path,
        "label": prediction.label,
        "probability": short(prediction.probability),
        "uncertainty": short(prediction.uncertainty),
        "conflict": short(prediction.conflict),
        **(rejection if prediction.rejected is not None else {}),
        "top": [{"label": label, "probability": short(share)} for label, share in prediction.top],
        "templates": [
            {"label": own.label, "belief": short(own.belief), "uncertainty": short(own.uncertainty)}
            for own in prediction.templates
        ],
    }


def to_columns(prediction: Prediction) -> dict[str, Any]:
    """A prediction as columns of a table: `label2`, `probability2`, ... further classes, `template1_label`, ..."""
    content = to_dict(prediction)
    top, templates = content.pop("top"), content.pop("templates")
    for rank, choice in enumerate(top[1:], 2):
        content.update({f"{key}{rank}": value for key, value in choice.items()})
    for m, own in enumerate(templates, 1):
        content.update({f"template{m}_{key}": value for key, value in own.items()})
    return content


def short(value: float | None) -> float | None:
    """The shortest number that is the same in float32, in which models compute."""
    return None if value is None else float(str(np.float32(value)))


def write_csv(file: TextIO, raw: bool = False) -> Callable[[Prediction], None]:
    """A function that writes one row, and the names of the columns before the first.

    Args:
        file: to write to.
        raw: whether texts stay as they are, also those that a spreadsheet takes for formulas (`safe_cell`).
    """
    writer = csv.writer(file, lineterminator="\n")
    started = False

    def write(prediction: Prediction) -> None:
        nonlocal started
        columns = to_columns(prediction)
        if not started:
            writer.writerow(columns)
            started = True
        writer.writerow(columns.values() if raw else map(safe_cell, columns.values()))

    return write


def write_jsonl(file: TextIO) -> Callable[[Prediction], None]:
    """A function that writes one JSON object a line."""

    def write(prediction: Prediction) -> None:
        file.write(json.dumps(to_dict(prediction)) + "\n")

    return write


def _open(output: str) -> AbstractContextManager[TextIO]:
    """The file of rows, or stdout; each row goes out whole, with the bytes of paths that are not UTF-8 as they are."""
    if output:
        return open(output, "w", encoding="utf-8", errors="surrogateescape", newline="", buffering=1)
    if isinstance(sys.stdout, io.TextIOWrapper):  # not where a caller has replaced it
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="", line_buffering=True)
    return nullcontext(sys.stdout)


def describe_trust(predictor: Predictor, other_classes: bool) -> list[str]:
    """Lines on what predictions are calibrated with, and on what is rejected.

    Args:
        predictor: the run.
        other_classes: whether it classifies into other classes than its own.
    """
    lines = []
    images = f"{predictor.fitted_on.get('what', '')} images"
    if predictor.calibration:
        values = ", ".join(f"{name} {value:.4g}" for name, value in predictor.calibration.items())
        lines.append(f"calibrated by {values}, fitted on {predictor.fitted_on['images']} {images}")
    if predictor.rejection:
        score, threshold, kept, right = predictor.rejection
        accuracy = f", {kept.right} of them right ({kept.right / kept.kept:.1%})" if kept.kept else ""
        lines += [
            f"rejected is what has a score {score} above {threshold:.6g}",
            f"of {kept.images} {images} that keeps {kept.kept} ({kept.kept / kept.images:.1%}){accuracy}; of all "
            f"{right} are right ({right / kept.images:.1%})",
        ]
    if lines and other_classes:
        lines.append("calibration and threshold are of the run's own classes, and may not hold for others")
    return lines


def tell(message: str) -> None:
    tqdm.write(f"tools.predict: {escaped(message)}", file=sys.stderr)


def build_predictor(args: argparse.Namespace) -> Predictor:
    """The run that the command line names; what it is goes to stderr."""
    names = read_class_names(args.classnames) if args.classnames else None
    predictor = Predictor(
        args.model_dir,
        names,
        args.device,
        args.load_epoch,
        args.backbone,
        args.precision,
        calibrated=args.calibrated,
        coverage=args.coverage,
        reject_above=args.reject_above,
        score=args.score,
        settings=[text for pair in args.set for text in pair],
    )
    trainer = predictor.trainer
    epoch = f" of epoch {trainer.tested_epoch}" if trainer.tested_epoch else ""
    tell(f"{trainer.cfg.TRAINER.NAME}{epoch}, {len(predictor.class_names)} classes, on {trainer.device}")
    for line in describe_trust(predictor, names is not None):
        tell(line)
    return predictor


def explain_image(args: argparse.Namespace) -> int:
    """`--explain`: a page on one image; returns the exit status."""
    try:
        from tools.predict.explain import explain, write_page
    except ModuleNotFoundError as error:
        if error.name != "jinja2":
            raise
        raise OSError("--explain needs jinja2: pip install -e '.[report]'") from error
    explanation = explain(build_predictor(args), args.explain)
    write_page(explanation, args.output)
    tell(f"{args.output}: {explanation.label}, {explanation.probability:.1%}")
    return 0


def classify(args: argparse.Namespace) -> int:
    """Predictions of the images that the command line names; returns the exit status."""
    found = find_images(args.images)
    if found.others:
        tell(f"left out, as no image by its name, {len(found.others)} file(s): {shorten(found.others)}")
    n_skipped = n_done = n_rejected = 0
    for path, reason in found.skipped:
        tell(f"skipped {path}: {reason}")
        n_skipped += 1
    if not found.images:
        raise FileNotFoundError("there is no image to classify")

    predictor = build_predictor(args)
    cfg = predictor.trainer.cfg
    workers = cfg.DATALOADER.NUM_WORKERS if args.workers is None else args.workers
    outcomes = predictor.predict(found.images, args.top_k, args.batch_size, workers)
    with _open(args.output) as file:
        write = write_csv(file, args.raw) if args.format == "csv" else write_jsonl(file)
        for outcome in progress(outcomes, "predict", "images", len(found.images)):
            if isinstance(outcome, Skipped):
                tell(f"skipped {outcome.path}: {outcome.reason}")
                n_skipped += 1
            else:
                n_done += 1
                n_rejected += bool(outcome.rejected)
                if not outcome.rejected or args.rejected == "mark":
                    write(outcome)
    rejected = f", of these rejected {n_rejected}" if predictor.rejection else ""
    tell(f"classified {n_done}{rejected}, skipped {n_skipped}")
    if not n_done:
        return 2
    return 1 if n_skipped else 0
