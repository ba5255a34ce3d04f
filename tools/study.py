"""The study: every protocol of the paper and its ablation on the embedded data sets over the embedded CLIP.

    make study                  # or python -m tools.study; some 270 trainings, resumable
    make study QUICK=1          # or python -m tools.study --quick: each part once, briefly, into output/study_quick

Runs lie below `--output` in the layout of the scripts, for `tools.results` and `tools.predict` too. From their
`results.json` files alone `tools.study_page` then makes the page and its figures. Runs that are finished are not run
again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import compat  # noqa: F401  makes `import dassl` work; stands before it

import torch
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from tqdm import tqdm

from tools.experiment import ROOT, Experiment, execute
from tools.runs import VARIANTS

SETS = ("shapes", "textures", "digits", "letters", "symbols", "backgrounds")
SOURCE = "shapes"
CONFOUNDED = "confounded"
ABLATED = ("shapes", "textures", "letters")  # on which parts are left out and numbers varied
CURVE_SETS = ("shapes", "textures")  # shown over the epochs


@dataclass(frozen=True)
class Method:
    """A trainer with its settings.

    Attributes:
        title: in tables.
        trainer, config: as for the scripts.
        tag: what is put behind the config in the name of the run's folder, as the scripts do with TAG.
        settings: config keys and values besides.
        train: or is tested as it starts, which does not depend on the seed.
    """

    title: str
    trainer: str
    config: str = "tiny"
    tag: str = ""
    settings: dict[str, object] = field(default_factory=dict, hash=False)
    train: bool = True

    @property
    def run_config(self) -> str:
        return f"{self.config}+{self.tag}" if self.tag else self.config


def cdc(title: str, tag: str, **options: object) -> Method:
    """CDC with text templates and other options than the config's."""
    settings = {key if "." in key else f"TRAINER.CDC.{key}": value for key, value in options.items()}
    return Method(title, "CDC", tag=tag, settings=settings)


def banked(method: Method) -> dict[str, object]:
    """Settings for training on features of views that are encoded once, as many as the method sees different ones."""
    if method.trainer not in ("CDC", "CoOp", "CoCoOp") or method.config != "tiny":
        return {}  # its prompts are in the image encoder too, or it trains nothing
    views = method.settings.get("OPTIM.MAX_EPOCH", 10) if method.trainer == "CDC" else 1  # others see plain pictures
    return {f"TRAINER.{method.trainer.upper()}.FEATURE_BANK": views}


ZERO_SHOT = Method("Zero-shot CLIP", "ZeroshotCLIP", train=False)
COOP = Method("CoOp", "CoOp")
CDC = Method("CDC", "CDC")
METHODS = (
    ZERO_SHOT,
    COOP,
    Method("CoCoOp", "CoCoOp"),
    Method("MaPLe", "MaPLe"),
    CDC,
    Method("CDC, coupled", "CDC", "tiny_coupled"),
)

# Wordings and views of up to eight templates; the first four of both are those of the config
WORDINGS: tuple[str, ...] = ("a photo of a", "a picture of a", "an image of a", "a snapshot of a")
WORDINGS += ("a drawing of a", "a painting of a", "a sketch of a", "a rendering of a")
PLAIN = ["normalize"]
VIEWS_OF = (
    PLAIN,
    ["random_translation", "normalize"],
    ["gaussian_blur", "normalize"],
    ["random_resized_crop", "normalize"],
)
ONE_VIEW = {"AUGMENTATIONS": [PLAIN] * 4}
NO_LOSSES = {"BETA": 0.0, "GAMMA": 0.0}
ONE = cdc(
    "one template",
    "one",
    N_TEMPLATES=1,
    CTX_INIT=list(WORDINGS[:1]),
    AUGMENTATIONS=[PLAIN],
    DECISION="mean",
    **NO_LOSSES,
)
TEMPLATES = cdc("M = 4 templates", "templates", DECISION="mean", **ONE_VIEW, **NO_LOSSES)
VSD = cdc("M = 4 + VSD (own views, losses (2) and (3))", "vsd", DECISION="mean")
DSTC = cdc("M = 4 + DSTC (evidence, fusion, loss (7))", "dstc", **ONE_VIEW, **NO_LOSSES)
NO_DIVERSITY = cdc("CDC without (2)", "beta0", BETA=0.0)
NO_CONSISTENCY = cdc("CDC without (3)", "gamma0", GAMMA=0.0)
PLAIN_PICTURES = cdc("CDC on plain pictures", "oneview", **ONE_VIEW)
INVARIANT = cdc("CDC behind CLIP-ICM's map (9)", "invariant", INVARIANT=True)
ABLATION = (
    *(ONE, TEMPLATES, VSD, DSTC, replace(CDC, title="all: CDC")),
    *(NO_DIVERSITY, NO_CONSISTENCY, PLAIN_PICTURES, INVARIANT),
)
# What a part changes: with it, without it
PARTS = (
    ("four templates in place of one", TEMPLATES, ONE),
    ("DSTC (evidence, fusion, loss (7)) for four templates", DSTC, TEMPLATES),
    ("VSD (own views, losses (2) and (3)) for four templates", VSD, TEMPLATES),
    ("DSTC beside VSD", CDC, VSD),
    ("VSD beside DSTC", CDC, DSTC),
    ("of VSD: diversity loss (2)", CDC, NO_DIVERSITY),
    ("of VSD: consistency loss (3)", CDC, NO_CONSISTENCY),
    ("of VSD: own views", CDC, PLAIN_PICTURES),
    ("DSTC and VSD together, for four templates", CDC, TEMPLATES),
    ("all of it: CDC in place of one template", CDC, ONE),
    ("CDC in place of CoOp", CDC, COOP),
)
NUMBERS = (1, 2, 4, 8)  # of templates


