"""The page of a report: one HTML file that needs no other and no network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from storage.files import atomic_write
from storage.safe_text import escaped
from tools.common.layout import trains_nothing
from tools.report.data import DRAWN, chart_data, results_by_system, safe
from tools.report.report import TITLES, Report
from tools.results import published
from tools.results.render import best_cells, cell_text
from tools.results.tables import Column, SeedMean, Table, seeds_name, some_lack_averages, who_has_averages

ASSETS = Path(__file__).with_name("assets")
TEMPLATE = "page.html.j2"
SCRIPTS = ("choices.js", "charts.js", "page.js")  # in this order

_ID = re.compile(r'\bid="([\w-]+)"')  # of the template's own elements


def write_page(report: Report, title: str, path: str | Path) -> None:
    """Write the page to a file; arguments as of `render_page`.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(Path(path)) as part:
        Path(part).write_text(render_page(report, title), encoding="utf-8")


def render_page(report: Report, title: str) -> str:
    """The page as text.

    Args:
        report: from `gather`.
        title: the page's title.
    """
    environment = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template(TEMPLATE)
    tables = [_table(report, protocol) for protocol in report.tables]
    has = {
        "curves": any(
            len(own.metrics) > 1 for key, table in report.tables.items() if key == "fewshot" for own in table.columns
        ),
        "epochs": bool(report.epochs),
        "details": bool(report.details),
        "templates": any(detail["templates"] for detail in report.details),
        "images": bool(report.galleries),
    }
    contents = [("there", "What is there"), *((table["id"], table["title"]) for table in tables)]
    contents += [("epochs", "Epochs")] * has["epochs"]
    contents += [("classes", "Classes"), ("uncertainty", "Uncertainty")] * has["details"]
    contents += [("templates", "Templates")] * has["templates"] + [("images", "Images")] * has["images"]
    contents += [("cost", "Cost"), ("run", "What was run")]
    sections = [name for name, _ in contents]
    links = _links(report, {*sections, *(f"table-{name}" for name in [*sections, "settings"])})
    missing = [
        f"{TITLES.get(protocol, protocol)}: {sentence}"
        for protocol, table in report.tables.items()
        for sentence in table.missing
    ]
    text = template.render(
        title=escaped(title),
        subtitle=escaped(f"runs below {', '.join(report.outputs)}"),
        contents=contents,
        there=[escaped(line) for line in _there(report) + report.notes],
        missing=[escaped(line) for line in missing],
        tables=tables,
        has=has,
        many=len(results_by_system(report)) > DRAWN,
        cost=_cost(report),
        facts=safe(report.facts),
        settings=_settings(report),
        places=_places(report, links),
        # As text of the script element; "<" could end it.
        data=Markup(
            json.dumps(chart_data(report, links), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        ),
        css=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)),
        plotly=Markup(get_plotlyjs()),
    )
    return text


def _there(report: Report) -> list[str]:
    return [f"{TITLES.get(protocol, protocol)}: {_size(table)}" for protocol, table in report.tables.items()]


def _size(table: Table) -> str:
    """How many systems and data sets a table has, and which seeds those systems have that learn."""
    systems, datasets = (
        f"{n} {what}{'s' * (n != 1)}" for n, what in ((len(table.columns), "system"), (len(table.datasets), "data set"))
    )
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for column in table.columns:
        if not trains_nothing(column.trainer):
            by_seeds.setdefault(column.seeds, []).append(column.title)
    text = f"{systems} on {datasets}"
    if len(by_seeds) < 2:
        seeds = {seed for column in table.columns for seed in column.seeds}
        return f"{text}, {seeds_name(next(iter(by_seeds), sorted(seeds)))}"
    usual = max(by_seeds, key=lambda seeds: len(by_seeds[seeds]))
    if 2 * len(by_seeds[usual]) > sum(map(len, by_seeds.values())):
        del by_seeds[usual]
        text += f", most with {seeds_name(usual)}"
    return "; ".join([text, *(f"{seeds_name(seeds)}: {', '.join(titles)}" for seeds, titles in by_seeds.items())])


def _table(report: Report, protocol: str) -> dict[str, Any]:
    """A protocol's table as the template takes it."""
    table = report.tables[protocol]
    numbers, notes = report.papers[protocol]
    rows = [*([table.source] if table.source else []), *(name for name in table.datasets if name != table.source)]
    rows += ["average"] * bool(table.averaged)
    metrics = [(index, column, metric) for index, column in enumerate(table.columns) for metric in column.metrics]
    best, lines = best_cells(table), []
    for row in rows:
        cells = []
        for index, column, metric in metrics:
            cell = _cell(column, row, metric)
            paper = numbers.get((index, row, metric))
            own: dict[str, Any] = {"text": "–", "value": None, "best": False, "paper": "", "is_text": False}
            if cell is not None:
                own["text"] = cell_text(cell, column, row)
                own["value"], own["best"] = cell.mean, (index, row, metric) in best
            if paper is not None:
                gap = "" if cell is None else f" ({round(cell.mean - paper, 2) + 0:+.2f})"
                own["paper"] = f"paper {paper:.2f}{gap}"
            cells.append(own)
        title = f"average of {len(table.averaged)}" if row == "average" else escaped(published.display_name(row))
        kind = "average" if row == "average" else "source" if row == table.source else ""
        lines.append({"title": title, "key": escaped(row), "kind": kind, "cells": cells})
    single = all(column.metrics == ("Accuracy",) for column in table.columns)
    headers = [{"title": "data set", "text": False}]
    headers += [{"title": escaped(column.title if single else metric), "text": False} for _, column, metric in metrics]
    groups = [] if single else [{"title": escaped(own.title), "span": len(own.metrics)} for own in table.columns]
    shown = "AUROC of each score" if table.part else "Mean"
    text = f"{shown} and standard deviation over seeds, in percent; the best of each row has a star."
    if table.averaged:
        names = ", ".join(map(published.display_name, table.averaged))
        text += f" The average is over the {len(table.averaged)} data sets that {who_has_averages(table, 'system')}"
        text += f": {escaped(names)}. The other systems have none." if some_lack_averages(table) else "."
    elif len(rows) > 1 + bool(table.source):
        text += " There is no average, as the trainers have fewer than two data sets in common."
    # What the paper lacks matters only if its numbers are shown.
    told = (
        [f"the paper {note}" if note.split()[0] in ("has", "is", "trains") else note for note in notes]
        if numbers
        else []
    )
    return {
        "id": protocol,
        "part": table.part,
        "title": TITLES.get(protocol, protocol),
        "text": text,
        "headers": headers,
        "groups": groups,
        "rows": lines,
        "notes": [escaped(note) for note in told],
    }


