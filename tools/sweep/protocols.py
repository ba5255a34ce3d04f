"""The runs of a protocol, and how the scripts are called for them.

A run is one call of one script, so its folder and its numbers are those of the scripts. Their rules for names are not
written down again here: `ask_scripts.sh` asks the scripts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.common.layout import Place, config_folder, trains_nothing
from tools.common.paths import ROOT
from tools.common.scripts import SCRIPT_VARIABLES
from tools.results.runs import VARIANTS
from tools.results.tables import shots_name

SETS: tuple[str, ...]  # of the papers
SETS = ("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft")
SETS += ("sun397", "dtd", "eurosat", "ucf101")
SHOTS = (1, 2, 4, 8, 16)  # of few-shot curves
FAR = ("dtd", "eurosat", "oxford_flowers")  # of open_set_test.sh
FAR_GENERATED = ("digits", "symbols", "textures")
SCRIPTS = ROOT / "scripts" / "cdc"
# Variables that runs on all machines have as they are; not wandb's key, which each machine has from `wandb login`
HANDED_ON = ("TAG", "REPORT_TO", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_MODE", "WANDB_PROJECT")
ASK = Path(__file__).with_name("ask_scripts.sh")


@dataclass(frozen=True)
class Step:
    """One call of one script.

    Attributes:
        script: its name in scripts/cdc.
        dataset: its first argument.
        place: where the run lies.
        config: the trainer's config, without what settings add to its name.
        trained: the place of the training that it tests; None if it trains, or tests what trains nothing.
        calibrated: the place whose calibration it takes, if CALIBRATED asks for one.
        far: in "open_set", the data sets whose results it must have.
        variables: environment variables of this step alone.
    """

    script: str
    dataset: str
    place: Place
    config: str
    trained: Place | None = None
    calibrated: Place | None = None
    far: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def trains(self) -> bool:
        return self.trained is None and not trains_nothing(self.place.trainer)

    @property
    def part(self) -> str:
        """Which part of the protocol it is, with the images per class unless they are 16."""
        kind = {"all": "train_all", "evaluation": "test"}.get(self.place.kind, self.place.kind)
        return kind if self.place.shots == 16 else f"{kind}, {shots_name(self.place.shots)}"

    @property
    def name(self) -> str:
        """The run in words."""
        place = self.place
        return f"{place.trainer}/{place.config} {place.dataset} seed {place.seed}: {self.part}"


@dataclass(frozen=True)
class Answers:
    """What the scripts say of a plan.

    Attributes:
        data, output: folders.
        python: the interpreter, if one was given; else empty, and each run takes that of the process that does it.
        suffix: what settings add to a config in the name of a folder.
        shots: training images per class.
        generated: data sets that this project writes itself.
        configs: the config of each trainer on each data set.
    """

    data: Path
    output: Path
    python: str
    suffix: str
    shots: int
    generated: frozenset[str]
    configs: Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Wanted:
    """What is to be planned.

    Attributes:
        trainers: names, or TRAINER/CONFIG for another config than the default.
        datasets: the data sets to train and test on; in "xd" only to test on, in "dg" the sources.
        seeds: the random seeds.
        shots: training images per class; in "fewshot" each number of them.
        settings: KEY VALUE pairs.
        source: in "xd", what is trained on; None for what the scripts take.
        environment: variables of the scripts (DATA, OUTPUT, TAG, PYTHON, ...).
    """

    trainers: Sequence[str]
    datasets: Sequence[str]
    seeds: Sequence[int]
    shots: Sequence[int] = (16,)
    settings: Sequence[str] = ()
    source: str | None = None
    environment: Mapping[str, str] | None = None


def plan_steps(protocol: str, wanted: Wanted) -> tuple[list[Step], Answers]:
    """The runs of a protocol, each once and trainings before their tests, and what the scripts say of them.

    Raises:
        ValueError: no such protocol, trainer, config, data set or variants; or what the scripts refuse. Names all
            trainers, configs and data sets that are missing.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"the protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    kind = PROTOCOLS[protocol]
    for name, given in (("trainers", wanted.trainers), ("datasets", wanted.datasets), ("seeds", wanted.seeds)):
        if not given:
            raise ValueError(f"at least one of {name} is needed")
    _check_names(wanted)
    without = [name for name in wanted.datasets if protocol == "dg" and name not in VARIANTS]
    if without:
        raise ValueError(f"there are variants of {' and '.join(VARIANTS)}, and none of {', '.join(without)}")
    answers = _ask(kind.classes, wanted, kind.trained_on(wanted))
    steps: dict[Path, Step] = {}
    missing: set[str] = set()
    for trainer in wanted.trainers:
        for dataset in wanted.datasets:
            for shots in wanted.shots:
                for seed in wanted.seeds:
                    name, _, config = trainer.partition("/")
                    cell = _Cell(name, config, dataset, seed, shots, wanted, answers)
                    for step in kind.steps(cell):
                        steps.setdefault(step.place.folder, step)
    for trainer, config in {(step.place.trainer, step.config) for step in steps.values()}:
        path = f"configs/trainers/{trainer}/{config}.yaml"
        if not (ROOT / path).is_file() and not re.fullmatch("CDC/(vit_b16|tiny)_coupled", f"{trainer}/{config}"):
            missing.add(path)
    if missing:
        raise ValueError(f"there is no {', no '.join(sorted(missing))}")
    if not answers.data.is_dir() and any(step.dataset not in answers.generated for step in steps.values()):
        raise ValueError(f"there is no data folder {answers.data}: set DATA to the folder that holds the data sets")
    return list(steps.values()), answers