def templates(number: int) -> Method:
    """CDC with so many templates."""
    if number == 4:
        return replace(CDC, title="4")
    starts = {"CTX_INIT": list(WORDINGS[:number]), "AUGMENTATIONS": [VIEWS_OF[m % 4] for m in range(number)]}
    return cdc(str(number), f"m{number}", N_TEMPLATES=number, **starts)


DIVERSITY = (
    replace(NO_DIVERSITY, title="0"),
    replace(CDC, title="0.1 (the config's)"),
    cdc("1", "beta1", BETA=1.0),
    cdc("10", "beta10", BETA=10.0),
)
START = replace(cdc("CDC before training", "start"), train=False)
LONG: dict[str, object] = {"OPTIM.MAX_EPOCH": 30, "TRAIN.CHECKPOINT_FREQ": 3}
CURVES = tuple(replace(method, tag="epochs30", settings=LONG) for method in (COOP, CDC))


def at_epoch(method: Method, epoch: int | str) -> Method:
    """A method at an epoch of its training, in the folders of tests with LOADEP."""
    return replace(method, tag=f"{method.tag}+epoch{epoch}")


CURVE_EPOCHS = tuple(range(3, 31, 3))


@dataclass(frozen=True)
class Plan:
    """What is run, and where.

    Attributes:
        output: folder of the runs.
        seeds: the random seeds.
        sets: of base-to-new; the first is the source of the tests on the others.
        variants: the source's, for domain generalisation.
        ablated: of the sets those on which parts of CDC are left out, and the number of templates and beta varied.
        curve_sets: of the sets those on which accuracy is followed over the epochs.
        numbers: of templates.
        curve_epochs: at which the curves have points.
        shots: training images a class.
        overrides: settings for all runs, to make them brief.
    """

    output: Path
    seeds: tuple[int, ...] = (1, 2, 3)
    sets: tuple[str, ...] = SETS
    variants: tuple[str, ...] = VARIANTS[SOURCE]
    ablated: tuple[str, ...] = ABLATED
    curve_sets: tuple[str, ...] = CURVE_SETS
    numbers: tuple[int, ...] = NUMBERS
    curve_epochs: tuple[int, ...] = CURVE_EPOCHS
    shots: int = 16
    overrides: dict[str, object] = field(default_factory=dict)

    @property
    def data_sets(self) -> tuple[str, ...]:
        return (*self.sets, *self.variants, CONFOUNDED)

    def groups(self) -> list[list[Experiment]]:
        """All runs, in groups whose members go one after the other: seed by seed, the longest first."""
        groups = []
        for seed in self.seeds:
            groups += [[*self._on_all_classes(seed)], [*self._confounded(seed)]]
            groups += [[*self._base_to_new(dataset, seed)] for dataset in self.sets]
        return groups

    def _on_all_classes(self, seed: int) -> Iterator[Experiment]:
        """Training on all classes of the source, and tests on the other sets and the source's variants."""
        source = self.sets[0]
        for method in self.of_seed((*METHODS, START), seed):
            run = self._run(method, source, seed, "all", self.tested_on(method, source, seed))
            yield run
            for target in (*self.sets[1:], *self.variants):
                yield self._test(run, dataset=target, folder=self.tested_on(method, target, seed))

    def _confounded(self, seed: int) -> Iterator[Experiment]:
        """Training on all classes of a set whose backgrounds follow the class."""
        for method in _distinct((*self.of_seed(METHODS, seed), *ABLATION)):
            yield self._run(method, CONFOUNDED, seed, "all", self.trained_on(method, CONFOUNDED, seed))

    def _base_to_new(self, dataset: str, seed: int) -> Iterator[Experiment]:
        """Training on base classes and tests on new ones of whatever the tables show, and the curves."""
        methods = [*self.of_seed(METHODS, seed)]
        if dataset in self.ablated:
            methods += [*ABLATION, *map(templates, self.numbers), *DIVERSITY, *self.of_seed([START], seed)]
        for method in _distinct(methods):
            base = self._half(method, dataset, seed, "base")
            yield base
            yield self._test(base, classes="new", folder=self.half(method, dataset, seed, "new"))
        if dataset in self.curve_sets:
            for method in CURVES:
                base = self._half(method, dataset, seed, "base")
                yield base
                for part in ("base", "new"):
                    folder = self.half(at_epoch(method, "{}"), dataset, seed, part, "test")
                    yield self._test(base, classes=part, folder=folder, epochs=self.curve_epochs)

    def of_seed(self, methods: Iterable[Method], seed: int) -> Iterator[Method]:
        """Without what does not depend on the seed, but for the first."""
        return (m for m in methods if seed == self.seeds[0] or m.train)

    def half(self, method: Method, dataset: str, seed: int, part: str, kind: str = "") -> Path:
        """Folder of the results on the base or the new classes.

        Args:
            kind: train or test; by default that of the results on the base classes which training leaves.
        """
        kind = kind or ("train" if part == "base" and method.train else "test")
        run = f"{dataset}/shots_{self.shots}/{method.trainer}/{method.run_config}/seed{seed}"
        return self.output / "base2new" / f"{kind}_{part}" / run

    def trained_on(self, method: Method, dataset: str, seed: int) -> Path:
        """Folder of a run on all classes of a data set."""
        return self.output / dataset / method.trainer / f"{method.run_config}_{self.shots}shots" / f"seed{seed}"

    def tested_on(self, method: Method, dataset: str, seed: int) -> Path:
        """Folder of the results on a data set of what was trained on all classes of the source."""
        if dataset == self.sets[0] and method.train:
            return self.trained_on(method, dataset, seed)
        run = f"{method.trainer}/{method.run_config}_{self.shots}shots/{dataset}/seed{seed}"
        return self.output / "evaluation" / run

    def _half(self, method: Method, dataset: str, seed: int, part: str) -> Experiment:
        return self._run(method, dataset, seed, part, self.half(method, dataset, seed, part))

    def _run(self, method: Method, dataset: str, seed: int, classes: str, folder: Path) -> Experiment:
        settings = {"DATASET.NUM_SHOTS": self.shots, "TRAIN.CHECKPOINT_FREQ": 0, **method.settings, **self.overrides}
        settings.update(banked(replace(method, settings=settings)))
        return Experiment(method.trainer, method.config, dataset, seed, classes, folder, settings, train=method.train)

    @staticmethod
    def _test(run: Experiment, **changes: Any) -> Experiment:
        """A test of a run's model."""
        return replace(run, tested=run.folder if run.train else None, **changes)


