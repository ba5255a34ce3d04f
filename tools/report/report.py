"""What a page shows, before it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tools.results.runs import Run
from tools.results.tables import Column, Table

TITLES = {
    "base2new": "Base to new classes",
    "xd": "Other data sets",
    "dg": "Other domains",
    "fewshot": "Trained and tested on all classes",
    "open_set": "Open set: new classes under the names of base classes",
    "open_set_far": "Open set: other data sets under the names of base classes",
}


class Tested(NamedTuple):
    """A run with a result, and the system that it belongs to."""

    protocol: str
    column: Column
    run: Run

    @property
    def shots(self) -> int:
        """The number of shots in "fewshot". 0 in the other protocols, where each number of shots is its own system."""
        return self.run.shots if self.protocol == "fewshot" else 0


@dataclass
class Report:
    """What the page shows.

    Attributes:
        outputs: the folders that were read.
        tables: the tables by protocol; an open set has two, that of other data sets as "open_set_far".
        papers: the paper's numbers beside a table, and notes on them.
        details: details of the tests that kept records, one for each protocol, data set, part and system.
        open_sets: histograms of tests on an open set, one for each data set and system.
        classes: names of the classes that `details` cover, by protocol, data set and part.
        epochs: curves of trainings, one for each protocol, data set and system.
        costs: a row for each system.
        facts: what was run: versions, CLIPs, config differences.
        galleries: pictures by protocol, data set and part.
        places: a row for each test of a system on a data set: parts, seeds and folders.
        notes: what was left out, and why.
    """

    outputs: list[str]
    tables: dict[str, Table] = field(default_factory=dict)
    papers: dict[str, tuple[dict[tuple[int, str, str], float], list[str]]] = field(default_factory=dict)
    details: list[dict[str, Any]] = field(default_factory=list)
    open_sets: list[dict[str, Any]] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    galleries: list[dict[str, Any]] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
