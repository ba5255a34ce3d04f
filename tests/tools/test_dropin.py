"""tools/dropin.py and `python -m compat`, on a checkout in CoOp's or MaPLe's shape that is written here.

Its `clip/` is the installed package without `pkg_resources`, which CoOp's and MaPLe's copies of it are too old to want;
in MaPLe's shape it has a `build_model` that takes `design_details`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import clip
import pytest
import torch

from helpers import ROOT, SIZE, results_of
from tools import dropin
from trainers import prompt_trainer
from trainers.modules import attention

TRAIN = '''"""The shape of CoOp's command line, as far as the scripts use it."""
import argparse

from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import set_random_seed, setup_logger

import datasets.dtd
import trainers.probe


def main():
    parser = argparse.ArgumentParser()
    for name in ("root", "output-dir", "config-file", "dataset-config-file", "trainer", "model-dir"):
        parser.add_argument("--" + name, default="")
    for name in ("seed", "load-epoch"):
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--eval-only", action="store_true")
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    cfg = get_cfg_default()
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    cfg.merge_from_file(args.dataset_config_file)
    cfg.merge_from_file(args.config_file)
    cfg.DATASET.ROOT, cfg.OUTPUT_DIR, cfg.TRAINER.NAME = args.root, args.output_dir, args.trainer
    if args.seed:
        cfg.SEED = args.seed
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR)
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    else:
        trainer.train()


if __name__ == "__main__":
    main()
'''

DATASET = '''"""Two classes to train on, two new ones, from folders of images."""
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum


@DATASET_REGISTRY.register()
class DescribableTextures(DatasetBase):
    def __init__(self, cfg):
        folders = sorted(Path(cfg.DATASET.ROOT, "dtd", "images").iterdir())
        folders = {"all": folders, "base": folders[:2], "new": folders[2:]}[cfg.DATASET.SUBSAMPLE_CLASSES]
        train, test = [], []
        for label, folder in enumerate(folders):
            items = [Datum(str(path), label, 0, folder.name) for path in sorted(folder.iterdir())]
            train += items[: cfg.DATASET.NUM_SHOTS]
            test += items[cfg.DATASET.NUM_SHOTS :]
        super().__init__(train_x=train, val=test, test=test)
'''

PROBE = '''"""The checkout's own trainer: a linear layer on the images' features."""
import torch
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer

from clip import model as clip_model


@TRAINER_REGISTRY.register()
class Probe(TrainerX):
    def build_model(self):
        state = torch.load(self.cfg.MODEL.BACKBONE.NAME, map_location="cpu", weights_only=True)
        self.visual = clip_model.build_model(state, *getattr(clip_model, "PLAIN", ())).visual.float()
        self.model = torch.nn.Linear(self.visual.output_dim, self.num_classes)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("probe", self.model, self.optim, self.sched)

    def forward_backward(self, batch):
        loss = torch.nn.functional.cross_entropy(self.model_inference(batch["img"]), batch["label"])
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}

    def model_inference(self, images):
        with torch.no_grad():
            features = self.visual(images)
        return self.model(features)
