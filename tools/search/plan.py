"""What a search is: its data sets, seeds and space, the runs of a trial, and what a trial is worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import compat  # noqa: F401  makes `import dassl` work

from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from datasets.files import read_json, write_json
from tools.common.layout import trains_nothing
from tools.common.paths import ROOT
from tools.results.tables import harmonic_mean
from tools.search.smaller import OF_TESTS, Smaller, check_keys, check_smaller, check_start
from tools.search.space import Space, Value, read_space
from tools.sweep.experiment import Experiment, configure
from trainers.base import ClipTrainer
from trainers.modules.loading import load_clip

EPOCHS = "OPTIM.MAX_EPOCH"
FILE_NAME = "search.json"
# Settings of all trials' runs: the search tests them after each rung, and a checkpoint is kept there alone
OF_RUNS: Mapping[str, object] = {
    **OF_TESTS,
    "TEST.NO_TEST": True,
    "TRAIN.CHECKPOINT_FREQ": 0,
    "TRAIN.PRINT_FREQ": 50,
}


@dataclass(frozen=True)
class Score:
    """What a trial is worth after a rung: means over data sets and seeds, in percent.

    Attributes:
        base: accuracy on pseudo-base classes.
        new: accuracy on pseudo-new classes.
    """

    base: float
    new: float

    @property
    def mean(self) -> float:
        """Their harmonic mean."""
        return harmonic_mean(self.base, self.new)


@dataclass(frozen=True)
class Rung:
    """The runs of a trial on one data set with one seed, as far as one rung.

    Attributes:
        training: as far as the rung's epoch; the next rung goes on with it.
        tests: of that epoch, on pseudo-base and on pseudo-new classes.
    """

    training: Experiment
    tests: tuple[Experiment, Experiment]
    data: Path


@dataclass(frozen=True)
class Search:
    """A search for settings.

    Attributes:
        trainer, config: what the trials start from, configs/trainers/<trainer>/<config>.yaml.
        smaller: the smaller sets by their data sets' names, in the order in which they are taken.
        seeds: of each trial's runs.
        folder: of its runs and its journal.
        shots: training images per class.
        settings: config keys and values of all trials.
        space: what is varied.
        rungs: after how many equal parts of its epochs a trial is compared with others; 1: only at its end.
        seed: of the sampler.
        report_to: where figures of the runs go besides TensorBoard; "" for nowhere.
    """

    trainer: str
    config: str
    smaller: Mapping[str, Smaller] = field(hash=False)
    seeds: tuple[int, ...]
    folder: Path
    space: Space
    shots: int = 16
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)
    rungs: int = 3
    seed: int = 1
    report_to: str = ""

    @property
    def file(self) -> Path:
        """The config that the trials start from."""
        return ROOT / f"configs/trainers/{self.trainer}/{self.config}.yaml"

    def settings_of(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Config keys and values of a trial, beside its config's."""
        return {**self.settings, **self.space.settings(values)}

    def epochs_of(self, values: Mapping[str, Value]) -> dict[int, int]:
        """The number of each rung of a trial by its epoch; the last one is that of the whole training.

        A trial of few epochs has no rung where it has no epoch of its own for it.
        """
        if getattr(TRAINER_REGISTRY.get(self.trainer), "in_one_epoch", False):
            return {1: self.rungs}
        dataset = next(iter(self.smaller))
        epochs = self._configure(dataset, self.seeds[0], self.settings_of(values)).OPTIM.MAX_EPOCH
        return {max(round(epochs * rung / self.rungs), 1): rung for rung in range(1, self.rungs + 1)}

    def rung(self, values: Mapping[str, Value], epoch: int) -> Iterator[Rung]:
        """The runs of a trial as far as an epoch, on all data sets with all seeds."""
        given = self.settings_of(values)
        top = self.folder / "runs" / digest({key: given[key] for key in sorted(given)})
        for dataset, smaller in self.smaller.items():
            settings = {**self._settings(smaller), **given}
            for seed in self.seeds:
                folder = top / dataset / f"seed{seed}"
                training = Experiment(self.trainer, self.config, dataset, seed, "base", folder, settings, until=epoch)
                tests = [
                    replace(
                        training,
                        classes=classes,
                        folder=folder / f"epoch{epoch}" / classes,
                        tested=folder,
                        epochs=(epoch,),
                        until=None,
                    )
                    for classes in ("base", "new")
                ]
                yield Rung(training, (tests[0], tests[1]), smaller.data)

    def check(self) -> None:
        """Check all that can be known before the first trial.

        Raises:
            FileNotFoundError, ValueError: the config or a data set cannot be used, or the config does not take the
                values at the edges of the space; with all of these.
        """
        if trains_nothing(self.trainer):
            raise ValueError(f"{self.trainer} trains nothing, and there is nothing to choose; --vary tries settings")
        if self.rungs < 1 or not self.seeds or self.shots == 0 or self.shots < -1:
            raise ValueError(
                "there must be one rung and one seed at least, and shots from 1 on, or -1 for all images, got "
                f"{self.rungs}, {list(self.seeds)} and {self.shots}"
            )
        check_keys([*self.settings, *self.space.fixed, *(parameter.key for parameter in self.space.parameters)])
        problems = self.edge_problems()
        if problems:
            raise ValueError("; ".join(problems))
        for rung in self.rung(self._start(), 1):
            for test in rung.tests:
                check_smaller(test, rung.data)

    def edge_problems(self) -> list[str]:
        """The errors of the config for values at the edges of the space."""
        start = self._start()
        tried = [start, *({**start, p.key: edge} for p in self.space.parameters for edge in p.edges())]
        problems = []
        for values in tried:
            for dataset in self.smaller:
                try:
                    self._configure(dataset, self.seeds[0], self.settings_of(values))
                except ValueError as error:
                    problems.append(str(error))
        return list(dict.fromkeys(problems))

    def _start(self) -> dict[str, Value]:
        """The config's own values, and others where it has none in the space."""
        own = self.space.own()
        return {parameter.key: own.get(parameter.key, parameter.edges()[0]) for parameter in self.space.parameters}

    def _configure(self, dataset: str, seed: int, settings: Mapping[str, Any]) -> CfgNode:
        """The config of a run, checked; errors as of `train.setup_cfg` and `ClipTrainer.check_cfg`."""
        smaller = self.smaller[dataset]
        given = {**self._settings(smaller), **settings}
        experiment = Experiment(self.trainer, self.config, dataset, seed, "base", self.folder, given)
        _, cfg = configure(experiment, smaller.data)
        if cfg.TEST.FINAL_MODEL == "best_val":
            raise ValueError(
                "TEST.FINAL_MODEL best_val chooses an epoch by validation images, and a search the last one by further "
                "images: --set TEST.FINAL_MODEL last_step"
            )
        check_start(cfg)
        method = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
        if issubclass(method, ClipTrainer):
            method.check_cfg(object.__new__(method), cfg)
        return cfg

    def _settings(self, smaller: Smaller) -> dict[str, object]:
        """What all runs on a data set have, beside what is given and varied."""
        reporting = {"REPORT_TO": self.report_to} if self.report_to else {}
        return {"DATASET.NUM_SHOTS": self.shots, **smaller.settings, **OF_RUNS, **reporting}

    def identity(self) -> dict[str, Any]:
        """What tells this search from others, as plain data. Data may be moved, and trials added."""
        found = {
            "trainer": self.trainer,
            "config": self.config,
            "config_sha256": hashlib.sha256(self.file.read_bytes()).hexdigest(),
            "datasets": {name: dict(smaller.settings) for name, smaller in self.smaller.items()},
            "seeds": list(self.seeds),
            "shots": self.shots,
            "settings": {key: str(value) for key, value in self.settings.items()},
            "space": self.space.as_data(),
            "rungs": self.rungs,
            "sampler_seed": self.seed,
        }
        return json.loads(json.dumps(found))

    def keep_identity(self) -> None:
        """Write what this search is into its folder, or compare it with what is there.

        Raises:
            ValueError: the folder has another search.
        """
        path = self.folder / FILE_NAME
        now = self.identity()
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(now, str(path), replace=False, indent=1)
        found = read_json(str(path), "what the search is")
        found = found if isinstance(found, dict) else {}
        other = [key for key in now if found.get(key) != now[key]]
        if other:
            raise ValueError(
                f"{self.folder} holds a search with another {', '.join(other)}: give this one another --name, or "
                "delete that folder"
            )


def start_config(trainer: str, config: str, dataset: str, smaller: Smaller, settings: Mapping[str, object]) -> CfgNode:
    """The config that trials start from; errors as of `train.setup_cfg`."""
    given = {**smaller.settings, **settings}
    return configure(Experiment(trainer, config, dataset, 1, "base", ROOT, given), smaller.data)[1]


def space_for(path: Path, cfg: CfgNode) -> Space:
    """The space that a file describes for a config; errors as of `space.read_space` and `load_clip`."""
    sizes: dict[str, int] = {}

    def of_clip() -> Mapping[str, int]:
        if not sizes:
            clip = load_clip(cfg.MODEL.BACKBONE.NAME)
            sizes.update(layers=len(clip.transformer.resblocks), width=clip.text_projection.shape[1])
        return sizes

    return read_space(path, cfg, of_clip)


def score(rungs: Sequence[Rung]) -> Score:
    """What a trial is worth by the results of all its runs at a rung."""
    pairs = [[test.metrics()["accuracy"] for test in rung.tests] for rung in rungs]
    base, new = (mean(half) for half in zip(*pairs))
    return Score(base, new)


def digest(content: object) -> str:
    """A short name for plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
