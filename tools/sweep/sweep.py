"""What `python -m tools.sweep` does: plan the runs, list them, do them, and print the table."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from storage.safe_text import escaped
from tools.common.layout import Place, trains_nothing
from tools.common.paths import ROOT
from tools.results import text_table
from tools.sweep.engine import INSTALL, LOGS, Failure, OneByOne, Run, carry_out, choose_engine, clear_logs
from tools.sweep.protocols import PROTOCOLS, Answers, Step, Wanted, calibration_of, command_of, plan_steps
from tools.sweep.state import FINISHED, GOES_ON, NEW, START, expected, look, to_calibrate, weights
from tools.sweep.view import duration, view_of
from tools.sweep.work import Command


@dataclass(frozen=True)
class Plan:
    """The runs of a protocol, and what is known of them.

    Attributes:
        protocol: a key of `PROTOCOLS`.
        wanted: what was asked for.
        steps: all runs.
        answers: what the scripts say of them.
        states: the state of each run, by its folder below the output folder.
        seconds: what each remaining run may take, likewise by its folder; None if there is no estimate.
        calibrate: options of `tools.calibrate`, if calibrations that tests need are fitted, too; else None.
    """

    protocol: str
    wanted: Wanted
    steps: Sequence[Step]
    answers: Answers
    states: Mapping[Path, str]
    seconds: Mapping[Path, float | None]
    calibrate: Sequence[str] | None = None

    @property
    def left(self) -> list[Step]:
        """The steps that have not finished."""
        return [step for step in self.steps if self.states[step.place.folder] != FINISHED]

    @property
    def uncalibrated(self) -> set[Place]:
        """The places whose calibrations are to be fitted."""
        return set() if self.calibrate is None else to_calibrate(self.left, self.answers.output)

    def runs(self) -> list[Run]:
        """The remaining runs, for the engine."""
        left, uncalibrated = self.left, self.uncalibrated
        names = {step.place.folder: step.name for step in left}
        heavy = weights(left, self.seconds)
        runs, fitted = [], {}
        for step in left:
            place, weight = step.place, heavy[step.place.folder]
            needs = (names[step.trained.folder],) if step.trained and step.trained.folder in names else ()
            if step.calibrated in uncalibrated:
                if step.calibrated not in fitted:
                    before = self._before_calibration(step, needs, weight)
                    fitted[step.calibrated] = self._calibration(step.calibrated, before, needs, weight)
                    runs += [*before, fitted[step.calibrated]]
                needs = (*needs, fitted[step.calibrated].name)
            task = Command(*command_of(step, self.wanted, self.answers))
            runs.append(Run(step.name, task, self._log(place), needs, weight, self.seconds[place.folder]))
        return runs

    def _before_calibration(self, step: Step, needs: tuple[str, ...], weight: float) -> list[Run]:
        """If nothing is trained: the test whose validation images the calibration is fitted on.

        No run if that test's results are there.
        """
        place = step.calibrated
        if place is None or step.trained or (self.answers.output / place.folder / "results.json").is_file():
            return []
        test = next(other for other in self.steps if other.place == place)
        test = replace(test, calibrated=None)
        task = Command(*command_of(test, self.wanted, self.answers))
        return [Run(f"{test.name} before calibration", task, self._log(place, "-before"), needs, weight)]

    def _calibration(self, place: Place, before: Sequence[Run], needs: tuple[str, ...], weight: float) -> Run:
        task = Command(*calibration_of(place, self.calibrate or (), self.answers))
        name = f"{place.trainer}/{place.config} {place.dataset} seed {place.seed}: calibration of {place.kind}"
        needs = (*needs, *(run.name for run in before))
        return Run(name, task, self._log(place, "-calibration"), needs, weight)

    def _log(self, place: Place, mark: str = "") -> Path:
        """The log of a run or, with a mark, of what is done for its calibration."""
        folder = place.folder
        return self.answers.output / LOGS / folder.parent / f"{folder.name}{mark}.log"


def make_plan(protocol: str, wanted: Wanted, calibrate: Sequence[str] | None = None) -> Plan:
    """Plan a protocol's runs, and look which of them have finished.

    Args:
        protocol: a key of `PROTOCOLS`.
        wanted: what is asked for.
        calibrate: as in `Plan`.

    Raises:
        ValueError: as `plan_steps`.
    """
    steps, answers = plan_steps(protocol, wanted)
    states = look(steps, answers.output)
    return Plan(protocol, wanted, steps, answers, states, expected(steps, states, answers.output), calibrate)


def sweep(args: argparse.Namespace, settings: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a protocol as the command line asks for it.

    Args:
        args: arguments of the command line.
        settings: KEY VALUE pairs.
        environment: variables of the scripts.

    Returns:
        The exit status: 0 if all runs have finished, else 1.

    Raises:
        ValueError, OSError: what is asked for cannot be run.
        KeyboardInterrupt: Ctrl-C.
    """
    kind = PROTOCOLS[args.protocol]
    calibrate = None
    if args.calibrated:
        if args.protocol == "fewshot":
            raise ValueError("--calibrated is of tests, and fewshot has none beside those that end its trainings")
        environment = {**environment, "CALIBRATED": "1"}
        calibrate = [] if args.hold_out is None else ["--hold-out", str(args.hold_out)]
    elif args.hold_out is not None:
        raise ValueError("--hold-out says what --calibrated is fitted on: give both")
    given = environment.get("SHOTS", "").split()
    wanted = Wanted(
        trainers=args.trainers,
        datasets=args.datasets or kind.datasets,
        seeds=args.seeds,
        shots=args.shots or (_numbers(given) if given else kind.shots),
        settings=settings,
        source=args.source,
        environment=environment,
    )
    plan = make_plan(args.protocol, wanted, calibrate)
    for line in (*say_states(plan), say_time(plan.seconds.values())):
        print(escaped(line), flush=True)
    if args.dry_run:
        return 0
    failures = do_plan(plan, args)
    print(table(plan))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def do_plan(plan: Plan, args: argparse.Namespace) -> list[Failure]:
    """Do the remaining runs of a plan; arguments and errors as for `do_runs` and `check_data`."""
    check_data(plan)
    failures = do_runs(plan.runs(), args)
    clear_logs(plan.answers.output)
    return failures


