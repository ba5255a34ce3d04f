"""The main job in small: base-to-new on an embedded data set over the embedded CLIP.

    python -m tools.demo [--dataset shapes] [--seeds 1 2 3] [--output output]
    python -m tools.demo --methods all      # every method side by side; else CDC and zero-shot CLIP

Runs the same scripts as on the public data sets, as `python -m tools.sweep` does, and ends with the table Base / New /
HM. Runs that are finished are not run again.
"""

from __future__ import annotations

import os
import sys

from tools.common.commands import argument_parser, told_in_one_line
from tools.common.paths import ROOT

# The methods that can be shown: trainer and config
METHODS = {
    "ZeroshotCLIP": "ZeroshotCLIP/tiny",
    "ZeroshotCLIP2": "ZeroshotCLIP2/tiny",
    "CLIPICM": "CLIPICM/tiny",
    "CoOp": "CoOp/tiny",
    "CoCoOp": "CoCoOp/tiny",
    "KgCoOp": "KgCoOp/tiny",
    "MaPLe": "MaPLe/tiny",
    "TCP": "TCP/tiny",
    "PromptSRC": "PromptSRC/tiny",
    "MMRL": "MMRL/tiny",
    "CDC-text": "CDC/tiny_text",
    "CDC": "CDC/tiny",
    "CDC-self-regulated": "CDC/tiny_self_regulated",
}


def main() -> None:
    from tools.sweep.engine import add_options

    parser = argument_parser("tools.demo", __doc__)
    parser.add_argument("--dataset", default="shapes", help="an embedded data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds")
    parser.add_argument("--output", default=str(ROOT / "output"), help="output folder")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["CDC", "ZeroshotCLIP"],
        metavar="METHOD",
        choices=["all", *METHODS],
        help=f"all, or among {', '.join(METHODS)}",
    )
    add_options(parser)
    args = parser.parse_args()

    from tools.common.scripts import SCRIPT_VARIABLES
    from tools.results import text_table
    from tools.results.render import terminal_width
    from tools.sweep.protocols import Wanted
    from tools.sweep.sweep import do_plan, make_plan

    kept = {name: value for name, value in os.environ.items() if name not in SCRIPT_VARIABLES}
    wanted = Wanted(
        trainers=[METHODS[method] for method in (METHODS if "all" in args.methods else args.methods)],
        datasets=[args.dataset],
        seeds=args.seeds,
        environment={**kept, "PYTHON": sys.executable, "OUTPUT": os.path.abspath(args.output)},
    )
    with told_in_one_line("tools.demo"):
        failures = do_plan(make_plan("base2new", wanted), args)
    if failures:
        parser.exit(1, "".join(f"tools.demo: {failure}\n" for failure in failures))
    print(text_table(args.output, datasets=[args.dataset], width=terminal_width()))
    print(f"Logs, checkpoints and every figure lie below {args.output}/base2new.")


if __name__ == "__main__":
    main()
