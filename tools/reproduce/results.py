"""The result of each planned run: read, and refused where it is of another run than the one that was planned."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import compat  # noqa: F401  makes `import dassl` work; stands before it

from yacs.config import CfgNode

import train
from settings.reading import rename_keys, setup_cfg
from tools.common.paths import ROOT
from tools.results.runs import read_results
from tools.sweep.protocols import Step
from trainers.resuming import training_settings

NOT_RUN = "not run"


@dataclass(frozen=True)
class Result:
    """What a planned run has left.

    Attributes:
        accuracy: in percent; None if there is none that counts.
        problem: why there is none; empty if there is one.
        refused: whether results are there, and do not count.
        images: that were tested.
        digest: of the weights of its CLIP.
        seconds: of training and test; None where it does not tell.
        device: cpu, or the name of the GPU.
        commit: of the code; empty where it does not tell.
    """

    accuracy: float | None = None
    problem: str = ""
    refused: bool = False
    images: int = 0
    digest: str = ""
    seconds: float | None = None
    device: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Reader:
    """Reads results of planned runs.

    Attributes:
        output: folder of the runs.
        settings: KEY VALUE pairs of the plan.
        failed: errors of runs that have failed now, by their names.
    """

    output: Path
    settings: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)

    def read(self, step: Step) -> Result:
        """The result of a run. Nothing that stands in its folder makes this raise."""
        path = self.output / step.place.folder / "results.json"
        if not path.is_file():
            return Result(problem=self.failed.get(step.name) or NOT_RUN)
        again = f"remove {path.parent} to have it run again"
        try:
            found = read_results(path)
            content = json.loads(path.read_text(encoding="utf-8"))
            problem = found.problem or self._other_run(step, content)
            seconds = _seconds(content)
            images = content.get("images")
        except (OSError, ValueError) as error:
            return Result(problem=f"{error}; {again}", refused=True)
        if problem:
            return Result(problem=f"{path} {problem.removeprefix(f'{path} ')}; {again}", refused=True)
        return Result(
            accuracy=found.accuracy,
            images=images if isinstance(images, int) else 0,
            digest=str(content.get("backbone_sha256", "")),
            seconds=seconds,
            device=str(content.get("device", "")),
            commit=str(content.get("commit") or ""),
        )

    def _other_run(self, step: Step, content: Mapping[str, Any]) -> str:
        """How results differ from those of the planned run, a sentence without its subject; empty if they do not."""
        place = step.place
        for key, wanted in (("trainer", place.trainer), ("seed", place.seed), ("classes", place.classes)):
            if content.get(key) != wanted:
                return f"is of {key} {content.get(key)}, not {wanted}"
        if not isinstance(content.get("config"), dict):
            return "does not say with which settings it was made"
        wanted = expected_config(place.trainer, step.config, step.dataset, place.classes, tuple(self.settings))
        config = CfgNode(content["config"])
        rename_keys(wanted, config)
        now, before = (training_settings(cfg, place.trainer) for cfg in (wanted, config))
        differing = [
            f"{key} {before[key]} in place of {now[key]}"
            for key in now
            if key in before and key != "SEED" and before[key] != now[key]
        ]
        return f"was made with {'; '.join(differing)}" if differing else ""


@functools.cache
def expected_config(trainer: str, config: str, dataset: str, classes: str, settings: tuple[str, ...]) -> CfgNode:
    """The config that `train.py` makes for a planned run, but for seed and folders.

    Raises:
        OSError, ValueError: as `settings.reading.setup_cfg`; with all that is wrong with the settings.
    """
    files = (f"configs/datasets/{dataset}.yaml", f"configs/trainers/{trainer}/{config}.yaml")
    arguments = ["--trainer", trainer, "--dataset-config-file", str(ROOT / files[0])]
    arguments += ["--config-file", str(ROOT / files[1]), "DATASET.NUM_SHOTS", "16"]
    arguments += ["DATASET.SUBSAMPLE_CLASSES", classes, *settings]
    with contextlib.redirect_stdout(io.StringIO()):  # notes that the runs print, too
        return setup_cfg(train.parse_arguments(arguments))


def _seconds(content: Mapping[str, Any]) -> float | None:
    try:
        return float(content["test_seconds"]) + float(content["train_seconds"] or 0.0)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
