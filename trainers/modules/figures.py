"""Where the figures of a run go as they come: to an object that takes each with its step.

TensorBoard's `SummaryWriter`, which Dassl opens, is such an object. The config key `REPORT_TO` chooses another one
besides. A further service is one more class in `RECEIVERS`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from storage.files import atomic_write

from .open_clip_models import split_path

PROJECT = "cdc"  # unless WANDB_PROJECT names another
FINISH_SECONDS = 120.0  # to wait for a network in the end; `wandb sync` sends what is left
# Keys of a config that say where a run's files lie
PLACES = ("OUTPUT_DIR", "RESUME", "ROOT")
# Of the machine wandb would send its name, user, command line, packages, git remote and load.
PRIVATE = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "finish_timeout": FINISH_SECONDS,
    "host": "",
    "quiet": True,
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
_ID = re.compile("[0-9a-f]{16}")


class Figures(Protocol):
    """What takes the figures of one run."""

    def add_scalar(self, tag: str, value: float, step: int | None = None, /) -> object:
        """Take a figure.

        Args:
            tag: its name, as `train/loss` or `test/accuracy`.
            value: the figure.
            step: of `train/` the training step, else the epoch, both from 0 on.
        """

    def close(self, failed: bool = False, /) -> object:
        """Take no more; `failed` says that the run has ended with an error."""


class Wandb:
    """A run on Weights & Biases.

    Its number is kept in the run's folder, so a run that is cut and goes on is one run there, too. Figures stand at the
    training step after which they came. A problem after the start is reported once, and the training goes on.

    Args:
        folder: of the run.
        name: of the run, for people.
        settings: the run's config, of which no path to a folder is sent (`without_places`).

    Raises:
        ValueError: wandb is not installed, or cannot begin.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str, settings: Mapping[str, Any]) -> None:
        try:
            wandb = importlib.import_module("wandb")
            known = wandb.Settings.model_fields
        except Exception as error:
            raise ValueError(
                f"--report-to wandb needs the package wandb ({_line(error)}): pip install -e '.[wandb]'"
            ) from error
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                name=name,
                id=_kept_id(Path(folder)),
                resume="allow",
                dir=os.fspath(folder),
                config=without_places(settings),
                settings=wandb.Settings(**{key: value for key, value in PRIVATE.items() if key in known}),
            )
        except Exception as error:
            raise ValueError(f"--report-to wandb: {_line(error)}") from error
        self._first_step: int = self._run.step  # what a run that goes on has reported before
        self._step = 0
        self._row: dict[str, float] = {}
        self._works = True

    def add_scalar(self, tag: str, value: float, step: int | None = None, /) -> None:
        if _of_training(tag) and step is not None and step != self._step:
            self._send()
            self._step = step
        self._row[tag] = float(value)

    def close(self, failed: bool = False, /) -> None:
        self._send()
        self._attempt(lambda: self._run.finish(exit_code=int(failed)))

    def _send(self) -> None:
        """Send the figures of one step, but for those of training that were sent before a run was cut."""
        again = self._step < self._first_step
        row = {tag: value for tag, value in self._row.items() if not (again and _of_training(tag))}
        self._row = {}
        if row and self._works:
            self._attempt(lambda: self._run.log(row, step=max(self._step, self._run.step)))

    def _attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever it is, it must not end a training
            if self._works:
                print(f"Note: wandb takes no more figures, and the run goes on without it: {_line(error)}")
            self._works = False


RECEIVERS: dict[str, Callable[[str, str, Mapping[str, Any]], Figures]] = {"wandb": Wandb}


def receiver_problem(name: str) -> str:
    """Why figures cannot be reported to what `REPORT_TO` names; "" where they can, or are not to be."""
    if name and name not in RECEIVERS:
        return f"--report-to (REPORT_TO) must be {' or '.join(RECEIVERS)}, got {name!r}"
    if name and importlib.util.find_spec(name) is None:
        return f"--report-to {name} needs the package {name}, which is not installed: pip install -e '.[{name}]'"
    return ""


def last_names(folder: str | os.PathLike[str]) -> list[str]:
    """The last two names of a path as it is given, but for those of the user and of the home folder."""
    return [name for name in Path(folder).parts[-2:] if not _tells_who(name)]


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the folders that its files lie in: of an absolute path the last name is kept."""
    return {key: _without(value) for key, value in settings.items() if key not in PLACES}


def _without(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_places(value)
    if isinstance(value, (list, tuple)):
        return [_without(one) for one in value]
    if not isinstance(value, str):
        return value
    before, path = split_path(value)
    if not path.startswith(("~", "/")) and not os.path.isabs(path):
        return value
    name = os.path.basename(path)
    return before + ("" if _tells_who(name) else name)


def _tells_who(name: str) -> bool:
    users = {os.environ.get(variable) for variable in ("USER", "LOGNAME")}
    return name in users or name in Path(os.path.expanduser("~")).parts or name.startswith("~")


def _of_training(tag: str) -> bool:
    return tag.startswith("train/")


def _kept_id(folder: Path) -> str:
    """The run's number, which its folder keeps from the first time on."""
    path = folder / "wandb" / "run_id"
    found = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not _ID.fullmatch(found):
        found = secrets.token_hex(8)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_text(f"{found}\n", encoding="utf-8")
    return found


def _line(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
