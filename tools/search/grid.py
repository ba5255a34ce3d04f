"""`python -m tools.search --vary`: every combination of the values of some settings, on every data set and seed."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean

from tabulate import tabulate

from tools.common.layout import trains_nothing
from tools.results.tables import harmonic_mean
from tools.search.smaller import OF_TESTS, Smaller, check_start
from tools.sweep.engine import Failure
from tools.sweep.experiment import Experiment, configure, do_experiments


def run_name(settings: Mapping[str, str]) -> str:
    """A folder's name for settings, of at most 200 characters: file systems take 255."""
    name = ",".join(f"{key}={value}".replace("/", "_") for key, value in sorted(settings.items())) or "plain"
    return name if len(name) <= 200 else name[:159] + "," + hashlib.sha1(name.encode()).hexdigest()


def experiments(
    trainer: str, config: str, dataset: str, seed: int, settings: Mapping[str, object], folder: Path
) -> tuple[Experiment, Experiment]:
    """The run on pseudo-base classes, trained unless the trainer trains nothing, and its test on pseudo-new ones."""
    given = {**OF_TESTS, "TRAIN.CHECKPOINT_FREQ": 0, **settings}
    base = Experiment(trainer, config, dataset, seed, "base", folder / "base", given)
    new = replace(base, classes="new", folder=folder / "new", tested=base.folder)
    if trains_nothing(trainer):
        base, new = (replace(half, train=False, tested=None) for half in (base, new))
    return base, new


def search_grid(args: argparse.Namespace, config: str, smaller: Mapping[str, Smaller], command: str) -> None:
    """Run every combination on every set and seed, and print the table.

    Args:
        args: of the command line.
        config: of the trainer.
        smaller: the smaller sets by their data sets' names.
        command: what is kept with the table as how it was made.

    Raises:
        OSError, ValueError: as `choose_engine`, the config cannot be used, or runs failed.
    """
    keys = [key for key, *_ in args.vary]
    grid = [dict(zip(keys, values)) for values in itertools.product(*(values for _, *values in args.vary))]
    rows = []
    trials: list[tuple[int, tuple[Experiment, Experiment]]] = []
    for (number, settings), dataset, seed in itertools.product(enumerate(grid), args.dataset, args.seeds):
        given = {**dict(args.set), **settings}
        folder = args.output / args.trainer / config / run_name(given) / dataset / f"seed{seed}"
        given = {"DATASET.NUM_SHOTS": args.shots, **smaller[dataset].settings, **given}
        trials.append((number, experiments(args.trainer, config, dataset, seed, given, folder)))
    for first in {half.dataset: half for _, (half, _) in trials}.values():
        check_start(configure(first, smaller[first.dataset].data)[1])
    failures: list[Failure] = []
    for data in dict.fromkeys(place.data for place in smaller.values()):
        of_these = [name for name, place in smaller.items() if place.data == data]
        halves = [half for _, pair in trials for half in pair if half.dataset in of_these]
        failures += do_experiments(halves, args.output, data, args)
    if failures:
        raise ValueError("\n  ".join(["these runs failed:", *map(str, failures)]))
    accuracies: dict[int, list[tuple[float, float]]] = {}
    for number, (base_half, new_half) in trials:
        pair = (base_half.metrics()["accuracy"], new_half.metrics()["accuracy"])
        accuracies.setdefault(number, []).append(pair)
    for number, pairs in accuracies.items():
        base, new = (mean(half) for half in zip(*pairs))
        rows.append([*grid[number].values(), base, new, harmonic_mean(base, new)])
    rows.sort(key=lambda row: -row[-1])
    header = [*keys, "pseudo-base", "pseudo-new", "HM"]
    print(tabulate(rows, header, floatfmt=".2f", disable_numparse=list(range(len(keys)))))
    if args.save:
        args.save.write_text(json.dumps({"command": command, "header": header, "rows": rows}, indent=1) + "\n")
