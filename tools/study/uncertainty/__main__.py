"""Measure what makes CDC's uncertainty say when a prediction is wrong, and write docs/uncertainty_study.md.

    python -m tools.study.uncertainty                 # trains what is missing, measures, writes figures and page
    python -m tools.study.uncertainty --finished      # trains nothing: takes the runs that are there
    python -m tools.study.uncertainty --page-only     # writes the page from the figures in docs/uncertainty_study.json

Runs lie below `--output` in the layout of the scripts. Those on the smaller sets of `tools.search`, by which
all was chosen, lie in its folder choice. Every run is encoded once, into files beside its results. All ways to fuse are
computed from its cosines.
"""

from __future__ import annotations

from pathlib import Path

from storage.safe_text import escaped
from tools.common.commands import argument_parser
from tools.common.paths import ROOT


def main() -> None:
    parser = argument_parser("tools.study.uncertainty", __doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "uncertainty", help="folder of the runs")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds (default: 1 2 3)")
    parser.add_argument("--finished", action="store_true", help="train nothing, measure the runs that are there")
    parser.add_argument("--page-only", action="store_true", help="measure nothing, write the page of the figures")
    parser.add_argument(
        "--figures", type=Path, default=ROOT / "docs" / "uncertainty_study.json", help="file of figures"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "uncertainty_study.md", help="page to write")
    args = parser.parse_args()
    from tools.study.uncertainty.figures import write_figures
    from tools.study.uncertainty.page import write_page

    try:
        if not args.page_only:
            from tools.study.uncertainty.runs import measure_all

            rows = measure_all(args.output.absolute(), args.data.absolute(), args.seeds, not args.finished)
            write_figures(args.figures, rows)
        write_page(args.figures, args.page)
    except (OSError, ValueError) as error:
        parser.exit(2, f"tools.study.uncertainty: {escaped(str(error))}\n")
    print(f"{args.page} is written")


if __name__ == "__main__":
    main()
