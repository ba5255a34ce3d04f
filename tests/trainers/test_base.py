"""What all trainers share: a test whose figures are no numbers, and a config whose numbers are not."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal

import pytest
import torch

from helpers import results_of
from settings.log import print_settings
from tools.results.runs import read_logs
from trainers.base import check_scores

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("scores", [[[NAN, 1.0]], [[INF, 1.0]], [[0.0, 1.0], [-INF, -INF]]])
def test_scores_without_probabilities_are_an_error(scores):
    with pytest.raises(FloatingPointError, match=r"infinite or not a number.* fp16 is too narrow"):
        check_scores(torch.tensor(scores), "fp16")
    with pytest.raises(FloatingPointError, match=r"infinite or not a number: its training has diverged$"):
        check_scores(torch.tensor(scores), "fp32")


def test_class_without_evidence_is_no_error():
    check_scores(torch.tensor([[-INF, 0.0], [60000.0, -60000.0]]), "fp32")
    check_scores(torch.tensor([[60000.0, -60000.0]], dtype=torch.float16), "fp16")


def test_test_with_scores_that_are_not_numbers_writes_no_result(build_run, tmp_path, monkeypatch):
    trainer = build_run("ZeroshotCLIP", tmp_path)
    honest = trainer.model_inference
    monkeypatch.setattr(trainer, "model_inference", lambda images: honest(images) * NAN)
    with pytest.raises(FloatingPointError, match="scores are infinite or not a number"):
        trainer.test()
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("value", [NAN, INF, torch.tensor(NAN)])
def test_metric_that_is_not_a_number_is_no_result(build_run, tmp_path, monkeypatch, value):
    trainer = build_run("ZeroshotCLIP", tmp_path)
    trainer.test()
    before = (tmp_path / "results.json").read_bytes()
    monkeypatch.setattr(trainer, "model_metrics", lambda: {"spread": value})
    with pytest.raises(FloatingPointError, match=f"no result: spread is {'inf' if math.isinf(value) else 'nan'}"):
        trainer.test()
    assert (tmp_path / "results.json").read_bytes() == before


def test_infinite_numbers_in_a_config_are_told_at_once(build_run, tmp_path):
    with pytest.raises(ValueError, match=r"^the config cannot run: ") as told:
        build_run(
            "CoOp", tmp_path, "OPTIM.LR", "1e999", "INPUT.PIXEL_MEAN", "[0.5, 1e999, 0.5]", "OPTIM.GAMMA", "-1e999"
        )
    for words in (
        "OPTIM.LR must be a finite",
        "INPUT.PIXEL_MEAN must",
        "OPTIM.GAMMA must be a finite number, got -inf",
    ):
        assert words in str(told.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("OPTIM.MAX_EPOCH", 10**30), ("OPTIM.MAX_EPOCH", -1), ("TRAIN.PRINT_FREQ", 0), ("TRAIN.PRINT_FREQ", -3)],
)
@pytest.mark.parametrize("method", ["CoOp", "PromptSRC"])
def test_numbers_that_no_training_can_have_are_told(build_run, tmp_path, method, key, value):
    with pytest.raises(ValueError, match=rf"the config cannot run: {key} must be .*, got {value}$"):
        build_run(method, tmp_path, key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(optimizer=None), "cannot go on"),
        (
            lambda state: state["optimizer"]["state"].clear() or state["optimizer"]["param_groups"].clear(),
            "cannot go on",
        ),
        (lambda state: state["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(3)), r"the shape \(3,\), not"),
        (lambda state: state["optimizer"]["state"][0]["momentum_buffer"].fill_(NAN), "momentum_buffer is infinite"),
        (lambda state: state["resume"]["random"].update(torch=torch.zeros(7, dtype=torch.uint8)), "cannot go on"),
        (lambda state: state["resume"]["random"].update(torch=[1, 2]), "cannot go on"),
        (lambda state: state["resume"]["random"].update(python=(3, (1, 2), None)), "cannot go on"),
        (lambda state: state["resume"]["random"].pop("numpy"), "cannot go on"),
        (lambda state: state.update(resume=[1]), "cannot go on"),
    ],
)
def test_training_does_not_go_on_from_a_broken_checkpoint(build_run, tmp_path, change, message):
    trainer = build_run("CoOp", tmp_path, "OPTIM.MAX_EPOCH", 1, "TEST.NO_TEST", True)
    trainer.train()
    path = tmp_path / "prompt_learner/model.pth.tar-1"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"cannot go on from .*model\.pth\.tar-1") as told:
        build_run("CoOp", tmp_path, "OPTIM.MAX_EPOCH", 1).train()
    assert re.search(message, str(told.value))


class Swallowing:
    """Presses Ctrl-C where Python prints a KeyboardInterrupt and goes on, as it does in hooks of a fork."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("place", ["save_model", "model_inference", "after_train"])
