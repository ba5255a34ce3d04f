"""Runs that are calibrated, tests after calibration, and rejection: for every trainer, and with wrong input."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import RUNS, results_of
from tools.calibrate import fit
from tools.calibrate.__main__ import main
from tools.predict import Predictor
from tools.predict.__main__ import main as predict
from trainers.modules.calibration import mean_nll
from trainers.modules.evidence import EvidenceFunction, fuse
from trainers.modules.predictions import CALIBRATED_FILE_NAME, read_predictions
from trainers.modules.uncertainty import calibration_metrics, error_detection_metrics

HEADS = ("CoOp CSC", "CLIPICM probe")  # know no other classes than their own


def call(*arguments):
    return main([str(argument) for argument in arguments])


def content_of(folder):
    return json.loads((Path(folder) / "calibration.json").read_text())


@pytest.fixture
def calibrated(run_of, tmp_path):
    """A copy of a run of `RUNS`, calibrated, with the folder of its data sets."""

    def make(name, *options):
        run, data = run_of(name).folder, run_of(name).folder.parent / "images"
        folder = tmp_path / "run"
        shutil.copytree(run, folder, dirs_exist_ok=True)
        assert call(folder, "--root", data, *options) == 0
        return folder, data

    return make


def run_test(build_run, name, folder, data, output, classes="new", calibration=True):
    """The run's model tested on classes of its data set, as train.py --eval-only does; returns the trainer."""
    trainer, config, options = RUNS[name]
    options = (*options, "DATASET.SUBSAMPLE_CLASSES", classes, "DATASET.ROOT", data)
    options += ("TEST.CALIBRATION", folder) if calibration else ()
    tested = build_run(trainer, output, *options, config=config)
    if not trainer.startswith("Zeroshot"):
        tested.load_model(str(folder), epoch=results_of(folder)["epoch"])
    tested.test()
    return tested


@pytest.mark.parametrize("name", RUNS)
def test_every_trainer(calibrated, build_run, tmp_path, capsys, name):
    folder, data = calibrated(name)
    told = capsys.readouterr().out
    content, results = content_of(folder), results_of(folder)
    assert content["trainer"] == results["trainer"]
    assert content["epoch"] == results["epoch"]
    about = {"what": "validation", "dataset": "DescribableTextures", "classes": "base", "images": 4}
    assert about.items() <= content["fitted_on"].items()
    names = ("scale", "shift") if name.startswith("CDC") else ("temperature",)
    assert tuple(content["values"]) == tuple(content["values_before"]) == names
    assert "on 4 validation images" in told
    assert f"{names[0]} {content['values_before'][names[0]]:.4g} -> {content['values'][names[0]]:.4g}" in told
    before, after = (content["figures"][state] for state in ("before", "after"))
    assert after["nll"] <= before["nll"] + 1e-6

    classes = "base" if name in HEADS else "new"
    trainer = run_test(build_run, name, folder, data, tmp_path / "test", classes)
    results, figures = results_of(tmp_path / "test"), results_of(tmp_path / "test")["figures"]
    assert results["calibration"] == {key: content[key] for key in ("values", "fitted_on")}
    found = read_predictions(tmp_path / "test" / CALIBRATED_FILE_NAME)
    metrics = {**calibration_metrics(found), **error_detection_metrics(found)}
    assert metrics.keys() >= {"ece", "nll", "aurc_confidence"}
    for metric, value in metrics.items():
        assert figures[f"{metric}_calibrated"] == pytest.approx(value)
        assert metric in figures
    assert figures["accuracy_calibrated"] == 100 * (found["prediction"] == found["label"]).mean()
    # by the values themselves
    batch = next(iter(trainer.test_loader))
    with torch.no_grad():
        scores = trainer.model_inference(trainer.parse_batch_test(batch)[0])
        if name.startswith("CDC"):
            h = EvidenceFunction(trainer.model.evidence.function, **content["values"])
            scores = fuse(h(trainer.model.cosines(trainer.parse_batch_test(batch)[0]))).log_prob
            assert figures["uncertainty_calibrated"] == pytest.approx(found["uncertainty"].mean())
        else:
            scores = scores / content["values"]["temperature"]
    expected = scores.double().softmax(dim=1).amax(dim=1)
    np.testing.assert_allclose(found["confidence"][: len(expected)], expected, rtol=1e-4)

    # and in prediction: the same numbers
    if name not in HEADS:
        images = [str(data / path) for path in found["path"]]
        predictions = Predictor(folder, results["class_names"], calibrated=True)(images)
        np.testing.assert_allclose([p.probability for p in predictions], found["confidence"], rtol=1e-4)


