"""The tables of docs/uncertainty_study.md, from the file of figures alone; the text around them is written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev

from tabulate import tabulate

from tools.common.blocks import fill, skeleton
from tools.common.paths import ROOT
from tools.results.published import display_name
from tools.study import methods
from tools.study.uncertainty.figures import Row, read_figures
from tools.study.uncertainty.ways import WAYS

PAGE = ROOT / "docs" / "uncertainty_study.md"
_OURS = (methods.CDC.title, methods.TEXT_ONLY.title)
# What the first table shows, by the end of a row's title
_RESULT = {way: f": {WAYS[way].title}" for way in ("paper", "kept", "fitted", "kept_fitted")}
_PEER = {"paper": "", "fitted": ", temperature fitted"}
_USUAL = {method.title for method in methods.METHODS}
# Column by column of a half of the classes: heading and figure
COLUMNS = (
    ("accuracy", "accuracy"),
    ("ECE", "ece"),
    ("NLL", "nll"),
    ("error AUROC: confidence", "auroc_error_confidence"),
    ("`U`", "auroc_error_uncertainty"),
    ("doubt", "auroc_error_doubt"),
    ("AURC: confidence", "aurc_confidence"),
    ("doubt", "aurc_doubt"),
)
OPEN = tuple((score, f"auroc_open_{score}") for score in ("confidence", "entropy", "uncertainty", "doubt"))


def write_page(figures: Path, page: Path) -> None:
    """Write the page's blocks. A page that is not there yet gets headings and blocks alone.

    Raises:
        FileNotFoundError: there is no file of figures.
        ValueError: it is broken, or the page that is there lacks a block.
    """
    rows = read_figures(figures)
    text = page.read_text(encoding="utf-8") if page.is_file() else skeleton(PAGE.read_text(encoding="utf-8"))
    tested = [row for row in rows if not row.choice]
    chosen = [row for row in rows if row.choice]
    contents = {
        "runs": _runs(rows),
        "result": _result(tested),
        "each set": _each_set(tested),
        "choice": _ways(chosen, methods.CDC.title),
        "test": _ways(tested, methods.CDC.title),
        "losses": _losses(chosen),
    }
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(fill(text, contents, page), encoding="utf-8")


def average(rows: Iterable[Row], name: str) -> str:
    """A figure's mean over data sets, then mean and standard deviation over the seeds that have all of these sets.

    A mean over other sets than those of the rows would not be one to compare, so a figure that a set lacks has none.
    """
    rows = list(rows)
    sets = {row.dataset for row in rows}
    by_seed: dict[int, dict[str, float]] = {}
    for row in rows:
        if name in row.figures:
            by_seed.setdefault(row.seed, {})[row.dataset] = row.figures[name]
    values = [mean(found.values()) for found in by_seed.values() if found.keys() == sets]
    if not values:
        return "-"
    digits = 2 if name.endswith("nll") or "aurc" in name else 1
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def _table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _half(rows: Sequence[Row], part: str) -> list[str]:
    return [average(rows, f"{part}_{name}") for _, name in COLUMNS]


def _both(lines: Sequence[tuple[str, list[Row]]]) -> str:
    """Three tables: base classes, new classes, unknown classes."""
    parts = []
    for part in ("base", "new"):
        cells = [[title, *_half(rows, part)] for title, rows in lines]
        parts.append(_table(cells, [f"{part} classes", *(heading for heading, _ in COLUMNS)]))
    cells = [[title, *(average(rows, name) for _, name in OPEN)] for title, rows in lines]
    scores = [heading.replace("uncertainty", "`U`") for heading, _ in OPEN]
    parts.append(_table(cells, ["unknown classes: AUROC by", *scores]))
    return "\n\n".join(parts)


def _result(rows: list[Row]) -> str:
    """All methods on the sets that all of them have; CDC as the paper has it, and as it is kept.

    A method that has too few sets is named and left out.
    """
    sets = {
        title: {row.dataset for row in rows if row.method == title} for title in dict.fromkeys(r.method for r in rows)
    }
    titles = [title for title, own in sets.items() if 2 * len(own) > max(map(len, sets.values()))]
    common = set.intersection(*(sets[title] for title in titles))
    left_out = [title for title in sets if title not in titles]
    lines = []
    for title in titles:
        own = [row for row in rows if row.method == title and row.dataset in common]
        for way, name in (_RESULT if title in _OURS else _PEER).items():
            lines.append((f"{title}{name}", [row for row in own if row.way == way]))
    text = f"On {', '.join(map(display_name, sorted(common)))}"
    text += f"; left out, as they have too few of these: {', '.join(left_out)}" if left_out else ""
    return f"{text}.\n\n{_both(lines)}"


def _ways(rows: list[Row], method: str) -> str:
    own = [row for row in rows if row.method == method]
    return _both([(way.title, [row for row in own if row.way == name]) for name, way in WAYS.items()])


def _losses(rows: list[Row]) -> str:
    """Other trainings of CDC beside the config's own, on the sets that all of them have."""
    others = [row for row in rows if row.method not in _USUAL]
    titles = list(dict.fromkeys(row.method for row in others))
    lines = []
    for title in titles:
        own = [row for row in others if row.method == title]
        sets = {(row.dataset, row.seed) for row in own}
        plain = [row for row in rows if row.method == methods.CDC.title and (row.dataset, row.seed) in sets]
        names = ", ".join(display_name(dataset) for dataset in dict.fromkeys(row.dataset for row in own))
        for way in ("paper", "kept"):
            end = f": {WAYS[way].title} ({names})"
            lines.append((f"(7) alone{end}", [row for row in plain if row.way == way]))
            lines.append((f"{title}{end}", [row for row in own if row.way == way]))
    return _both(list(dict(lines).items())) if lines else "None was measured."


def _each_set(rows: list[Row]) -> str:
    """New classes of each set: the paper's way and the kept one."""
    cells = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        for way in ("paper", "kept"):
            own = [r for r in rows if (r.method, r.dataset, r.way) == (methods.CDC.title, dataset, way)]
            if own:
                cells.append([display_name(dataset), WAYS[way].title, *_half(own, "new"), average(own, OPEN[2][1])])
    header = ["new classes", "", *(heading for heading, _ in COLUMNS), "unknown classes: AUROC by `U`"]
    return _table(cells, header)


def _runs(rows: list[Row]) -> str:
    """What was measured."""
    lines = []
    for choice, where in ((False, "data sets"), (True, "smaller sets, to choose by")):
        lines.append(f"- {where}:")
        for title in dict.fromkeys(row.method for row in rows if row.choice == choice):
            own = [row for row in rows if row.choice == choice and row.method == title]
            for seed in sorted({row.seed for row in own}):
                sets = dict.fromkeys(display_name(row.dataset) for row in own if row.seed == seed)
                lines.append(f"  - {title}, seed {seed}: {', '.join(sets)}")
    return "\n".join(lines)
