"""A search as Optuna keeps it: a journal in one file, which processes on several machines can share, and its sampler.

Whoever takes a trial owns a folder while it runs (`storage.ownership`). So a trial whose process is dead is
told from one that runs, on shared file systems too, and is begun again with its values.
"""

from __future__ import annotations

import errno
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

try:
    import optuna
except ImportError as error:
    raise ValueError(
        "a search needs Optuna, which is not installed: pip install -e '.[search]' (a grid, --vary, needs none)"
    ) from error
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from storage.ownership import FolderInUse, own_folder
from tools.search.space import Parameter, Space

JOURNAL = "journal.log"
NAME = "search"  # of the study in the journal
OWNERS = "owners"  # folder of those who run trials
AGAIN = "begun_again"  # in the study: numbers of trials that have others in their place
FIRST = 10  # trials before the sampler looks at results
BEFORE_PRUNING = 5  # trials
PAUSE = 0.05  # seconds between two tries to get the lock
LONGEST = 2**20  # bytes of an entry of the journal, at most
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Lock(JournalFileOpenLock):
    """A journal's lock that a dead process does not hold; half a line that one has left is cut off.

    Optuna's own lock stays where a process is killed that holds it: for ever in 4.0, for half a minute later.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._held = ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._held.enter_context(locked(self._path.parent / "writing"))
        with self._path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(size - LONGEST, 0)
            file.seek(start)
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(start + content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Give the lock up."""
        self._held.close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The context in which no other process is in it, whose lock is a folder; waits until that is so."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(own_folder(folder))
                break
            except FolderInUse:
                time.sleep(PAUSE)
            except OSError as error:
                if error.errno != errno.EAGAIN:  # owners come and go
                    raise
        yield


class InOrder(optuna.samplers.BaseSampler):
    """Optuna's TPE whose suggestions follow from the seed and the trials before, whatever process asks.

    So a search that was cut goes on with what it would have suggested.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._now: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Take a sampler of its own for each trial."""
        earlier = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
        number = sum(other.number not in study.user_attrs.get(AGAIN, ()) for other in earlier)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._now = optuna.samplers.TPESampler(
                n_startup_trials=FIRST,
                seed=(self._seed * 1_000_003 + number) % 2**32,
                multivariate=True,
                constant_liar=True,
                warn_independent_sampling=False,
            )

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._now.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._now.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._now.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._now.after_trial(study, trial, state, values)


def open_study(folder: Path, seed: int = 1, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """The study in a folder; it is made if it is not there.

    Raises:
        ValueError: the journal is broken.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        path = folder / JOURNAL
        try:
            return optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path), lock_obj=Lock(path))),
                study_name=NAME,
                direction="maximize",
                load_if_exists=True,
                sampler=sampler or InOrder(seed),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=BEFORE_PRUNING),
            )
        except (KeyError, TypeError, AssertionError, ValueError) as error:
            raise ValueError(f"{path} is no whole journal of Optuna: {error}") from error


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """A parameter as Optuna has it."""
    if parameter.choices or parameter.low is None or parameter.high is None:
        return CategoricalDistribution(parameter.choices)
    if parameter.whole:
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


@contextmanager
def asking(folder: Path) -> Iterator[None]:
    """The context in which this process alone begins trials of the search in a folder."""
    with locked(folder / "asking"):
        yield


def begin(stack: ExitStack, study: optuna.Study, folder: Path, space: Space, most: int) -> optuna.Trial | None:
    """Begin a trial and own it, or begin one again whose process is dead.

    Args:
        stack: gives it up again when it closes.
        study, folder: the search.
        space: what is varied.
        most: how many trials there are to be.

    Returns:
        The trial, with values of its parameters; None if there are as many already, those that run included.
    """
    with asking(folder):
        begin_again(study, folder)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        if sum(state in (*FINISHED, TrialState.RUNNING) for state in states) >= most:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = study.ask({parameter.key: distribution_of(parameter) for parameter in space.parameters})
        stack.enter_context(own_folder(folder / OWNERS / str(trial.number)))
    return trial


def begin_again(study: optuna.Study, folder: Path) -> None:
    """Have trials begun again whose processes are dead; the caller is in `asking`."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        try:
            with own_folder(folder / OWNERS / str(trial.number)):
                study.set_user_attr(AGAIN, [*study.user_attrs.get(AGAIN, ()), trial.number])
                study.tell(trial.number, state=TrialState.FAIL)
                if trial.params:
                    study.enqueue_trial(trial.params)
        except FolderInUse:
            pass
