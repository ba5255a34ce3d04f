"""Tables of runs: reading results.json and published logs, figures, what is missing, the paper's numbers, formats.

The lines of logs are those that the published Dassl printed, kept in golden/dassl_engine.json.
"""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from statistics import mean

import compat  # noqa: F401

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.evaluation import build_evaluator
from PIL import Image, ImageColor

from helpers import GOLDEN, ROOT
from tools.common.colours import TRAINERS
from tools.data.check import public_names
from tools.results import published, render, table_of, tables, text_table
from tools.results.__main__ import main
from tools.results.render import FORMATS, tables_of
from tools.results.runs import Run, find_runs, read_logs, read_runs

TRAININGS = json.loads((GOLDEN / "dassl_engine.json").read_text())["trainings"]
LAST_EPOCH = TRAININGS["last step, warm-up"]["printed"]  # 159 of 300 right
BEST_EPOCH = TRAININGS["best by validation"]["printed"]  # 158 of 300 right
NO_TEST = TRAININGS["no test"]["printed"]


def printed_test(total=300, correct=159, decimals=1, header="Evaluate on the *test* set"):
    """What Dassl prints of one test."""
    accuracy = 100 * correct / total
    lines = [header, "=> result", f"* total: {total:,}", f"* correct: {correct:,}"]
    return [*lines, f"* accuracy: {accuracy:.{decimals}f}%", f"* error: {100 - accuracy:.{decimals}f}%"]


def write_log(folder, lines, name="log.txt", classes=None, seed=None, model_dir=None):
    head = [] if model_dir is None else [f"model_dir: {model_dir}"]
    head += [] if classes is None else ["DATASET:", f"  SUBSAMPLE_CLASSES: {classes}"]
    head += [] if seed is None else [f"SEED: {seed}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([*head, *lines]) + "\n")


def write_json(folder, accuracy, **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"figures": {"accuracy": accuracy}, **content}))


def base2new(output, part, trainer, seed, accuracy, dataset="shapes", config="tiny", shots=16, **content):
    folder = output / "base2new" / part / dataset / f"shots_{shots}" / trainer / config / f"seed{seed}"
    write_json(folder, accuracy, **content)
    return folder


def both(output, trainer, seed, base, new, **place):
    base2new(output, "train_base", trainer, seed, base, **place)
    base2new(output, "test_new", trainer, seed, new, **place)


def accuracy_of(folder):
    return read_logs(folder).accuracy


# --- logs


@pytest.mark.parametrize(("lines", "correct"), [(LAST_EPOCH, 159), (BEST_EPOCH, 158)])
def test_published_training_log(tmp_path, lines, correct):
    write_log(tmp_path, lines)
    # 158 of 300 is 52.666...%, printed as 52.7%; the validations before it are 43.3%
    assert accuracy_of(tmp_path) == pytest.approx(100 * correct / 300, abs=1e-12)
    assert read_logs(tmp_path).metrics["macro_f1"] == 48.5


def test_interrupted_log_has_no_result(tmp_path):
    """However early the log ends, only the whole line of the accuracy makes a result of it."""
    text = "\n".join(LAST_EPOCH)
    whole = text.index("* accuracy: 53.0%") + len("* accuracy: 53.0%")
    for end in (*range(0, whole, 97), *range(whole - 60, whole)):
        (tmp_path / "log.txt").write_text(text[:end])
        assert accuracy_of(tmp_path) is None, text[:end]
    (tmp_path / "log.txt").write_text(text[:whole])
    assert accuracy_of(tmp_path) == 53.0
    (tmp_path / "log.txt").write_text(text[: text.index("Finish training")])
    assert read_logs(tmp_path).problem.endswith("log.txt: training has not finished")


def test_validation_alone_is_no_result(tmp_path):
    write_log(tmp_path, BEST_EPOCH[: BEST_EPOCH.index("Finish training")])
    assert accuracy_of(tmp_path) is None
    write_log(tmp_path, BEST_EPOCH[: BEST_EPOCH.index("Evaluate on the *test* set")])
    assert accuracy_of(tmp_path) is None
    write_log(tmp_path, NO_TEST)
    assert accuracy_of(tmp_path) is None


def test_choosing_on_the_test_split_does_not_count(tmp_path):
    """Without validation images Dassl chooses the best epoch on the test split."""
    lines = [line.replace("*val*", "*test*") for line in BEST_EPOCH]
    write_log(tmp_path, lines[: lines.index("Finish training")])
    assert accuracy_of(tmp_path) is None
    assert "has not finished" in read_logs(tmp_path).problem
    write_log(tmp_path, lines)
    assert accuracy_of(tmp_path) == pytest.approx(100 * 158 / 300)


@pytest.mark.parametrize(
    "header",
    ["Evaluate on the *test* set", "Evaluate on the test set", "Do evaluation on test set"],
)
def test_headers_of_older_versions(tmp_path, header):
    write_log(
        tmp_path, [*printed_test(1203, 671, 2, header), *printed_test(10, 1, header=header.replace("test", "val"))]
    )
    assert accuracy_of(tmp_path) == pytest.approx(100 * 671 / 1203, abs=1e-12)


def test_last_of_several_tests_counts(tmp_path):
    write_log(tmp_path, [*LAST_EPOCH, *printed_test(correct=30), *printed_test(correct=60)])
    assert accuracy_of(tmp_path) == 20.0


def test_log_of_a_resumed_run(tmp_path):
    """Dassl names the log of a second run in a folder log.txt-<time>; older ones and copies append."""
    write_log(tmp_path, NO_TEST[:5])
    write_log(tmp_path, printed_test(correct=30), "log.txt-2023-05-01-10-00-00")
    write_log(tmp_path, printed_test(correct=60), "log.txt-2023-05-02-09-00-00")
    write_log(tmp_path, printed_test(correct=90), "log.txt~")
    assert accuracy_of(tmp_path) == 20.0
    write_log(tmp_path, NO_TEST[:5], "log.txt-2023-05-03-09-00-00")
    assert accuracy_of(tmp_path) == 20.0, "a later run without a test takes nothing back"
    (tmp_path / "appended").mkdir()
    write_log(tmp_path / "appended", [*LAST_EPOCH[:6], *LAST_EPOCH])
    assert accuracy_of(tmp_path / "appended") == 53.0


def test_percentage_alone_is_taken_as_printed(tmp_path):
    write_log(tmp_path, ["Evaluate on the *test* set", "=> result", "* accuracy: 84.50%"])
    assert accuracy_of(tmp_path) == 84.5


def test_log_that_contradicts_itself(tmp_path):
    write_log(tmp_path, [line.replace("53.0%", "35.0%") for line in LAST_EPOCH])
    with pytest.raises(ValueError, match=r"log\.txt contradicts itself: 159 of 300 images correct, and accuracy 35"):
        read_logs(tmp_path)


def test_other_bytes_and_line_ends_in_a_log(tmp_path):
    (tmp_path / "log.txt").write_bytes(b"\xff\xfe\x00caf\xe9\r\n" + "\r\n".join(LAST_EPOCH).encode())
    assert accuracy_of(tmp_path) == 53.0


def test_embedded_dassl_prints_lines_that_are_read(tmp_path, capsys):
    evaluator = build_evaluator(get_cfg_default())
    evaluator.process(torch.eye(7), torch.tensor([0, 1, 2, 3, 4, 0, 0]))
    capsys.readouterr()
    accuracy = evaluator.evaluate()["accuracy"]
    write_log(tmp_path, ["Evaluate on the *test* set", *capsys.readouterr().out.splitlines()])
    assert accuracy_of(tmp_path) == pytest.approx(accuracy, abs=1e-12)


# --- records


def test_records(tmp_path):
    folder = base2new(tmp_path, "test_new", "CDC", 2, 48.0)
    write_json(folder, 48.0, split="test", classes="new", seed=2, figures={"accuracy": 48.0, "uncertainty": 0.25})
    (run,) = read_runs(tmp_path, "base2new")
    assert run == Run("base2new", "shapes", 16, "CDC", "tiny", 2, "new", "", 48.0, {}, folder / "results.json")
    assert run.metrics == {"accuracy": 48.0, "uncertainty": 0.25}


