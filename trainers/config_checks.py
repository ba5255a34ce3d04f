"""Checks of a config that several trainers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from .modules.checkpoints import MOST_EPOCHS
from .modules.clip_types import CLIP


def collect_errors(check: Callable, *arguments) -> list[str]:
    """What a check raises as ValueError, as a list of problems; empty where it raises nothing."""
    try:
        check(*arguments)
    except ValueError as error:
        return [str(error)]
    return []


def check_images(inputs, clip_model: CLIP) -> None:
    """Check that images have a CLIP's size, and are normalised as in its training, where its file says how.

    Args:
        inputs: the config's node `INPUT`.
        clip_model: from `load_clip`.

    Raises:
        ValueError: with all keys that have another value.
    """
    problems = []
    size = (clip_model.visual.input_resolution,) * 2
    if tuple(inputs.SIZE) != size:
        problems.append(f"INPUT.SIZE must be {size} for this CLIP, got {tuple(inputs.SIZE)}")
    for name, values in clip_model.pixels.items():
        key = {"mean": "PIXEL_MEAN", "std": "PIXEL_STD"}[name]
        differs = max(abs(a - b) for a, b in zip(values, inputs[key])) > 1e-3  # they are rounded here and there
        if differs and "normalize" in inputs.TRANSFORMS:
            problems.append(f"INPUT.{key} must be {list(values)} for this CLIP, got {list(inputs[key])}")
    if problems:
        raise ValueError("; ".join(problems))


def number_problems(cfg) -> list[str]:
    """Which numbers of a config no training could have, an error each."""
    problems = [f"{key} must be a finite number, got {value}" for key, value in _infinite_numbers(cfg)]
    if not 0 <= cfg.OPTIM.MAX_EPOCH <= MOST_EPOCHS:
        problems.append(f"OPTIM.MAX_EPOCH must be from 0 to {MOST_EPOCHS:,}, got {cfg.OPTIM.MAX_EPOCH}")
    if cfg.TRAIN.PRINT_FREQ < 1:
        problems.append(f"TRAIN.PRINT_FREQ must be at least 1, got {cfg.TRAIN.PRINT_FREQ}")
    return problems


def _infinite_numbers(node: Mapping, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Keys and values of a config's numbers, also in its lists, that are infinite or not a number."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _infinite_numbers(value, f"{prefix}{key}.")
        else:
            numbers = value if isinstance(value, (list, tuple)) else (value,)
            yield from ((f"{prefix}{key}", n) for n in numbers if isinstance(n, float) and not math.isfinite(n))
