"""What `python -m tools.reproduce` does: look what is there, plan, run, and write the page."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from storage.files import atomic_write
from storage.safe_text import escaped
from tools.common.paths import ROOT
from tools.data.check import Report, show
from tools.reproduce.page import Found, render_page
from tools.reproduce.plan import PaperPlan, plan_paper
from tools.reproduce.results import Reader, Result, expected_config
from tools.reproduce.there import Weights, look_at_data, look_at_weights, papers_digest
from tools.results import published
from tools.sweep.engine import Failure, clear_logs
from tools.sweep.protocols import Step
from tools.sweep.sweep import do_runs, say_states, say_time
from trainers.modules.provenance import origin

PAGE = "reproduce.md"


def reproduce(
    args: argparse.Namespace, settings: Sequence[str], environment: Mapping[str, str], protocols: Sequence[str]
) -> int:
    """Do as the command line asks.

    Args:
        args: of the command line.
        settings: KEY VALUE pairs.
        environment: variables.
        protocols: of the tables.

    Returns:
        The exit status: 0 if every run that has its data has a result on the page, else 1.

    Raises:
        ValueError, OSError: what is asked for cannot be run.
        KeyboardInterrupt: Ctrl-C; the page is written before.
    """
    data, output = (
        Path(given or environment.get(name) or ROOT / name.lower()).expanduser().absolute()
        for name, given in (("DATA", args.data), ("OUTPUT", args.output))
    )
    page = Path(args.page).expanduser().absolute() if args.page else output / PAGE
    _check_folders(data, page)
    paper = plan_paper(
        protocols, args.trainers, args.seeds, settings, {**environment, "DATA": str(data), "OUTPUT": str(output)}
    )
    names = published.in_order({step.dataset for step in paper.every.values()})
    print(f"looking at {len(names)} data sets in {escaped(str(data))}", flush=True)
    weights = [look_at_weights(name, not args.dry_run) for name in backbones(paper)]
    reports = look_at_data(names, data)
    tell_what_is_there(reports, weights)
    absent = {name for name, report in reports.items() if not report.usable}
    plan = paper.possible(absent)
    if not plan.steps:
        raise ValueError(f"nothing can be run: {data} has none of the data sets that are needed, as told above")
    left = len(paper.every) - len(plan.steps)
    for line in (
        *say_states(plan),
        *([f"left out for lack of data: {left} runs"] if left else []),
        say_time(plan.seconds.values()),
    ):
        print(escaped(line), flush=True)
    runs = plan.runs()
    problems = [f"CLIP {known.name}: {known.problem}" for known in weights if known.problem]
    if problems and runs:
        raise ValueError("nothing can be run without its weights, as told above")
    if args.dry_run:
        return 0
    failures: list[Failure] = []
    interrupted = None
    try:
        failures = do_runs(runs, args)
    except KeyboardInterrupt as stop:
        interrupted = stop
    if runs:  # which save the splits that their readers make
        others = [name for name, report in reports.items() if report.usable and not report.as_published]
        reports = {**reports, **look_at_data(others, data)}
    found = gather(paper, output, settings, failures, reports, weights)
    page.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(page) as path:
        path.write_text(render_page(found), encoding="utf-8")
    print(f"the page is {escaped(str(page))}", flush=True)
    if interrupted:
        raise interrupted
    clear_logs(output)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    lacking = [step for step in plan.steps if found.results[step].accuracy is None]
    for step in lacking:
        if found.results[step].refused:
            print(f"not counted: {escaped(step.name)}: {escaped(found.results[step].problem)}", file=sys.stderr)
    return 1 if lacking else 0


def gather(
    paper: PaperPlan,
    output: Path,
    settings: Sequence[str],
    failures: Sequence[Failure],
    reports: Mapping[str, Report],
    weights: Sequence[Weights],
) -> Found:
    """Read all results for the page."""
    errors = {failure.run.name: str(failure).removeprefix(f"{failure.run.name}: ") for failure in failures}
    reader = Reader(output, settings, errors)
    digest = papers_digest(weights)
    results = without_other_weights({step: reader.read(step) for step in paper.every.values()}, digest)
    return Found(paper, results, reports, weights, digest, made_by())


def without_other_weights(results: Mapping[Step, Result], digest: str) -> dict[Step, Result]:
    """Results, those of other weights of CLIP refused where there are some of the paper's.

    Args:
        results: of all runs.
        digest: of the paper's weights; empty where it is not known.
    """
    if not digest or not any(result.digest == digest and result.accuracy is not None for result in results.values()):
        return dict(results)
    problem = (
        f"was made with other weights of CLIP than OpenAI's {published.BACKBONE}; remove its folder to run it again"
    )
    return {
        step: Result(problem=f"{step.place.folder} {problem}", refused=True)
        if result.accuracy is not None and result.digest != digest
        else result
        for step, result in results.items()
    }


def made_by() -> dict[str, str | None]:
    """Command and date of the page."""
    return {**origin(), "command": shlex.join(["python", "-m", "tools.reproduce", *sys.argv[1:]])}


def backbones(paper: PaperPlan) -> list[str]:
    """The CLIPs that the planned runs name.

    Raises:
        OSError, ValueError: as `expected_config`; with all that is wrong with the settings of each trainer.
    """
    one_of_each = {(step.place.trainer, step.config): step for step in paper.every.values()}
    names: dict[str, None] = {}
    problems = []
    for step in one_of_each.values():
        try:
            config = expected_config(
                step.place.trainer, step.config, step.dataset, step.place.classes, tuple(paper.wanted.settings)
            )
            names[config.MODEL.BACKBONE.NAME] = None
        except ValueError as error:
            problems.append(f"{step.place.trainer}/{step.config}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return list(names)


def tell_what_is_there(reports: Mapping[str, Report], weights: Sequence[Weights]) -> None:
    """All that is missing or differs, and how to get it; of the rest one line."""
    fine = [name for name, report in reports.items() if report.usable and report.as_published]
    for name, report in reports.items():
        if name not in fine:
            kept = [line for line in report.lines if not line.startswith(("images ", "note "))]
            show(report._replace(lines=kept))
    if fine:
        print(f"as published: {', '.join(fine)}")
    for known in weights:
        whose = f"OpenAI's {known.model}" if known.model else "not a file of OpenAI's"
        told = known.problem or known.note or f"{known.path}, {whose}"
        print(f"CLIP {escaped(known.name)}: {'NOT USABLE: ' if known.problem else ''}{escaped(told)}", flush=True)


def _check_folders(data: Path, page: Path) -> None:
    """Raise ValueError for a data folder that is not there, and a page that cannot be written."""
    problems = []
    if not data.is_dir():
        problems.append(f"--data must be the folder of the data sets, and there is no folder {data}")
    there = next(path for path in (page.parent, *page.parent.parents) if path.exists())
    if page.is_dir() or not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        problems.append(f"--page must be a file that can be written, got {page}")
    if problems:
        raise ValueError("; ".join(problems))
