"""The demo as a command, on the smallest embedded set."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from helpers import ROOT
from tools import demo


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def call(data, *arguments):
    command = [sys.executable, "-m", "tools.demo", *map(str, arguments)]
    environment = {**os.environ, "DATA": str(data)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_demo_runs_the_scripts_and_ends_with_the_table(data, tmp_path):
    arguments = ("--dataset", "digits", "--seeds", 1, "--methods", "ZeroshotCLIP", "--output", tmp_path)
    done = call(data, *arguments)
    assert done.returncode == 0, done.stderr
    results = {
        half: json.loads(
            (tmp_path / f"base2new/test_{half}/digits/shots_16/ZeroshotCLIP/tiny/seed1/results.json").read_text()
        )
        for half in ("base", "new")
    }
    row = next(line for line in done.stdout.splitlines() if line.startswith("digits"))
    for result in results.values():
        assert f"{result['figures']['accuracy']:.2f}" in row
    assert f"below {tmp_path}/base2new" in done.stdout

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    again = call(data, *arguments)
    assert again.stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")} == before


def test_demo_passes_on_why_a_script_failed(data, tmp_path):
    done = call(data, "--dataset", "nosuch", "--seeds", 1, "--output", tmp_path)
    assert done.returncode == 1
    assert "base2new_train.sh nosuch 1 failed" in done.stderr
    assert "configs/datasets" in done.stderr or "data set" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "share"),
    [
        ("epoch [1/5] batch [5/20] time 0.1", 0.05),
        ("epoch [5/5] batch [20/20] loss 0.3", 1.0),
        ("Loading CLIP", None),
    ],
)
def test_progress_by_a_line_of_the_log(line, share):
    assert demo.progress_of(line) == (None if share is None else pytest.approx(share))


WEIGHTS = {"train": 6.0, "test": 1.0}


def test_estimate_takes_runs_by_their_kind():
    """Of two trainings of 60 s and two tests of 4 s."""
    estimate = demo.Estimate(["train", "test", "train", "test"], WEIGHTS)
    assert estimate.remaining("train", 10.0, None) is None
    assert estimate.remaining("train", 30.0, 30.0) == pytest.approx(30 + 60 + 2 * 10)  # tests by their weight
    estimate.done("train", 60.0)
    assert estimate.remaining("test", 1.0, None) == pytest.approx(9 + 60 + 10)
    estimate.done("test", 4.0)
    assert estimate.remaining("train", 50.0, 12.0) == pytest.approx(12 + 4)
    assert estimate.remaining("train", 70.0, None) == pytest.approx(4)  # longer than expected: any moment
    estimate.done("train", None)
    estimate.done("test", 4.0)
    assert sum(estimate.left.values()) == 0


def test_runs_that_were_finished_say_nothing_of_those_that_are_left():
    estimate = demo.Estimate(["train", "train"], WEIGHTS)
    estimate.done("train", None)
    assert estimate.remaining("train", 0.0, None) is None


@pytest.mark.filterwarnings("error")
def test_bar_ends_full_and_starts_of_runs_are_no_training(monkeypatch):
    """Shares that do not add up exactly make no warning, and 20 s before the first line change no estimate."""
    clock = iter([0.0, 0.0, 20.0, 30.0, 40.0, 120.0, 120.0, 120.0, 121.0, 121.0])
    monkeypatch.setattr(demo, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = demo.Progress(["train", "test"], {"train": 0.1 + 0.2, "test": 0.1})
    progress.start("train", "a")
    progress.show(0.1)
    progress.show(0.2)
    assert progress.bar.postfix.startswith("about 2 min left, a")  # 80 s, and a third of 110 s
    progress.show(0.3)
    progress.end(ran=True)
    progress.start("test", "b")
    progress.show(1.0)
    progress.end(ran=True)
    assert progress.bar.n == progress.bar.total
    progress.bar.close()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (20, "less than a minute left, "), (100, "about 2 min left, "), (7500, "about 2 h 05 min left, ")],
)
def test_estimate_in_words(seconds, words):
    assert demo.in_words(seconds) == words


SCRIPT = """trap 'echo "train.py: stopped after epoch 3; the same command goes on"; kill $!; exit 130' INT
echo "epoch [4/5] batch [1/2]"
sleep 60 &
touch "$OUTPUT/started"
wait
"""


def test_ctrl_c_says_how_far_it_came(tmp_path):
    """It goes to the whole process group, as from a terminal."""
    script = tmp_path / "base2new_train.sh"
    script.write_text(SCRIPT)
    code = f"""
import pathlib, signal, sys
from tools import demo
signal.signal(signal.SIGINT, signal.default_int_handler)
demo.script_of = lambda method, half: pathlib.Path({str(script)!r})
sys.argv = ["demo", "--dataset", "digits", "--seeds", "1", "--output", {str(tmp_path)!r}]
demo.main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        end = time.monotonic() + 60
        while not (tmp_path / "started").exists() and time.monotonic() < end:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith(f"tools.demo: {tmp_path.name}/base2new_train.sh digits 1: stopped after epoch 3; the")
