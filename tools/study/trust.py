"""The tables of the study's page on uncertainty: as runs are tested, after calibration, on open sets, under a shift."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tools.results.runs import NEAR
from tools.study.intervals import Statistic
from tools.study.measured import BASE, NEW, Measured, value
from tools.study.methods import AVERAGED, CDC, METHODS, PROBE, Method
from tools.study.results import AFTER, FAR
from tools.study.tables import OTHERS, rows_of_pairs, table, with_missing

DOUBTS = ("ece", "auroc_error_confidence", "aurc_confidence")
FUSED_DOUBTS = ("auroc_error_uncertainty", "aurc_uncertainty")


def uncertainty(measured: Measured) -> str:
    """Calibration, and how well confidence tells errors; of CDC the fused uncertainty besides."""
    sets, rows = measured.plan.sets, []
    for method in METHODS:
        row = [method.title]
        for name in (*DOUBTS, *FUSED_DOUBTS):
            where = measured.halves(name)
            has = name in DOUBTS or method.trainer == "CDC"
            row += [measured.show(method, sets, where, score) if has else "" for score in (BASE, NEW)]
        rows.append(row)
    names = ("ECE", "error AUROC", "AURC", "error AUROC by U", "AURC by U")
    text = table(rows, ["", *(f"{name}, {part}" for name in names for part in ("base", "new"))])
    return with_missing(text, measured, METHODS, sets, measured.halves("ece"))


def uncertainty_differences(measured: Measured) -> str:
    """CDC minus each other system."""
    pairs = [(other.title, CDC, other) for other in OTHERS]
    text = []
    for title, name in zip(("ECE", "Error AUROC", "AURC"), DOUBTS):
        own = rows_of_pairs(measured, pairs, measured.plan.sets, measured.halves(name), {"Base": BASE, "New": NEW})
        text.append(f"{title}:\n\n{own}")
    return "\n\n".join(text)


def uncertainty_shifted(measured: Measured) -> str:
    """The same on the source and, on average, on its variants, of what was trained on all classes of the source."""
    plan, rows = measured.plan, []
    methods = (*METHODS, PROBE)
    for method in methods:
        row = [method.title]
        for name in (*DOUBTS, *FUSED_DOUBTS):
            has = name in DOUBTS or method.trainer == "CDC"
            for datasets in ([plan.sets[0]], plan.variants):
                row.append(measured.show(method, datasets, measured.transferred(name), value(0)) if has else "")
        rows.append(row)
    names = ("ECE", "error AUROC", "AURC", "error AUROC by U", "AURC by U")
    text = table(rows, ["", *(f"{name}, {where}" for name in names for where in ("source", "variants"))])
    return with_missing(text, measured, methods, [plan.sets[0], *plan.variants], measured.transferred("ece"))


STATES = {"before": "", "after": AFTER}
OPEN_SET = ("open_set",)  # which has the base classes too
BOTH = (*OPEN_SET, "test_new")
ERRORS = {"ECE": "ece", "NLL": "nll", "error AUROC": "auroc_error_confidence", "AURC": "aurc_confidence"}
ERRORS_BY_OWN = {
    f"{title} by {name}": f"{figure}_{score}"
    for name, score in (("U", "uncertainty"), ("doubt", "doubt"))
    for title, figure in (("error AUROC", "auroc_error"), ("AURC", "aurc"))
}
UNKNOWN = {"AUROC": "auroc_open", "FPR95": "fpr95_open"}
PARTS_OF_OPEN_SET = {"new classes": NEAR, "other sets": FAR}
Column = tuple[str, Sequence[str], Sequence[str], str]  # title, data sets, kinds of tests, and figure


def _before_and_after(measured: Measured, methods: Sequence[Method], columns: Sequence[Column]) -> str:
    """Figures of tests with calibration before and after it, each the mean over the kinds of tests.

    Those by the fused uncertainty and by the doubt are CDC's alone.
    """
    rows = []
    for method in methods:
        row = [method.title]
        for _, datasets, kinds, figure in columns:
            for after in STATES.values():
                has = not figure.endswith(("uncertainty", "doubt")) or method.trainer == "CDC"
                where = measured.calibrated(kinds, f"{figure}{after}")
                row.append(measured.show(method, datasets, where, _mean) if has else "")
        rows.append(row)
    text = table(rows, ["", *(f"{title}, {state}" for title, *_ in columns for state in STATES)])
    datasets = list(dict.fromkeys(dataset for _, own, *_ in columns for dataset in own))
    return with_missing(text, measured, methods, datasets, measured.calibrated(columns[0][2], columns[0][3]))


def _mean(means: np.ndarray) -> np.ndarray:
    return means.mean(axis=-1)


def calibration(measured: Measured) -> str:
    """How sure methods are and how well that tells errors, mean of base and new classes."""
    columns = [
        (title, measured.plan.calibrated_sets, BOTH, name) for title, name in {**ERRORS, **ERRORS_BY_OWN}.items()
    ]
    return _before_and_after(measured, (*measured.plan.calibrated_methods, AVERAGED), columns)


def open_set(measured: Measured) -> str:
    """How well a score tells images of classes that a model does not know: of new classes, and of other sets."""
    text, methods = [], (*measured.plan.calibrated_methods, AVERAGED)
    for title, part in PARTS_OF_OPEN_SET.items():
        columns = [
            (f"{name}{by}", measured.plan.calibrated_sets, OPEN_SET, f"{part}/{figure}_{score}")
            for by, score in (("", "confidence"), (" by U", "uncertainty"))
            for name, figure in UNKNOWN.items()
        ]
        text.append(f"Images of {title}:\n\n{_before_and_after(measured, methods, columns)}")
    return "\n\n".join(text)


def calibration_shifted(measured: Measured) -> str:
    """Calibration that was fitted on the source, on it and on its variants."""
    plan = measured.plan
    places = (("source", plan.sets[:1]), ("variants", plan.variants))
    columns = [
        (f"{title}, {place}", datasets, ("evaluation",), name)
        for title, name in (("ECE", "ece"), ("accuracy", "accuracy"))
        for place, datasets in places
    ]
    return _before_and_after(measured, (*plan.calibrated_methods, AVERAGED, PROBE), columns)


def calibration_differences(measured: Measured) -> str:
    """CDC minus each other system, after calibration; on open sets by confidence, and by what each has of its own."""
    plan = measured.plan
    pairs = [(other.title, CDC, other) for other in plan.calibrated_methods if other != CDC]
    errors = [f"{name}{AFTER}" for name in ERRORS.values()]
    scores = {title: _mean_of(2 * index, 2 * index + 1) for index, title in enumerate(ERRORS)}
    text = [rows_of_pairs(measured, pairs, plan.calibrated_sets, measured.calibrated(BOTH, *errors), scores)]

    names = [f"{title}, {part}" for part in PARTS_OF_OPEN_SET for title in UNKNOWN]
    scores = {name: value(index) for index, name in enumerate(names)}
    for by_own in (False, True):

        def where(method: Method, dataset: str, seed: int, by_own: bool = by_own) -> Sequence[tuple[Path, str]]:
            score = "uncertainty" if by_own and method.trainer == "CDC" else "confidence"
            own = [f"{part}/{name}_{score}{AFTER}" for part in PARTS_OF_OPEN_SET.values() for name in UNKNOWN.values()]
            return measured.calibrated(OPEN_SET, *own)(method, dataset, seed)

        by = "*U* of each kind of CDC, and by the confidence of every other method" if by_own else "confidence"
        text.append(f"Open sets, by {by}:\n\n{rows_of_pairs(measured, pairs, plan.calibrated_sets, where, scores)}")

    shifted = measured.calibrated(("evaluation",), f"ece{AFTER}", f"accuracy{AFTER}")
    pairs = [*pairs, (PROBE.title, CDC, PROBE)]
    scores = {"ECE": value(0), "accuracy": value(1)}
    variants = rows_of_pairs(measured, pairs, plan.variants, shifted, scores, one_training=True)
    return "\n\n".join([*text, f"Variants of the source:\n\n{variants}"])


def averaged_differences(measured: Measured) -> str:
    """Averaged CDC minus each other system, none of them calibrated; by doubt, where the others have confidence."""
    plan = measured.plan
    pairs = [(other.title, AVERAGED, other) for other in plan.calibrated_methods]
    by_doubt = {title: figure for title, figure in ERRORS_BY_OWN.items() if title.endswith("doubt")}

    def where(method: Method, dataset: str, seed: int) -> Sequence[tuple[Path, str]]:
        own = [name if method == AVERAGED else name.replace("doubt", "confidence") for name in by_doubt.values()]
        return measured.calibrated(BOTH, *ERRORS.values(), *own)(method, dataset, seed)

    scores = {title: _mean_of(2 * index, 2 * index + 1) for index, title in enumerate((*ERRORS, *by_doubt))}
    return rows_of_pairs(measured, pairs, plan.calibrated_sets, where, scores)


def _mean_of(*indices: int) -> Statistic:
    """The mean of some of the values."""
    return lambda means: means[..., list(indices)].mean(axis=-1)
