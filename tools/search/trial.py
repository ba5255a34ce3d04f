"""One trial of a search as a task of the engine: rung by rung, on every data set and seed, until its end or pruned."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import Trial, TrialState

from storage.ownership import FolderInUse, own_folder
from tools.search.plan import Rung, Search, score
from tools.search.storage import begin, open_study
from tools.sweep.experiment import execute
from trainers.modules.loading import clips_kept

IN_USE_PAUSE = 5.0  # seconds between two looks whether another trial with the same settings has ended
RUNGS, DIVERGED, ERROR = "rungs", "diverged", "error"  # what is kept with a trial


@dataclass(frozen=True)
class TrialTask:
    """The next trial of a search, whichever that is when this begins.

    Attributes:
        search: the search.
        trials: how many there are to be; nothing is done where as many have finished or run.
    """

    search: Search
    trials: int

    def __call__(self, log: Path, tick: Callable[[], None]) -> None:
        """Do it.

        A training that diverges prunes the trial.

        Raises:
            OSError, ValueError, ...: as its runs; the trial has failed then.
            KeyboardInterrupt: Ctrl-C; the trial is begun again by the same search.
        """
        search = self.search
        study = open_study(search.folder, search.seed)
        with ExitStack() as stack, clips_kept():
            trial = begin(stack, study, search.folder, search.space, self.trials)
            if trial is None:
                return
            try:
                value = climb(search, trial, log, tick)
            except FloatingPointError as error:
                trial.set_user_attr(DIVERGED, str(error))
                value = None
            except Exception as error:
                trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}")
                study.tell(trial, state=TrialState.FAIL)
                raise
            if value is None:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, value)
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if all(other.params != trial.params for other in running):
                for rung in search.rung(trial.params, 0):
                    remove_checkpoints(rung.training.folder)


def climb(search: Search, trial: Trial, log: Path, tick: Callable[[], None]) -> float | None:
    """The harmonic mean of a trial at its end, in percent; None where it was pruned before.

    Its values after each rung are kept with it.

    Args:
        search: of which it is.
        trial: with its values.
        log: is told how far it is.
        tick: is called after each run.

    Raises:
        FloatingPointError: a training diverges.
        OSError, ValueError: as its runs.
    """
    kept: list[dict[str, float]] = []
    epochs = search.epochs_of(trial.params)
    for epoch, number in epochs.items():
        rungs = list(search.rung(trial.params, epoch))
        for rung in rungs:
            with log.open("a", encoding="utf-8") as file:
                training = rung.training
                print(f"trial {trial.number}: {training.dataset}, seed {training.seed}, epoch {epoch}", file=file)
            do_rung(rung)
            tick()
        found = score(rungs)
        kept.append({"epoch": epoch, "base": found.base, "new": found.new, "mean": found.mean})
        trial.set_user_attr(RUNGS, kept)
        trial.report(found.mean, number)
        if number == search.rungs:
            return found.mean
        if trial.should_prune():
            return None
    return None


def do_rung(rung: Rung) -> None:
    """Train as far as a rung and test there, unless that is done; waits where another trial does the same.

    Raises:
        FloatingPointError, OSError, ValueError: as `execute`.
    """
    while True:
        try:
            if not all(test.finished for test in rung.tests):
                execute(rung.training, rung.data)
            for test in rung.tests:
                execute(test, rung.data)
            return
        except FolderInUse:
            time.sleep(IN_USE_PAUSE)


def remove_checkpoints(folder: Path) -> None:
    """Remove from a run's folder all but its logs, the results of its tests and what wandb is still to be sent.

    Nothing is removed where another trial uses the folder.
    """
    with suppress(FolderInUse), own_folder(folder):
        for path in folder.iterdir():
            if path.is_dir() and path.name != "wandb" and not path.name.startswith("epoch"):
                shutil.rmtree(path, ignore_errors=True)
