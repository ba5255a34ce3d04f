"""The counts of a fault campaign, as the table of docs/reliability.md."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from datetime import date

import torch

from tools.common.machine import cores, processor

BLOCK = "counts"
Counts = Mapping[str, Counter]


def table(counts: Counts, seconds: float, processor_seconds: float) -> str:
    """Lines of Markdown: what was tried how often, and in which session.

    Args:
        counts: by kind of fault, how often each case was tried.
        seconds: that the session took.
        processor_seconds: that its processes took of all cores together.
    """
    rows = [f"| {tried} | {told(counts[kind])} |" for kind, (tried, told) in KINDS.items() if kind in counts]
    session = (
        f"One session on {date.today().isoformat()}, of {seconds / 60:.0f} minutes, in which it took "
        f"{processor_seconds / 60:.0f} minutes of one core ({cores()} cores, {processor()}; {platform.system()}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__})."
    )
    return "\n".join(["", "| tried | how often |", "|---|---|", *rows, "", session, ""])


def _steps(cases: Counter) -> str:
    """Of each kind of run, how many of its steps."""
    totals = {name.partition(", all")[0]: number for name, number in cases.items() if name.endswith(", all")}
    return "; ".join(f"{cases[name]} of the {total} steps of {name}, each once" for name, total in totals.items())


def _two_steps(cases: Counter) -> str:
    return f"{cases['runs']} runs"


def _signals(cases: Counter) -> str:
    signals = sorted((-number, name) for name, number in cases.items() if name.startswith("SIG"))
    told = ", ".join(f"{-number} {name}" for number, name in signals)
    return f"{cases['runs']} runs, {-sum(number for number, _ in signals)} signals: {told}"


def _owners(cases: Counter) -> str:
    return (
        f"{cases['runs']} runs; {cases['refused']} times the second was refused; {cases['killed']} times the first was "
        "killed as the second came"
    )


def _rooms(cases: Counter) -> str:
    places = [place for place in cases if not place.endswith(", full")]
    return "; ".join(f"{place}: {cases[place]} runs, {cases[f'{place}, full']} without room" for place in places)


def _files(cases: Counter) -> str:
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in cases.items())
    return f"{sum(cases.values()):,} files of {len(cases)} kinds: {kinds}"


# By kind: what is tried, and how its counts are told
KINDS = {
    "steps": (
        "killed at a step to the disk (a file opened for writing, an fsync, a link, a rename, a removal), run again",
        _steps,
    ),
    "two steps": ("killed at a step, run again, killed at a step of that, run again", _two_steps),
    "signals": ("ended by signals at random times, one to five times, run again", _signals),
    "owners": ("the same command twice, up to 1.5 s apart", _owners),
    "room": ("a disk of 4 to 96 kB, then run again with more room", _rooms),
    "files": (
        "broken and hostile files: cut, overwritten, out of order, other values, other formats, deep nesting, pickles "
        "that would make a file",
        _files,
    ),
}