def _distinct(methods: Iterable[Method]) -> Iterable[Method]:
    """Each run's folder once, as some stand in several tables under several titles."""
    return {(method.trainer, method.run_config): method for method in methods}.values()


def full(output: Path) -> Plan:
    return Plan(output)


def quick(output: Path) -> Plan:
    """Each part of the study once, with little of everything: shows that it runs, and no figure worth reading."""
    return Plan(
        output,
        seeds=(1,),
        sets=("textures", "digits"),
        variants=("shapesv2",),
        ablated=("textures",),
        curve_sets=("digits",),
        numbers=(1, 4),
        curve_epochs=(1, 2),
        shots=2,
        overrides={"OPTIM.MAX_EPOCH": 2, "TRAIN.CHECKPOINT_FREQ": 1},
    )


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
    os.chdir(ROOT)  # paths in configs are seen from the checkout
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
                failures.append(f"{group[0].folder} or behind it: {error}")
        return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each part once, briefly")
    parser.add_argument("--output", type=Path, help="folder of the runs (default: output/study, or output/study_quick)")
    parser.add_argument("--page", type=Path, help="page to write (default: docs/study.md, or study.md in the output)")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds (default: 1 2 3, or 1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--page-only", action="store_true", help="run nothing, write the page of what is there")
    args = parser.parse_args()

    output = (args.output or ROOT / "output" / ("study_quick" if args.quick else "study")).absolute()
    page = args.page or (output / "study.md" if args.quick else ROOT / "docs" / "study.md")
    plan = quick(output) if args.quick else full(output)
    if args.seeds:
        plan = replace(plan, seeds=tuple(args.seeds))
    started = time.time()
    failures = []
    if not args.page_only:
        write_data_sets(plan.data_sets, args.data.absolute())
        failures = run_all(plan.groups(), args.data.absolute(), args.workers)
    if failures:
        parser.exit(1, "\n".join(["tools.study: these runs failed; those behind the others are kept:", *failures, ""]))
    from tools.study_page import write_page  # needs what the runs leave, and matplotlib

    try:
        write_page(plan, page)
    except (OSError, ValueError) as error:
        parser.exit(2, f"tools.study: {error}\n")
    print(f"{page} is written; it took {(time.time() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
