"""Epochs in logs of all published versions of Dassl."""

from __future__ import annotations

import os

from made_runs import EPOCHS
from tools.report.logs import read_epochs


def test_the_last_line_of_each_epoch_counts(tmp_path):
    (tmp_path / "log.txt").write_text(EPOCHS)
    assert read_epochs(tmp_path) == {"loss": {1: 2.0, 2: 0.15}, "acc": {1: 20.0, 2: 80.0}}


def test_a_resumed_run_goes_on_in_its_second_log(tmp_path):
    first, *_, last = EPOCHS.splitlines(keepends=True)
    (tmp_path / "log.txt").write_text(first)
    (tmp_path / "log.txt-2026-01-01-00-00-00").write_text(last)
    assert read_epochs(tmp_path)["loss"] == {1: 3.0, 2: 0.15}


def test_no_log_has_no_epochs(tmp_path):
    assert read_epochs(tmp_path) == {}


def test_what_a_training_had_that_began_again_is_no_part_of_the_next(tmp_path):
    (tmp_path / "log.txt-2026-01-01-00-00-00").write_text(EPOCHS)
    os.utime(tmp_path / "log.txt-2026-01-01-00-00-00", (0, 0))
    (tmp_path / "log.txt").write_text(EPOCHS.splitlines(keepends=True)[0])
    assert read_epochs(tmp_path) == {"loss": {1: 3.0}, "acc": {1: 10.0}}
