"""Tables as text, Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from storage.safe_text import escaped, safe_cell
from tools.common.layout import PROTOCOLS
from tools.results import published
from tools.results.runs import NEAR, find_runs
from tools.results.tables import (
    Column,
    SeedMean,
    Table,
    best_of,
    build_table,
    direction,
    open_set_part,
    paper_numbers,
    seeds_name,
    shots_name,
    shots_of,
    some_lack_averages,
    who_has_averages,
)

DEFAULT_FIGURES = {"open_set": "auroc_open_confidence"}
FORMATS = ("text", "markdown", "csv", "latex")
NOTHING = "–"
MARK_NAMES = {"text": "*", "markdown": "bold", "latex": "bold"}
# What stands around a cell that is marked; in LaTeX characters that no name has, until the others are escaped
MARKS = {"text": ("", " *"), "markdown": ("**", "**"), "latex": ("\x02", "\x03")}


def render(
    table: Table,
    output_format: str = "text",
    paper: bool = False,
    raw: bool = False,
    width: int | None = None,
    mark: bool = False,
) -> tuple[str, list[str]]:
    """A table as text, and the notes that belong below it; names, which are those of folders, as they can be printed.

    Args:
        table: from `build_table`.
        output_format: one of `FORMATS`.
        paper: whether the paper's numbers stand beside, and the differences from them.
        raw: whether texts in CSV stay as they are, also where a spreadsheet takes them for formulas.
        width: characters of a line; where a table as text would be wider, each method has a row of its own. None: any.
        mark: whether the best of each row is marked, by an asterisk or in bold type; not in CSV.

    Raises:
        ValueError: no such format, or the paper has no table of this protocol.
    """
    if output_format not in FORMATS:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {output_format!r}")
    numbers, paper_notes = paper_numbers(table) if paper else ({}, [])
    better = direction(table.figure)
    notes = [f"{table.figure}: {better} is better"] if better and table.figure != "accuracy" else []
    best = best_cells(table) if mark and output_format != "csv" else set()
    notes += [f"{MARK_NAMES[output_format]}: the best of its row{_for_each(table)}"] if best else []
    notes += [legend(column) for column in table.columns]
    rows = [dataset for dataset in table.datasets if dataset != table.source]
    choose = "--trainer, --config and --shots choose columns, --join-configs puts all configs of a trainer into one"
    if table.averaged:
        without = ", ".join(published.display_name(name) for name in rows if name not in table.averaged)
        some = some_lack_averages(table)
        text = f"average: over the {len(table.averaged)} data sets that {who_has_averages(table, 'column')}"
        if without:
            text += f", so without {without}"
        if some:
            text += f"; the other columns have none ({choose})"
        if without or some:
            notes.append(text)
    elif len(rows) > 1:
        notes.append(f"average: none, as the trainers have fewer than two data sets in common ({choose})")
    if numbers:
        notes.append(f"paper: {published.SOURCE}; differences are taken before rounding")
        shown = {table.columns[index].trainer for index, _, _ in numbers}
        notes += [f"paper, {name}: {source}" for name, source in published.OTHER_SOURCES.items() if name in shown]
    notes += [f"paper: {note}" for note in paper_notes] + [f"missing: {sentence}" for sentence in table.missing]
    notes = [escaped(note) for note in notes]
    if output_format == "csv":
        return _csv(table, numbers, paper, raw), notes
    return _grid(table, numbers, output_format, width, best), notes


def best_cells(table: Table) -> set[tuple[int, str, str]]:
    """The best cells of each row: number of the column group, row, metric.

    Scores of an open set stand for the same and are compared with each other, other metrics are not.
    """
    best: set[tuple[int, str, str]] = set()
    all_metrics = list(dict.fromkeys(metric for column in table.columns for metric in column.metrics))
    for metrics in [all_metrics] if table.protocol == "open_set" else [[metric] for metric in all_metrics]:
        for row in _rows(table):
            keys = [(n, row, metric) for n, column in enumerate(table.columns) for metric in metrics]
            cells = [_cell(table.columns[n], row, metric) for n, _, metric in keys]
            flags = best_of([cell and cell.mean for cell in cells], table.figure)
            best.update(key for key, flag in zip(keys, flags) if flag)
    return best


def _for_each(table: Table) -> str:
    """Of what the best are, where a row has several kinds of results."""
    metrics = dict.fromkeys(metric for column in table.columns for metric in column.metrics)
    return "" if table.protocol == "open_set" or len(metrics) == 1 else f", for each of {', '.join(metrics)}"


def marked(text: str, output_format: str) -> str:
    """A cell that is the best."""
    before, after = MARKS[output_format]
    return before + text + after


def latex(lines: list[list[str]], headers: list[str]) -> str:
    """A booktabs table as it is to be in a document."""
    text = tabulate(lines, headers, tablefmt="latex_booktabs", disable_numparse=True)
    before, after = MARKS["latex"]
    return text.replace("±", r"$\pm$").replace(NOTHING, "--").replace(before, r"\textbf{").replace(after, "}")


def terminal_width() -> int | None:
    """How many characters a line of the terminal has, by COLUMNS or the terminal; None where stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def heading(table: Table) -> str:
    """What a table shows, in one line."""
    whose = {"near": ", near: images of the new classes", "far": ", far: images of other data sets"}
    return f"{table.figure}{whose.get(table.part, '')}"


