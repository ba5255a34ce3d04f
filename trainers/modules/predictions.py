"""What a test says of each image, gathered batch by batch and kept in one file of NumPy arrays.

Legend: N images of a test, B of a batch, C classes, M templates.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import write_array
from numpy.typing import NDArray
from torch import Tensor

from storage.files import atomic_write

FILE_NAME = "predictions.npz"
CALIBRATED_FILE_NAME = "predictions_calibrated.npz"  # the same, after calibration
COMMON = ("path", "label", "prediction", "confidence", "label_log_prob", "entropy", "sum_of_squares")  # to all methods

NO_CLASS = -1  # the label of an image of none of the classes

# Below what scores that mean something can be: a method may have a finite number for the logarithm of 0
_NONE = -1e20

Arrays = dict[str, NDArray[Any]]


def describe(scores: Tensor, label: Tensor) -> dict[str, Tensor]:
    """What the probabilities `softmax(scores)` say of each image.

    The softmax is computed in float64. In float32 all probabilities above 1 - 3e-8 are 1, and images that the scores
    tell apart would be equally certain.

    Args:
        scores: `(B, C)` logits or log-probabilities, of any precision.
        label: `(B,)`, in 0 to C - 1, or `NO_CLASS`.

    Returns:
        By name, each `(B,)`: label; prediction; confidence, the largest probability; label_log_prob, the log of the
        label's probability, at most 0, and -inf where the label has no evidence or is `NO_CLASS`; entropy, in
        [0, log C], in nats; sum_of_squares, that of all probabilities, in [1 / C, 1].

    Raises:
        ValueError: the shapes do not fit.
    """
    if scores.ndim != 2 or 0 in scores.shape or label.shape != scores.shape[:1]:
        raise ValueError(
            "scores must have the shape (images, classes) and labels (images,), "
            f"got {tuple(scores.shape)} and {tuple(label.shape)}"
        )
    log_prob = scores.double().log_softmax(dim=1)
    log_prob = log_prob.masked_fill(log_prob < _NONE, -math.inf)
    probability = log_prob.exp()
    own = log_prob.gather(1, label.masked_fill(label == NO_CLASS, 0)[:, None])[:, 0]
    return {
        "label": label,
        "prediction": scores.max(dim=1).indices,  # as the evaluator, also among equal scores
        "confidence": probability.amax(dim=1),
        "label_log_prob": own.masked_fill(label == NO_CLASS, -math.inf),
        "entropy": torch.special.entr(probability).sum(dim=1),
        "sum_of_squares": probability.square().sum(dim=1),
    }


class Predictions:
    """The records of a test's images.

    They stay on the device until `arrays`, so that no batch waits for the copy of one. Nothing of C numbers per image
    is kept. Rows go into tensors that double when they are full: many small tensors, each allocated between the large
    ones of a batch, would keep the memory of these from being used again.
    """

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._rows: dict[str, Tensor] = {}  # the first len(self._paths) are filled

    def add(
        self, scores: Tensor, label: Tensor, paths: Iterable[str], records: Mapping[str, Tensor] | None = None
    ) -> None:
        """Take a batch.

        Args:
            scores, label: as in `describe`.
            paths: of the B images.
            records: what else a method says, by name: `(B,)` or `(B, M)`; the same names in every batch.

        Raises:
            ValueError: the shapes do not fit, a record has a name that `describe` gives, or another batch had other
                names.
        """
        paths, own, records = list(paths), describe(scores, label), records or {}
        taken = sorted(own.keys() & records.keys()) + ["path"] * ("path" in records)
        if taken:
            raise ValueError(f"records must have names of their own, got {', '.join(taken)}, which every test has")
        unfit = {name: tuple(values.shape) for name, values in records.items() if values.shape[:1] != label.shape}
        if unfit or len(paths) != len(label):
            raise ValueError(
                f"there must be {len(label)} paths and records of as many images, got {len(paths)}, {unfit}"
            )
        if self._paths and self._rows.keys() != own.keys() | records.keys():
            raise ValueError(f"every batch must have the records of the first one, got {sorted(records)}")
        before, after = len(self._paths), len(self._paths) + len(paths)
        for name, values in {**own, **records}.items():
            rows = self._rows.get(name, values[:0])
            if after > len(rows):
                grown = values.new_empty((max(after, 2 * len(rows), 1024), *values.shape[1:]))
                grown[:before] = rows[:before]
                self._rows[name] = rows = grown
            rows[before:after] = values.detach()
        self._paths += paths

    def arrays(self, folder: str | Path = "") -> Arrays:
        """The records of all images so far as NumPy arrays, each with N rows in the order of the batches.

        Args:
            folder: of the data; "" for none. Paths that lie in it are relative to it, with "/".

        Returns:
            `path` as text, and what `describe` and the method gave: whole numbers in 32 bits, `confidence` in 64, as
            it may differ from 1 by less than float32 has digits for, other numbers in 32.
        """
        top = os.path.abspath(os.path.expanduser(folder)) if folder else ""
        arrays: Arrays = {"path": np.array([_below(path, top) for path in self._paths], dtype=np.str_)}
        for name, rows in self._rows.items():
            values = rows[: len(self._paths)].cpu()
            if values.is_floating_point():
                values = values.double() if name == "confidence" else values.float()
            elif values.dtype != torch.bool:
                values = values.int()
            arrays[name] = values.numpy()
        return arrays


def write_predictions(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name as one compressed `.npz`, whole or not at all.

    Raises:
        OSError: the folder cannot be written or the disk is full.
        ValueError: an array holds Python objects, which only a pickle could keep.
    """
    with atomic_write(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
        for name, values in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_array(member, values, allow_pickle=False)


def read_predictions(path: str | Path) -> Arrays:
    """The arrays of a test by name, of a file `predictions.npz` or of a run's folder.

    Raises:
        FileNotFoundError: there is none: the run is unfinished, or from before there were such files.
        ValueError: the file is broken.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: the run is not finished, or is from before tests wrote such files"
        )
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, AttributeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a whole file of predictions: {type(error).__name__}: {error}") from error


def split_open_set(arrays: Mapping[str, NDArray[Any]]) -> tuple[Arrays, dict[str, Arrays]]:
    """The records of images of known classes, and those of each set of other images by its name (`origin`).

    Args:
        arrays: of a test. One that was on no open set has known classes alone.
    """
    if "out" not in arrays:
        return dict(arrays), {}

    def rows(chosen: NDArray[np.bool_]) -> Arrays:
        return {name: values[chosen] for name, values in arrays.items() if name not in ("out", "origin")}

    origin = arrays["origin"]
    others = dict.fromkeys(origin[arrays["out"]].tolist())  # in their order
    return rows(~arrays["out"]), {name: rows(arrays["out"] & (origin == name)) for name in others}


def _below(path: str, top: str) -> str:
    """A path relative to the absolute path of a folder that it lies in, else as it is; links are not followed."""
    whole = os.path.abspath(path)
    inside = top and whole.startswith(top.rstrip(os.sep) + os.sep)
    return os.path.relpath(whole, top).replace(os.sep, "/") if inside else path