def test_without_calibration_a_test_is_as_before(calibrated, build_run, tmp_path):
    folder, data = calibrated("CDC coupled")
    output = tmp_path / "test"
    run_test(build_run, "CDC coupled", folder, data, output)
    both = results_of(output)
    assert (output / CALIBRATED_FILE_NAME).is_file()
    run_test(build_run, "CDC coupled", folder, data, output, calibration=False)
    plain = results_of(output)
    assert not (output / CALIBRATED_FILE_NAME).exists()
    assert plain["calibration"] is None
    assert plain["figures"] == {k: v for k, v in both["figures"].items() if not k.endswith("_calibrated")}


def test_what_is_printed_after_calibration_has_its_own_heading(calibrated, build_run, tmp_path, capsys):
    """As QUIET=1 shows headings and metrics alone."""
    folder, data = calibrated("CoOp")
    options = ("DATASET.ROOT", data, "TEST.CALIBRATION", folder, "TEST.OPEN_SET", True)
    tested = build_run("CoOp", tmp_path / "test", *options, "DATASET.SUBSAMPLE_CLASSES", "base")
    tested.load_model(str(folder), epoch=results_of(folder)["epoch"])
    capsys.readouterr()
    tested.test()
    headings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("=> ")]
    names = ["uncertainty", "uncertainty, after calibration", "open set", "open set, after calibration"]
    assert headings == ["=> result", *(f"=> {name}" for name in names)]


def test_fit_is_that_of_the_validation_images(calibrated, build_run, tmp_path):
    folder, data = calibrated("CoOp")
    content = content_of(folder)
    trainer = run_test(build_run, "CoOp", folder, data, tmp_path / "test", classes="base")
    assert content["trained_sha256"] == trainer.model_identity()["trained_sha256"]
    with torch.no_grad():
        batches = [(trainer.model_inference(b["img"]), b["label"]) for b in trainer.val_loader]
    logits, label = (torch.cat(parts) for parts in zip(*batches))
    assert len(label) == 4
    for state, temperature in (("before", 1.0), ("after", content["values"]["temperature"])):
        assert content["figures"][state]["nll"] == pytest.approx(mean_nll(logits / temperature, label).item(), rel=1e-4)
    right = (logits.argmax(dim=1) == label).tolist()
    assert content["images"]["before"]["wrong"] == [int(not flag) for flag in right]
    confidence = logits.double().softmax(dim=1).amax(dim=1)
    np.testing.assert_allclose(content["images"]["before"]["scores"]["confidence"], 1 - confidence, rtol=1e-3)


def test_precision_of_a_test_does_not_matter_to_what_fits(calibrated, build_run, tmp_path):
    folder, _ = calibrated("CoOp")
    assert Predictor(folder, precision="bf16", calibrated=True).calibration == content_of(folder)["values"]


# Several runs


def test_folder_of_runs(run_of, tmp_path, capsys):
    top = tmp_path / "output"
    trainings = {"a/CoOp": "CoOp", "b/ZeroshotCLIP": "ZeroshotCLIP"}
    for place, name in trainings.items():
        shutil.copytree(run_of(name).folder, top / place)
    (top / "test_new/CoOp").mkdir(parents=True)  # a test of it holds no checkpoint
    shutil.copy(top / "a/CoOp/results.json", top / "test_new/CoOp")
    (top / "test_new/ZeroshotCLIP").mkdir(parents=True)
    results = {**results_of(top / "b/ZeroshotCLIP"), "classes": "new"}
    (top / "test_new/ZeroshotCLIP/results.json").write_text(json.dumps(results))
    capsys.readouterr()
    data = run_of("CoOp").folder.parent / "images"
    assert call(top, "--root", data) == 0
    assert "calibrated 2 of 2 runs" in capsys.readouterr().out
    found = sorted(str(path.parent.relative_to(top)) for path in top.rglob("calibration.json"))
    assert found == ["a/CoOp", "b/ZeroshotCLIP"]

    (top / "a/CoOp/calibration.json").unlink()
    (top / "a/CoOp/prompt_learner/model.pth.tar-2").unlink()
    assert call(top, "--root", data) == 1
    told = capsys.readouterr()
    assert "a/CoOp: no checkpoint at" in told.err
    assert "calibrated 1 of 2 runs" in told.out
    assert call(top / "a", "--root", data) == 2


