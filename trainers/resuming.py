"""Whether a run may go on from a checkpoint: only as the run that wrote it, or its result would be of neither."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from .modules.archives import printable, shortened

# Config nodes on which training depends, beside the trainer's own
NODES = ("DATALOADER.K_TRANSFORMS", "DATALOADER.TRAIN_X", "DATASET", "INPUT", "OPTIM", "SEED")
# Keys in them that may differ, as shell patterns: data and banks may be moved
FREE = ("DATASET.ROOT", "DATASET.FOLDER", "DATASET.IMAGES_OUTSIDE", "*.FEATURE_BANK_DIR")
RATE_TOLERANCE = 1e-6  # relative


def training_settings(cfg: Mapping[str, Any], trainer: str) -> dict[str, Any]:
    """The settings on which a training depends, by their config keys, as plain data.

    Args:
        cfg: the whole config.
        trainer: name of the trainer, whose own node counts too.
    """
    nodes = (*NODES, f"TRAINER.{trainer.upper()}")
    settings = {
        key: value
        for key, value in _flat(cfg)
        if any(key == node or key.startswith(f"{node}.") for node in nodes)
        and not any(fnmatchcase(key, pattern) for pattern in FREE)
    }
    return json.loads(json.dumps(settings))  # no tuples


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def written_options(checkpoint: Mapping[str, Any], trainer: str) -> dict[str, Any]:
    """A trainer's own options among the settings in a checkpoint, by key: `INVARIANT_MAP.K`. Lists are left out."""
    written, node = checkpoint.get("settings"), f"TRAINER.{trainer.upper()}."
    if not isinstance(written, Mapping):
        return {}
    return {
        str(key)[len(node) :]: value
        for key, value in written.items()
        if str(key).startswith(node) and isinstance(value, (str, int, float))
    }


def other_training(checkpoint: Mapping[str, Any], settings: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """How the training that wrote a checkpoint differs from this one, an error without its subject.

    Args:
        checkpoint: as read; an older one or one of published code says less, or nothing.
        settings: of this run, from `training_settings`.
        class_names: of this run.

    Returns:
        The error, or "" if nothing is known to differ.
    """
    written = checkpoint.get("settings")
    written = dict(written) if isinstance(written, Mapping) else {}
    told = checkpoint.get("trained_on")
    if isinstance(told, Mapping):
        keys = {
            "dataset": "DATASET.NAME",
            "classes": "DATASET.SUBSAMPLE_CLASSES",
            "shots": "DATASET.NUM_SHOTS",
            "seed": "SEED",
        }
        written = {**{key: told[name] for name, key in keys.items() if name in told}, **written}
    differing = [
        f"{key} {printable(str(written[key]), 60)} in place of {printable(str(settings[key]), 60)}"
        for key in settings
        if key in written and written[key] != settings[key]
    ]
    if differing:
        return f"was trained with {'; '.join(differing)}"
    names = checkpoint.get("class_names")
    if isinstance(names, list) and names != list(class_names):
        return f"was trained on the classes {shortened(map(str, names))} in place of {shortened(class_names)}"
    return ""


def other_rates(written: Sequence[float], optimizer: Optimizer, epoch: int) -> str:
    """How the learning rates of a checkpoint differ from those of a run's schedule, an error without its subject.

    Args:
        written: of each parameter group, in the checkpoint.
        optimizer: of this run, with its schedule after the checkpoint's epoch.
        epoch: that epoch.

    Returns:
        The error, or "" if they are the same.
    """
    own = [group["lr"] for group in optimizer.param_groups]
    for rate, wanted in zip(written, own):
        if abs(rate - wanted) > RATE_TOLERANCE * max(abs(rate), abs(wanted)) + 1e-12:
            return (
                f"has the learning rate {rate:g} after epoch {epoch}, where this run's OPTIM settings have {wanted:g}"
            )
    return ""


def moments_problem(optimizer: Optimizer) -> str:
    """What is wrong with the tensors that an optimizer has taken from a checkpoint, an error; "" if nothing is.

    They must be finite and, where they are not single numbers, of the shapes of its parameters.
    """
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                return f"its {name} has the shape {tuple(value.shape)}, not {tuple(parameter.shape)}"
            if isinstance(value, Tensor) and not value.isfinite().all():
                return f"its {name} is infinite or not a number"
    return ""


def seconds_before(resume: Mapping[str, Any]) -> float | None:
    """The seconds of training in a checkpoint; None for an older one, which does not hold them.

    Args:
        resume: the checkpoint's entry of that name.

    Raises:
        ValueError: they are no such number.
    """
    seconds = resume.get("train_seconds")
    if seconds is None:
        return None
    if not isinstance(seconds, float) or not 0.0 <= seconds < math.inf:
        raise ValueError(f"its train_seconds must be a finite number from 0 on, got {seconds!r:.40}")
    return seconds
