"""Classify one's own images with a trained run, without its data set.

    python -m tools.predict --model-dir RUN IMAGE_OR_FOLDER... [--classnames FILE_OR_LIST] [--output FILE]

or in Python

    from tools.predict import Predictor
    predictor = Predictor("output/base2new/train_base/shapes/shots_16/CDC/tiny/seed1")
    predictor(["a.jpg"])

RUN is the folder of a finished training, or of a test where the method trains nothing; its results.json says how to
build the model. Images are read and transformed as the run's test images were. Folders are searched with all below
them, in the order of their names. What cannot be read is told on stderr and left out. The exit status is 0 if all were
classified, 1 if some were left out, and 2 if none was classified or the input is wrong.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable, TextIO

import compat  # noqa: F401  makes `import dassl` work; stands before it

import numpy as np
from tqdm import tqdm

from datasets.files import shorten
from tools.common.commands import argument_parser
from tools.common.pipes import ending_quietly
from tools.predict.predictor import Prediction, Predictor, Skipped, find_images, read_class_names
from tools.predict.trained import DEVICES


def to_dict(prediction: Prediction) -> dict[str, Any]:
    """A prediction as a JSON object, its numbers as short as float32 allows."""
    return {
        **prediction._asdict(),
        "probability": short(prediction.probability),
        "uncertainty": short(prediction.uncertainty),
        "conflict": short(prediction.conflict),
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


def write_csv(file: TextIO) -> Callable[[Prediction], None]:
    """A function that writes one row, and the names of the columns before the first."""
    writer = csv.writer(file, lineterminator="\n")
    started = False

    def write(prediction: Prediction) -> None:
        nonlocal started
        columns = to_columns(prediction)
        if not started:
            writer.writerow(columns)
            started = True
        writer.writerow(columns.values())

    return write


def write_jsonl(file: TextIO) -> Callable[[Prediction], None]:
    """A function that writes one JSON object a line."""

    def write(prediction: Prediction) -> None:
        file.write(json.dumps(to_dict(prediction)) + "\n")

    return write


FORMATS = {"csv": write_csv, "jsonl": write_jsonl}


def _open(output: str) -> AbstractContextManager[TextIO]:
    """The file of rows, or stdout; each row goes out whole, with the bytes of paths that are not UTF-8 as they are."""
    if output:
        return open(output, "w", encoding="utf-8", errors="surrogateescape", newline="", buffering=1)
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="", line_buffering=True)
    return nullcontext(sys.stdout)


def classify(args: argparse.Namespace) -> int:
    """What the command line asks for; returns the exit status."""

    def tell(message: str) -> None:
        tqdm.write(f"tools.predict: {message}", file=sys.stderr)

    found = find_images(args.images)
    if found.others:
        tell(f"left out, as no image by its name, {len(found.others)} file(s): {shorten(found.others)}")
    n_skipped = n_done = 0
    for path, reason in found.skipped:
        tell(f"skipped {path}: {reason}")
        n_skipped += 1
    if not found.images:
        raise FileNotFoundError("there is no image to classify")

    names = read_class_names(args.classnames) if args.classnames else None
    predictor = Predictor(args.model_dir, names, args.device, args.load_epoch, args.backbone, args.precision)
    trainer, cfg = predictor.trainer, predictor.trainer.cfg
    epoch = f" of epoch {trainer.tested_epoch}" if trainer.tested_epoch else ""
    tell(f"{cfg.TRAINER.NAME}{epoch}, {len(predictor.class_names)} classes, on {trainer.device}")
    workers = cfg.DATALOADER.NUM_WORKERS if args.workers is None else args.workers
    outcomes = predictor.predict(found.images, args.top_k, args.batch_size, workers)
    with _open(args.output) as file:
        write = FORMATS[args.format](file)
        for outcome in tqdm(outcomes, total=len(found.images), unit="image", disable=None):
            if isinstance(outcome, Skipped):
                tell(f"skipped {outcome.path}: {outcome.reason}")
                n_skipped += 1
            else:
                write(outcome)
                n_done += 1
    tell(f"classified {n_done}, skipped {n_skipped}")
    if not n_done:
        return 2
    return 1 if n_skipped else 0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argument_parser("tools.predict", __doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="images, and folders of images")
    parser.add_argument("--model-dir", required=True, help="folder of the run")
    parser.add_argument("--classnames", default="", help="classes in place of the run's: a file, one a line, or a,b,c")
    parser.add_argument("--output", default="", help="file to write, in place of stdout; replaced if it is there")
    parser.add_argument("--format", choices=list(FORMATS), default="csv", help="a table, or one JSON object a line")
    parser.add_argument("--top-k", type=int, default=1, help="how many classes to tell of each image")
    parser.add_argument("--batch-size", type=int, help="images at once (default: as the run's test)")
    parser.add_argument("--workers", type=int, help="processes that read images (default: as the run's)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--precision", default="", help="fp16, bf16, amp or fp32 in place of the run's")
    parser.add_argument("--backbone", default="", help="CLIP by name or path in place of the run's")
    parser.add_argument("--load-epoch", type=int, help="epoch of the checkpoint (default: the one that the run tested)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of wrong input")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    try:
        with ending_quietly():
            return classify(args)
    except (OSError, ValueError) as error:
        if args.debug:
            raise
        print(f"tools.predict: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