def test_runs_that_are_none(run_of, tmp_path, capsys):
    assert call(tmp_path / "gone") == 2
    assert "there is no folder" in capsys.readouterr().err
    assert call(tmp_path) == 2
    assert "no finished training below" in capsys.readouterr().err
    shutil.copy(run_of("CoOp").folder / "results.json", tmp_path)
    capsys.readouterr()
    assert call(tmp_path, "--root", run_of("CoOp").folder.parent / "images") == 2
    assert "no folder prompt_learner of checkpoints" in capsys.readouterr().err


def test_new_classes_are_never_fitted_on(run_of, build_run, tmp_path, capsys):
    data = run_of("CoOp").folder.parent / "images"
    build_run("ZeroshotCLIP", tmp_path / "run", "DATASET.SUBSAMPLE_CLASSES", "new", "DATASET.ROOT", data).test()
    assert call(tmp_path / "run") == 2
    assert "it is a test on new classes" in capsys.readouterr().err
    assert not (tmp_path / "run/calibration.json").exists()


def test_new_classes_are_not_tested_with_what_was_fitted_on_them(run_of, build_run, tmp_path):
    data = run_of("CoOp").folder.parent / "images"
    for classes in ("all", "base"):
        folder = tmp_path / classes
        build_run("ZeroshotCLIP", folder, "DATASET.SUBSAMPLE_CLASSES", classes, "DATASET.ROOT", data).test()
        assert call(folder) == 0
    told = "fitted on images of all classes of DescribableTextures, which include the new"
    with pytest.raises(ValueError, match=told):
        run_test(build_run, "ZeroshotCLIP", tmp_path / "all", data, tmp_path / "test")
    options = ("DATASET.ROOT", data, "TEST.OPEN_SET", True, "TEST.CALIBRATION", tmp_path / "all")
    tested = build_run("ZeroshotCLIP", tmp_path / "test", *options, "DATASET.SUBSAMPLE_CLASSES", "base")
    with pytest.raises(ValueError, match=told):
        tested.test()
    assert not (tmp_path / "test/results.json").exists()
    for fitted, classes in (("base", "new"), ("all", "base"), ("all", "all")):
        run_test(build_run, "ZeroshotCLIP", tmp_path / fitted, data, tmp_path / "test", classes)


def test_validation_images_are_not_tested_with_what_was_fitted_on_them(build_run, tmp_path):
    with pytest.raises(ValueError, match=r"TEST\.SPLIT must be test where TEST\.CALIBRATION is given.* got 'val'"):
        build_run("ZeroshotCLIP", tmp_path, "TEST.CALIBRATION", tmp_path, "TEST.SPLIT", "val")


def test_the_same_run_gives_the_same_file(calibrated):
    folder, data = calibrated("CDC")
    first = (folder / "calibration.json").read_bytes()
    torch.manual_seed(5)
    (folder / "calibration.json").unlink()
    assert call(folder, "--root", data, "--batch-size", 1) == 0
    content = content_of(folder)
    for name, value in json.loads(first)["values"].items():
        assert content["values"][name] == pytest.approx(value, rel=1e-3)
    (folder / "calibration.json").unlink()
    assert call(folder, "--root", data) == 0
    assert (folder / "calibration.json").read_bytes() == first


# Images to fit on


