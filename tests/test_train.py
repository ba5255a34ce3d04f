"""The command line of train.py, as a process: what is wrong with the input, and what is left behind."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from dassl.config import get_cfg_default
from PIL import Image

import train
from helpers import ROOT, results_of
from settings.paths import find_paths


def command_line(tmp_path, clip_file, *arguments):
    given = ["--root", tmp_path / "data", "--backbone", clip_file, "--output-dir", tmp_path / "out/run", "--seed", 0]
    return [str(argument) for argument in (*given, *arguments)]


CDC = ("--trainer", "CDC", "--config-file", "configs/trainers/CDC/tiny_text.yaml")
DIGITS = (*CDC, "--dataset-config-file", "configs/datasets/digits.yaml")
SMALL = ("INPUT.SIZE", "(32, 32)", "DATALOADER.NUM_WORKERS", 0, "DATASET.NUM_SHOTS", 1)


def test_digits_from_nothing_with_seed_0_and_an_archive(tmp_path, clip_files):
    quick = (*SMALL, "OPTIM.MAX_EPOCH", 1, "DATALOADER.TRAIN_X.BATCH_SIZE", 10)
    arguments = command_line(tmp_path, clip_files["archive"], *DIGITS, *quick)
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no bars where there is no terminal
    assert "Setting fixed seed: 0" in done.stdout
    log = (tmp_path / "out/run/log.txt").read_text()
    assert f"Settings and environment are in {tmp_path}/out/run/log.txt" in done.stdout
    assert "\n** Config **\n" in log
    assert "Dassl: " in log
    assert "** Config **" not in done.stdout
    assert "Dassl: " not in done.stdout
    assert (tmp_path / "out/run/results.json").is_file()
    assert "* accuracy:" in log
    # All that was shown since the log began is in it.
    assert done.stdout.split("\n", 1)[1] in log.replace(log[: log.index("Settings and environment")], "")
    assert len(list((tmp_path / "data/digits/images").glob("*/*.png"))) == 1797


def test_quiet_run_shows_its_metrics_alone(tmp_path, clip_files):
    zero_shot = ("--trainer", "ZeroshotCLIP", "--config-file", "configs/trainers/ZeroshotCLIP/tiny.yaml", "--eval-only")
    digits = ("--dataset-config-file", "configs/datasets/digits.yaml", "--quiet")
    arguments = command_line(tmp_path, clip_files["plain"], *zero_shot, *digits, *SMALL)
    done = subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    log = (tmp_path / "out/run/log.txt").read_text()
    metrics = [line for line in log.splitlines() if line.startswith(("=> ", "* "))]
    assert done.stdout.splitlines() == metrics
    assert any(line.startswith("* accuracy: ") for line in metrics)
    assert "\n** Config **\n" in log
    assert "Evaluate on the *test* set" in log


def test_from_any_folder(tmp_path):
    """The config's own CLIP lies in the checkout; what the command line names, in the working folder."""
    files = ("--config-file", ROOT / "configs/trainers/ZeroshotCLIP/tiny.yaml", "--trainer", "ZeroshotCLIP")
    files += ("--dataset-config-file", ROOT / "configs/datasets/digits.yaml", "--eval-only")
    places = ("--root", "data", "--output-dir", "out", "DATALOADER.NUM_WORKERS", "0")
    command = [sys.executable, ROOT / "train.py", *files, *places]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]
    assert results_of(tmp_path / "out")["backbone"] == str(ROOT / "weights/tiny_clip.pt.gz")


