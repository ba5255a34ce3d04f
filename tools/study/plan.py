"""Which runs the study is made of, in which order, and where they lie."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tools.common.layout import Place
from tools.common.paths import ROOT
from tools.results.runs import VARIANTS
from tools.study.methods import (
    ABLATED,
    ABLATION,
    AVERAGED,
    CDC,
    CONFOUNDED,
    CURVE_EPOCHS,
    CURVE_SETS,
    CURVES,
    DIVERSITY,
    EQUAL_COST,
    FAR_SETS,
    HARDER,
    LONGER,
    MAPLE,
    METHODS,
    NEITHER,
    NUMBERS,
    PARTS_WITHOUT_ONE,
    PROBE,
    RECOLOURED,
    REGIMES,
    SETS,
    SOURCE,
    START,
    ZERO_SHOT,
    Method,
    at_epoch,
    at_start,
    banked,
    regime,
    templates,
)
from tools.study.sections import SECTIONS
from tools.sweep.experiment import Experiment

FIRST = 1  # the seed under which results that depend on none lie
CALIBRATED = "calibrated"  # folder of tests after calibration, in the same layout


@dataclass(frozen=True)
class Plan:
    """What is run, and where.

    Attributes:
        output: folder of the runs.
        seeds: the random seeds.
        more_seeds: besides, of CDC and MaPLe, whose difference is the one in question.
        parts_seeds: of these, those of the parts of CDC.
        more_methods: that are trained with those on the sets of `ablated`.
        sets: of base-to-new; the first is the source of the tests on the others.
        variants: the source's, for domain generalisation.
        confounded: sets whose background follows the class in training.
        harder: sets on which zero-shot recognition is far from what can be learnt.
        harder_methods: that are trained on these.
        ablated: of the sets those on which parts of CDC are left out, and the number of templates and beta varied.
        curve_sets: on which accuracy is followed over the epochs.
        numbers: of templates.
        curve_epochs: at which the curves have points.
        calibrated_sets: of the sets those whose runs are tested after calibration.
        calibrated_methods: that are tested after calibration.
        far: sets of other images on open sets.
        shots: training images per class.
        overrides: settings for all runs, to make them brief.
    """

    output: Path
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    more_seeds: tuple[int, ...] = tuple(range(6, 13))
    parts_seeds: tuple[int, ...] = tuple(range(6, 11))
    more_methods: tuple[Method, ...] = tuple(dict.fromkeys(method for _, *two in PARTS_WITHOUT_ONE for method in two))
    sets: tuple[str, ...] = SETS
    variants: tuple[str, ...] = VARIANTS[SOURCE]
    confounded: tuple[str, ...] = CONFOUNDED
    harder: tuple[str, ...] = HARDER
    harder_methods: tuple[Method, ...] = (*METHODS, *ABLATION)
    ablated: tuple[str, ...] = ABLATED
    curve_sets: tuple[str, ...] = CURVE_SETS
    numbers: tuple[int, ...] = NUMBERS
    curve_epochs: tuple[int, ...] = CURVE_EPOCHS
    calibrated_sets: tuple[str, ...] = SETS
    calibrated_methods: tuple[Method, ...] = METHODS
    far: tuple[str, ...] = FAR_SETS
    shots: int = 16
    overrides: dict[str, object] = field(default_factory=dict)

    @property
    def is_trial(self) -> bool:
        """Whether runs are so brief that their figures mean nothing."""
        return bool(self.overrides)

    @property
    def data_sets(self) -> tuple[str, ...]:
        return (*self.sets, *self.harder, *self.variants, *self.confounded)

    def experiments(self, only: Sequence[str] = ()) -> list[Experiment]:
        """The runs in order: section by section, and in each seed by seed. One that several sections need comes once.

        Args:
            only: of the sections; of all if empty.

        Raises:
            ValueError: there is no such section.
        """
        if set(only) - SECTIONS.keys():
            raise ValueError(f"the study has the sections {', '.join(SECTIONS)}, got {', '.join(only)}")
        found: dict[Path, Experiment] = {}
        for section in SECTIONS:
            if only and section not in only:
                continue
            for seed in self.more_seeds if section == "seeds" else self.seeds:
                for experiment in self.section(section, seed):
                    found.setdefault(experiment.folder, experiment)
        return list(found.values())

    def section(self, name: str, seed: int) -> Iterator[Experiment]:
        """The runs of a section with a seed, each after the one that it tests."""
        if name == "base2new":
            yield from self._base_to_new(METHODS, self.sets, seed)
        elif name == "seeds":
            yield from self._base_to_new((MAPLE, CDC), self.sets, seed)
            if seed in self.parts_seeds:
                yield from self._base_to_new(self.more_methods, self.ablated, seed)
        elif name == "confounded":
            for dataset in self.confounded:
                for method in (*METHODS, PROBE, *ABLATION, RECOLOURED):
                    yield self._run(method, dataset, seed, "all", self.trained_on(method, dataset, seed))
        elif name == "ablation":
            numbers = map(templates, self.numbers)
            yield from self._base_to_new((*ABLATION, *numbers, *DIVERSITY, START), self.ablated, seed)
        elif name == "cost":
            yield from self._base_to_new(EQUAL_COST, self.ablated, seed)
        elif name == "harder":
            yield from self._base_to_new(self.harder_methods, self.harder, seed)
        elif name == "regimes":
            for _, pieces, datasets in REGIMES:
                sets, both = self.sets_of(datasets), regime(pieces)
                yield from self._curves(both, seed) if LONGER in pieces else self._base_to_new(both, sets, seed)
                yield from (self._half(at_start(*pieces), dataset, seed, "base") for dataset in sets)
        elif name == "curves":
            yield from self._curves(CURVES, seed)
        elif name == "transfer":
            yield from self._transfer(seed)
        else:
            yield from self._calibrated(seed)

    def sets_of(self, datasets: tuple[str, ...]) -> tuple[str, ...]:
        """The data sets of a regime that names some or, for those of the ablation, none."""
        own: dict[tuple[str, ...], tuple[str, ...]] = {
            CURVE_SETS: self.curve_sets,
            HARDER: self.harder,
            CONFOUNDED: self.confounded,
        }
        return own[datasets] if datasets else self.ablated

    def _base_to_new(self, methods: Iterable[Method], datasets: Iterable[str], seed: int) -> Iterator[Experiment]:
        """Training on base classes and tests on new ones."""
        methods = list(methods)
        for dataset in datasets:
            for method in methods:
                base = self._half(method, dataset, seed, "base")
                yield base
                yield self._test(base, classes="new", folder=self.half(method, dataset, seed, "new"))

    def regime(self, pieces: tuple[str, ...]) -> tuple[Method, Method]:
        """CDC in a regime with losses (2) and (3), and without; after a longer training, as the curves test it."""
        with_losses, without = regime(pieces)
        last = self.curve_epochs[-1] if LONGER in pieces else None
        return at_epoch(with_losses, last), at_epoch(without, last)

    def _curves(self, methods: Iterable[Method], seed: int) -> Iterator[Experiment]:
        """Longer trainings, and tests of their epochs."""
        methods = list(methods)
        for dataset in self.curve_sets:
            for method in methods:
                base = self._half(method, dataset, seed, "base")
                yield base
                for part in ("base", "new"):
                    folder = self.half(at_epoch(method, "{}"), dataset, seed, part)
                    yield self._test(base, classes=part, folder=folder, epochs=self.curve_epochs)

    def _transfer(self, seed: int) -> Iterator[Experiment]:
        """Training on all classes of the source, and tests on the other sets and the source's variants."""
        source = self.sets[0]
        for method in (*METHODS, PROBE, START):
            run = self._run(method, source, seed, "all", self.tested_on(method, source, seed))
            yield run
            for target in self.targets(method):
                yield self._test(run, dataset=target, folder=self.tested_on(method, target, seed))

    def _calibrated(self, seed: int) -> Iterator[Experiment]:
        """Tests that have figures before and after calibration.

        Of what was trained on base classes: on an open set, which has these classes' images too, and on new classes. Of
        what was trained on all classes of the source: on it and on its variants. CDC's models are tested as AVERAGED,
        too, which has no calibration of its own.
        """
        for dataset in self.calibrated_sets:
            far = [str(ROOT / f"configs/datasets/{other}.yaml") for other in self.far if other != dataset]
            for method in self.calibrated_methods:
                base = self._half(method, dataset, seed, "base")
                yield base
                settings = {**base.settings, "TEST.OPEN_SET": True, "TEST.FAR_SETS": far}
                for kind, changes in (("open_set", {"settings": settings}), ("test_new", {"classes": "new"})):
                    yield from self._both_ways(base, kind, method, **changes)
        source = self.sets[0]
        for method in (*self.calibrated_methods, PROBE):
            run = self._run(method, source, seed, "all", self.tested_on(method, source, seed))
            yield run
            for target in (source, *self.variants):
                yield from self._both_ways(run, "evaluation", method, dataset=target)

    def _both_ways(self, run: Experiment, kind: str, method: Method, **changes: Any) -> Iterator[Experiment]:
        """A test with calibration; of CDC another one as AVERAGED."""
        test = self._test(run, calibrated=run.folder, **changes)
        yield replace(test, folder=self.calibrated(kind, method, test.dataset, run.seed))
        if method == CDC:
            folder = self.calibrated(kind, AVERAGED, test.dataset, run.seed)
            yield replace(test, folder=folder, calibrated=None, settings={**test.settings, **AVERAGED.settings})

    def targets(self, method: Method) -> tuple[str, ...]:
        """The sets on which what was trained on the source is tested."""
        return (*(() if method.own_classes else self.sets[1:]), *self.variants)

    def half(self, method: Method, dataset: str, seed: int, part: str) -> Path:
        """Folder of the results on the base or the new classes. Training leaves those of its last epoch on the base."""
        kind = "train" if part == "base" and method.train and method.epoch is None else "test"
        return self._folder(f"{kind}_{part}", method, dataset, seed)

    def trained_on(self, method: Method, dataset: str, seed: int) -> Path:
        """Folder of a run on all classes of a data set."""
        return self._folder("all", method, dataset, seed)

    def tested_on(self, method: Method, dataset: str, seed: int) -> Path:
        """Folder of the results on a data set of what was trained on all classes of the source."""
        if dataset == self.sets[0] and method.train:
            return self.trained_on(method, dataset, seed)
        return self._folder("evaluation", method, dataset, seed)

    def calibrated(self, kind: str, method: Method, dataset: str, seed: int) -> Path:
        """Folder of a test with figures before and after calibration.

        Args:
            kind: open_set, which has the base classes too, test_new, or evaluation of what was trained on the source.
        """
        return self._folder(kind, method, dataset, seed, self.output / CALIBRATED)

    def _folder(self, kind: str, method: Method, dataset: str, seed: int, top: Path | None = None) -> Path:
        seed = seed if method.seeded else FIRST
        return (top or self.output) / Place(kind, dataset, self.shots, method.trainer, method.run_config, seed).folder

    def _half(self, method: Method, dataset: str, seed: int, part: str) -> Experiment:
        return self._run(method, dataset, seed, part, self.half(method, dataset, seed, part))

    def _run(self, method: Method, dataset: str, seed: int, classes: str, folder: Path) -> Experiment:
        settings = {"DATASET.NUM_SHOTS": self.shots, "TRAIN.CHECKPOINT_FREQ": 0, **method.settings, **self.overrides}
        settings.update(banked(replace(method, settings=settings)))
        seed = seed if method.seeded else FIRST
        return Experiment(method.trainer, method.config, dataset, seed, classes, folder, settings, train=method.train)

    @staticmethod
    def _test(run: Experiment, **changes: Any) -> Experiment:
        """A test of a run's model."""
        return replace(run, tested=run.folder if run.train else None, **changes)


