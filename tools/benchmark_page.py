"""The benchmark's results as tables: the figures to reach, and the page docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles

from tabulate import tabulate

# Why a figure is not reached, by the figure's name: shown on the page beside it, with the measurement that says so.
REASONS: dict[str, str] = {
    "text 24, m1": (
        "24 names with their start are some 100 tokens, too few rows for matrix products at their full rate: see the "
        "share of the limit, and M = 4, which has four times as many."
    ),
    "text 1000, m4": (
        "of some 18,000 tokens 4,096 are kept for the gradient; the others go forward a second time (column *again*), "
        "which holds the peak within a tenth of that of M = 1."
    ),
    "step without bank": (
        "text features and their gradient are about half of its operations (column GFLOP, first table, 200 names, M ="
        " 4); the rest is 16 images through the encoder, where CoOp's step has 4, and nothing makes an image cheaper."
    ),
    "memory of M, 200": (
        "with M = 1 all 900 tokens are kept, with M = 8 the 4,096 that may be; then memory hardly grows (column "
        "*GB peak*, 1000 classes). To keep fewer would cost time, as a second forward pass."
    ),
    "limit, M = 4": (
        "three quarters of the forward pass are computed again to bound memory and are not counted here; the next row "
        "counts them."
    ),
}

HEADINGS = {
    "text": "Text features and their gradient",
    "train": "A training step",
    "classes": "A CDC training step with many classes, features from the bank",
    "test": "Classifying a batch",
    "data": "Training from files",
    "large": "ViT-L/14",
    "upstream": "Beside the published trainers",
    "compile": "With torch.compile, which nothing else here uses",
}

PREFACE = """# How fast and how small

Made by `python -m tools.benchmark --page docs/performance.md`, which keeps measurements that are finished when it is
called again; every number is measured on the machine below, on random weights of true size{quick}. *Plain* is the same
trainer on the text encoder that the published trainers have: CLIP's own at all 77 positions, one template after the
other, and in testing text features anew for every batch; *plain CoOp* is what the published CoOp computes. Trainers
that are compared sat in a process each and took their steps in turn; a ratio is the median of the rounds' ratios, in
brackets their quartiles. On a CPU ratios (column *time of others*: theirs over ours) and shares of the limit are of
processor time, as other programs share the machine; seconds in the tables are the clock's.

Machine: {machine}.

