"""The page docs/compatibility.md, from the rows that the tests on the public repositories have written.

    COMPATIBILITY_ROWS=rows.jsonl COOP_CHECKOUT=... MAPLE_CHECKOUT=... DASSL_CHECKOUT=... \\
        python -m pytest -m upstream tests/test_published.py          once in each environment
    python -m tools.compatibility rows.jsonl > docs/compatibility.md

Only what passed writes a row.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate

COLUMNS = ("torch", "python", "device", "checkout", "clip", "dassl", "what", "result")
HEADINGS = ("PyTorch", "Python", "device", "checkout", "clip", "Dassl", "what", "result")

PREFACE = """# What runs with what

Made by `python -m tools.compatibility` of the rows that `tests/test_published.py` wrote: each is a test that passed, on
the public repositories CoOp, MaPLe and Dassl at the commits named, with a CLIP of random weights and 32-pixel images of
four classes. The rows show that the code runs and agrees; they say nothing about accuracy. How to run them again is in
`tools/compatibility.py`.
"""


def read_rows(paths: list[Path]) -> list[dict[str, str]]:
    """The rows of several files, each once, the newest PyTorch first.

    Raises:
        ValueError: a line is no row.
    """
    rows = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                rows[tuple(row[name] for name in COLUMNS[:-1])] = row  # a test that ran again has the later result
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}, is no row of tests/test_published.py: {error!r}") from error
    return sorted(
        rows.values(),
        key=lambda row: ([-int(part) for part in row["torch"].split("+")[0].split(".")], row["checkout"], row["what"]),
    )


def render(rows: list[dict[str, str]]) -> str:
    """The page."""
    table = tabulate([[row[name] for name in COLUMNS] for row in rows], HEADINGS, "github", disable_numparse=True)
    return f"{PREFACE}\n{table}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", type=Path, help="files that COMPATIBILITY_ROWS named")
    try:
        print(render(read_rows(parser.parse_args().rows)), end="")
    except (OSError, ValueError) as error:
        print(f"compatibility: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
