"""A search's trials in Optuna's journal: shared by processes, gone on with after some are killed, always the same."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack

import pytest

pytest.importorskip("optuna", reason="a search needs Optuna: pip install -e '.[search]'")

from optuna.trial import TrialState

from storage.ownership import SILENT, own_folder
from tools.search import storage
from tools.search.space import Parameter, Space
from tools.search.storage import JOURNAL, begin, begin_again, distribution_of, open_study

SPACE = Space(
    (
        Parameter("OPTIM.LR", 0.001, 1.0, log=True, own=0.01),
        Parameter("OPTIM.MAX_EPOCH", 2, 20, whole=True, step=2),
        Parameter("OPTIM.NAME", choices=("sgd", "adam")),
    )
)


def value_of(trial):
    return -((trial.params["OPTIM.LR"] - 0.1) ** 2) + (trial.params["OPTIM.NAME"] == "adam")


def do_one(folder, most=100, cut=None):
    """Do a trial as a process that has just started, or begin it and leave it, as one that has ended."""
    study = open_study(folder)
    with ExitStack() as stack:
        trial = begin(stack, study, folder, SPACE, most)
        if trial is not None and not cut:
            study.tell(trial, value_of(trial))
    return trial


def finished(folder):
    trials = open_study(folder).get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [(trial.params, trial.value) for trial in trials]


def in_child(do):
    """Call a function in a process of its own, and return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            do()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


def test_distributions():
    low = [distribution_of(parameter) for parameter in SPACE.parameters]
    assert [(d.low, d.high, d.log) for d in low[:2]] == [(0.001, 1.0, True), (2, 20, False)]
    assert (low[1].step, low[2].choices) == (2, ("sgd", "adam"))


def test_suggestions_follow_from_seed_and_earlier_trials_whoever_asks(tmp_path, monkeypatch):
    """So also where trials were begun by processes that were killed, before or after the sampler looks at results."""
    monkeypatch.setattr(storage, "FIRST", 4)
    for _ in range(7):
        do_one(tmp_path / "whole")
    for number in range(7):
        if number in (0, 2, 5):
            do_one(tmp_path / "cut", cut=True)
        do_one(tmp_path / "cut")
    assert finished(tmp_path / "whole") == finished(tmp_path / "cut")
    values = [params["OPTIM.LR"] for params, _ in finished(tmp_path / "whole")]
    assert len(set(values)) == 7
    assert len(open_study(tmp_path / "cut").get_trials(deepcopy=False)) == 10
    for _ in range(3):
        study = open_study(tmp_path / "other", seed=2)
        with ExitStack() as stack:
            begin(stack, study, tmp_path / "other", SPACE, 9)
    assert open_study(tmp_path / "other").get_trials()[0].params["OPTIM.LR"] != values[0]


def test_a_trial_of_a_killed_process_is_begun_again_and_one_that_runs_is_not(tmp_path):
    def begins_and_dies():
        with ExitStack() as stack:
            begin(stack, open_study(tmp_path), tmp_path, SPACE, 100)
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.waitpid(in_child(begins_and_dies), 0)[1] == signal.SIGKILL
    study = open_study(tmp_path)
    (left,) = study.get_trials(deepcopy=False)
    assert left.state is TrialState.RUNNING
    begin_again(study, tmp_path)
    again = study.get_trials(deepcopy=False)
    assert [trial.state for trial in again] == [TrialState.FAIL, TrialState.WAITING]
    with ExitStack() as stack:
        trial = begin(stack, study, tmp_path, SPACE, 100)
        assert (trial.number, trial.params) == (1, left.params)

        def looks():
            begin_again(open_study(tmp_path), tmp_path)

        os.waitpid(in_child(looks), 0)
        assert [t.state for t in study.get_trials(deepcopy=False)] == [TrialState.FAIL, TrialState.RUNNING]


def test_a_trial_of_another_machine_is_begun_again_once_that_is_silent(tmp_path):
    """Whatever the clocks of both machines say: the file system's own counts."""
    do_one(tmp_path, cut=True)
    owner = tmp_path / "owners" / "0" / ".owner"
    owner.parent.mkdir(parents=True)
    owner.write_text(json.dumps(["0" * 12, 7, "1", "other", "1999-01-01 10:00:00", "x", None]))
    study = open_study(tmp_path)
    begin_again(study, tmp_path)
    assert [trial.state for trial in study.get_trials(deepcopy=False)] == [TrialState.RUNNING]
    before = owner.stat().st_mtime - SILENT - 1
    os.utime(owner, (before, before))
    begin_again(study, tmp_path)
    assert [trial.state for trial in study.get_trials(deepcopy=False)] == [TrialState.FAIL, TrialState.WAITING]


def test_processes_share_a_search(tmp_path):
    def works():
        while do_one(tmp_path, most=12) is not None:
            pass

    children = [in_child(works) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert len(finished(tmp_path)) == 12
    assert do_one(tmp_path, most=12) is None
    assert do_one(tmp_path, most=13) is not None


def test_half_a_line_that_a_killed_process_left_is_cut_off(tmp_path):
    do_one(tmp_path)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker_id":"x","tri')
    do_one(tmp_path)
    assert len(finished(tmp_path)) == 2
    lines = journal.read_bytes()
    assert lines.startswith(whole)
    assert all(json.loads(line) for line in lines.splitlines())


def test_a_lock_of_a_dead_process_holds_nobody_up(tmp_path):
    def dies_with_the_lock():
        with own_folder(tmp_path / "writing"), own_folder(tmp_path / "asking"):
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(in_child(dies_with_the_lock), 0)
    assert do_one(tmp_path) is not None


def test_broken_journals_are_told(tmp_path):
    (tmp_path / JOURNAL).write_text('{"op_code":0}\n')
    with pytest.raises(ValueError, match="is no whole journal of Optuna"):
        open_study(tmp_path)
