"""The study of the uncertainty: its ways to fuse by hand, what it measures of cosines, its page from its figures."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch

from tools.common.layout import parse
from tools.study import methods
from tools.study.methods import Method
from tools.study.uncertainty import runs
from tools.study.uncertainty.__main__ import main
from tools.study.uncertainty.figures import Row, read_figures, write_figures
from tools.study.uncertainty.logits import measure_logits
from tools.study.uncertainty.measure import Cosines, Part, measure
from tools.study.uncertainty.page import PAGE, _calibration, _everyone, _losses, _summary, average, write_page
from tools.study.uncertainty.runs import Run, cosines_of, measure_all, plan
from tools.study.uncertainty.ways import (
    KEPT,
    PAPER,
    WAYS,
    Way,
    belief_averaging,
    cautious,
    cumulative,
    discount,
    witnesses,
)
from trainers.modules.evidence import EvidenceFunction, fused_log_evidence

FIGURES = PAGE.with_suffix(".json")
H = EvidenceFunction("exp", 40.0, 0.2)


def random_logs(m=3, n=5, c=4):
    return 2 * torch.randn(m, n, c, dtype=torch.float64, generator=torch.Generator().manual_seed(m))


@pytest.fixture
def cosines():
    """Of 3 templates that agree more or less, 4 classes and 40 images a part; most are classified correctly."""
    generator = torch.Generator().manual_seed(0)

    def part(gap):
        label = torch.randint(4, (40,), generator=generator)
        noise = 0.05 * torch.randn(3, 40, 4, dtype=torch.float64, generator=generator)
        common = 0.05 * torch.randn(1, 40, 4, dtype=torch.float64, generator=generator)
        return Part(0.15 + noise + common + gap * torch.nn.functional.one_hot(label, 4), label)

    return Cosines(part(0.1), part(0.1), part(0.1), part(0.0))


def test_templates_counted_as_so_many_witnesses():
    logs = random_logs()
    torch.testing.assert_close(witnesses(logs, 3), fused_log_evidence(logs))
    torch.testing.assert_close(witnesses(logs, 1), fused_log_evidence(logs, "averaging"))


def test_rules_on_equal_templates():
    one = random_logs(1)
    logs = one.expand(3, 5, 4)
    torch.testing.assert_close(cautious(logs), one[0])
    torch.testing.assert_close(belief_averaging(logs), one[0])
    torch.testing.assert_close(cumulative(logs), one[0] + math.log(3))


def test_discounting_by_hand():
    # Evidence (2, 0) is belief (1/2, 0) and uncertainty 1/2; half of that is (1/4, 0) and 3/4, of evidence (2/3, 0)
    found = discount(torch.tensor([[[2.0, 0.0]]], dtype=torch.float64).log(), torch.tensor([0.5]))
    assert found.exp()[0, 0].tolist() == pytest.approx([2 / 3, 0])


def test_every_way_measures_everything(cosines):
    names = {frozenset(measure(cosines, way, H)) for way in WAYS.values()}
    assert len(names) == 1
    assert {"base_ece", "new_auroc_error_doubt", "base_aurc_confidence", "auroc_open_uncertainty"} <= next(iter(names))


def test_what_is_kept_changes_certainty_and_no_prediction(cosines):
    paper, kept = (measure(cosines, way, H) for way in (PAPER, KEPT))
    assert kept["base_accuracy"] == paper["base_accuracy"]
    assert kept["new_accuracy"] == paper["new_accuracy"]
    assert kept["base_uncertainty"] > paper["base_uncertainty"]


def test_centred_evidence_knows_no_offset_of_an_image(cosines):
    offset = 0.3 * torch.rand(1, 40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    moved = Cosines(*(part._replace(cosine=part.cosine + offset) for part in cosines[:4]))
    centred = PAPER._replace(centred=True)
    assert measure(moved, centred, H) == pytest.approx(measure(cosines, centred, H), rel=1e-5)
    assert measure(moved, PAPER, H)["base_auroc_error_uncertainty"] != pytest.approx(
        measure(cosines, PAPER, H)["base_auroc_error_uncertainty"], rel=1e-5
    )


def test_fitted_evidence_is_fitted_on_validation_images_alone(cosines):
    fitted = Way("", KEPT.rule, "expected", fitted=True)
    swapped = cosines._replace(val=cosines.val._replace(label=cosines.val.label.flip(0)))
    assert measure(cosines, fitted, H)["base_nll"] != measure(swapped, fitted, H)["base_nll"]
    assert measure(cosines, KEPT, H) == measure(swapped, KEPT, H)


def features(splits, labels, seed):
    rng = np.random.default_rng(seed)
    return {
        "image_features": rng.normal(size=(2, len(labels), 6)).astype(np.float32),
        "text_features": rng.normal(size=(2, 3, 6)).astype(np.float32),
        "labels": np.array(labels),
        "splits": np.array(splits),
    }


def test_cosines_of_features():
    base = features(["train", "val", "test", "test"], [0, 1, 2, 0], 1)
    new = features(["test", "test"], [2, 1], 2)
    found = cosines_of(base, new)
    assert [part.label.tolist() for part in found[:4]] == [[1], [2, 0], [2, 1], [0, 0]]
    by_hand = base["image_features"][1, 3] @ base["text_features"][1, 2]
    assert found.base.cosine[1, 1, 2].item() == pytest.approx(by_hand, rel=1e-5)
    by_hand = new["image_features"][0, 1] @ base["text_features"][0, 2]
    assert found.unknown.cosine[0, 1, 2].item() == pytest.approx(by_hand, rel=1e-5)
    by_hand = new["image_features"][0, 1] @ new["text_features"][0, 2]
    assert found.new.cosine[0, 1, 2].item() == pytest.approx(by_hand, rel=1e-5)


def test_images_of_smaller_sets_are_never_both_fitted_on_and_tested():
    labels = [0] * 7 + [1] * 7
    found = cosines_of(features(["test"] * 14, labels, 1), features(["test"], [0], 2))
    assert found.val.label.tolist() == [0] * 5 + [1] * 5
    assert found.base.label.tolist() == [0, 0, 1, 1]


def test_runs_lie_where_the_scripts_put_them(tmp_path):
    runs = list(plan([1, 2]))
    folders = [run.experiment(tmp_path).folder for run in runs]
    assert len(set(folders)) == len(folders)
    for run, folder in zip(runs, folders):
        place = parse(folder.relative_to(tmp_path / "choice" if run.choice else tmp_path))
        assert (place.trainer, place.dataset, place.seed) == (run.method.trainer, run.dataset, run.seed)


def test_figures_come_back(tmp_path):
    rows = [
        Row(True, "CDC", "shapes", 1, "paper", {"a": 1.2345, "b": 2.0}),
        Row(False, "é", "x", 2, "kept", {"b": 0.5}),
    ]
    write_figures(tmp_path / "figures.json", rows)
    assert read_figures(tmp_path / "figures.json") == [rows[0]._replace(figures={"a": 1.234, "b": 2.0}), rows[1]]


@pytest.mark.parametrize("text", ["", "[]", '{"names": ["a"]}', '{"names": 3, "rows": [[]]}'])
def test_broken_figures_are_told(tmp_path, text):
    (tmp_path / "figures.json").write_text(text)
    with pytest.raises(ValueError, match=r"figures\.json is not a file of figures"):
        read_figures(tmp_path / "figures.json")


def test_mean_is_over_sets_and_then_over_seeds():
    values = {(1, "a"): 10.0, (1, "b"): 20.0, (2, "a"): 30.0, (2, "b"): 20.0, (3, "a"): 99.0}
    rows = [Row(False, "CDC", dataset, seed, "paper", {"x": value}) for (seed, dataset), value in values.items()]
    assert average(rows, "x") == "20.0 ± 7.1"  # seed 3 lacks a set
    assert average(rows[:2], "x") == "15.0"
    assert average(rows, "y") == "-"
    without_nll = [Row(False, "CDC", dataset, 1, "paper", {"nll": 1.0} if dataset == "a" else {}) for dataset in "ab"]
    assert average(without_nll, "nll") == "-"  # and not that of one set


def rows_of(title, way, values, seeds=(1, 2)):
    """Rows of one figure on two sets, from its mean over them by seed."""
    return [
        Row(False, title, dataset, seed, way, {name: value + more for name, value in own.items()})
        for seed, own in zip(seeds, values)
        for dataset, more in (("a", -1.0), ("b", 1.0))
    ]


def test_first_table_has_the_best_other_method_and_the_difference_by_seed():
    """What trains nothing has one seed, which stands beside each of the others; a method that lacks a set is none."""
    ece, auroc = "new_ece", "new_auroc_error_{}".format
    rows = rows_of("CDC", "paper", [{ece: 12.0, auroc("uncertainty"): 70.0}, {ece: 14.0, auroc("uncertainty"): 74.0}])
    rows += rows_of("CDC", "kept", [{ece: 5.0, auroc("doubt"): 88.0}, {ece: 6.0, auroc("doubt"): 87.0}])
    rows += rows_of("MaPLe", "paper", [{ece: 7.0, auroc("confidence"): 88.0}, {ece: 8.0, auroc("confidence"): 89.0}])
    rows += rows_of("MaPLe", "fitted", [{ece: 1.0}, {ece: 1.0}])
    rows += rows_of("Zero-shot CLIP", "paper", [{ece: 6.0, auroc("confidence"): 80.0}], (1,))
    rows += [Row(False, "CoOp", "a", 1, "paper", {ece: 0.0, auroc("confidence"): 100.0})]
    assert cells_of(_summary(rows)) == [
        ["ECE", "13.0 ± 1.4", "5.5 ± 0.7", "6.0, Zero-shot CLIP", "-0.5 ± 0.7", "lower"],
        [
            "error AUROC by CDC's own uncertainty",
            "`U` 72.0 ± 2.8",
            "doubt 87.5 ± 0.7",
            "confidence 88.5 ± 0.7, MaPLe",
            "-1.0 ± 1.4",
            "higher",
        ],
    ]


def test_other_trainings_stand_beside_the_same_runs_of_the_usual_one():
    """Differences are taken seed by seed, and the usual training has no seed that the other one lacks."""

    def figures(*accuracies):
        return [{"new_accuracy": value} for value in accuracies]

    rows = rows_of("CDC", "paper", figures(80.0, 90.0, 10.0), (1, 2, 3))
    rows += rows_of("fused", "paper", figures(82.0, 91.0))
    tables = _losses(rows).split("\n\n")
    assert tables[0] == "On a, b, seeds 1, 2."
    assert cells_of(tables[1])[0][0::2][:2] == ["fused: Dempster (5), belief (6): the paper's", "+1.5 ± 0.7"]
    assert [(line[0].split(":")[0], line[1]) for line in cells_of(tables[3])[:2]] == [
        ("(7) alone", "85.0 ± 7.1"),
        ("fused", "86.5 ± 6.4"),
    ]
    rows += rows_of("kl", "paper", figures(70.0), (2,))
    differences, *tables = _losses(rows).split("\n\n")
    title = "{}: Dempster (5), belief (6): the paper's (a, b, {})".format
    assert [line[0] for line in cells_of(differences)[:2]] == [title("fused", "seeds 1, 2"), title("kl", "seed 2")]
    assert {line[0]: line[1] for line in cells_of(tables[1])[:4]} == {
        title("(7) alone", "seeds 1, 2"): "85.0 ± 7.1",
        title("fused", "seeds 1, 2"): "86.5 ± 6.4",
        title("(7) alone", "seed 2"): "90.0",
        title("kl", "seed 2"): "70.0",
    }
    assert _losses(rows_of("CDC", "paper", figures(80.0))) == "None was measured."


def cells_of(table):
    """The cells of a table's lines below its heading."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_calibration_of_every_method_before_and_after():
    def figures(base, new):
        return {"base_ece": base, "new_ece": new, "base_nll": base / 10, "new_nll": new / 10}

    rows = rows_of("CoOp", "paper", [figures(6.0, 5.0)], (1,)) + rows_of("CoOp", "fitted", [figures(4.0, 7.0)], (1,))
    rows += rows_of("CDC", "paper", [figures(12.0, 9.0)], (1,)) + rows_of("CDC", "fitted", [figures(5.0, 6.0)], (1,))
    rows += rows_of("CDC", "kept", [figures(6.0, 6.0)], (1,)) + rows_of("CDC", "kept_fitted", [figures(4.0, 7.0)], (1,))
    rows += [row._replace(dataset="c") for row in rows if row.dataset == "a" and row.method == "CDC"]  # not of CoOp
    rows += [row._replace(dataset=name) for name in "def" for row in rows if row.dataset == "a" and row.method == "CDC"]
    rows += [row._replace(method="KgCoOp", dataset="c") for row in rows if row.method == "CoOp" and row.dataset == "a"]
    sets, table = _calibration(rows).split("\n\n")
    assert sets == "On a, b."
    header, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert header[:5] == ["method", "base ECE before", "base ECE after", "new ECE before", "new ECE after"]
    assert [line[:5] for line in lines] == [
        ["CoOp", "**6.0**", "**4.0**", "**5.0**", "7.0"],
        ["CDC", "12.0", "5.0", "9.0", "**6.0**"],
        ["CDC, mended", "**6.0**", "**4.0**", "6.0", "7.0"],
    ]


