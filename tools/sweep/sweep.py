"""What `python -m tools.sweep` does: plan, tell, run, and the table."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tools.common.safe_text import escaped
from tools.results import text_table
from tools.sweep.engine import INSTALL, LOGS, Failure, OneByOne, Run, carry_out, choose_engine, clear_logs
from tools.sweep.protocols import PROTOCOLS, Answers, Step, Wanted, command_of, plan
from tools.sweep.state import FINISHED, GOES_ON, NEW, expected, look, weights
from tools.sweep.view import duration, view_of
from tools.sweep.work import Command


def sweep(args: argparse.Namespace, settings: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a protocol as the command line asks for it.

    Args:
        args: of the command line.
        settings: KEY VALUE pairs.
        environment: variables of the scripts.

    Returns:
        The exit status: 0 if all runs have finished, else 1.

    Raises:
        ValueError, OSError: what is asked for cannot be run.
        KeyboardInterrupt: Ctrl-C.
    """
    kind = PROTOCOLS[args.protocol]
    usual = kind.shots
    if environment.get("SHOTS"):
        usual = tuple(_number(text) for text in environment["SHOTS"].split())
    wanted = Wanted(
        trainers=args.trainers,
        datasets=args.datasets or kind.datasets,
        seeds=args.seeds,
        shots=args.shots or usual,
        settings=settings,
        source=args.source,
        environment=environment,
    )
    steps, answers = plan(args.protocol, wanted)
    states = look(steps, answers.output)
    seconds = expected(steps, states, answers.output)
    for line in (*say_states(steps, states), say_time(seconds)):
        print(escaped(line), flush=True)
    if args.dry_run:
        return 0
    runs = runs_of(steps, states, seconds, wanted, answers)
    failures = do_all(runs, args) if runs else []
    clear_logs(answers.output)
    print(table(args.protocol, steps, answers))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def do_all(runs: Sequence[Run], args: argparse.Namespace, cpus: int | None = None) -> list[Failure]:
    """Do runs where the options of `engine.add_options` say.

    Args:
        cpus: of this machine that are used; None for all.
    """
    engine = choose_engine(len(runs), args.address, args.gpus_per_run, args.cpus_per_run, args.one_by_one, cpus)
    if isinstance(engine, OneByOne) and len(runs) > 1 and not args.one_by_one:
        print(f"Ray is not installed, so the runs go one after the other: {INSTALL}", file=sys.stderr)
    return carry_out(runs, engine, view_of(runs))


def table(protocol: str, steps: Iterable[Step], answers: Answers) -> str:
    """The table of a plan's runs, or why there is none."""
    places = [step.place for step in steps]
    sources = {step.trained.dataset for step in steps if step.trained and step.place.kind == "evaluation"}
    try:
        return text_table(
            answers.output,
            protocol,
            datasets=sorted({place.dataset for place in places}),
            trainers=sorted({place.trainer for place in places}),
            configs=sorted({place.config for place in places}),
            shots=sorted({place.shots for place in places}),
            seeds=sorted({place.seed for place in places}),
            **({"source": sources.pop()} if len(sources) == 1 else {}),
        )
    except (ValueError, FileNotFoundError) as error:
        return f"there is no table: {escaped(str(error))}"


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"SHOTS must be whole numbers from 1 on, or -1 for all, got {text!r}") from None


def say_states(steps: Iterable[Step], states: Mapping[Path, str]) -> list[str]:
    """Which runs have finished, will go on and are new, a line for each trainer, config and data set."""
    found: dict[str, dict[tuple[str, str, str], dict[str, list[int]]]] = {
        state: defaultdict(lambda: defaultdict(list)) for state in (FINISHED, GOES_ON, NEW)
    }
    counts: dict[str, int] = defaultdict(int)
    for step in steps:
        place, state = step.place, states[step.place.folder]
        found[state][place.trainer, place.config, place.dataset][step.part].append(place.seed)
        counts[state] += 1
    numbers = ", ".join(
        f"{counts[state]} {words}"
        for state, words in ((FINISHED, "have finished"), (GOES_ON, "will go on"), (NEW, "are new"))
    )
    lines = [f"{sum(counts.values())} runs: {numbers}"]
    for state, cells in found.items():
        for (trainer, config, dataset), parts in cells.items():
            runs = "; ".join(f"{part} seed {' '.join(map(str, seeds))}" for part, seeds in parts.items())
            lines.append(f"{state}: {trainer}/{config} {dataset}: {runs}")
    return lines


def say_time(seconds: Mapping[Path, float | None]) -> str:
    """How long what is left may take, one after the other."""
    known = [value for value in seconds.values() if value is not None]
    unknown = len(seconds) - len(known)
    if not seconds:
        return "nothing is left to run"
    if not known:
        return "no run of these kinds has finished yet, so nothing tells how long they will take"
    rest = f"; nothing tells of {unknown} further runs" if unknown else ""
    return f"about {duration(sum(known))} of runs, one after the other, as finished runs took{rest}"


def runs_of(
    steps: Iterable[Step],
    states: Mapping[Path, str],
    seconds: Mapping[Path, float | None],
    wanted: Wanted,
    answers: Answers,
) -> list[Run]:
    """What is left of a plan, for the engine."""
    steps = [step for step in steps if states[step.place.folder] != FINISHED]
    names = {step.place.folder: step.name for step in steps}
    heavy = weights(steps, seconds)
    runs = []
    for step in steps:
        folder = step.place.folder
        log = answers.output / LOGS / folder.parent / f"{folder.name}.log"
        needs = (names[step.trained.folder],) if step.trained and step.trained.folder in names else ()
        task = Command(*command_of(step, wanted, answers))
        runs.append(Run(step.name, task, log, needs, heavy[folder], seconds[folder]))
    return runs
