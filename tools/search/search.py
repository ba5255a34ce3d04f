"""`python -m tools.search`: the trials of a search, and what they have found. `run_trials` is for programs.

search = Search("CDC", "tiny", {"textures": find_smaller(...)}, (1, 2, 3), folder, space)
failures = run_trials(search, 40, options)
best = best_of(trials_of(search, open_study(search.folder)))
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import optuna

from datasets.files import write_json
from tools.search.outcome import Trial, best_of, check_name, table, trials_of, write_config
from tools.search.pictures import draw, importances
from tools.search.plan import Search
from tools.search.storage import FINISHED, asking, begin_again, open_study
from tools.search.trial import TrialTask
from tools.sweep.engine import LOGS, Failure, Run, clear_logs
from tools.sweep.sweep import do_runs

TABLE, PICTURE = "trials.json", "search.png"


def run_trials(search: Search, trials: int, options: argparse.Namespace) -> list[Failure]:
    """Run what is left of a search until so many of its trials have finished or were pruned.

    The first trial is the config as it is, as far as the space has that.

    Args:
        search: it may have trials already, and other processes may run some of it.
        trials: how many there are to be in all.
        options: of `engine.add_options`.

    Returns:
        What failed.

    Raises:
        FileNotFoundError, ValueError: as `Search.check` and `Search.keep_identity`.
        ValueError, ConnectionError: as `engine.choose_engine`.
        KeyboardInterrupt: Ctrl-C; the same search goes on later.
    """
    search.check()
    search.keep_identity()
    study = open_study(search.folder, search.seed)
    with asking(search.folder):
        begin_again(study, search.folder)
        if not study.get_trials(deepcopy=False) and search.space.own():
            study.enqueue_trial(search.space.own())
        there = sum(trial.state in FINISHED for trial in study.get_trials(deepcopy=False))
    runs = [
        Run(f"trial {number} of {trials}", TrialTask(search, trials), search.folder / LOGS / f"trial{number}.log")
        for number in range(there + 1, trials + 1)
    ]
    failures = do_runs(runs, options)
    clear_logs(search.folder)
    return failures


def search_settings(search: Search, trials: int, name: str, command: str, options: argparse.Namespace) -> int:
    """Run a search, print its table, and write its picture and its config.

    Args:
        search, trials: as of `run_trials`.
        name: of the config.
        command: what its head says of how it was chosen.
        options: of `engine.add_options`, and `force`.

    Returns:
        The exit status: 1 if trials failed.

    Raises:
        As `run_trials`, `outcome.best_of` and `outcome.write_config`.
    """
    check_name(search, name, options.force)
    failures = run_trials(search, trials, options)
    study = open_study(search.folder, search.seed)
    found = trials_of(search, study)
    print(table(search, found))
    keep_table(search, found, importances(study), command)
    for failure in failures:
        print(f"failed: {failure}")
    running = sum(trial.state == "running" for trial in found)
    if running:
        print(f"trials that run elsewhere: {running}; the same command tells when they have ended")
        return 1 if failures else 0
    path = write_config(search, best_of(found), found, name, command, options.force)
    print(f"All trials: {search.folder / TABLE}; picture: {search.folder / PICTURE}")
    print(f"Settings of trial {best_of(found).number}: {path}, which CFG={name} takes")
    return 1 if failures else 0


def keep_table(search: Search, trials: Sequence[Trial], shares: Mapping[str, float], command: str) -> None:
    """Write all trials and the settings' importances as plain data, and draw the picture, into the search's folder."""
    content = {
        "command": command,
        "optuna": optuna.__version__,
        "importances": dict(shares),
        "trials": [{**asdict(trial), "hm": trial.score.mean if trial.score else None} for trial in trials],
    }
    write_json(json.loads(json.dumps(content)), str(search.folder / TABLE), indent=1)
    draw(search, trials, shares, search.folder / PICTURE)