def test_results_json_goes_before_the_log(tmp_path):
    folder = base2new(tmp_path, "test_new", "CDC", 1, 48.0)
    write_log(folder, LAST_EPOCH)
    assert [run.accuracy for run in read_runs(tmp_path, "base2new")] == [48.0]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"figures": {}}', '{"figures": {"accuracy": "high"}}', '{"figures": {"accuracy": NaN}}',
     '{"figures": {"accuracy": 101}}', '{"figures": null}', "", '{"figures": {"accuracy": 50, "uncertainty": NaN}}',
     '{"figures": {"accuracy": 50, "uncertainty": 1e999}}', "[" * 100_000, f'{{"figures": {{"accuracy": {10**400}}}}}'],
)  # fmt: skip
def test_broken_results_json_is_named(tmp_path, text):
    folder = base2new(tmp_path, "test_new", "CDC", 1, 60.0)
    (folder / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"seed1/results\.json is not a whole results\.json"):
        find_runs(tmp_path, "base2new")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"classes": "base"}, "is of base classes, in a folder for new classes"),
        ({"seed": 3}, "is of seed 3"),
        ({"split": "val"}, "is of the val split"),
    ],
)
def test_result_of_another_run_does_not_count(tmp_path, content, problem):
    write_json(base2new(tmp_path, "test_new", "CDC", 1, 60.0), 60.0, **content)
    (run,) = find_runs(tmp_path, "base2new")
    assert run.accuracy is None
    assert problem in run.problem
    assert read_runs(tmp_path, "base2new") == []


def test_log_of_another_run_does_not_count(tmp_path):
    folder = tmp_path / "base2new/test_new/dtd/shots_16/CoOp/rn50/seed1"
    write_log(folder, printed_test(), classes="base", seed=1)
    assert "is of base classes" in find_runs(tmp_path, "base2new")[0].problem
    write_log(folder, printed_test(), classes="new", seed=2)
    assert "is of seed 2" in find_runs(tmp_path, "base2new")[0].problem
    for seed in (1, -1, None):  # published scripts leave seed 0 unset, logs before CoCoOp name no classes
        write_log(folder, printed_test(), classes=None if seed is None else "new", seed=seed)
        assert find_runs(tmp_path, "base2new")[0].accuracy == 53.0


def test_config_of_a_joined_log_is_the_one_before_the_result(tmp_path):
    """Several runs in one log.txt: seed and classes are those of the run whose result counts."""
    folder = tmp_path / "base2new/test_new/dtd/shots_16/CoOp/rn50/seed2"

    def config(classes, seed):
        lines = ["** Config **", "DATASET:"] + [f"  SUBSAMPLE_CLASSES: {classes}"] * (classes is not None)
        return [*lines, "  VAL_PERCENT: 0.1", f"SEED: {seed}", "TEST:"]

    other, own = config("base", 1), config("new", 2)
    write_log(folder, [*other, *printed_test(correct=30), *own, *printed_test()])
    assert (read_logs(folder).seed, read_logs(folder).classes) == (2, "new")
    assert find_runs(tmp_path, "base2new")[0].accuracy == 53.0
    write_log(folder, [*own, *printed_test(), *other, *printed_test(correct=30)])
    assert "is of base classes" in find_runs(tmp_path, "base2new")[0].problem
    write_log(folder, [*own, *printed_test(), *other])  # cut before its test
    assert find_runs(tmp_path, "base2new")[0].accuracy == 53.0
    write_log(folder, [*other, *printed_test(correct=30), *config(None, 2), *printed_test()])
    assert read_logs(folder).classes is None, "not what an earlier config says"
    write_log(folder, [*own[1:], *printed_test(correct=30), *other[1:], *printed_test()])
    assert (read_logs(folder).seed, read_logs(folder).classes) == (1, "base")


def test_test_of_base_classes_goes_before_the_training_run(tmp_path):
    base2new(tmp_path, "train_base", "CDC", 1, 10.0)
    base2new(tmp_path, "test_base", "CDC", 1, 20.0)
    assert [run.accuracy for run in find_runs(tmp_path, "base2new")] == [20.0]
    (next(tmp_path.rglob("test_base/**/results.json"))).unlink()
    write_log(next(tmp_path.rglob("test_base/**/seed1")), NO_TEST)
    assert [run.accuracy for run in find_runs(tmp_path, "base2new")] == [10.0], "an unfinished test hides nothing"


def test_several_output_folders(tmp_path):
    base2new(tmp_path / "ours", "test_new", "CDC", 1, 60.0)
    write_log(tmp_path / "theirs/base2new/test_new/shapes/shots_16/MaPLe/tiny/seed1", printed_test(correct=150))
    runs = find_runs([tmp_path / "ours", tmp_path / "theirs"], "base2new")
    assert [(run.trainer, run.accuracy) for run in runs] == [("CDC", 60.0), ("MaPLe", 50.0)]
    base2new(tmp_path / "theirs", "test_new", "CDC", 1, 60.04)  # the same to a log's rounding
    assert len(find_runs([tmp_path / "ours", tmp_path / "theirs"], "base2new")) == 2
    base2new(tmp_path / "theirs", "test_new", "CDC", 1, 61.0)
    with pytest.raises(ValueError, match=r"ours.*and.*theirs.*different results of the same run"):
        find_runs([tmp_path / "ours", tmp_path / "theirs"], "base2new")


def test_filters(tmp_path):
    for trainer, config, shots, dataset in (("A", "x", 16, "dtd"), ("A", "y", 16, "dtd"), ("B", "x", 4, "eurosat")):
        both(tmp_path, trainer, 1, 80.0, 60.0, dataset=dataset, config=config, shots=shots)
    both(tmp_path, "ZeroshotCLIP", 1, 50.0, 40.0, dataset="dtd", config="x", shots=16)

    def kept(**filters):
        return sorted({run.trainer + run.config for run in find_runs(tmp_path, "base2new", **filters)})

    assert kept(trainers=["A"]) == ["Ax", "Ay"]
    assert kept(trainers=["A", "B"], configs=["x"]) == ["Ax", "Bx"]
    assert kept(datasets=["eurosat"]) == ["Bx"]
    assert kept(shots=[4]) == ["Bx", "ZeroshotCLIPx"], "zero-shot CLIP has no shots to differ in"
    assert kept(seeds=[2]) == []


def test_links_are_followed_and_loops_end(tmp_path):
    base2new(tmp_path / "elsewhere", "test_new", "CDC", 1, 60.0)
    (tmp_path / "output").mkdir()
    (tmp_path / "output/base2new").symlink_to(tmp_path / "elsewhere/base2new", target_is_directory=True)
    (tmp_path / "output/loop").symlink_to(tmp_path / "output", target_is_directory=True)
    assert [run.accuracy for run in find_runs(tmp_path / "output", "base2new")] == [60.0]


def test_wrong_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no output folder .*nowhere"):
        find_runs(tmp_path / "nowhere", "base2new")
    with pytest.raises(ValueError, match="must be one of base2new, xd, dg, fewshot, open_set, got 'b2n'"):
        find_runs(tmp_path, "b2n")
    with pytest.raises(ValueError, match="needs runs"):
        tables.build_table([])


# --- base to new


def test_harmonic_mean():
    assert tables.harmonic_mean(60.0, 40.0) == pytest.approx(48.0)
    assert tables.harmonic_mean(0.0, 40.0) == 0.0


def test_table_of_means(tmp_path):
    for seed, base, new in ((1, 80.0, 50.0), (2, 90.0, 70.0)):
        both(tmp_path, "CDC", seed, base, new)
    table = table_of(tmp_path)
    (column,) = table.columns
    assert column[:6] == ("CDC", "tiny", 16, "CDC", (1, 2), ("Base", "New", "HM"))
    assert column.cells["shapes", "Base"][:3] == (85.0, pytest.approx(7.0710678), (1, 2))
    # HM of the means 85 and 60, not the mean of the seeds' HM
    assert column.cells["shapes", "HM"][:3] == (pytest.approx(2 * 85 * 60 / 145), None, (1, 2))
    assert (table.averaged, table.missing) == ([], [])
    lines = text_table(tmp_path).splitlines()
    assert lines[3].split() == ["shapes", "85.00", "±", "7.07", "60.00", "±", "14.14", "70.34"]
    assert lines[-1] == "CDC: config tiny, 16 shots, seeds 1, 2"


def test_table_that_is_wider_than_the_terminal_has_a_row_per_method(tmp_path, monkeypatch, capsys):
    for trainer in ("CoOp", "CDC"):
        both(tmp_path, trainer, 1, 80.0, 60.0)
    wide = text_table(tmp_path)
    widest = max(map(len, wide.splitlines()[:5]))
    assert text_table(tmp_path, width=widest) == wide
    lines = text_table(tmp_path, width=widest - 1).splitlines()
    assert [line.split() for line in (lines[0], *lines[2:4])] == [
        ["data", "set", "method", "Base", "New", "HM"],
        ["shapes", "CoOp", "80.00", "60.00", "68.57"],
        ["CDC", "80.00", "60.00", "68.57"],
    ]
    assert lines[4:] == wide.splitlines()[4:]  # the notes
    monkeypatch.setenv("COLUMNS", str(widest - 1))
    main([str(tmp_path)])
    assert capsys.readouterr().out == wide + "\n"  # into a file or program, the table is as it was
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == lines


