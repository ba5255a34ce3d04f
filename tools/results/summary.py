"""One table for several metrics: a row for each method, with its averages over the data sets."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from storage.safe_text import escaped
from tools.results import published
from tools.results.render import MARK_NAMES, NOTHING, cell_text, heading, latex, legend, marked, with_notes
from tools.results.tables import Column, SeedMean, Table, best_of, direction, some_lack_averages, who_has_averages


def summary(tables: Sequence[Table], output_format: str = "text", mark: bool = True) -> str:
    """The averages of several tables of the same protocol, or the results on their one data set, as one table.

    Args:
        tables: from `tables_of`, one or two of each metric.
        output_format: text, markdown or latex.
        mark: whether the best of each column is marked.

    Raises:
        ValueError: no such format.
    """
    if output_format not in MARK_NAMES:
        raise ValueError(f"the format must be one of {', '.join(MARK_NAMES)}, got {output_format!r}")
    methods = {_key(column): column.title for table in tables for column in table.columns}
    lines = {key: [escaped(title)] for key, title in methods.items()}
    headers, any_best = ["method"], False
    for table in tables:
        columns = {_key(column): column for column in table.columns}
        for metric in dict.fromkeys(metric for column in table.columns for metric in column.metrics):
            cells = {key: _cell(table, columns[key], metric) if key in columns else None for key in methods}
            best = best_of([cell and cell.mean for cell in cells.values()], table.figure if mark else "")
            any_best |= any(best)
            for (key, cell), is_best in zip(cells.items(), best):
                text = NOTHING if cell is None else cell_text(cell, columns[key], "average")
                lines[key].append(marked(text, output_format) if is_best else text)
            headers.append(_header(table, metric))
    if output_format == "latex":
        text = latex(list(lines.values()), headers)
    else:
        style = {"text": "simple", "markdown": "github"}[output_format]
        text = tabulate(list(lines.values()), headers, tablefmt=style, disable_numparse=True)
    notes = [f"{MARK_NAMES[output_format]}: the best of its column"] if any_best else []
    notes += [legend(column) for table in tables for column in table.columns]
    for table in tables:
        notes += [note for note in (_direction(table), _over(table)) if note]
        notes += [f"missing: {heading(table)}: {sentence}" for sentence in table.missing]
    return with_notes(text, list(dict.fromkeys(map(escaped, notes))), output_format)


def _key(column: Column) -> tuple[str, str, int | None]:
    return column.trainer, column.config, column.shots


def _cell(table: Table, column: Column, metric: str) -> SeedMean | None:
    """A method's average, or its result where there is one data set."""
    rows = [dataset for dataset in table.datasets if dataset != table.source]
    return column.cells.get((rows[0], metric)) if len(rows) == 1 else column.averages.get(metric)


def _header(table: Table, metric: str) -> str:
    part = f" {table.part}" if table.part else ""
    return f"{table.figure}{part}" + ("" if metric == "Accuracy" else f" {metric}")


def _direction(table: Table) -> str:
    better = direction(table.figure)
    return f"{table.figure}: {better} is better" if better else ""


def _over(table: Table) -> str:
    """What the numbers of a table are an average of."""
    rows = [dataset for dataset in table.datasets if dataset != table.source]
    over = rows if len(rows) == 1 else table.averaged
    names = ", ".join(map(published.display_name, over))
    if len(over) < 2:
        return (
            f"{heading(table)}: on {names}"
            if over
            else f"{heading(table)}: the trainers have no two data sets in common"
        )
    text = f"{heading(table)}: average of {len(over)} data sets, {names}"
    return text + f", which {who_has_averages(table, 'method')}" * some_lack_averages(table)
