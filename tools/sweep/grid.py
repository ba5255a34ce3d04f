"""What `python -m tools.sweep.search` does: base-to-new runs over a grid of settings, on smaller data sets."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import compat  # noqa: F401  makes `import dassl` work

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from tabulate import tabulate

import datasets  # noqa: F401  registers the readers
from datasets.base import GENERATOR
from datasets.files import write_json
from datasets.rendered import RenderedDataset
from datasets.splits import Item, Split, save_split
from tools.common.layout import trains_nothing
from tools.common.paths import ROOT
from tools.results.tables import harmonic_mean
from tools.sweep.experiment import Experiment, do_experiments

PICTURES = 25  # a class to choose by
FIRST = 1000  # their numbers begin far after those of the set's own pictures


def make_pseudo_set(dataset: str, root: Path) -> None:
    """Write the smaller set of an embedded one into `root`, where its reader finds it, unless it is there.

    Raises:
        ValueError: the set is not a painted one.
    """
    cfg = get_cfg_default()
    cfg.merge_from_file(str(ROOT / f"configs/datasets/{dataset}.yaml"))
    reader = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if not issubclass(reader, RenderedDataset) or reader.__init__ is not RenderedDataset.__init__:
        raise ValueError(f"a search needs a painted data set without options of its own, as shapes, got {dataset}")
    folder = root / reader.dataset_dir
    if (folder / reader.split_file).is_file():
        return
    painter = object.__new__(reader)  # without reading, and so without writing, the set itself
    parts: list[list[Item]] = [[], []]
    n_base = -(-len(reader.class_folders) // 2)
    for label, name in enumerate(reader.class_folders[:n_base]):
        numbers = (range(reader.parts.train), range(FIRST, FIRST + PICTURES))
        for items, number in ((items, n) for items, part in zip(parts, numbers) for n in part):
            path = folder / reader.image_dir / painter.file(label, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            painter.paint(label, number).save(path)
            items.append(Item(painter.file(label, number), label, reader.renamed_classes.get(name, name)))
    write_json(painter.generator(), str(folder / GENERATOR))  # or the reader would take them for an older version's
    save_split(Split(parts[0], [], parts[1]), str(folder / reader.split_file))


def run_name(settings: dict[str, str]) -> str:
    """A folder's name for settings, of at most 200 characters: file systems take 255."""
    name = ",".join(f"{key}={value}".replace("/", "_") for key, value in sorted(settings.items())) or "plain"
    return name if len(name) <= 200 else name[:159] + "," + hashlib.sha1(name.encode()).hexdigest()


def experiments(
    trainer: str, config: str, dataset: str, seed: int, settings: dict[str, str], folder: Path
) -> tuple[Experiment, Experiment]:
    """The run on pseudo-base classes, trained unless the trainer trains nothing, and its test on pseudo-new ones."""
    given = {"TRAIN.CHECKPOINT_FREQ": 0, **settings}
    base = Experiment(trainer, config, dataset, seed, "base", folder / "base", given)
    new = replace(base, classes="new", folder=folder / "new", tested=base.folder)
    if trains_nothing(trainer):
        base, new = (replace(half, train=False, tested=None) for half in (base, new))
    return base, new


def search(args: argparse.Namespace, command: str) -> None:
    """Run every combination on every set and seed, and print the table.

    Args:
        args: of the command line.
        command: what is kept with the table as how it was made.

    Raises:
        OSError, ValueError: as `make_pseudo_set` and `choose_engine`, or runs failed.
    """
    keys = [key for key, *_ in args.vary]
    grid = [dict(zip(keys, values)) for values in itertools.product(*(values for _, *values in args.vary))]
    data = args.output / "data"
    for dataset in args.dataset:
        make_pseudo_set(dataset, data)

    rows = []
    trials: list[tuple[int, tuple[Experiment, Experiment]]] = []
    for (number, settings), dataset, seed in itertools.product(enumerate(grid), args.dataset, args.seeds):
        given = {**dict(args.set), **settings}
        folder = args.output / args.trainer / args.config / run_name(given) / dataset / f"seed{seed}"
        trials.append((number, experiments(args.trainer, args.config, dataset, seed, given, folder)))
    halves = [half for _, pair in trials for half in pair]
    failures = do_experiments(halves, args.output, data, args)
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
