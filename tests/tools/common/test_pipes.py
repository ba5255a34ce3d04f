"""Programs whose output nobody reads to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from helpers import ROOT


@pytest.mark.parametrize("program", ["datasets", "results", "results wrong", "sweep"])
def test_reader_that_has_enough_ends_it_without_a_traceback(tmp_path, program):
    folder = tmp_path / "base2new/test_new/dtd/shots_16/CDC/tiny/seed1"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"figures": {"accuracy": 50.0}}))
    arguments = {
        "datasets": ["tools.datasets", "check", "all", "--root", tmp_path],
        "results": ["tools.results", tmp_path],
        "results wrong": ["tools.results", tmp_path / "nowhere"],
        "sweep": ["tools.sweep", "base2new", "--datasets", "digits", "--dry-run"],
    }[program]
    reading, writing = os.pipe()
    os.close(reading)  # as if `head` had gone already
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    if program == "results wrong":  # its own error is told all the same
        assert done.stderr == f"tools.results: there is no output folder {tmp_path / 'nowhere'}\n"
        assert done.returncode == 2
    else:
        assert done.stderr == ""
        assert done.returncode == 1
