"""From runs below output folders to what the page shows: systems, tables, details of tests, what was run.

A system is a column group of a table: all runs of a trainer under a config.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from tools.common.layout import PROTOCOLS
from tools.report import records as figures
from tools.report.logs import read_epochs
from tools.report.pictures import Gallery
from tools.results import published
from tools.results.render import tables_of
from tools.results.runs import NEAR, Run, find_runs, reading_once
from tools.results.tables import Column, SeedMean, Table, build_table, paper_numbers
from trainers.modules.plain_content import is_number
from trainers.modules.predictions import FILE_NAME, read_predictions, split_open_set

TITLES = {
    "base2new": "Base to new classes",
    "xd": "Other data sets",
    "dg": "Other domains",
    "fewshot": "Few-shot curves",
    "open_set": "Open set: new classes under the names of base classes",
    "open_set_far": "Open set: other data sets under the names of base classes",
}
COSTS = ("train_seconds", "test_seconds", "trained_values", "peak_memory_bytes")  # in `results.json`
OPEN_SET_FIGURE = "auroc_open"
# Classes of a test whose accuracy the page can compare; of more, those in which systems differ most
MOST_CLASSES = 300
# Keys of a config that say where and on what a run was, not how
PLACES = (
    "OUTPUT_DIR",
    "REPORT_TO",
    "SEED",
    "DATASET.ROOT",
    "DATASET.NAME",
    "DATASET.NUM_SHOTS",
    "DATASET.SUBSAMPLE_CLASSES",
    "DATASET.FOLDER",
    "VERSION",
)


@dataclass
class Report:
    """What the page shows.

    Attributes:
        outputs: the folders that were read.
        tables: by protocol; of an open set two, that of other data sets as "open_set_far".
        papers: the paper's numbers beside a table, and notes on them.
        open_sets: histograms of tests on an open set, one for each data set and system.
        details: of the tests that kept records, one for each protocol, data set, part and system.
        epochs: curves of trainings, one for each protocol, data set and system.
        costs: a row for each system.
        facts: what was run: versions, CLIPs, config differences.
        galleries: pictures by protocol, data set and part.
        places: a row for each test of a system on a data set: parts, seeds and folders.
        notes: what was left out, and why.
    """

    outputs: list[str]
    tables: dict[str, Table] = field(default_factory=dict)
    papers: dict[str, tuple[dict[tuple[int, str, str], float], list[str]]] = field(default_factory=dict)
    details: list[dict[str, Any]] = field(default_factory=list)
    open_sets: list[dict[str, Any]] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    galleries: list[dict[str, Any]] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(
    outputs: Iterable[str | Path],
    protocols: Iterable[str] = (),
    *,
    pictures: int = 6,
    data: str | Path | None = None,
    compare: Sequence[str] = (),
    join_configs: bool = False,
    source: str = "",
    **filters: Any,
) -> Report:
    """All that the page shows of the runs below output folders.

    Args:
        outputs: the folders.
        protocols: of `PROTOCOLS`; all of which there are runs if empty.
        pictures: images in a row of the gallery; 0 for none.
        data: folder of the data sets' images; by default where each run had them.
        compare: titles of two systems, of which images are shown that they judge differently; by default the last
            column and the best of the others.
        join_configs, source, filters: as of `tools.results.table_of`.

    Raises:
        FileNotFoundError: there is no such folder, or no run below it.
        ValueError: as `find_runs` and `build_table`; or there are no such systems.
    """
    with reading_once() as contents:
        return _gather(
            [Path(output) for output in outputs],
            protocols,
            contents,
            pictures=pictures,
            data=data,
            compare=compare,
            join_configs=join_configs,
            source=source,
            **filters,
        )


def _gather(
    outputs: list[Path],
    protocols: Iterable[str],
    contents: Mapping[Path, dict[str, Any]],
    *,
    pictures: int,
    data: str | Path | None,
    compare: Sequence[str],
    join_configs: bool,
    source: str,
    **filters: Any,
) -> Report:
    """As `gather`; `contents` are those of all `results.json` that were read."""
    report = Report([str(output) for output in outputs])
    every: list[tuple[str, Column, Run]] = []
    for protocol in protocols or PROTOCOLS:
        runs = find_runs(outputs, protocol, source=source, **filters)
        if not runs or all(run.part == "source" for run in runs):
            if protocols:
                report.notes.append(f"{TITLES.get(protocol, protocol)}: there is no run of this protocol")
            continue
        if protocol == "fewshot" and not protocols and len({run.shots for run in runs if run.shots > 0}) < 2:
            continue  # trainings on all classes for tests elsewhere
        if protocol == "open_set":
            if all(run.accuracy is None for run in runs):
                report.notes.append(f"{TITLES[protocol]}: no run has a result ({runs[0].problem})")
                continue
            tables = tables_of(outputs, protocol, figure=OPEN_SET_FIGURE, join_configs=join_configs, **filters)
            report.tables.update({protocol + "_far" * (own.part == "far"): own for own in tables})
            table, runs = tables[0], [run for run in runs if run.part == NEAR]
        else:
            table = build_table(runs, join_configs=join_configs, seeds=filters.get("seeds", ()))
            report.tables[protocol] = table
        for column in table.columns:
            members = [run for run in runs if run.accuracy is not None and _is_of(run, column, join_configs)]
            every += [(protocol, column, run) for run in members]
    if not report.tables:
        folders = ", ".join(map(str, outputs))
        raise FileNotFoundError(
            f"there is no run below {folders}; runs lie in {'; '.join(sorted(set(PROTOCOLS.values())))}"
        )

    for name, table in report.tables.items():
        try:
            report.papers[name] = paper_numbers(table)
        except ValueError:  # the paper has no such table
            report.papers[name] = ({}, [])
    titles = [column.title for table in report.tables.values() for column in table.columns]
    unknown = [title for title in compare if title not in titles]
    if unknown:
        raise ValueError(f"no system is called {', '.join(unknown)}; there are {', '.join(dict.fromkeys(titles))}")
    if compare and len(set(compare)) != 2:
        raise ValueError(f"two systems can be compared, got {len(set(compare))}")
    _add_tests(report, every, contents, pictures, data, compare)
    _add_epochs(report, every)
    _add_costs(report, every, contents)
    _add_facts(report, every, contents)
    return report


def _is_of(run: Run, column: Column, join_configs: bool) -> bool:
    config = run.config in column.config.split(", ") if join_configs else run.config == column.config
    return run.trainer == column.trainer and config and column.shots in (None, run.shots)


def _add_tests(
    report: Report,
    every: list[tuple[str, Column, Run]],
    contents: Mapping[Path, dict[str, Any]],
    pictures: int,
    data: str | Path | None,
    compare: Sequence[str],
) -> None:
    """Details of tests with records, one data set after the other, so that only the records of one are in memory."""
    tests: dict[tuple[str, str, str, int], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for protocol, column, run in every:
        shots = run.shots if protocol == "fewshot" else 0
        tests[protocol, run.dataset, run.part, shots][column.title].append(run)
    gallery = Gallery(data, pictures)
    without: list[str] = []
    for (protocol, dataset, part, shots), systems in tests.items():
        key = f"{protocol}/{dataset}/{part}" + f"/{shots}" * bool(shots)
        common = {"protocol": protocol, "dataset": dataset, "part": part, "shots": shots, "key": key}
        read: dict[str, list[figures.Records]] = {}
        first_runs: dict[str, Run] = {}
        names: list[str] | None = None
        for title, runs in systems.items():
            seeds = sorted({run.seed for run in runs})
            accuracies = [run.accuracy for run in runs if run.accuracy is not None]
            report.places.append(
                {
                    **common,
                    "system": title,
                    "seeds": seeds,
                    "accuracy": mean(accuracies),
                    "folders": [str(run.path.parent if run.path.is_file() else run.path) for run in runs],
                }
            )
            found: list[figures.Records] = []
            for run in runs:
                try:
                    own = contents.get(run.path, {}).get("class_names")
                    records = _records(run.path.parent, own)
                    if protocol != "open_set":  # a test on an open set in another protocol's folder
                        records = split_open_set(records)[0]
                except FileNotFoundError:
                    without.append(str(run.path.parent))
                    continue
                except ValueError as error:
                    report.notes.append(str(error))
                    continue
                names = names or own
                if own != names:
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
                report.details.append(
                    {**common, "system": title, "similarity": mean(similar) if similar else None}
                    | _details(found, len(names))
                )
        if read and names:
            report.classes[key] = names
            pair = [title for title in compare if title in read] if compare else _pair(report.tables[protocol], read)
            gallery.add(
                report, common, names, {title: found[0] for title, found in read.items()}, pair, first_runs, contents
            )
    report.notes += gallery.notes
    _fewer_classes(report)
    if without:
        report.notes.append(
            f"{len(without)} of {len(every)} results have no {FILE_NAME}, as {without[0]}: they are of an older "
            "version or of other code, and stand in tables and costs only"
        )


def _records(folder: Path, names: Any) -> figures.Records:
    """The records of a run's test.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file is broken, or they are not what a test keeps; with the file.
    """
    records = read_predictions(folder)
    try:
        _check(records, names)
    except KeyError as error:
        raise ValueError(f"{folder / FILE_NAME} has no {error.args[0]}: left out") from error
    except ValueError as error:
        raise ValueError(f"{folder / FILE_NAME} {error}: left out") from error
    return records


def _check(records: figures.Records, names: Any) -> None:
    """Raise ValueError, whose subject is the file, or KeyError where records are not what a test keeps."""
    label, prediction, _, _ = (records[name] for name in ("label", "prediction", "path", "confidence"))
    if not isinstance(names, list) or not names:
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
    for name in ("confidence", "entropy", "uncertainty", "conflict", "doubt"):
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
    """Of tests with many classes keep those in which the systems' accuracies differ most."""
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