def legend(column: Column) -> str:
    """What the runs of a column group are."""
    config = f"config{'s' * (', ' in column.config)} {column.config}"
    shots = "" if column.shots is None else f", {shots_name(column.shots)}"
    return f"{column.title}: {config}{shots}, {seeds_name(column.seeds)}"


def _rows(table: Table) -> list[str]:
    """Data sets, the source first, and the average."""
    source = [table.source] if table.source else []
    rows = source + [dataset for dataset in table.datasets if dataset != table.source]
    return rows + ["average"] * bool(table.averaged)


def _cell(column: Column, row: str, metric: str) -> SeedMean | None:
    return column.averages.get(metric) if row == "average" else column.cells.get((row, metric))


def _grid(table: Table, numbers: dict, output_format: str, width: int | None, best: set[tuple[int, str, str]]) -> str:
    """The table with data sets as rows, a column group a trainer, and the paper's where it has numbers.

    As text that would be wider than `width` it has a row for each data set and group.
    """
    rows = _rows(table)
    lines = [[_row_name(table, row)] for row in rows]
    groups = []  # title and metrics
    for index, column in enumerate(table.columns):
        beside = any(key[0] == index for key in numbers)
        title = escaped(column.title)
        groups.append((title, column.metrics))
        groups += [(f"{title}, paper", column.metrics), (f"{title} - paper", column.metrics)] * beside
        for row, line in zip(rows, lines):
            cells = [_cell(column, row, metric) for metric in column.metrics]
            texts = [cell_text(cell, column, row) for cell in cells]
            line += [
                marked(text, output_format) if (index, row, metric) in best else text
                for text, metric in zip(texts, column.metrics)
            ]
            if beside:
                theirs = [numbers.get((index, row, metric)) for metric in column.metrics]
                line += [NOTHING if number is None else f"{number:.2f}" for number in theirs]
                line += [
                    NOTHING if cell is None or number is None else f"{round(cell.mean - number, 2) + 0:+.2f}"
                    for cell, number in zip(cells, theirs)
                ]
    if output_format == "latex":
        return _latex(lines, groups)
    if output_format == "markdown":
        headers = [_join(title, metric, " ") for title, metrics in groups for metric in metrics]
        return tabulate(lines, ["data set", *headers], tablefmt="github", disable_numparse=True)
    headers = [
        _join(title if first == 0 else "", metric, "\n")
        for title, metrics in groups
        for first, metric in enumerate(metrics)
    ]
    text = tabulate(lines, ["data set", *headers], tablefmt="simple", disable_numparse=True)
    return text if width is None or max(map(len, text.splitlines())) <= width else _tall(lines, groups)


def _tall(lines: list[list[str]], groups: list[tuple[str, tuple[str, ...]]]) -> str:
    """The table with a row for each data set and column group, for terminals."""
    metrics = list(dict.fromkeys(metric for _, own in groups for metric in own))
    rows = []
    for name, *cells in lines:
        first = 0
        for title, own in groups:
            shown = dict(zip(own, cells[first : first + len(own)]))
            rows.append(["" if first else name, title, *(shown.get(metric, NOTHING) for metric in metrics)])
            first += len(own)
    return tabulate(rows, ["data set", "method", *metrics], tablefmt="simple", disable_numparse=True)


def _join(title: str, metric: str, between: str) -> str:
    """A column's heading; a group of one column needs no name for its metric."""
    return title if metric == "Accuracy" else f"{title}{between}{metric}"


def _row_name(table: Table, row: str) -> str:
    if row == "average":
        return f"average of {len(table.averaged)}"
    return escaped(published.display_name(row)) + " (source)" * (row == table.source)


def cell_text(cell: SeedMean | None, column: Column, row: str) -> str:
    """Mean, standard deviation, and over how many seeds where that is fewer than the column's."""
    if cell is None:
        return NOTHING
    text = f"{cell.mean:.2f}" + (f" ± {cell.std:.2f}" if cell.std is not None else "")
    fewer = row != "average" and len(cell.seeds) < len(column.seeds)
    return text + f" (n={len(cell.seeds)})" * fewer


