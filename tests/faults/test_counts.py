"""The page of the campaign has the counts of all that it tries."""

from __future__ import annotations

import re
from collections import Counter

from faults.conftest import PAGE
from faults.counts import BLOCK, KINDS, table
from faults.test_broken_files import READERS
from faults.test_killed_runs import PLACES, RUNS

from tools.common.blocks import contents


def test_page_has_all_that_is_tried():
    made = contents(PAGE.read_text("utf-8"))[BLOCK]
    for tried, _ in KINDS.values():
        assert f"| {tried} |" in made
    for kind in RUNS:
        assert f"steps of {kind}, each once" in made
    for place in PLACES.values():
        assert f"{place}: 12 runs" in made
    for kind in READERS:
        assert re.search(rf" {re.escape(kind)} [\d,]{{3,}}", made), kind


def test_table_tells_the_counts():
    counts = {
        "steps": Counter({"a run, all": 9, "a run": 8}),
        "two steps": Counter(runs=3),
        "signals": Counter(runs=4, SIGINT=1, SIGKILL=5),
        "owners": Counter(runs=6, refused=2, killed=1),
        "room": Counter({"output": 12, "output, full": 4}),
        "files": Counter(log=1000, tar=5),
    }
    made = table(counts, 125.0, 60.0)
    for told in (
        "8 of the 9 steps of a run, each once |",
        "| 3 runs |",
        "| 4 runs, 6 signals: 5 SIGKILL, 1 SIGINT |",
        "| 6 runs; 2 times the second was refused; 1 times the first",
        "| output: 12 runs, 4 without room |",
        "| 1,005 files of 2 kinds: log 1,000, tar 5 |",
        "of 2 minutes, in which it took 1 minutes of one core",
    ):
        assert told in made
