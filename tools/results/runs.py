"""Runs below an output folder, as records: ours by their `results.json`, those of CoOp and MaPLe by their `log.txt`.

Where runs lie is in `tools.common.layout`. What counts as a run's accuracy:

- that in its `results.json`, where there is one;
- else the last evaluation on the test split in its logs, `log.txt` and, as Dassl names those of later runs in the same
  folder, `log.txt-<time>`. An evaluation between the first epoch and "Finish training" is for choosing a model and does
  not count, nor one on the validation split. Of the printed lines the numbers of images give the accuracy: the printed
  percentage is rounded, in newer versions of Dassl to one decimal.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tools.common.layout import HALVES, PROTOCOLS, Place, parse, split_source, training_set, trains_nothing
from tools.common.paths import ROOT

CONFIGS = ROOT / "configs" / "datasets"

# Data sets with shifted images of a source's classes: what domain generalisation is tested on, and cross-data-set not
VARIANTS = {
    "imagenet": ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"),
    "shapes": ("shapesv2", "shapes_sketch", "shapes_a", "shapes_r"),
}

# What the figures of the new classes are called on an open set; those of other data sets have these sets' names
NEAR = "near"

# Among results of the same part that of a test of its own goes before that of the test that ends training
RANKS = {"train_base": 1, "all": 1}
# The tree is this deep at most, so that a link to a folder further up ends somewhere
DEEPEST = 10

# What logs say, in the words of all published versions of Dassl
RESULT = re.compile(
    r"\n=> result\n"
    r"(?:\* total: (?P<total>[\d,]+)\n\* correct: (?P<correct>[\d,]+)\n)?"
    r"\* accuracy: (?P<accuracy>[\d.]+)%"
    r"(?:\n\* error: [\d.]+%\n\* macro_f1: (?P<macro_f1>[\d.]+)%)?"
)
EVALUATION = ("\nEvaluate on ", "\nDo evaluation on ")
SPLIT = re.compile(r"\n(?:Evaluate|Do evaluation) on (?:the )?\*?(\w+)")
CONFIG = ("\n** Config **\n",)
EPOCH = ("\nepoch [",)
TRAINED = ("\nFinish training", "\nFinished training")
LOG_SEED = re.compile(r"\nSEED: (-?\d+)\n")
LOG_CLASSES = re.compile(r"\n  SUBSAMPLE_CLASSES: (\w+)\n")
LOG_BACKBONE = re.compile(r"\n  BACKBONE:\n    NAME: *(.*)\n")
LOG_MODEL = re.compile(r"\nmodel_dir: *(.*)\n")
# Characters at the start of a log within which arguments and config stand
HEAD = 32768
# By how much a percentage printed with one decimal may be off, with something to spare
ROUNDING = 0.051


@dataclass(frozen=True)
class Run:
    """One run of one part of a protocol.

    Attributes:
        protocol: base2new, xd, dg, fewshot or open_set, as was asked for.
        dataset: what it was tested on, by the name of its config file.
        shots: training images per class; 0 for zero-shot CLIP, -1 for all.
        trainer: by its folder.
        config: by its folder; with folders below it, joined by "/".
        seed: 0 where the folder names none.
        part: base or new; source or target; in the few-shot protocol all; of an open set near, or the other data set.
        source: in xd and dg what it was trained on; else empty.
        accuracy: in percent; None if there is no result.
        metrics: all figures of `results.json`, among them the accuracy and CDC's uncertainty; of a log accuracy and F1.
            Of an open set those of the part, and those of the known classes.
        path: of the file that the accuracy is from, or of the folder of a run without a result.
        problem: why there is no result; empty if there is one.
        backbone: name or path of the run's CLIP, as in its config; empty if the run does not tell, or has no result.
    """

    protocol: str
    dataset: str
    shots: int
    trainer: str
    config: str
    seed: int
    part: str
    source: str
    accuracy: float | None
    metrics: dict[str, float] = field(compare=False)
    path: Path
    problem: str = ""
    backbone: str = ""


@dataclass(frozen=True)
class Found(Place):
    """A run's folder that is there.

    Attributes:
        shots: as of `Run`.
        path: the folder.
        source: in "evaluation" the data set that it was trained on, if its `results.json` or log tells.
    """

    path: Path
    source: str | None = None


def read_runs(output: str | Path | Iterable[str | Path], protocol: str, **filters) -> list[Run]:
    """The finished runs of a protocol; arguments and errors as of `find_runs`."""
    return [run for run in find_runs(output, protocol, **filters) if run.accuracy is not None]


def find_runs(
    output: str | Path | Iterable[str | Path],
    protocol: str,
    *,
    datasets: Iterable[str] = (),
    trainers: Iterable[str] = (),
    configs: Iterable[str] = (),
    shots: Iterable[int] = (),
    seeds: Iterable[int] = (),
    source: str = "",
) -> list[Run]:
    """The runs of a protocol below one or several output folders, finished or not.

    Args:
        output: the folder or folders.
        protocol: one of `PROTOCOLS`.
        datasets, trainers, configs, shots, seeds: only runs of these; of all if empty. Zero-shot CLIP passes any shots,
            and a cross-data-set source any `datasets`.
        source: what the runs of xd and dg are trained on; by default what the tests themselves tell, or imagenet.

    Returns:
        One record for each data set, shots, trainer, config, seed and part, in this order; where there are several
        results in one folder tree, the one of a test of its own. In the few-shot protocol zero-shot CLIP stands beside
        what is trained, so on other data sets only where nothing is.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a `results.json` is broken, two folders hold different results of one run, no such protocol, or the
            source is not clear.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"the protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    wanted = [set(values) for values in (trainers, configs, shots, seeds)]
    places = _places([output] if isinstance(output, (str, Path)) else output)
    if protocol in ("xd", "dg"):
        places = [_beside_training(place) for place in places]
        wanted[1] = {split_source(str(config))[0] for config in wanted[1]}
    places = [
        place
        for place in places
        if (place.kind in HALVES) == (protocol == "base2new")
        and (place.kind == "open_set") == (protocol == "open_set")
        and _passes(wanted[0], place.trainer)
        and _passes(wanted[1], place.config)
        and (_passes(wanted[2], place.shots) or place.shots == 0)
        and _passes(wanted[3], place.seed)
    ]
    source = source or _source_of(places, protocol) if protocol in ("xd", "dg") else ""
    candidates: dict[tuple, list[tuple[int, Found]]] = {}
    wanted_datasets = set(datasets)
    for place in places:
        part = _part(place, protocol, source)
        if part and (_passes(wanted_datasets, place.dataset) or part == "source"):
            key = (place.dataset, place.shots, place.trainer, place.config, place.seed, part)
            candidates.setdefault(key, []).append((RANKS.get(place.kind, 0), place))
    trained = {dataset for dataset, number, *_ in candidates if number != 0}
    runs = []
    for key, ranked in sorted(candidates.items()):
        if protocol == "fewshot" and trained and key[0] not in trained:
            continue
        result = _choose(ranked)
        results = _by_set(result) if protocol == "open_set" else {key[-1]: result}
        for part, own in results.items():
            found = (own.accuracy, own.metrics, own.path, own.problem, own.backbone)
            runs.append(Run(protocol, *key[:-1], part, source, *found))
    return runs


