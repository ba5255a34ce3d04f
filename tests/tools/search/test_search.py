"""A search from its command line to its config, on a small CLIP: what it reads, and that it goes on as if never cut."""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

pytest.importorskip("optuna", reason="a search needs Optuna: pip install -e '.[search]'")

from dassl.config import cfg_default

import train
from helpers import ROOT, SIZE
from storage.ownership import own_folder
from tools.search import outcome, plan, storage, trial
from tools.search.__main__ import main
from tools.search.outcome import best_of, trials_of
from tools.search.plan import Search, space_for, start_config
from tools.search.search import run_trials
from tools.search.smaller import find_smaller
from tools.search.storage import open_study
from tools.search.trial import TrialTask, do_rung, remove_checkpoints
from tools.sweep.experiment import Experiment, configure, execute

CLASSES = ("banded", "dotted", "grid", "honeycombed", "knitted", "lined", "marbled", "striped")
SPACE = """
OPTIM.LR: {low: 0.0001, high: 10.0, log: true}
INPUT.TRANSFORMS: {choices: {config: , flips: [random_flip, normalize]}}
"""
ONE_BY_ONE = argparse.Namespace(address=None, gpus_per_run=None, cpus_per_run=None, one_by_one=True, force=False)
OPENED: list[str] | None = None  # files that were opened, while it is a list


def _note(event, arguments):
    if event == "open" and OPENED is not None and isinstance(arguments[0], str):
        OPENED.append(arguments[0])


sys.addaudithook(_note)  # stays for good


