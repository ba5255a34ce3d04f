"""What the fault campaign shares: how long it is, and what it counts."""

from __future__ import annotations

from collections import Counter

import pytest

# Every fault is tried a few times in the default run, and by the hundred by `make faults`.
FORMS = [pytest.param(False, id="short"), pytest.param(True, id="full", marks=pytest.mark.faults)]


@pytest.fixture(params=FORMS)
def full(request):
    """Whether the campaign is the long one."""
    return request.param


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