def _by_set(result: Result) -> dict[str, Result]:
    """The result of a test on an open set by the names of the sets of images that the model does not know.

    The figures of a set are called `<set>/<figure>`.
    """
    known = {name: value for name, value in result.metrics.items() if "/" not in name}
    own: dict[str, dict[str, float]] = {}
    for name, value in result.metrics.items():
        if "/" in name:
            own.setdefault(name.partition("/")[0], {})[name.partition("/")[2]] = value
    if not own:
        problem = result.problem or f"{result.path} has no figures of an open set"
        return {NEAR: replace(result, accuracy=None, problem=problem)}
    return {name: replace(result, metrics={**known, **metrics}) for name, metrics in own.items()}


def _passes(wanted: set, value) -> bool:
    return not wanted or value in wanted


def _places(outputs: Iterable[str | Path]) -> list[Found]:
    """All run folders below the output folders."""
    places = []
    for output in outputs:
        if not Path(output).is_dir():
            raise FileNotFoundError(f"there is no output folder {output}")
        top = os.fspath(output)
        for folder, below, files in os.walk(top, onerror=_fail, followlinks=True):
            below_top = Path(os.path.relpath(folder, top))
            if any(name == "results.json" or _is_log(name) for name in files):
                place = parse(below_top)
                if place:
                    shots = 0 if trains_nothing(place.trainer) else place.shots
                    places.append(Found(**{**vars(place), "shots": shots}, path=Path(folder)))
                    below.clear()
            if len(below_top.parts) >= DEEPEST:
                below.clear()
    return places


def _fail(error: OSError) -> None:
    """A folder that cannot be read must not look like one without runs."""
    raise error


