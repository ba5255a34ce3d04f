"""What a run goes on from, what it is chosen on and what is tested: never another one in silence."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from helpers import cut_after, results_of

EVERY_EPOCH = ("TRAIN.CHECKPOINT_FREQ", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("OPTIM.MAX_EPOCH", 10), "OPTIM.MAX_EPOCH 3 in place of 10"),
        (("OPTIM.MAX_EPOCH", 1), "OPTIM.MAX_EPOCH 3 in place of 1"),
        (("OPTIM.LR", 0.01), "OPTIM.LR 0.1 in place of 0.01"),
        (("DATASET.SUBSAMPLE_CLASSES", "new"), "DATASET.SUBSAMPLE_CLASSES base in place of new"),
        (("DATASET.NUM_SHOTS", 1), "DATASET.NUM_SHOTS 4 in place of 1"),
        (
            ("DATALOADER.TRAIN_X.BATCH_SIZE", 2, "INPUT.TRANSFORMS", ["normalize"]),
            "INPUT.TRANSFORMS .*; .*BATCH_SIZE 4 in place of 2",
        ),
        (("TRAINER.COOP.PREC", "fp32"), "TRAINER.COOP.PREC .* in place of fp32"),
        (("SEED", 2), "SEED 1 in place of 2"),
    ],
)
def test_training_with_other_settings_does_not_go_on(build_run, tmp_path, options, message):
    first = build_run("CoOp", tmp_path, *EVERY_EPOCH, "TRAINER.COOP.PREC", "bf16")
    cut_after(first, 1)
    other = build_run("CoOp", tmp_path, *EVERY_EPOCH, "TRAINER.COOP.PREC", "bf16", *options)
    with pytest.raises(ValueError, match=rf"cannot go on from .*model\.pth\.tar-1, which was trained with .*{message}"):
        other.train()
    assert not (tmp_path / "results.json").exists()


def test_folder_of_a_training_that_diverged_takes_another_one(build_run, tmp_path):
    """After a mended setting the command works, with fewer epochs too; what there was is kept under another name."""
    first = build_run("CoOp", tmp_path / "run", *EVERY_EPOCH)
    update_lr = first.update_lr

    def diverge():
        if first.epoch == 2:
            first.learner.ctx.data.fill_(float("nan"))
        update_lr()

    first.update_lr = diverge
    with pytest.raises(FloatingPointError, match="training diverges: ctx is infinite or not a number after epoch 3"):
        first.train()
    folder = tmp_path / "run/prompt_learner"
    assert sorted(path.name for path in folder.iterdir()) == [f"diverged-model.pth.tar-{epoch}" for epoch in (1, 2)]
    mended = build_run("CoOp", tmp_path / "run", *EVERY_EPOCH, "OPTIM.LR", 0.01, "OPTIM.MAX_EPOCH", 1)
    mended.train()
    assert [path.name for path in folder.glob("model*")] == ["model.pth.tar-1"]
    alone = build_run("CoOp", tmp_path / "alone", *EVERY_EPOCH, "OPTIM.LR", 0.01, "OPTIM.MAX_EPOCH", 1)
    alone.train()
    assert torch.equal(mended.learner.ctx, alone.learner.ctx)
    build_run("CoOp", tmp_path / "x", "MODEL.INIT_WEIGHTS", folder / "diverged-model.pth.tar-2")


def test_training_whose_test_alone_shows_that_it_diverged(build_run, tmp_path, monkeypatch):
    """Parameters can be huge and finite, and the scores not."""
    run = build_run("CoOp", tmp_path / "run", *EVERY_EPOCH)
    monkeypatch.setattr(run, "outputs", lambda images: torch.full((len(images), 2), float("nan")))
    message = r"training diverges: in the test after epoch 3 the model's scores .*; try a smaller OPTIM.LR than"
    with pytest.raises(FloatingPointError, match=message):
        run.train()
    folder = tmp_path / "run/prompt_learner"
    assert sorted(path.name for path in folder.iterdir()) == [f"diverged-model.pth.tar-{epoch}" for epoch in (1, 2, 3)]
    assert not (tmp_path / "run/results.json").exists()
    build_run("CoOp", tmp_path / "run", *EVERY_EPOCH, "OPTIM.LR", 0.01).train()
    assert (tmp_path / "run/results.json").exists()


def test_what_changes_no_number_may_differ(build_run, tmp_path):
    whole = build_run("CoOp", tmp_path / "whole", *EVERY_EPOCH)
    whole.train()
    cut_after(build_run("CoOp", tmp_path / "cut", *EVERY_EPOCH), 1)
    others = ("TRAIN.PRINT_FREQ", 1, "TEST.PER_CLASS_RESULT", True, "DATASET.IMAGES_OUTSIDE", True)
    resumed = build_run("CoOp", tmp_path / "cut", "TRAIN.CHECKPOINT_FREQ", 2, *others)
    resumed.train()
    assert torch.equal(resumed.learner.ctx, whole.learner.ctx)


def test_seconds_are_of_the_whole_training(build_run, tmp_path, monkeypatch):
    """Those of the epochs that were kept, in all processes; an epoch that was cut and its repetition count once."""
    now = [1000.0]
    monkeypatch.setattr("trainers.checkpointing.time.time", lambda: now[0])

    def timed(cut=None):
        run = build_run("CoOp", tmp_path, *EVERY_EPOCH)
        step = run.step

        def slow(batch):
            now[0] += 10.0 if run.batch_idx == 0 else 0.0  # each epoch takes as long
            return step(batch)

        run.step = slow
        cut_after(run, cut) if cut else run.train()
        now[0] += 10_000.0

    timed(cut=1)  # in its second epoch
    timed(cut=2)
    timed()
    assert results_of(tmp_path)["train_seconds"] == 30.0


def test_clock_that_is_set_back_stops_no_resuming(build_run, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("trainers.checkpointing.time.time", lambda: now[0])
    run = build_run("CoOp", tmp_path, *EVERY_EPOCH)
    step = run.step

    def set_back(batch):
        now[0] -= 500.0
        return step(batch)

    run.step = set_back
    cut_after(run, 1)
    build_run("CoOp", tmp_path, *EVERY_EPOCH).train()
    assert results_of(tmp_path)["train_seconds"] == 0.0


@pytest.mark.parametrize("told", ["no seconds", "nothing"])
def test_older_checkpoint_leaves_the_seconds_open(build_run, tmp_path, told):
    cut_after(build_run("CoOp", tmp_path, *EVERY_EPOCH), 2)
    forget = {"no seconds": lambda c: c["resume"].pop("train_seconds"), "nothing": lambda c: c.pop("resume")}
    change_checkpoint(tmp_path, forget[told])
    build_run("CoOp", tmp_path, *EVERY_EPOCH).train()
    assert results_of(tmp_path)["train_seconds"] is None


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, "1", True, torch.tensor(1.0)])
def test_seconds_that_are_none_are_told(build_run, tmp_path, seconds):
    cut_after(build_run("CoOp", tmp_path, *EVERY_EPOCH), 2)
    change_checkpoint(tmp_path, lambda checkpoint: checkpoint["resume"].update(train_seconds=seconds))
    with pytest.raises(ValueError, match="its train_seconds must be a finite number from 0 on, got "):
        build_run("CoOp", tmp_path, *EVERY_EPOCH).train()


def change_checkpoint(folder, change):
    path = folder / "prompt_learner/model.pth.tar-2"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


def test_older_checkpoint_is_compared_by_what_it_tells(build_run, tmp_path):
    """By data and classes; where it has neither, as one of published code, by its learning rate."""
    cut_after(build_run("CoOp", tmp_path, *EVERY_EPOCH), 2)
    change_checkpoint(tmp_path, lambda checkpoint: checkpoint.pop("settings"))
    with pytest.raises(ValueError, match="SUBSAMPLE_CLASSES base in place of new"):
        build_run("CoOp", tmp_path, "DATASET.SUBSAMPLE_CLASSES", "new").train()
    change_checkpoint(tmp_path, lambda checkpoint: checkpoint.pop("trained_on"))
    with pytest.raises(ValueError, match="on the classes blue, green in place of red, yellow"):
        build_run("CoOp", tmp_path, "DATASET.SUBSAMPLE_CLASSES", "new").train()
    change_checkpoint(tmp_path, lambda checkpoint: checkpoint.pop("class_names"))
    with pytest.raises(
        ValueError, match=r"tar-2, .*learning rate 0\.0\d+ after epoch 2, where this run's OPTIM .* 0\.0"
    ):
        build_run("CoOp", tmp_path, "OPTIM.MAX_EPOCH", 30).train()
    resumed = build_run("CoOp", tmp_path)
    resumed.train()
    assert resumed.start_epoch == 2


@pytest.mark.parametrize("final", ["last_step", "best_val"])
def test_each_step_is_logged_once(build_run, tmp_path, final):
    """As in a run that was not cut, in the files themselves; also where a run is tested again at its end."""
    options = ("TEST.FINAL_MODEL", final, "TRAIN.CHECKPOINT_FREQ", 1, "DATALOADER.TRAIN_X.BATCH_SIZE", 2)
    build_run("CoOp", tmp_path / "whole", *options).train()
    cut = build_run("CoOp", tmp_path / "cut", *options)
    cut_after(cut, 1)
    cut._writer.flush()
    (events,) = (tmp_path / "cut/tensorboard").iterdir()
    assert (1, "train/loss") in points(events)
    with events.open("ab") as file:
        file.write(struct.pack("<Q", 3) + b"----\xff\xff\xff----" + struct.pack("<Q", 100) + b"a part of a record")
    for _ in range(2):
        resumed = build_run("CoOp", tmp_path / "cut", *options)
        resumed.train()
    logged = [points(*(tmp_path / name / "tensorboard").iterdir()) for name in ("whole", "cut")]
    assert len(set(logged[0])) == len(logged[0])
    assert sorted(logged[1]) == sorted(logged[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_log_that_cannot_be_written_is_one_error_before_the_results(build_run, tmp_path, capfd):
    """As of other files on a full disk; with more room the same command ends."""
    run = build_run("CoOp", tmp_path, *EVERY_EPOCH)
    init_writer = run.init_writer

    def disk_is_full_then(log_dir):
        init_writer(log_dir)
        (events,) = Path(log_dir).iterdir()
        events.unlink()
        events.symlink_to("/dev/full")  # TensorBoard opens it again to write

    run.init_writer = disk_is_full_then
    capfd.readouterr()
    with pytest.raises(OSError, match="No space left") as raised:
        run.train()
    assert raised.value.filename == str(tmp_path / "tensorboard")
    assert "Traceback" not in capfd.readouterr().err
    assert not (tmp_path / "results.json").exists()

    (events,) = (tmp_path / "tensorboard").iterdir()
    events.unlink()
    build_run("CoOp", tmp_path, *EVERY_EPOCH).train()
    assert results_of(tmp_path)["epoch"] == 3


def points(*files):
    """(step, name) of each value in TensorBoard's files."""
    found = []
    for file in files:
        for event in EventFileLoader(str(file)).Load():
            found += [(event.step, value.tag) for value in event.summary.value]
    return found


