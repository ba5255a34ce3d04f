"""The protocol scripts, in a small checkout of their own, with a program for Python that records how it is called."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import ROOT
from tools.common.layout import Place, config_folder, trains_nothing
from tools.results import find_runs, table_of
from tools.results.runs import VARIANTS

RECORDER = """#!/usr/bin/env bash
[[ $1 != storage/ownership.py ]] || exec "$REAL_PYTHON" "$@"
pwd > "$RECORD"
echo "$*" >> "$RECORD.all"
printf '%s\\n' "$@" >> "$RECORD"
while [[ $# -gt 0 && $1 != --output-dir ]]; do shift; done
eval "${DO:-true}"
"""  # DO is run with the output folder as $2


class Checkout:
    """A folder with the scripts, some configs and a recording Python; `run` calls a script in it."""

    def __init__(self, folder):
        self.root = folder / "checkout"
        self.home = folder / "home"
        self.record = folder / "record"
        self.output = self.root / "output" / "base2new"
        self.home.mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        (self.root / "storage").mkdir(parents=True)
        shutil.copy(ROOT / "storage/ownership.py", self.root / "storage")
        for config in ("datasets/dtd", "datasets/digits", "trainers/CDC/vit_b16", "trainers/CDC/tiny"):
            self.add_config(config)
        self.add_config("trainers/ZeroshotCLIP/vit_b16")
        (self.root / "data").mkdir()
        self.python = self.add_program(self.root / ".venv" / "bin" / "python")

    def add_config(self, name):
        path = self.root / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def add_program(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RECORDER)
        path.chmod(0o755)
        return path

    def environment(self, **given):
        """What a script sees of the environment."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "RECORD": str(self.record),
            "REAL_PYTHON": sys.executable,
            **given,
        }

    def run(self, script, *arguments, cwd=None, **environment):
        """Call a script; return its result, with `called`, how Python was called, or None."""
        all_calls = self.record.with_suffix(".all")
        for path in (self.record, all_calls):
            path.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", str(self.root / "scripts" / script), *arguments],
            cwd=cwd or self.root,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=60,
        )
        done.called = self.record.read_text().splitlines() if self.record.exists() else None
        done.calls = all_calls.read_text().splitlines() if all_calls.exists() else []
        return done

    def train(self, *arguments, **options):
        return self.run("cdc/base2new_train.sh", *arguments, **options)

    def test(self, *arguments, **options):
        return self.run("cdc/base2new_test.sh", *arguments, **options)

    def add_model(self, run="dtd/shots_16/CDC/vit_b16/seed1", epochs=(5,), finished=True):
        """Leave behind what a training does; return its folder."""
        folder = self.output / "train_base" / run
        (folder / "prompt_learner").mkdir(parents=True)
        for epoch in epochs:
            (folder / "prompt_learner" / f"model.pth.tar-{epoch}").touch()
        if finished:
            (folder / "results.json").touch()
        return folder

    def output_folder(self, done):
        """Return the output folder that Python was given, below base2new."""
        return os.path.relpath(done.called[done.called.index("--output-dir") + 1], self.output)


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def refused(done, *words):
    """Check that a script stopped with one sentence on stderr, before it called Python."""
    assert done.returncode != 0
    assert done.called is None
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
    return True


# ---- what train.py is called with


def test_training_is_called_as_in_coop(checkout):
    done = checkout.train("dtd", "1")
    assert done.returncode == 0, done.stderr
    assert done.called == [
        str(checkout.root),
        "train.py",
        *("--root", f"{checkout.root}/data"),
        *("--seed", "1"),
        *("--trainer", "CDC"),
        *("--dataset-config-file", "configs/datasets/dtd.yaml"),
        *("--config-file", "configs/trainers/CDC/vit_b16.yaml"),
        *("--output-dir", f"{checkout.root}/output/base2new/train_base/dtd/shots_16/CDC/vit_b16/seed1"),
        *("DATASET.NUM_SHOTS", "16"),
        *("DATASET.SUBSAMPLE_CLASSES", "base"),
    ]


def test_testing_is_called_as_in_coop(checkout):
    model = checkout.add_model(epochs=(1, 2, 10))
    done = checkout.test("dtd", "1")
    assert done.returncode == 0, done.stderr
    assert done.called == [
        str(checkout.root),
        "train.py",
        *("--root", f"{checkout.root}/data"),
        *("--seed", "1"),
        *("--trainer", "CDC"),
        *("--dataset-config-file", "configs/datasets/dtd.yaml"),
        *("--config-file", "configs/trainers/CDC/vit_b16.yaml"),
        *("--output-dir", f"{checkout.root}/output/base2new/test_new/dtd/shots_16/CDC/vit_b16/seed1"),
        *("--model-dir", str(model)),
        *("--load-epoch", "10"),
        "--eval-only",
        *("DATASET.NUM_SHOTS", "16"),
        *("DATASET.SUBSAMPLE_CLASSES", "new"),
    ]


def test_zero_shot_needs_no_model(checkout):
    for sub in ("new", "base"):
        done = checkout.run("zsclip/base2new_test.sh", "dtd", "1", SUB=sub)
        assert done.returncode == 0, done.stderr
        assert checkout.output_folder(done) == f"test_{sub}/dtd/shots_16/ZeroshotCLIP/vit_b16/seed1"
        assert done.called[-5:] == ["--eval-only", "DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", sub]
        assert "--model-dir" not in done.called
    assert refused(checkout.train("dtd", "1", TRAINER="ZeroshotCLIP"), "ZeroshotCLIP has nothing to train")


def test_environment_variables(checkout):
    checkout.add_config("trainers/CoOp/rn50")
    python = checkout.add_program(checkout.root / "other python")
    data = checkout.root / "some data"
    data.mkdir()
    options = {"DATA": str(data), "OUTPUT": "/nowhere", "SHOTS": "4", "CFG": "rn50", "TRAINER": "CoOp"}
    done = checkout.train("dtd", "0", PYTHON=str(python), **options)
    assert done.returncode == 0, done.stderr
    assert done.called[2:4] == ["--root", str(data)]
    assert "/nowhere/base2new/train_base/dtd/shots_4/CoOp/rn50/seed0" in done.called
    assert "configs/trainers/CoOp/rn50.yaml" in done.called
    assert "CFG" not in done.stdout


def test_quiet_is_handed_on(checkout):
    assert "--quiet" in checkout.train("dtd", "1", QUIET="1").called
    assert "--quiet" not in checkout.train("dtd", "1", QUIET="").called


def test_report_to_is_handed_on_and_is_no_part_of_the_folders_name(checkout):
    called = checkout.train("dtd", "1", REPORT_TO="wandb").called
    assert called[called.index("--report-to") + 1] == "wandb"
    assert "--report-to" not in checkout.train("dtd", "1", REPORT_TO="").called
    refused = checkout.train("dtd", "1", "REPORT_TO", "wandb")
    assert refused.returncode != 0
    assert "set REPORT_TO=... in place of REPORT_TO" in refused.stderr


def test_seed_zero_is_given_as_a_setting_too(checkout):
    """Published train.py files drop `--seed 0`."""
    done = checkout.train("dtd", "0")
    assert done.called[-2:] == ["SEED", "0"]
    assert checkout.output_folder(done) == "train_base/dtd/shots_16/CDC/vit_b16/seed0"


