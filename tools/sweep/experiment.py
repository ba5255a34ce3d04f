"""Runs of `train.py` within a process that makes many, for `tools.search` and `tools.study`.

Importing PyTorch takes longer than a small run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import compat  # noqa: F401  makes `import dassl` work; stands before it

from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from yacs.config import CfgNode

import train
from settings.log import print_settings
from settings.paths import find_paths
from settings.reading import rename_keys
from tools.calibrate.__main__ import parse_arguments as parse_calibration
from tools.calibrate.fit import calibrate, describe
from tools.common.paths import ROOT
from tools.results.runs import read_results
from tools.sweep.engine import LOGS, Failure, Run, clear_logs
from tools.sweep.sweep import do_runs
from tools.sweep.work import perform
from trainers.modules.calibration_file import calibration_path
from trainers.modules.figures import receiver_problem

# Settings that change no result: where things lie, and how often training prints; a calibration adds figures of its own
WITHOUT_EFFECT = (
    *("DATASET.ROOT", "DATASET.IMAGES_OUTSIDE", "OUTPUT_DIR", "REPORT_TO", "TEST.CALIBRATION", "TRAIN.PRINT_FREQ"),
    "TRAINER.CDC.FEATURE_BANK_DIR",
)


@dataclass(frozen=True)
class Experiment:
    """One run, or tests of several epochs of one run.

    Attributes:
        trainer: its name.
        config: configs/trainers/<trainer>/<config>.yaml.
        dataset: configs/datasets/<dataset>.yaml.
        seed: the random seed.
        classes: base, new or all.
        folder: the output folder; in a test of several epochs, that of each, with {} for the epoch.
        settings: config keys and values besides.
        tested: folder of the run whose model is tested; None to train, or to test what needs no training.
        epochs: the epochs of that run that are tested; its last one if empty.
        train: whether to train at all.
        until: the epoch after which training stops, to go on later; None for the last one.
        calibrated: folder of the run whose calibration a test uses besides, fitted first if it is missing; None for
            none.
    """

    trainer: str
    config: str
    dataset: str
    seed: int
    classes: str
    folder: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    tested: Path | None = None
    epochs: tuple[int, ...] = ()
    train: bool = True
    until: int | None = None
    calibrated: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """Where results are to be."""
        return [Path(str(self.folder).format(epoch)) for epoch in self.epochs] or [self.folder]

    @property
    def finished(self) -> bool:
        """Whether the results are there. `execute` checks which settings they were made with."""
        return all((folder / "results.json").is_file() for folder in self.folders)

    def metrics(self) -> dict[str, float]:
        """The metrics in `results.json` of a single run.

        Raises:
            OSError: it has not finished.
            ValueError: the file is broken.
        """
        return read_results(self.folder / "results.json").metrics


def execute(experiment: Experiment, data: Path) -> None:
    """Run an experiment unless it is finished.

    What it prints is put into `log.txt` in its folder.

    Args:
        data: folder of the data sets.

    Raises:
        OSError, ValueError, FloatingPointError: as `train.py` and `tools.calibrate` meet them.
        ValueError: it was run with other settings before.
    """
    args, cfg = configure(experiment, data)
    if experiment.finished:
        _check_settings(experiment, cfg)
        return
    first = experiment.folders[0]
    first.mkdir(parents=True, exist_ok=True)
    bars = io.StringIO()  # progress bars, which nobody watches
    with (first / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(bars):
        run = experiment.calibrated
        if run and not calibration_path(run).is_file():
            print(describe(run, *calibrate(run, parse_calibration([str(run), "--root", str(data)]))))
        _run(experiment, args, cfg)


@dataclass(frozen=True)
class ExperimentTask:
    """An experiment as a task of the engine."""

    experiment: Experiment
    data: Path

    def __call__(self, log: Path, tick: Callable[[], None]) -> None:
        """Run it, with what it prints in its own folder; errors as for `execute`."""
        execute(self.experiment, self.data)


def runs_of(experiments: Sequence[Experiment], output: Path, data: Path) -> list[Run]:
    """Experiments as runs of the engine, named by their folders; those that come first are run earlier.

    Args:
        output: folder below which all of them lie.
        data: folder of the data sets.
    """
    names = {experiment.folder: experiment.folder.relative_to(output).as_posix() for experiment in experiments}
    fits: dict[Path, Path] = {}  # of each calibration the experiment that comes first, and fits it for the others
    needs = []
    for each in experiments:
        first = fits.setdefault(each.calibrated, each.folder) if each.calibrated else each.folder
        wanted = dict.fromkeys((each.tested, each.calibrated, first))
        needs.append(tuple(names[folder] for folder in wanted if folder in names and folder != each.folder))
    return [
        Run(
            name=names[experiment.folder],
            task=ExperimentTask(experiment, data),
            log=output / LOGS / f"{names[experiment.folder]}.log",
            needs=needs[number],
            weight=-number,
            watched=experiment.folders[0] / "log.txt",
        )
        for number, experiment in enumerate(experiments)
    ]


def check_receiver(name: str) -> None:
    """Raise ValueError if figures cannot be reported to what `--report-to` names; "" is nowhere."""
    if problem := receiver_problem(name):
        raise ValueError(problem)


def do_experiments(
    experiments: Sequence[Experiment], output: Path, data: Path, options: argparse.Namespace, cpus: int | None = None
) -> list[Failure]:
    """Run experiments by the engine, each after the one that it tests, and after the one that fits its calibration.

    For finished experiments it only compares the settings.

    Args:
        experiments, output, data: as for `runs_of`.
        options: those of `engine.add_options` and `engine.add_report_to`.
        cpus: how many cores of this machine are used; None for all.

    Returns:
        What failed.

    Raises:
        ValueError, ConnectionError: as `engine.choose_engine` and `check_receiver`.
        KeyboardInterrupt: Ctrl-C.
    """
    check_receiver(options.report_to)
    reporting = {"REPORT_TO": options.report_to} if options.report_to else {}
    experiments = [replace(experiment, settings={**experiment.settings, **reporting}) for experiment in experiments]
    experiments = list({experiment.folder: experiment for experiment in experiments}.values())
    failures, left = [], []
    for experiment, run in zip(experiments, runs_of(experiments, output, data)):
        if not experiment.finished:
            left.append(run)
        elif error := perform(run.task, run.log).error:
            failures.append(Failure(run, error))
    failures += do_runs(left, options, cpus)
    clear_logs(output)
    return failures


def _check_settings(experiment: Experiment, cfg: CfgNode) -> None:
    """Refuse results that were made with other settings than these."""
    for folder in experiment.folders:
        found = CfgNode(json.loads((folder / "results.json").read_text())["config"])
        rename_keys(cfg, found)
        find_paths(found)
        now = _flat(json.loads(json.dumps(cfg)))
        # Keys that are newer than the results had what their defaults are now.
        defaults = _flat(json.loads(json.dumps(get_cfg_default())))
        before = {**{key: value for key, value in defaults.items() if key in now}, **_flat(found)}
        for settings in (before, now):  # these are files of a checkout, which may have been elsewhere
            far: Any = settings["TEST.FAR_SETS"]
            settings["TEST.FAR_SETS"] = [Path(path).stem for path in far]
        other = sorted(key for key in before.keys() | now.keys() if not _same(before.get(key), now.get(key)))
        if set(other) - set(WITHOUT_EFFECT):
            names = ", ".join(key for key in other if key not in WITHOUT_EFFECT)
            raise ValueError(f"{folder} holds results of another {names}: delete it, or put it aside")


def _same(one: object, other: object) -> bool:
    """Whether two settings are the same, or two paths of the same file."""
    if isinstance(one, str) and isinstance(other, str) and os.path.isfile(one) and os.path.isfile(other):
        return os.path.samefile(one, other)
    return one == other


def _flat(config: Mapping, prefix: str = "") -> dict[str, object]:
    """Settings by their whole names."""
    flat: dict[str, object] = {}
    for name, value in config.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def configure(experiment: Experiment, data: Path) -> tuple[argparse.Namespace, CfgNode]:
    """Arguments and config that train.py would have.

    Raises:
        FileNotFoundError, ValueError: as `train.setup_cfg`.
    """
    given = {
        "DATASET.NUM_SHOTS": 16,
        "DATALOADER.NUM_WORKERS": 0,
        **experiment.settings,
        "DATASET.SUBSAMPLE_CLASSES": experiment.classes,
        **({"TEST.CALIBRATION": experiment.calibrated} if experiment.calibrated else {}),
    }
    arguments = ["--root", data, "--trainer", experiment.trainer, "--seed", experiment.seed]
    arguments += ["--output-dir", experiment.folders[0]]
    arguments += ["--dataset-config-file", ROOT / f"configs/datasets/{experiment.dataset}.yaml"]
    arguments += ["--config-file", ROOT / f"configs/trainers/{experiment.trainer}/{experiment.config}.yaml"]
    arguments += itertools.chain.from_iterable(given.items())
    args = train.parse_arguments([str(argument) for argument in arguments])
    args.model_dir = str(experiment.tested or "")
    return args, train.setup_cfg(args)


def _run(experiment: Experiment, args: argparse.Namespace, cfg: CfgNode) -> None:
    set_random_seed(cfg.SEED)
    print_settings(args, cfg)
    trainer = build_trainer(cfg)
    if experiment.train and experiment.tested is None:
        if experiment.until is not None:  # what depends on the length of a training takes it from the config
            trainer.max_epoch = min(experiment.until, trainer.max_epoch)
        trainer.train()
        return
    for epoch, folder in zip(experiment.epochs or (trainer.max_epoch,), experiment.folders):
        if experiment.tested is not None:
            trainer.load_model(str(experiment.tested), epoch=epoch)
        trainer.output_dir = str(folder)
        trainer.test()
