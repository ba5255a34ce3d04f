"""Means and differences of the study by hand, and what it says of runs that are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tools.study import tables, trust
from tools.study.measured import BASE, HM, NEW, NOTHING, Measured, gap, tell_missing, value
from tools.study.methods import AVERAGED, CDC, COOP, MAPLE, NEITHER, ONE, PROBE, ZERO_SHOT
from tools.study.plan import quick
from tools.study.results import FIGURES, read_figures, read_kept, write_kept

SETS = ("shapes", "digits")


@pytest.fixture
def plan(tmp_path):
    return replace(quick(tmp_path), seeds=(1, 2), calibrated_methods=(ZERO_SHOT, COOP, CDC))


def measured(plan, base, new):
    """Accuracies by method, data set and seed, of base and of new classes."""
    figures = {}
    for part, found in (("base", base), ("new", new)):
        for (method, dataset, seed), accuracy in found.items():
            folder = plan.half(method, dataset, seed, part)
            figures[folder.relative_to(plan.output).as_posix()] = {"accuracy": accuracy}
    return Measured(plan, figures)


def of_both(shapes, digits, method=CDC):
    return {(method, name, seed): a for name, own in zip(SETS, (shapes, digits)) for seed, a in zip((1, 2), own)}


def test_means_are_over_sets_and_then_over_seeds(plan):
    found = measured(plan, of_both([60.0, 70.0], [80.0, 74.0]), of_both([50.0, 50.0], [40.0, 60.0]))
    where = found.halves()
    assert found.show(CDC, SETS, where, BASE) == "71.00 ± 1.41"  # 70 and 72
    assert found.show(CDC, SETS, where, NEW) == "50.00 ± 7.07"  # 45 and 55
    assert found.show_mean(CDC, SETS, where, HM) == "58.68"  # 2 * 71 * 50 / 121
    assert found.count(CDC, SETS, where) == "2"
    assert found.show(CDC, ["shapes"], where, gap(0, 1)) == "15.00 ± 7.07"  # 10 and 20


def test_difference_is_paired(plan):
    """Both methods vary by ten points with the seed, and differ by one in each run."""
    ours = of_both([60.0, 70.0], [80.0, 70.0])
    theirs = {(MAPLE, *key[1:]): accuracy - 1 for key, accuracy in ours.items()}
    found = measured(plan, {**ours, **theirs}, {**ours, **theirs})
    difference = found.difference(CDC, MAPLE, SETS, found.halves(), BASE)
    assert difference.seeds == (1, 2)
    assert difference.interval == pytest.approx((1.0, 1.0, 1.0))
    assert str(difference) == "**+1.00 [+1.00, +1.00]**"
    assert str(found.difference(CDC, CDC, SETS, found.halves(), BASE)) == "+0.00 [+0.00, +0.00]"


def test_what_one_training_shows_on_several_sets_counts_once(plan):
    """Seeds that are good on one set are good on the other, so two sets tell no more than one."""
    plan = replace(plan, sets=("shapes", "digits", "letters"), variants=("shapesv2", "shapes_r"))
    figures = {}
    for method, by_seed in ((CDC, (51.0, 53.0)), (MAPLE, (50.0, 50.0))):
        for dataset in (*plan.sets, *plan.variants):
            for seed, accuracy in zip(plan.seeds, by_seed):
                folder = plan.tested_on(method, dataset, seed).relative_to(plan.output).as_posix()
                figures[folder] = {"accuracy": accuracy}
    found = Measured(plan, figures)
    one = found.difference(CDC, MAPLE, ["shapesv2"], found.transferred(), value(0))
    ((others, variants, _, _),) = cells(tables.transfer_differences(found), "MaPLe")
    assert others == variants == str(one) == "+2.00 [-7.17, +11.17]"  # 2^0.5 * 12.7062 / 1.95996 to either side


def test_what_no_seed_changes_stands_beside_every_seed(plan):
    zero_shot = {(ZERO_SHOT, name, 1): 70.0 for name in SETS}
    found = measured(plan, {**of_both([60.0, 70.0], [80.0, 74.0]), **zero_shot}, {})
    where = found.half("base", "accuracy")
    assert found.show(ZERO_SHOT, SETS, where, value(0)) == "70.00"
    assert found.count(ZERO_SHOT, SETS, where) == ""
    difference = found.difference(CDC, ZERO_SHOT, SETS, where, value(0))
    assert (difference.estimate, difference.seeds) == (pytest.approx(1.0), (1, 2))


def test_a_seed_that_lacks_one_run_is_in_no_mean(plan):
    """Nor does a mean of a part of the sets stand for the average of all."""
    base = of_both([60.0, 90.0], [80.0, 95.0])
    del base[CDC, "digits", 2]
    found = measured(plan, base, of_both([50.0, 50.0], [40.0, 60.0]))
    where = found.halves()
    assert found.show(CDC, SETS, where, BASE) == "70.00"
    assert found.show(CDC, SETS, where, NEW) == "45.00"  # though seed 2 has its new classes
    assert found.show(CDC, ["shapes"], where, BASE) == "75.00 ± 21.21"
    assert found.count(CDC, SETS, where) == "1"
    assert found.missing(CDC, SETS, where) == (2,)


def test_a_difference_is_of_the_seeds_that_both_have(plan):
    plan = replace(plan, seeds=(1, 2, 3))
    ours = {(CDC, name, seed): 60.0 + 10 * seed for name in SETS for seed in (1, 2)}
    theirs = {(MAPLE, name, seed): 60.0 + 10 * seed for name in SETS for seed in (2, 3)}
    found = measured(plan, {**ours, **theirs}, {**ours, **theirs})
    difference = found.difference(CDC, MAPLE, SETS, found.halves(), BASE)
    assert difference == (0.0, None, (2,))  # the means alone would say -10
    assert str(difference) == "+0.00"  # and one seed gives no interval
    assert not difference.is_real


def test_without_any_run_there_are_dashes(plan):
    found = Measured(plan, {})
    where = found.halves()
    assert found.show(CDC, SETS, where, BASE) == found.show_mean(CDC, SETS, where, HM) == NOTHING
    assert found.count(ZERO_SHOT, SETS, where) == found.count(CDC, SETS, where) == NOTHING
    assert str(found.difference(CDC, MAPLE, SETS, where, BASE)) == NOTHING
    written = tables.base_to_new(found)
    assert not any(character.isdigit() for character in written)
    assert written.endswith("\n\nMissing: all seeds: all rows.")


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        ({"A": (), "B": ()}, ""),
        ({"A": (3,), "B": (3,)}, "Missing: seed 3: all rows."),
        ({"A": (2, 3), "B": (3,)}, "Missing: seed 3: all rows; seed 2: A."),
        ({"A": (1, 2, 3), "B": ()}, "Missing: all seeds: A."),
        ({"A": (), "B": (1, 3)}, "Missing: seeds 1, 3: B."),
        ({}, ""),
    ],
)
def test_missing_seeds_are_told(lacking, told):
    assert tell_missing(lacking, (1, 2, 3)) == told


def test_real_differences_are_named(plan):
    ours, theirs = of_both([60.0, 61.0], [80.0, 81.0]), of_both([50.0, 51.0], [70.0, 71.0], MAPLE)
    new = {**of_both([50.0, 60.0], [50.0, 60.0]), **of_both([60.0, 50.0], [60.0, 50.0], MAPLE)}
    text = tables.differences(measured(plan, {**ours, **theirs}, new))
    row = next(line for line in text.splitlines() if line.startswith("| MaPLe "))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1] == "**+10.00 [+10.00, +10.00]**"
    assert cells[2].startswith("+0.00 [-")
    assert cells[4:] == ["2", "Base"]
    assert "Half the width of an interval, mean of the rows: Base 0.00, New " in text


def test_figure_1b_needs_both_a_rise_and_a_fall(plan):
    figures = {}
    for method in tables.CURVES:
        for epoch, base, new in ((1, 70.0, 80.0), (2, 75.0, 76.0 if method.trainer == "CoOp" else 80.0)):
            for seed in plan.seeds:
                for part, accuracy in (("base", base), ("new", new)):
                    folder = plan.half(tables.at_epoch(method, epoch), "digits", seed, part)
                    figures[folder.relative_to(plan.output).as_posix()] = {"accuracy": accuracy}
    lines = [line for line in tables.epochs(Measured(plan, figures)).splitlines() if ", digits" in line]
    assert [line.rstrip(" |").endswith("yes") for line in lines] == [True, False, False, False]
    assert "**-4.00 [-4.00, -4.00]**" in lines[0]


def test_the_last_epoch_is_compared_with_the_first_and_with_one_after_a_third(plan):
    plan = replace(plan, curve_epochs=(1, 2, 3, 4))
    figures = {}
    for epoch, accuracy in ((1, 50.0), (2, 60.0), (3, 0.0), (4, 75.0)):
        for seed in plan.seeds:
            for part in ("base", "new"):
                folder = plan.half(tables.at_epoch(tables.CURVES[0], epoch), "digits", seed, part)
                figures[folder.relative_to(plan.output).as_posix()] = {"accuracy": accuracy}
    text = tables.epochs(Measured(plan, figures))
    assert [line.split("|")[1].strip() for line in text.splitlines() if " minus " in line] == [
        "epoch 4 minus epoch 1",
        "epoch 4 minus epoch 2",
    ]
    assert [row[0] for row in cells(text, "CoOp, digits")] == [
        "**+25.00 [+25.00, +25.00]**",
        "**+15.00 [+15.00, +15.00]**",
    ]


def test_gaps_of_the_confounder(plan):
    figures = {}
    accuracies = {CDC: (80.0, 84.0, 79.0, 70.0), MAPLE: (82.0, 90.0, 80.0, 60.0)}
    for method, found in accuracies.items():
        for seed in plan.seeds:
            folder = plan.trained_on(method, "confounded_colours", seed).relative_to(plan.output).as_posix()
            figures[folder] = dict(zip(tables.GROUPS, found))
    found = Measured(plan, figures)
    levels = next(line for line in tables.confounder(found).splitlines() if line.startswith("| MaPLe "))
    means = ["82.00", "90.00", "80.00", "60.00", "10.00", "22.00"]
    assert [cell.strip() for cell in levels.split("|")[2:8]] == [f"{mean} ± 0.00" for mean in means]
    row = next(line for line in tables.confounder_differences(found).splitlines() if "minus MaPLe" in line)
    estimates = [cell.split()[0].strip("*") for cell in row.split("|")[2:6]]
    assert estimates == ["-5.00", "-12.00", "+10.00", "-2.00"]  # 5 - 10, 10 - 22, 70 - 60, 80 - 82


def test_uncertainty_under_a_shift_is_that_of_the_variants(plan):
    plan = replace(plan, variants=("shapesv2", "shapes_r"))
    figures = {}
    for dataset, error in (("shapes", 4.0), ("shapesv2", 6.0), ("shapes_r", 10.0), ("digits", 90.0)):
        for seed in plan.seeds:
            folder = plan.tested_on(CDC, dataset, seed).relative_to(plan.output).as_posix()
            figures[folder] = {"ece": error + seed}
    text = trust.uncertainty_shifted(Measured(plan, figures))
    row = next(line for line in text.splitlines() if line.startswith("| CDC "))
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["5.50 ± 0.71", "9.50 ± 0.71", NOTHING]


# ---- calibration


def calibrated(plan, numbers, kind="open_set", dataset="shapes"):
    """Figures of tests with calibration, by method and seed."""
    found = {}
    for method, by_seed in numbers.items():
        for seed, figures in zip(plan.seeds, by_seed):
            folder = plan.calibrated(kind, method, dataset, seed).relative_to(plan.output).as_posix()
            found[folder] = figures
    return found


def cells(text, title):
    """Of all rows with this title."""
    rows = [line for line in text.splitlines() if line.startswith(f"| {title} ")]
    return [[cell.strip() for cell in row.split("|")[2:-1]] for row in rows]


def test_figures_before_and_after_calibration_are_means_of_base_and_new(plan):
    base = [{"ece": 10.0, "ece_calibrated": 4.0, "aurc_uncertainty": 1.0}, {"ece": 20.0, "ece_calibrated": 6.0}]
    new = [{"ece": 30.0, "ece_calibrated": 8.0, "aurc_uncertainty": 3.0}, {"ece": 40.0, "ece_calibrated": 8.0}]
    figures = {
        **calibrated(plan, {CDC: base, ZERO_SHOT: base[:1]}),
        **calibrated(plan, {CDC: new, ZERO_SHOT: new[:1]}, "test_new"),
    }
    text = trust.calibration(Measured(plan, figures))
    ((*own, aurc_before, aurc_after),) = (row[:-4] for row in cells(text, "CDC"))
    assert own[:3] == ["25.00 ± 7.07", "6.50 ± 0.71", NOTHING]  # 20 and 30, 6 and 7
    assert (aurc_before, aurc_after) == ("2.00", NOTHING)
    assert cells(text, "Zero-shot CLIP")[0][:3] == ["20.00", "6.00", NOTHING]
    assert cells(text, "Zero-shot CLIP")[0][-8:] == [""] * 8  # it has no uncertainty or doubt of its own
    assert "Missing: all seeds: CoOp · CDC, averaged." in text


def of_three_seeds(plan, other):
    """Accuracies on `digits` under seeds 1, 2 and 3, where CDC is 1, 2 and 6 above the other method."""
    figures = {}
    for method, values in ((CDC, (51.0, 52.0, 56.0)), (other, (50.0, 50.0, 50.0))):
        for seed, accuracy in zip((1, 2, 3), values):
            for part in ("base", "new"):
                folder = plan.half(method, "digits", seed, part).relative_to(plan.output).as_posix()
                figures[folder] = {"accuracy": accuracy}
    return figures


def test_more_seeds_are_counted_beside_the_others(plan):
    """CDC's and MaPLe's table has all three seeds; other tables have the first two alone."""
    plan = replace(plan, sets=("digits",), more_seeds=(3,))
    figures = of_three_seeds(plan, MAPLE)
    text = tables.more_seeds(Measured(plan, figures))
    ((base, new, _, seeds, _),) = cells(text, "MaPLe")
    assert (base.strip("*").split()[0], new.strip("*").split()[0], seeds) == ("+3.00", "+3.00", "3")
    assert text.splitlines()[-1].startswith("Half the width of the interval: Base ")
    assert cells(tables.differences(Measured(plan, figures)), "MaPLe")[0][0].strip("*").startswith("+1.50")


def test_parts_have_more_seeds_in_a_table_of_their_own(plan):
    plan = replace(plan, ablated=("digits",), more_seeds=(3, 4), parts_seeds=(3,), more_methods=(CDC, NEITHER, ONE))
    figures = of_three_seeds(plan, NEITHER)
    measured = Measured(plan, figures)
    (more,), (fewer,) = (
        cells(made, "of VSD: both losses") for made in (tables.more_parts(measured), tables.parts(measured))
    )
    assert [row[0].strip("*").split()[0] for row in (more, fewer)] == ["+3.00", "+1.50"]
    assert [row[3] for row in (more, fewer)] == ["3", "2"]
    assert "one template" not in tables.more_parts(measured)


def test_open_sets_are_of_new_classes_and_of_other_sets(plan):
    figures = {
        "near/auroc_open_confidence": 60.0,
        "near/fpr95_open_uncertainty_calibrated": 70.0,
        "far/auroc_open_confidence": 80.0,
        "far/auroc_open_uncertainty_calibrated": 90.0,
    }
    text = trust.open_set(Measured(plan, calibrated(plan, {CDC: [figures] * 2})))
    near, far = cells(text, "CDC")
    assert near == ["60.00 ± 0.00", *[NOTHING] * 6, "70.00 ± 0.00"]
    assert far == ["80.00 ± 0.00", *[NOTHING] * 4, "90.00 ± 0.00", NOTHING, NOTHING]


def test_calibration_under_a_shift_is_that_of_the_variants(plan):
    plan = replace(plan, variants=("shapesv2", "shapes_r"))
    figures = {}
    for dataset, error in (("shapes", 4.0), ("shapesv2", 6.0), ("shapes_r", 10.0)):
        own = {"ece": 3 * error, "ece_calibrated": error, "accuracy": 90 - error, "accuracy_calibrated": 91 - error}
        figures.update(calibrated(plan, {PROBE: [own] * 2}, "evaluation", dataset))
    ((*found,),) = cells(trust.calibration_shifted(Measured(plan, figures)), PROBE.title)
    assert [float(cell.split()[0]) for cell in found] == [12, 4, 24, 8, 86, 87, 82, 83]


def test_differences_after_calibration_are_paired(plan):
    """By seed the methods differ by the same, and what was before calibration does not matter.

    On the variants they differ by 3 and by 1 with the two seeds, on each, as that is one training.
    """
    plan = replace(plan, variants=("shapesv2", "shapes_r"))

    def figures(ece, confidence, uncertainty=0.0):
        errors = {"ece": 50.0, "ece_calibrated": ece, "nll_calibrated": 1.0, "accuracy_calibrated": 80 - ece}
        errors.update({"auroc_error_confidence_calibrated": 80.0, "aurc_confidence_calibrated": 5.0})
        for part, more in (("near", 0.0), ("far", 10.0)):
            for name in ("auroc_open", "fpr95_open"):
                errors[f"{part}/{name}_confidence_calibrated"] = confidence + more
                errors[f"{part}/{name}_uncertainty_calibrated"] = uncertainty + more
        return errors

    numbers = {
        CDC: [figures(2.0, 70.0, 75.0), figures(6.0, 60.0, 65.0)],
        COOP: [figures(5.0, 69.0), figures(9.0, 59.0)],
    }
    found = {}
    for kind in ("open_set", "test_new"):
        found.update(calibrated(plan, numbers, kind))
    numbers[COOP] = [figures(5.0, 69.0), figures(7.0, 59.0)]
    for dataset in plan.variants:
        found.update(calibrated(plan, numbers, "evaluation", dataset))
    errors, by_confidence, by_own, shifted = cells(trust.calibration_differences(Measured(plan, found)), "CoOp")
    estimates = [[cell.split()[0].strip("*") for cell in row] for row in (errors, by_confidence, by_own, shifted)]
    assert estimates[0][:4] == ["-3.00", "+0.00", "+0.00", "+0.00"]
    assert errors[0] == "**-3.00 [-3.00, -3.00]**"
    assert errors[4:] == ["2", "ECE"]
    assert estimates[1][:4] == ["+1.00"] * 4
    assert estimates[2][:4] == ["+6.00"] * 4  # CDC's uncertainty, CoOp's confidence
    assert shifted[:2] == ["-2.00 [-11.17, +7.17]", "+2.00 [-7.17, +11.17]"]  # 2^0.5 * 12.7062 / 1.95996


# ---- figures in files


def test_figures_are_kept_and_read_again(tmp_path):
    figures = {"a/seed1": {"accuracy": 79.3358, "train_seconds": 12345.6789}, "b/seed1": {"accuracy": 0.0}}
    write_kept(tmp_path / "study.csv", figures)
    assert read_kept(tmp_path / "study.csv") == figures
    assert (tmp_path / "study.csv").read_text().splitlines()[0] == ",".join(["run", *FIGURES])


EMPTY = "," * (len(FIGURES) - 1)  # the figures after accuracy


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (f"a/seed1,much{EMPTY}\n", "could not convert"),
        ("a/seed1,8\n", "2 values"),
        (f"a/seed1,1.0{EMPTY},2.0,3.0\n", "values"),
        (f"a/seed1,{EMPTY}1.0\n", "no accuracy"),
        (f"a/seed1,nan{EMPTY}\n", "not finite"),
        (f"a/seed1,1.0{EMPTY}20.0", "last line is cut"),
        (f"a/seed1,1.0{EMPTY}\na/seed1,2.0{EMPTY}\n", "a/seed1 once more"),
    ],
)
def test_a_kept_file_that_is_not_whole_is_refused(tmp_path, lines, problem):
    write_kept(tmp_path / "study.csv", {"b/seed1": {"accuracy": 1.0}})
    (tmp_path / "study.csv").write_text((tmp_path / "study.csv").read_text() + lines)
    with pytest.raises(ValueError, match=rf"study\.csv is not whole in line [234]: .*{problem}"):
        read_kept(tmp_path / "study.csv")


def test_a_kept_file_of_other_figures_is_refused(tmp_path):
    (tmp_path / "study.csv").write_text("run,accuracy,beauty\na/seed1,1.0,2.0\n")
    with pytest.raises(ValueError, match="line 2: it begins with 'run,accuracy,beauty', not with names of figures"):
        read_kept(tmp_path / "study.csv")


def test_figures_are_read_from_results(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.json").write_text(
        '{"figures": {"accuracy": 66.666666, "ece": 1.0, "brier": 2.0, "near/auroc_open_confidence": 60.0, '
        '"symbols/auroc_open_confidence": 70.0, "textures/auroc_open_confidence": 90.0}, "train_seconds": 3}'
    )
    found = read_figures(tmp_path, [folder, Path(tmp_path / "missing")])
    open_set = {"near/auroc_open_confidence": 60.0, "far/auroc_open_confidence": 80.0}  # the mean of the other sets
    assert found == {"run": {"accuracy": 66.6667, "ece": 1.0, "train_seconds": 3.0, **open_set}}
    (folder / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"not a whole results\.json"):
        read_figures(tmp_path, [folder])


def test_averaged_cdc_is_compared_before_calibration(plan):
    """Its doubt with the confidence of the others."""
    own = {"ece": 4.0, "nll": 1.0, "auroc_error_confidence": 90.0, "aurc_confidence": 3.0}
    own.update(auroc_error_doubt=95.0, aurc_doubt=2.0)
    other = {**own, "ece": 6.0, "auroc_error_confidence": 85.0, "auroc_error_doubt": 1.0, "ece_calibrated": 99.0}
    figures = {}
    for kind in ("open_set", "test_new"):
        figures.update(calibrated(plan, {AVERAGED: [own] * 2, COOP: [other] * 2, CDC: [other] * 2}, kind))
    text = trust.averaged_differences(Measured(plan, figures))
    for title in ("CoOp", "CDC"):
        ((*found, seeds, _),) = cells(text, title)
        values = [float(cell.strip("*").split()[0]) for cell in found]
        assert values == [-2.0, 0.0, 5.0, 0.0, 10.0, -1.0]
        assert seeds == "2"
