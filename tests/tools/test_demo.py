"""The demo as a command, on the smallest embedded set."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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