@dataclass(frozen=True)
class _Cell:
    """One trainer on one data set, with one number of shots and one seed."""

    trainer: str
    given_config: str
    dataset: str
    seed: int
    shots: int
    wanted: Wanted
    answers: Answers

    @property
    def trains(self) -> bool:
        return not trains_nothing(self.trainer)

    def config(self, trained_on: str) -> str:
        return self.given_config or self.answers.configs[self.trainer, trained_on]

    def place(self, kind: str, dataset: str, trained_on: str, source: str = "") -> Place:
        config = config_folder(self.config(trained_on) + self.answers.suffix, source=source)
        return Place(kind, dataset, self.shots, self.trainer, config, self.seed)

    def usual_source(self, dataset: str) -> str:
        return "shapes" if dataset in self.answers.generated else "imagenet"

    def own(self, kind: str) -> Place:
        """A place of the cell's own data set."""
        return self.place(kind, self.dataset, self.dataset)

    def step(
        self, script: str, kind: str, trained: Place | None = None, calibrated: Place | None = None, **options: Any
    ) -> Step:
        """A step on the cell's own data set."""
        return Step(script, self.dataset, self.own(kind), self.config(self.dataset), trained, calibrated, **options)

    def calibrated(self, place: Place) -> Place | None:
        """The place whose calibration is taken, if any is wanted."""
        return place if (self.wanted.environment or {}).get("CALIBRATED") else None

    def training(self, source: str) -> Step:
        return Step("xd_train.sh", source, self.place("all", source, source), self.config(source))

    def evaluation(self, dataset: str, source: str) -> Step:
        trained = self.training(source).place if self.trains else None
        other = "" if trained is None or source == self.usual_source(dataset) else source
        place = self.place("evaluation", dataset, source, other)
        calibrated = self.calibrated(trained or self.place("evaluation", source, source))
        variables = (("SOURCE", source),)
        return Step("xd_test.sh", dataset, place, self.config(source), trained, calibrated, variables=variables)


def _base_to_new(cell: _Cell) -> Iterator[Step]:
    trained = cell.own("train_base") if cell.trains else None
    if trained:
        yield cell.step("base2new_train.sh", "train_base")
    calibrated = cell.calibrated(trained or cell.own("test_base"))
    for half in ("base", "new"):
        if half == "new" or not trained or calibrated:
            variables = (("SUB", half),)
            yield cell.step("base2new_test.sh", f"test_{half}", trained, calibrated=calibrated, variables=variables)


def _cross_data_set(cell: _Cell) -> Iterator[Step]:
    source = cell.wanted.source or cell.usual_source(cell.dataset)
    yield cell.training(source) if cell.trains else cell.evaluation(source, source)
    if cell.dataset != source:
        yield cell.evaluation(cell.dataset, source)


def _domain_generalisation(cell: _Cell) -> Iterator[Step]:
    source = cell.dataset
    yield cell.training(source) if cell.trains else cell.evaluation(source, source)
    for variant in VARIANTS[source]:
        yield cell.evaluation(variant, source)


def _few_shot(cell: _Cell) -> Iterator[Step]:
    if cell.trains:
        yield cell.step("fewshot.sh", "all")
    else:  # its results do not depend on the shots
        yield replace(cell, shots=max(cell.wanted.shots)).evaluation(cell.dataset, cell.usual_source(cell.dataset))


def _open_set(cell: _Cell) -> Iterator[Step]:
    trained = cell.own("train_base") if cell.trains else None
    if trained:
        yield cell.step("base2new_train.sh", "train_base")
    generated, given = cell.answers.generated, (cell.wanted.environment or {}).get("FAR")
    if given is None:
        usual = FAR_GENERATED if cell.dataset in generated else FAR
        far = [name for name in usual if name in generated or (cell.answers.data / name).is_dir()]
        far = [name for name in far if name != cell.dataset]
    else:
        far = given.split()
    calibrated = cell.calibrated(trained or cell.own("test_base"))
    if calibrated and not trained:  # what it is fitted on is the test on base classes
        yield cell.step("base2new_test.sh", "test_base", calibrated=calibrated, variables=(("SUB", "base"),))
    variables = (("FAR", " ".join(far)),)
    yield cell.step("open_set_test.sh", "open_set", trained, calibrated, far=tuple(far), variables=variables)