def test_held_out_training_images(run_of, build_run, tmp_path, capsys):
    """Such as the run was not trained on, and no test or validation images."""
    data = run_of("CoOp").folder.parent / "images"
    options = ("DATASET.NUM_SHOTS", 3, "OPTIM.MAX_EPOCH", 1, "DATASET.ROOT", data)
    trainer = build_run("CoOp", tmp_path / "run", *options)
    trainer.train()
    capsys.readouterr()
    taken = []
    compute = fit.compute_outputs

    def record(trainer, paths, *rest):
        taken.extend(paths)
        return compute(trainer, paths, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "compute_outputs", record)
        assert call(tmp_path / "run", "--hold-out", 2) == 0
    assert "on 4 held-out training images" in capsys.readouterr().out
    fitted_on = content_of(tmp_path / "run")["fitted_on"]
    assert (fitted_on["what"], fitted_on["held_out"], fitted_on["images"]) == ("held-out training", 2, 4)
    dataset = trainer.dm.dataset
    others = {item.impath for part in (dataset.train_x, dataset.val, dataset.test) for item in part}
    assert len(set(taken)) == 4
    assert not others & set(taken)
    assert sorted(Path(path).parent.name for path in taken) == ["blue", "blue", "green", "green"]
    assert call(tmp_path / "run", "--hold-out", 5) == 0  # two are left of each class
    assert content_of(tmp_path / "run")["fitted_on"]["images"] == 4


def test_nothing_is_left_to_hold_out(run_of, build_run, tmp_path, capsys):
    data = run_of("CoOp").folder.parent / "images"
    build_run("ZeroshotCLIP", tmp_path / "run", "DATASET.NUM_SHOTS", -1, "DATASET.ROOT", data).test()
    assert call(tmp_path / "run", "--hold-out", 1) == 2
    assert "trained on all training images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(tmp_path / "run", "--hold-out", 0)


def test_test_images_are_no_validation_images(calibrated, monkeypatch, capsys):
    """As ImageNet's readers give them."""
    folder, data = calibrated("CoOp")
    (folder / "calibration.json").unlink()
    build = fit.build_dataset

    def build_like_imagenet(cfg):
        dataset = build(cfg)
        dataset._val = dataset.test
        return dataset

    monkeypatch.setattr(fit, "build_dataset", build_like_imagenet)
    capsys.readouterr()
    assert call(folder, "--root", data) == 2
    assert "has no validation images of its own; --hold-out 4 takes" in capsys.readouterr().err
    assert call(folder, "--root", data, "--hold-out", 1) == 0


