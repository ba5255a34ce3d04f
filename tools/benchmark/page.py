"""The benchmark's results as tables: the targets, and the generated blocks of docs/performance.md.

The text of the page is written by hand, in the page itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from tabulate import tabulate

from tools.common.blocks import contents, fill
from tools.common.choices import SECTIONS
from tools.common.paths import ROOT

PAGE = ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Value:
    """What was measured: median and quartiles of its rounds."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: list[float]) -> Value:
        low, _, high = quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else rounds * 3
        return cls(median(rounds), low, high)


@dataclass(frozen=True)
class Target:
    """A number to reach.

    Attributes:
        what: is measured, as the table calls it.
        against: what it is compared with.
        limit: to reach; `at_most` says on which side.
        unit: "x" for a ratio of times, "%" for a share, "" for any other.
        value: the rounds' values from the measurements; KeyError where one is missing.
    """

    what: str
    against: str
    limit: float
    unit: str
    value: Callable[[dict], list[float]]
    at_most: bool = False


def _text(classes: int, subject: str) -> Callable[[dict], list[float]]:
    """How many times more time the plain text encoder takes for a class under a template."""

    def value(measurements: dict) -> list[float]:
        subjects = measurements[f"text {classes}"]["subjects"]
        return _times(subjects["plain"], subjects[subject], lambda s: s["classes"] * s["templates"])

    return value


def _pair(name: str, slow: str, fast: str) -> Callable[[dict], list[float]]:
    def value(measurements: dict) -> list[float]:
        subjects = measurements[name]["subjects"]
        return _times(subjects[slow], subjects[fast])

    return value


def _times(slow: dict, fast: dict, per: Callable[[dict], float] = lambda subject: 1.0) -> list[float]:
    return [a / per(slow) / (b / per(fast)) for a, b in zip(slow["busy"], fast["busy"])]


def _peaks(one: tuple[str, str], other: tuple[str, str]) -> Callable[[dict], list[float]]:
    def value(measurements: dict) -> list[float]:
        peaks = [measurements[name]["subjects"][subject]["peak"] for name, subject in (one, other)]
        return [peaks[0] / peaks[1]]

    return value


def _limit(name: str, again: bool = False) -> Callable[[dict], list[float]]:
    return lambda measurements: [100 * share for share in _shares(measurements[name]["subjects"]["bank"], again)]


def _shares(subject: dict, again: bool = False) -> list[float]:
    """How near to the rate of matrix products each round came, with or without what was computed again."""
    flops = subject["flops"] - (0 if again else subject["flops_again"])
    return [flops / seconds / subject["rate"] for seconds in subject["busy"]]


PLAIN_COOP = ("train 200", "plain_coop")
TARGETS = (
    *(
        Target(
            f"text forward and backward, {names}, a template of M = {subject[1]}",
            "plain, 77 tokens",
            15.0,
            "x",
            _text(classes, subject),
        )
        for classes, names in ((24, "DTD's 24 base names"), (200, "200 names"), (1000, "1000 names"))
        for subject in ("m1", "m4")
    ),
    Target(
        "CDC M = 4 training step with bank, C = 24, batch 4",
        "plain CoOp, M = 1",
        5.0,
        "x",
        _pair("train 24", "plain_coop", "cdc_bank"),
    ),
    Target(
        "CDC M = 4 training step without bank, C = 200, batch 4",
        "plain CoOp, M = 1",
        3.0,
        "x",
        _pair("train 200", "plain_coop", "cdc"),
    ),
    Target(
        "CDC M = 8 peak memory, coupled, C = 24, batch 4",
        "the same with M = 1",
        1.3,
        "",
        _peaks(("MaPLe and CDC, M = 8", "peer"), ("MaPLe and CDC, M = 1", "peer")),
        at_most=True,
    ),
    Target(
        "CDC M = 4 peak memory, C = 1000, batch 4, with bank",
        "plain CoOp, M = 1, C = 200",
        0.5,
        "",
        _peaks(("1000 classes, M = 4", "bank"), PLAIN_COOP),
        at_most=True,
    ),
    *(
        Target(
            f"CDC M = 8 peak memory, C = {classes}, with bank",
            "the same with M = 1",
            1.2,
            "",
            _peaks(eight, one),
            at_most=True,
        )
        for classes, eight, one in (
            (200, ("200 classes", "m8"), ("200 classes", "m1")),
            (1000, ("1000 classes, M = 8", "bank"), ("1000 classes, M = 1", "bank")),
        )
    ),
    Target(
        "test images a second, CDC M = 4, C = 1000, batch 32",
        "zero-shot CLIP",
        0.95,
        "",
        _pair("test 1000", "zero_shot", "cdc"),
    ),
    *(
        Target(
            f"share of the matrix product limit, CDC M = {m} training step with bank, C = 1000",
            "the machine's measured rate",
            60.0,
            "%",
            _limit(f"1000 classes, M = {m}"),
        )
        for m in (1, 4)
    ),
    Target(
        "the same for M = 4, counting what is computed again",
        "the machine's measured rate",
        60.0,
        "%",
        _limit("1000 classes, M = 4", again=True),
    ),
)


def target_table(results: dict, style: str = "simple") -> str:
    """The table of targets; without those that were not measured."""
    rows = []
    for target, value in _measured(results):
        reach = f"{'at most' if target.at_most else 'at least'} {target.limit:g}{target.unit}"
        shown = f"{value.middle:.2f}{target.unit}"
        if value.low < value.high:
            shown += f" ({value.low:.2f} to {value.high:.2f})"
        rows.append([target.what, target.against, reach, shown, "yes" if _is_reached(target, value) else "no"])
    headings = ["what", "against", "reach", "measured", "reached"]
    return tabulate(rows, headings, style, disable_numparse=True)