def with_ece(output, seed, base, new, trainer="CDC", **more):
    """A run of both halves, with its calibration error in `results.json`."""
    for part, ece in (("train_base", base), ("test_new", new)):
        figures = {"accuracy": 80.0, **({} if ece is None else {"ece": ece}), **more}
        base2new(output, part, trainer, seed, 80.0, figures=figures)


def test_table_of_another_figure(tmp_path):
    with_ece(tmp_path, 1, 10.0, 14.0)
    with_ece(tmp_path, 2, 12.0, 18.0)
    table = table_of(tmp_path, figure="ece")
    (column,) = table.columns
    assert column.metrics == ("Base", "New")  # a harmonic mean is of accuracies
    assert column.cells["shapes", "Base"][:3] == (11.0, pytest.approx(2**0.5), (1, 2))
    assert column.cells["shapes", "New"].mean == 16.0
    assert "ece: lower is better" in text_table(tmp_path, figure="ece")
    with_ece(tmp_path / "after", 1, 10.0, 14.0, accuracy_calibrated=60.0)
    (column,) = table_of(tmp_path / "after", figure="accuracy_calibrated").columns
    assert column.cells["shapes", "HM"].mean == 60.0
    assert "is better" not in text_table(tmp_path)


def test_run_without_the_figure_is_named(tmp_path):
    """One from before tests measured it."""
    with_ece(tmp_path, 1, 10.0, 14.0)
    with_ece(tmp_path, 2, None, None)
    table = table_of(tmp_path, figure="ece")
    assert table.columns[0].cells["shapes", "Base"].seeds == (1,)
    (sentence,) = table.missing
    assert sentence.startswith("CDC, shapes, seed 2: no base result and no new result (")
    assert sentence.count("results.json has no ece") == 2
    assert table_of(tmp_path).columns[0].cells["shapes", "Base"].seeds == (1, 2)


def test_trainer_without_the_figure_has_no_column(tmp_path):
    """As the uncertainty, which most methods do not have."""
    with_ece(tmp_path, 1, 10.0, 14.0, uncertainty=0.2)
    with_ece(tmp_path, 1, 9.0, 8.0, trainer="CoOp")
    both(tmp_path, "MaPLe", 1, 80.0, 60.0)
    table = table_of(tmp_path, figure="uncertainty")
    assert [column.trainer for column in table.columns] == ["CDC"]
    assert table.missing == ["CoOp, MaPLe: no run has uncertainty"]
    assert len(table_of(tmp_path).columns) == 3


def test_figure_that_no_run_has(tmp_path):
    with_ece(tmp_path, 1, 10.0, 14.0)
    with pytest.raises(ValueError, match=r"no run has the figure eec; there are accuracy, ece$"):
        table_of(tmp_path, figure="eec")
    with pytest.raises(ValueError, match="the paper has accuracies alone, got ece"):
        text_table(tmp_path, paper=True, figure="ece")


@pytest.mark.parametrize(
    ("figure", "better"),
    [("accuracy", "higher"), ("template2_accuracy", "higher"), ("auroc_error_entropy", "higher"), ("acc80_x", "higher"),
     ("ece10", "lower"), ("nll", "lower"), ("brier", "lower"), ("aurc_x", "lower"), ("eaurc_x", "lower"),
     ("fpr95_open_x", "lower"), ("error_rate", "lower"), ("uncertainty", ""), ("mean_confidence", "")],
)  # fmt: skip
def test_direction(figure, better):
    assert tables.direction(figure) == better


