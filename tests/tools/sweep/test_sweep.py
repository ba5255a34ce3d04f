"""`python -m tools.sweep` as a command: over the real scripts, with a small program in the place of Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from helpers import ROOT, results_of
from tools.sweep.__main__ import main, split_settings
from trainers.modules.figures import RECEIVERS

# Does what `train.py` does for a plan: results, a model where it trains, a log; fails or waits where it should.
TRAIN = """#!{python} -S
import json, os, sys, time
given = sys.argv[2:]
if sys.argv[1] != "train.py":
    sys.exit()
folder = given[given.index("--output-dir") + 1]
with open({folder!r} + "/called", "a") as file:
    file.write(folder + "\\n")
if os.environ.get("FAILS") and os.environ["FAILS"] in folder:
    sys.exit("train.py: no such data")
print("epoch [1/4] batch [1/1]", flush=True)
while os.environ.get("WAITS") and os.environ["WAITS"] in folder:
    time.sleep(0.1)
os.makedirs(folder + "/prompt_learner", exist_ok=True)
if "--eval-only" not in given:
    open(folder + "/prompt_learner/model.pth.tar-5", "w").close()
results = {{"figures": {{"accuracy": 60.0}}, "train_seconds": 50.0, "test_seconds": 10.0}}
with open(folder + "/results.json", "w") as file:
    json.dump(results, file)
