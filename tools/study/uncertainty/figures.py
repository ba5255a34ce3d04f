"""The figures of the study as rows, one for each run and way to fuse, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from storage.files import atomic_write


class Row(NamedTuple):
    """What was measured of one run in one way.

    Attributes:
        choice: whether the run is on a smaller set, to choose by.
        method: its title.
        dataset, seed: of the run.
        way: a key of `ways.WAYS`.
        figures: by name, as `measure.measure` gives them.
    """

    choice: bool
    method: str
    dataset: str
    seed: int
    way: str
    figures: dict[str, float]


def write_figures(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSON: the names of the figures, then one row per line, with what a run lacks as null."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [json.dumps([*row[:-1], *(_rounded(row.figures.get(name)) for name in names)]) for row in rows]
    with atomic_write(path) as part:
        part.write_text(
            f'{{"names": {json.dumps(names)},\n"rows": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8"
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def read_figures(path: Path) -> list[Row]:
    """Rows from a file of `write_figures`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = []
        for choice, method, dataset, seed, way, *values in found["rows"]:
            figures = {name: value for name, value in zip(found["names"], values) if value is not None}
            rows.append(Row(choice, method, dataset, seed, way, figures))
        return rows
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a file of figures: {type(error).__name__}: {error}") from error