def unexplained(results: dict, page: str) -> list[str]:
    """Targets that are missed and with which no item of a list on the page begins."""
    missed = [target.what for target, value in _measured(results) if not _is_reached(target, value)]
    words = " ".join(page.split())
    return [what for what in missed if f" - {what}:" not in words]


def _measured(results: dict) -> list[tuple[Target, Value]]:
    found = []
    for target in TARGETS:
        try:
            rounds = target.value(results["measurements"])
        except KeyError:
            continue
        found.append((target, Value.of(rounds)))
    return found


def _is_reached(target: Target, value: Value) -> bool:
    return value.middle <= target.limit if target.at_most else value.middle >= target.limit


def read_page(path: Path) -> str:
    """The page as it is, or that of this project where there is none yet.

    Raises:
        ValueError: it lacks a mark of a generated block.
    """
    path = path if path.is_file() else PAGE
    text = path.read_text(encoding="utf-8")
    fill(text, dict.fromkeys(("machine", "targets", *SECTIONS), ""), path)
    return text


def render(results: dict, text: str, sections: Sequence[str] = SECTIONS) -> str:
    """The page with the blocks of these results.

    Args:
        results: of the benchmark.
        text: the page as it is, from `read_page`.
        sections: whose blocks are made. If they are not all, the page's other blocks stay, and these say where they
            were measured.
    """
    measurements = results["measurements"]
    machine = results["machine"]
    place = machine.get("gpu") or f"{machine['cores']} cores of {machine['model']}"
    described = f"{place}, {machine['threads']} threads, {machine['precision']}, PyTorch {machine['torch']}"
    quick = any(s["backbone"] == "tiny" for m in measurements.values() for s in m["subjects"].values())
    place = f"Machine: {described}{', of sizes that say nothing' if quick else ''}."
    partly = not set(SECTIONS) <= set(sections)
    blocks = contents(text) if partly else {"machine": place, "targets": target_table(results, "github")}
    for section in sections:
        of_section = [m for m in measurements.values() if m["section"] == section]
        table = _table(section, of_section) if of_section else "Not measured here."
        blocks[section] = f"{place}\n\n{table}" if partly else table
    return fill(text, blocks)


def _table(section: str, measurements: list[dict]) -> str:
    if section == "peers":
        return _pairs(measurements)
    rows = []
    for measurement in measurements:
        subjects = measurement["subjects"]
        for subject in subjects.values():
            seconds = Value.of(subject["seconds"])
            row = {
                "trainer": _label(subject),
                "C": subject["classes"],
                "M": subject["templates"],
                "B": subject["batch"],
                "seconds": f"{seconds.middle:.3f} ({seconds.low:.3f} to {seconds.high:.3f})",
                "images/s": f"{subject['batch'] / seconds.middle:.2f}",
                "time of others": _time_of_others(subject, subjects),
                "GB before": f"{subject['baseline'] / 2**30:.2f}",
                "GB peak": f"{subject['peak'] / 2**30:.2f}",
                "GFLOP": f"{(subject['flops'] - subject['flops_again']) / 1e9:,.0f}",
                "again": f"{subject['flops_again'] / 1e9:,.0f}",
                "GFLOP/s of products": f"{subject['rate'] / 1e9:,.0f}",
                "share of limit": f"{100 * median(_shares(subject)):.0f}%",
            }
            if section == "data":
                row["waiting for data"] = f"{100 * sum(subject['waited']) / sum(subject['seconds']):.1f}%"
            if section == "compile":
                row["first step"] = f"{subject['first']:.1f} s"
            if section in ("text", "compile"):
                del row["images/s"], row["B"]
            rows.append(row)
    return tabulate(rows, "keys", "github", disable_numparse=True)


def _pairs(measurements: list[dict]) -> str:
    """Subjects that were measured each beside the same one, which stands in the first row."""
    rows: list[dict[str, object]] = []
    for measurement in measurements:
        first, other = measurement["subjects"].values()
        for subject in (other,) if rows else (first, other):
            busy, ratio = Value.of(subject["busy"]), Value.of(_times(subject, first))
            row = {
                "trainer": _label(subject),
                "M": subject["templates"],
                "processor seconds": f"{busy.middle:.2f} ({busy.low:.2f} to {busy.high:.2f})",
                f"{_label(first)}'s beside it": "" if subject is first else f"{Value.of(first['busy']).middle:.2f}",
                "ratio": "" if subject is first else f"{ratio.middle:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
                "GB before": f"{subject['baseline'] / 2**30:.2f}",
                "GB peak": f"{subject['peak'] / 2**30:.2f}",
                "GFLOP": f"{(subject['flops'] - subject['flops_again']) / 1e9:,.0f}",
            }
            rows.append(row)
    return tabulate(rows, "keys", "github", disable_numparse=True)


def _label(subject: dict) -> str:
    name = f"{subject['style']} " if subject["style"] != "ours" else ""
    extra = ["bank"] * subject["bank"] + ["coupled"] * subject["coupled"]
    return ", ".join([name + subject["trainer"], *extra])


def _time_of_others(subject: dict, subjects: dict) -> str:
    """The ratio of times of whatever else does the same task, if there is something, to ours."""
    same = ("trainer", "work", "classes", "templates", "batch", "coupled", "bank")
    for other in subjects.values():
        if subject["style"] == "ours" != other["style"] and all(subject[key] == other[key] for key in same):
            ratio = Value.of(_times(other, subject))
            return f"{other['style']} {ratio.middle:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"
    return ""