'''

# What is asked of MaPLe's package: it takes design_details, needs each of these keys, and for its own trainer makes
# blocks that pass lists.
LISTS = """

_build_plain = build_model
PLAIN = ({"trainer": "CoOp", "vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0},)


class _ListBlock(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, inputs):
        return [self.block(inputs[0]), *inputs[1:]]


def build_model(state_dict, design_details):
    depths = [design_details[key] for key in ("vision_depth", "language_depth", "vision_ctx", "language_ctx")]
    model = _build_plain(state_dict)
    if design_details["trainer"] != "CoOp" or any(depths):
        for transformer in (model.transformer, model.visual.transformer):
            transformer.resblocks = nn.Sequential(*map(_ListBlock, transformer.resblocks))
    return model
"""

CONFIG = """DATALOADER:
  TRAIN_X:
    BATCH_SIZE: 4
OPTIM:
  LR: 0.01
  MAX_EPOCH: 2
  WARMUP_EPOCH: 1
  WARMUP_TYPE: "constant"
  WARMUP_CONS_LR: 1e-5
TRAIN:
  PRINT_FREQ: 1
"""


PKG_RESOURCES = "from pkg_resources import packaging"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def write_checkout(folder: Path, lists: bool) -> Path:
    """A checkout under git, in CoOp's shape or, with `lists`, in MaPLe's."""
    files = {
        "train.py": TRAIN,
        "datasets/__init__.py": "",
        "datasets/dtd.py": DATASET,
        "trainers/__init__.py": "",
        "trainers/probe.py": PROBE,
        "configs/datasets/dtd.yaml": 'DATASET:\n  NAME: "DescribableTextures"\n',
        "configs/trainers/Probe/vit_b16.yaml": CONFIG,
        ".gitignore": "__pycache__/\noutput/\n",
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    installed = Path(clip.__file__).parent
    shutil.copytree(installed, folder / "clip", ignore=shutil.ignore_patterns("__pycache__"))
    replace(folder / "clip" / "clip.py", PKG_RESOURCES, "import packaging.version")
    if lists:
        model = folder / "clip" / "model.py"
        model.write_text(model.read_text() + LISTS)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "--message=x")
    return folder


def git(folder, *arguments) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def lab(tmp_path):
    """A checkout to put files into, which nothing runs in."""
    return write_checkout(tmp_path / "lab", lists=False)


def contents(folder) -> dict[str, bytes]:
    """Every file of a checkout but git's own and compiled ones."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not {".git", "__pycache__"} & set(path.parts)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def call(*arguments) -> int:
    """tools/dropin.py's exit status."""
    try:
        dropin.main([str(x) for x in arguments])
    except SystemExit as end:
        return end.code
    return 0


# ----------------------------------------------------------------------------------------------- putting in, taking out


def test_one_line_of_diff_and_back(lab, capsys):
    before = contents(lab)
    assert call(lab, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert contents(lab) == before
    assert call(lab) == 0
    assert capsys.readouterr().out == shown
    added = set(contents(lab)) - set(before)
    assert {f"copy      {path}" for path in added - {".cdc_dropin/manifest.json"}} == set(shown.splitlines()[:-1])
    wanted = {"trainers/cdc.py", "trainers/base.py", "trainers/modules/text.py", "configs/trainers/CDC/vit_b16.yaml"}
    assert wanted | {"scripts/cdc/common.sh", "scripts/cdc/base2new_train.sh"} <= added
    changes = [line for line in git(lab, "diff", "--unified=0").splitlines() if re.match(r"[+-][^+-]", line)]
    assert changes == ["+import trainers.cdc"]
    assert "import trainers.probe\nimport trainers.cdc\n" in (lab / "train.py").read_text()

    once = contents(lab)
    assert call(lab) == 0
    assert capsys.readouterr().out == f"nothing to do: {lab} is up to date\n"
    assert contents(lab) == once

    assert call(lab, "--remove", "--dry-run") == 0
    assert contents(lab) == once
    assert call(lab, "--remove") == 0
    assert contents(lab) == before
    assert git(lab, "status", "--short") == ""
    assert not (lab / "trainers/modules").exists()
    assert not (lab / "storage").exists()
    assert not (lab / "scripts").exists()
    assert call(lab, "--remove") == 0
    assert "holds nothing of this project" in capsys.readouterr().out


def test_what_is_copied_is_enough():
    """Everything that the copied files import of this project is copied, too."""
    copied = {path for path in dropin.sources() if path.endswith(".py")}
    for path in copied:
        found = re.findall(r"^from (\.+)([\w.]*) import ([\w, ]+)", (ROOT / path).read_text(), flags=re.MULTILINE)
        for dots, module, names in found:
            imported = Path(path).parents[len(dots) - 1] / module.replace(".", "/")
            if (ROOT / imported).is_dir():  # of which a module is imported
                assert {f"{imported}/{name.strip()}.py" for name in names.split(",")} <= copied, (path, module)
            else:
                assert f"{imported}.py" in copied, (path, module)
        assert not re.search(r"(?m)^(from|import) (compat|tools|trainers|datasets)\b", (ROOT / path).read_text())
        neutral = re.findall(r"^from storage\.(\w+) import", (ROOT / path).read_text(), flags=re.MULTILINE)
        assert {f"storage/{name}.py" for name in neutral} <= copied, path


def test_changed_file_is_kept(lab, capsys):
    call(lab)
    changed = lab / "trainers/cdc.py"
    changed.write_text(changed.read_text() + "# ours\n")
    before = contents(lab)
    for options in ((), ("--remove",), ("--dry-run",)):
        assert call(lab, *options) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "trainers/cdc.py was changed" in error
        assert "--force" in error
        assert contents(lab) == before
    assert call(lab, "--force") == 0
    assert changed.read_text() == (ROOT / "trainers/cdc.py").read_text()
    changed.write_text("")
    assert call(lab, "--remove", "--force") == 0
    assert git(lab, "status", "--short") == ""


def test_file_of_the_same_name_is_kept_and_comes_back(lab, capsys):
    (lab / "trainers/base.py").write_text("theirs\n")
    (lab / "trainers/modules").mkdir()
    (lab / "trainers/modules/extra.py").write_text("theirs\n")
    before = contents(lab)
    assert call(lab) == 2
    assert "trainers/base.py is not of this project" in capsys.readouterr().err
    assert contents(lab) == before
    assert call(lab, "--force") == 0
    assert call(lab, "--force") == 0
    assert (lab / "trainers/base.py").read_text() != "theirs\n"
    assert call(lab, "--remove") == 0
    assert contents(lab) == before


def test_newer_files_take_the_place_of_older_ones(lab, capsys, monkeypatch, tmp_path):
    """A newer version of this project brings its files, and takes away those that it no longer has."""
    newer = tmp_path / "project"
    for path in dropin.sources():
        (newer / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, newer / path)
    call(lab)
    newer_code = (newer / "trainers/cdc.py").read_text() + "newer = True\n"
    (newer / "trainers/cdc.py").write_text(newer_code)
    (newer / "trainers/modules/losses.py").unlink()
    monkeypatch.setattr(dropin, "ROOT", newer)
    capsys.readouterr()
    assert call(lab) == 0
    assert capsys.readouterr().out == "update    trainers/cdc.py\ndelete    trainers/modules/losses.py\n"
    assert (lab / "trainers/cdc.py").read_text() == newer_code
    assert not (lab / "trainers/modules/losses.py").exists()
    assert call(lab, "--remove") == 0
    assert git(lab, "status", "--short") == ""


def test_a_cut_call_can_be_repeated_or_undone(lab, monkeypatch):
    def cut(*arguments):
        raise OSError("the disk is full")

    for repeat in (("--remove",), ()):
        with monkeypatch.context() as patch:
            patch.setattr(dropin.shutil, "copymode", cut)
            assert call(lab) == 2
        assert "trainers.cdc" not in (lab / "train.py").read_text()
        assert call(lab, *repeat) == 0
        assert (git(lab, "status", "--short") == "") == bool(repeat)
    call(lab, "--remove")
    assert git(lab, "status", "--short") == ""


def test_lines_of_train_py(lab):
    """The line keeps the file's line ends, and an import that stood there before stays."""
    train = lab / "train.py"
    text = train.read_bytes().replace(b"\n", b"\r\n")
    train.write_bytes(text)
    call(lab)
    assert train.read_bytes() == text.replace(b"trainers.probe\r\n", b"trainers.probe\r\nimport trainers.cdc\r\n")
    call(lab, "--remove")
    assert train.read_bytes() == text

    train.write_text("from trainers import (\n    cdc,\n    probe,\n)\n")
    assert call(lab) == 0
    assert train.read_text().count("cdc") == 1
    assert call(lab, "--remove") == 2  # train.py would import what is gone
    assert (lab / "trainers/cdc.py").exists()
    train.write_text("import trainers.probe")
    assert call(lab) == 0
    assert train.read_text() == "import trainers.probe\nimport trainers.cdc\n"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lab: shutil.rmtree(lab), "there is no folder"),
        (lambda lab: (lab / "train.py").unlink(), "has no train.py"),
        (lambda lab: (lab / "train.py").write_text("import datasets\n"), "imports no trainers"),
        (lambda lab: (lab / "train.py").write_text("import (\n"), "cannot be read as Python"),
    ],
)
def test_no_checkout(lab, capsys, spoil, words):
    spoil(lab)
    assert call(lab) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (lab / "trainers/cdc.py").exists()


DIGEST = "0" * 64


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"../../victim/trainers/x.py": [DIGEST]}},
        {"files": {"trainers/../../victim/trainers/x.py": [DIGEST]}},
        {"files": {"{victim}/trainers/x.py": [DIGEST]}},
        {"files": {"datasets/dtd.py": [DIGEST]}},
        {"files": {"README.md": [DIGEST]}},
        {"files": {"trainers/a/x.py": [DIGEST]}},
        {"files": {"trainers/x\n.py": [DIGEST]}},
        {"files": {"trainers/.x.py": [DIGEST]}},
        {"files": {"trainers/x.py": []}},
        {"files": {"trainers/x.py": ["short"]}},
        {"files": {"trainers/x.py": DIGEST}},
        {"files": ["trainers/x.py"]},
        {"folders": ["../victim"]},
        {"folders": ["{victim}"]},
        {"folders": ["."]},
        {"folders": ["datasets"]},
        {"folders": [7]},
        {"folders": "scripts"},
        {"line": 1},
        {"more": []},
    ],
)
@pytest.mark.parametrize("options", [(), ("--remove",), ("--force",), ("--remove", "--force")])
def test_manifest_that_is_not_ours_is_refused(lab, tmp_path, capsys, changes, options):
    victim = tmp_path / "victim"
    (victim / "trainers").mkdir(parents=True)
    (victim / "trainers/x.py").touch()
    (victim / "empty").mkdir()
    text = json.dumps({"files": {}, "folders": [], "line": False, **changes}).replace("{victim}", str(victim))
    (lab / ".cdc_dropin").mkdir()
    (lab / dropin.MANIFEST).write_text(text)
    before = contents(tmp_path)
    assert call(lab, *options) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"dropin\.py: .*manifest\.json is not what this program wrote: .*\n", error)
    assert contents(tmp_path) == before
    assert (victim / "empty").is_dir()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "", "[]", "\xff", " " * dropin.MANIFEST_BYTES + "{}"],
    ids=["deep", "", "list", "ff", "big"],
)
def test_manifest_that_cannot_be_read_is_one_line(lab, capsys, text):
    (lab / ".cdc_dropin").mkdir()
    (lab / dropin.MANIFEST).write_text(text, encoding="latin-1")
    assert call(lab) == 2
    assert re.fullmatch(r"dropin\.py: .*is not what this program wrote: .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    "name",
    [
        *("trainers", "configs", "configs/trainers", "scripts", "trainers/modules", "train.py", "trainers/cdc.py"),
        *(".cdc_dropin", ".cdc_dropin/manifest.json", ".cdc_dropin/replaced", "scripts/cdc/common.sh"),
    ],
)
@pytest.mark.parametrize("installed", [False, True])
def test_links_that_lead_outside_are_not_followed(lab, tmp_path, capsys, name, installed):
    if installed:
        call(lab)
    outside, link = tmp_path / "outside", lab / name
    if link.exists():
        link.rename(outside)
    else:
        outside.mkdir()
        link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    capsys.readouterr()
    before = contents(tmp_path)
    for options in ((), ("--force",), ("--remove",), ("--remove", "--force"), ("--dry-run",)):
        assert call(lab, *options) == 2
        assert re.fullmatch(r"dropin\.py: links lead out of .*\n", capsys.readouterr().err)
        assert contents(tmp_path) == before


def test_links_in_a_checkout_and_to_it_are_followed(lab, tmp_path):
    (lab / "trainers").rename(lab / "methods")
    (lab / "trainers").symlink_to("methods")
    (tmp_path / "link").symlink_to(lab)
    assert call(tmp_path / "link") == 0
    assert (lab / "methods/cdc.py").is_file()
    assert call(tmp_path / "link", "--remove") == 0
    assert not (lab / "methods/cdc.py").exists()


def test_compiled_files_outside_are_left(lab, tmp_path):
    call(lab)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/cdc.cpython-39.pyc").touch()
    (lab / "trainers/__pycache__").symlink_to(tmp_path / "outside")
    assert call(lab, "--remove") == 0
    assert (tmp_path / "outside/cdc.cpython-39.pyc").exists()


def test_link_to_itself_is_one_line(lab, capsys):
    (lab / "scripts").symlink_to("scripts")
    assert call(lab) == 2
    assert capsys.readouterr().err.count("\n") == 1


ADMISSIONS = {
    "trainers/config.py": (
        'def settings(trainer):\n    assert trainer in ["Probe", "Own"], "one of them"\n    return trainer\n',
        "from trainers.config import settings",
        2,
    ),
    "train.py": (
        "",
        'NAMES = ("Probe", "Own")\ndef admit(cfg):\n    if cfg.TRAINER.NAME not in NAMES:\n        raise ValueError\n',
        12,
    ),
    "trainers/own.py": (
        'def add(parser):\n    parser.add_argument("--trainer", choices=["Probe", "Own"])\n',
        "import trainers.own",
        2,
    ),
}


@pytest.mark.parametrize("place", ADMISSIONS)
def test_checkout_that_admits_its_own_trainers_alone(lab, capsys, place):
    """As MMRL's does: the run would fail after the drop-in has said that all is well."""
    content, added, line = ADMISSIONS[place]
    if content:
        (lab / place).write_text(content)
    replace(lab / "train.py", "import trainers.probe\n", f"import trainers.probe\n{added}\n")
    before = (lab / "train.py").read_bytes()
    with pytest.raises(SystemExit):
        dropin.main([str(lab)])
    told = capsys.readouterr().err
    assert re.search(
        rf"nothing was changed .*{place} admits the trainers Probe, Own alone \(line {line}\) and stops", told
    )
    assert (lab / "train.py").read_bytes() == before
    assert not (lab / "trainers/cdc.py").exists()
    replace(lab / place, '"Probe", "Own"', '"Probe", "CDC"')
    dropin.main([str(lab)])
    dropin.main([str(lab), "--remove"])


def test_other_questions_about_names_admit_every_trainer(lab):
    code = (
        'def check(cfg, trainer, kind):\n    assert cfg.TRAINER.OWN.PREC in ["fp16"]\n    assert kind in ["a"]\n'
        '    if trainer not in ["Own"]:\n        kind = "b"\n    if trainer in ["Own"]:\n        raise ValueError\n'
    )
    replace(lab / "train.py", "import trainers.probe\n", f"import trainers.probe\n\n{code}")
    assert dropin.admission_problems(lab) == []


def test_not_into_itself(capsys):
    assert call(ROOT) == 2
    assert "is this project" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- running there


def run(command, folder, **environment):
    """The command's output, in a checkout, with the embedded Dassl where it looks for one."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "compat"), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env={**env, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def steps(log: str) -> list[str]:
    """Losses and rates of every batch, and the results, of a log; without times."""
    batches = re.findall(r"batch \[\d+/\d+\].*?(loss .*) eta", log)
    return batches + re.findall(r"^\* \w+: .*$", log, re.MULTILINE)


def settings(clip_files) -> list:
    return [
        *("MODEL.BACKBONE.NAME", clip_files["plain"], "INPUT.SIZE", f"({SIZE}, {SIZE})"),
        *("DATALOADER.NUM_WORKERS", 0, "OPTIM.MAX_EPOCH", 2, "TRAIN.PRINT_FREQ", 1),
    ]


def run_script(lab, name, data, clip_files) -> list[str]:
    """The lines of a script's log; the test finds the training by its TAG."""
    given = ["dtd", 1, *settings(clip_files), "TRAINER.CDC.PREC", "fp32", "DATALOADER.TRAIN_X.BATCH_SIZE", 4]
    given += ["TRAINER.CDC.PROMPT_DEPTH", 2]
    environment = {"DATA": str(data), "SHOTS": "4", "PYTHON": sys.executable, "TAG": "small"}
    return steps(run(["bash", f"scripts/cdc/{name}", *given], lab, **environment))


def check_log(lines: list[str]) -> None:
    """Four batches, the evaluator's five lines of results, and how far CDC's scores can be trusted."""
    assert [line.split()[0] for line in lines[:4]] == ["loss"] * 4
    assert "loss_tce" in lines[0]
    names = [line.split(":")[0].removeprefix("* ") for line in lines[4:]]
    assert names[:5] == ["total", "correct", "accuracy", "error", "macro_f1"]
    assert {"ece", "nll", "aurc_confidence", "aurc_uncertainty"} <= set(names[5:])


def test_own_file_of_that_name_comes_back_with_its_import(lab):
    own = "import trainers.cdc\n"
    train = lab / "train.py"
    train.write_text(train.read_text().replace("import trainers.probe\n", f"import trainers.probe\n{own}"))
    before = train.read_text()
    assert own in before
    (lab / "trainers/cdc.py").write_text("# the lab's\n")
    assert call(lab, "--force") == 0
    assert train.read_text() == before
    assert call(lab, "--remove") == 0
    assert train.read_text() == before
    assert (lab / "trainers/cdc.py").read_text() == "# the lab's\n"


def test_cdc_runs_and_the_own_trainer_as_before(lab, data, clip_files):
    own = ["train.py", "--trainer", "Probe", "--root", data, "--seed", 1]
    own += [
        "--dataset-config-file",
        "configs/datasets/dtd.yaml",
        "--config-file",
        "configs/trainers/Probe/vit_b16.yaml",
    ]
    own += ["DATASET.NUM_SHOTS", 4, *settings(clip_files), "OUTPUT_DIR"]
    before = steps(run([sys.executable, *own, "output/before"], lab))
    assert len(before) == 13  # two epochs of four batches, and five lines of results

    assert call(lab) == 0
    check_log(run_script(lab, "base2new_train.sh", data, clip_files))
    run_script(lab, "base2new_test.sh", data, clip_files)
    results = results_of(lab / "output/base2new/test_new/dtd/shots_4/CDC/vit_b16+small/seed1")
    assert (results["classes"], results["class_names"], results["epoch"]) == ("new", ["red", "yellow"], 2)

    # On this project's folder in place of an installed Dassl, and with CDC there, the same numbers.
    assert steps(run([sys.executable, ROOT / "compat", *own, "output/after"], lab, PYTHONPATH="")) == before


def test_cdc_runs_with_maples_clip(tmp_path, data, clip_files):
    lab = write_checkout(tmp_path / "lab", lists=True)
    assert call(lab) == 0
    check_log(run_script(lab, "base2new_train.sh", data, clip_files))


def test_python_m_compat(tmp_path):
    """The script's own modules are found, none of this project's, and arguments are passed on."""
    script = tmp_path / "elsewhere" / "train.py"
    (script.parent / "datasets").mkdir(parents=True)  # with no __init__.py this is behind any package of that name
    (script.parent / "datasets" / "own.py").write_text("NAME = 'own'\n")
    lines = ["import importlib.util, sys, datasets.own", "print(datasets.own.NAME, sys.argv, __name__)"]
    script.write_text("\n".join([*lines, "print(importlib.util.find_spec('dassl').origin)"]))
    expected = f"own ['{script}', '--x', '1'] __main__\n{ROOT / 'compat/dassl/__init__.py'}\n"
    assert run([sys.executable, "-m", "compat", script, "--x", 1], ROOT, PYTHONPATH="") == expected
    assert run([sys.executable, ROOT / "compat", script, "--x", 1], tmp_path, PYTHONPATH="") == expected

    for arguments, words in (([], "call it as"), (["nothing.py"], "there is no file nothing.py")):
        command = [sys.executable, ROOT / "compat", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_python_m_compat_with_any_setuptools(tmp_path):
    """A script's own clip that wants pkg_resources is imported without it. Other errors are left to the script."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/__init__.py").write_text("from .clip import *\n")
    own = tmp_path / "clip/clip.py"
    own.write_text(f"{PKG_RESOURCES}\nVERSION = packaging.version.parse('1.7.1')\n")
    script = tmp_path / "train.py"
    lines = ["import clip, importlib.util", "print(clip.VERSION, importlib.util.find_spec('pkg_resources') is None)"]
    script.write_text("\n".join(lines))
    printed = run([sys.executable, ROOT / "compat", script], tmp_path, PYTHONPATH="")
    assert printed == f"1.7.1 {importlib.util.find_spec('pkg_resources') is None}\n"

    own.write_text("import missing_package\n")
    command = [sys.executable, ROOT / "compat", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "No module named 'missing_package'" in done.stderr
    assert f'{script}", line 1' in done.stderr


# --------------------------------------------------------------------------------------------- old and new environments


@pytest.mark.skipif(
    attention.attention is attention.plain_attention, reason="PyTorch has none of its own to compare with"
)
@pytest.mark.parametrize("kind", ["causal", "masked", "whole"])
def test_attention_of_old_pytorch(kind):
    q, k, v = torch.randn(3, 2, 2, 5, 8).double()
    mask = torch.ones(5, 5, dtype=torch.bool).tril(1) if kind == "masked" else None
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=kind == "causal")
    torch.testing.assert_close(attention.plain_attention(q, k, v, mask, is_causal=kind == "causal"), expected)


def test_schedulers_of_old_dassl():
    """A scheduler that hands on `verbose` can be built, and PyTorch's class is as it was."""
    parent = torch.optim.lr_scheduler._LRScheduler

    class Warmup(parent):
        def __init__(self, optimizer):
            super().__init__(optimizer, -1, False)

        def get_lr(self):
            return [0.5]

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    before = parent.__init__
    with prompt_trainer.schedulers_taking_verbose():
        assert Warmup(optimizer).get_last_lr() == [0.5]
    assert parent.__init__ is before
