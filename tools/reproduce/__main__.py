"""Run what Tables 1 to 3 of the CDC paper are made of, and set what comes out beside the paper's numbers.

    python -m tools.reproduce --data DIR [--dry-run]
    python -m tools.reproduce --data DIR --trainers CDC MaPLe --tables 1 --seeds 1 2 3 [KEY VALUE ...]

Table 1 is base to new on eleven data sets, Table 2 training on ImageNet and tests on ten others, Table 3 tests on four
variants of ImageNet. First the data sets in DIR and the weights of CLIP are looked at, and it is told what is missing
and how to get it. Then the runs that are left are told, and done as by `python -m tools.sweep`, whose folders, options
and interruptions these are; what has no data is left out. In the end a page is written: each number, the paper's, the
difference, whether it lies within two standard deviations over the seeds, what is missing, and what it cost.

The exit status is 0 if every run that has its data has a result on the page, 1 if not, 2 if nothing can be run, and
130 after Ctrl-C; then, too, the page has what has finished, and the same command goes on.

KEY VALUE pairs stand last, and before a KEY without a dot, as USE_CUDA, put --. Of the environment variables of
scripts/cdc/*.sh, DATA, OUTPUT, PYTHON and CFG hold. See docs/reproduce.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools.common.commands import argument_parser, told_in_one_line
from tools.common.pipes import ending_quietly
from tools.sweep.__main__ import split_settings

TRAINERS = ("CDC", "CoOp", "CoCoOp", "MaPLe")  # of the paper
TABLES = {1: "base2new", 2: "xd", 3: "dg"}  # of the paper, by their protocols


@ending_quietly()
def main() -> None:
    from tools.sweep.engine import add_options

    parser = argument_parser(
        "tools.reproduce", __doc__, allow_abbrev=False, usage="%(prog)s --data DIR [options] [KEY VALUE ...]"
    )
    parser.add_argument("--data", help="folder of the data sets (default: $DATA, or data in the checkout)")
    parser.add_argument("--output", help="folder of the runs (default: $OUTPUT, or output in the checkout)")
    parser.add_argument("--page", type=Path, help="Markdown file that is written (default: reproduce.md in the output)")
    parser.add_argument(
        "--trainers",
        nargs="+",
        default=TRAINERS,
        metavar="TRAINER",
        help=f"or TRAINER/CONFIG, where not the default config is meant (default: {' '.join(TRAINERS)})",
    )
    parser.add_argument(
        "--tables", nargs="+", type=int, choices=TABLES, default=[*TABLES], metavar="N", help="(default: 1 2 3)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="SEED", help="(default: 1 2 3)")
    parser.add_argument("--dry-run", action="store_true", help="run and write nothing, only tell what would be run")
    add_options(parser)
    arguments, settings = split_settings(sys.argv[1:])
    args = parser.parse_args(arguments)
    if any(setting.startswith("--") for setting in settings):
        parser.error(f"options stand before KEY VALUE pairs, got {' '.join(settings)}")

    from tools.reproduce.reproduce import reproduce

    with told_in_one_line("tools.reproduce"):
        status = reproduce(args, settings, dict(os.environ), [TABLES[number] for number in sorted(set(args.tables))])
    sys.exit(status)


if __name__ == "__main__":
    main()
