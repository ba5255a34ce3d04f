"""From runs below output folders to what the page shows: systems, tables, details of tests, what was run.

A system is a column group of a table: all runs of a trainer under a config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.common.layout import ALL_CLASSES, BASE_TO_NEW, EVALUATION, OPEN_SET, PROTOCOLS
from tools.report.details import add_epochs, add_tests
from tools.report.facts import add_costs, add_facts
from tools.report.pictures import Gallery
from tools.report.report import TITLES, Report, Tested
from tools.results.render import tables_of
from tools.results.runs import NEAR, Run, find_runs, reading_once
from tools.results.tables import Column, build_table, paper_numbers

OPEN_SET_FIGURE = "auroc_open"


def gather(
    outputs: Iterable[str | Path],
    protocols: Iterable[str] = (),
    *,
    pictures: int = 6,
    data: str | Path | None = None,
    compare: Sequence[str] = (),
    join_configs: bool = False,
    **filters: Any,
) -> Report:
    """All that the page shows of the runs below output folders.

    Args:
        outputs: the folders.
        protocols: some of `PROTOCOLS`; if empty, all that have runs.
        pictures: how many images are in a row of the gallery; 0 for none.
        data: folder of the data sets' images; by default the one that each run had.
        compare: titles of two systems; images that they judge differently are shown. By default the last column and the
            best of the others.
        join_configs, filters: as for `tools.results.table_of`.

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
    **filters: Any,
) -> Report:
    """As `gather`; `contents` are those of all `results.json` that were read."""
    report = Report([str(output) for output in outputs])
    runs = _runs(report, outputs, protocols, filters)
    systems = {(run.trainer, run.config) for found in runs.values() for run in found}
    every: list[Tested] = []
    for protocol, found in runs.items():
        if protocol == "open_set":
            options = {"figure": OPEN_SET_FIGURE, "join_configs": join_configs, "beside": systems}
            tables = tables_of(outputs, protocol, **options, **filters)
            report.tables.update({protocol + "_far" * (own.part == "far"): own for own in tables})
            table, found = tables[0], [run for run in found if run.part == NEAR]
        else:
            seeds = filters.get("seeds", ())
            table = build_table(found, join_configs=join_configs, seeds=seeds, beside=systems)
            report.tables[protocol] = table
        for column in table.columns:
            members = [run for run in found if run.accuracy is not None and _is_of(run, column, join_configs)]
            every += [Tested(protocol, column, run) for run in members]
    if not report.tables:
        folders, places = ", ".join(map(str, outputs)), " or ".join((BASE_TO_NEW, EVALUATION, ALL_CLASSES, OPEN_SET))
        raise FileNotFoundError(f"there is no run below {folders}; runs lie in {places}")

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
    add_tests(report, every, contents, Gallery(data, pictures), compare)
    add_epochs(report, every)
    add_costs(report, every, contents)
    add_facts(report, every, contents)
    return report


def _runs(
    report: Report, outputs: Sequence[Path], protocols: Iterable[str], filters: Mapping[str, Any]
) -> dict[str, list[Run]]:
    """The runs of each protocol that the page shows; the report's notes say which protocols it does not show."""
    shown: dict[str, list[Run]] = {}
    for protocol in protocols or PROTOCOLS:
        runs = find_runs(outputs, protocol, **filters)
        if protocol == "fewshot" and len({run.shots for run in runs if run.shots > 0}) < 2:
            # There are no curves. Trainings with tests on other data sets are left out here; they are shown with those.
            elsewhere = {run.path for found in shown.values() for run in found}
            here = {run.dataset for run in runs if run.shots != 0 and run.path not in elsewhere}
            runs = [run for run in runs if run.dataset in here and (run.shots == 0 or run.path not in elsewhere)]
        if not runs or all(run.part == "source" for run in runs):
            if protocols:
                report.notes.append(f"{TITLES.get(protocol, protocol)}: there is no run of this protocol")
        elif protocol == "open_set" and all(run.accuracy is None for run in runs):
            report.notes.append(f"{TITLES[protocol]}: no run has a result ({runs[0].problem})")
        else:
            shown[protocol] = runs
    return shown


def _is_of(run: Run, column: Column, join_configs: bool) -> bool:
    config = run.config in column.config.split(", ") if join_configs else run.config == column.config
    return run.trainer == column.trainer and config and column.shots in (None, run.shots)
