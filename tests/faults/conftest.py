"""What the fault campaign shares: how long it is, and what it counts."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from faults.counts import BLOCK, Counts, table

from helpers import ROOT
from tools.common.blocks import contents, fill

# Every fault is tried a few times in the default run, and by the hundred by `make faults`.
FORMS = [pytest.param(False, id="short"), pytest.param(True, id="full", marks=pytest.mark.faults)]
PAGE = ROOT / "docs/reliability.md"
COUNTS = pytest.StashKey[Counts]()
STARTED = pytest.StashKey[float]()
CUT = pytest.StashKey[bool]()


def pytest_configure(config):
    config.stash[COUNTS] = defaultdict(Counter)
    config.stash[STARTED] = time.monotonic()


@pytest.fixture(params=FORMS)
def full(request):
    """Whether the campaign is the long one."""
    return request.param


@pytest.fixture
def in_time(full, request):
    """Takes of things to try as many as there is time for: where `FAULTS_SECONDS` is given, that long a test."""
    limit = float(os.environ.get("FAULTS_SECONDS", "inf"))

    def take(things):
        until = time.monotonic() + limit
        for number, thing in enumerate(things):
            if full and number and time.monotonic() > until:
                request.config.stash[CUT] = True
                return
            yield thing

    return take


@pytest.fixture(scope="session")
def tally(request):
    """How often what was tried: by kind of fault and, in that, by case."""
    return request.config.stash[COUNTS]


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    """The counts of the long form. Where all of it ran and nothing failed, the page has them from now on."""
    counts = config.stash[COUNTS]
    if config.option.markexpr != "faults" or not counts:
        return
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(each.ru_utime + each.ru_stime for each in usage)
    made = table(counts, time.monotonic() - config.stash[STARTED], processor)
    terminalreporter.write_line(made)
    options = config.option
    picked = options.keyword or options.deselect or getattr(options, "lf", False) or CUT in config.stash
    picked = picked or [Path(each).resolve() for each in options.file_or_dir] != [ROOT / "tests/faults"]
    if exitstatus == 0 and not picked and not terminalreporter.stats.get("skipped"):
        text = PAGE.read_text("utf-8")
        PAGE.write_text(fill(text, {**contents(text), BLOCK: made}, PAGE), "utf-8")
        terminalreporter.write_line(f"{PAGE} has these counts")
    else:
        terminalreporter.write_line(f"{PAGE} stays: not all of the campaign ran and passed")
