"""The runs that the paper's tables are made of, in one plan: what has finished, what can be done, what has no data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.common.scripts import SCRIPT_VARIABLES
from tools.results import published
from tools.sweep.protocols import PROTOCOLS, Answers, Step, Wanted, plan_steps
from tools.sweep.state import FINISHED, expected, look
from tools.sweep.sweep import Plan


@dataclass(frozen=True)
class PaperPlan:
    """The runs of several tables.

    Attributes:
        trainers: in the paper's order.
        seeds: of each trainer and data set.
        steps: of each protocol all runs, also those that cannot be done.
        wanted: what was asked for, as of the first protocol.
        answers: what the scripts say.
        states: of each run, by its folder below the output folder.
    """

    trainers: Sequence[str]
    seeds: Sequence[int]
    steps: Mapping[str, Sequence[Step]]
    wanted: Wanted
    answers: Answers
    states: Mapping[Path, str]

    @property
    def every(self) -> dict[Path, Step]:
        """All runs by their folders, each once: the training on ImageNet is part of two tables."""
        return {step.place.folder: step for steps in self.steps.values() for step in steps}

    def possible(self, absent: Collection[str]) -> Plan:
        """The runs that have finished, and those that can be done, for the engine.

        Args:
            absent: data sets that are not there.
        """
        kept: dict[Path, Step] = {}
        for folder, step in self.every.items():
            needs = step.trained is None or step.trained.folder in kept
            if self.states[folder] == FINISHED or (step.dataset not in absent and needs):
                kept[folder] = step
        steps = list(kept.values())
        states = {folder: self.states[folder] for folder in kept}
        return Plan("", self.wanted, steps, self.answers, states, expected(steps, states, self.answers.output))


def plan_paper(
    protocols: Sequence[str],
    trainers: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[str],
    environment: Mapping[str, str],
) -> PaperPlan:
    """Plan the runs of the paper's tables, with its 16 shots, and look which of them have finished.

    Args:
        protocols: keys of `published.METRICS`.
        trainers: names, or TRAINER/CONFIG for another config than the default.
        seeds: the random seeds.
        settings: KEY VALUE pairs.
        environment: of the scripts. What would make other runs of them than the paper's is left out.

    Raises:
        ValueError: a trainer or a seed is given twice; else as `plan_steps`.
    """
    names = [trainer.partition("/")[0] for trainer in trainers]
    for what, given in (("trainer", names), ("seed", seeds)):
        twice = sorted({str(one) for one in given if list(given).count(one) > 1})
        if twice:
            raise ValueError(f"each {what} can be given once, got {', '.join(twice)} more than once")
    kept = {name: value for name, value in environment.items() if name not in SCRIPT_VARIABLES or name == "CFG"}
    steps: dict[str, list[Step]] = {}
    wishes, answered = [], []
    for protocol in protocols:
        datasets = PROTOCOLS[protocol].datasets
        wish = Wanted(trainers, datasets, seeds, (published.SHOTS,), settings, environment=kept)
        steps[protocol], answers = plan_steps(protocol, wish)
        wishes.append(wish)
        answered.append(answers)
    every = {step.place.folder: step for found in steps.values() for step in found}
    states = look(every.values(), answered[0].output)
    known = {name: number for number, name in enumerate(published.TRAINERS)}
    ordered = sorted(names, key=lambda name: (name == "CDC", known.get(name, len(known)), name))
    return PaperPlan(ordered, sorted(seeds), steps, wishes[0], answered[0], states)
