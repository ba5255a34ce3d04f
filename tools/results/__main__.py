"""Tables of finished runs: ours by their `results.json`, those of CoOp and MaPLe by their `log.txt`.

    python -m tools.results output [--protocol base2new|xd|dg|fewshot|open_set] [--format text|markdown|csv|latex]
    python -m tools.results output --metric ece --metric aurc_uncertainty
    python -m tools.results output --metric accuracy --metric ece --metric ece_calibrated --summary
    python -m tools.results output --protocol open_set [--metric fpr95_open_entropy] [--metric auroc_open]

Mean and standard deviation (that of a sample, n - 1) over seeds; the harmonic mean (HM) is of the two means. Where
metrics are named, the best of each row is marked by the metric's direction. What is
missing is named below the table; an average is over the data sets that every column has, or else over the most that
every trainer has in one column of its own, and says over how many.
Folders: `tools/common/layout.py`. What counts as a run's accuracy: `tools/results/runs.py`; with examples:
docs/tables.md.
"""

from __future__ import annotations

import sys

from storage.safe_text import escaped
from tools.common.commands import argument_parser
from tools.common.layout import PROTOCOLS
from tools.common.pipes import ending_quietly
from tools.results.filters import add_filters, chosen
from tools.results.render import FORMATS, heading, render, tables_of, terminal_width, with_notes
from tools.results.summary import summary


@ending_quietly()
def main(arguments: list[str] | None = None) -> None:
    parser = argument_parser("tools.results", __doc__)
    parser.add_argument("output", nargs="+", help="output folder of the runs; of several, the runs stand in one table")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="base2new", help="base2new (default): base to new")
    parser.add_argument(
        "--format", choices=FORMATS, default="text", help="text (default); CSV has a line for each figure"
    )
    parser.add_argument(
        "--raw", action="store_true", help="CSV: texts as they are, also formulas and control characters"
    )
    parser.add_argument("--paper", action="store_true", help="the CDC paper's numbers beside, and the differences")
    add_filters(parser)
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        help="any figure of results.json (repeatable, a table for each; default: accuracy, of open_set "
        "auroc_open_confidence); in open_set also without its score, for all scores",
    )
    parser.add_argument(
        "--summary", action="store_true", help="one table of averages: a row for each method, a column for each metric"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="fewshot: curves of accuracy over shots as a picture")
    args = parser.parse_args(arguments)
    try:
        if args.plot and args.protocol != "fewshot":
            raise ValueError("--plot draws few-shot curves: give --protocol fewshot with it")
        if args.plot and args.metric not in ([], ["accuracy"]):
            raise ValueError("--plot draws the accuracy: give no other --metric with it")
        if args.summary and (args.format == "csv" or args.paper or args.plot):
            raise ValueError("--summary is a table of its own: give no --format csv, --paper or --plot with it")
        shown = [
            table
            for figure in args.metric or [""]
            for table in tables_of(
                args.output,
                args.protocol,
                figure=figure,
                **chosen(args),
            )
        ]
        mark = bool(args.metric) or args.protocol == "open_set"
        if args.summary:
            print(summary(shown, args.format, mark))
            return
        texts = [render(table, args.format, args.paper, args.raw, terminal_width(), mark) for table in shown]
        if args.plot:
            from tools.results.curves import draw_curves  # matplotlib takes a second to load

            draw_curves(shown[0], args.plot)
    except (OSError, ValueError) as error:
        parser.exit(2, f"tools.results: {escaped(str(error))}\n")
    if args.format == "csv":
        print("\n".join([texts[0][0], *(line for text, _ in texts[1:] for line in text.splitlines()[1:])]))
        notes = list(dict.fromkeys(note for _, own in texts for note in own))
        if notes:
            print("\n".join(notes), file=sys.stderr)
        return
    parts = [with_notes(text, notes, args.format) for text, notes in texts]
    if mark:
        comment = "% " if args.format == "latex" else ""
        parts = [f"{comment}{heading(table)}\n\n{part}" for table, part in zip(shown, parts)]
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
