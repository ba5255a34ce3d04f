"""Running the study: its data sets, then all runs by the engine of `tools.sweep`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import compat  # noqa: F401  makes `import dassl` work; stands before it

import torch
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset

import datasets  # noqa: F401  registers the data sets
from tools.common.paths import ROOT
from tools.sweep.engine import Failure
from tools.sweep.experiment import Experiment, do_experiments


def write_data_sets(names: Iterable[str], data: Path) -> None:
    """Paint the data sets that are not there yet, before several processes want them."""
    for name in names:
        cfg = get_cfg_default()
        cfg.merge_from_file(str(ROOT / f"configs/datasets/{name}.yaml"))
        cfg.DATASET.ROOT = str(data)
        build_dataset(cfg)


def run_all(experiments: Sequence[Experiment], output: Path, data: Path, options: argparse.Namespace) -> list[Failure]:
    """Run all experiments; arguments, result and errors as of `do_experiments`, with `options.workers` cores."""
    torch.set_num_threads(1)  # these models are so small that threads would only wait for each other
    return do_experiments(experiments, output, data, options, options.workers)
