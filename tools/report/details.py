"""What tests and trainings keep per image and per epoch: records, their images, and logs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from tools.report import records as figures
from tools.report.logs import read_epochs
from tools.report.pictures import Gallery
from tools.report.report import Report, Tested
from tools.results.runs import Run
from tools.results.tables import Column, Table
from trainers.modules.predictions import FILE_NAME, read_predictions, split_open_set

# Classes of a test whose accuracy the page can compare; of more, those in which systems differ most
MOST_CLASSES = 300


def add_tests(
    report: Report,
    every: Sequence[Tested],
    contents: Mapping[Path, dict[str, Any]],
    gallery: Gallery,
    compare: Sequence[str],
) -> None:
    """Details of tests with records, one data set after the other, so that only the records of one are in memory.

    Args:
        report: what they are added to.
        every: the runs.
        contents: contents of the `results.json` files, by path.
        gallery: the gallery of images.
        compare: as for `gather`.
    """
    tests: dict[tuple[str, str, str, int], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for own in every:
        tests[own.protocol, own.run.dataset, own.run.part, own.shots][own.column.title].append(own.run)
    without: list[Path] = []
    for (protocol, dataset, part, shots), systems in tests.items():
        key = f"{protocol}/{dataset}/{part}" + f"/{shots}" * bool(shots)
        common = {"protocol": protocol, "dataset": dataset, "part": part, "shots": shots, "key": key}
        read: dict[str, list[figures.Records]] = {}
        first_runs: dict[str, Run] = {}
        names: list[str] | None = None
        for title, runs in systems.items():
            report.places.append({**common, "system": title, **_place(runs)})
            found: list[figures.Records] = []
            for run in runs:
                own_names = contents.get(run.path, {}).get("class_names")
                try:
                    records = _records(run.path.parent, own_names, protocol)
                except FileNotFoundError:
                    without.append(run.path.parent)
                    continue
                except ValueError as error:
                    report.notes.append(str(error))
                    continue
                names = names or own_names
                if own_names != names:
                    report.notes.append(
                        f"{run.path.parent} is of other classes than the other tests of {key}: left out"
                    )
                    continue
                found.append(records)
                first_runs.setdefault(title, run)
            if found and protocol == "open_set":
                histograms = figures.histograms(found)
                report.open_sets.append({"dataset": dataset, "system": title, "histograms": histograms})
            elif found and names:
                read[title] = found
                similar = [run.metrics["template_similarity"] for run in runs if "template_similarity" in run.metrics]
                similarity = mean(similar) if similar else None
                report.details.append(
                    {**common, "system": title, "similarity": similarity, **_details(found, len(names))}
                )
        if read and names:
            report.classes[key] = names
            pair = [title for title in compare if title in read] if compare else _pair(report.tables[protocol], read)
            first = {title: found[0] for title, found in read.items()}
            gallery.add(report, common, names, first, pair, first_runs, contents)
    report.notes += gallery.notes
    _fewer_classes(report)
    if without:
        report.notes.append(
            f"{len(without)} of {len(every)} results have no {FILE_NAME}, as {without[0]}: they are of an older "
            "version or of other code, and stand in tables and costs only"
        )


def _place(runs: Sequence[Run]) -> dict[str, Any]:
    """Where a system's runs of one test lie, and their accuracy."""
    return {
        "seeds": sorted({run.seed for run in runs}),
        "accuracy": mean(run.accuracy for run in runs if run.accuracy is not None),
        "folders": [str(run.path.parent if run.path.is_file() else run.path) for run in runs],
    }


def _records(folder: Path, names: Any, protocol: str) -> figures.Records:
    """The records of a run's test.

    For an open-set test in another protocol's folder, only those of the known classes.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file is broken, or they are not what a test keeps; the error names the file.
    """
    try:
        records = read_predictions(folder)
    except ValueError as error:
        raise ValueError(f"{error}: left out") from error
    try:
        _check(records, names)
    except KeyError as error:
        raise ValueError(f"{folder / FILE_NAME} has no {error.args[0]}: left out") from error
    except ValueError as error:
        raise ValueError(f"{folder / FILE_NAME} {error}: left out") from error
    return records if protocol == "open_set" else split_open_set(records)[0]