def _cell(column: Column, row: str, metric: str) -> SeedMean | None:
    return column.averages.get(metric) if row == "average" else column.cells.get((row, metric))


def _plain_table(title: str, headers: Sequence[tuple[str, bool]], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A table of texts and numbers, whose first column names the row; a header says whether it is of texts."""
    lines = []
    for first, *values in rows:
        cells = []
        for (_, is_text), value in zip(headers[1:], values):
            number = None if is_text or value is None else float(value)
            text = escaped(str(value)) if is_text else "–" if number is None else _number(number)
            cells.append({"text": text, "value": number, "best": False, "paper": "", "is_text": is_text})
        lines.append({"title": escaped(str(first)), "key": "", "kind": "", "cells": cells})
    return {
        "title": title,
        "groups": [],
        "headers": [{"title": escaped(name), "text": is_text} for name, is_text in headers],
        "rows": lines,
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.1f}"


def _cost(report: Report) -> dict[str, Any]:
    headers = [("system", True), ("protocol", True), ("results", False), ("training, seconds", False)]
    headers += [("test, seconds", False), ("test, images per second", False), ("values trained", False)]
    headers += [("most memory, MiB", False), ("device", True)]
    rows = []
    for row in report.costs:
        names = ("results", "train_seconds", "test_seconds", "images_per_second", "trained_values")
        memory = row["peak_memory_bytes"]
        values = [*(row[key] for key in names), None if memory is None else memory / 2**20]
        title = TITLES.get(row["protocol"], row["protocol"])
        rows.append([row["system"], title, *values, ", ".join(row["devices"]) or "–"])
    return _plain_table("Cost", headers, rows)


def _settings(report: Report) -> dict[str, Any]:
    systems = report.facts["systems"]
    headers = [("key", True), *((title, True) for title in systems)]
    rows = [[key, *(values[title] for title in systems)] for key, values in report.facts["differences"]]
    return _plain_table("Settings", headers, rows)


def _links(report: Report, taken: set[str]) -> dict[str, str]:
    """The name of each data set in links; no other element of the page has that name."""
    taken = taken | set(_ID.findall((ASSETS / TEMPLATE).read_text(encoding="utf-8")))
    names = dict.fromkeys(name for table in report.tables.values() for name in table.datasets)
    return _unique([*names, *(place["dataset"] for place in report.places)], taken)


def _unique(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Names as parts of links, all different and none of those that are taken."""
    links: dict[str, str] = {}
    for name in dict.fromkeys(names):
        link = _slug(name)
        while link in (*links.values(), *taken):
            link += "-"
        links[name] = link
    return links


def _places(report: Report, links: Mapping[str, str]) -> list[dict[str, Any]]:
    datasets: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for place in report.places:
        datasets.setdefault(place["dataset"], {}).setdefault(place["system"], []).append(place)
    found = []
    for dataset, systems in datasets.items():
        lines, own_links = [], _unique(systems)
        for title, places in systems.items():
            own = []
            for place in places:
                shots = f", {place['shots']} shots" * bool(place["shots"])
                seeds = ", ".join(map(str, place["seeds"]))
                text = f"{TITLES.get(place['protocol'], place['protocol'])}, {place['part']}{shots}: "
                text += f"{place['accuracy']:.2f}% over seeds {seeds}"
                own.append(
                    {"text": escaped(text), "folders": [escaped(folder) for folder in _braced(place["folders"])]}
                )
            lines.append({"title": escaped(title), "id": f"{links[dataset]}/{own_links[title]}", "lines": own})
        found.append({"title": escaped(published.display_name(dataset)), "id": links[dataset], "systems": lines})
    return found


def _braced(folders: Sequence[str]) -> list[str]:
    """Folders, of which those of seeds that lie together are one in the form of a shell: `run/seed{1,2}`."""
    together: dict[tuple[str, str], list[str]] = {}
    for folder in folders:
        parent, seed, number = folder.rpartition("/seed")
        key, own = ((parent, seed), number) if number.isdecimal() else ((folder, ""), "")
        together.setdefault(key, []).append(own)
    return [
        f"{parent}{seed}{numbers[0] if len(numbers) == 1 else '{' + ','.join(numbers) + '}'}"
        for (parent, seed), numbers in together.items()
    ]


def _slug(text: str) -> str:
    """A name as part of a link."""
    return "".join(letter if letter.isalnum() or letter in "_-." else "-" for letter in text.lower())
