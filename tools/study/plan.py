"""Which runs the study is made of, and where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tools.common.layout import Place
from tools.results.runs import VARIANTS
from tools.study.methods import (
    ABLATED,
    ABLATION,
    CONFOUNDED,
    CURVE_EPOCHS,
    CURVE_SETS,
    CURVES,
    DIVERSITY,
    METHODS,
    NUMBERS,
    SETS,
    SOURCE,
    START,
    Method,
    at_epoch,
    banked,
    templates,
)
from tools.sweep.experiment import Experiment


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
        shots: training images per class.
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
    def is_trial(self) -> bool:
        """Whether runs are so brief that their figures mean nothing."""
        return bool(self.overrides)

    @property
    def data_sets(self) -> tuple[str, ...]:
        return (*self.sets, *self.variants, CONFOUNDED)

    def groups(self) -> list[list[Experiment]]:
        """All runs, in groups that do not need each other: seed by seed, the longest first."""
        groups = []
        for seed in self.seeds:
            groups += [[*self._on_all_classes(seed)], [*self._confounded(seed)]]
            groups += [[*self._base_to_new(dataset, seed)] for dataset in self.sets]
        return groups

    def experiments(self) -> list[Experiment]:
        """All runs, as in `groups`."""
        return [experiment for group in self.groups() for experiment in group]

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
        return self._folder(f"{kind}_{part}", method, dataset, seed)

    def trained_on(self, method: Method, dataset: str, seed: int) -> Path:
        """Folder of a run on all classes of a data set."""
        return self._folder("all", method, dataset, seed)

    def tested_on(self, method: Method, dataset: str, seed: int) -> Path:
        """Folder of the results on a data set of what was trained on all classes of the source."""
        if dataset == self.sets[0] and method.train:
            return self.trained_on(method, dataset, seed)
        return self._folder("evaluation", method, dataset, seed)

    def _folder(self, kind: str, method: Method, dataset: str, seed: int) -> Path:
        return self.output / Place(kind, dataset, self.shots, method.trainer, method.run_config, seed).folder

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
