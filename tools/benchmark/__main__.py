"""How fast and how small every trainer is, against the published way of computing the same.

    python -m tools.benchmark                              all of it, into output/benchmark/cpu.json
    python -m tools.benchmark --page docs/performance.md   and the page made of it; finished measurements are kept
    python -m tools.benchmark --only text test --again     some sections again
    python -m tools.benchmark --device cuda --upstream /path/to/CoOp /path/to/MaPLe

Random weights at true sizes. Every trainer runs in a process of its own, so that its peak memory is its own; those that
are compared take their steps in turn, A B A B, and the others wait meanwhile. Of every comparison the median of the
rounds' ratios is given with their quartiles.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.common.choices import SECTIONS
from tools.common.commands import argument_parser
from tools.common.machine import cores


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argument_parser("tools.benchmark", __doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=cores(), help="of PyTorch, in each process")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="of the encoders; fp16 on CUDA")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION", help=f"{SECTIONS}"
    )
    parser.add_argument(
        "--upstream", nargs="+", default=[], metavar="PATH", help="folders of the published CoOp, MaPLe"
    )
    parser.add_argument("--output", type=Path, help="results; by default output/benchmark/<device>.json")
    parser.add_argument("--page", type=Path, help="write the page of all results there")
    parser.add_argument("--again", action="store_true", help="measure again what the results have already")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that all of it runs")
    args = parser.parse_args(arguments)
    if args.threads < 1:
        parser.error(f"--threads must be at least 1, got {args.threads}")
    if args.precision == "fp16" and args.device == "cpu":
        parser.error("--precision fp16 needs --device cuda, got cpu")
    return args


def main() -> None:
    arguments = parse_arguments()
    from tools.benchmark.measure import run

    try:
        run(arguments)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"tools.benchmark: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
