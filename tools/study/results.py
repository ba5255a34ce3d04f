"""The figures of the study's runs, from their `results.json` files or from the file that keeps them beside the page.

A kept file has a line per run: its folder below the output folder, and its figures to four decimals. The page is made
of figures so rounded, wherever they come from.
"""

from __future__ import annotations

import csv
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
        ValueError: a file of results is broken.
    """
    found = {}
    for folder in folders:
        path = folder / "results.json"
        if path.is_file():
            figures = dict(read_results(path).metrics)
            figures.update(_far(figures))
            seconds = json.loads(path.read_text(encoding="utf-8")).get("train_seconds")
            if seconds is not None:
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
) -> tuple[dict[str, Mapping[str, float]], list[str]]:
    """Bring a kept file up to date with the runs that are here, and those of other machines.

    It stays as it is where there are no runs, and where it has runs that are in no other place.

    Args:
        path: of the file, which need not be there.
        output: folder below which the runs lie.
        folders: of the runs.
        elsewhere: figures of other machines, over which runs that are here win.

    Returns:
        The figures, and the names of the runs that the file alone has.

    Raises:
        OSError, ValueError: as `read_kept` and `read_figures`.
    """
    before = read_kept(path) if path.is_file() else {}
    if not (elsewhere or output.is_dir()):
        return {**before}, []
    here = read_figures(output, dict.fromkeys([*folders, *(output / run for run in before)]))
    figures = {**elsewhere, **here}
    lost = sorted(before.keys() - figures.keys())
    if not lost:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_kept(path, figures)
    return figures, lost


def read_all_kept(paths: Iterable[Path]) -> dict[str, dict[str, float]]:
    """The figures in several kept files, of which a later one wins; errors as for `read_kept`."""
    found: dict[str, dict[str, float]] = {}
    for path in paths:
        found.update(read_kept(path))
    return found


def read_kept(path: Path) -> dict[str, dict[str, float]]:
    """The figures in a kept file.

    Raises:
        OSError: there is none.
        ValueError: it is not whole, or of something else.
    """
    found: dict[str, dict[str, float]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            names, *rows = csv.reader(file)
        if names[:2] != ["run", "accuracy"]:
            raise ValueError(f"it begins with {','.join(names)[:40]!r}, not with 'run,accuracy'")
        for row in rows:
            if len(row) != len(names):
                raise ValueError(f"it has {len(row)} values, and there are {len(names)} names")
            own = {name: float(value) for name, value in zip(names[1:], row[1:]) if value}
            if "accuracy" not in own or not all(map(math.isfinite, own.values())):
                raise ValueError("it has no accuracy, or a figure that is not finite")
            found[row[0]] = own
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is not whole in line {len(found) + 2}: {error}") from error
    return found
