"""The public repositories themselves: the drop-in in CoOp and MaPLe, and their trainers on the embedded Dassl.

    COOP_CHECKOUT=... MAPLE_CHECKOUT=... DASSL_CHECKOUT=... pytest -m upstream tests/test_published.py

Nothing is written into the checkouts: tests work on copies. A line for each run goes to the file that the environment
variable COMPATIBILITY_ROWS names, if it is set; `python -m tools.compatibility` makes docs/compatibility.md of these.
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

import pytest
import torch

from helpers import ROOT, SIZE, checkout_of, results_of
from parity import newest_commit, note_row
from tools import dropin

sys.path.append(str(ROOT / "tests" / "golden"))
from make_maple import clip_state

pytestmark = pytest.mark.upstream

TRAINERS = {"CoOp": ("CoOp", "CoCoOp", "ZeroshotCLIP"), "MaPLe": ("MaPLe", "VPT", "IVLP", "CoOp", "ZeroshotCLIP")}
CONFIGS = {"ZeroshotCLIP": "CoOp"}  # a trainer without configs of its own
SMALL = ("INPUT.SIZE", f"({SIZE}, {SIZE})", "OPTIM.MAX_EPOCH", 2, "DATALOADER.NUM_WORKERS", 0, "TRAIN.PRINT_FREQ", 1)

# Python runs a module of this name on its start: it notes every batch as it comes and every loss, in full precision.
RECORDER = """
import json, os, torch
from torch.utils.data import DataLoader

path = os.environ["RECORD"]
batches, backward = DataLoader.__iter__, torch.Tensor.backward

def note(**content):
    with open(path, "a") as file:
        file.write(json.dumps(content) + "\\n")

def noted_batches(self):
    for batch in batches(self):
        images = [os.path.relpath(image, os.environ["RECORD_ROOT"]) for image in batch["impath"]]
        note(images=images, labels=batch["label"].tolist(), pixels=batch["img"].double().sum().item())
        yield batch

def noted_backward(self, *arguments, **options):
    note(loss=self.item())
    return backward(self, *arguments, **options)

DataLoader.__iter__, torch.Tensor.backward = noted_batches, noted_backward
if not torch.cuda.is_available():
    torch.Tensor.cuda = lambda self, *arguments, **options: self  # VPT calls it whatever the machine has
"""

# Upstream imports these for downloads and for data sets that none of the trainers uses; `compat` makes up for them.
UPSTREAM_NEEDS = ("gdown", "wilds", "pandas")


def published(name: str) -> Path:
    """The checkout in the environment variable of this name."""
    return Path(checkout_of(name))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A small CLIP with the widths that MaPLe's trainers have in their code, as a file."""
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(clip_state(), path)
    return path