def left(experiments: Sequence[Experiment], kept: Container[Path]) -> list[Experiment]:
    """The runs that are to be done, or checked if they are finished here, where figures of some are kept.

    A kept run is left out, unless it is here, or a test that is to be done needs its model or its calibration.

    Args:
        experiments: in order.
        kept: folders of the runs whose figures are kept.
    """
    own = [each for each in experiments if each.finished or not all(folder in kept for folder in each.folders)]
    needed = {folder for each in own if not each.finished for folder in (each.tested, each.calibrated)}
    wanted = needed.union(each.folder for each in own)
    return [each for each in experiments if each.folder in wanted]


def full(output: Path) -> Plan:
    return Plan(output)


def quick(output: Path) -> Plan:
    """Each part of the study once, with little of everything: shows that it runs, and no figure worth reading."""
    return Plan(
        output,
        seeds=(1,),
        more_seeds=(3,),
        parts_seeds=(3,),
        more_methods=(CDC, NEITHER),
        sets=("shapes", "digits"),
        variants=("shapesv2",),
        harder=("turned",),
        harder_methods=(ZERO_SHOT, CDC, NEITHER),
        ablated=("digits",),
        curve_sets=("digits",),
        numbers=(1, 4),
        curve_epochs=(1, 2),
        calibrated_sets=("shapes",),
        calibrated_methods=(ZERO_SHOT, CDC),
        far=("digits",),
        shots=2,
        overrides={"OPTIM.MAX_EPOCH": 2, "TRAIN.CHECKPOINT_FREQ": 1},
    )
