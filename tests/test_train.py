"""The command line of train.py, as a process: what is wrong with the input, and what is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import train

ROOT = Path(__file__).resolve().parent.parent


def command_line(tmp_path, clip_file, *arguments):
    given = ["--root", tmp_path / "data", "--backbone", clip_file, "--output-dir", tmp_path / "out/run", "--seed", 0]
    return [str(argument) for argument in (*given, *arguments)]


CDC = ("--trainer", "CDC", "--config-file", "configs/trainers/CDC/tiny.yaml")
DIGITS = (*CDC, "--dataset-config-file", "configs/datasets/digits.yaml")
SMALL = ("INPUT.SIZE", "(32, 32)", "DATALOADER.NUM_WORKERS", 0, "DATASET.NUM_SHOTS", 1)


def test_digits_from_nothing_with_seed_0_and_an_archive(tmp_path, clip_files):
    quick = (*SMALL, "OPTIM.MAX_EPOCH", 1, "DATALOADER.TRAIN_X.BATCH_SIZE", 10)
    arguments = command_line(tmp_path, clip_files["archive"], *DIGITS, *quick)
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Setting fixed seed: 0" in done.stdout
    assert "Dassl: " in done.stdout
    assert (tmp_path / "out/run/results.json").is_file()
    assert "* accuracy:" in (tmp_path / "out/run/log.txt").read_text()
    assert len(list((tmp_path / "data/digits/images").glob("*/*.png"))) == 1797


@pytest.fixture
def refused(tmp_path, clip_files, monkeypatch, capfd):
    """Runs train.py's main on wrong input, and returns what it said on stderr."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which the log replaces

    def main(*arguments):
        with pytest.raises(SystemExit) as stopped:
            train.main(train.parse_arguments(command_line(tmp_path, clip_files["plain"], *arguments)))
        assert stopped.value.code == 2
        return capfd.readouterr().err

    return main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*CDC, "--dataset-config-file", "configs/datasets/dtd.yaml"), "dtd"),
        ((*DIGITS, "--backbone", "ViT-B/61"), "ViT-B/16"),
        ((*DIGITS, "--trainer", "CDD"), "CDC"),
        ((*DIGITS, "TRAINER.CDC.BETTA", "1"), "TRAINER.CDC.BETTA"),
        ((*DIGITS, "OPTIM.LR"), "KEY VALUE"),
        ((*DIGITS, "OPTIM.LR", "fast"), "fast"),
        (("--trainer", "CDC", "--config-file", "configs/nothing.yaml"), "configs/nothing.yaml"),
        ((*DIGITS, *SMALL, "--eval-only"), "KEY VALUE"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(refused, tmp_path, arguments, message):
    sentence = refused(*arguments)
    assert sentence.startswith("train.py: ")
    assert sentence.count("\n") == 1
    assert message in sentence
    assert not (tmp_path / "out").exists()


def test_wrong_input_leaves_what_was_there(refused, tmp_path):
    kept = tmp_path / "out/run/notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    refused(*DIGITS, "--trainer", "CDD")
    assert kept.read_text() == "mine"


def test_config_order_and_cleaning():
    """Data set file, method file, options, KEY VALUE pairs, the later winning; other trainers' options are dropped."""
    args = [*DIGITS, "--seed", "0", "--backbone", "x", "MODEL.BACKBONE.NAME", "y"]
    cfg = train.setup_cfg(train.parse_arguments(args))
    assert cfg.SEED == 0
    assert cfg.MODEL.BACKBONE.NAME == "y"
    assert cfg.DATASET.NAME == "Digits"
    assert set(cfg.TRAINER) == {"NAME", "CDC"}