@dataclass(frozen=True)
class Protocol:
    """A protocol.

    Attributes:
        classes: CLASSES of its scripts.
        steps: the runs of one cell.
        trained_on: the data sets whose default configs are asked for.
        datasets, shots: what is taken if nothing is given.
    """

    classes: str
    steps: Callable[[_Cell], Iterator[Step]]
    trained_on: Callable[[Wanted], Iterable[str]]
    datasets: tuple[str, ...] = SETS
    shots: tuple[int, ...] = (16,)


def _own(wanted: Wanted) -> Iterable[str]:
    return wanted.datasets


def _sources(wanted: Wanted) -> Iterable[str]:
    return (wanted.source,) if wanted.source else ("imagenet", "shapes")


def _all_of_them(wanted: Wanted) -> Iterable[str]:
    return (*wanted.datasets, "imagenet", "shapes")


PROTOCOLS = {
    "base2new": Protocol("half", _base_to_new, _own),
    "xd": Protocol("all", _cross_data_set, _sources, SETS[1:]),
    "dg": Protocol("all", _domain_generalisation, _own, SETS[:1]),
    "fewshot": Protocol("few", _few_shot, _all_of_them, shots=SHOTS),
    "open_set": Protocol("half", _open_set, _own),
}


def command_of(step: Step, wanted: Wanted, answers: Answers) -> tuple[tuple[str, ...], dict[str, str]]:
    """The script's call: arguments, and the environment variables that it depends on."""
    place = step.place
    environment = {
        **{name: value for name, value in (wanted.environment or {}).items() if name in HANDED_ON},
        **({"PYTHON": answers.python} if answers.python else {}),
        **({"CALIBRATED": "1"} if step.calibrated else {}),
        "DATA": str(answers.data),
        "OUTPUT": str(answers.output),
        "SHOTS": str(place.shots),
        "TRAINER": place.trainer,
        "CFG": step.config,
        **dict(step.variables),
    }
    return ("bash", str(SCRIPTS / step.script), step.dataset, str(place.seed), *wanted.settings), environment


def calibration_of(place: Place, options: Sequence[str], answers: Answers) -> tuple[tuple[str, ...], dict[str, str]]:
    """The call of `tools.calibrate` for a run: arguments, and environment variables.

    Without an interpreter in `answers`, it is called by the Python of the process that does it.

    Args:
        place: the run's place.
        options: options of `tools.calibrate`.
        answers: what the scripts say.
    """
    call = ("bash", "-c", 'exec "$PYTHON" -m tools.calibrate "$@"', "calibrate", str(answers.output / place.folder))
    return (*call, "--root", str(answers.data), *options), {"PYTHON": answers.python} if answers.python else {}


def _check_names(wanted: Wanted) -> None:
    """Raise ValueError for trainers and data sets that are not there."""
    problems = []
    for folder, names in (("trainers", {name.partition("/")[0] for name in wanted.trainers}), ("datasets", set())):
        there = sorted(path.stem for path in (ROOT / "configs" / folder).iterdir())
        if folder == "datasets":
            names = {*wanted.datasets, *([wanted.source] if wanted.source else [])}
        unknown = sorted(names - set(there))
        if unknown:
            problems.append(f"configs/{folder} has no {', '.join(unknown)}; it has {', '.join(there)}")
    if problems:
        raise ValueError("; ".join(problems))


def _ask(classes: str, wanted: Wanted, trained_on: Iterable[str]) -> Answers:
    """Ask the scripts, which also check the settings.

    Raises:
        ValueError: they refuse something.
    """
    trainers = dict.fromkeys(name.partition("/")[0] for name in wanted.trainers)
    datasets = dict.fromkeys(trained_on)
    given = os.environ if wanted.environment is None else wanted.environment
    dropped = {*SCRIPT_VARIABLES, "ASK", "SOURCE"} - {"CFG", "TAG"}
    environment = {name: value for name, value in given.items() if name not in dropped}
    environment.update(SHOTS=str(wanted.shots[0]), PYTHON=given.get("PYTHON") or sys.executable)
    arguments = [str(ROOT), classes, str(wanted.seeds[0]), " ".join(trainers), " ".join(datasets), *wanted.settings]
    done = subprocess.run(["bash", str(ASK), *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().removeprefix(f"{ASK.name}: ")
        raise ValueError(said or f"{ASK} ended with exit status {done.returncode}")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    single = {key: values[0] for key, *values in lines if key != "config"}
    return Answers(
        data=Path(single["data"]),
        output=Path(single["output"]),
        python=single["python"] if given.get("PYTHON") else "",
        suffix=single["suffix"],
        shots=int(single["shots"]),
        generated=frozenset(single["generated"].split()),
        configs={(values[0], values[1]): values[2] for key, *values in lines if key == "config"},
    )