def _latex(lines: list[list[str]], groups: list[tuple[str, tuple[str, ...]]]) -> str:
    """A booktabs table, with the titles of the column groups in a row of their own."""
    single = all(metrics == ("Accuracy",) for _, metrics in groups)
    headers = [title if single else metric for title, metrics in groups for metric in metrics]
    text = latex(lines, ["data set", *headers])
    if single:
        return text
    titles, rules, first = [], [], 2
    for title, metrics in groups:
        last = first + len(metrics) - 1
        titles.append(rf"\multicolumn{{{len(metrics)}}}{{c}}{{{title.replace('_', chr(92) + '_')}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
        first = last + 1
    row = " & ".join(["", *titles]) + r" \\"
    return text.replace("\\toprule\n", f"\\toprule\n{row}\n{' '.join(rules)}\n", 1)


def _csv(table: Table, numbers: dict, paper: bool, raw: bool) -> str:
    """One line for each data set, column group and metric: plain numbers, not rounded to what a table shows."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = ["protocol", "dataset", "datasets", "shots", "trainer", "config", "metric", "mean", "std", "n", "seeds"]
    writer.writerow(header + ["paper", "difference"] * paper)
    for row in _rows(table):
        for index, column in enumerate(table.columns):
            for metric in column.metrics:
                cell, number = _cell(column, row, metric), numbers.get((index, row, metric))
                if cell is None:
                    continue
                shots, name = column.shots, metric
                if shots is None:  # few-shot: the metrics are the shots
                    shots, name = shots_of(metric), "Accuracy"
                if table.figure != "accuracy":
                    name = table.figure if name == "Accuracy" else f"{name} {table.figure}"
                    if table.part:
                        name = f"{table.part} {name}"
                texts = [table.protocol, row, column.trainer, column.config]
                protocol, dataset, trainer, config = texts if raw else map(safe_cell, texts)
                line = [protocol, dataset, len(table.averaged) if row == "average" else 1, shots]
                line += [trainer, config, name.lower(), f"{cell.mean:.4f}", _plain(cell.std)]
                line += [len(cell.seeds) or "", " ".join(map(str, cell.seeds))]
                difference = None if number is None else cell.mean - number
                writer.writerow(line + [_plain(number), _plain(difference)] * paper)
    return file.getvalue().rstrip("\n")


def _plain(number: float | None) -> str:
    return "" if number is None else f"{number:.4f}"


def table_of(
    output: str | Path | Iterable[str | Path],
    protocol: str = "base2new",
    *,
    join_configs: bool = False,
    figure: str = "",
    part: str = "",
    beside: Iterable[tuple[str, str]] = (),
    **filters,
) -> Table:
    """The table of the runs below one or several output folders.

    Args:
        output: the folder or folders.
        protocol: one of `PROTOCOLS`.
        join_configs, beside: as in `build_table`.
        figure: as in `build_table`; by default the protocol's in `DEFAULT_FIGURES`, else the accuracy.
        part: of an open set near (default) or far.
        filters: datasets, trainers, configs, shots, seeds and source, as in `tools.results.find_runs`.

    Raises:
        FileNotFoundError: there is no run of this kind.
        ValueError: as `find_runs` and `build_table`.
    """
    figure = figure or DEFAULT_FIGURES.get(protocol, "accuracy")
    runs = find_runs(output, protocol, **filters)
    given = {name: list(values) for name, values in filters.items() if values and name != "source"}
    if all(run.part == "source" for run in runs):
        outputs = [output] if isinstance(output, (str, Path)) else output
        chosen = "".join(f", {name} {', '.join(map(str, values))}" for name, values in given.items())
        raise FileNotFoundError(
            f"no run of {protocol} below {' '.join(map(str, outputs))}{chosen}; such runs lie in {PROTOCOLS[protocol]}"
        )
    shown = runs
    if protocol == "open_set":
        part = part or NEAR
        shown = open_set_part(runs, part, figure)
    seeds = given.get("seeds", ())
    table = build_table(shown, join_configs=join_configs, seeds=seeds, figure=figure, part=part, beside=beside)
    there: dict[str, set[Any]] = {
        "datasets": {run.dataset for run in runs},
        "trainers": {run.trainer for run in runs},
        "configs": {run.config for run in runs},
        "shots": {run.shots for run in runs},
    }
    for name, found in there.items():
        absent = [str(value) for value in given.get(name, ()) if value not in found]
        if absent:
            table.missing.append(f"no run at all of {name} {', '.join(absent)}")
    return table


def tables_of(output: str | Path | Iterable[str | Path], protocol: str = "base2new", **options) -> list[Table]:
    """As `table_of`, of an open set both tables: near, and far where a run has seen images of other data sets."""
    tables = [table_of(output, protocol, **options)]
    if protocol == "open_set":
        filters = {name: value for name, value in options.items() if name not in ("figure", "join_configs", "beside")}
        if any(run.part != NEAR for run in find_runs(output, protocol, **filters)):
            tables.append(table_of(output, protocol, part="far", **options))
    return tables


def text_table(
    output: str | Path | Iterable[str | Path],
    protocol: str = "base2new",
    output_format: str = "text",
    paper: bool = False,
    width: int | None = None,
    **options,
) -> str:
    """The table of the runs below one or several output folders as text, its notes below it.

    Args:
        output, protocol, options: as in `table_of`.
        output_format, paper, width: as in `render`; of CSV, which has no place for notes, the numbers alone.
    """
    text, notes = render(table_of(output, protocol, **options), output_format, paper, width=width)
    return with_notes(text, notes, output_format)


def with_notes(text: str, notes: list[str], output_format: str) -> str:
    """A table with its notes below it; CSV has no place for notes."""
    marks = {"text": "", "markdown": "- ", "latex": "% "}
    if output_format not in marks:
        return text
    return "\n".join([text, "", *(f"{marks[output_format]}{note}" for note in notes)])
