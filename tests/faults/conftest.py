"""What the fault campaign shares: how long it is, and what it counts."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

# Every fault is tried a few times in the default run, and by the hundred by `make faults`.
FORMS = [pytest.param(False, id="short"), pytest.param(True, id="full", marks=pytest.mark.faults)]


@pytest.fixture(params=FORMS)
def full(request):
    """Whether the campaign is the long one."""
    return request.param


@pytest.fixture
def in_time(full):
    """Takes of things to try as many as there is time for: in the long form `FAULTS_SECONDS` a test, or 600."""

    def take(things):
        until = time.monotonic() + float(os.environ.get("FAULTS_SECONDS", "600"))
        for number, thing in enumerate(things):
            if full and number and time.monotonic() > until:
                return
            yield thing

    return take


@pytest.fixture(scope="session")
def tally(request):
    """How often what was tried; shown at the end of the tests."""
    counts: Counter[str] = Counter()
    yield counts
    if counts and request.config.getoption("-m") == "faults":
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print()
            for name, number in counts.items():
                print(f"{number:6,}  {name}")