def _beside_training(place: Found) -> Found:
    """A place in xd or dg with its source, and a test under the config of its training, without the scripts' mark."""
    if place.kind != "evaluation":
        return place
    config, marked = split_source(place.config)
    if trains_nothing(place.trainer):  # whatever the source, it is the same run
        return replace(place, config=config)
    source = _source_told(place) or (marked if (CONFIGS / f"{marked}.yaml").is_file() else None)
    return replace(place, source=source, config=config if marked and marked == source else place.config)


def _source_told(place: Found) -> str | None:
    """The data set on which a run of "evaluation" was trained, by its `results.json` or its log; None if neither tells.

    Raises:
        ValueError: the `results.json` is broken.
    """
    path = place.path / "results.json"
    if path.is_file():
        content = _content(path)
        trained_on = content.get("trained_on")
        names = _config_names().get(str(trained_on.get("dataset")), []) if isinstance(trained_on, dict) else []
        source = training_set(Path(str(content.get("model_dir"))), place.trainer)
        source = source or (names[0] if len(names) == 1 else None)
        if source:
            return source
    for log in _logs(place.path):
        with log.open(errors="replace") as file:
            found = LOG_MODEL.search("\n" + file.read(HEAD))
        source = training_set(Path(found[1].strip()), place.trainer) if found else None
        if source:
            return source
    return None


@functools.lru_cache(maxsize=1)
def _config_names() -> dict[str, list[str]]:
    """For each data set as the config calls it (`DATASET.NAME`) the names of its config files."""
    names: dict[str, list[str]] = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        names.setdefault(content.get("DATASET", {}).get("NAME"), []).append(path.stem)
    return names


def _source_of(places: list[Found], protocol: str) -> str:
    """The one source of these tests."""
    sources = {place.source for place in places if place.source and _part(place, protocol, place.source) == "target"}
    if len(sources) > 1:
        raise ValueError(
            f"there are tests of runs trained on {len(sources)} data sets: choose one by --source, which may be "
            f"{' or '.join(sorted(sources))}"
        )
    return sources.pop() if sources else "imagenet"


def _part(place: Found, protocol: str, source: str) -> str:
    """The part of a protocol that a place is of; empty if it has none in it."""
    if protocol == "base2new":
        return place.classes
    if protocol == "open_set":
        return "open"
    if protocol == "fewshot":
        return "all" if place.kind == "all" or place.shots == 0 else ""
    if place.dataset == source:
        return "source"
    if place.kind == "all" and place.shots != 0:
        return ""  # trained on that set itself
    if place.source not in (None, source):
        return ""
    return "target" if (place.dataset in VARIANTS.get(source, ())) == (protocol == "dg") else ""


def _choose(ranked: list[tuple[int, Found]]) -> Result:
    """The result of a run that several folders may hold, the one of lowest rank first.

    Raises:
        ValueError: two of the same rank differ by more than the rounding of a log.
    """
    results = [(rank, _read(place)) for rank, place in sorted(ranked, key=lambda item: item[0])]
    finished = [(rank, result, result.accuracy) for rank, result in results if result.accuracy is not None]
    if not finished:
        return results[0][1]
    best, chosen, accuracy = finished[0]
    for rank, other, other_accuracy in finished[1:]:
        if rank == best and abs(other_accuracy - accuracy) > ROUNDING:
            raise ValueError(f"{chosen.path} and {other.path} hold different results of the same run: leave one out")
    return chosen


@dataclass(frozen=True)
class Result:
    """What a folder's files say."""

    path: Path
    accuracy: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    seed: int | None = None
    classes: str | None = None
    backbone: str = ""


def _read(place: Found) -> Result:
    """The result in a run's folder, refused where the files say that it is of another run than the folder does."""
    path = place.path / "results.json"
    result = read_results(path) if path.is_file() else read_logs(place.path)
    problem = ""
    if result.classes not in (None, place.classes):
        problem = f"is of {result.classes} classes, in a folder for {place.classes} classes"
    # CoOp's folder of zero-shot CLIP ends in the data set and names no seed; nor is one in results where none was fixed
    elif place.path.name != place.dataset and result.seed not in (None, -1, place.seed):
        problem = f"is of seed {result.seed}"
    if problem and result.accuracy is not None:
        return replace(result, accuracy=None, metrics={}, problem=f"{result.path} {problem}")
    return result


