"""Progress of a loop: lines where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest
from tqdm import tqdm

from trainers.modules import progress as module
from trainers.modules.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.05)


def slowly(number):
    for index in range(number):
        time.sleep(0.02)
        yield index


def test_lines_where_there_is_no_terminal(brief, capsys):
    assert list(progress(slowly(10), "test", total=10)) == list(range(10))
    lines = capsys.readouterr().err.split("\n")
    assert lines.pop() == ""
    assert 1 <= len(lines) <= 5
    form = re.compile(r"test: (\d+)/10 batches, +[\d.]+ batches/s, 00:0\d left")
    found = [form.fullmatch(line) for line in lines]
    assert all(found), lines
    assert [int(line[1]) for line in found] == sorted({int(line[1]) for line in found})


def test_a_message_in_between_is_one_line(capsys):
    for index in progress(range(3), "test"):
        tqdm.write(f"message {index}", file=sys.stderr)
    assert capsys.readouterr().err == "message 0\nmessage 1\nmessage 2\n"


def test_what_is_brief_is_silent(capsys):
    assert list(progress(range(1000), "test")) == list(range(1000))
    assert capsys.readouterr().err == ""


def test_a_loop_that_ends_early_leaves_no_line_behind(capsys):
    for _ in progress(range(10), "test"):
        break
    assert capsys.readouterr().err == ""


def test_switched_off_it_is_silent(brief, capsys, monkeypatch):
    """As `train.py --quiet` does it, and ranks other than the first."""
    init = module.tqdm.__init__
    monkeypatch.setattr(module.tqdm, "__init__", lambda self, *a, **o: init(self, *a, **{**o, "disable": True}))
    assert list(progress(slowly(10), "test")) == list(range(10))
    assert capsys.readouterr().err == ""


def test_a_bar_with_rate_and_time_left_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress(slowly(20), "test", "images", 20)) == list(range(20))
    shown = sys.stderr.getvalue()
    assert re.search(r"\rtest: +\d+%\|.*\| \d+/20 \[00:00<00:0\d, +[\d.]+ images/s\]", shown)