def test_all_methods_on_the_sets_that_all_have():
    def figures(confidence, entropy, own=None):
        open_set = {"auroc_open_confidence": confidence, "auroc_open_entropy": entropy}
        scores = {"new_aurc_confidence": confidence / 10, "new_ece": entropy}
        return {**open_set, **scores, **({} if own is None else {"auroc_open_uncertainty": own, "new_aurc_doubt": 9.0})}

    rows = rows_of("KgCoOp", "paper", [figures(71.0, 60.0)], (1,)) + rows_of(
        "MMRL", "paper", [figures(50.0, 58.0)], (1,)
    )
    rows += rows_of("CDC", "paper", [figures(99.0, 99.0, 81.0)], (1,))
    rows += rows_of("CDC", "kept", [figures(99.0, 61.0, 80.0)], (1,))
    rows += [row._replace(dataset="c", figures=figures(0.0, 0.0, 0.0)) for row in rows if row.method != "KgCoOp"]
    sets, table = _everyone(rows).split("\n\n")
    assert sets == "On a, b."
    header, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    shown = [header.index(name) for name in ("ECE (lower)", "AURC (lower)", "AUROC for unknown classes (higher)")]
    assert [[line[0], *(line[index] for index in shown)] for line in lines] == [
        ["KgCoOp", "60.0", "7.10", "71.0"],
        ["MMRL", "**58.0**", "**5.00**", "58.0"],
        ["CDC", "99.0", "-", "**81.0**"],
        ["CDC, mended", "61.0", "9.00", "80.0"],
    ]


