"""A trained run that classifies one's own images.

Legend: M templates, B images, C classes, S image size in pixels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Union

import compat  # noqa: F401  makes `import dassl` work; stands before it

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.files import IMAGE_EXTENSIONS, OwnImage, list_entries, read_text, shorten
from tools.predict.pictures import KINDS, Picture, pictures_of
from tools.predict.trained import fit_to_machine, load_images, load_trained, read_run, restore_cfg, test_views
from trainers.base import check_scores
from trainers.modules.calibration_file import read_calibration
from trainers.modules.predictions import Predictions
from trainers.modules.rejection import Rejection, choose_rejection
from trainers.modules.uncertainty import uncertainty_scores

Given = Union[str, Path, Image.Image, np.ndarray, Tensor]


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
        score: how uncertain it is by the predictor's score, the higher the less certain; None without rejection.
        rejected: whether that is above the threshold; None without rejection.
    """

    path: str
    label: str
    probability: float
    uncertainty: float | None
    conflict: float | None
    top: list[Choice]
    templates: list[TemplateOpinion]
    score: float | None = None
    rejected: bool | None = None


class Skipped(NamedTuple):
    """An image or folder that was left out, and why."""

    path: str
    reason: str


class Found(NamedTuple):
    """What there is to classify.

    Attributes:
        images: paths and images in memory, in order.
        others: files in folders that are no images by their names.
        skipped: folders without any image or not readable, and what is neither a file nor a folder.
    """

    images: list[str | Picture]
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
        calibrated: whether predictions are those after the calibration that `tools.calibrate` has put into the run.
        coverage: mark as rejected what is less certain than this share of the run's validation images, in (0, 1]; or
        reject_above: mark as rejected whose score is above this.
        score: to reject by (`trainers.modules.uncertainty.uncertainty_scores`); "" for the one that detects mistakes
            best on the run's validation images.
        settings: options of the method in place of the run's, keys and values in turn (TRAINER.CDC.FUSION, averaging).

    Attributes:
        trainer: the run's trainer with its model.
        calibration: the values that predictions are calibrated with; None for none.
        rejection: what is rejected, and what that keeps of the run's validation images; None for nothing.
        fitted_on: what the calibration file says of these images; empty where it is not needed.

    Raises:
        FileNotFoundError: the run, its checkpoint, its CLIP or the calibration that is needed is not there.
        ValueError: the run cannot be read, its method cannot tell these classes apart, the calibration does not fit it,
            the method has no such score, or a number is out of range.
    """

    calibration: dict[str, float] | None = None
    rejection: Rejection | None = None

    def __init__(
        self,
        run: str | Path,
        class_names: Sequence[str] | None = None,
        device: str = "auto",
        epoch: int | None = None,
        backbone: str = "",
        precision: str = "",
        *,
        calibrated: bool = False,
        coverage: float | None = None,
        reject_above: float | None = None,
        score: str = "",
        settings: Sequence[str] = (),
    ) -> None:
        results = read_run(run)
        cfg = restore_cfg(results, settings)
        fit_to_machine(cfg, device, backbone, precision)
        cfg.freeze()
        names = results["class_names"] if class_names is None else check_class_names(class_names)
        with redirect_stdout(StringIO()):  # trainers and Dassl tell what they build
            self.trainer = load_trained(run, results, cfg, names, epoch)
            self.views = test_views(self.trainer)
        self.fitted_on: dict[str, Any] = {}
        rejecting = (coverage, reject_above) != (None, None)
        if score and not rejecting:
            raise ValueError(f"a score is to reject by: give a coverage or a threshold with {score}")
        if calibrated or rejecting:
            content = read_calibration(run, self.trainer.model_identity())
            self.fitted_on = content["fitted_on"]
            self.calibration = content["values"] if calibrated else None
            images = content["images"]["after" if calibrated else "before"]
            if rejecting:
                self.rejection = choose_rejection(images["scores"], images["wrong"], score, coverage, reject_above)

    @property
    def class_names(self) -> list[str]:
        return self.trainer.class_names

    def __call__(
        self,
        images: Given | Iterable[Given],
        top_k: int = 1,
        batch_size: int | None = None,
        workers: int = 0,
    ) -> list[Prediction]:
        """Classify image files, the images in folders, and images in memory.

        Args:
            images: paths of files and folders, and images as of `pictures.pictures_of`, or one of them. In place of a
                path the prediction on an image in memory has `image <n>`, its place among these, from 0.
            top_k, batch_size, workers: see `predict`.

        Raises:
            OSError: an image cannot be read, or a folder holds none; with its path. `predict` goes on instead.
            ValueError: as `predict`, or as `pictures.pictures_of`.
        """
        found = find_images(images)
        predictions = []
        for outcome in chain(found.skipped, self.predict(found.images, top_k, batch_size, workers)):
            if isinstance(outcome, Skipped):
                raise OSError(f"{outcome.path}: {outcome.reason}")
            predictions.append(outcome)
        return predictions

    def predict(
        self, paths: Sequence[str | Picture], top_k: int = 1, batch_size: int | None = None, workers: int = 0
    ) -> Iterator[Prediction | Skipped]:
        """Classify image files one batch after the other.

        Args:
            paths: of image files, or images in memory.
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
        paths = [path if isinstance(path, Picture) else OwnImage(path) for path in paths]
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
        outputs = trainer.outputs(images)
        scores, records = trainer.judge(outputs, self.calibration)
        fused, own = trainer.opinions(outputs, self.calibration) or (None, [])
        probability = scores.softmax(dim=1)  # (B, C)
        try:
            check_scores(scores, trainer.options.PREC)
        except FloatingPointError as error:
            raise ValueError(str(error)) from error
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
            for templates, (label_number, *values) in zip(opinions, zip(*columns)):
                templates.append(TemplateOpinion(names[label_number], *values))
        uncertainty = fused.uncertainty.tolist() if fused else [None] * len(tops)
        conflict = fused.conflict.tolist() if fused else [None] * len(tops)
        predictions = [
            Prediction("", *top[0], u, k, top, t) for top, u, k, t in zip(tops, uncertainty, conflict, opinions)
        ]
        return self._reject(self.rejection, predictions, scores, records) if self.rejection else predictions

    @staticmethod
    def _reject(
        rejection: Rejection, predictions: list[Prediction], scores: Tensor, records: dict[str, Tensor]
    ) -> list[Prediction]:
        """Predictions with their score, and whether that is above the threshold."""
        judged = Predictions()  # as a test and a calibration keep them
        judged.add(scores, torch.zeros_like(scores[:, 0], dtype=torch.long), [""] * len(scores), records)
        values = uncertainty_scores(judged.arrays())[rejection.score].tolist()
        return [
            prediction._replace(score=value, rejected=value > rejection.threshold)
            for prediction, value in zip(predictions, values)
        ]


