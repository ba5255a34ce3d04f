"""The command line of train.py, as a process: what is wrong with the input, and what is left behind."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from PIL import Image

import train
from helpers import ROOT


def command_line(tmp_path, clip_file, *arguments):
    given = ["--root", tmp_path / "data", "--backbone", clip_file, "--output-dir", tmp_path / "out/run", "--seed", 0]
    return [str(argument) for argument in (*given, *arguments)]


CDC = ("--trainer", "CDC", "--config-file", "configs/trainers/CDC/tiny_text.yaml")
DIGITS = (*CDC, "--dataset-config-file", "configs/datasets/digits.yaml")
SMALL = ("INPUT.SIZE", "(32, 32)", "DATALOADER.NUM_WORKERS", 0, "DATASET.NUM_SHOTS", 1)


# A line of tqdm, also one that is cleared
PROGRESS = re.compile(r" *\d+%\|.*\| \d+/\d+ \[.*\]$|\s+$")


def test_digits_from_nothing_with_seed_0_and_an_archive(tmp_path, clip_files):
    quick = (*SMALL, "OPTIM.MAX_EPOCH", 1, "DATALOADER.TRAIN_X.BATCH_SIZE", 10)
    arguments = command_line(tmp_path, clip_files["archive"], *DIGITS, *quick)
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in re.split(r"[\r\n]+", done.stderr) if line]
    assert lines
    assert [line for line in lines if not PROGRESS.match(line)] == []
    assert "Setting fixed seed: 0" in done.stdout
    assert "Dassl: " in done.stdout
    assert (tmp_path / "out/run/results.json").is_file()
    assert "* accuracy:" in (tmp_path / "out/run/log.txt").read_text()
    assert len(list((tmp_path / "data/digits/images").glob("*/*.png"))) == 1797


def test_config_file_is_found_under_the_name_that_it_once_had(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command = ["--trainer", "CDC", "--config-file", "configs/trainers/CDC/vit_b16_coupled.yaml"]
    options = train.setup_cfg(train.parse_arguments(command)).TRAINER.CDC
    assert (options.PROMPT, options.PROMPT_DEPTH) == ("coupled", 9)
    assert "vit_b16_coupled.yaml is now configs/trainers/CDC/vit_b16.yaml" in capsys.readouterr().out
    command[-1] = "configs/trainers/CDC/other_coupled.yaml"
    with pytest.raises(FileNotFoundError, match=r"no config file configs/trainers/CDC/other_coupled\.yaml"):
        train.setup_cfg(train.parse_arguments(command))


def test_keys_are_read_under_the_names_that_they_once_had(tmp_path):
    """In files and on the command line; what else the file says of the method stays."""
    file = tmp_path / "old.yaml"
    file.write_text("TRAINER:\n  CDC:\n    INVARIANT: True\n    INTERVENTIONS: 3\n    BETA: 0.5\n")
    command = ["--trainer", "CDC", "--config-file", str(file), "TRAINER.CDC.K", "7", "TRAINER.CDC.LAMBDA", "2.0"]
    options = train.setup_cfg(train.parse_arguments(command)).TRAINER.CDC
    assert options.INVARIANT_MAP == {"ENABLED": True, "INTERVENTIONS": 3, "K": 7, "LAMBDA": 2.0}
    assert options.BETA == 0.5


def test_process_that_is_not_forked_mends_dassl_too():
    """It runs train.py under this name before it unpickles data sets; an installed Dassl may not import unmended."""
    code = "import runpy, sys; runpy.run_path('train.py', run_name='__mp_main__'); print('compat' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.fixture
def refused(tmp_path, clip_files, monkeypatch, capfd):
    """Runs train.py's main on wrong input, and returns what it said on stderr."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which the log replaces

    def main(*arguments):
        with pytest.raises(SystemExit) as stopped:
            train.main(train.parse_arguments(command_line(tmp_path, clip_files["plain"], *arguments)))
        assert stopped.value.code == 2
        return next(line for line in capfd.readouterr().err.splitlines() if line.startswith("train.py: "))

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
        ((*DIGITS, "OPTIM.LR.X", "1"), "command line"),
        (("--trainer", "CDC", "--config-file", "configs/nothing.yaml"), "configs/nothing.yaml"),
        ((*DIGITS, *SMALL, "--eval-only"), "KEY VALUE"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(refused, tmp_path, arguments, message):
    sentence = refused(*arguments)
    assert message in sentence
    assert not (tmp_path / "out").exists()


def test_broken_image_is_named_also_by_a_worker(refused, tmp_path):
    folder = tmp_path / "data/dtd/images"
    for name in ("red", "blue"):
        (folder / name).mkdir(parents=True)
        for n in range(10):
            Image.new("RGB", (32, 32), name).save(folder / name / f"{n}.jpg")
    for path in folder.rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:200])
    arguments = (*CDC, "--dataset-config-file", "configs/datasets/dtd.yaml", *SMALL, "DATALOADER.NUM_WORKERS", 1)
    sentence = refused(*arguments, "DATALOADER.TRAIN_X.BATCH_SIZE", 2)
    assert str(folder) in sentence
    assert not (tmp_path / "out").exists()


def test_training_that_diverges_is_one_line(refused, tmp_path):
    options = ("OPTIM.LR", "1e30", "OPTIM.WARMUP_EPOCH", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 2)
    line = refused(*DIGITS, *SMALL, *options)
    assert re.search(r"training diverges: .* epoch 1\b.* OPTIM\.LR", line)
    assert not (tmp_path / "out").exists()


def test_empty_checkpoint_is_one_sentence(refused, tmp_path):
    folder = tmp_path / "out/run/prompt_learner"
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_text("model.pth.tar-1\n")
    (folder / "model.pth.tar-1").write_bytes(b"")
    assert "model.pth.tar-1 is not a whole checkpoint" in refused(*DIGITS, *SMALL)


@pytest.mark.parametrize("text", ["- a\n- list\n", "OPTIM: {LR: [", "OPTIM:\n  LR: fast\n"])
def test_wrong_yaml_is_one_sentence(refused, tmp_path, text):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert str(path) in refused("--trainer", "CDC", "--config-file", path)


def test_output_folder_by_key_is_taken_back_too(refused, tmp_path):
    refused("--output-dir", "", *DIGITS, "--trainer", "CDD", "OUTPUT_DIR", tmp_path / "left/deep")
    assert not (tmp_path / "left").exists()


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