class Lab:
    """A copy of a published checkout, with data, and a Dassl to run on.

    Args:
        folder: where to put it.
        name: CoOp or MaPLe.
        dassl: embedded or upstream.
        data, backbone: folder of the data sets, and CLIP's file.
    """

    def __init__(self, folder: Path, name: str, dassl: str, data: Path, backbone: Path):
        checkout = published(f"{name.upper()}_CHECKOUT")
        self.root, self.data, self.backbone = folder / name, folder / "data", backbone
        shutil.copytree(checkout, self.root, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        shutil.copytree(data, self.data)
        with (self.root / "clip" / "clip.py").open("a") as file:
            file.write(f"\n\ndef _download(url, root=''):\n    return {str(backbone)!r}\n")
        self.tools = folder / "startup"
        self.tools.mkdir()
        path = [self.tools]
        if dassl == "upstream":
            path.append(published("DASSL_CHECKOUT"))
        self.name, self.dassl, self.path = f"{name} ({newest_commit(checkout)})", dassl, path

    def run(self, command, **environment) -> str:
        """A command's output."""
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, self.path)),
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        done = subprocess.run(
            list(map(str, command)), cwd=self.root, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    def train(self, trainer: str) -> tuple[str, list[dict]]:
        """Train a published trainer by its own config: its log, and what was noted."""
        (self.tools / "sitecustomize.py").write_text(RECORDER)
        config = sorted((self.root / "configs/trainers" / CONFIGS.get(trainer, trainer)).glob("vit_b16*.yaml"))[0]
        command = [sys.executable, ROOT / "compat", "train.py", "--trainer", trainer, "--seed", 1, "--root", self.data]
        command += ["--dataset-config-file", "configs/datasets/dtd.yaml", "--config-file", config]
        command += ["--eval-only"] if trainer == "ZeroshotCLIP" else []
        command += ["--output-dir", "output/run", *SMALL, "DATASET.NUM_SHOTS", 4, "DATASET.SUBSAMPLE_CLASSES", "base"]
        notes = self.tools / "notes.jsonl"
        log = self.run(command, RECORD=str(notes), RECORD_ROOT=str(self.data))
        return log, [json.loads(line) for line in notes.read_text().splitlines()]

    def note(self, what: str, result: str) -> None:
        """Add a row to the compatibility page's."""
        note_row(what, self.name, self.dassl, result)


def figures(log: str) -> list[str]:
    """Losses and rates of every step, and the results, of a log; without times."""
    return re.findall(r"batch \[\d+/\d+\].*?(loss .*) eta", log) + re.findall(r"^\* \w+: .*$", log, re.MULTILINE)


@pytest.mark.parametrize(("name", "trainer"), [(name, trainer) for name in TRAINERS for trainer in TRAINERS[name]])
def test_published_trainers(name, trainer, tmp_path, data, backbone):
    """The same on the embedded Dassl, beside the drop-in, as on upstream's, without it."""
    embedded = Lab(tmp_path / "embedded", name, "embedded", data, backbone)
    upstream = Lab(tmp_path / "upstream", name, "upstream", data, backbone)
    dropin.change(embedded.root, remove=False, force=False, dry_run=False)
    log, noted = embedded.train(trainer)
    expected_log, expected = upstream.train(trainer)

    assert [note.get("images") for note in noted] == [note.get("images") for note in expected]
    assert [note.get("labels") for note in noted] == [note.get("labels") for note in expected]
    assert noted == expected  # pixels and losses to the last bit
    n_steps = sum("loss" in note for note in expected)
    assert n_steps == {"ZeroshotCLIP": 0, "CoCoOp": 16, "MaPLe": 4, "VPT": 4, "IVLP": 4, "CoOp": n_steps}[trainer]
    assert figures(log) == figures(expected_log)
    accuracy = re.search(r"^\* accuracy: .*$", expected_log, re.MULTILINE)[0]
    steps = f"{n_steps} batches and losses" if n_steps else "test batches"
    result = f"{steps} equal to the last bit; `{accuracy}`"
    embedded.note(f"its own `{trainer}`, unmodified, beside the drop-in, against upstream's Dassl", result)


@pytest.mark.parametrize("dassl", ["embedded", "upstream"])
@pytest.mark.parametrize("name", TRAINERS)
def test_drop_in(name, dassl, tmp_path, data, backbone):
    """CDC by its scripts, with the checkout's own train.py."""
    missing = [module for module in UPSTREAM_NEEDS if importlib.util.find_spec(module) is None]
    if dassl == "upstream" and missing:
        pytest.skip(f"an installed Dassl needs {', '.join(missing)}")
    lab = Lab(tmp_path, name, dassl, data, backbone)
    if dassl == "embedded":
        lab.path.append(ROOT / "compat")
    dropin.change(lab.root, remove=False, force=False, dry_run=False)
    given = ["dtd", 1, "MODEL.BACKBONE.NAME", backbone, *SMALL, "DATALOADER.TRAIN_X.BATCH_SIZE", 4]
    given += ["TRAINER.CDC.PREC", "fp32", "TRAINER.CDC.PROMPT_DEPTH", 2]
    environment = {"DATA": str(lab.data), "SHOTS": "4", "PYTHON": sys.executable, "TAG": "small"}
    log = lab.run(["bash", "scripts/cdc/base2new_train.sh", *given], **environment)
    assert len([line for line in figures(log) if line.startswith("loss")]) == 4  # two epochs of two batches
    assert re.search(r"\* total: 6\n\* correct: \d\n\* accuracy: \S+%\n\* error: \S+%\n\* macro_f1: \S+%\n", log)
    lab.run(["bash", "scripts/cdc/base2new_test.sh", *given], **environment)
    folder = lab.root / "output/base2new"
    base, new = (
        results_of(folder / part / "dtd/shots_4/CDC/vit_b16+small/seed1") for part in ("train_base", "test_new")
    )
    assert (base["epoch"], new["epoch"], base["classes"], new["classes"]) == (2, 2, "base", "new")
    loss = re.findall(r"loss (\S+) ", log)[0]
    lab.note("CDC, dropped in: `base2new_train.sh dtd 1`, `base2new_test.sh dtd 1`", f"runs; first loss {loss}")