## Figures to reach
"""

EXPLANATION = """
Where it says *a template*, the time of M templates is divided by M. The plain path has no room for 1000 classes: it is
timed on 100 names of the same lengths and compared by time a class, which is fair to it, as 77 positions are computed
whatever the name is. Memory is the peak of the whole process, on CUDA what PyTorch had allocated. The limit is the rate
at which the same process multiplies matrices of {rows} rows, of the text transformer's widths. Its share is that of the
floating-point operations that the step needs, as PyTorch counts them (attention's in full, where half of it is masked).
What is computed again is no part of it and stands in the tables on its own: by gradient checkpoints, and by attention
kernels, which keep no scores for the gradient. So the share depends neither on the kernel that runs nor on PyTorch's
version.

## Why it is exact

None of what follows changes a result or a gradient beyond rounding; `tests/test_text.py`, `test_losses.py`,
`test_evidence.py`, `test_feature_bank.py` and `test_cdc.py` compare with the plain computations.

- CLIP's text transformer is causal and its feature is read at end-of-text: positions behind it are not computed, for
  every class its own.
- `[SOS][context tokens]` is the same for all classes of a template and is computed once; every class's own tokens
  attend to its keys and values. Classes whose names have as many tokens are one batch, without padding, under all
  templates at once; with few classes all tokens attend in one masked product. Deep prompts replace tokens of that
  shared start alone, so coupled templates gain the same.
- In the last layer only the end-of-text token is a query.
- Where many tokens would have to be kept for the gradient, the classes go through in parts, each computed again when
  its gradient is due. That bounds memory for any number of templates and classes, and costs one more forward pass.
- Without gradient, text features are computed once and kept until a parameter changes.
- The image encoder gets no gradient under text-only templates; the views of all templates are one batch. With a feature
  bank (`TRAINER.CDC.FEATURE_BANK`) they are encoded once for all runs on the same views.
- Evidence is fused in closed form, in O(M B C); the diversity loss is taken in parts where C is large.

## What to expect

The text side pays by own tokens, some 4 a class name and not 77; short names gain most, and the gain grows with
the number of templates and classes until parts are computed again. A step without a bank pays for M views in the image
encoder, which nothing here makes cheaper: with few classes that is most of it, and the bank what helps. CoCoOp has a
template for every image. Coupled templates need the image encoder's gradient, M times. Class-specific context and a
class name before the context share less of the start.
"""


@dataclass(frozen=True)
class Value:
    """A figure that was measured: median and quartiles of its rounds."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: list[float]) -> Value:
        low, _, high = quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else rounds * 3
        return cls(median(rounds), low, high)


@dataclass(frozen=True)
class Figure:
    """A figure to reach.

    Attributes:
        name: of its reason in `REASONS`.
        what, against: shown.
        limit: to reach; `at_most` says on which side.
        unit: "x" for a ratio of times, "%" for a share, "" for any other.
        value: the rounds' values from the measurements; KeyError where one is missing.
    """

    name: str
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
FIGURES = (
    *(
        Figure(
            f"text {classes}, {subject}",
            f"text forward and backward, {names}, a template of M = {subject[1]}",
            "plain, 77 tokens",
            15.0,
            "x",
            _text(classes, subject),
        )
        for classes, names in ((24, "DTD's 24 base names"), (200, "200 names"), (1000, "1000 names"))
        for subject in ("m1", "m4")
    ),
    Figure(
        "step with bank",
        "CDC M = 4 training step with bank, C = 24, batch 4",
        "plain CoOp, M = 1",
        5.0,
        "x",
        _pair("train 24", "plain_coop", "cdc_bank"),
    ),
    Figure(
        "step without bank",
        "CDC M = 4 training step without bank, C = 200, batch 4",
        "plain CoOp, M = 1",
        3.0,
        "x",
        _pair("train 200", "plain_coop", "cdc"),
    ),
    Figure(
        "memory",
        "CDC M = 4 peak memory, C = 1000, batch 4, with bank",
        "plain CoOp, M = 1, C = 200",
        0.5,
        "",
        _peaks(("1000 classes, M = 4", "bank"), PLAIN_COOP),
        at_most=True,
    ),
    *(
        Figure(
            f"memory of M, {classes}",
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
    Figure(
        "test",
        "test images a second, CDC M = 4, C = 1000, batch 32",
        "zero-shot CLIP",
        0.95,
        "",
        _pair("test 1000", "zero_shot", "cdc"),
    ),
    *(
        Figure(
            f"limit, M = {m}",
            f"share of the matrix product limit, CDC M = {m} training step with bank, C = 1000",
            "the machine's measured rate",
            60.0,
            "%",
            _limit(f"1000 classes, M = {m}"),
        )
        for m in (1, 4)
    ),
    Figure(
        "limit, all operations",
        "the same for M = 4, counting what is computed again",
        "the machine's measured rate",
        60.0,
        "%",
        _limit("1000 classes, M = 4", again=True),
    ),
)


def figures(results: dict, style: str = "simple") -> str:
    """The table of figures to reach; without those that were not measured."""
    rows = []
    for figure in FIGURES:
        try:
            value = Value.of(figure.value(results["measurements"]))
        except KeyError:
            continue
        reached = value.middle <= figure.limit if figure.at_most else value.middle >= figure.limit
        reach = f"{'at most' if figure.at_most else 'at least'} {figure.limit:g}{figure.unit}"
        shown = f"{value.middle:.2f}{figure.unit}"
        if value.low < value.high:
            shown += f" ({value.low:.2f} to {value.high:.2f})"
        rows.append([figure.what, figure.against, reach, shown, "yes" if reached else "no"])
    headings = ["what", "against", "reach", "measured", "reached"]
    return tabulate(rows, headings, style, disable_numparse=True)


def render(results: dict) -> str:
    """The page."""
    measurements = results["measurements"]
    machine = results["machine"]
    place = machine.get("gpu") or f"{machine['cores']} cores of {machine['model']}"
    described = f"{place}, {machine['threads']} threads, {machine['precision']}, PyTorch {machine['torch']}"
    quick = any(s["backbone"] == "tiny" for m in measurements.values() for s in m["subjects"].values())
    parts = [
        PREFACE.format(machine=described, quick=" (here: of sizes that say nothing)" if quick else ""),
        figures(results, "github"),
        _reasons(results),
        EXPLANATION.format(rows=4096),
    ]
    for section, heading in HEADINGS.items():
        of_section = [m for m in measurements.values() if m["section"] == section]
        if of_section:
            parts.append(f"\n## {heading}\n\n{_table(section, of_section)}\n")
    return "\n".join(parts)


def unreached(results: dict) -> list[str]:
    """Names of the figures that were measured and not reached."""
    found = []
    for figure in FIGURES:
        try:
            middle = median(figure.value(results["measurements"]))
        except KeyError:
            continue
        if (middle > figure.limit) if figure.at_most else (middle < figure.limit):
            found.append(figure.name)
    return found


def _reasons(results: dict) -> str:
    names = {figure.name: figure.what for figure in FIGURES}
    told = [f"- {names[name]}: {REASONS[name]}" for name in unreached(results) if name in REASONS]
    return "\n".join(["\nWhat falls short, and why:\n", *told]) if told else ""


def _table(section: str, measurements: list[dict]) -> str:
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