def read_results(path: Path) -> Result:
    """The result in a `results.json`.

    Raises:
        ValueError: it is broken.
    """
    content = _content(path)
    try:
        metrics = {name: float(value) for name, value in content["figures"].items()}
        accuracy = metrics["accuracy"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is not a whole results.json: {type(error).__name__}: {error}") from error
    broken = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise ValueError(f"{path} is not a whole results.json: figures must be finite, but {', '.join(broken)}")
    if not 0 <= accuracy <= 100:
        raise ValueError(f"{path} is not a whole results.json: accuracy must lie in 0 to 100, got {accuracy}")
    if content.get("split", "test") != "test":
        return Result(path, problem=f"{path} is of the {content['split']} split")
    backbone = str(content.get("backbone", ""))
    return Result(path, accuracy, metrics, "", content.get("seed"), content.get("classes"), backbone)


_kept: ContextVar[dict[Path, dict[str, Any]] | None] = ContextVar("kept", default=None)


@contextmanager
def reading_once() -> Iterator[Mapping[Path, dict[str, Any]]]:
    """The context in which each `results.json` is read once, however often `find_runs` meets it.

    Yields:
        What the files hold by their paths, as far as they were read; nothing of it may be changed.
    """
    contents: dict[Path, dict[str, Any]] = {}
    token = _kept.set(contents)
    try:
        yield contents
    finally:
        _kept.reset(token)


def _content(path: Path) -> dict[str, Any]:
    """What a `results.json` holds; errors as of `_read_content`."""
    kept = _kept.get()
    if kept is None:
        return _read_content(path)
    if path not in kept:
        kept[path] = _read_content(path)
    return kept[path]


def _read_content(path: Path) -> dict[str, Any]:
    """What a `results.json` holds.

    Raises:
        ValueError: it is no JSON, or not of the right kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a whole results.json: {type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a whole results.json: it must hold an object, got {type(content).__name__}")
    return content


def read_logs(folder: Path) -> Result:
    """The result in the logs of a run's folder: the last evaluation on the test split that is not for choosing a model.

    Raises:
        ValueError: the numbers of images in a log do not give the accuracy that it prints.
    """
    result = Result(folder, problem=f"{folder} holds no log with an evaluation on the test split")
    for log in _logs(folder):
        text = "\n" + log.read_text(errors="replace")
        found = _last_test(text)
        if found:
            lines = (LOG_SEED, LOG_CLASSES, LOG_BACKBONE)
            seed, classes, backbone = (_in_config(text, found.start(), line) for line in lines)
            metrics = {"accuracy": _accuracy(log, found)}
            if found["macro_f1"]:
                metrics["macro_f1"] = float(found["macro_f1"])
            told = (int(seed) if seed else None, classes, backbone or "")
            result = Result(log, metrics["accuracy"], metrics, "", *told)
        elif result.accuracy is None and _in_training(text, len(text)):
            result = Result(folder, problem=f"{log}: training has not finished")
    return result


def _logs(folder: Path) -> list[Path]:
    """The logs of a folder in the order of time, which is that of their names."""
    return sorted(path for path in folder.glob("log.txt*") if _is_log(path.name))


def _is_log(name: str) -> bool:
    return name == "log.txt" or name.startswith("log.txt-")


def _last_test(text: str) -> re.Match | None:
    """The last evaluation on the test split that is not within training; looked for from the end, as logs are long."""
    end = len(text)
    while (end := text.rfind("\n=> result\n", 0, end)) >= 0:
        found = RESULT.match(text, end)
        split = SPLIT.match(text, max(_last(text, EVALUATION, end), 0))
        if found and split and split[1] == "test" and not _in_training(text, end):
            return found
    return None


def _in_config(text: str, end: int, line: re.Pattern) -> str | None:
    """What a line says of the last config before `end`, as several runs may have written one log; None if nothing."""
    start = max(_last(text, CONFIG, end), 0)
    found = list(line.finditer(text, start, end))
    return found[-1][1] if found else None  # where configs have no headings, of the last one that has the line


def _in_training(text: str, end: int) -> bool:
    """Whether a log is within training at a place: after an epoch's line with no word that training has finished."""
    return _last(text, EPOCH, end) > _last(text, TRAINED, end)


def _last(text: str, beginnings: tuple[str, ...], end: int) -> int:
    """Where, before `end`, the last line with one of these beginnings stands; -1 if there is none."""
    return max(text.rfind(beginning, 0, end) for beginning in beginnings)


def _accuracy(log: Path, found: re.Match) -> float:
    """The accuracy in percent of printed lines, as exact as they allow."""
    printed = float(found["accuracy"])
    if not found["total"]:
        return printed
    total, correct = (int(found[name].replace(",", "")) for name in ("total", "correct"))
    if not correct <= total or not total or abs(100 * correct / total - printed) > ROUNDING:
        raise ValueError(f"{log} contradicts itself: {correct} of {total} images correct, and accuracy {printed}%")
    return 100 * correct / total