def test_best_epoch_is_not_chosen_on_test_images(build_run, tmp_path):
    for val, message in (([], "there are none"), (None, "are test images, too")):
        trainer = build_run("CoOp", tmp_path, "TEST.FINAL_MODEL", "best_val")
        dataset = trainer.dm.dataset
        dataset._val = dataset.test if val is None else val
        trainer.val_loader = trainer.val_loader if val is None else None
        with pytest.raises(ValueError, match=f"best_val chooses .* of which .*{message}"):
            trainer.train()
    assert not Path(tmp_path, "prompt_learner").exists()


def test_prompts_that_nobody_trained_are_tested_only_when_asked_for(build_run, tmp_path):
    trainer = build_run("CoOp", tmp_path / "start")
    with pytest.raises(ValueError, match=r"no trained model to test: --model-dir .* TEST\.UNTRAINED True"):
        trainer.load_model("")
    asked = build_run("CoOp", tmp_path / "asked", "TEST.UNTRAINED", True)
    asked.load_model("", epoch=None)
    asked.test()
    results = results_of(tmp_path / "asked")
    assert (results["config"]["TEST"]["UNTRAINED"], results["model_dir"], results["epoch"]) == (True, None, 0)

    build_run("CoOp", tmp_path / "run", "OPTIM.MAX_EPOCH", 1).train()
    file = tmp_path / "run/prompt_learner/model.pth.tar-1"
    given = build_run("CoOp", tmp_path / "given", "MODEL.INIT_WEIGHTS", file)
    given.load_model("")
    given.test()
    results = results_of(tmp_path / "given")
    assert (results["model_dir"], results["epoch"], results["trained_on"]["seed"]) == (str(file), 1, 1)


def test_zero_shot_clip_needs_no_model(build_run, tmp_path):
    trainer = build_run("ZeroshotCLIP", tmp_path)
    trainer.load_model("")
    assert trainer.test() == results_of(tmp_path)["figures"]["accuracy"]


def test_arguments_of_forks_are_passed_over(build_run, tmp_path):
    """Forks of Dassl call `test` with more than the split, as ATPrompt's does."""
    trainer = build_run("CoOp", tmp_path, "OPTIM.MAX_EPOCH", 1)
    assert trainer.test("test", True) == trainer.test(split="test", is_final=True) == trainer.test(is_final=False)