def test_config_file_is_found_under_the_name_that_it_once_had(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command = ["--trainer", "CDC", "--config-file", "configs/trainers/CDC/vit_b16_coupled.yaml"]
    options = train.setup_cfg(train.parse_arguments(command)).TRAINER.CDC
    assert (options.PROMPT, options.PROMPT_DEPTH) == ("coupled", 9)
    assert "vit_b16_coupled.yaml is now configs/trainers/CDC/vit_b16.yaml" in capsys.readouterr().out
    for name in ("CDC/other_coupled.yaml", "MaPLe/tiny_coupled.yaml"):
        command[-1] = f"configs/trainers/{name}"
        with pytest.raises(FileNotFoundError, match=f"no config file configs/trainers/{name}"):
            train.setup_cfg(train.parse_arguments(command))


def test_keys_are_read_under_the_names_that_they_once_had(tmp_path):
    """In files and on the command line; what else the file says of the method stays."""
    file = tmp_path / "old.yaml"
    file.write_text("TRAINER:\n  CDC:\n    INVARIANT: True\n    INTERVENTIONS: 3\n    BETA: 0.5\n")
    command = ["--trainer", "CDC", "--config-file", str(file), "TRAINER.CDC.K", "7", "TRAINER.CDC.LAMBDA", "2.0"]
    options = train.setup_cfg(train.parse_arguments(command)).TRAINER.CDC
    assert options.INVARIANT_MAP == {"ENABLED": True, "INTERVENTIONS": 3, "K": 7, "LAMBDA": 2.0}
    assert options.BETA == 0.5
    file.write_text("TRAINER:\n  CDC:\n    K: 3\n    INVARIANT_MAP:\n      K: 4\n")
    with pytest.raises(ValueError, match=r"TRAINER\.CDC\.K is now TRAINER\.CDC\.INVARIANT_MAP\.K, and both are given"):
        train.setup_cfg(train.parse_arguments(command[:4]))
    file.write_text("RESUME:\n")
    train.setup_cfg(train.parse_arguments(command[:4]))


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
        ((*DIGITS, "TRAINER.CDC.BETTA", "1"), "there is no key TRAINER.CDC.BETTA: did you mean TRAINER.CDC.BETA?"),
        ((*DIGITS, "OPTIM.LR"), "KEY VALUE"),
        ((*DIGITS, "OPTIM.LR", "fast"), "fast"),
        ((*DIGITS, "OPTIM.LR.X", "1"), "command line"),
        ((*DIGITS, "OPTIM.LR", "1e999"), "OPTIM.LR must be a finite number, got inf"),
        (("--trainer", "CDC", "--config-file", "configs/nothing.yaml"), "configs/nothing.yaml"),
        ((*DIGITS, *SMALL, "--eval-only"), "KEY VALUE"),
        (("--eval-only", *DIGITS, *SMALL), "no trained model to test"),
        ((*DIGITS, "TRAINER.COOP.N_CTX", "4"), "TRAINER.COOP.N_CTX would have no effect: CDC takes"),
        (CDC, "--dataset-config-file must be given, as in: python train.py --root data"),
        (("--config-file", "README.md"), "a config file must be YAML"),
        ((*DIGITS, "--output-dir", "README.md/run"), "--output-dir must be a folder, got README.md/run, but "),
        ((*DIGITS, "--root", "README.md"), "--root must be a folder, got README.md, but "),
    ],
)
def test_wrong_input_is_one_error_and_leaves_nothing(refused, tmp_path, arguments, message):
    sentence = refused(*arguments)
    assert message in sentence
    assert not (tmp_path / "out").exists()


def test_missing_data_set_is_told_before_clip_is_downloaded(refused, tmp_path):
    sentence = refused(*CDC, "--dataset-config-file", "configs/datasets/dtd.yaml", "--backbone", "nowhere.pt")
    assert f"the images of DescribableTextures must lie in {tmp_path}/data/dtd/images" in sentence


def test_missing_folder_of_ones_own_is_told_before_clip_is_downloaded(refused):
    sentence = refused(*CDC, "--dataset-config-file", "configs/datasets/folder.yaml", "--backbone", "nowhere.pt")
    assert "DATASET.FOLDER must name the folder of your images" in sentence