def test_runs_are_trained_encoded_once_and_measured(tmp_path, monkeypatch):
    """A method with one prompt, one that its logits are read of, and one that is not there."""
    few = {"DATASET.NUM_SHOTS": 1, "OPTIM.MAX_EPOCH": 1, "TRAIN.CHECKPOINT_FREQ": 0}
    coop = Method("CoOp", "CoOp", settings={**few, "TRAINER.COOP.FEATURE_BANK": 1})
    kgcoop = Method("KgCoOp", "KgCoOp", settings={**few, "TRAINER.KGCOOP.FEATURE_BANK": 1})
    absent = Method("MaPLe", "MaPLe", settings=few)
    planned = [Run(False, method, "digits", 1) for method in (coop, kgcoop, absent)]
    monkeypatch.setattr(runs, "FURTHER", (kgcoop,))
    monkeypatch.setattr(methods, "FAR_SETS", ("digits", "symbols"))
    monkeypatch.setattr(runs, "SHOTS", 1)
    monkeypatch.setattr(runs, "CHOICE_SETS", ())
    monkeypatch.setattr(methods, "SETS", ("digits", "symbols"))
    output, data = tmp_path / "output", tmp_path / "data"
    monkeypatch.setattr(runs, "plan", lambda seeds: planned[:2])
    found = measure_all(output, data, [1], train=True)
    monkeypatch.setattr(runs, "plan", lambda seeds: planned)
    assert measure_all(output, data, [1], train=False) == found
    assert [(row.method, row.way) for row in found] == [
        (method, way) for method in ("CoOp", "KgCoOp") for way in ("paper", "fitted")
    ]
    for row in found:
        assert {"base_accuracy", "new_aurc_confidence", "auroc_far_confidence"} <= set(row.figures)
        assert all(math.isfinite(figure) for figure in row.figures.values())
    (paper, fitted), folder = found[:2], planned[0].experiment(output).folder
    assert fitted.figures["new_accuracy"] == paper.figures["new_accuracy"]
    assert sorted(path.name for path in folder.glob("features_*")) == [
        f"features_{name}.npz" for name in ("base", "new", "symbols")
    ]


