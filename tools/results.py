"""Tables from the `results.json` files of finished runs.

    python -m tools.results output [--dataset shapes]

Base and new accuracy in percent, mean over seeds; HM is the harmonic mean of the two means, as in the papers.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from tabulate import tabulate


class Run(NamedTuple):
    """Where a run belongs, by its place in CoOp's folder layout; the part of the protocol it is of stands apart."""

    dataset: str
    shots: str
    trainer: str
    config: str
    seed: int


# Where the results of each half lie, the preferred folder first: a test of its own goes before the training run's
PARTS = {"base": ("test_base", "train_base"), "new": ("test_new",)}


def read_runs(output: str | Path) -> dict[str, dict[Run, float]]:
    """Accuracies of all finished base-to-new runs below `output`.

    Returns:
        For "base" and "new": the accuracy in percent of each run.

    Raises:
        ValueError: a `results.json` is broken.
    """
    accuracies: dict[str, dict[Run, float]] = {part: {} for part in PARTS}
    for part, folders in PARTS.items():
        for folder in folders:
            top = Path(output, "base2new", folder)
            for path in sorted(top.glob("*/shots_*/*/*/seed*/results.json")):
                dataset, shots, trainer, config, seed = path.parent.relative_to(top).parts
                if not seed.removeprefix("seed").isdecimal():
                    continue  # a folder set aside
                run = Run(dataset, shots.removeprefix("shots_"), trainer, config, int(seed.removeprefix("seed")))
                try:
                    accuracy = json.loads(path.read_text())["figures"]["accuracy"]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{path} is not a whole results.json: {error}") from error
                accuracies[part].setdefault(run, accuracy)
    return accuracies


def harmonic_mean(a: float, b: float) -> float:
    """Harmonic mean of two accuracies, 0 if one of them is."""
    return 2 * a * b / (a + b) if a and b else 0.0


def base_to_new(accuracies: dict[str, dict[Run, float]], dataset: str = "") -> tuple[list[list], list[str]]:
    """Rows of the base-to-new table and what is missing for it.

    A seed counts where both its base and its new accuracy are there; one that lacks either is named, not averaged over.

    Args:
        accuracies: from `read_runs`.
        dataset: only this one; empty for all.

    Returns:
        Rows of data set, trainer, config, seeds, base, new, HM; and a sentence for each run that is missing.
    """
    settings = defaultdict(set)
    for part in accuracies.values():
        for run in part:
            if not dataset or run.dataset == dataset:
                settings[run[:-1]].add(run.seed)
    rows, missing = [], []
    for setting, seeds in sorted(settings.items()):
        pairs = {}
        for seed in sorted(seeds):
            run = Run(*setting, seed)
            lacking = [part for part in accuracies if run not in accuracies[part]]
            if lacking:
                missing.append(f"{' '.join(setting)} seed {seed}: no {' and no '.join(lacking)} result")
            else:
                pairs[seed] = (accuracies["base"][run], accuracies["new"][run])
        if pairs:
            base, new = zip(*pairs.values())
            name, shots, trainer, config = setting
            hm = harmonic_mean(mean(base), mean(new))
            rows.append([name, shots, trainer, config, len(pairs), _spread(base), _spread(new), f"{hm:.2f}"])
    return rows, missing


def _spread(values: tuple[float, ...]) -> str:
    """Mean, and standard deviation where there is more than one value."""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def table(output: str | Path, dataset: str = "") -> str:
    """The base-to-new table as text, with what is missing below it.

    Raises:
        FileNotFoundError: there is no finished run.
        ValueError: as `read_runs`.
    """
    rows, missing = base_to_new(read_runs(output), dataset)
    if not rows and not missing:
        raise FileNotFoundError(f"no results.json of a base-to-new run{' on ' * bool(dataset)}{dataset} below {output}")
    headers = ["data set", "shots", "trainer", "config", "seeds", "Base", "New", "HM"]
    lines = [tabulate(rows, headers, disable_numparse=True)] if rows else []
    return "\n".join(lines + [f"missing: {sentence}" for sentence in missing])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="output folder of the runs")
    parser.add_argument("--dataset", default="", help="only this data set")
    args = parser.parse_args()
    try:
        print(table(args.output, args.dataset))
    except (FileNotFoundError, ValueError) as error:
        parser.exit(2, f"tools.results: {error}\n")


if __name__ == "__main__":
    main()
