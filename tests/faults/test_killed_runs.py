"""Training runs that are killed, met by others, or out of room: none is lost, and none ends with other numbers.

A run is right at its end if its figures, predictions and parameters are those of a run that nothing befell, bit by bit,
and nothing half-written and no owner's file is left, neither beside the run nor in the data.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.forks import Forks
from PIL import Image

from helpers import results_of

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux")

SETTINGS = {
    "INPUT.SIZE": (32, 32),
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 4,
    "DATASET.NUM_SHOTS": 2,
    "OPTIM.MAX_EPOCH": 2,
    "TRAIN.CHECKPOINT_FREQ": 1,
}
# By what it is: trainer, config, further settings, and the checkpoint that is tested
RUNS = {
    "CDC with a feature bank": ("CDC", "tiny_text", {"TRAINER.CDC.FEATURE_BANK": 1}, "model.pth.tar-2"),
    "CoOp with a choice of the best epoch": ("CoOp", "tiny", {"TEST.FINAL_MODEL": "best_val"}, "model-best.pth.tar"),
}
USUAL = next(iter(RUNS))
# Where the disk is full: a folder of a trial, and what it is of
PLACES = {"out": "output", "data/dtd/split_fewshot": "few-shot lists", "data/feature_bank": "feature bank"}


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    asked = Forks(tmp_path_factory.mktemp("forks") / "log")
    yield asked
    asked.close()


class Trial:
    """One run with data of its own.

    Attributes:
        data, output: its folders.
        log: what its processes print.
    """

    def __init__(self, forks, folder, clip_file, kind=USUAL):
        self.forks, self.clip_file, self.kind = forks, clip_file, kind
        self.data, self.output, self.log = folder / "data", folder / "out", folder / "printed"
        for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
            images = self.data / "dtd/images" / name
            images.mkdir(parents=True)
            for n in range(8):
                Image.new("RGB", (32, 32), tuple(min(255, part + 5 * n) for part in colour)).save(images / f"{n}.png")

    @property
    def run(self):
        return self.output / "run"

    def start(self, **options):
        """Start the run; always the same command."""
        trainer, config, settings, _ = RUNS[self.kind]
        arguments = ["--root", self.data, "--output-dir", self.run, "--backbone", self.clip_file, "--seed", 1]
        arguments += ["--trainer", trainer, "--config-file", f"configs/trainers/{trainer}/{config}.yaml"]
        arguments += ["--dataset-config-file", "configs/datasets/dtd.yaml"]
        arguments += [part for pair in {**SETTINGS, **settings}.items() for part in pair]
        self.log.touch()
        return self.forks.start("train.py", *arguments, log=self.log, **options)

    def to_the_end(self, **options):
        """Start the run and wait for its end."""
        return self.forks.wait(self.start(**options))

    def below(self):
        """Where steps to the disk count."""
        return self.data, self.output

    def outcome(self):
        """What must be the same: figures, predictions and parameters."""
        results = results_of(self.run)
        with np.load(self.run / "predictions.npz") as file:
            predictions = {name: file[name].tobytes() for name in file.files}
        checkpoint = torch.load(self.run / "prompt_learner" / RUNS[self.kind][3], weights_only=True)
        parameters = {name: value.numpy().tobytes() for name, value in checkpoint["state_dict"].items()}
        pointer = (self.run / "prompt_learner/checkpoint").read_text()
        return results["figures"], results["epoch"], predictions, parameters, pointer

    def left(self):
        """What should not be left."""
        found = [*self.output.rglob(".*"), *self.data.rglob(".*")]
        return [str(path) for path in found if path.name.endswith(".part") or path.name.startswith(".owner")]

    def check(self, expected):
        """The run is right, and nothing that was printed on the way is a traceback."""
        assert "Traceback" not in self.log.read_text(errors="replace")
        assert self.outcome() == expected
        assert self.left() == []


@pytest.fixture(scope="module")
def reference(forks, clip_files, tmp_path_factory):
    """Gives, of each kind of run, the outcome of one that nothing befalls, and how many steps to the disk it takes."""
    known = {}

    def of(kind=USUAL):
        if kind not in known:
            trial = Trial(forks, tmp_path_factory.mktemp("reference"), clip_files["plain"], kind)
            assert trial.to_the_end(below=trial.below()) == 0, trial.log.read_text()
            outcome = trial.outcome()
            trial.check(outcome)
            known[kind] = outcome, int(Path(f"{trial.log}.steps").read_text())
        return known[kind]

    return of


@pytest.fixture
def new_trial(forks, clip_files, tmp_path):
    """Makes trials; what an earlier one wrote goes."""

    def make(kind=USUAL):
        shutil.rmtree(tmp_path / "trial", ignore_errors=True)
        (tmp_path / "trial").mkdir()
        return Trial(forks, tmp_path / "trial", clip_files["plain"], kind)

    return make


@pytest.mark.parametrize("kind", RUNS)
def test_killed_at_a_step_to_the_disk(kind, new_trial, reference, tally, full, in_time):
    """Files opened for writing, fsyncs, links, renames and removals, each once or some of them."""
    if not full and kind != USUAL:
        pytest.skip("in the full campaign")
    expected, n_steps = reference(kind)
    assert n_steps > 50
    tally["steps"][f"{kind}, all"] = n_steps
    for number in in_time(random.Random(7).sample(range(1, n_steps + 1), n_steps if full else 2)):
        trial = new_trial(kind)
        assert trial.to_the_end(below=trial.below(), kill_at=number) == -signal.SIGKILL, number
        assert trial.to_the_end() == 0, (number, trial.log.read_text())
        trial.check(expected)
        tally["steps"][kind] += 1


def test_killed_at_two_steps(new_trial, reference, tally, full, in_time):
    """The second one in the run that goes on from the first, which may take less steps."""
    expected, n_steps = reference()
    chance = random.Random(17)
    for _ in in_time(range(50 if full else 1)):
        trial = new_trial()
        numbers = [chance.randint(1, n_steps) for _ in range(2)]
        assert trial.to_the_end(below=trial.below(), kill_at=numbers[0]) == -signal.SIGKILL, numbers
        assert trial.to_the_end(below=trial.below(), kill_at=numbers[1]) in (-signal.SIGKILL, 0), numbers
        assert trial.to_the_end() == 0, (numbers, trial.log.read_text())
        trial.check(expected)
        tally["two steps"]["runs"] += 1


def test_killed_at_random_times(new_trial, reference, tally, full, in_time):
    """By signals that can be handled and one that cannot, several times, as the same command is given again."""
    expected, _ = reference()
    chance = random.Random(11)
    for _ in in_time(range(50 if full else 1)):
        trial = new_trial()
        started = time.monotonic()
        for _ in range(chance.randint(1, 5 if full else 2)):
            number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
            process = trial.start()
            time.sleep(chance.uniform(0, 2.0))
            os.kill(process, number)
            assert trial.forks.wait(process) in (0, -number, 1 if number == signal.SIGINT else 0)
            tally["signals"][signal.Signals(number).name] += 1
        assert trial.to_the_end() == 0, trial.log.read_text()
        trial.check(expected)
        tally["signals"]["runs"] += 1
        assert time.monotonic() - started < 300


def test_two_owners(new_trial, reference, tally, full, in_time):
    """The same command twice; sometimes the first is killed as the second comes."""
    expected, _ = reference()
    chance = random.Random(13)
    for number in in_time(range(50 if full else 1)):
        trial = new_trial()
        first = trial.start()
        time.sleep(chance.uniform(0, 1.5) if full else 0)
        second = trial.start()
        killed = full and number % 3 == 2
        if killed:
            time.sleep(chance.uniform(0, 0.5))
            os.kill(first, signal.SIGKILL)
        statuses = [trial.forks.wait(first), trial.forks.wait(second)]
        if not killed:
            assert 0 in statuses
            assert set(statuses) <= {0, 2}, trial.log.read_text()
            assert statuses.count(2) == trial.log.read_text().count(" is in use by process ")
            tally["owners"]["refused"] += statuses.count(2)
        if 0 not in statuses:
            assert trial.to_the_end() == 0, trial.log.read_text()
        trial.check(expected)
        tally["owners"]["runs"] += 1
        tally["owners"]["killed"] += killed


@pytest.fixture
def mount(tmp_path):
    """Mounts a small file system on a folder, or gives one that is there another size; where that is allowed."""
    mounted = set()

    def at(folder, kilobytes):
        folder.mkdir(parents=True, exist_ok=True)
        options = f"{'remount,' if os.path.ismount(folder) else ''}size={kilobytes}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"nothing may be mounted here: {done.stderr.strip()}")
        mounted.add(folder)

    yield at
    for folder in filter(os.path.ismount, mounted):
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(not shutil.which("mount"), reason="needs mount")
@pytest.mark.parametrize("place", PLACES)
def test_full_disk(new_trial, reference, tally, full, in_time, mount, place, tmp_path):
    """It is told in one line that names the place; with more room the same command ends as it should."""
    if not full and place != "out":
        pytest.skip("in the full campaign")
    expected, _ = reference()
    full_before = 0
    for kilobytes in in_time([24, 4, 8, 16, 32, 64, 12, 40, 96, 48, 56, 80] if full else [24]):
        trial = new_trial()
        folder = tmp_path / "trial" / place
        mount(folder, kilobytes)
        status = trial.to_the_end()
        said = trial.log.read_text(errors="replace")
        if status:
            full_before += 1
            assert status == 2, said
            told = re.findall(r"train\.py: .*", said)
            assert len(told) == 1
            assert "Traceback" not in said
            trial.log.write_text("")
            assert "No space left" in told[0] or "bytes left" in told[0]
            assert str(folder) in told[0]
            mount(folder, 100_000)
            assert trial.to_the_end() == 0, trial.log.read_text()
        trial.check(expected)
        tally["room"][PLACES[place]] += 1
        tally["room"][f"{PLACES[place]}, full"] += status != 0
        subprocess.run(["umount", folder], check=True)
    assert full_before or place == "data/dtd/split_fewshot"  # which a run can do without
