"""What a search has found: its trials, their table, and the config file with the settings of the best one."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from tabulate import tabulate

from storage.files import atomic_write
from storage.safe_text import escaped
from tools.common.paths import ROOT
from tools.results.tables import shots_name
from tools.search.plan import Score, Search
from tools.search.smaller import FINAL_MODEL
from tools.search.space import Value
from tools.search.storage import AGAIN
from tools.search.trial import DIVERGED, ERROR, RUNGS

CONFIGS = ROOT / "configs" / "trainers"
WRITTEN = "config.yaml"  # in the search's folder: the config as it was written
SHOWN = 10  # rows of the table that is printed
WIDTH = 120
# Settings that say where and how runs are done, and are none of the method's; of TEST all but which model is taken
NOT_OF_METHOD = ("DATASET.", "TRAIN.", "TEST.", "DATALOADER.NUM_WORKERS", "OUTPUT_DIR", "SEED", "USE_CUDA", "VERBOSE")


@dataclass(frozen=True)
class Trial:
    """One trial, as a table has it.

    Attributes:
        number: from 0 on.
        values: of the parameters by their keys.
        score: at its last rung; None where it had none.
        epoch: of that rung; 0 where it had none.
        state: finished, pruned, diverged, failed or running.
        own: whether its settings are the config's own.
    """

    number: int
    values: Mapping[str, Value] = field(hash=False)
    score: Score | None
    epoch: int
    state: str
    own: bool = False


def trials_of(search: Search, study: optuna.Study) -> list[Trial]:
    """All trials but those in whose place others are: finished ones first, the best before the others."""
    found = [_trial(search, trial) for trial in study.get_trials(deepcopy=False) if trial.params]
    replaced = set(study.user_attrs.get(AGAIN, ()))
    found = [trial for trial in found if trial.number not in replaced]
    return sorted(found, key=lambda t: (t.state != "finished", -(t.score.mean if t.score else 0.0), t.number))


def _trial(search: Search, trial: FrozenTrial) -> Trial:
    kept = trial.user_attrs.get(RUNGS) or [{}]
    last = kept[-1]
    state = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    name = state.get(trial.state, "running")
    if name == "pruned" and DIVERGED in trial.user_attrs:
        name = "diverged"
    if ERROR in trial.user_attrs:
        name = "failed"
    own = search.space.own()
    return Trial(
        trial.number,
        dict(trial.params),
        Score(last["base"], last["new"]) if last else None,
        int(last.get("epoch", 0)),
        name,
        len(own) == len(search.space.parameters) and all(trial.params.get(key) == own[key] for key in own),
    )


def best_of(trials: Sequence[Trial]) -> Trial:
    """The best trial that has finished.

    Raises:
        ValueError: none has.
    """
    finished = [trial for trial in trials if trial.state == "finished"]
    if not finished:
        raise ValueError("no trial has finished, so nothing is chosen")
    return finished[0]


def table(search: Search, trials: Sequence[Trial], most: int | None = SHOWN) -> str:
    """The trials as a text, the best first.

    Args:
        search: of which they are.
        trials: from `trials_of`.
        most: rows, beside that of the config's own settings; None for all.
    """
    names = [parameter.name for parameter in search.space.parameters]
    rows = []
    for place, trial in enumerate(trials):
        if most is None or place < most or trial.own:
            values = [_shown(trial.values.get(parameter.key, "")) for parameter in search.space.parameters]
            score = [trial.score.base, trial.score.new, trial.score.mean] if trial.score else [None] * 3
            state = f"{trial.state}, epoch {trial.epoch}" if trial.state == "pruned" else trial.state
            rows.append([trial.number, *values, *score, state + (", the config as it is" if trial.own else "")])
    header = ["trial", *names, "pseudo-base", "pseudo-new", "HM", ""]
    return tabulate(rows, header, floatfmt=".2f", disable_numparse=list(range(1, 1 + len(names))), missingval="-")


def _shown(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def check_name(search: Search, name: str, force: bool) -> None:
    """Raise ValueError if a config cannot be written under a name, or another one than this search's is there."""
    if not re.fullmatch(r"[A-Za-z0-9._=,+-]+", name) or name.startswith("."):
        raise ValueError(f"--name must consist of letters, digits and . _ = , + -, got {name!r}")
    path = CONFIGS / search.trainer / f"{name}.yaml"
    written = search.folder / WRITTEN
    if path.exists() and not force and not (written.exists() and written.read_bytes() == path.read_bytes()):
        raise ValueError(
            f"{path} is there, and not as this search wrote it: give another --name, or --force to replace it"
        )


def write_config(search: Search, trial: Trial, trials: Sequence[Trial], name: str, command: str, force: bool) -> Path:
    """Write the config with a trial's settings, with a head that says how it was chosen.

    Args:
        search: of which the trial is.
        trial: the one that is chosen.
        trials: all of them.
        name: of the config.
        command: by which it was chosen.
        force: whether another file of that name is replaced.

    Returns:
        Its path, which `CFG=<name>` takes.

    Raises:
        ValueError: another file of that name is there.
    """
    path = CONFIGS / search.trainer / f"{name}.yaml"
    content = yaml.safe_load(search.file.read_text(encoding="utf-8")) or {}
    for key, value in search.settings_of(trial.values).items():
        if key == FINAL_MODEL or not key.startswith(NOT_OF_METHOD):
            _put(content, key, value)
    head = "".join(f"# {escaped(line)}\n" for line in _head(search, trial, trials, command))
    text = head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=WIDTH)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        check_name(search, name, force)
    for place in (path, search.folder / WRITTEN):
        with atomic_write(place) as part:
            part.write_text(text, encoding="utf-8")
    return path


def _head(search: Search, trial: Trial, trials: Sequence[Trial], command: str) -> list[str]:
    """How the config was chosen, in lines."""
    states = [other.state for other in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines = [f"{search.config}.yaml with the settings that did best on pseudo-new classes, chosen by", f"    {command}"]
    shots = shots_name(search.shots) if search.shots > 0 else "all training images"
    told = (
        f"Halves of the base classes of {', '.join(search.smaller)}; seeds {', '.join(map(str, search.seeds))}; "
        f"{shots}; Optuna {optuna.__version__}, {len(trials)} trials ({counts}). No new class and no test "
        "image was looked at."
    )
    lines += textwrap.wrap(told, WIDTH - 2)
    if trial.score:
        lines.append(f"Trial {trial.number}: {_figures(trial.score)}")
    for other in trials:
        if other.own and other.score and other is not trial:
            lines.append(f"{search.config}.yaml as it is: {_figures(other.score)} ({other.state})")
    varied = ", ".join(f"{key} {_shown(value)}" for key, value in trial.values.items())
    return lines + textwrap.wrap(f"Varied: {varied}", WIDTH - 2)


def _figures(score: Score) -> str:
    return f"pseudo-base {score.base:.2f}, pseudo-new {score.new:.2f}, HM {score.mean:.2f}"


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    """Put a setting into the nested content of a config file."""
    *nodes, name = key.split(".")
    node = content
    for part in nodes:
        if not isinstance(node.get(part), dict):
            node[part] = {}
        node = node[part]
    node[name] = value
