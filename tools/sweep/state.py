"""Which planned runs have finished, which will go on, and how long the rest may take."""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from tools.common.layout import Place
from tools.data.sources import read_sources
from tools.sweep.protocols import Step

FINISHED, GOES_ON, NEW = "finished", "will go on", "new"
EPOCH = re.compile(r"model\.pth\.tar-(\d+)")
UNKNOWN = (10, 1000)  # assumed classes and test images of an unknown set, such as a generated one
START = 10.0  # seconds of a run's program that no result includes: PyTorch, CLIP and the data set are loaded


@dataclass(frozen=True)
class Trained:
    """What a training has written.

    Attributes:
        finished: whether its results are there.
        epoch: epoch of its last checkpoint; 0 if there is none.
        changed: when the model that tests take was written.
    """

    finished: bool
    epoch: int = 0
    changed: int = 0


def look(steps: Iterable[Step], output: Path) -> dict[Path, str]:
    """Each run's state by its folder below the output folder, by the rules of the scripts.

    A test is out of date, and so new, if its model or its calibration is newer than its results, or if one of the far
    data sets of an open set is missing.
    """

    @functools.cache
    def trained(place: Place) -> Trained:
        return _trained(output / place.folder)

    states = {}
    for step in steps:
        folder = step.place.folder
        if step.trains:
            found = trained(step.place)
            states[folder] = FINISHED if found.finished else GOES_ON if found.epoch else NEW
        else:
            model = trained(step.trained) if step.trained else Trained(True)
            tested = model.finished and _tested(step, output, model.changed)
            states[folder] = FINISHED if tested else NEW
    return states


def to_calibrate(steps: Iterable[Step], output: Path) -> set[Place]:
    """The places whose calibration tests take, if it is missing or older than the model."""
    places = set()
    for step in steps:
        if step.calibrated:
            model = _trained(output / step.calibrated.folder).changed
            fitted = _changed(output / step.calibrated.folder / "calibration.json")
            if fitted is None or fitted < model:
                places.add(step.calibrated)
    return places


def _tested(step: Step, output: Path, model: int) -> bool:
    """Whether a test's results are there and up to date.

    Args:
        model: when the tested model was written.
    """
    path = output / step.place.folder / "results.json"
    changed = _changed(path)
    if changed is None or model > changed:
        return False
    wanted = [f'"{name}/images"' for name in step.far]
    if step.calibrated:
        calibration = _changed(output / step.calibrated.folder / "calibration.json")
        if calibration is None or calibration > changed:
            return False
        wanted.append('"ece_calibrated"')
    text = path.read_text(encoding="utf-8", errors="replace") if wanted else ""
    return all(words in text for words in wanted)


def _changed(path: Path) -> int | None:
    """When a file was written; None if there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _trained(folder: Path) -> Trained:
    finished = (folder / "results.json").is_file()
    epochs: dict[int, Path] = {}
    best = None
    for path in folder.glob("*/model*"):
        found = EPOCH.fullmatch(path.name)
        if found:
            epochs[int(found[1])] = path
        elif path.name == "model-best.pth.tar":
            best = path
    last = max(epochs, default=0)
    model = best or epochs.get(last)
    return Trained(finished, last, (_changed(model) or 0) if model else 0)


def expected(steps: Iterable[Step], states: Mapping[Path, str], output: Path) -> dict[Path, float | None]:
    """Estimate the seconds of each remaining run, by its folder, from finished runs; `START` is added.

    Finished runs of the same trainer, config, shots, part and data set count, whatever their seed. Without any, those
    on other data sets count, scaled by the number of images. None if no run of that kind has finished.
    """
    steps = list(steps)
    same: dict[tuple, list[float]] = defaultdict(list)
    alike: dict[tuple, list[float]] = defaultdict(list)
    for step in steps:
        if states[step.place.folder] == FINISHED:
            seconds = _seconds(output / step.place.folder / "results.json")
            if seconds is not None:
                same[(*_kind(step), step.place.dataset)].append(seconds)
                alike[_kind(step)].append(seconds / size(step))
    found: dict[Path, float | None] = {}
    for step in steps:
        if states[step.place.folder] != FINISHED:
            own, others = same.get((*_kind(step), step.place.dataset)), alike.get(_kind(step))
            seconds = mean(own) if own else mean(others) * size(step) if others else None
            found[step.place.folder] = None if seconds is None else START + seconds
    return found


def _kind(step: Step) -> tuple:
    place = step.place
    return place.kind, place.trainer, place.config, place.shots, step.trains


def _seconds(path: Path) -> float | None:
    """Training and test time in a `results.json`; None if it does not hold them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return float(content["test_seconds"]) + float(content["train_seconds"] or 0.0)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


@functools.cache
def _counts() -> dict[str, tuple[int, int]]:
    """Classes and test images of the public data sets."""
    return {name: (source.published.classes, source.published.test) for name, source in read_sources().items()}


def size(step: Step) -> float:
    """How many images a run sees, roughly; if no run of its kind has finished, the larger ones begin."""
    classes, test = _counts().get(step.place.dataset, UNKNOWN)
    part = 1.0 if step.place.classes == "all" else 0.5
    training = 10 * classes * (step.place.shots if step.place.shots > 0 else 50) if step.trains else 0
    return part * (test + training)


def weights(
    steps: Iterable[Step], seconds: Mapping[Path, float | None], count: Callable[[Step], float] = size
) -> dict[Path, float]:
    """The key for "longest first": a run's expected seconds plus those of the longest test that waits for it.

    If no run of its kind has finished, its seconds are its size times the seconds per image of all others.
    """
    steps = [step for step in steps if step.place.folder in seconds]
    known = [(value, count(step)) for step in steps if (value := seconds[step.place.folder]) is not None]
    rate = sum(value for value, _ in known) / sum(number for _, number in known) if known else 1.0
    own: dict[Path, float] = {}
    for step in steps:
        value = seconds[step.place.folder]
        own[step.place.folder] = rate * count(step) if value is None else value
    longest: dict[Path, float] = defaultdict(float)
    for step in steps:
        if step.trained is not None:
            longest[step.trained.folder] = max(longest[step.trained.folder], own[step.place.folder])
    return {folder: value + longest[folder] for folder, value in own.items()}