def test_options_that_a_trainer_of_ones_own_takes_of_another_one_stay(monkeypatch):
    """As ProGrad's, which has no node of its own and takes CoOp's."""
    monkeypatch.chdir(ROOT)
    command = ["--trainer", "OwnCoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml", "TRAINER.COOP.N_CTX", "3"]
    assert train.setup_cfg(train.parse_arguments(command)).TRAINER.COOP.N_CTX == 3


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backbone", "nowhere.pt"), "nowhere.pt"),
        (("INPUT.SIZE", "(48, 48)"), "INPUT.SIZE must be (32, 32)"),
        (("MODEL.INIT_WEIGHTS", "nowhere.tar"), "no checkpoint at nowhere.tar"),
        (("--eval-only", "--model-dir", "nowhere"), "--model-dir must be a run's folder"),
        (("TRAINER.CDC.M", "2"), "there is no key"),
        (("TRAINER.CDC.BETA", "-1"), "BETA must not be negative"),
    ],
)
def test_nothing_is_written_beside_ones_images_before_all_is_checked(refused, tmp_path, arguments, message):
    """A split of one's folder is for good, so a command that fails must not make it."""
    for name in ("red", "blue"):
        (tmp_path / "data/folder" / name).mkdir(parents=True)
        for n in range(6):
            Image.new("RGB", (32, 32), name).save(tmp_path / f"data/folder/{name}/{n}.png")
    before = sorted(tmp_path.rglob("*"))
    options = arguments if arguments[0].startswith("--") else ()
    pairs = () if options else arguments
    folder = (*CDC, "--dataset-config-file", "configs/datasets/folder.yaml")
    assert message in refused(*folder, *options, *SMALL, *pairs)
    assert sorted(tmp_path.rglob("*")) == before


def test_training_that_diverges_is_one_line(refused, tmp_path):
    options = ("OPTIM.LR", "1e30", "OPTIM.WARMUP_EPOCH", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 2)
    line = refused(*DIGITS, *SMALL, *options)
    assert re.search(r"training diverges: .* epoch 1\b.* OPTIM\.LR", line)
    assert not (tmp_path / "out").exists()


def test_empty_checkpoint_is_one_error(refused, tmp_path):
    folder = tmp_path / "out/run/prompt_learner"
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_text("model.pth.tar-1\n")
    (folder / "model.pth.tar-1").write_bytes(b"")
    assert "model.pth.tar-1 is not a whole checkpoint" in refused(*DIGITS, *SMALL)


def test_same_command_twice_and_a_signal(refused, tmp_path, clip_files):
    """The second one changes nothing; the first one stops after its step, and owns the folder no longer."""
    options = [*DIGITS, *SMALL, "TRAIN.PRINT_FREQ", "1", "OPTIM.MAX_EPOCH", "1000", "TRAIN.CHECKPOINT_FREQ", "1"]
    options += ["DATALOADER.TRAIN_X.BATCH_SIZE", "5"]
    command = [sys.executable, ROOT / "train.py", *command_line(tmp_path, clip_files["plain"], *options)]
    first = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    while "Checkpoint saved" not in first.stdout.readline():
        assert first.poll() is None
    before = sorted(path for path in (tmp_path / "out/run").iterdir())
    line = refused(*options)
    assert f"out/run is in use by process {first.pid} on " in line
    assert sorted(path for path in (tmp_path / "out/run").iterdir()) == before
    first.terminate()
    _, said = first.communicate(timeout=60)
    assert first.returncode == -signal.SIGTERM
    assert re.search(r"train\.py: terminated after epoch \d+; the same command goes on\n$", said)
    assert sorted(path for path in (tmp_path / "out/run").iterdir()) == before[1:]
    assert before[0].name == ".owner"


def test_signal_before_anything_is_there_leaves_nothing(tmp_path, clip_files):
    command = [sys.executable, ROOT / "train.py", *command_line(tmp_path, clip_files["plain"], *DIGITS, *SMALL)]
    done = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (tmp_path / "out/run/log.txt").exists():
        assert done.poll() is None
        time.sleep(0.01)
    done.terminate()
    done.communicate(timeout=60)
    assert done.returncode == -signal.SIGTERM
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    ["- a\n- list\n", "OPTIM: {LR: [", "OPTIM:\n  LR: fast\n", "[" * 10_000, "OPTIM:\n\tLR: 1\n", "OPTIM: 3\n", "\0"],
)
def test_wrong_yaml_is_one_error(refused, tmp_path, text):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert str(path) in refused("--trainer", "CDC", "--config-file", path)


