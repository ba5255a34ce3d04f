"""What runs took, and what was run: versions, weights, settings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tools.report.report import Report, Tested
from trainers.modules.plain_content import is_number

COSTS = ("train_seconds", "test_seconds", "trained_values", "peak_memory_bytes")  # in `results.json`
# Keys of a config that say where a run was done and on what data, not how
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


def add_costs(report: Report, every: Sequence[Tested], contents: Mapping[Path, dict[str, Any]]) -> None:
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


def add_facts(report: Report, every: Sequence[Tested], contents: Mapping[Path, dict[str, Any]]) -> None:
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
        # Of the keys that belong to one method, only those of the run's own method say how it was run.
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
    """A part of a `results.json`; empty if it is not there or of another kind."""
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