"""


@pytest.fixture
def checkout(tmp_path):
    python = tmp_path / "python"
    python.write_text(TRAIN.format(python=sys.executable, folder=str(tmp_path)))
    python.chmod(0o755)
    (tmp_path / "data").mkdir()
    return tmp_path


def test_runs_are_told_where_figures_go(monkeypatch, capsys):
    called = []
    monkeypatch.setattr("tools.sweep.sweep.sweep", lambda args, settings, environment: called.append(environment) or 0)
    monkeypatch.setitem(RECEIVERS, "json", None)  # a package that is there
    for given, status in (("json", 0), ("mlflow", 2)):
        monkeypatch.setattr(sys, "argv", ["tools.sweep", "base2new", "--report-to", given])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == status
    assert [environment["REPORT_TO"] for environment in called] == ["json"]
    assert "must be wandb or json, got 'mlflow'" in capsys.readouterr().err


def environment(checkout, **variables):
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or name.startswith("COV")}
    given = {"DATA": "data", "OUTPUT": "output", "PYTHON": "./python", "PYTHONPATH": str(ROOT)}
    return {**kept, **given, **variables}


def sweep(checkout, *arguments, **variables):
    command = [sys.executable, "-m", "tools.sweep", *map(str, arguments)]
    env = environment(checkout, **variables)
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=120, check=False)
    called = checkout / "called"
    done.called = called.read_text().splitlines() if called.exists() else []
    return done


ARGUMENTS = ("base2new", "--one-by-one", "--trainers", "CDC", "CoOp", "--datasets", "dtd", "eurosat", "--seeds", 1)


def test_all_runs_are_done_and_the_table_follows(checkout):
    done = sweep(checkout, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8 runs: 0 have finished, 0 will go on, 8 are new\n")
    assert "no run of these kinds has finished yet" in done.stdout
    assert len(set(done.called)) == len(done.called) == 8
    assert "[8/8] finished " in done.stderr
    assert "60.00" in done.stdout.split("data set")[1]
    assert sorted(path.name for path in (checkout / "output").iterdir()) == ["base2new"]  # and no logs

    again = sweep(checkout, *ARGUMENTS)
    assert (again.returncode, len(again.called)) == (0, 8)
    assert again.stdout.startswith("8 runs: 8 have finished, 0 will go on, 0 are new\n")
    assert "nothing is left to run" in again.stdout


def test_method_that_trains_nothing_lacks_no_shots_in_the_table(checkout):
    done = sweep(checkout, "base2new", "--one-by-one", "--trainers", "ZeroshotCLIP", "--datasets", "dtd", "--seeds", 1)
    assert done.returncode == 0, done.stderr
    assert "ZeroshotCLIP: config vit_b16, 0 shots" in done.stdout
    assert "missing" not in done.stdout


def test_dry_run_tells_and_runs_nothing(checkout):
    done = sweep(checkout, *ARGUMENTS, "--dry-run", "OPTIM.LR", "0.1")
    assert (done.returncode, done.called) == (0, [])
    assert "new: CDC/vit_b16+OPTIM.LR=0.1 dtd: train_base of seed 1; test_new of seed 1\n" in done.stdout
    assert not (checkout / "output").exists()


def test_time_is_told_from_finished_runs(checkout):
    sweep(checkout, *ARGUMENTS)
    done = sweep(checkout, *ARGUMENTS, 2, "--dry-run")
    assert "left: about 0:09:20, as training and tests of finished runs took" in done.stdout


def test_failed_run_is_told_with_its_log_and_exit_status(checkout):
    done = sweep(checkout, *ARGUMENTS, FAILS="train_base/dtd/shots_16/CDC")
    assert done.returncode == 1
    log = checkout / "output/sweep/base2new/train_base/dtd/shots_16/CDC/vit_b16/seed1.log"
    told = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert told == [
        f"failed: CDC/vit_b16 dtd seed 1: train_base: train.py: no such data (exit status 1); log: {log}",
        "failed: CDC/vit_b16 dtd seed 1: test_new: not run, as it needs CDC/vit_b16 dtd seed 1: train_base",
    ]
    assert "train.py: no such data" in log.read_text()
    assert len(done.called) == 7
    assert "60.00" in done.stdout  # of what is there
    assert sweep(checkout, *ARGUMENTS).returncode == 0
    assert not log.exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_the_run_and_the_same_command_goes_on(checkout, sent):
    waits = "train_base/eurosat/shots_16/CoOp"
    command = [sys.executable, "-m", "tools.sweep", *map(str, ARGUMENTS)]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=checkout, env=environment(checkout, WAITS=waits), **pipe) as process:
        called = checkout / "called"
        while process.poll() is None and not (called.exists() and waits in called.read_text()):
            time.sleep(0.05)
        time.sleep(1)  # until its output is written
        process.send_signal(sent)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "\nstopped CoOp/vit_b16_ctxv1 eurosat seed 1: train_base: epoch [1/4] batch [1/1]\n" in said
    assert said.endswith("tools.sweep: interrupted; the same command goes on\n")
    done = sweep(checkout, *ARGUMENTS)
    assert done.returncode == 0
    twice = [folder for folder in set(done.called) if done.called.count(folder) > 1]
    assert [waits in folder for folder in twice] == [True]


@pytest.mark.parametrize(
    ("protocol", "arguments", "runs"),
    [
        ("xd", ("--datasets", "dtd", "eurosat", "--seeds", 1), 3),
        ("dg", ("--seeds", 1), 5),
        ("fewshot", ("--datasets", "dtd", "--seeds", 1, "--shots", 1, 2), 2),
    ],
)
def test_other_protocols(checkout, protocol, arguments, runs):
    done = sweep(checkout, protocol, "--one-by-one", *arguments)
    assert done.returncode == 0, done.stderr
    assert len(done.called) == runs
    assert "60.00" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("base2new", "--trainers", "Foo"), "configs/trainers has no Foo"),
        (("base2new", "--datasets", "dtd", "OPTIM.LR"), "KEY VALUE"),
        (("dg", "--source", "dtd"), "--source is of xd"),
        (("base2new", "OPTIM.LR", "0.1", "--dry-run"), "options stand before KEY VALUE pairs"),
        (("base2new", "--datasets", "dtd", "--one-by-one", "--address", "auto"), "give one of them"),
        (("fewshot", "--calibrated"), "--calibrated is of tests, and fewshot has none"),
        (("base2new", "--hold-out", "4"), "--hold-out says what --calibrated is fitted on: give both"),
        (("base2new", "--calibrated", "--hold-out", "0"), "--hold-out must be at least 1 image per class, got 0"),
        (("nosuch",), "invalid choice"),
    ],
)
def test_wrong_call(checkout, arguments, words):
    done = sweep(checkout, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.called == []
    assert sweep(checkout, "base2new", "--datasets", "dtd", SHOTS="many").stderr.startswith(
        "tools.sweep: SHOTS must be"
    )


def test_where_settings_begin():
    assert split_settings(["xd", "--trainers", "CDC", "OPTIM.LR", "0.1"]) == (
        ["xd", "--trainers", "CDC"],
        ["OPTIM.LR", "0.1"],
    )
    assert split_settings(["xd", "--", "USE_CUDA", "False"]) == (["xd"], ["USE_CUDA", "False"])
    assert split_settings(["xd", "--trainers", "CDC", "CoOp/rn50.v2"])[1] == []


def test_base2new_all_is_the_sweep_of_one_trainer(checkout):
    """With its variables, and Python as the scripts find it; here with the real one, to which tools.sweep belongs."""
    variables = {"DATASETS": "dtd eurosat", "SEEDS": "1 2", "TRAINER": "CoOp", "SHOTS": "4", "LOADEP": "3"}
    env = environment(checkout, PYTHON=sys.executable, FAILS="nothing", **variables)
    # the scripts' Python runs the sweep, which is to run the small program
    wrapper = checkout / "wrapper"
    wrapper.write_text(
        f'#!/bin/bash\n[[ "$1 $2" != *train.py* && $2 != tools.datasets ]] || exec {checkout}/python "$@"\n'
        f'exec {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    command = ["bash", str(ROOT / "scripts/coop/base2new_all.sh"), "USE_CUDA", "False"]
    env["PYTHON"] = "./wrapper"
    env["RAY_ADDRESS"] = ""
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8 runs: 0 have finished")
    folder = checkout / "output/base2new/test_new/eurosat/shots_4/CoOp/vit_b16_ctxv1+USE_CUDA=False/seed2"
    assert results_of(folder)["figures"] == {"accuracy": 60.0}
    assert json.loads((folder / "results.json").read_text())["test_seconds"] == 10.0


def test_data_sets_are_looked_for_before_anything_runs(checkout):
    python = checkout / "python"
    python.write_text(f"#!/bin/sh\necho \"$*\" > {checkout}/asked\necho 'dtd: NOT USABLE'\nexit 1\n")
    done = sweep(checkout, *ARGUMENTS, OUTPUT="other")
    assert done.returncode == 2
    assert (checkout / "asked").read_text() == (f"-m tools.datasets check --quick --root {checkout}/data dtd eurosat\n")
    assert done.stderr.startswith("dtd: NOT USABLE\ntools.sweep: set DATA to the folder of the data sets")
    assert not (checkout / "other").exists()


def test_slurm_script_starts_a_cluster_and_the_sweep(tmp_path):
    """With small programs in the place of Slurm's and Ray's."""
    for name, text in {
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "scontrol": "echo node1; echo node2",
        "hostname": "echo 10.0.0.1 fe80::1",
        "ray": f'printf "%s\\n" "$RAY_AUTH_MODE" "${{#RAY_AUTH_TOKEN}}" "$@" > {tmp_path}/called',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VENV": str(tmp_path), **slurm}
    script = str(ROOT / "scripts/cluster/slurm.sbatch")
    arguments = ["xd", "--trainers", "CDC", "OPTIM.LR", "0.1"]
    subprocess.run(["bash", script, *arguments], env=env, check=True, timeout=60)
    assert (tmp_path / "called").read_text().split() == [
        *(
            "token",
            "64",
            "symmetric-run",
            "--address",
            "10.0.0.1:6379",
            "--min-nodes",
            "2",
            "--include-dashboard=false",
        ),
        *("--", "python", "-m", "tools.sweep", "xd", "--address", "10.0.0.1:6379", *arguments[1:]),
    ]
    env["SLURM_SUBMIT_DIR"] = str(tmp_path)
    done = subprocess.run(
        ["bash", script, *arguments], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "call it in the checkout" in done.stderr