# Runs train.py where PyTorch cannot be imported.
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; import runpy; runpy.run_path('train.py', run_name='__main__')"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--trainer and --dataset-config-file must be given"),
        ((*DIGITS, "TRAINER.CDC.BTEA", "0.5"), "did you mean TRAINER.CDC.BETA?"),
        ((*DIGITS, "DATASET.RO", "0.5"), "did you mean DATASET.RHO?"),
    ],
)
def test_wrong_settings_are_told_before_pytorch_is_imported(arguments, message):
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_all_wrong_settings_are_told_at_once(refused, tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("OPTIM:\n  LRR: 1\n  NAME: 3\nTRAINER:\n  CDC:\n    BETA: 1\n")
    line = refused(*DIGITS, "--config-file", file, "N_CTX", "4", "OPTIM.MAX_EPOCH", "5.5", "TRAINER.CDC", "1")
    for part in (
        f"{file}: there is no key OPTIM.LRR: did you mean OPTIM.LR?",
        "OPTIM.NAME must be a text, as 'adam' is, got 3",
        "there is no key N_CTX: did you mean one of TRAINER.CDC.N_CTX",
        "OPTIM.MAX_EPOCH must be a whole number, as 10 is, got '5.5'",
        "TRAINER.CDC is a group of the keys PREC, PROMPT",
    ):
        assert part in line


@pytest.mark.parametrize("option", ["--config-file", "--dataset-config-file"])
@pytest.mark.parametrize("suffix", [".py", ".PY", ".txt"])
def test_config_file_that_is_python_is_not_run(refused, tmp_path, option, suffix):
    path, trap = tmp_path / f"x{suffix}", tmp_path / "trap"
    path.write_text(f"open({str(trap)!r}, 'w')\ncfg = {{}}\n")
    line = refused(*CDC, option, path)
    assert "a config file must be YAML" in line
    assert str(path) in line
    assert not trap.exists()


def test_python_under_the_name_of_yaml_is_not_run(refused, tmp_path):
    path, trap, link = tmp_path / "x.py", tmp_path / "trap", tmp_path / "x.yaml"
    path.write_text(f"open({str(trap)!r}, 'w')\ncfg = {{}}\n")
    link.symlink_to(path)
    assert str(link) in refused("--trainer", "CDC", "--config-file", link)
    assert not trap.exists()


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


@pytest.mark.parametrize("key", ["TRAINER.CDC.BETA", "TRAINER.CDC.INVARIANT", "TRAINER.MAPLE.N_CTX"])
def test_option_of_another_trainer_is_refused(key):
    """Before, it trained without effect, in a folder whose name claims it."""
    command = ["--trainer", "CoOp", "--config-file", str(ROOT / "configs/trainers/CoOp/tiny.yaml")]
    value = {"TRAINER.CDC.BETA": "0.5", "TRAINER.CDC.INVARIANT": "True"}.get(key, "4")
    with pytest.raises(ValueError, match=rf"{re.escape(key)} would have no effect: CoOp .* TRAINER\.COOP, .*N_CTX"):
        train.setup_cfg(train.parse_arguments([*command, "TRAINER.COOP.N_CTX", "4", key, value]))
    train.setup_cfg(train.parse_arguments([*command, "TRAINER.COOP.N_CTX", "4"]))


def test_options_of_another_trainer_in_a_file_are_noted(tmp_path, capsys):
    file = tmp_path / "both.yaml"
    file.write_text("TRAINER:\n  COOP:\n    N_CTX: 4\n  CDC:\n    BETA: 0.5\n")
    cfg = train.setup_cfg(train.parse_arguments(["--trainer", "CoOp", "--config-file", str(file)]))
    assert cfg.TRAINER.COOP.N_CTX == 4
    assert f"Note: {file} sets options of CDC, which CoOp does not take" in capsys.readouterr().out


def test_log_that_ends_a_run_is_the_one_that_is_parsed(tmp_path, clip_files, monkeypatch):
    """CoOp's parse_test_res.py reads log.txt alone, and of it what stands after "Finish training"."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    run = tmp_path / "out/run"
    run.mkdir(parents=True)
    for n, text in enumerate(("first", "second")):
        (run / "log.txt").write_text(text)
        os.utime(run / "log.txt", (10**9, 10**9))
        train.set_log_aside(run)
        assert len(list(run.iterdir())) == n + 1
    quick = (*DIGITS, *SMALL, "OPTIM.MAX_EPOCH", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 10)
    (run / "log.txt").write_text("epoch [1/1] batch [1/1]\n")
    train.main(train.parse_arguments(command_line(tmp_path, clip_files["plain"], *quick)))
    sys.stdout.close()
    lines = (run / "log.txt").read_text().splitlines()
    assert any(line.startswith("* accuracy: ") for line in lines[lines.index("Finish training") :])
    logs = [path.read_text() for path in sorted(run.glob("log.txt-*"))]
    assert {"first", "second", "epoch [1/1] batch [1/1]\n"} == set(logs)
    train.set_log_aside(run)  # finished
    assert len(list(run.glob("log.txt*"))) == 4


# By key what is made as that path, and what it is set to in a file
PATHS = {
    "MODEL.BACKBONE.NAME": "weights/clip.pt",
    "MODEL.INIT_WEIGHTS": "start/model.pth.tar-5",
    "RESUME": "runs/one",
    "TRAINER.CDC.FEATURE_BANK_DIR": "banks",
}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A config file that names paths, a checkout to look for them in, and another folder, in which one is."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("settings.paths.ROOT", tmp_path / "checkout")
    lines = [
        *("MODEL:", "  BACKBONE:", f"    NAME: {PATHS['MODEL.BACKBONE.NAME']}"),
        *(f"  INIT_WEIGHTS: {PATHS['MODEL.INIT_WEIGHTS']}", f"RESUME: {PATHS['RESUME']}"),
        *("TRAINER:", "  CDC:", f"    FEATURE_BANK_DIR: {PATHS['TRAINER.CDC.FEATURE_BANK_DIR']}"),
    ]
    config = tmp_path / "config.yaml"
    config.write_text("\n".join(lines))

    def make(folder):
        for key, path in PATHS.items():
            if key.endswith(("NAME", "WEIGHTS")):
                (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / folder / path).touch()
            else:
                (tmp_path / folder / path).mkdir(parents=True)

    def paths(*arguments):
        given = ["--trainer", "CDC", "--config-file", str(config), *map(str, arguments)]
        cfg = train.setup_cfg(train.parse_arguments(given))
        found = {key: functools.reduce(lambda node, name: node[name], key.split("."), cfg) for key in PATHS}
        return {key: path.replace(f"{tmp_path}/", "/") for key, path in found.items()}

    return make, paths


def test_path_in_a_config_is_looked_for_in_the_checkout_too(elsewhere):
    make, paths = elsewhere
    assert paths() == PATHS
    make("checkout")
    assert paths() == {key: f"/checkout/{path}" for key, path in PATHS.items()}
    make("work")
    assert paths() == PATHS


def test_path_on_the_command_line_is_seen_from_the_working_folder_alone(elsewhere):
    make, paths = elsewhere
    make("checkout")
    assert paths(*(part for pair in PATHS.items() for part in pair)) == PATHS
    assert paths("--backbone", "weights/clip.pt")["MODEL.BACKBONE.NAME"] == "weights/clip.pt"
    assert paths("--resume", "runs/one")["RESUME"] == "runs/one"


def test_name_of_a_clip_is_no_folder(elsewhere, tmp_path):
    _, paths = elsewhere
    (tmp_path / "checkout/weights/clip.pt").mkdir(parents=True)
    assert paths() == PATHS


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("open_clip:ViT-B-16/weights/clip.pt", "open_clip:ViT-B-16//checkout/weights/clip.pt"),
        ("local-dir:weights", "local-dir:/checkout/weights"),
        ("open_clip:local-dir:weights", "open_clip:local-dir:/checkout/weights"),
        ("open_clip:ViT-B-16/weights", "open_clip:ViT-B-16/weights"),  # may be the name of weights, as of open_clip's
        ("hf-hub:weights/clip.pt", "hf-hub:weights/clip.pt"),
        ("ViT-B/16", "ViT-B/16"),
    ],
)
def test_path_after_the_name_of_open_clips_model(elsewhere, tmp_path, name, found):
    make, _ = elsewhere
    make("checkout")
    cfg = get_cfg_default()
    cfg.MODEL.BACKBONE.NAME = name
    find_paths(cfg)
    assert cfg.MODEL.BACKBONE.NAME.replace(f"{tmp_path}/", "/") == found


def test_config_in_the_checkout_stays_as_it_is_written(monkeypatch):
    monkeypatch.chdir(ROOT)
    cfg = train.setup_cfg(train.parse_arguments([*DIGITS]))
    assert cfg.MODEL.BACKBONE.NAME == "weights/tiny_clip.pt.gz"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_checkpoint_that_is_not_finite_is_one_line_and_no_result(refused, tmp_path, clip_files, value):
    """Where it is tested and where training would go on from it."""
    quick = (*SMALL, "OPTIM.MAX_EPOCH", 1, "DATALOADER.TRAIN_X.BATCH_SIZE", 10)
    path = tmp_path / "out/run/prompt_learner/model.pth.tar-1"
    train.main(
        train.parse_arguments(command_line(tmp_path, clip_files["plain"], *DIGITS, *quick, "TEST.NO_TEST", True))
    )
    checkpoint = torch.load(path, weights_only=True)
    next(iter(checkpoint["state_dict"].values())).view(-1)[0] = value
    torch.save(checkpoint, path)
    for arguments in ((), ("--eval-only", "--model-dir", tmp_path / "out/run", "--load-epoch", 1)):
        line = refused(*arguments, *DIGITS, *quick)
        assert re.search(r"model\.pth\.tar-1 .* with infinite values or some that are not numbers", line)
        assert not (tmp_path / "out/run/results.json").exists()


def interrupted_in(monkeypatch, capfd, method, arguments):
    """What main says when Ctrl-C comes in a method of the trainer."""
    from trainers.cdc import CDC

    def press(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.chdir(ROOT)
    with monkeypatch.context() as patch:
        patch.setattr(CDC, method, press)
        with pytest.raises(KeyboardInterrupt) as interrupt:
            train.main(train.parse_arguments(arguments))
    train._tell_uncaught(KeyboardInterrupt, interrupt.value, None)
    return capfd.readouterr().err.splitlines()[-1]


def test_ctrl_c_tells_the_last_epoch_that_is_kept(tmp_path, clip_files, monkeypatch, capfd):
    quick = (*SMALL, "OPTIM.MAX_EPOCH", 2, "DATALOADER.TRAIN_X.BATCH_SIZE", 10)
    arguments = command_line(tmp_path, clip_files["plain"], *DIGITS, *quick)
    told = interrupted_in(monkeypatch, capfd, "loss", arguments)
    assert told == "train.py: stopped before anything was kept; the same command starts from the beginning"
    assert not (tmp_path / "out").exists()
    told = interrupted_in(monkeypatch, capfd, "test", arguments)
    assert told == "train.py: stopped after epoch 2; the same command goes on"
    assert (tmp_path / "out/run/prompt_learner/model.pth.tar-2").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_while_python_ends_is_no_traceback(number):
    code = f"""
import atexit, os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
atexit.register(os.kill, os.getpid(), {int(number)})
sys.argv = ["train.py", "--help"]
runpy.run_path("train.py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-number, "")
