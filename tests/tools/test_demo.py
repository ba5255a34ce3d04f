"""The demo as a command, on the smallest embedded set."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from helpers import ROOT


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def call(data, *arguments):
    command = [sys.executable, "-m", "tools.demo", "--one-by-one", *map(str, arguments)]
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


def test_demo_tells_what_cannot_be_run(data, tmp_path):
    done = call(data, "--dataset", "nosuch", "--seeds", 1, "--output", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("tools.demo: configs/datasets has no nosuch; it has ")
    assert list(tmp_path.iterdir()) == []


def test_demo_passes_on_why_a_script_failed(data, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\necho train.py: no such thing\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    code = f"import sys; sys.executable = {str(tmp_path / 'python')!r}; from tools import demo; demo.main()"
    output = tmp_path / "output"
    arguments = ("--one-by-one", "--dataset", "digits", "--seeds", "1", "--output", str(output))
    environment = {**os.environ, "DATA": str(data), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    log = output / "sweep/base2new/train_base/digits/shots_16/CDC/tiny/seed1.log"
    failure = f"CDC/tiny digits seed 1: train_base: train.py: no such thing (exit status 1); log: {log}"
    assert f"tools.demo: {failure}\n" in done.stderr
    assert "ZeroshotCLIP/tiny digits seed 1: test_base: train.py: no such thing" in done.stderr  # the others went on