@pytest.fixture(scope="module")
def textures(tmp_path_factory):
    """Eight textures of noisy pictures in DTD's layout, 12 of each."""
    root = tmp_path_factory.mktemp("search_data")
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        folder = root / "dtd" / "images" / name
        folder.mkdir(parents=True)
        colour = 40 + 170 * np.array([label & 1, label >> 1 & 1, label >> 2])
        for n in range(12):
            pixels = np.clip(colour + rng.normal(0, 30, (SIZE, SIZE, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}_{n:04d}.jpg")
    return root


@pytest.fixture
def settings(clip_files):
    return {
        "MODEL.BACKBONE.NAME": str(clip_files["plain"]),
        "INPUT.SIZE": (SIZE, SIZE),
        "OPTIM.MAX_EPOCH": 3,
        "DATALOADER.TRAIN_X.BATCH_SIZE": 2,
    }


@pytest.fixture
def make(textures, settings, tmp_path):
    """A search for CoOp on the textures with two shots."""
    (tmp_path / "space.yaml").write_text(SPACE)

    def make(name="search", trainer="CoOp", seeds=(1,), space=SPACE, rungs=3, **more):
        (tmp_path / "space.yaml").write_text(space)
        smaller = {"dtd": find_smaller("dtd", textures, tmp_path, 25, 0)}
        given = {**settings, **more}
        cfg = start_config(trainer, "tiny", "dtd", smaller["dtd"], given)
        space = space_for(tmp_path / "space.yaml", cfg)
        return Search(trainer, "tiny", smaller, seeds, tmp_path / name, space, 2, given, rungs)

    return make


@pytest.fixture
def pretended(monkeypatch):
    """Runs that train nothing; their accuracy follows from their settings. They are noted."""
    done = []

    def pretend(rung):
        done.append(rung.training)
        for test in rung.tests:
            if not test.finished:
                test.folder.mkdir(parents=True)
                accuracy = 50 + 10 * np.sin(40 * float(test.settings["OPTIM.LR"])) + test.epochs[0]
                (test.folder / "results.json").write_text(json.dumps({"figures": {"accuracy": accuracy}}))

    monkeypatch.setattr(trial, "do_rung", pretend)
    return done


def found(search):
    return trials_of(search, open_study(search.folder))


# ---- what is trained
def test_where_figures_go_changes_nothing_else(make):
    search = make()
    reporting = replace(search, report_to="wandb")
    assert reporting.identity() == search.identity()
    values = {"OPTIM.LR": 0.05, "INPUT.TRANSFORMS": "flips"}
    for (plain,), (told,) in zip((search.rung(values, 1),), (reporting.rung(values, 1),)):
        for one, other in zip((plain.training, *plain.tests), (told.training, *told.tests)):
            assert other == replace(one, settings={**one.settings, "REPORT_TO": "wandb"})


@pytest.mark.parametrize("trainer", ["CoOp", "PromptSRC"])  # the latter puts an average in place of its last prompts
def test_rungs_change_no_figure_of_the_whole_training(make, tmp_path, trainer):
    more = {"TRAINER.PROMPTSRC.GPA_MEAN": 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION": 2}
    more = {**more, "TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT": 2} if trainer == "PromptSRC" else {}
    search = make(trainer=trainer, **more)
    values = {"OPTIM.LR": 0.05, "INPUT.TRANSFORMS": "flips"}
    assert search.epochs_of(values) == {1: 1, 2: 2, 3: 3}
    for epoch in (1, 2, 3):
        (rung,) = search.rung(values, epoch)
        do_rung(rung)
    training = rung.training
    plain = Experiment(
        *(training.trainer, training.config, "dtd", 1, "base", tmp_path / "plain"),
        {**training.settings, "TEST.NO_TEST": False},
    )
    execute(plain, rung.data)
    assert rung.tests[0].metrics() == plain.metrics()
    states = []
    for folder in (training.folder, plain.folder):
        (path,) = folder.glob("*/model.pth.tar-3")
        states.append(torch.load(path, weights_only=True)["state_dict"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    with np.load(plain.folder / "predictions.npz") as one, np.load(rung.tests[0].folder / "predictions.npz") as other:
        assert all(np.array_equal(one[name], other[name]) for name in one.files)
    assert not (training.folder / "results.json").exists()


def test_a_trial_of_few_epochs_is_compared_at_the_same_share_of_them(make):
    values = {"OPTIM.LR": 0.05, "INPUT.TRANSFORMS": "flips"}
    assert make(**{"OPTIM.MAX_EPOCH": 2}).epochs_of(values) == {1: 2, 2: 3}  # half is nearer to two thirds
    assert make(**{"OPTIM.MAX_EPOCH": 1}).epochs_of(values) == {1: 3}
    assert make(**{"OPTIM.MAX_EPOCH": 10}).epochs_of(values) == {3: 1, 7: 2, 10: 3}


@pytest.mark.parametrize("bank", [0, 2])
def test_no_new_class_and_no_test_image_is_ever_opened(make, textures, bank):
    """Of all that the split names for tests or has of new classes nothing is opened, and nobody could: it is broken."""
    global OPENED
    search = make(rungs=1, **{"TRAINER.COOP.FEATURE_BANK": bank, "OPTIM.MAX_EPOCH": 1})
    search.check()  # makes the split
    split = json.loads((textures / "dtd" / "split_zhou_DescribableTextures.json").read_text())
    of_base = {path for part in ("train", "val") for path, label, _ in split[part] if label < 4}
    every = {path for part in ("train", "val", "test") for path, *_ in split[part]}
    kept = {path: (textures / "dtd" / "images" / path).read_bytes() for path in every - of_base}
    try:
        for path in kept:
            (textures / "dtd" / "images" / path).write_bytes(b"no image")
        OPENED = []
        assert run_trials(search, 1, ONE_BY_ONE) == []
        images = str(textures / "dtd" / "images") + "/"
        opened = {path[len(images) :] for path in OPENED if path.startswith(images)}
    finally:
        OPENED = None
        for path, content in kept.items():
            (textures / "dtd" / "images" / path).write_bytes(content)
    assert opened <= of_base
    assert len(opened) == 2 * 2 + 4 * 6  # few-shot images of two classes, and six further ones of each of four
    written = b"".join(path.read_bytes() for path in search.folder.rglob("*") if path.is_file())
    assert [name for name in CLASSES if name.encode() in written] == [*CLASSES[:4]]


def test_whatever_a_config_tests_a_search_tests_the_smaller_set(make, monkeypatch):
    for name, value in {"SPLIT": "val", "OPEN_SET": True, "CALIBRATION": "file"}.items():
        monkeypatch.setitem(cfg_default.TEST, name, value)
    search = make()
    (rung,) = search.rung({"OPTIM.LR": 0.05, "INPUT.TRANSFORMS": "config"}, 1)
    for test in rung.tests:
        _, cfg = configure(test, rung.data)
        assert (cfg.TEST.SPLIT, cfg.TEST.OPEN_SET, cfg.TEST.CALIBRATION) == ("test", False, "")


def test_a_method_that_learns_in_one_epoch_has_one_rung(make):
    search = make(trainer="CLIPICM", space="TRAINER.CLIPICM.INTERVENTIONS: {choices: [1, 16]}")
    assert search.epochs_of({"TRAINER.CLIPICM.INTERVENTIONS": 1}) == {1: 3}
    assert run_trials(search, 1, ONE_BY_ONE) == []
    assert not list(search.folder.rglob("model.pth.tar-*"))  # they would fill a disk
    assert [(each.state, each.own) for each in found(search)] == [("finished", True)]


def test_checkpoints_that_another_trial_uses_stay(tmp_path):
    checkpoint = tmp_path / "run" / "prompt_learner" / "model.pth.tar-1"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("")
    for kept in ("epoch1/base", "wandb/offline-run-1"):  # the latter holds figures that are still to be sent
        (tmp_path / "run" / kept).mkdir(parents=True)
    with own_folder(tmp_path / "run"):
        other = threading.Thread(target=remove_checkpoints, args=(tmp_path / "run",))
        other.start()
        other.join()
        assert checkpoint.exists()
    remove_checkpoints(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["epoch1", "wandb"]


def test_tasks_can_be_sent_to_other_machines(make):
    task = TrialTask(make(), 3)
    assert pickle.loads(pickle.dumps(task)) == task


# ---- cut, pruned, failed
def test_a_search_that_was_cut_ends_as_one_that_was_not(make, pretended, monkeypatch):
    monkeypatch.setattr(storage, "FIRST", 3)  # so that the sampler and the pruner look at results soon
    monkeypatch.setattr(storage, "BEFORE_PRUNING", 2)
    whole, cut = make("whole"), make("cut")
    assert run_trials(whole, 8, ONE_BY_ONE) == []
    pretend = trial.do_rung
    calls = []

    def stops(rung):
        calls.append(rung)
        if len(calls) in (2, 9, 15):
            raise KeyboardInterrupt
        pretend(rung)

    monkeypatch.setattr(trial, "do_rung", stops)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run_trials(cut, 8, ONE_BY_ONE)
    results = {path: path.stat().st_mtime_ns for path in cut.folder.rglob("results.json")}
    assert results
    assert run_trials(cut, 8, ONE_BY_ONE) == []
    ended = [[(each.values, each.score, each.state) for each in found(search)] for search in (whole, cut)]
    assert ended[0] == ended[1]
    assert {state for _, _, state in ended[0]} == {"finished", "pruned"}
    assert {path: path.stat().st_mtime_ns for path in results} == results  # nothing twice
    before = len(calls)
    assert run_trials(cut, 8, ONE_BY_ONE) == []
    assert len(calls) == before


def test_trials_below_the_median_are_pruned_and_those_that_diverge_too(make, monkeypatch):
    search = make(**{"OPTIM.WARMUP_EPOCH": 0, "TRAINER.COOP.CTX_INIT": ""})
    scores = {}

    def score(rungs):
        number = scores.setdefault(rungs[0].training.folder, len(scores))
        return plan.Score(50.0 + (number < 5), 50.0 + (number < 5))

    monkeypatch.setattr(trial, "score", score)
    monkeypatch.setattr(trial, "do_rung", lambda rung: None)
    assert run_trials(search, 7, ONE_BY_ONE) == []
    states = {each.number: (each.state, each.epoch) for each in found(search)}
    assert states == {**dict.fromkeys(range(5), ("finished", 3)), 5: ("pruned", 1), 6: ("pruned", 1)}

    def diverges(rung):
        raise FloatingPointError("training diverges")

    monkeypatch.setattr(trial, "do_rung", diverges)
    assert run_trials(search, 8, ONE_BY_ONE) == []
    assert found(search)[-1].state == "diverged"
    assert [each.state for each in found(search)].count("pruned") == 2


def test_failed_trials_are_told_and_others_are_tried(make, pretended, monkeypatch):
    def fails(rung):
        raise ValueError("the disk is full")

    search = make()
    with monkeypatch.context() as patch:
        patch.setattr(trial, "do_rung", fails)
        failures = run_trials(search, 2, ONE_BY_ONE)
    assert [failure.error for failure in failures] == ["ValueError: the disk is full"] * 2
    with pytest.raises(ValueError, match="no trial has finished"):
        best_of(found(search))
    assert run_trials(search, 1, ONE_BY_ONE) == []
    assert [each.state for each in found(search)] == ["finished", "failed", "failed"]


def test_another_search_in_the_same_folder_is_refused(make, pretended):
    run_trials(make(), 1, ONE_BY_ONE)
    with pytest.raises(ValueError, match="holds a search with another seeds"):
        run_trials(make(seeds=(1, 2)), 1, ONE_BY_ONE)
    with pytest.raises(ValueError, match="another settings, space"):
        run_trials(make(space="OPTIM.LR: {low: 1, high: 2}", **{"OPTIM.MAX_EPOCH": 2}), 1, ONE_BY_ONE)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"trainer": "ZeroshotCLIP", "space": "INPUT.SIZE: {choices: {a: [1, 1], b: [2, 2]}}"}, "trains nothing"),
        ({"TEST.FINAL_MODEL": "best_val"}, "--set TEST.FINAL_MODEL last_step"),
        ({"space": "TRAINER.COOP.CLASS_TOKEN_POSITION: {choices: [end, ned]}"}, "ned"),
        ({"seeds": ()}, "one seed at least"),
        ({"DATASET.PSEUDO_IMAGES": 0}, "DATASET.PSEUDO_IMAGES cannot be set or varied"),
        ({"space": "TEST.OPEN_SET: {choices: [true, false]}"}, "TEST.OPEN_SET cannot be set or varied"),
        ({"MODEL.INIT_WEIGHTS": __file__}, "MODEL.INIT_WEIGHTS cannot be set or varied"),
        ({"space": f"MODEL.INIT_WEIGHTS: {{choices: ['', {__file__}]}}"}, "MODEL.INIT_WEIGHTS cannot be set or varied"),
    ],
)
def test_what_cannot_work_is_told_before_the_first_trial(make, more, message):
    search = make(**more)
    with pytest.raises(ValueError, match=message):
        run_trials(search, 1, ONE_BY_ONE)
    assert not search.folder.exists()


@pytest.mark.parametrize("grid", [False, True])
def test_a_config_that_starts_from_trained_weights_is_refused(make, call, tmp_path, monkeypatch, capsys, grid):
    """They may have been trained on the classes and images that a search must not see."""
    for path in ("configs/datasets/dtd.yaml", "configs/trainers/CoOp/tiny.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / path).read_text()
        (tmp_path / path).write_text(text.replace("MODEL:\n", f"MODEL:\n  INIT_WEIGHTS: {__file__}\n"))
    monkeypatch.setattr("tools.sweep.experiment.ROOT", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        call(*(["--vary", "OPTIM.LR", 0.1] if grid else []))
    assert "the config has MODEL.INIT_WEIGHTS: what it names may have been trained on" in capsys.readouterr().err
    assert not (tmp_path / "output/studies").exists()


# ---- the command
@pytest.fixture
def call(textures, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "CONFIGS", tmp_path / "configs")
    monkeypatch.setenv("DATA", str(textures))
    (tmp_path / "configs" / "CoOp").mkdir(parents=True)
    (tmp_path / "space.yaml").write_text(SPACE)

    def call(*more):
        given = ["--dataset", "dtd", "--trainer", "CoOp", "--config", "tiny", "--seeds", 1, "--shots", 2, *more]
        given += ["--one-by-one", "--output", tmp_path / "output"]
        given += [] if "--space" in more else ["--space", tmp_path / "space.yaml"]
        given += [word for pair in settings.items() for word in ("--set", *pair)]
        monkeypatch.setattr("sys.argv", ["search", *map(str, given)])
        main()

    return call


def test_search_ends_with_table_picture_and_a_config_that_runs_take(call, tmp_path, capsys):
    call("--trials", 2, "--rungs", 1)
    printed = capsys.readouterr().out
    folder = tmp_path / "output" / "studies" / "CoOp" / "tiny_dtd"
    path = tmp_path / "configs" / "CoOp" / "tiny_dtd.yaml"
    kept = json.loads((folder / "trials.json").read_text())
    assert len(kept["trials"]) == 2
    best = kept["trials"][0]
    assert best["hm"] == max(each["hm"] for each in kept["trials"] if each["state"] == "finished")
    assert f"{best['hm']:.2f}" in printed
    assert "the config as it is" in printed
    assert f"Settings of trial {best['number']}: {path}, which CFG=tiny_dtd takes" in printed
    assert (folder / "search.png").read_bytes().startswith(b"\x89PNG")

    text = path.read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert head[1].startswith("#     python -m tools.search --dataset dtd --trainer CoOp --config tiny")
    assert "2 trials" in text
    assert "No new class and no test image was looked at." in " ".join(line.lstrip("# ") for line in head)
    content = yaml.safe_load(text)
    assert content["OPTIM"]["LR"] == best["values"]["OPTIM.LR"]
    flips = best["values"]["INPUT.TRANSFORMS"] == "flips"
    assert content["INPUT"]["TRANSFORMS"] == (["random_flip", "normalize"] if flips else ["normalize"])
    base = yaml.safe_load((ROOT / "configs/trainers/CoOp/tiny.yaml").read_text())
    assert content["TRAINER"] == base["TRAINER"]
    cfg = train.setup_cfg(train.parse_arguments(["--trainer", "CoOp", "--config-file", str(path)]))
    assert best["values"]["OPTIM.LR"] == cfg.OPTIM.LR

    before = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("results.json")}
    call("--trials", 2, "--rungs", 1)  # the same command, when all is done
    assert path.read_text() == text
    assert {each: each.stat().st_mtime_ns for each in tmp_path.rglob("results.json")} == before


def test_a_search_that_goes_on_replaces_its_config(call, pretended, tmp_path):
    path = tmp_path / "configs" / "CoOp" / "tiny_dtd.yaml"
    call("--trials", 1, "--set", "TEST.FINAL_MODEL", "last_step")
    assert "1 trials" in path.read_text()
    assert yaml.safe_load(path.read_text())["TEST"] == {"FINAL_MODEL": "last_step"}  # the trials took that one
    call("--trials", 2, "--set", "TEST.FINAL_MODEL", "last_step")
    assert "2 trials" in path.read_text()


def test_a_config_that_the_search_did_not_write_is_replaced_by_force_alone(call, pretended, tmp_path, capsys):
    path = tmp_path / "configs" / "CoOp" / "mine.yaml"
    path.write_text("OPTIM: {LR: 1}\n")
    with pytest.raises(SystemExit, match="2"):
        call("--trials", 1, "--name", "mine")
    assert f"{path} is there, and not as this search wrote it: give another --name" in capsys.readouterr().err
    assert not (tmp_path / "output" / "studies").exists()
    call("--trials", 1, "--name", "mine", "--force")
    assert "chosen by" in path.read_text()
    path.write_text(path.read_text() + "# a line of one's own\n")
    with pytest.raises(SystemExit, match="2"):
        call("--trials", 2, "--name", "mine")
    assert f"{path} is there, and not as this search wrote it: give another --name" in capsys.readouterr().err
    assert len(pretended) == 3  # it is told before another trial


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--name", "a/b"], "--name must consist of letters"),
        (["--space", "no_such.yaml"], "there is no no_such.yaml, which must say what is varied"),
        (["--save", "x.json"], "--save keeps the table of a grid"),
        (["--set", "OPTIM.LRR", "1"], "OPTIM.LRR"),
        (["--images", "0"], "one image per class to choose by (--images), at least, got 0"),
        (["--vary", "DATASET.SUBSAMPLE_CLASSES", "all"], "DATASET.SUBSAMPLE_CLASSES cannot be set or varied"),
    ],
)
def test_wrong_command_lines_are_told(call, capsys, more, message):
    with pytest.raises(SystemExit, match="2"):
        call("--trials", 1, *more)
    assert message in capsys.readouterr().err


def test_without_optuna_one_error_says_how_to_get_it(call, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "tools.search.storage")
    monkeypatch.delattr("tools.search.storage")  # where `from tools.search import` finds it
    with pytest.raises(SystemExit, match="2"):
        call("--trials", 1)
    error = capsys.readouterr().err
    assert error == (
        "tools.search: a search needs Optuna, which is not installed: pip install -e '.[search]' (a grid, --vary, "
        "needs none)\n"
    )
