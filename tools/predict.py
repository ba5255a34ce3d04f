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

Legend: M templates, B images, C classes, S image size in pixels.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any, Callable, NamedTuple, TextIO

import compat  # noqa: F401  makes `import dassl` work; stands before it

import numpy as np
import torch
from dassl.data.transforms.transforms import build_transform
from torch import Tensor
from tqdm import tqdm

from datasets.files import IMAGE_EXTENSIONS, list_visible, shorten
from tools.pipes import ending_quietly
from tools.trained import DEVICES, fit_to_machine, load_images, load_trained, read_run, restore_cfg


class Choice(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float


class TemplateOpinion(NamedTuple):
    """What one template holds of an image: its first class, its belief in that, and its uncertainty (CDC, eq. (4))."""

    label: str
    belief: float
    uncertainty: float


class Prediction(NamedTuple):
    """What a run says of one image.

    Attributes:
        path: the image.
        label: name of the class with the highest probability.
        probability: of that class, in [0, 1].
        uncertainty, conflict: of the fused opinion, in [0, 1]; None where the method has none.
        top: the first classes with their probabilities, as many as were asked for.
        templates: each template's own opinion; empty where the method has none.
    """

    path: str
    label: str
    probability: float
    uncertainty: float | None
    conflict: float | None
    top: list[Choice]
    templates: list[TemplateOpinion]


class Skipped(NamedTuple):
    """An image or folder that was left out, and why."""

    path: str
    reason: str


class Found(NamedTuple):
    """What there is to classify.

    Attributes:
        images: paths, in order.
        others: files in folders that are no images by their names.
        skipped: folders without any image, or not readable.
    """

    images: list[str]
    others: list[str]
    skipped: list[Skipped]


class Predictor:
    """A trained run, ready to classify.

    Where the run's test images got random views (CDC's TEST_VIEWS), those of an image follow from the run's seed and
    the picture, so that every call gives the same. Calls leave the global random states as they are.

    Args:
        run: folder of a finished training, or of a test where the method trains nothing; with its `results.json`.
        class_names: C class names in place of the run's own.
        device: auto (a GPU if there is one), cpu or cuda.
        epoch: of the checkpoint to load; None for the one that the run has tested.
        backbone: CLIP by name or path in place of the run's own, such as its place on another machine.
        precision: of the encoders (fp16, bf16, amp, fp32) in place of the run's own.

    Attributes:
        trainer: the run's trainer with its model.

    Raises:
        FileNotFoundError: the run, its checkpoint or its CLIP is not there.
        ValueError: the run cannot be read, or its method cannot tell these classes apart.
    """

    def __init__(
        self,
        run: str | Path,
        class_names: Sequence[str] | None = None,
        device: str = "auto",
        epoch: int | None = None,
        backbone: str = "",
        precision: str = "",
    ) -> None:
        results = read_run(run)
        cfg = restore_cfg(results)
        fit_to_machine(cfg, device, backbone, precision)
        cfg.freeze()
        names = results["class_names"] if class_names is None else check_class_names(class_names)
        with redirect_stdout(StringIO()):  # trainers and Dassl tell what they build
            self.trainer = load_trained(run, results, cfg, names, epoch)
            _, views = self.trainer.transforms()
            views = views or build_transform(cfg, is_train=False)
        self.views: list[Any] = views if isinstance(views, list) else [views]

    @property
    def class_names(self) -> list[str]:
        return self.trainer.class_names

    def __call__(
        self,
        images: str | Path | Iterable[str | Path],
        top_k: int = 1,
        batch_size: int | None = None,
        workers: int = 0,
    ) -> list[Prediction]:
        """Classify image files and the images in folders.

        Args:
            images: paths of files and folders, or one of them.
            top_k, batch_size, workers: see `predict`.

        Raises:
            OSError: an image cannot be read, or a folder holds none; with its path. `predict` goes on instead.
            ValueError: as `predict`.
        """
        found = find_images(images)
        predictions = []
        for outcome in chain(found.skipped, self.predict(found.images, top_k, batch_size, workers)):
            if isinstance(outcome, Skipped):
                raise OSError(f"{outcome.path}: {outcome.reason}")
            predictions.append(outcome)
        return predictions

    def predict(
        self, paths: Sequence[str], top_k: int = 1, batch_size: int | None = None, workers: int = 0
    ) -> Iterator[Prediction | Skipped]:
        """Classify image files one batch after the other.

        Args:
            paths: of image files.
            top_k: how many classes to tell of each image, 1 to C.
            batch_size: images at once; None for as many as the run tested at once.
            workers: processes that read images; 0 reads them in this one.

        Returns:
            For each path, in order, its prediction or why there is none.

        Raises:
            ValueError: `top_k` or `batch_size` is out of range.
        """
        n_classes = len(self.class_names)
        if not 1 <= top_k <= n_classes:
            raise ValueError(f"top_k must be from 1 to {n_classes}, the number of classes, got {top_k}")
        batch_size = self.trainer.cfg.DATALOADER.TEST.BATCH_SIZE if batch_size is None else batch_size
        return self._stream(load_images(paths, self.views, batch_size, workers, self.trainer.cfg.SEED), top_k)

    def _stream(self, loader: Iterable, top_k: int) -> Iterator[Prediction | Skipped]:
        for outcomes, batch in loader:
            predictions = iter(self._classify(batch, top_k) if batch else [])
            for path, reason in outcomes:
                yield Skipped(path, reason) if reason else next(predictions)._replace(path=path)

    @torch.no_grad()
    def _classify(self, batch: dict[str, Tensor], top_k: int) -> list[Prediction]:
        """Predictions, still without their paths, of a batch as Dassl's loaders give it."""
        trainer, names = self.trainer, self.class_names
        trainer.set_model_mode("eval")
        images, _ = trainer.parse_batch_test(batch)
        fused, own = trainer.opinions(images) or (None, [])
        scores = fused.log_prob if fused else trainer.model_inference(images)
        probability = scores.softmax(dim=1)  # (B, C)
        if not probability.isfinite().all():
            raise ValueError(
                f"the model's scores are not finite: its training has diverged, or {trainer.options.PREC} is too "
                "narrow for this CLIP (--precision fp32 tells)"
            )
        # Sorted by score, as the test takes the largest score: probabilities may round to the same number.
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :top_k]
        tops = [
            [Choice(names[label], share) for label, share in zip(*row)]
            for row in zip(order.tolist(), probability.gather(1, order).tolist())
        ]
        opinions: list[list[TemplateOpinion]] = [[] for _ in tops]
        for opinion in own:
            label = opinion.log_prob.argmax(dim=1, keepdim=True)
            belief = opinion.belief.gather(1, label)[:, 0]
            columns = (label[:, 0].tolist(), belief.tolist(), opinion.uncertainty.tolist())
            for templates, (number, *figures) in zip(opinions, zip(*columns)):
                templates.append(TemplateOpinion(names[number], *figures))
        uncertainty = fused.uncertainty.tolist() if fused else [None] * len(tops)
        conflict = fused.conflict.tolist() if fused else [None] * len(tops)
        return [Prediction("", *top[0], u, k, top, t) for top, u, k, t in zip(tops, uncertainty, conflict, opinions)]