def find_images(given: Given | Iterable[Given]) -> Found:
    """The images that files and folders stand for.

    Files are taken as they are, whatever their names, also those that do not exist. Folders are searched with all that
    is below them and not hidden, in the order of the names, the files of a folder before its folders; in them, files
    are images by their names.

    Args:
        given: paths of files and folders, and images in memory, or one of them.

    Raises:
        ValueError: as `pictures.pictures_of`.
    """
    found = Found([], [], [])
    n_pictures = 0
    for one in [given] if isinstance(given, (str, os.PathLike, *KINDS)) else given:
        if isinstance(one, KINDS):
            for image in pictures_of(one):
                found.images.append(Picture(f"image {n_pictures}", image))
                n_pictures += 1
            continue
        path = os.fspath(one)
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
        folders, files, others = list_entries(folder)
    except OSError as error:
        found.skipped.append(Skipped(folder, str(error.strerror)))
        return
    for name in files:
        images = found.images if name.lower().endswith(IMAGE_EXTENSIONS) else found.others
        images.append(os.path.join(folder, name))
    found.skipped.extend(Skipped(os.path.join(folder, name), reason) for name, reason in others.items())
    for name in folders:
        _search(os.path.join(folder, name), found, (*above, here))


def read_class_names(given: str) -> list[str]:
    """Class names from a text file with one per line, or from a list with commas between them.

    Raises:
        FileNotFoundError: neither a file nor a list.
        ValueError: the file is not text, or as `check_class_names`.
    """
    if os.path.isfile(given):
        try:
            lines = read_text(given).split("\n")
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