def test_other_classes_than_those_trained_are_refused(calibrated, tmp_path, capsys):
    folder, data = calibrated("CoOp")
    other = shutil.copytree(data, tmp_path / "data")
    for path in (other / "dtd").glob("split*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (other / "dtd/images/blue").rename(other / "dtd/images/azure")
    assert call(folder, "--root", other) == 2
    assert "no longer those that the run was trained on" in capsys.readouterr().err


# A calibration of another model


def test_other_epochs_and_trainings_are_refused(run_of, build_run, tmp_path):
    data = run_of("CoOp").folder.parent / "images"
    folder, options = tmp_path / "run", ("DATASET.ROOT", data, "OPTIM.MAX_EPOCH", 2)
    build_run("CoOp", folder, *options).train()
    assert call(folder, "--load-epoch", 1) == 0
    assert Predictor(folder, epoch=1, calibrated=True).calibration
    with pytest.raises(ValueError, match="was fitted to epoch 1, and this is epoch 2"):
        Predictor(folder, calibrated=True)
    tested = build_run("CoOp", tmp_path / "test", *options, "TEST.CALIBRATION", folder)
    tested.load_model(str(folder), epoch=2)
    with pytest.raises(ValueError, match="was fitted to epoch 1, and this is epoch 2"):
        tested.test()
    assert not (tmp_path / "test/results.json").exists()
    tested.load_model(str(folder), epoch=1)
    tested.test()
    assert call(folder) == 0
    assert Predictor(folder, coverage=0.5).rejection
    # as many epochs of a training with another learning rate
    shutil.rmtree(folder / "prompt_learner")
    build_run("CoOp", folder, *options, "OPTIM.LR", 0.05).train()
    with pytest.raises(ValueError, match="another training"):
        Predictor(folder, coverage=0.5)


def test_other_options_than_it_was_fitted_with_are_refused(calibrated, build_run, tmp_path):
    folder, data = calibrated("CDC")
    options = (*RUNS["CDC"][2], "DATASET.ROOT", data, "TEST.CALIBRATION", folder / "calibration.json")
    tested = build_run("CDC", tmp_path / "test", *options, "TRAINER.CDC.EVIDENCE", "softplus")
    tested.load_model(str(folder), epoch=2)
    with pytest.raises(ValueError, match="EVIDENCE 'exp', where it is now 'softplus'"):
        tested.test()


MENDED = ("--set", "TRAINER.CDC.FUSION", "averaging", "--set", "TRAINER.CDC.PROBABILITY", "expected")


def test_a_trained_run_is_calibrated_and_predicts_with_other_options(calibrated, build_run, run_of, tmp_path, capsys):
    """As docs/uncertainty_study.md has them, which need no other training."""
    folder, data = calibrated("CDC", *MENDED)
    content = content_of(folder)
    assert (content["options"]["FUSION"], content["options"]["PROBABILITY"]) == ("averaging", "expected")
    settings = [text for text in MENDED if text != "--set"]
    options = (*RUNS["CDC"][2], *settings, "DATASET.ROOT", data, "TEST.CALIBRATION", folder)
    tested = build_run("CDC", tmp_path / "test", *options, "DATASET.SUBSAMPLE_CLASSES", "base", config="tiny_text")
    tested.load_model(str(folder), epoch=2)
    tested.test()
    for calibration, name in ((True, CALIBRATED_FILE_NAME), (False, "predictions.npz")):
        found = read_predictions(tmp_path / "test" / name)
        predictor = Predictor(folder, calibrated=calibration, settings=settings)
        predictions = predictor([str(data / path) for path in found["path"]])
        np.testing.assert_allclose([p.probability for p in predictions], found["confidence"], rtol=1e-4)
        np.testing.assert_allclose([p.uncertainty for p in predictions], found["uncertainty"], rtol=1e-3)

    given = ["--model-dir", str(folder), "--coverage", "0.5", "--workers", "0", run_of("CDC").images[0]]
    assert predict([*given, *MENDED]) == 0
    capsys.readouterr()
    assert predict(given) == 2
    assert "was fitted with FUSION 'averaging', where it is now 'dempster'" in capsys.readouterr().err
    assert predict([*given, "--set", "DATASET.NUM_SHOTS", "1"]) == 2
    assert "must be options of its method, TRAINER.CDC.KEY, got DATASET.NUM_SHOTS" in capsys.readouterr().err
    assert predict([*given, "--set", "TRAINER.CDC.FUSION", "vote"]) == 2
    assert "FUSION must be one of dempster, averaging, got 'vote'" in capsys.readouterr().err


def test_training_takes_no_calibration(build_run, calibrated, tmp_path):
    folder, data = calibrated("CoOp")
    trainer = build_run("CoOp", tmp_path / "other", "DATASET.ROOT", data, "TEST.CALIBRATION", folder)
    with pytest.raises(ValueError, match=r"TEST\.CALIBRATION needs --eval-only"):
        trainer.train()


# Rejection


def test_coverage_of_the_validation_images_is_what_is_asked_for(calibrated, build_run, tmp_path):
    folder, data = calibrated("CDC coupled")
    trainer = run_test(build_run, "CDC coupled", folder, data, tmp_path / "test", classes="base")
    images = [item.impath for item in trainer.dm.dataset.val]
    for score in ("", "confidence", "entropy", "uncertainty", "conflict", "doubt", "disagreement"):
        for calibration in (False, True):
            predictor = Predictor(folder, calibrated=calibration, coverage=0.5, score=score)
            found = [p for p in predictor(images) if not p.rejected]
            assert len(found) == predictor.rejection.kept.kept >= 2
            right = [p for p in found if p.label == Path(p.path).parent.name]
            assert len(right) == predictor.rejection.kept.right
            state = "after" if calibration else "before"
            assert predictor.rejection.score == (score or content_of(folder)["best_score"][state])


def test_rows_are_marked_or_dropped(calibrated, run_of, tmp_path, capsys):
    folder, _ = calibrated("CDC")
    images = run_of("CDC").images
    plain = Predictor(folder)(images)
    threshold = float(np.median([1 - p.probability for p in plain]))
    given = ("--model-dir", folder, "--reject-above", threshold, "--score", "confidence", "--workers", 0)
    call_predict = [str(argument) for argument in (*given, *images)]
    capsys.readouterr()
    assert predict(call_predict) == 0
    told = capsys.readouterr()
    rows = list(csv.DictReader(told.out.splitlines()))
    assert [row["path"] for row in rows] == images
    expected = [1 - p.probability > threshold for p in plain]
    assert 0 < sum(expected) < len(images)
    assert [row["rejected"] for row in rows] == [str(flag) for flag in expected]
    np.testing.assert_allclose([float(row["score"]) for row in rows], [1 - p.probability for p in plain], rtol=1e-4)
    assert f"of these rejected {sum(expected)}, skipped 0" in told.err
    images_kept = content_of(folder)["images"]["before"]
    kept = np.array(images_kept["scores"]["confidence"]) <= threshold
    right = int((kept & ~np.array(images_kept["wrong"], dtype=bool)).sum())
    assert f"a score confidence above {threshold:.6g}\n" in told.err
    assert f"of 4 validation images that keeps {kept.sum()} ({kept.mean():.1%})" in told.err
    assert not kept.any() or f", {right} of them right" in told.err

    assert predict(["--rejected", "drop", "--format", "jsonl", *call_predict]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == [p for p, flag in zip(images, expected) if not flag]
    assert {line["rejected"] for line in lines} == {False}
    assert list(lines[0])[:7] == ["path", "label", "probability", "uncertainty", "conflict", "score", "rejected"]


def test_nothing_is_kept(calibrated, run_of, capsys):
    folder, _ = calibrated("CoOp")
    given = ["--model-dir", str(folder), "--reject-above", "-1", "--rejected", "drop", "--workers", "0"]
    capsys.readouterr()
    assert predict([*given, run_of("CoOp").images[0]]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "of 4 validation images that keeps 0 (0.0%); of all" in told.err
    assert "classified 1, of these rejected 1" in told.err


def test_other_class_names_get_a_note(calibrated, run_of, capsys):
    folder, _ = calibrated("CoOp")
    given = ["--model-dir", str(folder), "--calibrated", "--coverage", "1", "--workers", "0", run_of("CoOp").images[0]]
    capsys.readouterr()
    assert predict(given) == 0
    assert "may not hold" not in capsys.readouterr().err
    assert predict([*given, "--classnames", "red,green"]) == 0
    told = capsys.readouterr().err
    assert "are of the run's own classes, and may not hold for others" in told
    assert (
        f"calibrated by temperature {content_of(folder)['values']['temperature']:.4g}, fitted on 4 validation" in told
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--coverage", "0"), "above 0 and at most 1, got 0"),
        (("--coverage", "90"), "above 0 and at most 1, got 90"),
        (("--reject-above", "nan"), "a finite number, got nan"),
        (("--coverage", "0.9", "--score", "uncertainty"), "one of confidence, entropy, which this run has, got 'unc"),
    ],
)
def test_wrong_rejection(calibrated, run_of, capsys, options, message):
    folder, _ = calibrated("CoOp")
    capsys.readouterr()
    assert predict(["--model-dir", str(folder), *options, run_of("CoOp").images[0]]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert message in told


@pytest.mark.parametrize("options", [("--score", "entropy"), ("--rejected", "drop"),
                                     ("--coverage", "0.9", "--reject-above", "1")])  # fmt: skip
def test_options_that_do_not_go_together(options):
    with pytest.raises(SystemExit):
        predict(["--model-dir", "run", *options, "a.png"])


def test_no_calibration(run_of, capsys):
    run = run_of("CoOp")
    for option in (("--coverage", "0.9"), ("--reject-above", "1"), ("--calibrated",)):
        capsys.readouterr()
        assert predict(["--model-dir", str(run.folder), *option, run.images[0]]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert f"`python -m tools.calibrate {run.folder}` makes one" in told
    with pytest.raises(ValueError, match="a score is to reject by"):
        Predictor(run.folder, score="entropy")