def test_ctrl_c_stops_a_training_that_can_go_on(build_run, tmp_path, monkeypatch, place):
    """Just after a checkpoint, at the latest after the next step; in the test after a batch; at the very end too."""
    options = ("TRAIN.CHECKPOINT_FREQ", 1)
    whole = build_run("CoOp", tmp_path / "whole", *options)
    whole.train()
    cut = build_run("CoOp", tmp_path / "cut", *options)
    hook, steps = getattr(cut, place), []

    def pressed(*arguments, **named):
        result = hook(*arguments, **named)
        Swallowing()
        steps.append(0)
        return result

    step = cut.step
    monkeypatch.setattr(cut, place, pressed)
    monkeypatch.setattr(cut, "step", lambda batch: (steps and steps.append(1)) or step(batch))
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    assert steps == ([0, 1] if place == "save_model" else [0])
    assert (tmp_path / "cut/results.json").exists() == (place == "after_train")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = build_run("CoOp", tmp_path / "cut", *options)
    resumed.train()
    assert torch.equal(resumed.learner.ctx, whole.learner.ctx)
    assert results_of(tmp_path / "cut")["figures"] == results_of(tmp_path / "whole")["figures"]


def test_ctrl_c_stops_the_encoding_of_a_bank(build_run, tmp_path, monkeypatch):
    trainer = build_run("CoOp", tmp_path, "TRAINER.COOP.FEATURE_BANK", 1, "TRAINER.COOP.FEATURE_BANK_DIR", tmp_path)
    transforms = trainer.augmentations

    def pressed():
        Swallowing()
        return transforms()

    monkeypatch.setattr(trainer, "augmentations", pressed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not list(tmp_path.glob("*.npy"))


EVIL = "x)\n=> result\n* total: 5\n* correct: 5\n* accuracy: 100.0%\n\x1b[2J"


def test_class_name_is_no_line_of_a_log(build_run, data, clip_files, tmp_path, capsys):
    """Not where Dassl prints accuracies per class, nor in notes on the data, the config or CLIP."""
    split = {"train": [], "val": [], "test": []}
    for label, folder in enumerate(sorted(path.name for path in (data / "dtd/images").iterdir())):
        name = EVIL if label == 0 else folder
        for index, path in enumerate(sorted((data / "dtd/images" / folder).iterdir())):
            split["train" if index < 5 else "test"].append([f"{folder}/{path.name}", label, name])
    root = tmp_path / "data"
    (root / "dtd").mkdir(parents=True)
    (root / "dtd/images").symlink_to(data / "dtd/images")
    (root / "dtd/split_zhou_DescribableTextures.json").write_text(json.dumps(split))
    shots = ("DATASET.NUM_SHOTS", 9, "TEST.PER_CLASS_RESULT", True, "DATASET.ROOT", root, "VERBOSE", True)
    trainer = build_run("ZeroshotCLIP", tmp_path / "run", *shots)
    print_settings(argparse.Namespace(resume=EVIL), trainer.cfg)
    accuracy = trainer.test()
    printed = capsys.readouterr().out
    assert trainer.class_names[0] == EVIL
    assert results_of(tmp_path / "run")["class_names"][0] == EVIL
    assert "\x1b" not in printed
    assert printed.count("\n=> result\n") == 1
    assert printed.count("x)\\n=> result\\n* total: 5") >= 3
    (tmp_path / "log").mkdir()
    (tmp_path / "log/log.txt").write_text(printed)
    assert read_logs(tmp_path / "log").accuracy == pytest.approx(accuracy, abs=0.051)


@pytest.mark.parametrize(
    ("trainer", "options"),
    [
        ("CDC", ("TRAINER.CDC.SELF_REGULATION.ENABLED", True)),
        ("KgCoOp", ()),
        ("PromptSRC", ("TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2)),
        ("MMRL", ("TRAINER.MMRL.REP_LAYERS", [2], "TASK", "B2N")),
    ],
)
def test_no_texts_are_encoded_for_a_test_that_only_training_needs(build_run, tmp_path, trainer, options):
    """Of many classes under sixty templates that would take far longer than the test."""
    built = build_run(trainer, tmp_path, *options, "OPTIM.MAX_EPOCH", 1)
    hand_written = {"anchor", "frozen_texts"}
    built.test()
    assert not hand_written & vars(built).keys()
    built.loss(next(iter(built.train_loader_x)))
    assert hand_written & vars(built).keys()