def check_data(plan: Plan) -> None:
    """Check quickly that the public data sets of the remaining runs are there.

    Raises:
        ValueError: not all are there; the missing files are listed on stderr.
    """
    left = {step.dataset for step in plan.steps if plan.states[step.place.folder] != FINISHED}
    public = sorted(left - plan.answers.generated - {"folder"})
    if public:
        python = plan.answers.python or sys.executable
        command = [python, "-m", "tools.datasets", "check", "--quick", "--root", str(plan.answers.data), *public]
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            print(done.stdout, end="", file=sys.stderr)
            raise ValueError("set DATA to the folder of the data sets, or --datasets to those that are there")


def do_runs(runs: Sequence[Run], args: argparse.Namespace, cpus: int | None = None) -> list[Failure]:
    """Do runs where the options of `engine.add_options` say, with a view of them on stderr.

    Args:
        args: arguments of the command line.
        cpus: how many cores of this machine are used; None for all.

    Returns:
        What failed.

    Raises:
        ValueError, ConnectionError: as `choose_engine`.
        KeyboardInterrupt: Ctrl-C.
    """
    if not runs:
        return []
    engine = choose_engine(len(runs), args.address, args.gpus_per_run, args.cpus_per_run, args.one_by_one, cpus)
    if isinstance(engine, OneByOne) and len(runs) > 1 and not args.one_by_one:
        print(f"Ray is not installed, so the runs go one after the other: {INSTALL}", file=sys.stderr)
    return carry_out(runs, engine, view_of(runs))


def table(plan: Plan) -> str:
    """The table of a plan's runs, or why there is none."""
    places = [step.place for step in plan.steps]
    sources = {step.trained.dataset for step in plan.steps if step.trained and step.place.kind == "evaluation"}
    try:
        return text_table(
            plan.answers.output,
            plan.protocol,
            datasets=sorted({place.dataset for place in places}),
            trainers=sorted({place.trainer for place in places}),
            configs=sorted({place.config for place in places}),
            shots=sorted({0 if trains_nothing(place.trainer) else place.shots for place in places}),
            seeds=sorted({place.seed for place in places}),
            source=sources.pop() if len(sources) == 1 else "",
        )
    except (ValueError, FileNotFoundError) as error:
        return f"there is no table: {escaped(str(error))}"


def say_states(plan: Plan) -> list[str]:
    """Which runs have finished, will go on and are new, a line for each trainer, config and data set."""
    found: dict[str, dict[tuple[str, str, str], dict[str, list[str]]]] = {
        state: defaultdict(lambda: defaultdict(list)) for state in (FINISHED, GOES_ON, NEW)
    }
    counts = dict.fromkeys(found, 0)
    for step in plan.steps:
        place, state = step.place, plan.states[step.place.folder]
        found[state][place.trainer, place.config, place.dataset][step.part].append(str(place.seed))
        counts[state] += 1
    lines = [
        f"{len(plan.steps)} runs: {counts[FINISHED]} have finished, {counts[GOES_ON]} will go on, {counts[NEW]} are new"
    ]
    for state, cells in found.items():
        for (trainer, config, dataset), parts in cells.items():
            runs = "; ".join(f"{part} of seed {' '.join(seeds)}" for part, seeds in parts.items())
            lines.append(f"{state}: {trainer}/{config} {dataset}: {runs}")
    if plan.uncalibrated:
        lines.append(f"calibrations that are fitted besides: {len(plan.uncalibrated)}")
    return lines


def say_time(seconds: Iterable[float | None]) -> str:
    """How long the remaining runs may take, one after the other."""
    seconds = list(seconds)
    known = [value for value in seconds if value is not None]
    unknown = len(seconds) - len(known)
    if not seconds:
        return "nothing is left to run"
    if not known:
        return "no run of these kinds has finished yet, so nothing tells how long they will take"
    rest = f"; nothing tells of {unknown} further runs" if unknown else ""
    return (
        f"left: about {duration(sum(known))}, as training and tests of finished runs took, with {START:g} s for the "
        f"start of each program{rest}"
    )


def _numbers(given: Iterable[str]) -> tuple[int, ...]:
    try:
        return tuple(map(int, given))
    except ValueError:
        raise ValueError(f"SHOTS must be whole numbers from 1 on, or -1 for all, got {' '.join(given)!r}") from None
