"""Runs of `train.py` within this process, for programs that make hundreds: `tools.search` and `tools.study`."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import compat  # noqa: F401  makes `import dassl` work; stands before it

from dassl.engine import build_trainer
from dassl.utils import set_random_seed

import train
from tools.runs import read_results

ROOT = Path(__file__).resolve().parent.parent
# Trainers that are tested as they are
UNTRAINED = ("ZeroshotCLIP", "ZeroshotCLIP2")


@dataclass(frozen=True)
class Experiment:
    """One run, or tests of several epochs of one run.

    Attributes:
        trainer: its name.
        config: configs/trainers/<trainer>/<config>.yaml.
        dataset: configs/datasets/<dataset>.yaml.
        seed: the random seed.
        classes: base, new or all.
        folder: of the output; in a test of several epochs, of the output of each, with {} for the epoch.
        settings: config keys and values besides.
        tested: folder of the run whose model is tested; None to train, or to test what needs no training.
        epochs: of that run, to be tested; its last one if empty.
        train: whether to train at all.
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

    @property
    def folders(self) -> list[Path]:
        """Where results are to be."""
        return [Path(str(self.folder).format(epoch)) for epoch in self.epochs] or [self.folder]

    @property
    def finished(self) -> bool:
        return all((folder / "results.json").is_file() for folder in self.folders)

    def figures(self) -> dict[str, float]:
        """The figures in `results.json` of a single run.

        Raises:
            OSError: it has not finished.
            ValueError: the file is broken.
        """
        return read_results(self.folder / "results.json").figures


def execute(experiment: Experiment, data: Path) -> None:
    """Run an experiment unless it is finished; one that was cut goes on from its last checkpoint.

    What it prints is put into `log.txt` in its folder.

    Args:
        data: folder of the data sets.

    Raises:
        OSError, ValueError: as `train.py` meets them.
    """
    if experiment.finished:
        return
    first = experiment.folders[0]
    first.mkdir(parents=True, exist_ok=True)
    progress_bars = io.StringIO()
    with (
        (first / "log.txt").open("a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(progress_bars),
    ):
        _run(experiment, data)


def _run(experiment: Experiment, data: Path) -> None:
    given = {
        "DATASET.NUM_SHOTS": 16,
        "DATALOADER.NUM_WORKERS": 0,
        **experiment.settings,
        "DATASET.SUBSAMPLE_CLASSES": experiment.classes,
    }
    arguments = ["--root", data, "--trainer", experiment.trainer, "--seed", experiment.seed]
    arguments += ["--output-dir", experiment.folders[0]]
    arguments += ["--dataset-config-file", ROOT / f"configs/datasets/{experiment.dataset}.yaml"]
    arguments += ["--config-file", ROOT / f"configs/trainers/{experiment.trainer}/{experiment.config}.yaml"]
    arguments += itertools.chain.from_iterable(given.items())
    args = train.parse_arguments([str(argument) for argument in arguments])
    args.model_dir = str(experiment.tested or "")
    cfg = train.setup_cfg(args)
    set_random_seed(cfg.SEED)
    train.print_settings(args, cfg)
    trainer = build_trainer(cfg)
    if experiment.train and experiment.tested is None:
        trainer.train()
        return
    for epoch, folder in zip(experiment.epochs or (cfg.OPTIM.MAX_EPOCH,), experiment.folders):
        if experiment.tested is not None:
            trainer.load_model(str(experiment.tested), epoch=epoch)
        trainer.output_dir = str(folder)
        trainer.test()
