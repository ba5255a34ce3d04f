"""One run on several processes: the parameters and figures of one, whatever the numbers of classes and images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import ROOT, SIZE, relative, results_of
from rank_worker import AGAIN, CASES
from trainers.modules import ranks

WORKER = ROOT / "tests" / "rank_worker.py"


def torchrun(number: int, *command, **options) -> subprocess.CompletedProcess:
    """A command on several processes; on one, without torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)] if number > 1 else []
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *launcher, *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        **options,
    )


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Five classes of noisy pictures in DTD's layout, which neither 2 nor 3 divides."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for index in range(5):
        folder = root / "dtd" / "images" / f"colour_{index}"
        folder.mkdir(parents=True)
        for n in range(10):
            pixels = np.clip(rng.uniform(0, 255, 3) * 0.3 + 40 * index + rng.normal(0, 20, (36, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"colour_{index}_{n:04d}.jpg")
    return root


@pytest.fixture(scope="module")
def found(colours, clip_files, tmp_path_factory):
    """What three, two and one processes found, one after the other in the same folder."""
    folder = tmp_path_factory.mktemp("ranks")
    for number in (3, 2, 1):
        data = folder / f"data{number}"  # each makes its own bank and few-shot lists
        shutil.copytree(colours, data)
        done = torchrun(number, WORKER, data, clip_files["plain"], folder)
        assert done.returncode == 0, done.stderr[-3000:]
    return {number: torch.load(folder / f"{number}.pt", weights_only=True) for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for number, names in ((3, CASES), (2, AGAIN)) for name in names if name != "no seed"],
)
def test_parameters_and_figures_are_those_of_one_process(found, name, number):
    one, several = found[1][name], found[number][name]
    assert one["state"].keys() == several["state"].keys()
    for key, value in one["state"].items():
        assert relative(several["state"][key], value) < 1e-5 or torch.equal(several["state"][key], value), key
    assert several["figures"] == pytest.approx(one["figures"], rel=1e-4, abs=1e-4)


def test_without_a_seed_all_processes_draw_the_same(found):
    """The worker compares the processes; runs differ from each other."""
    first, second = (found[number]["no seed"]["state"]["ctx"] for number in (2, 3))
    assert not torch.equal(first, second)


def test_a_run_goes_on_with_another_number_of_processes(found, colours, clip_files, tmp_path):
    """Three processes took its first epoch, two the second, one the third."""
    assert [found[number]["resumed"]["start"] for number in (3, 2, 1)] == [0, 1, 2]
    done = torchrun(1, WORKER, colours, clip_files["plain"], tmp_path, "--resumed")
    assert done.returncode == 0, done.stderr[-3000:]
    whole = torch.load(tmp_path / "1.pt", weights_only=True)["resumed"]
    assert whole["start"] == 0
    for key, value in whole["state"].items():
        assert relative(found[1]["resumed"]["state"][key], value) < 1e-5


def test_a_process_that_dies_ends_the_job_and_is_named(colours, clip_files, tmp_path):
    done = torchrun(2, WORKER, colours, clip_files["plain"], tmp_path, "--fail")
    assert done.returncode != 0
    assert "(local_rank: 1)" in done.stderr
    assert "exitcode  : 7" in done.stderr


def test_processes_that_draw_other_numbers_do_not_train_together(colours, clip_files, tmp_path):
    done = torchrun(2, WORKER, colours, clip_files["plain"], tmp_path, "--differ")
    assert done.returncode != 0
    assert "before epoch 1 the processes 1 have other images, random numbers or parameters" in done.stderr


def train_arguments(data, clip, output, *options):
    given = ["--root", data, "--backbone", clip, "--trainer", "CoOp", "--output-dir", output, "--seed", "1"]
    given += ["--dataset-config-file", "configs/datasets/dtd.yaml"]
    given += ["--config-file", "configs/trainers/CoOp/tiny.yaml", "INPUT.SIZE", f"({SIZE}, {SIZE})"]
    return ["train.py", *given, "OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "2", *options]


def test_train_py_prints_and_writes_once(colours, clip_files, tmp_path):
    output = tmp_path / "run"
    best = ("TEST.FINAL_MODEL", "best_val")  # all processes test the checkpoint of the first one
    done = torchrun(2, *train_arguments(colours, clip_files["plain"], output, *best))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Finish training") == 1
    assert done.stdout.count("=> result") == 2  # on the validation images, and on the test images
    there = {path.relative_to(output).parts[0] for path in output.rglob("*")}
    assert there == {"log.txt", "predictions.npz", "prompt_learner", "results.json", "tensorboard"}
    assert (output / "log.txt").read_text().count("Finish training") == 1
    assert len(list((output / "tensorboard").iterdir())) == 1
    assert results_of(output)["epoch"] == 1


def test_a_config_that_cannot_run_ends_all_processes(colours, clip_files, tmp_path):
    done = torchrun(2, *train_arguments(colours, clip_files["plain"], tmp_path / "run", "TRAINER.COOP.PREC", "fp7"))
    assert done.returncode != 0
    assert "train.py: the config cannot run" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("n", range(7))
@pytest.mark.parametrize("several", [1, 2, 3, 5])
def test_shares_are_all_things_once_in_order(monkeypatch, n, several):
    monkeypatch.setattr(ranks, "size", lambda: several)
    shares = []
    for rank in range(several):
        monkeypatch.setattr(ranks, "number", lambda rank=rank: rank)
        shares.append(ranks.share(n))
    assert [thing for own in shares for thing in range(n)[own]] == list(range(n))
    sizes = [own.stop - own.start for own in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_one_process_has_all_to_itself():
    assert (ranks.size(), ranks.number(), ranks.share(5)) == (1, 0, slice(0, 5))
    value = object()
    assert ranks.agree(value) is value
    part = torch.ones(2, 3)
    assert ranks.gather(part, 2, 0) is part
    assert ranks.divided(4, 0, lambda own: torch.arange(4)[own]).tolist() == [0, 1, 2, 3]
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    used.sum().backward()
    assert ranks.average_gradients([used, unused]) == [True, False]
    assert unused.grad is None


def test_a_loss_on_other_parameters_than_in_the_first_step_is_refused(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 2)
    once, later = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    later.sum().backward()
    with pytest.raises(ValueError, match="the same parameters in every step"):
        ranks.average_gradients([once, later], [True, False])


def test_more_processes_than_gpus_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="3 processes on a machine with 2 GPUs"), ranks.joined(on_gpu=True):
        pass
