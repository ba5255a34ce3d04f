"""The study: every method, the parts of CDC, and every protocol of the paper on the embedded data sets.

    make study                  # or python -m tools.study; some 1,000 trainings, resumable
    make study QUICK=1          # or python -m tools.study --quick: each part once, briefly, into output/study_quick
    python -m tools.study --only base2new confounded --seeds 1 2        # a part of it, which the rest then finds done
    python -m tools.study --page-only                                   # the page of the runs that are there
    python -m tools.study --kept docs/study.csv                         # runs only what that file has no figures of

Runs lie below `--output` in the layout of the scripts, for `tools.results` and `tools.predict` too. The page and its
pictures are then made from their `results.json` files alone, and `report.html` beside the runs shows them all. Their
figures are kept beside the page, in a .csv, from which `--page-only` makes it again where the runs are not there. Runs
that are finished are not run again.

With `--kept` the figures of runs that were made elsewhere are taken from such .csv files: the study goes on at another
machine, or is shared among several by their seeds, whose files are named together in the end. Seeds 6 to 12 are those
of the section `seeds` (`--only seeds --seeds 6 7`). Settings are not compared, so all must be of the same configs, and
of machines that give the same figures. A training is done again where a test of it is left, and its own figures then
count. Without `--kept` the page is left as it is where its .csv has figures of runs that are not here. `docs/study.md`
is of all seeds: with `--seeds` it and its .csv are left as they are, and `--page` names another page to write.

Runs go side by side where Ray is installed, as with `python -m tools.sweep`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from storage.safe_text import escaped
from tools.common.commands import argument_parser, told_in_one_line
from tools.common.paths import ROOT
from tools.study.sections import SECTIONS

if TYPE_CHECKING:
    from tools.study.plan import Plan
    from tools.sweep.engine import Failure


def main() -> None:
    parser = _parser()
    args = parser.parse_args()
    from tools.study.page import write_page
    from tools.study.plan import full, quick
    from tools.study.results import read_all_kept, update_kept

    output = (args.output or ROOT / "output" / ("study_quick" if args.quick else "study")).absolute()
    page = args.page or (output / "study.md" if args.quick else ROOT / "docs" / "study.md")
    kept = page.with_suffix(".csv")
    plan = quick(output) if args.quick else full(output)
    of_some_seeds = bool(args.seeds) and not args.quick and args.page is None  # the page's text is of all
    if args.seeds:
        more, parts = (
            tuple(seed for seed in seeds if seed in args.seeds) for seeds in (plan.more_seeds, plan.parts_seeds)
        )
        plan = replace(plan, seeds=tuple(args.seeds), more_seeds=more, parts_seeds=parts)
    started = time.time()
    try:
        elsewhere = read_all_kept(args.kept, output)
        read_all_kept([*args.kept, *[kept] * kept.is_file()], output)  # one that disagrees is told before the runs
        failures = [] if args.page_only else _run(plan, {output / run for run in elsewhere}, args)
        folders = [folder for experiment in plan.experiments() for folder in experiment.folders]
        if failures:
            told = [escaped(str(failure)) for failure in failures]
            print("\n".join(["tools.study: these runs failed; those of the others are kept:", *told]), file=sys.stderr)
        if of_some_seeds:
            print(escaped(f"{page} and its .csv are left as they are, of all seeds: --page FILE writes one of these"))
            parser.exit(1 if failures else 2 if args.page_only else 0)
        figures, lost, changed = update_kept(kept, output, folders, elsewhere)
        if changed:
            text = f"{len(changed)} runs that are here have other figures than kept files have, such as {changed[0]}"
            print(f"tools.study: {escaped(text)}", file=sys.stderr)
        if failures:
            parser.exit(1)
        if not figures:
            parser.exit(2, f"tools.study: there are no runs in {escaped(str(output))}, and no {escaped(str(kept))}\n")
        if not lost:
            write_page(plan, figures, page)
    except (OSError, ValueError) as error:
        parser.exit(2, f"tools.study: {escaped(str(error))}\n")
    kind = " (a trial, whose figures mean nothing)" if plan.is_trial else ""
    done = f"{page} is written{kind}; it took {(time.time() - started) / 60:.0f} minutes"
    if lost:
        done = escaped(
            f"{page} is left as it is, as {kept} has figures of {len(lost)} runs that are not here, such as {lost[0]}: "
            f"--kept {kept} takes them over, --page FILE writes another page"
        )
        if args.page_only:
            parser.exit(2, f"tools.study: {done}\n")
    print(done)
    print(_report(plan, output, args.data) if output.is_dir() else f"its figures are those that {kept} keeps")


def _parser() -> argparse.ArgumentParser:
    from tools.sweep.engine import add_options, add_report_to

    parser = argument_parser("tools.study", __doc__)
    parser.add_argument("--quick", action="store_true", help="each part once, briefly")
    parser.add_argument("--output", type=Path, help="folder of the runs (default: output/study, or output/study_quick)")
    parser.add_argument("--page", type=Path, help="page to write (default: docs/study.md, or study.md in the output)")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of the data sets")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        help="seeds, of all sections (default: 1 to 5, or 1; and those of the section seeds)",
    )
    parser.add_argument(
        "--only", choices=SECTIONS, nargs="+", default=[], help="run these sections alone, in the usual order"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="cores of this machine to use (default: all)")
    parser.add_argument(
        "--kept",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="take figures of runs that were made elsewhere, and do only the others; FILE is such as docs/study.csv. A "
        "run in the output folder wins over them",
    )
    parser.add_argument("--page-only", action="store_true", help="run nothing, write the page of what is there")
    add_report_to(parser)
    add_options(parser)
    return parser


def _run(plan: Plan, kept: Set[Path], args: argparse.Namespace) -> list[Failure]:
    """Do what is to be done where figures of the runs in some folders are kept, and return what failed."""
    from tools.study.plan import left
    from tools.study.run import run_all, write_data_sets

    planned = plan.experiments(args.only)
    if not planned:
        raise ValueError(f"{', '.join(args.only)} has no runs with the seeds {', '.join(map(str, args.seeds))}")
    runs = left(planned, kept)
    print(f"{len(runs)} of {len(planned)} runs are to be done, or checked if they are here", flush=True)
    if not runs:
        return []
    write_data_sets(plan.data_sets, args.data.absolute())
    with told_in_one_line("tools.study"):
        return run_all(runs, plan.output, args.data.absolute(), args)


def _report(plan: Plan, output: Path, data: Path) -> str:
    """Write the report of all runs, and say where it is or why there is none."""
    missing = [name for name in ("jinja2", "plotly") if importlib.util.find_spec(name) is None]
    if missing:
        return f"there is no report, as {' and '.join(missing)} are missing: pip install -e '.[report]'"
    from tools.report.gather import gather
    from tools.report.page import write_page

    path = output / "report.html"
    title = "A trial of the study: its figures mean nothing" if plan.is_trial else "The study"
    try:
        write_page(gather([output], data=data), title, path)
    except (OSError, ValueError) as error:
        return f"there is no report: {escaped(str(error))}"
    return f"{path} shows all runs that are here ({path.stat().st_size / 2**20:.1f} MiB)"


if __name__ == "__main__":
    main()
