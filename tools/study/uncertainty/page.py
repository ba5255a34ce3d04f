"""The tables of docs/uncertainty_study.md, from the file of figures alone; the text around them is written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from tabulate import tabulate

from tools.common.blocks import fill, skeleton
from tools.common.paths import ROOT
from tools.results.published import display_name
from tools.results.tables import best_of, direction
from tools.study import methods
from tools.study.uncertainty.figures import Row, read_figures
from tools.study.uncertainty.ways import WAYS

PAGE = ROOT / "docs" / "uncertainty_study.md"
_OURS = (methods.CDC.title, methods.TEXT_ONLY.title)
# What the first table shows, by the end of a row's title
_RESULT = {way: f": {WAYS[way].title}" for way in ("paper", "kept", "fitted", "kept_fitted")}
_PEER = {"paper": "", "fitted": ", temperature fitted"}
_FITTED_TOO = {methods.ZERO_SHOT.title, methods.COOP.title, "MaPLe"}
_USUAL = {method.title for method in methods.METHODS}
# Column by column of a half of the classes: heading and figure
COLUMNS = (
    ("accuracy", "accuracy"),
    ("ECE", "ece"),
    ("NLL", "nll"),
    ("error AUROC: confidence", "auroc_error_confidence"),
    ("entropy", "auroc_error_entropy"),
    ("`U`", "auroc_error_uncertainty"),
    ("doubt", "auroc_error_doubt"),
    ("AURC: confidence", "aurc_confidence"),
    ("doubt", "aurc_doubt"),
    ("E-AURC: confidence", "eaurc_confidence"),
    ("doubt", "eaurc_doubt"),
)
SCORES = {"confidence": "confidence", "entropy": "entropy", "uncertainty": "`U`", "doubt": "doubt"}
UNKNOWN = {"open": "new classes", "far": "other data sets"}
OPEN_U = "auroc_open_uncertainty"
# In what other trainings are compared with the config's own
COMPARED = (
    ("base accuracy", "base_accuracy"),
    ("new accuracy", "new_accuracy"),
    ("new ECE", "new_ece"),
    ("new NLL", "new_nll"),
    ("new error AUROC: confidence", "new_auroc_error_confidence"),
    ("doubt", "new_auroc_error_doubt"),
    ("new AURC: doubt", "new_aurc_doubt"),
    ("unknown classes: AUROC by `U`", OPEN_U),
)


class Question(NamedTuple):
    """A row of the page's first table.

    Attributes:
        title: of the row.
        printed, mended: score and figure of CDC as it is printed and as it is kept.
        others: scores and figures of the other methods, of which the best stands there.
    """

    title: str
    printed: tuple[str, str]
    mended: tuple[str, str]
    others: tuple[tuple[str, str], ...]


def _same(title: str, figure: str) -> Question:
    return Question(title, ("", figure), ("", figure), (("", figure),))


def _errors(title: str, kind: str) -> Question:
    own = [(SCORES[score], f"new_{kind}_{score}") for score in ("uncertainty", "doubt", "confidence")]
    return Question(title, own[0], own[1], (own[2],))


def _unknown(title: str, kind: str) -> Question:
    own = [(SCORES[score], f"auroc_{kind}_{score}") for score in ("uncertainty", "confidence", "entropy")]
    return Question(title, own[0], own[0], (own[1], own[2]))


QUESTIONS = (
    _same("ECE", "new_ece"),
    _same("NLL", "new_nll"),
    _errors("error AUROC by CDC's own uncertainty", "auroc_error"),
    _same("error AUROC by the confidence", "new_auroc_error_confidence"),
    _errors("AURC", "aurc"),
    _errors("E-AURC", "eaurc"),
    _unknown("AUROC for unknown classes", "open"),
    _unknown("AUROC for images of other data sets", "far"),
)


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
        "summary": _summary(tested),
        "runs": _runs(rows),
        "result": _result(tested),
        "each set": _each_set(tested),
        "everyone": _everyone(tested),
        "calibration": _calibration(tested),
        "choice": _ways(chosen, methods.CDC.title),
        "test": _ways(tested, methods.CDC.title),
        "losses": _losses(chosen),
    }
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(fill(text, contents, page), encoding="utf-8")


def by_seed(rows: Iterable[Row], name: str) -> dict[int, float]:
    """A figure's mean over data sets by seed, of the seeds that have all of the rows' sets.

    A mean over other sets than those of the rows would not be one to compare, so a figure that a set lacks has none.
    """
    rows = list(rows)
    sets = {row.dataset for row in rows}
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        if name in row.figures:
            found.setdefault(row.seed, {})[row.dataset] = row.figures[name]
    return {seed: mean(own.values()) for seed, own in found.items() if own.keys() == sets}


def average(rows: Iterable[Row], name: str) -> str:
    """Mean and standard deviation of `by_seed` over the seeds."""
    return _text(list(by_seed(rows, name).values()), name)


def _text(values: Sequence[float], name: str, sign: str = "") -> str:
    if not values:
        return "-"
    digits = 2 if name.endswith("nll") or "aurc" in name else 1
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{deviation}"


def _summary(rows: list[Row]) -> str:
    """CDC as it is printed and as it is kept beside the best other method, nothing fitted, and the difference."""
    rows = _complete(rows)[0]
    titles = [title for title in dict.fromkeys(row.method for row in rows) if title not in _OURS]
    cells = []
    for question in QUESTIONS:
        better = _better(question)
        of = {
            way: [row for row in rows if (row.method, row.way) == (methods.CDC.title, way)] for way in ("paper", "kept")
        }
        own = by_seed(of["kept"], question.mended[1])
        found = []
        for title in titles:
            for score, figure in question.others:
                values = by_seed([row for row in rows if (row.method, row.way) == (title, "paper")], figure)
                if values:
                    found.append((mean(values.values()), title, score, figure, values))
        if not own or not found:
            continue
        best = (max if better == "higher" else min)(found, key=lambda each: each[0])
        _, title, score, figure, values = best
        # What trains nothing has one seed, which stands beside each of the others
        pairs = [
            own[seed] - values.get(seed, min(values.values())) for seed in own if seed in values or len(values) == 1
        ]
        cells.append(
            [
                question.title,
                f"{question.printed[0]} {average(of['paper'], question.printed[1])}".strip(),
                f"{question.mended[0]} {average(of['kept'], question.mended[1])}".strip(),
                f"{score} {_text(list(values.values()), figure)}, {title}".strip(),
                _text(pairs, figure, "+"),
                better,
            ]
        )
    return _table(cells, ["new classes", "CDC as printed", "CDC mended", "best other", "mended - other", "better"])


def _complete(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """The rows of the methods that have all data sets with some seed, and the titles of the others."""
    sets = {row.dataset for row in rows}
    seeds: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        seeds.setdefault((row.method, row.seed), set()).add(row.dataset)
    whole = {title for (title, _), own in seeds.items() if own == sets}
    titles = dict.fromkeys(row.method for row in rows)
    return [row for row in rows if row.method in whole], [title for title in titles if title not in whole]


def _common(rows: list[Row]) -> tuple[list[Row], str]:
    """The rows on the sets that all methods have, and a sentence that names these.

    A method that has less than a third of the sets is left out.
    """
    sets: dict[str, set[str]] = {}
    for row in rows:
        sets.setdefault(row.method, set()).add(row.dataset)
    common = set.intersection(*(own for own in sets.values() if 3 * len(own) >= max(map(len, sets.values()))))
    rows = [row for row in rows if row.dataset in common and common <= sets[row.method]]
    return rows, f"On {', '.join(map(display_name, dict.fromkeys(row.dataset for row in rows)))}."


def _everyone(rows: list[Row]) -> str:
    """Every method by the questions of the first table, nothing fitted, each by the best of the scores that it has."""
    rows, sets = _common(rows)
    lines: list[tuple[str, str, str, list[tuple[tuple[str, str], ...]]]] = []
    for title in dict.fromkeys(row.method for row in rows):
        if title in _OURS:
            lines.append((title, title, "paper", [(question.printed,) for question in QUESTIONS]))
            lines.append((f"{title}, mended", title, "kept", [(question.mended,) for question in QUESTIONS]))
        else:
            lines.append((title, title, "paper", [question.others for question in QUESTIONS]))
    columns = []
    for number, question in enumerate(QUESTIONS):
        better = _better(question)
        values = []
        for _, title, way, scores in lines:
            own = [row for row in rows if (row.method, row.way) == (title, way)]
            found = [list(by_seed(own, figure).values()) for _, figure in scores[number]]
            values.append((max if better == "higher" else min)(filter(None, found), key=mean, default=[]))
        columns.append(_best_marked(values, question.mended[1]))
    header = ["new classes", *(f"{question.title} ({_better(question)})" for question in QUESTIONS)]
    return f"{sets}\n\n{_table([[line[0], *cells] for line, cells in zip(lines, zip(*columns))], header)}"


def _best_marked(values: Sequence[Sequence[float]], figure: str) -> list[str]:
    """Cells of a column, the best mean in bold type."""
    best = best_of([mean(own) if own else None for own in values], figure.replace("new_", "").replace("base_", ""))
    return [f"**{_text(own, figure)}**" if flag else _text(own, figure) for own, flag in zip(values, best)]


def _better(question: Question) -> str:
    return direction(question.mended[1].replace("new_", ""))


def _calibration(rows: list[Row]) -> str:
    """Methods before and after what is fitted on validation images, ECE and NLL, on the sets that all of them have."""
    rows, sets = _common(rows)
    lines: list[tuple[str, list[Row], list[Row]]] = []
    for title in dict.fromkeys(row.method for row in rows):
        ways = {way: [row for row in rows if (row.method, row.way) == (title, way)] for way in WAYS}
        lines.append((title, ways["paper"], ways["fitted"]))
        if title in _OURS:
            lines.append((f"{title}, mended", ways["kept"], ways["kept_fitted"]))
    figures = [(f"{part} {name.upper()}", f"{part}_{name}") for name in ("ece", "nll") for part in ("base", "new")]
    columns, header = [], ["method"]
    for heading, figure in figures:
        for when in ("before", "after"):
            sides = [before if when == "before" else after for _, before, after in lines]
            columns.append(_best_marked([list(by_seed(side, figure).values()) for side in sides], figure))
            header.append(f"{heading} {when}")
    return f"{sets}\n\n{_table([[line[0], *cells] for line, cells in zip(lines, zip(*columns))], header)}"


def _table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _half(rows: Sequence[Row], part: str) -> list[str]:
    return [average(rows, f"{part}_{name}") for _, name in COLUMNS]


def _both(lines: Sequence[tuple[str, list[Row]]]) -> str:
    """Tables of base classes, new classes, unknown classes and, where they were seen, other data sets."""
    parts = []
    for part in ("base", "new"):
        cells = [[title, *_half(rows, part)] for title, rows in lines]
        parts.append(_table(cells, [f"{part} classes", *(heading for heading, _ in COLUMNS)]))
    for kind, what in UNKNOWN.items():
        names = [f"auroc_{kind}_{score}" for score in SCORES]
        if any(name in row.figures for _, rows in lines for row in rows for name in names):
            cells = [[title, *(average(rows, name) for name in names)] for title, rows in lines]
            parts.append(_table(cells, [f"unknown, {what}: AUROC by", *SCORES.values()]))
    return "\n\n".join(parts)


def _result(rows: list[Row]) -> str:
    """All methods that have all sets; CDC as the paper has it, and as it is kept. The others are named."""
    rows, left_out = _complete(rows)
    lines = []
    for title in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == title]
        for way, name in (_RESULT if title in _OURS else _PEER).items():
            if title in _OURS or way == "paper" or title in _FITTED_TOO:
                lines.append((f"{title}{name}", [row for row in own if row.way == way]))
    text = f"On {', '.join(map(display_name, dict.fromkeys(row.dataset for row in rows)))}"
    text += f"; left out, as they have too few of these: {'; '.join(left_out)}" if left_out else ""
    return f"{text}.\n\n{_both(lines)}"


def _ways(rows: list[Row], method: str) -> str:
    own = [row for row in rows if row.method == method]
    return _both([(way.title, [row for row in own if row.way == name]) for name, way in WAYS.items()])


def _losses(rows: list[Row]) -> str:
    """Other trainings of CDC: their differences to the config's own seed by seed, then the figures of both.

    The config's own runs are those on the sets and with the seeds that the other training has.
    """
    others: dict[str, list[Row]] = {}
    for row in rows:
        if row.method not in _USUAL:
            others.setdefault(row.method, []).append(row)
    if not others:
        return "None was measured."
    where = {title: _where(own) for title, own in others.items()}
    together = len({*where.values()}) == 1  # then it is said once, and else by each row
    lines: dict[str, list[Row]] = {}
    cells = []
    for way in ("paper", "kept"):
        for title, all_ways in others.items():
            runs = {(row.dataset, row.seed) for row in all_ways}
            own, plain = (
                [row for row in rows if (row.method, row.way) == (method, way) and (row.dataset, row.seed) in runs]
                for method in (title, methods.CDC.title)
            )
            end = f": {WAYS[way].title}{'' if together else f' ({where[title]})'}"
            lines[f"(7) alone{end}"] = plain
            lines[f"{title}{end}"] = own
            cells.append([f"{title}{end}", *(_text(_differences(own, plain, name), name, "+") for _, name in COMPARED)])
    tables = [_table(cells, ["minus (7) alone", *(heading for heading, _ in COMPARED)]), _both(list(lines.items()))]
    return "\n\n".join([f"On {where[title]}."] * together + tables)


def _where(rows: list[Row]) -> str:
    """The data sets of rows, and the seeds that have all of them."""
    sets = ", ".join(map(display_name, dict.fromkeys(row.dataset for row in rows)))
    seeds = sorted(by_seed(rows, "new_accuracy"))
    return f"{sets}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds)) or 'none'}"


def _differences(own: list[Row], others: list[Row], name: str) -> list[float]:
    """Of a figure, for each seed that both have."""
    values, base = by_seed(own, name), by_seed(others, name)
    return [values[seed] - base[seed] for seed in values if seed in base]


def _each_set(rows: list[Row]) -> str:
    """New classes of each set: the paper's way and the kept one."""
    cells = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        for way in ("paper", "kept"):
            own = [r for r in rows if (r.method, r.dataset, r.way) == (methods.CDC.title, dataset, way)]
            if own:
                cells.append([display_name(dataset), WAYS[way].title, *_half(own, "new"), average(own, OPEN_U)])
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