def test_from_any_directory(checkout, tmp_path):
    elsewhere = tmp_path / "else where"
    (elsewhere / "sets").mkdir(parents=True)
    (checkout.home / "sets").mkdir()
    python = checkout.add_program(elsewhere / "bin" / "python")
    done = checkout.train(
        "dtd", "1", cwd=elsewhere, DATA="sets", OUTPUT="../runs", PYTHON="bin/python", CDPATH=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert done.called[0] == str(checkout.root)
    assert done.called[3] == f"{elsewhere}/sets"
    assert f"{elsewhere}/../runs/base2new/train_base/dtd/shots_16/CDC/vit_b16/seed1" in done.called
    done = checkout.train("dtd", "1", cwd=elsewhere, DATA="~/sets", PYTHON=str(python))
    assert done.called[3] == f"{checkout.home}/sets"
    done = subprocess.run(
        ["bash", "base2new_train.sh", "dtd", "1"],
        cwd=checkout.root / "scripts" / "cdc",
        env={"PATH": os.environ["PATH"], "HOME": "/", "RECORD": str(checkout.record)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_default_config_goes_with_the_data_set(checkout):
    done = checkout.train("digits", "1")
    assert checkout.output_folder(done) == "train_base/digits/shots_16/CDC/tiny/seed1"
    assert "configs/trainers/CDC/tiny.yaml" in done.stdout
    done = checkout.train("digits", "1", CFG="vit_b16")
    assert checkout.output_folder(done) == "train_base/digits/shots_16/CDC/vit_b16/seed1"


@pytest.mark.parametrize(
    ("script", "dataset", "cfg"),
    [
        ("cdc/base2new_train.sh", "dtd", "vit_b16"),
        ("coop/base2new_train.sh", "dtd", "vit_b16_ctxv1"),
        ("coop/base2new_train.sh", "imagenet", "vit_b16_ep50_ctxv1"),
        ("cocoop/base2new_train.sh", "dtd", "vit_b16_c4_ep10_batch1_ctxv1"),
        ("kgcoop/base2new_train.sh", "dtd", "vit_b16_ep100_ctxv1"),
        ("kgcoop/xd_train.sh", "imagenet", "vit_b16_ep100_ctxv1"),
        ("tcp/base2new_train.sh", "dtd", "vit_b16_ep100_ctxv1"),
        ("tcp/base2new_train.sh", "imagenet", "vit_b16_ep25_ctxv1"),
        ("tcp/xd_train.sh", "imagenet", "vit_b16_ep25_ctxv1"),
        ("tcp/fewshot.sh", "digits", "tiny"),
        ("maple/base2new_train.sh", "dtd", "vit_b16_c2_ep5_batch4_2ctx"),
        ("maple/base2new_train.sh", "digits", "tiny"),
        ("promptsrc/base2new_train.sh", "dtd", "vit_b16_c2_ep20_batch4_4+4ctx"),
        ("promptsrc/base2new_train.sh", "digits", "tiny"),
        ("mmrl/base2new_train.sh", "dtd", "vit_b16"),
        ("mmrl/base2new_train.sh", "imagenet", "vit_b16_imagenet"),
        ("mmrl/base2new_train.sh", "digits", "tiny"),
        ("clip_icm/base2new_train.sh", "dtd", "vit_b16"),
        ("zsclip/base2new_test.sh", "dtd", "vit_b16"),
        ("zsclip2/base2new_test.sh", "dtd", "vit_b16"),
        ("cdc/xd_train.sh", "imagenet", "vit_b16_cross_datasets"),
        ("cdc/xd_train.sh", "shapes", "tiny"),
        ("coop/xd_train.sh", "imagenet", "vit_b16_ep50_ctxv1"),
        ("maple/xd_train.sh", "imagenet", "vit_b16_c2_ep5_batch4_2ctx_cross_datasets"),
        ("maple/xd_train.sh", "shapes", "tiny"),
        ("promptsrc/xd_train.sh", "imagenet", "vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets"),
        ("promptsrc/fewshot.sh", "dtd", "vit_b16_c2_ep50_batch4_4+4ctx_few_shot"),
        ("mmrl/xd_train.sh", "imagenet", "vit_b16_cross_datasets"),
        ("mmrl/fewshot.sh", "dtd", "vit_b16_few_shot"),
        ("mmrl/fewshot.sh", "imagenet", "vit_b16_imagenet"),
    ],
)
def test_default_config_is_the_published_one(checkout, script, dataset, cfg):
    shutil.copytree(ROOT / "configs", checkout.root / "configs", dirs_exist_ok=True)
    checkout.add_config("datasets/imagenet")
    done = checkout.run(script, dataset, "1")
    assert done.returncode == 0, done.stderr
    path = done.called[done.called.index("--config-file") + 1]
    trainer = done.called[done.called.index("--trainer") + 1]
    assert path == f"configs/trainers/{trainer}/{cfg}.yaml"
    assert (ROOT / path).is_file()


def test_old_name_of_the_coupled_config_is_the_new_one(checkout):
    done = checkout.train("dtd", "1", CFG="vit_b16_coupled")
    assert "vit_b16_coupled.yaml is now vit_b16.yaml" in done.stdout
    assert call_of(done, "--config-file") == "configs/trainers/CDC/vit_b16.yaml"
    assert checkout.output_folder(done) == "train_base/dtd/shots_16/CDC/vit_b16_coupled/seed1"


def test_text_only_run_of_an_earlier_version_is_no_finished_one(checkout):
    run = checkout.output / "train_base/dtd/shots_16/CDC/vit_b16/seed1"
    run.mkdir(parents=True)
    (run / "results.json").write_text(json.dumps({"config": {"TRAINER": {"CDC": {"PROMPT": "text"}}}}))
    assert refused(checkout.train("dtd", "1"), "text-only templates, of an earlier version", "vit_b16_text")
    (run / "results.json").write_text(json.dumps({"config": {"TRAINER": {"CDC": {"PROMPT": "coupled"}}}}))
    assert "Finished already" in checkout.train("dtd", "1").stdout


def test_every_method_has_every_script_that_it_can_run():
    """All of them hand over to CDC's, which do the work; zero-shot CLIP has nothing to train."""
    own = {path.name for path in (ROOT / "scripts/cdc").glob("*.sh")} - {"common.sh"}
    assert own == {
        *(f"base2new_{part}.sh" for part in ("train", "test", "all")),
        *(f"{name}.sh" for name in ("xd_train", "xd_test", "dg_test", "fewshot", "open_set_test")),
    }
    training = {"base2new_train.sh", "xd_train.sh", "fewshot.sh"}
    trainers = {
        "coop": "CoOp",
        "cocoop": "CoCoOp",
        "kgcoop": "KgCoOp",
        "maple": "MaPLe",
        "tcp": "TCP",
        "promptsrc": "PromptSRC",
        "mmrl": "MMRL",
        "clip_icm": "CLIPICM",
        "zsclip": "ZeroshotCLIP",
    }
    for folder, trainer in {**trainers, "zsclip2": "ZeroshotCLIP2"}.items():
        scripts = {path.name: path.read_text() for path in (ROOT / "scripts" / folder).glob("*.sh")}
        assert scripts.keys() == (own - training if trains_nothing(trainer) else own)
        for name, text in scripts.items():
            assert text.endswith(f'TRAINER={trainer} exec bash "$(dirname "${{BASH_SOURCE[0]}}")/../cdc/{name}" "$@"\n')
            assert f"bash scripts/{folder}/{name}" in text
    assert {path.name for path in (ROOT / "scripts").iterdir()} == {"cdc", "cluster", "zsclip2", *trainers}


# ---- the other protocols


def call_of(done, option):
    return done.called[done.called.index(option) + 1]


def test_cross_data_set_runs_lie_where_coop_has_them(checkout):
    checkout.add_config("datasets/imagenet")
    checkout.add_config("trainers/CDC/vit_b16_cross_datasets")
    done = checkout.run("cdc/xd_train.sh", "imagenet", "1", SOURCE="dtd")
    assert done.returncode == 0, done.stderr
    model = checkout.root / "output/imagenet/CDC/vit_b16_cross_datasets_16shots/seed1"
    assert call_of(done, "--output-dir") == str(model)
    assert done.called[-4:] == ["DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", "all"]

    assert refused(checkout.run("cdc/xd_test.sh", "dtd", "1"), "no trained model", "xd_train.sh imagenet 1`")
    checkout.add_model(model, epochs=(1, 2))
    done = checkout.run("cdc/xd_test.sh", "dtd", "1")
    assert done.returncode == 0, done.stderr
    assert call_of(done, "--model-dir") == str(model)
    assert call_of(done, "--load-epoch") == "2"
    evaluation = f"{checkout.root}/output/evaluation/CDC/vit_b16_cross_datasets"
    assert call_of(done, "--output-dir") == f"{evaluation}_16shots/dtd/seed1"
    done = checkout.run("cdc/xd_test.sh", "dtd", "1", LOADEP="1")
    assert call_of(done, "--output-dir") == f"{evaluation}+epoch1_16shots/dtd/seed1"


def test_config_of_a_cross_data_set_test_is_that_of_its_training(checkout):
    for name in ("shapes", "textures", "imagenet"):
        checkout.add_config(f"datasets/{name}")
    model = checkout.add_model(checkout.root / "output/shapes/CDC/tiny_16shots/seed1")
    done = checkout.run("cdc/xd_test.sh", "textures", "1")
    assert (call_of(done, "--model-dir"), call_of(done, "--config-file")) == (
        str(model),
        "configs/trainers/CDC/tiny.yaml",
    )
    done = checkout.run("cdc/xd_test.sh", "dtd", "1", SOURCE="shapes")
    assert (call_of(done, "--model-dir"), call_of(done, "--config-file")) == (
        str(model),
        "configs/trainers/CDC/tiny.yaml",
    )
    folder = f"{checkout.root}/output/evaluation/CDC/tiny+from_shapes_16shots/dtd/seed1"
    assert call_of(done, "--output-dir") == folder
    output = checkout.root / "my_16shots"
    shutil.copytree(checkout.root / "output", output)
    done = checkout.run("cdc/xd_test.sh", "dtd", "1", SOURCE="shapes", OUTPUT=str(output))
    assert call_of(done, "--output-dir") == f"{output}/evaluation/CDC/tiny+from_shapes_16shots/dtd/seed1"
    assert refused(checkout.run("cdc/xd_test.sh", "dtd", "1", SOURCE="x"), "SOURCE must be one of", "got 'x'")
    words = "SOURCE names the data set trained on, here imagenet, of those that CDC was trained on: shapes\n"
    assert refused(checkout.run("cdc/xd_test.sh", "dtd", "1", CFG="tiny"), "no trained model", words)


def test_domain_generalisation_tests_all_variants(checkout):
    variants = ["imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]
    for name in ("imagenet", *variants):
        checkout.add_config(f"datasets/{name}")
    checkout.add_config("trainers/CDC/vit_b16_cross_datasets")
    checkout.add_model(checkout.root / "output/imagenet/CDC/vit_b16_cross_datasets_16shots/seed1")
    done = checkout.run("cdc/dg_test.sh", "imagenet", "1")
    assert done.returncode == 0, done.stderr
    assert [f"/{variant}/seed1" in call for variant, call in zip(variants, done.calls)] == [True] * 4
    assert len(done.calls) == 4
    assert refused(checkout.run("cdc/dg_test.sh", "dtd", "1"), "imagenet or shapes, there are variants")
    zero_shot = checkout.run("zsclip/dg_test.sh", "imagenet", "1")
    assert [f"evaluation/ZeroshotCLIP/vit_b16_16shots/{v}/seed1" in c for v, c in zip(variants, zero_shot.calls)] == [
        True
    ] * 4


def test_open_set(checkout):
    """The model of a finished training, on the new classes and on the other data sets that are there."""
    for name in ("eurosat", "oxford_flowers"):
        checkout.add_config(f"datasets/{name}")
    assert refused(checkout.run("cdc/open_set_test.sh", "dtd", "1"), "no trained model", "base2new_train.sh dtd 1`")
    model = checkout.add_model(epochs=(1, 2))
    (checkout.root / "data/oxford_flowers").mkdir()
    (checkout.root / "data/dtd").mkdir()
    done = checkout.run("cdc/open_set_test.sh", "dtd", "1")
    assert done.returncode == 0, done.stderr
    assert "FAR is not given: taking oxford_flowers\n" in done.stdout
    assert done.called[done.called.index("--output-dir") :] == [
        *("--output-dir", f"{checkout.root}/output/open_set/dtd/shots_16/CDC/vit_b16/seed1"),
        *("--model-dir", str(model)),
        *("--load-epoch", "2"),
        "--eval-only",
        *("TEST.OPEN_SET", "True"),
        *("TEST.FAR_SETS", "['configs/datasets/oxford_flowers.yaml']"),
        *("DATASET.NUM_SHOTS", "16"),
        *("DATASET.SUBSAMPLE_CLASSES", "base"),
    ]
    (checkout.root / "data/oxford_flowers").rmdir()
    done = checkout.run("cdc/open_set_test.sh", "dtd", "1")
    assert "taking no other data set, as none of dtd eurosat oxford_flowers is there" in done.stdout
    assert call_of(done, "TEST.FAR_SETS") == "[]"
    zero_shot = checkout.run("zsclip/open_set_test.sh", "dtd", "1", FAR="digits eurosat")
    assert "--model-dir" not in zero_shot.called
    assert call_of(zero_shot, "TEST.FAR_SETS") == "['configs/datasets/digits.yaml', 'configs/datasets/eurosat.yaml']"


def test_open_set_of_a_generated_set_has_others(checkout):
    checkout.add_config("datasets/symbols")
    checkout.add_config("datasets/textures")
    checkout.add_model("digits/shots_16/CDC/tiny/seed1")
    done = checkout.run("cdc/open_set_test.sh", "digits", "1")
    assert call_of(done, "TEST.FAR_SETS") == "['configs/datasets/symbols.yaml', 'configs/datasets/textures.yaml']"


def test_open_set_is_finished_once_it_has_all_sets(checkout):
    for name in ("eurosat", "food101"):
        checkout.add_config(f"datasets/{name}")
    model = checkout.add_model()

    def run(far, **environment):
        write = 'mkdir -p "$2"; cp "$RESULTS" "$2/results.json"'
        results = checkout.home / "results.json"
        figures = "".join(f'  "{name}/images": 6.0,\n' for name in ("near", *far.split()))
        results.write_text(f'{{"figures": {{\n  "accuracy": 5.0,\n{figures}')
        environment = {"FAR": far, "DO": write, "RESULTS": str(results), **environment}
        return checkout.run("cdc/open_set_test.sh", "dtd", "1", **environment)

    assert run("eurosat", ASK="1").returncode == 1
    assert run("eurosat").called is not None
    for far in ("eurosat", ""):
        assert "Finished already" in run(far).stdout
        assert run(far, ASK="1").returncode == 0
    assert run("food101", ASK="1").returncode == 1
    done = run("food101")  # with those that were there
    assert "Run again, as food101 is not in " in done.stdout
    assert call_of(done, "TEST.FAR_SETS") == "['configs/datasets/food101.yaml', 'configs/datasets/eurosat.yaml']"
    assert run("food101", ASK="1").returncode == 0
    later = checkout.root / "output/open_set/dtd/shots_16/CDC/vit_b16/seed1/results.json"
    os.utime(later, ns=(10**18, 10**18))
    os.utime(model / "prompt_learner/model.pth.tar-5", ns=(10**18 + 10**9, 10**18 + 10**9))
    assert run("food101").called is not None


@pytest.mark.parametrize(("method", "tested"), [("cdc", "train_base"), ("zsclip", "test_base")])
def test_open_set_with_the_calibration_of_its_model(checkout, method, tested):
    model = checkout.add_model()
    trainer = {"cdc": "CDC", "zsclip": "ZeroshotCLIP"}[method]
    calibration = checkout.output / tested / f"dtd/shots_16/{trainer}/vit_b16/seed1/calibration.json"
    asked = {"FAR": "", "CALIBRATED": "1"}
    assert refused(checkout.run(f"{method}/open_set_test.sh", "dtd", "1", **asked), f"no calibration {calibration}")
    calibration.parent.mkdir(parents=True, exist_ok=True)
    calibration.touch()
    done = checkout.run(f"{method}/open_set_test.sh", "dtd", "1", **asked)
    assert call_of(done, "TEST.CALIBRATION") == str(calibration)
    assert (method == "cdc") == (str(model) in done.called)
    results = checkout.root / f"output/open_set/dtd/shots_16/{trainer}/vit_b16/seed1/results.json"
    results.parent.mkdir(parents=True)
    results.write_text('"near/images": 6.0')
    assert checkout.run(f"{method}/open_set_test.sh", "dtd", "1", FAR="").called is None
    assert checkout.run(f"{method}/open_set_test.sh", "dtd", "1", **asked).called is not None


@pytest.mark.parametrize(
    ("far", "words"),
    [
        ("food", ("FAR must be names of digits, dtd, got 'food'",)),
        ("dtd", ("other data sets than dtd, whose new classes",)),
        ("digits digits", ("FAR names digits twice",)),
    ],
)
def test_wrong_sets_of_an_open_set(checkout, far, words):
    checkout.add_model()
    assert refused(checkout.run("cdc/open_set_test.sh", "dtd", "1", FAR=far), *words)


TRAINED = 'mkdir -p "$2/prompt_learner"; touch "$2/results.json" "$2/prompt_learner/model.pth.tar-"{3,5}'


@pytest.mark.parametrize(
    ("method", "trainer", "trained"), [("cdc", "CDC", True), ("coop", "CoOp", True), ("zsclip", "ZeroshotCLIP", False)]
)
def test_folders_are_those_of_the_layout(checkout, method, trainer, trained):
    """Of every protocol, as the tools know them: what is trained, and then its tests."""
    variants = VARIANTS["imagenet"]
    for name in ("imagenet", *variants):
        checkout.add_config(f"datasets/{name}")
    checkout.add_config(f"trainers/{trainer}/own")

    def folders(script, *arguments, **environment):
        environment = {"CFG": "own", "SHOTS": "4", "DO": TRAINED, **environment}
        done = checkout.run(f"{method}/{script}.sh", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return [Path(re.search(r"--output-dir (\S+)", call)[1]) for call in done.calls]

    def place(kind, dataset="dtd", shots=4, seed=2, **marks):
        own = Place(kind, dataset, shots, trainer, config_folder("own", **marks), seed)
        return checkout.root / "output" / own.folder

    dtd, rate = ("dtd", "2"), ("OPTIM.LR", "0.1")
    if trained:
        assert folders("base2new_train", *dtd) == [place("train_base")]
        assert folders("base2new_train", *dtd, SHOTS="-1", TAG="a") == [place("train_base", shots=-1, tag="a")]
        assert folders("base2new_train", *dtd, *rate) == [place("train_base", tag="OPTIM.LR=0.1")]
        assert folders("fewshot", *dtd, SHOTS="1 2 -1") == [place("all", shots=shots) for shots in (1, 2, -1)]
        assert folders("xd_train", "imagenet", "2") == [place("all", "imagenet")]
        assert folders("xd_train", "dtd", "2") == [place("all")]
        assert folders("open_set_test", *dtd, LOADEP="3") == [place("open_set", epoch=3)]
        assert folders("open_set_test", *dtd, *rate) == [place("open_set", tag="OPTIM.LR=0.1")]
        for sub in ("base", "new"):
            assert folders("base2new_test", *dtd, SUB=sub, LOADEP="3") == [place(f"test_{sub}", epoch=3)]
            assert folders("base2new_test", *dtd, *rate, SUB=sub) == [place(f"test_{sub}", tag="OPTIM.LR=0.1")]
        assert folders("xd_test", "digits", "2", SOURCE="dtd", LOADEP="3") == [
            place("evaluation", "digits", epoch=3, source="dtd")
        ]
    for sub in ("base", "new"):
        assert folders("base2new_test", *dtd, SUB=sub) == [place(f"test_{sub}")]
    assert folders("open_set_test", *dtd) == [place("open_set")]
    assert folders("xd_test", *dtd) == [place("evaluation")]
    assert folders("dg_test", "imagenet", "2") == [place("evaluation", name) for name in variants]


RESULT = """mkdir -p "$2/prompt_learner"; touch "$2/prompt_learner/model.pth.tar-"{3,5}
printf '{"figures": {"accuracy": 50}, "model_dir": "%s"}' "${4-}" > "$2/results.json\""""
# What may stand in the names of folders: (KEY VALUE pairs, environment)
SETTINGS = {
    "plain": ((), {}),
    "pairs": (("OPTIM.LR", "0.1", "DATASET.FOLDER", "/a/b_4shots"), {}),
    "long": (("INPUT.TRANSFORMS", f"['{'x' * 150}']"), {}),
    "tag": ((), {"TAG": "a+b=1,c_2shots"}),
    "all shots": ((), {"SHOTS": "-1"}),
    "published name": ((), {"CFG": "vit_b16_c2_ep20_batch4_4+4ctx", "SHOTS": "1"}),
    "coupled": ((), {"CFG": "tiny_coupled"}),
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("protocol", ["base2new", "xd", "dg", "fewshot"])
def test_tables_read_every_folder_that_scripts_write(checkout, protocol, settings):
    """Each table holds every run of its protocol's scripts, and lacks nothing beside what one epoch's tests lack."""
    own, environment = SETTINGS[settings]
    for name in ("shapes", *VARIANTS["shapes"], "letters", "symbols"):
        checkout.add_config(f"datasets/{name}")
    for name in ("CDC/tiny", "CDC/vit_b16", "CoOp/tiny", "ZeroshotCLIP/tiny"):
        checkout.add_config(f"trainers/{name}")
        checkout.add_config(f"trainers/{name.split('/')[0]}/vit_b16_c2_ep20_batch4_4+4ctx")
    if settings == "coupled":
        checkout.add_config("trainers/CoOp/tiny_coupled")
        checkout.add_config("trainers/ZeroshotCLIP/tiny_coupled")
    output = checkout.root / "output"
    written = set()

    def run(script, *arguments, **more):
        if script.startswith("zsclip") and "train" in script:
            return
        done = checkout.run(f"{script}.sh", *arguments, *own, **{"DO": RESULT, **environment, **more})
        assert done.returncode == 0, done.stderr
        assert done.calls
        written.update(Path(re.search(r"--output-dir (\S+)", call)[1]) for call in done.calls)

    for method in ("cdc", "coop", "zsclip"):
        if protocol == "base2new":
            run(f"{method}/base2new_train", "digits", "1")
            for sub, epoch in itertools.product(("base", "new"), ("", "3") if method == "coop" else ("",)):
                run(f"{method}/base2new_test", "digits", "1", SUB=sub, LOADEP=epoch)
        elif protocol == "fewshot":
            for dataset in ("digits", "letters"):
                run(f"{method}/{'xd_test' if method == 'zsclip' else 'fewshot'}", dataset, "0")
        else:
            # `dg` has one source for the generated sets.
            for source in ("shapes",) if protocol == "dg" else ("shapes", "digits"):
                run(f"{method}/xd_train", source, "1")
                if method == "zsclip":
                    run("zsclip/xd_test", source, "1", SOURCE=source)
                if protocol == "dg":
                    run(f"{method}/dg_test", source, "1")
                for target in ("letters", "symbols") if protocol == "xd" else ():
                    if method != "zsclip" or source == "shapes":
                        run(f"{method}/xd_test", target, "1", SOURCE=source)
                    if method == "cdc":
                        run("cdc/xd_test", target, "1", SOURCE=source, LOADEP="3")
                if (method, protocol) == ("cdc", "xd"):
                    run("cdc/xd_test", source, "1", SOURCE=source, LOADEP="3")

    read = set()
    for source in {"xd": ("shapes", "digits"), "dg": ("shapes",)}.get(protocol, ("",)):
        read |= {run.path.parent for run in find_runs(output, protocol, source=source)}
        rows = ("letters", "symbols") if protocol == "xd" else ()  # zero-shot CLIP was also tested on each source
        table = table_of(output, protocol, source=source, datasets=rows)
        assert [line for line in table.missing if "no run on" in line or "no result" in line] == []
        assert len(table.columns) == {"xd": 4, "base2new": 4}.get(protocol, 3)
    # A training has its own test of the classes that a later test was asked for again.
    again = {Path(str(folder).replace("test_base", "train_base")) for folder in written if "test_base" in folder.parts}
    assert written - read <= again
    assert read <= written


def test_config_in_a_folder_is_refused(checkout):
    checkout.add_config("trainers/CDC/own/tiny")
    assert refused(checkout.run("cdc/xd_train.sh", "digits", "1", CFG="own/tiny"), "CFG must be the name", "own/tiny")


def test_source_is_no_part_of_a_zero_shot_run(checkout):
    checkout.add_config("datasets/shapes")
    checkout.add_config("trainers/ZeroshotCLIP/tiny")
    for source in ("shapes", "digits"):
        done = checkout.run("zsclip/xd_test.sh", "digits", "1", SOURCE=source)
        folder = f"{checkout.root}/output/evaluation/ZeroshotCLIP/tiny_16shots/digits/seed1"
        assert call_of(done, "--output-dir") == folder


def test_scripts_know_what_trains_nothing(checkout):
    names = [path.name for path in (ROOT / "configs/trainers").iterdir()] + ["ZeroshotOfOnesOwn", "Own"]
    for name in names:
        checkout.add_config(f"trainers/{name}/own")
        refusal = "has nothing to train" in checkout.train("dtd", "1", TRAINER=name, CFG="own").stderr
        assert refusal == trains_nothing(name)


def test_few_shot_curve(checkout):
    done = checkout.run("cdc/fewshot.sh", "dtd", "1")
    assert done.returncode == 0, done.stderr
    assert [f"output/dtd/CDC/vit_b16_{n}shots/seed1" in call for n, call in zip((1, 2, 4, 8, 16), done.calls)] == [
        True
    ] * 5
    assert len(checkout.run("cdc/fewshot.sh", "dtd", "1", SHOTS="1 -1").calls) == 2
    done = checkout.run("cdc/fewshot.sh", "dtd", "2", DO="exit 3", cwd=checkout.root / "scripts/cdc")
    assert (done.returncode, len(done.calls)) == (3, 5)
    for trainer, cfg in {"coop": "vit_b16", "maple": "vit_b16_c2_ep5_batch4_2ctx"}.items():
        checkout.add_config(f"trainers/{ {'coop': 'CoOp', 'maple': 'MaPLe'}[trainer] }/{cfg}")
        assert f"/{cfg}_16shots/" in checkout.run(f"{trainer}/fewshot.sh", "dtd", "1", SHOTS="16").calls[0]


def test_all_data_sets_go_on_after_one_failed(checkout):
    """Each reason is told once, with all that failed for it."""
    leave_a_model = 'mkdir -p "$2/prompt_learner"; touch "$2/prompt_learner/model.pth.tar-5" "$2/results.json"'
    fail = 'case $2 in *train_base/letters*) echo progress >&2; echo "train.py: no letters" >&2; exit 2 ;; esac'
    checkout.add_config("datasets/letters")
    environment = {"DATASETS": "digits letters dtd", "SEEDS": "1 2", "DO": f"{fail}; {leave_a_model}", "SUB": "base"}
    done = checkout.run("cdc/base2new_all.sh", **environment)
    assert done.returncode == 1
    assert "[6/6] CDC dtd seed 2: SUB=new base2new_test.sh" in done.stdout
    assert len(done.calls) == 10
    both = "letters seed 1: base2new_train.sh, letters seed 2: base2new_train.sh"
    assert done.stderr.endswith(f"\nfailed: {both}: train.py: no letters\n")
    again = checkout.run("cdc/base2new_all.sh", **environment)
    assert len(again.calls) == 2  # all others are finished
    tested = checkout.run("zsclip/base2new_all.sh", DATASETS="dtd", SEEDS="1")
    assert [call.split()[-1] for call in tested.calls] == ["base", "new"]
    environment = {**environment, "DATASETS": "digits dtd", "SEEDS": "3"}
    done = checkout.run("cdc/base2new_all.sh", cwd=checkout.root / "scripts/cdc", **environment)
    assert (done.returncode, len(done.calls)) == (0, 4)
    assert refused(checkout.run("cdc/base2new_all.sh", TRAINER="Foo"), "configs/trainers/Foo")


def test_all_checks_every_call_before_it_runs_one(checkout):
    """What is wrong is told once, also where it is wrong of many runs."""
    done = checkout.run("cdc/base2new_all.sh", DATASETS="digits dtdd dtd", SEEDS="1 2", DATA="/no/such")
    assert (done.returncode, done.calls) == (1, [])
    assert re.fullmatch(r".*no data set config .*dtdd.yaml.*\n.*no data folder /no/such: .*\n", done.stderr)
    done = checkout.run("cdc/base2new_all.sh", "OPTIM.LR", DATASETS="digits dtd")
    assert refused(done, "the last of 'OPTIM.LR' has no partner")


def test_all_looks_for_the_data_before_it_runs_anything(tmp_path):
    """With this checkout's own tools."""
    (tmp_path / "dtd/images").mkdir(parents=True)
    environment = {"DATASETS": "digits dtd eurosat", "DATA": str(tmp_path), "OUTPUT": str(tmp_path / "output")}
    done = subprocess.run(
        ["bash", ROOT / "scripts/cdc/base2new_all.sh"],
        env={**os.environ, **environment, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2
    assert done.stdout.startswith("18 runs: 0 have finished, 0 will go on, 18 are new\n")
    for line in (
        "dtd: NOT USABLE",
        f"missing   {tmp_path}/dtd/images/",
        "eurosat: NOT USABLE",
        "or --datasets to those",
    ):
        assert line in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dtd"]


def test_all_tells_first_what_is_finished_and_what_is_left(checkout):
    """By the same rules as the scripts that it calls: settings, config and a newer training count."""
    environment = {"DATASETS": "digits dtd", "SEEDS": "1 2", "DO": "exit 7"}

    def told(*arguments, script="cdc", **options):
        done = checkout.run(f"{script}/base2new_all.sh", *arguments, **{**environment, **options})
        before, start, _ = done.stdout.partition("[1/")
        assert start
        return before.splitlines(), done

    both = "base2new_train.sh, SUB=new base2new_test.sh"
    pairs = ["digits seed 1", "dtd seed 1", "digits seed 2", "dtd seed 2"]
    lines, done = told()
    assert lines == ["CDC: 0 of 8 runs are finished", *(f"left: {pair}: {both}" for pair in pairs)]
    assert len(done.calls) == 4  # each training once: asking runs nothing

    checkout.add_model("dtd/shots_16/CDC/vit_b16/seed1")
    checkout.add_model("dtd/shots_16/CDC/vit_b16/seed2", finished=False)
    checkout.add_model("digits/shots_16/CDC/tiny/seed1")
    test = checkout.output / "test_new/digits/shots_16/CDC/tiny/seed1/results.json"
    test.parent.mkdir(parents=True)
    test.touch()
    later = [f"left: digits seed 2: {both}", f"left: dtd seed 2: {both}"]
    new = "left: {} seed 1: SUB=new base2new_test.sh".format
    assert told()[0] == ["CDC: 3 of 8 runs are finished", new("dtd"), *later]
    os.utime(test, ns=(10**18, 10**18))  # older than its model
    assert told()[0] == ["CDC: 2 of 8 runs are finished", new("digits"), new("dtd"), *later]
    assert told("OPTIM.LR", "0.1")[0][0] == "CDC: 0 of 8 runs are finished"

    zero_shot = {"script": "zsclip", "DATASETS": "dtd", "SEEDS": "1"}
    lines, _ = told(**zero_shot, DO='mkdir -p "$2"; touch "$2/results.json"')
    both = "SUB=base base2new_test.sh, SUB=new base2new_test.sh"
    assert lines == ["ZeroshotCLIP: 0 of 2 runs are finished", f"left: dtd seed 1: {both}"]
    assert told(**zero_shot)[0] == ["ZeroshotCLIP: 2 of 2 runs are finished"]


def test_advice_for_a_missing_model_trains_the_same_method(checkout):
    checkout.add_config("trainers/CoOp/rn50")
    data = checkout.root / "some data"
    data.mkdir()
    done = checkout.run("coop/base2new_test.sh", "dtd", "1", CFG="rn50", SHOTS="4", DATA=str(data))
    advice = re.search("run `(.*?)` first", done.stderr).group(1)
    env = {"PATH": os.environ["PATH"], "HOME": "/", "RECORD": str(checkout.record)}
    subprocess.run(["bash", "-c", advice], cwd=checkout.root, env=env, check=True, timeout=60)
    called = checkout.record.read_text().splitlines()
    assert f"{checkout.root}/output/base2new/train_base/dtd/shots_4/CoOp/rn50/seed1" in called
    assert str(data) in called


def test_last_epoch_of_a_run_that_kept_its_best_has_a_folder_of_its_own(checkout):
    folder = checkout.add_model(epochs=(1, 2))
    (folder / "prompt_learner/model-best.pth.tar").touch()
    assert "--load-epoch" not in checkout.test("dtd", "1").called
    done = checkout.test("dtd", "1", LOADEP="2")
    assert checkout.output_folder(done) == "test_new/dtd/shots_16/CDC/vit_b16+epoch2/seed1"


def test_data_sets_and_configs_that_scripts_name_are_there():
    """What the scripts fill in themselves: variants, the papers' sets, generated sets."""
    scripts = ("dg_test.sh", "base2new_all.sh", "open_set_test.sh", "common.sh")
    text = "".join((ROOT / "scripts/cdc" / name).read_text() for name in scripts)
    lists = re.findall(r'variants="([^"]*)"|DATASETS:-([^}]*)}|GENERATED="([^"]*)"|usual="([^"]*)"', text)
    assert len(lists) == 6
    names = [name for found in lists for name in " ".join(found).replace("\\", " ").split()]
    assert len(names) > 20
    assert [name for name in names if not (ROOT / f"configs/datasets/{name}.yaml").is_file()] == []


# ---- settings of one's own, and folders


def test_settings_are_passed_on_and_have_their_own_folder(checkout):
    settings = ("OPTIM.MAX_EPOCH", "2", "TRAINER.CDC.M", "8")
    done = checkout.train("dtd", "1", *settings)
    assert done.called[-6:] == ["DATASET.SUBSAMPLE_CLASSES", "base", *settings][-6:]
    run = "dtd/shots_16/CDC/vit_b16+OPTIM.MAX_EPOCH=2,TRAINER.CDC.M=8/seed1"
    assert checkout.output_folder(done) == f"train_base/{run}"
    swapped = checkout.train("dtd", "1", *settings[2:], *settings[:2])
    assert checkout.output_folder(swapped) == f"train_base/{run}"

    assert refused(checkout.test("dtd", "1", *settings), "no trained model", run)
    checkout.add_model(run, epochs=(2,))
    done = checkout.test("dtd", "1", *settings)
    assert checkout.output_folder(done) == f"test_new/{run}"
    assert str(checkout.output / "train_base" / run) in done.called


def test_settings_that_no_folder_can_be_named_after(checkout):
    folders = set()
    for value in ("['a b', 'c']", "['a_b', 'c']", "/x/../y", "/x/___y", "x" * 300, "x" * 301):
        done = checkout.train("dtd", "1", "INPUT.TRANSFORMS", value)
        assert done.called[-1] == value
        (cfg,) = Path(checkout.output_folder(done)).parts[4:5]
        assert len(os.fsencode(cfg)) < 200
        assert Path(checkout.output_folder(done)).parts[5:] == ("seed1",)
        folders.add(cfg)
    assert len(folders) == 6


def test_tag_names_the_folder(checkout):
    settings = ("OPTIM.MAX_EPOCH", "2")
    done = checkout.train("dtd", "1", *settings, TAG="short")
    assert checkout.output_folder(done) == "train_base/dtd/shots_16/CDC/vit_b16+short/seed1"
    assert refused(checkout.train("dtd", "1", *settings, TAG="a/b"), "TAG", "'a/b'")


def test_empty_tag_takes_what_changes_no_result(checkout):
    """Other settings would be taken for finished, or resumed, in place of the config's own."""
    plain = ("DATALOADER.NUM_WORKERS", "0", "TRAINER.CDC.FEATURE_BANK_DIR", "/x", "TRAIN.PRINT_FREQ", "1")
    for settings in ((), plain):
        done = checkout.train("dtd", "1", *settings, TAG="")
        assert checkout.output_folder(done) == "train_base/dtd/shots_16/CDC/vit_b16/seed1"
    told = "TAG= would put a run with OPTIM.MAX_EPOCH, TRAINER.CDC.BETA into the folder of vit_b16 alone"
    other = ("OPTIM.MAX_EPOCH", "2", *plain, "TRAINER.CDC.BETA", "1")
    assert refused(checkout.train("dtd", "1", *other, TAG=""), told)
    folder = ("DATASET.FOLDER", "my_birds")  # that of other images would be taken for finished
    assert refused(checkout.train("dtd", "1", *folder, TAG=""), "TAG= would put a run with DATASET.FOLDER into")
    checkout.add_model()
    assert refused(checkout.test("dtd", "1", *other, TAG=""), told, "TRAINED=")
    done = checkout.test("dtd", "1", *other[:2], TRAINED="vit_b16")
    assert checkout.output_folder(done) == "test_new/dtd/shots_16/CDC/vit_b16+OPTIM.MAX_EPOCH=2/seed1"


def test_finished_training_is_not_run_again(checkout):
    folder = checkout.add_model()
    done = checkout.train("dtd", "1")
    assert (done.returncode, done.called) == (0, None)
    assert f"{folder}/results.json" in done.stdout
    (folder / "results.json").unlink()
    assert checkout.train("dtd", "1").called is not None


def test_finished_test_is_run_again_only_after_a_new_training(checkout):
    folder = checkout.add_model()
    assert checkout.test("dtd", "1", DO='mkdir -p "$2"; touch "$2/results.json"').called is not None
    done = checkout.test("dtd", "1")
    assert (done.returncode, done.called) == (0, None)
    assert "Finished already" in done.stdout

    results = checkout.output / "test_new/dtd/shots_16/CDC/vit_b16/seed1/results.json"
    os.utime(results, ns=(10**18, 10**18))
    os.utime(folder / "prompt_learner" / "model.pth.tar-5", ns=(10**18 + 10**9, 10**18 + 10**9))
    assert checkout.test("dtd", "1").called is not None


def test_zero_shot_is_not_run_again(checkout):
    done = checkout.run("zsclip/base2new_test.sh", "dtd", "1", DO='mkdir -p "$2"; touch "$2/results.json"')
    assert done.called is not None
    assert checkout.run("zsclip/base2new_test.sh", "dtd", "1").called is None


RESULTS = 'mkdir -p "$2"; echo "{\\"ece_calibrated\\": 1.0}" > "$2/results.json"'


def test_calibrated_test_takes_the_calibration_of_its_training(checkout):
    folder = checkout.add_model()
    assert refused(
        checkout.test("dtd", "1", CALIBRATED="1"),
        f"there is no calibration {folder}/calibration.json: run `python -m tools.calibrate {folder}` first",
    )
    (folder / "calibration.json").touch()
    for sub in ("new", "base"):
        done = checkout.test("dtd", "1", "TRAIN.PRINT_FREQ", "1", CALIBRATED="1", SUB=sub, TAG="")
        assert done.called[-6:-2] == [
            "DATASET.SUBSAMPLE_CLASSES",
            sub,
            "TEST.CALIBRATION",
            f"{folder}/calibration.json",
        ]
        assert checkout.output_folder(done) == f"test_{sub}/dtd/shots_16/CDC/vit_b16/seed1"
    assert "TEST.CALIBRATION" not in checkout.test("dtd", "1", CALIBRATED="").called
    assert refused(checkout.test("dtd", "1", "TEST.CALIBRATION", "x"), "set CALIBRATED=1 in place of TEST.CALIBRATION")


@pytest.mark.parametrize("script", ["base2new", "open_set"])
def test_test_with_other_settings_has_a_folder_of_its_own(checkout, script):
    """In that of a test with the training's settings it would be taken for finished, or in place of it."""
    folder = checkout.add_model()
    (folder / "calibration.json").touch()
    mended = ("TRAINER.CDC.FUSION", "averaging")

    def test(**given):
        return checkout.run(f"cdc/{script}_test.sh", "dtd", "1", *mended, FAR="", CALIBRATED="1", **given)

    assert refused(test(), "there is no trained model in")
    done = test(TRAINED="vit_b16")
    assert call_of(done, "--model-dir") == str(folder)
    assert call_of(done, "--output-dir").endswith("/vit_b16+TRAINER.CDC.FUSION=averaging/seed1")
    assert call_of(done, "TEST.CALIBRATION") == str(folder / "calibration.json")
    wrong = test(TRAINED="vit_b16+seed", TAG="mended")
    assert refused(wrong, f"there is no trained model in {str(folder).replace('vit_b16/', 'vit_b16+seed/')}: run")
    assert "FUSION" not in wrong.stderr.split("first")[0].split("run `")[1]
    for name in ("a/b", ""):
        assert refused(
            test(TRAINED=name),
            f"TRAINED must be the name of a training's folder, as vit_b16 or vit_b16+name, got '{name}'",
        )


def test_calibrated_test_is_run_again_where_results_have_no_calibration_or_an_older_one(checkout):
    folder = checkout.add_model()
    assert checkout.test("dtd", "1", DO='mkdir -p "$2"; touch "$2/results.json"').called is not None
    (folder / "calibration.json").touch()
    os.utime(folder / "calibration.json", (1, 1))
    assert checkout.test("dtd", "1", CALIBRATED="1", DO=RESULTS).called is not None
    assert checkout.test("dtd", "1", CALIBRATED="1").called is None
    assert checkout.test("dtd", "1").called is None  # which holds what it would hold
    os.utime(folder / "calibration.json", (2**40, 2**40))
    assert checkout.test("dtd", "1", CALIBRATED="1", ASK="1").returncode == 1
    assert checkout.test("dtd", "1", CALIBRATED="1").called is not None


def test_zero_shot_takes_the_calibration_of_its_base_classes(checkout):
    run = "dtd/shots_16/ZeroshotCLIP/vit_b16/seed1"
    (checkout.output / "test_base" / run).mkdir(parents=True)
    (checkout.output / "test_base" / run / "calibration.json").touch()
    done = checkout.run("zsclip/base2new_test.sh", "dtd", "1", CALIBRATED="1")
    assert done.called[-1] == f"{checkout.output}/test_base/{run}/calibration.json"
    source = checkout.root / "output/evaluation/ZeroshotCLIP/vit_b16_16shots/dtd/seed1"
    words = (f"there is no calibration {source}/calibration.json",)
    given = {"SOURCE": "dtd", "TRAINER": "ZeroshotCLIP", "CFG": "vit_b16", "CALIBRATED": "1"}
    assert refused(checkout.run("cdc/xd_test.sh", "digits", "1", **given), *words)


def test_other_epochs_have_their_own_folder(checkout):
    checkout.add_model(epochs=(3, 5))
    done = checkout.test("dtd", "1", LOADEP="3")
    assert done.called[done.called.index("--load-epoch") + 1] == "3"
    assert checkout.output_folder(done) == "test_new/dtd/shots_16/CDC/vit_b16+epoch3/seed1"
    done = checkout.test("dtd", "1", LOADEP="5", SUB="base")
    assert checkout.output_folder(done) == "test_base/dtd/shots_16/CDC/vit_b16/seed1"


# ---- failures


@pytest.mark.parametrize(
    "leaves", ["true", 'mkdir -p "$2"', 'mkdir -p "$2"; touch "$2/log.txt" "$2/log.txt-2030-01-01"']
)
def test_failed_run_leaves_no_folder(checkout, leaves):
    done = checkout.train("dtd", "1", DO=f"{leaves}; exit 7")
    assert done.returncode == 7
    assert not (checkout.root / "output").exists()


def test_failed_run_leaves_what_others_wrote(checkout):
    other = checkout.add_model("dtd/shots_16/CDC/vit_b16/seed2")
    assert checkout.train("dtd", "1", DO='mkdir -p "$2"; touch "$2/log.txt"; exit 1').returncode == 1
    assert [path.name for path in other.parent.iterdir()] == ["seed2"]


@pytest.mark.parametrize("file", ["prompt_learner/model.pth.tar-1", "results.json"])
def test_failed_run_keeps_more_than_a_log(checkout, file):
    done = checkout.train("dtd", "1", DO=f'mkdir -p "$2/prompt_learner"; touch "$2/log.txt" "$2/{file}"; exit 1')
    assert done.returncode == 1
    assert (checkout.output / "train_base/dtd/shots_16/CDC/vit_b16/seed1" / file).exists()


def test_failed_second_try_keeps_the_first_ones_folder(checkout):
    folder = checkout.output / "train_base/dtd/shots_16/CDC/vit_b16/seed1"
    folder.mkdir(parents=True)
    (folder / "log.txt").touch()
    assert checkout.train("dtd", "1", DO="exit 1").returncode == 1
    assert (folder / "log.txt").exists()


def test_failed_run_leaves_the_logs_of_another_one_that_has_begun_there(checkout):
    folder = checkout.output / "train_base/dtd/shots_16/CDC/vit_b16/seed1"
    live = ["process", os.getpid(), "", "there", "2030-01-01 00:00:00", "0"]
    done = checkout.train(
        "dtd", "1", DO=f'mkdir -p "$2"; touch "$2/log.txt"; echo \'{json.dumps(live)}\' > $2/.owner; exit 2'
    )
    assert done.returncode == 2
    assert sorted(path.name for path in folder.iterdir()) == [".owner", "log.txt"]


@pytest.mark.parametrize(
    ("number", "whole_group", "status"),
    [
        (signal.SIGTERM, False, 143),
        (signal.SIGHUP, False, 129),
        (signal.SIGINT, False, 130),
        (signal.SIGINT, True, 130),
    ],
    ids=["terminated", "hung up", "interrupted", "Ctrl-C in a terminal"],
)
@pytest.mark.parametrize("script", ["base2new_train", "fewshot", "base2new_all"])
def test_script_that_is_stopped_takes_its_python_along(checkout, script, number, whole_group, status):
    """And starts nothing more."""
    arguments = () if script == "base2new_all" else ("dtd", "1")
    do = 'mkdir -p "$2"; touch "$2/log.txt"; echo $$ > "$RECORD.new"; mv "$RECORD.new" "$RECORD.pid"; exec sleep 60'
    process = subprocess.Popen(
        ["bash", str(checkout.root / f"scripts/cdc/{script}.sh"), *arguments],
        env=checkout.environment(DO=do, DATASETS="dtd", SEEDS="1 2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a program ignores from the start, as SIGHUP under nohup, bash cannot trap.
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)],
    )
    record = checkout.record.with_name("record.pid")
    while not record.exists():
        assert process.poll() is None
        time.sleep(0.01)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == status, said
    assert said == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(record.read_text()), 0)
    assert len(checkout.record.with_suffix(".all").read_text().splitlines()) == 1
    assert not (checkout.root / "output").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        ((), {}, ("DATASET SEED", "digits, dtd")),
        (("dtd",), {}, ("DATASET SEED", "digits, dtd")),
        (("DTD", "1"), {}, ("configs/datasets/DTD.yaml", "there are digits, dtd")),
        (("dtd", "one"), {}, ("SEED", "'one'")),
        (("dtd", "-1"), {}, ("SEED", "'-1'")),
        (("dtd", "01"), {}, ("SEED", "'01'")),
        (("dtd", ""), {}, ("SEED", "''")),
        (("dtd", "1", "OPTIM.LR"), {}, ("pairs", "OPTIM.LR")),
        (("dtd", "1", "OPTIM.LR", "1", "OPTIM.LR", "2"), {}, ("OPTIM.LR is given twice",)),
        (("dtd", "1", "--resume", "x"), {}, ("'--resume' is not a config KEY",)),
        (("dtd", "1", "DATASET.NUM_SHOTS", "4"), {}, ("SHOTS=",)),
        (("dtd", "1", "DATASET.SUBSAMPLE_CLASSES", "all"), {}, ("protocol",)),
        (("dtd", "1", "SEED", "2"), {}, ("second argument",)),
        (("dtd", "1"), {"SHOTS": "0"}, ("SHOTS", "'0'")),
        (("dtd", "1"), {"SHOTS": "many"}, ("SHOTS", "'many'")),
        (("dtd", "1"), {"TRAINER": "CoOp"}, ("configs/trainers/CoOp", "there are CDC, ZeroshotCLIP")),
        (("dtd", "1"), {"CFG": "vit_l14"}, ("configs/trainers/CDC/vit_l14.yaml", "there are tiny, vit_b16")),
        (("dtd", "1"), {"DATA": "/no/such/folder"}, ("no data folder /no/such/folder", "DATA")),
        (("dtd", "1"), {"DATA": "/etc/passwd"}, ("DATA must be a folder, got /etc/passwd", "/etc/passwd is a file")),
        (("digits", "1"), {"DATA": "/etc/passwd/sets"}, ("DATA must be a folder", "/etc/passwd is a file")),
        (("dtd", "1"), {"OUTPUT": "/etc/passwd/runs"}, ("OUTPUT must be a folder", "/etc/passwd is a file")),
        (
            ("dtd", "1"),
            {"PYTHON": "/no/such/python"},
            ("no program /no/such/python", "(then it is ", ".venv/bin/python)"),
        ),
        (("dtd", "1"), {"PYTHON": "no-such-python"}, ("no program no-such-python", "leave it out")),
    ],
)
@pytest.mark.parametrize("script", ["cdc/base2new_train.sh", "cdc/base2new_test.sh", "cdc/open_set_test.sh"])
def test_wrong_call(checkout, script, arguments, environment, words):
    assert refused(checkout.run(script, *arguments, **environment), *words)
    assert not (checkout.root / "output").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_the_right_to_write(checkout, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    done = checkout.train("dtd", "1", OUTPUT=f"{locked}/runs")
    assert refused(done, f"OUTPUT must be a folder that can be written, got {locked}/runs", f"into {locked}")


def test_missing_python(checkout):
    shutil.rmtree(checkout.root / ".venv")
    tools = checkout.root / "tools"  # what the scripts call, and no Python
    tools.mkdir()
    for tool in ("bash", "dirname", "sort", "paste", "tr", "cksum", "cut", "find", "rm", "rmdir"):
        (tools / tool).symlink_to(shutil.which(tool))
    assert refused(
        checkout.train("dtd", "1", PATH=str(tools)), "no program python", f"{checkout.root}/.venv/bin/python"
    )


def test_generated_sets_need_no_data_folder(checkout):
    assert checkout.train("digits", "1", DATA=f"{checkout.root}/not/yet").called[3] == f"{checkout.root}/not/yet"


def test_missing_model(checkout):
    assert refused(checkout.test("dtd", "1"), "no trained model", "base2new_train.sh dtd 1`", "settings are none")
    assert not (checkout.root / "output").exists()
    checkout.add_model("digits/shots_16/CDC/tiny/seed1")
    checkout.add_model("dtd/shots_16/CDC/vit_b16/seed2")
    checkout.add_model("dtd/shots_16/CDC/vit_b16/seed3")
    assert refused(checkout.test("dtd", "1"), "settings are seed2, seed3", "trained at all digits, dtd")
    assert not (checkout.output / "test_new").exists()


def test_unfinished_training_is_tested_only_when_asked_to(checkout):
    folder = checkout.add_model(epochs=(1, 2), finished=False)
    assert refused(checkout.test("dtd", "1"), f"training in {folder} is not finished", "epoch 2", "epochs 1, 2")
    assert checkout.test("dtd", "1", LOADEP="2").returncode == 0


@pytest.mark.parametrize("epoch", ["4", "last", "*"])
def test_missing_epoch(checkout, epoch):
    checkout.add_model(epochs=(3, 5, 10))
    assert refused(checkout.test("dtd", "1", LOADEP=epoch), f"LOADEP={epoch}", "there are the epochs 3, 5, 10")


def test_wrong_classes(checkout):
    checkout.add_model()
    assert refused(checkout.test("dtd", "1", SUB="all"), "SUB must be new or base, got 'all'")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck():
    scripts = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "scripts").rglob("*.sh"))
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
