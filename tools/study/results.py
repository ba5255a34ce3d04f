"""The figures of the study's runs, from their `results.json` files or from the file that keeps them beside the page.

A kept file has a line per run: its folder below the output folder, and its figures to four decimals. The page is made
of figures so rounded, wherever they come from.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean

from storage.files import atomic_write
from tools.results.runs import NEAR, read_results

# Figures that a test with calibration has twice, the second time with names that end in AFTER. Those of FAR are means
# over the other data sets of an open set.
AFTER = "_calibrated"
FAR = "far"
TWICE = (
    *("accuracy", "ece", "nll"),
    *(f"{name}_{score}" for score in ("confidence", "uncertainty", "doubt") for name in ("auroc_error", "aurc")),
    *(
        f"{part}/{kind}_open_{score}"
        for part in (NEAR, FAR)
        for score in ("confidence", "uncertainty")
        for kind in ("auroc", "fpr95")
    ),
)
# What the page is made of
FIGURES = (
    *TWICE,
    *(f"{name}{AFTER}" for name in TWICE),
    *("aligned_accuracy", "conflicting_accuracy", "worst_group_accuracy", "uncertainty"),
    *("template_similarity", "template1_accuracy", "template2_accuracy", "template3_accuracy", "template4_accuracy"),
    "train_seconds",
)
DECIMALS = 4

Figures = Mapping[str, Mapping[str, float]]  # by the run's folder, and by name


def read_figures(output: Path, folders: Iterable[Path]) -> dict[str, dict[str, float]]:
    """Figures of the runs that have finished.

    Args:
        output: folder below which all of them lie.
        folders: of the runs.

    Raises:
        ValueError: a file of results is broken, or of other images than those of the test.
    """
    found = {}
    for folder in folders:
        path = folder / "results.json"
        if path.is_file():
            result = read_results(path)
            if result.problem:
                raise ValueError(result.problem)
            figures = dict(result.metrics)
            figures.update(_far(figures))
            seconds = json.loads(path.read_text(encoding="utf-8")).get("train_seconds")
            if seconds is not None:
                if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
                    raise ValueError(f"{path} has no finite train_seconds, but {seconds!r}")
                figures["train_seconds"] = float(seconds)
            kept = {name: round(figures[name], DECIMALS) for name in FIGURES if name in figures}
            found[folder.relative_to(output).as_posix()] = kept
    return found


def _far(figures: Mapping[str, float]) -> dict[str, float]:
    """The means of an open set's figures over the other data sets."""
    found = defaultdict(list)
    for name, value in figures.items():
        part, separator, own = name.partition("/")
        if separator and part != NEAR:
            found[f"{FAR}/{own}"].append(value)
    return {name: fmean(values) for name, values in found.items()}


def write_kept(path: Path, figures: Figures) -> None:
    """Write a kept file."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *FIGURES])
        for run in sorted(figures):
            writer.writerow([run, *(figures[run].get(name, "") for name in FIGURES)])


def update_kept(
    path: Path, output: Path, folders: Iterable[Path], elsewhere: Figures
) -> tuple[dict[str, Mapping[str, float]], list[str], list[str]]:
    """Bring a kept file up to date with the runs that are here, and those of other machines.

    It stays as it is where there are no runs, and where it has runs that are in no other place. What it has besides the
    runs that are asked for stays in it. Figures of runs that are here win over both, as these may be of newer code.

    Args:
        path: of the file, which need not be there.
        output: folder below which the runs lie.
        folders: of the runs that are asked for.
        elsewhere: figures of other machines.

    Returns:
        All figures; the names of those runs that were asked for and that the file alone has; and of those whose figures
        here are not those that the file or other machines have.

    Raises:
        OSError, ValueError: as `read_kept` and `read_figures`.
    """
    before: dict[str, dict[str, float]] = read_kept(path) if path.is_file() else {}
    if not (elsewhere or output.is_dir()):
        return {**before}, [], []
    folders = dict.fromkeys(folders)
    here = read_figures(output, [*folders, *(output / run for run in (*before, *elsewhere))])
    asked = {folder.relative_to(output).as_posix() for folder in folders}
    lost = sorted((before.keys() & asked) - elsewhere.keys() - here.keys())
    figures = {**before, **elsewhere, **here}
    changed = sorted(
        {run for kept in (before, elsewhere) for run in kept.keys() & here.keys() if not _same(kept[run], here[run])}
    )
    if not lost and figures:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_kept(path, figures)
    return figures, lost, changed


def _same(own: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether all figures are the same but for the seconds."""
    return {**own, "train_seconds": 0.0} == {**other, "train_seconds": 0.0}


def read_all_kept(paths: Iterable[Path], output: Path | None = None) -> dict[str, dict[str, float]]:
    """The figures in several kept files.

    Args:
        paths: of the files.
        output: folder of runs; those that have finished there need not agree, as their figures count.

    Raises:
        OSError, ValueError: as `read_kept`.
        ValueError: two of them have other figures of a run, but for its seconds.
    """
    found: dict[str, dict[str, float]] = {}
    for path in paths:
        for run, figures in read_kept(path).items():
            if _same(found.setdefault(run, figures), figures) or (output and (output / run / "results.json").is_file()):
                continue
            raise ValueError(
                f"{path} has other figures of {run} than the files before it; take its line out of those that are older"
            )
    return found


def read_kept(path: Path) -> dict[str, dict[str, float]]:
    """The figures in a kept file.

    Raises:
        OSError: there is none.
        ValueError: it is not whole, or of something else.
    """
    found: dict[str, dict[str, float]] = {}
    try:
        text = path.read_text(encoding="utf-8")
        names, *rows = csv.reader(io.StringIO(text, newline=""))
        if names[:1] != ["run"] or not set(names[1:]) <= set(FIGURES):
            raise ValueError(f"it begins with {','.join(names)[:40]!r}, not with names of figures")
        if not text.endswith("\n"):
            raise ValueError("its last line is cut")
        for row in rows:
            if len(row) != len(names):
                raise ValueError(f"it has {len(row)} values, and there are {len(names)} names")
            if row[0] in found:
                raise ValueError(f"it has {row[0]} once more")
            own = {name: float(value) for name, value in zip(names[1:], row[1:]) if value}
            if "accuracy" not in own or not all(map(math.isfinite, own.values())):
                raise ValueError("it has no accuracy, or a figure that is not finite")
            found[row[0]] = own
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is not whole in line {len(found) + 2}: {error}") from error
    return found