def _check(records: figures.Records, names: Any) -> None:
    """Raise ValueError, whose subject is the file, or KeyError if records are not what a test keeps."""
    label, prediction, _, _ = (records[name] for name in ("label", "prediction", "path", "confidence"))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("is of a test without class names")
    lengths = {name: values.shape[:1] for name, values in records.items()}
    if label.ndim != 1 or not len(label) or set(lengths.values()) != {label.shape}:
        raise ValueError(f"must hold as many of each record, got {lengths}")
    classes = [label, prediction]
    if "template_prediction" in records:
        templates = [records[f"template_{name}"] for name in ("prediction", "confidence", "uncertainty")]
        if templates[0].ndim != 2 or {values.shape for values in templates} != {templates[0].shape}:
            raise ValueError(f"must hold as many of each template's records, got {[own.shape for own in templates]}")
        classes.append(templates[0])
    if any(values.dtype.kind not in "iu" for values in classes):
        raise ValueError("must hold classes as whole numbers")
    known = label[~records["out"].astype(bool)] if "out" in records else label  # the others have no class
    lowest, highest = min(own.min() for own in [known, *classes[1:]] if own.size), max(own.max() for own in classes)
    if not len(known) or lowest < 0 or highest >= len(names):
        raise ValueError(f"has class numbers beyond the {len(names)} class names")
    own = ("template_confidence", "template_uncertainty") if "template_prediction" in records else ()
    for name in ("confidence", "entropy", "uncertainty", "conflict", "doubt", *own):
        if name in records and not np.isfinite(records[name]).all():
            raise ValueError(f"must hold a finite {name} of each image")


def _details(found: Sequence[figures.Records], classes: int) -> dict[str, Any]:
    by_run = [figures.class_accuracy(records, classes) for records in found]
    by_class = [[value for value in values if value is not None] for values in zip(*by_run)]
    return {
        "runs": len(found),
        "images": len(found[0]["label"]),
        "classes": [mean(values) if values else None for values in by_class],
        "confusions": figures.confusions(found),
        "reliability": figures.reliability(found),
        "risk": figures.risk_curves(found),
        "histograms": figures.histograms(found),
        "templates": figures.template_metrics(found),
    }


def _pair(table: Table, read: Mapping[str, Any]) -> list[str]:
    """The last system of a table and the best of the others, among those that have records."""
    columns = [column for column in table.columns if column.title in read]
    if len(columns) < 2:
        return []

    def level(column: Column) -> float:
        return mean(cell.mean for cell in column.cells.values()) if column.cells else 0.0

    return [max(columns[:-1], key=level).title, columns[-1].title]


def _fewer_classes(report: Report) -> None:
    """Keep, for tests with many classes, the classes in which the systems' accuracies differ most."""
    for key, names in report.classes.items():
        own = [detail for detail in report.details if detail["key"] == key]
        for detail in own:
            detail["confusions"] = [(names[a], names[b], count) for a, b, count in detail["confusions"]]
        if len(names) <= MOST_CLASSES:
            continue
        spread = []
        for values in zip(*(detail["classes"] for detail in own)):
            there = [value for value in values if value is not None]
            spread.append(max(there) - min(there) if there else -1.0)
        chosen = sorted(np.argsort(-np.array(spread), kind="stable")[:MOST_CLASSES].tolist())
        report.classes[key] = [names[index] for index in chosen]
        for detail in own:
            detail["classes"] = [detail["classes"][index] for index in chosen]


def add_epochs(report: Report, every: Sequence[Tested]) -> None:
    """Curves of trainings: the mean over seeds of what logs print, over the epochs that each of them has."""
    trainings: dict[tuple[str, str, str, int], list[Run]] = defaultdict(list)
    for own in every:
        if own.run.part in ("base", "source", "all") and own.run.shots != 0:
            trainings[own.protocol, own.run.dataset, own.column.title, own.shots].append(own.run)
    for (protocol, dataset, title, shots), runs in trainings.items():
        logs = [read_epochs(run.path.parent if run.path.is_file() else run.path) for run in runs]
        logs = [log for log in logs if log]
        if not logs:
            continue
        meters = {}
        for name in sorted(set.intersection(*(set(log) for log in logs))):
            epochs = sorted(set.intersection(*(set(log[name]) for log in logs)))
            meters[name] = [epochs, [mean(log[name][epoch] for log in logs) for epoch in epochs]]
        report.epochs.append(
            {
                "protocol": protocol,
                "dataset": dataset,
                "system": title,
                "shots": shots,
                "runs": len(logs),
                "meters": meters,
            }
        )