def test_logits_before_and_after_their_temperature():
    """Fitted on validation images alone; it changes no prediction. Far sets are averaged."""
    rng = np.random.default_rng(0)
    names = ("val", "base", "new", "unknown", "far0", "far1")
    content = {name: 8 * rng.normal(size=(60, 3)).astype(np.float32) for name in names}
    for name in names[:3]:
        noise = content[name] + 6 * rng.normal(size=(60, 3))
        content[f"{name}_label"] = noise.argmax(axis=1)
    before, after = measure_logits(content)
    assert after["base_accuracy"] == before["base_accuracy"]
    assert after["base_nll"] < before["base_nll"]
    for name in ("auroc_open_confidence", "auroc_far_entropy", "fpr95_far_confidence", "new_eaurc_entropy"):
        assert name in before
    assert "new_auroc_error_doubt" not in before
    other = measure_logits({**content, "far1": content["far0"]})[0]
    same = measure_logits({name: value for name, value in content.items() if name != "far1"})[0]
    assert other["auroc_far_entropy"] == pytest.approx(same["auroc_far_entropy"])
    assert before["auroc_far_entropy"] != pytest.approx(same["auroc_far_entropy"])
    assert other["base_nll"] == before["base_nll"]


def test_other_data_sets_are_averaged(cosines):
    far = cosines._replace(far=(cosines.unknown, cosines.new))
    found, near = measure(far, KEPT, H), measure(cosines._replace(unknown=cosines.new), KEPT, H)
    half = (found["auroc_open_doubt"] + near["auroc_open_doubt"]) / 2
    assert found["auroc_far_doubt"] == pytest.approx(half)
    assert not any("far" in name for name in measure(cosines, KEPT, H))


def test_the_page_is_that_of_its_figures(tmp_path):
    page = tmp_path / PAGE.name
    shutil.copy(PAGE, page)
    write_page(FIGURES, page)
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_page_that_lacks_a_block_is_told(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Nothing\n")
    monkeypatch.setattr("sys.argv", ["uncertainty", "--page-only", "--page", str(page)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "must hold each of the blocks" in capsys.readouterr().err


def test_without_runs_there_is_no_page(tmp_path, monkeypatch, capsys):
    arguments = ["--finished", "--output", str(tmp_path), "--data", str(tmp_path), "--page", str(tmp_path / "page.md")]
    monkeypatch.setattr("sys.argv", ["uncertainty", *arguments, "--figures", str(tmp_path / "figures.json")])
    monkeypatch.setattr(
        "tools.study.uncertainty.runs.plan", lambda seeds: [run for run in plan(seeds) if run.method.train]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "there is no finished run" in capsys.readouterr().err