def find_images(given: str | Path | Iterable[str | Path]) -> Found:
    """The images that files and folders stand for.

    Files are taken as they are, whatever their names, also those that do not exist. Folders are searched with all that
    is below them and not hidden, in the order of the names, the files of a folder before its folders; in them, files
    are images by their names.

    Args:
        given: paths of files and folders, or one of them.
    """
    found = Found([], [], [])
    paths = [given] if isinstance(given, (str, os.PathLike)) else given
    for path in (os.fspath(path) for path in paths):
        if os.path.isdir(path):
            before = len(found.images), len(found.skipped)
            _search(path, found, ())
            if (len(found.images), len(found.skipped)) == before:
                found.skipped.append(Skipped(path, "there are no images in this folder"))
        else:
            found.images.append(path)
    return found


def _search(folder: str, found: Found, above: tuple[str, ...]) -> None:
    """Add what a folder holds; `above` are the real paths of those around it, which a link may lead back to."""
    here = os.path.realpath(folder)
    if here in above:
        return
    try:
        folders, files = list_visible(folder)
    except OSError as error:
        found.skipped.append(Skipped(folder, str(error.strerror)))
        return
    for name in files:
        images = found.images if name.lower().endswith(IMAGE_EXTENSIONS) else found.others
        images.append(os.path.join(folder, name))
    for name in folders:
        _search(os.path.join(folder, name), found, (*above, here))


def read_class_names(given: str) -> list[str]:
    """Class names from a text file with one a line, or from a list with commas between them.

    Raises:
        FileNotFoundError: neither a file nor a list.
        ValueError: the file is not text, or as `check_class_names`.
    """
    if os.path.isfile(given):
        try:
            lines = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{given} must be a text file in UTF-8 with one class name a line: {error}") from error
        return check_class_names([line.strip() for line in lines if line.strip()], given)
    if "," not in given:
        raise FileNotFoundError(f"class names come as a file or with commas between them, but there is no file {given}")
    return check_class_names([name.strip() for name in given.split(",")])


def check_class_names(names: Sequence[str], source: str = "the list") -> list[str]:
    """The names, if CLIP can tell them apart: for it underscores are blanks, and case and further blanks nothing.

    Raises:
        ValueError: there are none, one is empty, or some stand there twice.
    """
    if isinstance(names, str) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{source} of class names must hold at least one and no empty one, got {names!r}")
    counts = Counter(" ".join(name.replace("_", " ").casefold().split()) for name in names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"{source} of class names must hold each once, but has several times {shorten(twice)}")
    return list(names)


def to_dict(prediction: Prediction) -> dict[str, Any]:
    """A prediction as a JSON object, its numbers as short as float32 allows."""
    return {
        **prediction._asdict(),
        "probability": _short(prediction.probability),
        "uncertainty": _short(prediction.uncertainty),
        "conflict": _short(prediction.conflict),
        "top": [{"label": label, "probability": _short(share)} for label, share in prediction.top],
        "templates": [
            {"label": own.label, "belief": _short(own.belief), "uncertainty": _short(own.uncertainty)}
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


def _short(value: float | None) -> float | None:
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
    if isinstance(sys.stdout, io.TextIOWrapper):  # not where a caller has replaced it
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
