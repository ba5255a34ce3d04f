"""The page docs/compatibility.md, from the rows that tests have written to docs/compatibility.jsonl.

    export COMPATIBILITY_ROWS=$PWD/docs/compatibility.jsonl
    make test; make test-lowest; make test-newest             the whole suite, a row for each environment
    COOP_CHECKOUT=... MAPLE_CHECKOUT=... DASSL_CHECKOUT=... \\
        python -m pytest -m upstream                      the public repositories, once in each environment
    python -m tools.compatibility > docs/compatibility.md

Only what passed writes a row, and a later row takes the place of an earlier one of the same kind.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROWS = Path(__file__).resolve().parent.parent / "docs" / "compatibility.jsonl"

# Keys of a row -> headings of its table. A suite's row is told from the others by its first key.
SUITE = {
    "versions": "versions",
    "python": "Python",
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "numpy": "NumPy",
    "pillow": "Pillow",
    "date": "date",
    "device": "device",
    "passed": "passed",
    "skipped": "skipped",
}
PUBLISHED = {
    "torch": "PyTorch",
    "python": "Python",
    "device": "device",
    "checkout": "checkout",
    "clip": "clip",
    "dassl": "Dassl",
    "what": "what",
    "result": "result",
}
VERSIONS = ("lock", "newest", "lowest")

PAGE = """# What runs with what

`python -m tools.compatibility` makes this page from the rows in `compatibility.jsonl`. Tests wrote these rows when they
passed; `tools/compatibility.py` says how to run them again.

## The tests

In these environments the whole suite of that day ran and no test failed; later suites have more tests. `lock`: the
versions of `requirements.lock` (`make test`). `newest`: those that pip took without it (`make test-newest`). `lowest`:
the lower bounds of `setup.py` (`make test-lowest`). Tests are skipped where the versions or the machine lack something;
`-rs` prints the reasons. PyTorch before 2.3 needs NumPy 1, which pip does not know.

{suite}

## The public repositories

Each row is a test that passed on a repository at the named commit, with a CLIP of random weights and 32-pixel images.
The tests are in `tests/test_published.py` or, if the row names this project's trainer, in `tests/trainers/`. The latter
compare the start, logits, losses, gradients and the parameters after some steps. The rows show that the code runs and
agrees; they say nothing about accuracy.

The first loss of CDC depends on the version of Pillow: 3.1445 with 13.0.0, 3.1447 with 9.4.0, 11.3.0 and 12.0.0.
If a crop is narrower and higher than the input, Pillow 13 scales its height before its width, and some pixels of the
result differ by a few grey levels. With the same Pillow, PyTorch 2.0.1 and 2.14.1 have the same parameters at the start
and the same pixels in the first batch, to the last bit; their losses differ by less than 1e-6, which is rounding.

{published}
"""


def _release(version: str) -> list[int]:
    return [int(part) for part in version.split("+")[0].split(".")]


def read_rows(paths: list[Path]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The rows of several files, each once.

    Returns:
        The suite's rows, one for each kind of versions and Python; and those of the public repositories, the newest
        PyTorch first.

    Raises:
        ValueError: a line is no row.
    """
    suite: dict[object, tuple[Any, dict[str, str]]] = {}
    published: dict[object, tuple[Any, dict[str, str]]] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                if "versions" in row:
                    row = {key: row[key] for key in SUITE}
                    rank = (VERSIONS.index(row["versions"]), [-part for part in _release(row["python"])[:2]])
                    suite[str(rank)] = (rank, row)
                else:
                    order = ([-part for part in _release(row["torch"])], row["checkout"], row["what"])
                    published[tuple(row[key] for key in PUBLISHED if key != "result")] = (order, row)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}, is no row that a test wrote: {error!r}") from error
    by_order = [sorted(rows.values(), key=lambda pair: pair[0]) for rows in (suite, published)]
    return [row for _, row in by_order[0]], [row for _, row in by_order[1]]


def render(suite: list[dict[str, str]], published: list[dict[str, str]]) -> str:
    """The page."""
    tables = {
        name: tabulate(
            [[row[key] for key in headings] for row in rows], list(headings.values()), "github", disable_numparse=True
        )
        for name, headings, rows in (("suite", SUITE, suite), ("published", PUBLISHED, published))
    }
    if not suite:
        tables["suite"] = "None is recorded for this state of the code."
    return PAGE.format(**tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "rows", nargs="*", type=Path, default=[ROWS], help="files of rows; default: docs/compatibility.jsonl"
    )
    try:
        print(render(*read_rows(parser.parse_args().rows)), end="")
    except (OSError, ValueError) as error:
        print(f"compatibility: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