def _add_epochs(report: Report, every: list[tuple[str, Column, Run]]) -> None:
    """Curves of trainings: the mean over seeds of what logs print, over the epochs that each of them has."""
    trainings: dict[tuple[str, str, str, int], list[Run]] = defaultdict(list)
    for protocol, column, run in every:
        if run.part in ("base", "source", "all") and run.shots != 0:
            shots = run.shots if protocol == "fewshot" else 0
            trainings[protocol, run.dataset, column.title, shots].append(run)
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


def _add_costs(report: Report, every: list[tuple[str, Column, Run]], contents: Mapping[Path, dict[str, Any]]) -> None:
    """Means over a system's runs of what they took."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for protocol, column, run in every:
        if run.path in contents:
            groups[protocol, column.title].append(contents[run.path])
    for (protocol, title), found in groups.items():
        row: dict[str, Any] = {"protocol": protocol, "system": title, "results": len(found)}
        for key in COSTS:
            values = [content[key] for content in found if is_number(content.get(key))]
            row[key] = mean(values) if values else None
        seconds: list[tuple[Any, Any]] = [(content.get("images"), content.get("test_seconds")) for content in found]
        rates = [n / s for n, s in seconds if is_number(n) and is_number(s) and s > 0]
        row["images_per_second"] = mean(rates) if rates else None
        row["devices"] = sorted({str(content.get("device", "")) for content in found} - {""})
        report.costs.append(row)


def _add_facts(report: Report, every: list[tuple[str, Column, Run]], contents: Mapping[Path, dict[str, Any]]) -> None:
    """Versions, CLIPs, and the config keys in which systems, or the runs of one system, differ."""
    versions: dict[str, set[str]] = defaultdict(set)
    clips: dict[str, set[str]] = defaultdict(set)
    systems: dict[str, list[dict[str, str]]] = {}
    for _, column, run in every:
        content = contents.get(run.path)
        if content is None:
            continue
        for name, version in _mapping(content, "versions").items():
            versions[str(name)].add(str(version))
        clips[str(content.get("backbone", "?"))].add(str(content.get("backbone_sha256") or "not told"))
        flat = _flat(_mapping(content, "config"))
        own = content.get("trainer")
        # Of the methods' own keys those of the run's method are what it was run with.
        systems.setdefault(column.title, []).append(
            {key: value for key, value in flat.items() if key not in PLACES and _belongs(key, str(own))}
        )
    keys = sorted({key for runs in systems.values() for run in runs for key in run})
    differences, within = [], []
    for key in keys:
        values = {title: sorted({run.get(key, "–") for run in runs}) for title, runs in systems.items()}
        # A method's own options are compared among the systems of that method.
        having = [found for found in values.values() if not (key.startswith("TRAINER.") and found == ["–"])]
        if len({tuple(found) for found in having}) > 1 or any(len(found) > 1 for found in having):
            differences.append((key, {title: ", ".join(found) for title, found in values.items()}))
        within += [f"{title}: {key} is {' and '.join(found)}" for title, found in values.items() if len(found) > 1]
    report.facts = {
        "versions": {name: sorted(found) for name, found in sorted(versions.items())},
        "clips": {name: sorted(found) for name, found in sorted(clips.items())},
        "systems": list(systems),
        "differences": differences,
        "within": within,
    }


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of a `results.json`; empty where it is not there or of another kind."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def _belongs(key: str, trainer: str) -> bool:
    parts = key.split(".")
    return parts[0] != "TRAINER" or len(parts) < 3 or parts[1].lower() == trainer.lower()


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """A config's keys with dots, and their values as text."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{above}{key}"
        found.update(_flat(value, f"{name}.") if isinstance(value, Mapping) else {name: json.dumps(value)})
    return found


def cell_numbers(cell: SeedMean | None) -> dict[str, Any] | None:
    """A cell as the page's charts read it."""
    if cell is None:
        return None
    return {"mean": cell.mean, "std": cell.std, "seeds": {str(seed): value for seed, value in cell.by_seed.items()}}


def display(dataset: str) -> str:
    return published.display_name(dataset)
