"""Where figures go besides TensorBoard: Weights & Biases, in its offline mode and against one that fails."""

from __future__ import annotations

import json
import re
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import cut_after, results_of
from trainers.modules.figures import Wandb, last_names, receiver_problem, without_places

OTHERS = ("config", "date", "peak_memory_bytes", "test_seconds", "train_seconds")  # of each run its own
LEAVES_OUT = ("_timestamp", "_runtime", "_step", "_wandb")


@pytest.fixture
def offline(monkeypatch):
    """The package in its offline mode, with nothing of this machine's account."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return pytest.importorskip("wandb", reason="needs wandb: pip install -e '.[wandb]'")


def records(path: Path) -> list:
    """The records of a run file, once the last one is there, as another process writes it."""
    for _ in range(200):
        found = list(parse(path.read_bytes()))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{path} has no end")


def parse(content: bytes):
    """Records in LevelDB's format of logs, blocks of 32 KiB, after wandb's own head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, parts = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def run_files(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("*run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def history(path: Path) -> dict[int, dict[str, float]]:
    """What a run file holds by step."""
    rows = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = {(item.key or "/".join(item.nested_key)): item for item in record.history.item}
            row = {name: json.loads(item.value_json) for name, item in items.items() if name not in LEAVES_OUT}
            rows.setdefault(json.loads(items["_step"].value_json), {}).update(row)
    return rows


def tensorboard(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def numbers(folder: Path) -> dict:
    return {name: value for name, value in results_of(folder).items() if name not in OTHERS}


def parameters(folder: Path, epoch: int) -> dict:
    path = folder / "prompt_learner" / f"model.pth.tar-{epoch}"
    return torch.load(path, weights_only=False)["state_dict"]


def test_a_run_file_holds_what_tensorboard_has_and_nothing_of_the_machine(build_run, tmp_path, offline):
    for folder, options in ((tmp_path / "plain", ()), (tmp_path / "reported", ("REPORT_TO", "wandb"))):
        build_run("CoOp", folder, *options).train()
    assert numbers(tmp_path / "reported") == numbers(tmp_path / "plain")
    ours, theirs = (parameters(tmp_path / name, 3) for name in ("reported", "plain"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (tmp_path / "plain/wandb").exists()

    (path,) = run_files(tmp_path / "reported")
    rows, shown = history(path), tensorboard(tmp_path / "reported")
    last = max(rows)
    for tag, values in shown.items():
        ours = {step: row[tag] for step, row in rows.items() if tag in row}
        expected = values if tag.startswith("train/") else {last: next(iter(values.values()))}
        assert ours == pytest.approx(expected, rel=1e-6)
    assert {tag.split("/")[0] for tag in shown} == {"train", "test"}
    assert rows[last]["test/accuracy"] == results_of(tmp_path / "reported")["figures"]["accuracy"]

    (run,) = (record.run for record in records(path) if record.WhichOneof("record_type") == "run")
    assert (run.project, run.display_name) == ("cdc", f"CoOp/DescribableTextures/base/{tmp_path.name}/reported")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["OPTIM"]["LR"] == 0.1
    assert config["MODEL"]["BACKBONE"]["NAME"] == "small.pt"
    content = path.read_bytes()
    for secret in (str(Path.home()), str(tmp_path), sys.executable):
        assert secret.encode() not in content


def test_a_run_that_goes_on_is_the_same_one(build_run, tmp_path, offline):
    every = ("TRAIN.CHECKPOINT_FREQ", 1, "REPORT_TO", "wandb")
    build_run("CoOp", tmp_path / "whole", *every).train()
    cut_after(build_run("CoOp", tmp_path / "cut", *every), 1)
    build_run("CoOp", tmp_path / "cut", *every).train()
    first, second = run_files(tmp_path / "cut")
    assert first.name == second.name == f"run-{(tmp_path / 'cut/wandb/run_id').read_text().strip()}.wandb"
    (whole,) = run_files(tmp_path / "whole")
    assert whole.name != first.name
    assert {**history(first), **history(second)} == history(whole)
    assert min(history(second)) > 0  # of the second epoch on


def test_a_test_alone_is_reported_too(build_run, tmp_path, offline):
    build_run("ZeroshotCLIP", tmp_path, "REPORT_TO", "wandb").test()
    (path,) = run_files(tmp_path)
    assert history(path)[0]["test/accuracy"] == results_of(tmp_path)["figures"]["accuracy"]


def test_an_absent_package_and_another_name_are_told_with_what_else_is_wrong(build_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert receiver_problem("") == ""
    assert receiver_problem("wandb") == (
        "--report-to wandb needs the package wandb, which is not installed: pip install -e '.[wandb]'"
    )
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"REPORT_TO\) must be wandb, got 'mlflow'; .*PREC must be one of"):
        build_run("CoOp", tmp_path, "REPORT_TO", "mlflow", "TRAINER.COOP.PREC", "fp8")


class FakeRun:
    """A run of a wandb that fails when it is told to."""

    def __init__(self, step=0):
        self.step, self.rows, self.fails, self.ended = step, [], False, None

    def log(self, row, step):
        if self.fails:
            raise OSError("the disk\nis full")
        self.step = step
        self.rows.append((step, row))

    def finish(self, exit_code):
        self.ended = exit_code
        if self.fails:
            raise OSError("again")


@pytest.fixture
def fake(monkeypatch):
    """A package of that name, whose runs are `FakeRun`s."""
    settings = type("Settings", (), {"model_fields": {"host": None}, "__init__": lambda self, **given: None})
    package = SimpleNamespace(run=FakeRun(), init=lambda **given: package.run, Settings=settings)
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr("trainers.base.receiver_problem", lambda name: "")
    return package


def test_a_wandb_that_cannot_begin_is_one_error_before_the_first_step(build_run, tmp_path, fake, monkeypatch):
    def refuse(**given):
        raise RuntimeError("no key\nanywhere")

    fake.init = refuse
    trainer = build_run("CoOp", tmp_path / "run", "REPORT_TO", "wandb")
    monkeypatch.setattr(trainer, "step", None)
    with pytest.raises(ValueError, match=r"^--report-to wandb: no key anywhere$"):
        trainer.train()


def test_a_wandb_that_fails_later_ends_no_training(build_run, tmp_path, fake, capsys):
    build_run("CoOp", tmp_path / "plain").train()
    trainer = build_run("CoOp", tmp_path / "run", "REPORT_TO", "wandb")
    step = trainer.step

    def fail_from_the_second_on(batch):
        fake.run.fails = bool(fake.run.rows)
        return step(batch)

    trainer.step = fail_from_the_second_on
    trainer.train()
    assert numbers(tmp_path / "run") == numbers(tmp_path / "plain")
    assert len(fake.run.rows) == 1
    assert re.findall(r"^Note: wandb.*$", capsys.readouterr().out, re.M) == [
        "Note: wandb takes no more figures, and the run goes on without it: the disk is full"
    ]


def test_a_run_that_ends_with_an_error_is_told_as_failed(build_run, tmp_path, fake):
    cut_after(build_run("CoOp", tmp_path, "REPORT_TO", "wandb"), 0)
    assert fake.run.ended == 1


def test_what_was_reported_before_a_run_was_cut_is_not_reported_again(tmp_path, fake):
    fake.run.step = 3  # the service knows the steps 0 to 2
    report = Wandb(tmp_path, "name", {})
    for step in (2, 3):
        report.add_scalar("train/loss", 0.5, step)
        report.add_scalar("val/accuracy", 50.0, 1)
    report.close()
    assert fake.run.rows == [(3, {"val/accuracy": 50.0}), (3, {"train/loss": 0.5, "val/accuracy": 50.0})]
    assert fake.run.ended == 0


def test_other_ranks_report_nothing(build_run, tmp_path, fake, monkeypatch):
    monkeypatch.setattr("trainers.base.ranks.number", lambda: 1)
    trainer = build_run("ZeroshotCLIP", tmp_path, "REPORT_TO", "wandb")
    monkeypatch.setattr(trainer, "write_results", lambda *given: None)
    trainer.test()
    assert fake.run.rows == []


def test_folders_are_left_out_of_what_is_sent():
    settings = {
        "OUTPUT_DIR": "/home/ann/out",
        "DATASET": {"ROOT": "~/data", "NAME": "DTD"},
        "MODEL": {"BACKBONE": {"NAME": "open_clip:ViT-B-16//home/ann/w.bin"}, "INIT_WEIGHTS": "~/run/model.pth.tar-1"},
        "TEST": {"FAR_SETS": ["configs/datasets/a.yaml", "/home/ann/b.yaml"], "EPOCHS": 3},
    }
    assert without_places(settings) == {
        "DATASET": {"NAME": "DTD"},
        "MODEL": {"BACKBONE": {"NAME": "open_clip:ViT-B-16/w.bin"}, "INIT_WEIGHTS": "model.pth.tar-1"},
        "TEST": {"FAR_SETS": ["configs/datasets/a.yaml", "b.yaml"], "EPOCHS": 3},
    }


def test_names_of_the_user_and_of_the_home_folder_are_left_out(monkeypatch):
    monkeypatch.setenv("HOME", "/export/ann")
    monkeypatch.setenv("USER", "smith")
    assert last_names("/export/ann/runs/CoOp/seed1") == ["CoOp", "seed1"]
    assert (
        last_names("/export/ann/seed1") == last_names("/scratch/smith/seed1") == last_names("~ann/seed1") == ["seed1"]
    )
    assert last_names("seed1") == last_names("/seed1") == ["seed1"]
    given = {"TEST": {"CALIBRATION": "/scratch/smith"}, "TRAINER": {"FEATURE_BANK_DIR": "/export/ann", "A": "ann"}}
    assert without_places(given) == {"TEST": {"CALIBRATION": ""}, "TRAINER": {"FEATURE_BANK_DIR": "", "A": "ann"}}
