"""Running the study: its data sets, then all runs in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import compat  # noqa: F401  makes `import dassl` work; stands before it

import torch
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from tqdm import tqdm

import datasets  # noqa: F401  registers the data sets
from tools.common.paths import ROOT
from tools.sweep.experiment import Experiment, execute


def write_data_sets(names: Iterable[str], data: Path) -> None:
    """Paint the data sets that are not there yet, before several processes want them."""
    for name in names:
        cfg = get_cfg_default()
        cfg.merge_from_file(str(ROOT / f"configs/datasets/{name}.yaml"))
        cfg.DATASET.ROOT = str(data)
        build_dataset(cfg)


def run_group(group: list[Experiment], data: Path) -> list[str]:
    """Run experiments one after the other.

    Returns:
        A sentence for each that failed.
    """
    torch.set_num_threads(1)  # these models are so small that threads would only wait for each other
    failures = []
    for experiment in group:
        try:
            execute(experiment, data)
        except Exception as error:  # whatever one run meets, the others go on
            failures.append(f"{experiment.folder}: {type(error).__name__}: {error}")
    return failures


def run_all(groups: list[list[Experiment]], data: Path, workers: int) -> list[str]:
    """Run all groups in several processes, with a progress bar; returns a sentence for each run that failed."""
    everything = [experiment for group in groups for experiment in group]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, tqdm(total=len(everything)) as bar:
        futures = [pool.submit(run_group, group, data) for group in groups]
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=10)
            bar.update(sum(experiment.finished for experiment in everything) - bar.n)
        failures = []
        for future, group in zip(futures, groups):
            try:
                failures += future.result()
            except BrokenProcessPool as error:
                failures.append(f"{group[0].folder} or after it: {error}")
        return failures
