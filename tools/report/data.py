"""What a page's charts are drawn from, as the page carries it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from storage.safe_text import escaped
from tools.common.colours import KINDS, system_styles
from tools.common.layout import trains_nothing
from tools.report.records import LOWEST
from tools.report.report import TITLES, Report
from tools.results import published
from tools.results.tables import SeedMean, Table, shots_of

# Systems that charts draw at first if there are no more trainers. A page with more has a list to choose them from.
DRAWN = 10
FEWEST = 3  # systems that are drawn even if others, which are not, have as many results


def chart_data(report: Report, links: Mapping[str, str]) -> dict[str, Any]:
    """What the charts are drawn from, ready for JSON: texts escaped, numbers rounded.

    Args:
        report: from `gather`.
        links: the name of each data set in links.
    """
    # Rows of other data sets on an open set are pairs of them.
    datasets = list(
        dict.fromkeys(name for table in report.tables.values() if table.part != "far" for name in table.datasets)
    )
    galleries, pictures = _pictures_once(report.galleries)
    runs = results_by_system(report)
    trainers = {column.title: column.trainer for table in report.tables.values() for column in table.columns}
    # What the page compares with at first is always among those that are drawn.
    by_runs = sorted(trainers, key=lambda title: (title != next(iter(trainers)), -runs[title]))
    data = {
        "tables": {protocol: _table(protocol, table) for protocol, table in report.tables.items()},
        "datasets": datasets,
        "names": {dataset: published.display_name(dataset) for dataset in datasets},
        "links": {links[dataset]: dataset for dataset in datasets},
        "titles": TITLES,
        "runs": runs,
        "first": _first(by_runs, runs, trainers),
        # Symbols and dashes are few: those with the most runs have different ones.
        "styles": {
            title: style._asdict() for title, style in system_styles((own, trainers[own]) for own in by_runs).items()
        },
        "kinds": KINDS,
        "details": report.details,
        "classes": report.classes,
        "open_sets": report.open_sets,
        "epochs": report.epochs,
        "galleries": galleries,
        "pictures": pictures,
        "lowest": LOWEST,
    }
    rounded: dict[str, Any] = _rounded(safe(data))
    return rounded


def _first(by_runs: Sequence[str], runs: Mapping[str, int], trainers: Mapping[str, str]) -> list[str]:
    """The systems that are drawn at first: the first, of every trainer the one with the most results, and some others.

    If possible, each of the others has more results than any system that is left out.
    """
    if len(by_runs) <= DRAWN:
        return list(by_runs)
    best: dict[str, str] = {}
    for title in by_runs:
        if runs[title] > runs.get(best.get(trainers[title], ""), -1):
            best[trainers[title]] = title
    chosen = {by_runs[0], *best.values()}
    others = [title for title in by_runs if title not in chosen]
    room = max(0, DRAWN - len(chosen))
    ahead = [title for title in others[:room] if runs[title] > runs[others[room]]]
    if len(chosen) + len(ahead) < FEWEST:
        ahead = others[:room]
    return sorted([*chosen, *ahead], key=by_runs.index)


def results_by_system(report: Report) -> dict[str, int]:
    """How many results each system has, in the order of the tables."""
    numbers = {column.title: 0 for table in report.tables.values() for column in table.columns}
    for place in report.places:
        numbers[place["system"]] += len(place["folders"])
    return numbers


def _table(protocol: str, table: Table) -> dict[str, Any]:
    columns = []
    for column in table.columns:
        cells: dict[str, dict[str, Any]] = {}
        for (dataset, metric), cell in column.cells.items():
            cells.setdefault(dataset, {})[metric] = _cell_numbers(cell)
        own: dict[str, Any] = {"title": column.title, "metrics": column.metrics, "cells": cells}
        own["constant"] = trains_nothing(column.trainer)
        if protocol == "fewshot":
            own["shots"] = {metric: shots_of(metric) for metric in column.metrics}
        columns.append(own)
    return {"columns": columns, "datasets": table.datasets, "source": table.source, "averaged": table.averaged}


def _cell_numbers(cell: SeedMean) -> dict[str, Any]:
    return {"mean": cell.mean, "std": cell.std, "seeds": {str(seed): value for seed, value in cell.by_seed.items()}}


def _pictures_once(galleries: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Galleries whose cards hold the numbers of their pictures, and the list of pictures.

    Each picture is in the list once, because many cards show the same one.
    """
    numbers: dict[str, int] = {"": 0}
    found = []
    for gallery in galleries:
        rows = []
        for row in gallery["rows"]:
            cards = [{**card, "source": numbers.setdefault(card["source"], len(numbers))} for card in row["cards"]]
            rows.append({**row, "cards": cards})
        found.append({**gallery, "rows": rows})
    return found, list(numbers)


def safe(value: Any) -> Any:
    """Texts without control characters and characters that turn the direction of writing, at any depth."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {safe(key): safe(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [safe(own) for own in value]
    return value


def _rounded(value: Any) -> Any:
    """Numbers with five digits, which is more than a chart shows; JSON has no NaN."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(own) for own in value]
    return value