def test_several_figures_of_a_command(tmp_path, capsys):
    with_ece(tmp_path, 1, 10.0, 14.0, nll=0.5)
    main([str(tmp_path), "--metric", "ece", "--metric", "nll"])
    first, second = capsys.readouterr().out.split("\n\nnll\n\n")
    assert first.startswith("ece\n\n")
    assert "10.00" in first
    assert "0.50" in second
    assert "nll: lower is better" in second
    main([str(tmp_path), "--metric", "ece", "--metric", "nll", "--format", "csv"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[6] for line in lines] == ["metric", "base ece", "new ece", "base nll", "new nll"]


def test_curves_are_of_the_accuracy(tmp_path, capsys):
    arguments = [str(tmp_path), "--protocol", "fewshot", "--plot", str(tmp_path / "x.png"), "--metric", "ece"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "--plot draws the accuracy" in capsys.readouterr().err


# --- open sets


def open_set(output, trainer, seed, sets, dataset="shapes", scores=("confidence", "entropy")):
    """A run whose AUROC of the first score is as given by set, and of the next ones a point more each."""
    folder = output / "open_set" / dataset / "shots_16" / trainer / "tiny" / f"seed{seed}"
    figures = {"accuracy": 80.0, "ece": 5.0}
    for name, auroc in sets.items():
        own = {f"auroc_open_{score}": auroc + more for more, score in enumerate(scores)}
        figures.update({f"{name}/{figure}": value for figure, value in {"images": 60.0, **own}.items()})
    write_json(folder, 80.0, figures=figures, classes="base", seed=seed)


def test_open_set_near_and_far(tmp_path):
    for seed, near in ((1, 70.0), (2, 80.0)):
        open_set(tmp_path, "CoOp", seed, {"near": near, "digits": 90.0, "textures": 60.0})
        open_set(tmp_path, "CDC", seed, {"near": near + 10, "digits": 92.0, "textures": 70.0 + seed})
        open_set(tmp_path, "CoOp", seed, {"near": 50.0, "textures": 40.0}, "digits")
    both(tmp_path, "CoOp", 1, 80.0, 60.0)  # another protocol
    near, far = tables_of(tmp_path, "open_set")
    assert (near.figure, near.part, near.datasets) == ("auroc_open_confidence", "near", ["digits", "shapes"])
    coop, cdc = near.columns
    assert coop.cells["shapes", "Accuracy"][:3] == (75.0, pytest.approx(50**0.5), (1, 2))
    assert cdc.cells["shapes", "Accuracy"].mean == 85.0
    assert near.missing == ["CDC: no run on digits"]
    assert (far.part, far.datasets) == ("far", ["digits/textures", "shapes/digits", "shapes/textures"])
    coop, cdc = far.columns
    assert cdc.cells["shapes/textures", "Accuracy"][:2] == (71.5, pytest.approx(0.5**0.5))
    assert far.averaged == ["shapes/digits", "shapes/textures"]
    assert coop.averages["Accuracy"].mean == 75.0
    assert tables_of(tmp_path, "base2new")[0].datasets == ["shapes"]
    assert [len(tables_of(tmp_path, "open_set", datasets=[name])[1].datasets) for name in ("digits", "shapes")] == [
        1,
        2,
    ]


def test_open_set_by_every_score(tmp_path):
    """Each trainer has columns for its own."""
    for seed in (1, 2):
        open_set(tmp_path, "CoOp", seed, {"near": 70.0})
        open_set(tmp_path, "CDC", seed, {"near": 75.0}, scores=("confidence", "entropy", "uncertainty"))
    write_log(tmp_path / "open_set/shapes/shots_16/CDC/tiny/seed3", [])
    (table,) = tables_of(tmp_path, "open_set", figure="auroc_open")
    coop, cdc = table.columns
    assert coop.metrics == ("confidence", "entropy")
    assert cdc.metrics == ("confidence", "entropy", "uncertainty")
    assert cdc.cells["shapes", "uncertainty"][:2] == (77.0, 0.0)
    (sentence,) = table.missing
    assert sentence.startswith("CDC, shapes, seed 3: no result with confidence, entropy, uncertainty (")
    assert "holds no log with an evaluation" in sentence
    with pytest.raises(ValueError, match=r"no run has the figure fpr95; there are accuracy, auroc_open_confidence"):
        tables_of(tmp_path, "open_set", figure="fpr95")
    with pytest.raises(ValueError, match="part of an open set must be one of near, far, got 'x'"):
        table_of(tmp_path, "open_set", part="x")


def test_open_set_of_a_command(tmp_path, capsys):
    open_set(tmp_path, "CDC", 1, {"near": 75.0, "eurosat": 91.0}, "dtd")
    main([str(tmp_path), "--protocol", "open_set", "--metric", "auroc_open_entropy", "--metric", "ece"])
    near, far, *others = capsys.readouterr().out.split("\nCDC: config tiny, 16 shots, seed 1\n")
    assert near.startswith("auroc_open_entropy, near: images of the new classes\n\n")
    assert "76.00" in near
    assert "auroc_open_entropy: higher is better" in near
    assert far.strip().startswith("auroc_open_entropy, far: images of other data sets\n\n")
    assert re.search(r"DTD / EuroSAT +92\.00", far)
    assert "ece: lower is better" in others[0]
    main([str(tmp_path), "--protocol", "open_set", "--metric", "auroc_open", "--format", "csv"])
    lines = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(line[1], line[6], line[7]) for line in lines] == [
        ("dtd", "near confidence auroc_open", "75.0000"),
        ("dtd", "near entropy auroc_open", "76.0000"),
        ("dtd/eurosat", "far confidence auroc_open", "91.0000"),
        ("dtd/eurosat", "far entropy auroc_open", "92.0000"),
    ]


def test_best_of_each_row_is_marked_where_metrics_are_named(tmp_path, capsys):
    """By the metric's direction, each half by itself, as it is printed; without metrics the table is as it was."""
    with_ece(tmp_path, 1, 10.0, 14.0, aurc_x=5.001, uncertainty=1.0)
    with_ece(tmp_path, 1, 12.0, 8.0, trainer="CoOp", aurc_x=5.004, uncertainty=2.0)
    main([str(tmp_path), "--metric", "ece"])
    text = capsys.readouterr().out
    assert text.splitlines()[5].split() == ["shapes", "12.00", "8.00", "*", "10.00", "*", "14.00"]
    assert "*: the best of its row, for each of Base, New" in text
    main([str(tmp_path), "--metric", "aurc_x"])
    assert "*" not in capsys.readouterr().out  # the same, as it is printed
    main([str(tmp_path), "--metric", "uncertainty"])
    assert "*" not in capsys.readouterr().out  # of which neither more nor less is better
    main([str(tmp_path), "--trainer", "CDC", "--metric", "ece"])
    assert "*" not in capsys.readouterr().out  # with nothing to compare it with
    main([str(tmp_path)])
    assert "*" not in capsys.readouterr().out
    main([str(tmp_path), "--metric", "ece", "--format", "csv"])
    assert "*" not in capsys.readouterr().out
    main([str(tmp_path), "--metric", "ece", "--format", "markdown"])
    assert "| **8.00**" in (text := capsys.readouterr().out)
    assert "- bold: the best of its row" in text
    main([str(tmp_path), "--metric", "ece", "--format", "latex"])
    assert r"& \textbf{8.00}" in capsys.readouterr().out


def test_best_of_an_open_set_is_that_of_all_scores(tmp_path, capsys):
    open_set(tmp_path, "CoOp", 1, {"near": 76.0, "digits": 70.0})
    open_set(tmp_path, "CDC", 1, {"near": 75.0, "digits": 75.0}, scores=("confidence", "entropy", "uncertainty"))
    main([str(tmp_path), "--protocol", "open_set", "--metric", "auroc_open"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("shapes")]
    assert lines == [
        ["shapes", "76.00", "77.00", "*", "75.00", "76.00", "77.00", "*"],
        ["shapes", "/", "digits", "70.00", "71.00", "75.00", "76.00", "77.00", "*"],
    ]


def test_summary_has_a_row_per_method_and_averages(tmp_path, capsys):
    for dataset, more in (("shapes", 0.0), ("digits", 2.0)):
        for seed in (1, 2):
            for trainer, ece in (("CoOp", 6.0), ("CDC", 10.0)):
                for part, value in (("train_base", ece + more + seed), ("test_new", 12.0 - ece)):
                    figures = {"accuracy": 80.0, "ece": value, **({"doubt": 1.0} if trainer == "CDC" else {})}
                    base2new(tmp_path, part, trainer, seed, 80.0, dataset=dataset, figures=figures)
    arguments = [str(tmp_path), "--metric", "ece", "--metric", "doubt", "--summary"]
    main(arguments)
    header, _, coop, cdc, _, *notes = capsys.readouterr().out.splitlines()
    assert re.split("  +", header) == ["method", "ece Base", "ece New", "doubt Base", "doubt New"]
    assert re.split("  +", coop) == ["CoOp", "8.50 ± 0.71 *", "6.00 ± 0.00", "–", "–"]
    assert re.split("  +", cdc) == ["CDC", "12.50 ± 0.71", "2.00 ± 0.00 *", "1.00 ± 0.00", "1.00 ± 0.00"]
    assert notes == [
        "*: the best of its column",
        "CoOp: config tiny, 16 shots, seeds 1, 2",
        "CDC: config tiny, 16 shots, seeds 1, 2",
        "ece: lower is better",
        "ece: average of 2 data sets, digits, shapes",
        "doubt: average of 2 data sets, digits, shapes",
        "missing: doubt: CoOp: no run has doubt",
    ]
    main([*arguments, "--format", "markdown", "--dataset", "shapes", "--seed", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:4]] == ["CoOp", "**7.00**", "6.00"]
    assert "- ece: on shapes" in lines
    main([*arguments, "--format", "latex"])
    assert r"\textbf{8.50 $\pm$ 0.71}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "--format", "csv"])
    assert "--summary is a table of its own" in capsys.readouterr().err


def test_open_set_run_without_its_figures_is_named(tmp_path):
    open_set(tmp_path, "CDC", 1, {"near": 75.0})
    open_set(tmp_path, "CDC", 2, {})
    (table,) = tables_of(tmp_path, "open_set")
    (sentence,) = table.missing
    assert sentence.startswith("CDC, shapes, seed 2: no result (")
    assert sentence.endswith("results.json has no figures of an open set)")


# --- averages


def test_average_is_over_data_sets_and_its_deviation_over_seeds(tmp_path):
    for seed, dtd, eurosat in ((1, 80.0, 60.0), (2, 84.0, 50.0)):
        both(tmp_path, "CDC", seed, dtd, 40.0, dataset="dtd")
        both(tmp_path, "CDC", seed, eurosat, 60.0, dataset="eurosat")
    (column,) = (table := table_of(tmp_path)).columns
    assert table.averaged == ["dtd", "eurosat"]
    # per seed (70, 67)
    assert column.averages["Base"].mean == pytest.approx(68.5)
    assert column.averages["Base"].std == pytest.approx(3 / 2**0.5)
    assert column.averages["HM"].mean == pytest.approx(tables.harmonic_mean(68.5, 50.0))


def test_seed_without_its_other_half_is_named_and_left_out(tmp_path):
    both(tmp_path, "CDC", 1, 80.0, 60.0)
    both(tmp_path, "CDC", 2, 70.0, 50.0)
    base2new(tmp_path, "train_base", "CDC", 3, 0.0)
    write_log(tmp_path / "base2new/test_new/shapes/shots_16/CDC/tiny/seed3", [])
    table = table_of(tmp_path)
    assert table.columns[0].cells["shapes", "Base"][::2] == (75.0, (1, 2))
    (sentence,) = table.missing
    assert sentence.startswith("CDC, shapes, seed 3: no new result (")
    assert "seed3 holds no log with an evaluation on the test split)" in sentence
    assert "75.00 ± 7.07 (n=2)" in text_table(tmp_path)


def test_average_over_the_data_sets_that_all_columns_have(tmp_path):
    for dataset, base in (("dtd", 80.0), ("eurosat", 60.0), ("ucf101", 10.0)):
        both(tmp_path, "CDC", 1, base, base, dataset=dataset)
        if dataset != "ucf101":
            both(tmp_path, "MaPLe", 1, base, base, dataset=dataset)
    base2new(tmp_path, "train_base", "MaPLe", 1, 99.0, dataset="ucf101")
    table = table_of(tmp_path)
    assert [column.title for column in table.columns] == ["MaPLe", "CDC"]
    assert [column.averages["Base"].mean for column in table.columns] == [70.0, 70.0]
    text = text_table(tmp_path)
    assert "average of 2" in text
    assert "average: over the 2 data sets that every column has, so without UCF101" in text
    assert "missing: MaPLe, UCF101, seed 1: no new result" in text
    assert table_of(tmp_path, trainers=["CDC"]).averaged == ["dtd", "eurosat", "ucf101"]


def test_configs_on_few_data_sets_take_the_average_from_no_other(tmp_path, capsys):
    """Two parts of a method on one data set each, beside two methods on three, one with fewer seeds of one of them."""
    for dataset, base in (("dtd", 80.0), ("eurosat", 60.0), ("ucf101", 10.0)):
        for trainer in ("MaPLe", "CDC"):
            both(tmp_path, trainer, 1, base, base, dataset=dataset)
    both(tmp_path, "CDC", 2, 90.0, 90.0, dataset="dtd")
    both(tmp_path, "CDC", 1, 99.0, 99.0, dataset="dtd", config="part")
    both(tmp_path, "CDC", 1, 99.0, 99.0, dataset="eurosat", config="other")
    table = table_of(tmp_path)
    assert table.averaged == ["dtd", "eurosat", "ucf101"]
    averages = {column.title: column.averages for column in table.columns}
    assert averages["CDC part"] == averages["CDC other"] == {}
    assert averages["MaPLe"]["Base"].mean == 50.0
    assert averages["CDC tiny"]["Base"][:2] == (pytest.approx((85 + 60 + 10) / 3), None)
    note = (
        "average: over the 3 data sets that 2 of 4 columns have; the other columns have none (--trainer, --config and"
    )
    assert note in text_table(tmp_path)
    (line,) = (line for line in text_table(tmp_path).splitlines() if line.startswith("average of 3"))
    assert line.split()[3:] == ["50.00"] * 3 + ["–"] * 6 + ["51.67"] * 3
    main([str(tmp_path), "--summary"])
    assert (
        "accuracy: average of 3 data sets, DTD, EuroSAT, UCF101, which 2 of 4 methods have" in capsys.readouterr().out
    )

    both(tmp_path, "CDC", 1, 99.0, 99.0, dataset="pets")  # more than the other trainer has
    assert table_of(tmp_path).averaged == ["dtd", "eurosat", "ucf101"]
    assert "that 2 of 4 columns have, so without pets; the other columns have none" in text_table(tmp_path)
    both(tmp_path, "CDC", 1, 99.0, 99.0, dataset="eurosat", config="part")
    both(tmp_path, "CDC", 1, 99.0, 99.0, dataset="dtd", config="other")  # now all share two data sets
    assert table_of(tmp_path).averaged == ["dtd", "eurosat"]


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_average_is_over_the_most_that_every_trainer_has_whatever_configs_are_called(tmp_path, names):
    """One config of CDC has more data sets, but not those of MaPLe; two others have as many, one of them twice."""
    few, more = names
    for dataset in ("dtd", "eurosat", "ucf101", "food101"):
        both(tmp_path, "MaPLe", 1, 50.0, 50.0, dataset=dataset)
    for dataset in ("dtd", "eurosat"):
        both(tmp_path, "CDC", 1, 50.0, 50.0, dataset=dataset, config=few)
    for dataset in ("food101", "ucf101"):
        for config in (more, "c"):
            both(tmp_path, "CDC", 1, 50.0, 50.0, dataset=dataset, config=config)
    for dataset in ("sun397", "imagenet", "fgvc_aircraft"):
        both(tmp_path, "CDC", 1, 50.0, 50.0, dataset=dataset, config="d")
    table = table_of(tmp_path)
    assert table.averaged == ["food101", "ucf101"]
    assert {column.config for column in table.columns if column.averages} == {"tiny", more, "c"}


def test_no_average_where_nothing_has_a_result(tmp_path):
    for dataset in ("dtd", "eurosat"):
        base2new(tmp_path, "train_base", "CDC", 1, 0.0, dataset=dataset)
    table = table_of(tmp_path)
    assert (table.averaged, table.columns[0].cells) == ([], {})


def test_no_average_of_columns_without_common_data_sets(tmp_path):
    for dataset, trainer in (("dtd", "A"), ("eurosat", "A"), ("ucf101", "B"), ("food101", "B")):
        both(tmp_path, trainer, 1, 80.0, 60.0, dataset=dataset)
    text = text_table(tmp_path)
    assert "average: none" in text
    assert "missing: A: no run on Food101, UCF101" in text
    assert "missing: B: no run on DTD, EuroSAT" in text
    assert "average of" not in text


def test_column_without_a_result_takes_the_average_from_no_other(tmp_path):
    for dataset in ("dtd", "eurosat"):
        both(tmp_path, "CDC", 1, 80.0, 60.0, dataset=dataset)
        base2new(tmp_path, "train_base", "MaPLe", 1, 99.0, dataset=dataset)
    table = table_of(tmp_path)
    assert [column.averages.keys() for column in table.columns] == [set(), {"Base", "New", "HM"}]
    assert table.averaged == ["dtd", "eurosat"]
    assert "missing: MaPLe, DTD, seed 1: no new result" in text_table(tmp_path)


def test_average_of_different_seeds_has_no_deviation(tmp_path):
    for seed in (1, 2):
        both(tmp_path, "CDC", seed, 80.0 + seed, 60.0, dataset="dtd")
    both(tmp_path, "CDC", 1, 50.0, 60.0, dataset="eurosat")
    (column,) = table_of(tmp_path).columns
    assert column.averages["Base"][:3] == (pytest.approx(mean((81.5, 50.0))), None, ())


def test_headings_tell_columns_apart(tmp_path):
    both(tmp_path, "CoOp", 1, 80.0, 60.0)
    both(tmp_path, "CDC", 1, 80.0, 60.0, config="a")
    both(tmp_path, "CDC", 1, 80.0, 60.0, config="b")
    both(tmp_path, "CDC", 1, 80.0, 60.0, config="b", shots=4)
    titles = [column.title for column in table_of(tmp_path).columns]
    assert titles == ["CoOp", "CDC a 16 shots", "CDC b 4 shots", "CDC b 16 shots"]


def test_joined_configs(tmp_path):
    """CoOp's protocol has a config of its own for ImageNet."""
    both(tmp_path, "CoOp", 1, 80.0, 60.0, dataset="dtd", config="ep200")
    both(tmp_path, "CoOp", 1, 70.0, 60.0, dataset="imagenet", config="ep50")
    table = table_of(tmp_path, join_configs=True)
    assert [(column.title, column.config) for column in table.columns] == [("CoOp", "ep200, ep50")]
    assert table.averaged == ["imagenet", "dtd"]
    both(tmp_path, "CoOp", 1, 70.0, 60.0, dataset="dtd", config="ep50")
    with pytest.raises(ValueError, match=r"the configs ep200 and ep50 of CoOp cannot be joined.* on dtd with seed 1"):
        table_of(tmp_path, join_configs=True)


def test_order_of_rows(tmp_path):
    for dataset in ("textures", "digits", "ucf101", "imagenet", "caltech101"):
        both(tmp_path, "CDC", 1, 80.0, 60.0, dataset=dataset)
    assert table_of(tmp_path).datasets == ["imagenet", "caltech101", "ucf101", "digits", "textures"]


def test_what_was_asked_for_and_is_not_there_is_named(tmp_path):
    both(tmp_path, "CDC", 1, 80.0, 60.0)
    text = text_table(tmp_path, trainers=["CDC", "CoOp"], datasets=["shapes", "dtd"], seeds=[1, 2])
    assert "missing: no run at all of datasets dtd" in text
    assert "missing: no run at all of trainers CoOp" in text
    assert "missing: CDC, shapes, seed 2: no base result and no new result" in text
    with pytest.raises(
        FileNotFoundError, match=r"no run of base2new below .*, trainers CoOp; such runs lie in base2new"
    ):
        text_table(tmp_path, trainers=["CoOp"])


# --- trained on one set, tested on others


def write_transfer(output, trainer, accuracies, source="imagenet", seeds=(1, 2), extra="", config="cfg", backbone=""):
    """Runs trained on a source, with logs in a checkout that is called as the trainer."""
    for seed in seeds:
        trained = f"{source}/{trainer}/{config}_16shots{extra}/seed{seed}"
        for dataset, accuracy in accuracies.items():
            place = f"evaluation/{trainer}/{config}_16shots{extra}/{dataset}/seed{seed}"
            write_log(
                output / (trained if dataset == source else place),
                ["  BACKBONE:", f"    NAME: {backbone}", *printed_test(1000, round(10 * accuracy) + 10 * seed)],
                model_dir="" if dataset == source else f"/home/x/{trainer}/output/{trained}",
            )


def test_cross_dataset(tmp_path):
    write_transfer(tmp_path, "CoOp", {"imagenet": 70, "dtd": 40, "eurosat": 44, "imagenet_a": 1}, extra="/nctx16")
    write_transfer(tmp_path, "CDC", {"imagenet": 71, "dtd": 42, "eurosat": 46}, config="other")
    write_json(tmp_path / "dtd/CDC/other_16shots/seed1", 99.0)  # trained on DTD itself
    table = table_of(tmp_path, "xd")
    assert table.source == "imagenet"
    assert table.datasets == ["imagenet", "dtd", "eurosat"]
    assert table.averaged == ["dtd", "eurosat"]
    coop, cdc = table.columns
    assert (coop.config, coop.cells["imagenet", "Accuracy"].mean) == ("cfg/nctx16", 71.5)
    assert (coop.averages["Accuracy"].mean, cdc.averages["Accuracy"].mean) == (43.5, 45.5)
    assert text_table(tmp_path, "xd").splitlines()[2].startswith("ImageNet (source)")
    assert table_of(tmp_path, "xd", datasets=["dtd"]).datasets == ["imagenet", "dtd"]


def test_domain_generalisation(tmp_path):
    variants = {"imagenet": 70, "imagenetv2": 60, "imagenet_sketch": 50, "imagenet_a": 40, "imagenet_r": 30, "dtd": 1}
    write_transfer(tmp_path, "CDC", variants)
    table = table_of(tmp_path, "dg")
    assert table.datasets == ["imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]
    assert table.columns[0].averages["Accuracy"].mean == 46.5


def test_embedded_source_by_the_logs(tmp_path):
    write_transfer(tmp_path, "CDC", {"shapes": 70, "textures": 60, "shapesv2": 50, "shapes_r": 40}, source="shapes")
    assert table_of(tmp_path, "xd").datasets == ["shapes", "textures"]
    assert table_of(tmp_path, "dg").datasets == ["shapes", "shapes_r", "shapesv2"]
    write_transfer(tmp_path, "CDC", {"digits": 20, "textures": 60}, source="digits", config="b")
    with pytest.raises(ValueError, match="choose one by --source, which may be digits or shapes"):
        table_of(tmp_path, "xd")
    table = table_of(tmp_path, "xd", source="digits")
    assert ([column.config for column in table.columns], table.datasets) == (["b"], ["digits", "textures"])


def test_source_by_results_json_alone(tmp_path):
    """Without a log, of a run in any folder; and before a log, as one may be left over."""
    own = {"dataset": "Shapes", "classes": "all", "shots": 16, "seed": 1}
    place = tmp_path / "evaluation/CDC/tiny_16shots"
    write_json(tmp_path / "shapes/CDC/tiny_16shots/seed1", 70.0, model_dir=None, trained_on=own)
    write_json(place / "textures/seed1", 60.0, model_dir="/o/shapes/CDC/tiny_16shots/seed1", trained_on=None)
    write_json(place / "digits/seed1", 50.0, model_dir="/moved", trained_on=own)
    write_log(place / "digits/seed1", printed_test(), model_dir="/o/imagenet/CDC/tiny_16shots/seed1")
    table = table_of(tmp_path, "xd")
    assert (table.source, table.datasets) == ("shapes", ["digits", "shapes", "textures"])
    # A name that several configs have or none leaves the log, and that tells of ImageNet
    for name in ("Folder2", None):
        write_json(place / "digits/seed1", 50.0, model_dir=None, trained_on={"dataset": name})
        with pytest.raises(ValueError, match="choose one by --source, which may be imagenet or shapes"):
            table_of(tmp_path, "xd")
    (place / "digits/seed1/results.json").write_text("{")
    with pytest.raises(ValueError, match=r"digits/seed1/results\.json is not a whole results\.json"):
        table_of(tmp_path, "xd")


def test_source_by_the_mark_of_the_scripts(tmp_path):
    """A test of a source that is not the usual one stands beside its training, told by files or by the mark alone."""
    write_json(tmp_path / "digits/CoOp/tiny_1shots/seed1", 70.0)
    write_json(tmp_path / "shapes/CoOp/tiny_1shots/seed1", 60.0)
    place = tmp_path / "evaluation/CoOp"
    write_json(place / "tiny+from_digits_1shots/letters/seed1", 50.0, model_dir="/o/digits/CoOp/tiny_1shots/seed1")
    write_json(place / "tiny+from_digits_1shots/symbols/seed1", 40.0)
    write_json(place / "tiny+from_elsewhere_1shots/letters/seed1", 30.0, trained_on={"dataset": "Shapes"})
    for configs in ((), ["tiny"], ["tiny+from_digits"]):
        table = table_of(tmp_path, "xd", source="digits", configs=configs)
        assert [column.config for column in table.columns] == ["tiny"]
        assert {row: cell.mean for (row, _), cell in table.columns[0].cells.items()} == {
            "digits": 70.0,
            "letters": 50.0,
            "symbols": 40.0,
        }
    assert "tiny+from_elsewhere" in [run.config for run in find_runs(tmp_path, "xd", source="shapes")]


def test_source_runs_without_tests_are_named(tmp_path):
    write_transfer(tmp_path, "CDC", {"imagenet": 70, "dtd": 40, "eurosat": 44})
    write_json(tmp_path / "imagenet/CDC/cfg_4shots/seed1", 60.0)
    table = table_of(tmp_path, "xd")
    assert [column.title for column in table.columns] == ["CDC"]
    assert table.missing == ["tests on other data sets of what is trained on ImageNet: CDC 4 shots"]
    assert len(table.averaged) == 2
    with pytest.raises(FileNotFoundError, match=r"no run of xd .*such runs lie in evaluation/"):
        table_of(tmp_path, "xd", shots=[4])


def test_missing_source_and_target(tmp_path):
    write_transfer(tmp_path, "CDC", {"dtd": 40, "eurosat": 44})
    write_transfer(tmp_path, "CoOp", {"imagenet": 70, "dtd": 40})
    table = table_of(tmp_path, "xd")
    assert table.missing == ["CoOp: no run on EuroSAT", "CDC: no run on ImageNet"]
    assert table.averaged == []


def test_zero_shot_runs_of_published_scripts(tmp_path):
    write_transfer(tmp_path, "CDC", {"imagenet": 70, "dtd": 40, "eurosat": 44})
    for dataset in ("imagenet", "dtd", "eurosat"):
        write_log(tmp_path / "ZeroshotCLIP/vit_b16" / dataset, printed_test(), classes="all", seed=1)
    zero_shot, _ = table_of(tmp_path, "xd").columns
    assert (zero_shot.title, zero_shot.shots, zero_shot.averages["Accuracy"].mean) == ("ZeroshotCLIP", 0, 53.0)


# --- few-shot


def write_fewshot(output, trainer, curve, dataset, config="cfg", seeds=(1, 2, 3)):
    for shots, accuracy in curve.items():
        for seed in seeds:
            write_json(output / f"{dataset}/{trainer}/{config}_{shots}shots/seed{seed}", accuracy + seed)


def test_few_shot(tmp_path):
    for dataset in ("dtd", "eurosat"):
        write_fewshot(tmp_path, "CDC", {16: 60, 1: 40, -1: 80, 2: 50}, dataset)
        write_log(tmp_path / "ZeroshotCLIP/cfg" / dataset, printed_test(10, 3))
    write_log(tmp_path / "ZeroshotCLIP/cfg/food101", printed_test(10, 3))
    write_json(tmp_path / "evaluation/CDC/cfg_16shots/ucf101/seed1", 1.0)
    zero_shot, cdc = (table := table_of(tmp_path, "fewshot")).columns
    assert table.datasets == table.averaged == ["dtd", "eurosat"]
    assert cdc.metrics == ("1 shot", "2 shots", "16 shots", "all shots")
    assert cdc.cells["dtd", "2 shots"][:3] == (52.0, 1.0, (1, 2, 3))
    assert zero_shot.averages["0 shots"].mean == 30.0


def test_few_shot_gap(tmp_path):
    write_fewshot(tmp_path, "CDC", {1: 40, 2: 50}, "dtd")
    write_fewshot(tmp_path, "CDC", {1: 40, 2: 50}, "ucf101")
    write_fewshot(tmp_path, "CDC", {1: 40}, "eurosat")
    table = table_of(tmp_path, "fewshot")
    assert table.averaged == ["dtd", "ucf101"]
    assert table.missing == ["CDC, EuroSAT, seeds 1, 2, 3: no result with 2 shots"]


def test_joined_few_shot_configs(tmp_path):
    """CoOp's protocol has shorter schedules for fewer shots."""
    write_fewshot(tmp_path, "CoOp", {1: 40}, "dtd", "ep50")
    write_fewshot(tmp_path, "CoOp", {2: 50}, "dtd", "ep100")
    (column,) = table_of(tmp_path, "fewshot", join_configs=True).columns
    assert (column.config, column.metrics) == ("ep100, ep50", ("1 shot", "2 shots"))


def test_curves(tmp_path, capsys):
    for dataset in ("dtd", "eurosat", "ucf101", "digits"):
        write_fewshot(tmp_path / "o", "CDC", {1: 40, 2: 50, 16: 70, -1: 80}, dataset)
        write_log(tmp_path / "o/ZeroshotCLIP/cfg" / dataset, printed_test(10, 3))
    picture = tmp_path / "curves.png"
    command = [str(tmp_path / "o"), "--protocol", "fewshot", "--plot"]
    main([*command, str(picture)])
    assert "average of 4" in capsys.readouterr().out
    with Image.open(picture) as image:
        assert image.width > image.height > 300
        colours = {colour: n for n, colour in image.convert("RGB").getcolors(image.width * image.height)}
    star, curve = (colours.get(ImageColor.getrgb(TRAINERS[trainer]), 0) for trainer in ("ZeroshotCLIP", "CDC"))
    assert star > 1500, "the star and its line, which have 700 each; edges of letters are of that grey too"
    assert curve > 500, "the curve"
    for arguments, problem in (
        ([*command, "curves.txt"], r"a picture's name must end in one of .*\.png.*, got curves\.txt"),
        ([str(tmp_path / "o"), "--plot", str(picture)], r"--plot draws few-shot curves"),
    ):
        assert re.search(problem, failing(arguments, capsys))


def failing(arguments, capsys):
    """What the command says that fails with exit status 2 and prints no table."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert not printed.out
    return printed.err


# --- the paper's numbers


@pytest.mark.parametrize("protocol", ["base2new", "xd", "dg"])
def test_paper_agrees_with_itself(protocol):
    """Typing errors show: averages and harmonic means follow from the other numbers, but for the paper's misprints."""
    misprints = {("CoOp", "average", "New"), ("CoOp", "caltech101", "HM"), ("CoOp", "eurosat", "HM")}
    sources = {"imagenet"} if protocol != "base2new" else set()
    for trainer, rows in published.numbers(protocol).items():
        names = rows.keys() - {"average"} - sources
        if trainer in published.OTHER_SOURCES and not names:  # the average alone
            average = rows["average"]
            assert abs(tables.harmonic_mean(average["Base"], average["New"]) - average["HM"]) <= 0.0075
            continue
        assert names == published.averaged(protocol)
        assert len(names) == {"base2new": 11, "xd": 10, "dg": 4}[protocol]
        wrong = set()
        for metric, average in rows["average"].items():
            if metric != "HM" and abs(mean(rows[name][metric] for name in names) - average) > 0.0051:
                wrong.add((trainer, "average", metric))
        for name, figures in rows.items():
            if "HM" in figures and abs(tables.harmonic_mean(figures["Base"], figures["New"]) - figures["HM"]) > 0.0075:
                wrong.add((trainer, name, "HM"))
        assert wrong == {misprint for misprint in misprints if misprint[0] == trainer and protocol == "base2new"}


def test_paper_has_every_number():
    assert set(published.DATASETS) == set(public_names())
    others = set(published.OTHER_SOURCES)
    assert others == {"KgCoOp", "TCP", "PromptSRC", "MMRL"}
    assert set(published.TRAINERS) - others == {"ZeroshotCLIP", "ZeroshotCLIP2", "CoOp", "CoCoOp", "MaPLe", "CDC"}
    trained = ["CoOp", "CoCoOp", "MaPLe", "CDC"]
    assert [name for name in published.numbers("base2new") if name not in others] == trained
    assert list(published.numbers("xd")) == trained
    assert list(published.numbers("dg")) == ["ZeroshotCLIP", *trained]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("shots: 16", "shots: few", "shots must be a number from 1 on, got 'few'"),
        ("backbone: ViT-B/16", "backbone: 16", "backbone must be text, got 16"),
        ("backbone: ViT-B/16", "", "it must have backbone"),
        ("  dtd: DTD", "  dtd: 47", "datasets must map config files to names"),
        ("[ZeroshotCLIP, ", "[1, ", "trainers must be a list of names"),
        ("  dg:", "  dgs:", "tables must have dg"),
        ("  KgCoOp: ", "  KgCoOp: [1] #", "other_sources must map trainers to texts"),
        ("  KgCoOp: ", "  Kg: ", "base2new: KgCoOp must map data sets"),
        ("    MaPLe:", "    MaPle:", "base2new has the unknown key 'MaPle'"),
        ("[76.47, 67.88, 71.92]", "[76.47, 67.88]", "base2new: CoOp: imagenet must have so many percentages: 3"),
        ("[76.47, 67.88, 71.92]", "[76.47, 6788.0, 71.92]", "base2new: CoOp: imagenet must have so many percentages"),
        ("[76.47, 67.88, 71.92]", "76.47", "base2new: CoOp: imagenet must have so many percentages"),
        ("      food101:         [90.70, 91.29, 90.99]\n", "", "base2new: CoCoOp must map data sets"),
        ("      food101:         [90.70", "      dtd:         [90.70", "a key stands here twice"),
        ("    MaPLe:\n", "    MaPLe: none\n    ZeroshotCLIP:\n", "base2new: MaPLe must map data sets"),
    ],
)
def test_file_of_the_papers_numbers_is_checked(tmp_path, old, new, error):
    text = published.FILE.read_text()
    assert old in text
    path = tmp_path / "published.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(error)) as caught:
        published.read_published(path)
    assert str(path) in str(caught.value)


def test_paper_beside(tmp_path):
    for name, figures in published.numbers("base2new")["CDC"].items():
        if name != "average":
            both(tmp_path, "CDC", 1, figures["Base"] + 1, figures["New"], dataset=name, backbone="ViT-B/16")
    both(tmp_path, "Own", 1, 50.0, 50.0, dataset="dtd", backbone="ViT-B/16")
    text = text_table(tmp_path, paper=True, trainers=["CDC"])
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["DTD"][1:] == ["83.70", "64.10", "72.60", "82.70", "64.10", "72.22", "+1.00", "+0.00", "+0.38"]
    assert lines["average of 11"][-6:-2] == ["83.34", "77.38", "80.25", "+1.00"]
    assert "same data sets" not in text
    assert "paper: the CDC paper (Zhang et al., NeurIPS 2024)" in text
    # over a part of the sets, the average beside is over the same part
    text = text_table(tmp_path, paper=True, trainers=["CDC"], datasets=["dtd", "eurosat"])
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["average of 2"][-6:-4] == ["88.90", "73.22"]
    assert lines["average of 2"][-4] == f"{tables.harmonic_mean(88.90, 73.215):.2f}"
    assert "paper: averages beside are of its numbers for the same data sets" in text
    assert "paper: has no such numbers of Own" in text_table(tmp_path, paper=True)


def test_paper_has_no_average_beside_none(tmp_path):
    for name in published.averaged("base2new"):
        both(tmp_path, "MaPLe", 1, 80.0, 70.0, dataset=name, backbone="ViT-B/16")
    both(tmp_path, "MaPLe", 1, 80.0, 70.0, dataset="dtd", backbone="ViT-B/16", config="other")
    table = table_of(tmp_path)
    assert len(table.averaged) == 11
    numbers, _ = tables.paper_numbers(table)
    averages = {table.columns[index].config for index, row, _ in numbers if row == "average"}
    assert averages == {"tiny"}
    assert {table.columns[index].config for index, row, _ in numbers if row == "dtd"} == {"tiny", "other"}
    for name in published.averaged("base2new"):  # of which the paper's table has the average alone
        both(tmp_path / "tcp", "TCP", 1, 80.0, 70.0, dataset=name, backbone="ViT-B/16")
    both(tmp_path / "tcp", "TCP", 1, 80.0, 70.0, dataset="dtd", backbone="ViT-B/16", config="other")
    numbers, notes = tables.paper_numbers(table_of(tmp_path / "tcp"))
    assert {(index, row) for index, row, _ in numbers} == {(1, "average")}
    assert notes == ["has no such numbers of TCP other"]


def test_average_alone_beside(tmp_path):
    """Of methods from other sources, which are told; beside nothing but an average over the same data sets."""
    for name in published.averaged("base2new"):
        both(tmp_path, "TCP", 1, 80.0, 70.0, dataset=name, backbone="ViT-B/16")
    text = text_table(tmp_path, paper=True)
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["average of 11"][-6:] == ["84.13", "75.36", "79.51", "-4.13", "-5.36", "-4.84"]
    assert lines["DTD"][-6:] == ["–"] * 6
    assert "paper, TCP: Yao et al., CVPR 2024" in text
    assert "paper, KgCoOp" not in text
    text = text_table(tmp_path, paper=True, datasets=["dtd", "eurosat"])
    assert "84.13" not in text
    assert "paper: has no such numbers of TCP" in text


def test_paper_stands_beside_nothing_that_it_is_not_of(tmp_path):
    both(tmp_path, "CDC", 1, 80.0, 60.0, dataset="digits", backbone="ViT-B/16")
    assert "paper: has no such numbers of CDC" in text_table(tmp_path, paper=True)
    both(tmp_path, "CDC", 1, 80.0, 60.0, dataset="dtd", shots=4, backbone="ViT-B/16")
    text = text_table(tmp_path, paper=True, shots=[4])
    assert "82.70" not in text
    assert "paper: has no such numbers of CDC" in text
    write_transfer(tmp_path, "CDC", {"shapes": 70, "dtd": 60, "eurosat": 50}, source="shapes")
    text = text_table(tmp_path, "xd", paper=True)
    assert "46.60" not in text
    assert "paper: trains on ImageNet, not on shapes" in text
    write_fewshot(tmp_path, "CDC", {1: 40}, "dtd")
    with pytest.raises(ValueError, match="the paper prints tables of base2new, xd and dg, none of fewshot"):
        text_table(tmp_path, "fewshot", paper=True)


@pytest.mark.parametrize(
    ("backbone", "told"),
    [("RN50", "RN50"), ("ViT-B/32", "ViT-B/32"), ("weights/ViT-B/16", "weights/ViT-B/16"),
     ("my/ViT-B-16x.pt", "my/ViT-B-16x.pt"), ("", "a CLIP that is not told")],
)  # fmt: skip
@pytest.mark.parametrize("log", [False, True])
def test_paper_stands_beside_runs_of_its_own_clip_alone(tmp_path, backbone, told, log):
    """What the runs say that they are of, not what their config's folder is called."""
    names = iter([*["ViT-B/16"] * 3, backbone])
    for seed in (1, 2):
        for part in ("train_base", "test_new"):
            name = next(names)
            folder = base2new(tmp_path, part, "CDC", seed, 80.0, dataset="dtd", config="vit_b16")
            write_json(folder, 80.0, **({"backbone": name} if name else {}))
            if log:
                (folder / "results.json").unlink()
                lines = ["** Config **", "MODEL:", "  BACKBONE:", f"    NAME: {name}", "  HEAD:", "    NAME: ViT-B/16"]
                write_log(folder, [*(lines if name else lines[:2]), *printed_test()])
    text = text_table(tmp_path, paper=True)
    assert "82.70" not in text
    assert f"paper: is of ViT-B/16, and CDC has runs of {told}\n" in f"{text}\n"
    text = text_table(tmp_path, paper=True, seeds=[1])
    assert "82.70" in text
    assert "paper: is of" not in text


@pytest.mark.parametrize("name", ["ViT-B/16", "/models/ViT-B-16.pt"])
def test_papers_backbone_by_name_and_by_file(name):
    assert published.is_backbone(name)


@pytest.mark.parametrize("name", ["ViT-B/32", "/models/other.pt", "open_clip:ViT-B-16//models/ViT-B-16.pt", ""])
def test_other_backbones(name):
    assert not published.is_backbone(name)


def test_paper_in_domain_generalisation(tmp_path):
    numbers = published.numbers("dg")["CoOp"]
    write_transfer(
        tmp_path,
        "CoOp",
        {name: figures["Accuracy"] for name, figures in numbers.items() if name != "average"},
        backbone="ViT-B/16",
    )
    text = text_table(tmp_path, "dg", paper=True)
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["ImageNet (source)"][-2] == "71.51"
    assert lines["average of 4"][-2] == "59.28"


# --- formats


@pytest.fixture
def two_trainers(tmp_path):
    for seed in (1, 2):
        for dataset in ("dtd", "eurosat"):
            place = {"dataset": dataset, "config": "vit_b16", "backbone": "ViT-B/16"}
            both(tmp_path, "CoOp", seed, 70.0 + seed, 40.0, **place)
            both(tmp_path, "CDC", seed, 80.0 + seed, 60.0, **place)
    base2new(tmp_path, "train_base", "CDC", 1, 70.0, dataset="ucf101", config="vit_b16", backbone="ViT-B/16")
    return tmp_path


def test_markdown(two_trainers):
    lines = text_table(two_trainers, output_format="markdown").splitlines()
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert cells == ["data set", "CoOp Base", "CoOp New", "CoOp HM", "CDC Base", "CDC New", "CDC HM"]
    assert all(line.count("|") == len(cells) + 1 for line in lines[:6])
    assert lines[6] == ""
    assert all(line.startswith("- ") for line in lines[7:])


def test_latex(two_trainers):
    both(two_trainers, "CDC", 1, 70.0, 60.0, config="tiny_coupled", dataset="dtd")
    text = text_table(two_trainers, output_format="latex")
    table, notes = text.split("\\end{tabular}\n")
    lines = table.splitlines()
    assert lines[0] == r"\begin{tabular}{" + "l" * 10 + "}"
    assert lines[2] == (
        r" & \multicolumn{3}{c}{CoOp} & \multicolumn{3}{c}{CDC tiny\_coupled} & \multicolumn{3}{c}{CDC vit\_b16} \\"
    )
    assert lines[3] == r"\cmidrule(lr){2-4} \cmidrule(lr){5-7} \cmidrule(lr){8-10}"
    assert r"71.50 $\pm$ 0.71" in table
    assert all(line.count("&") == 9 for line in lines if line.endswith(r"\\") and "multicolumn" not in line)
    assert table.isascii()
    assert all(line.startswith("% ") for line in notes.splitlines() if line)


def test_latex_of_single_columns(tmp_path):
    write_transfer(tmp_path, "CDC", {"imagenet": 70, "dtd": 40, "eurosat": 44})
    assert "multicolumn" not in text_table(tmp_path, "xd", "latex")


def test_csv(two_trainers, capsys):
    main([str(two_trainers), "--format", "csv", "--paper"])
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert len(rows) == 2 * 2 * 3 + 2 * 3, "data sets, trainers, metrics; averages"
    (row,) = (r for r in rows if (r["dataset"], r["trainer"], r["metric"]) == ("dtd", "CDC", "base"))
    assert row == {
        "protocol": "base2new", "dataset": "dtd", "datasets": "1", "shots": "16", "trainer": "CDC",
        "config": "vit_b16", "metric": "base", "mean": "81.5000", "std": "0.7071", "n": "2", "seeds": "1 2",
        "paper": "82.7000", "difference": "-1.2000",
    }  # fmt: skip
    (row,) = (r for r in rows if (r["dataset"], r["trainer"], r["metric"]) == ("average", "CDC", "hm"))
    assert (row["datasets"], row["n"]) == ("2", "2")
    assert "missing: CDC, UCF101, seed 1: no new result" in printed.err


def test_csv_of_few_shot(tmp_path):
    write_fewshot(tmp_path, "CDC", {1: 40, -1: 80}, "dtd")
    rows = list(csv.DictReader(io.StringIO(text_table(tmp_path, "fewshot", "csv"))))
    assert [(row["shots"], row["metric"], row["mean"]) for row in rows] == [
        ("1", "accuracy", "42.0000"),
        ("-1", "accuracy", "82.0000"),
    ]


def test_unknown_format(two_trainers):
    with pytest.raises(ValueError, match="must be one of text, markdown, csv, latex, got 'html'"):
        text_table(two_trainers, output_format="html")


def test_command_line(two_trainers, capsys):
    command = [sys.executable, "-m", "tools.results", str(two_trainers)]
    arguments = ["--trainer", "CDC", "--trainer", "CoOp", "--dataset", "dtd", "--shots", "16", "--config", "vit_b16"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == text_table(two_trainers, datasets=["dtd"]) + "\n"
    said = failing([str(two_trainers), "--trainer", "MaPLe"], capsys)
    assert said.startswith("tools.results: no run of base2new below")


def test_mixed_folder_of_ours_and_published_logs(tmp_path):
    for seed in (1, 2, 3):
        both(tmp_path, "CDC", seed, 80.0, 60.0, dataset="dtd")
        place = f"dtd/shots_16/MaPLe/vit_b16_c2_ep5_batch4_2ctx/seed{seed}"
        write_log(tmp_path / "base2new/train_base" / place, BEST_EPOCH, classes="base", seed=seed)
        write_log(tmp_path / "base2new/test_new" / place, printed_test(correct=120), classes="new", seed=seed)
    maple, cdc = table_of(tmp_path).columns
    assert (maple.title, cdc.title) == ("MaPLe", "CDC")
    assert maple.cells["dtd", "Base"].mean == pytest.approx(100 * 158 / 300)
    assert maple.cells["dtd", "New"].mean == 40.0


def test_names_of_folders_are_no_commands_and_no_formulas(tmp_path):
    both(tmp_path, "=\x1b[2JX", 1, 50, 60, dataset="-\nx", config="@cfg")
    for output_format in FORMATS:
        text = text_table(tmp_path, output_format=output_format)
        assert "\x1b" not in text
        assert "-\nx" not in text
    row = next(csv.DictReader(text_table(tmp_path, output_format="csv").splitlines()))
    assert (row["dataset"], row["trainer"], row["config"]) == (r"'-\nx", r"'=\x1b[2JX", "'@cfg")
    assert float(row["mean"]) == 50
    text, notes = render(table_of(tmp_path), "csv", raw=True)
    assert "=\x1b[2JX" in text
    assert not any("\x1b" in note for note in notes)
