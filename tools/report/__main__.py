"""One HTML page of all runs below an output folder: tables, charts, images, costs, and what was run.

    python -m tools.report output [--output report.html] [--compare CoOp CDC] [--data DIR]

The page is one file. It opens from disk or from a mail, without a server and without a network. It shows each
run's `results.json`, `predictions.npz` and log; for runs of CoOp's and MaPLe's own code, only the log.
It needs plotly and jinja2: pip install -e '.[report]'
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from storage.safe_text import escaped
from tools.common.commands import argument_parser
from tools.common.layout import PROTOCOLS
from tools.common.pipes import ending_quietly
from tools.results.filters import add_filters, chosen


@ending_quietly()
def main(arguments: list[str] | None = None) -> None:
    parser = argument_parser("tools.report", __doc__)
    parser.add_argument(
        "outputs", nargs="+", metavar="OUTPUT", help="output folder of the runs; of several, all on one page"
    )
    parser.add_argument("--output", default="report.html", metavar="FILE.html", help="the page (default: report.html)")
    parser.add_argument("--title", default="CDC and its peers", help="of the page")
    parser.add_argument("--protocol", action="append", default=[], choices=PROTOCOLS, help="only this one (repeatable)")
    add_filters(parser)
    parser.add_argument(
        "--compare", nargs=2, default=[], metavar="SYSTEM", help="show images that these two judge differently"
    )
    parser.add_argument("--images", type=int, default=6, help="images in a row of the gallery; 0 for none (default: 6)")
    parser.add_argument("--data", help="folder of the data sets' images (default: where each run had them)")
    args = parser.parse_args(arguments)
    if args.images < 0:
        parser.error(f"--images must be a number from 0 on, got {args.images}")
    for package in ("jinja2", "plotly"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            parser.exit(2, f"tools.report: {package} is not installed: pip install -e '.[report]'\n")

    import compat  # noqa: F401  makes `import dassl` work

    from tools.report.gather import gather
    from tools.report.page import write_page

    try:
        report = gather(
            args.outputs,
            args.protocol,
            pictures=args.images,
            data=args.data,
            compare=args.compare,
            **chosen(args),
        )
        write_page(report, args.title, args.output)
    except (OSError, ValueError) as error:
        parser.exit(2, f"tools.report: {escaped(str(error))}\n")
    size = Path(args.output).stat().st_size / 2**20
    tests = sum(detail["runs"] for detail in report.details)
    told = ", ".join(f"{n} {what}{'s' * (n != 1)}" for n, what in ((len(report.tables), "table"), (tests, "test")))
    print(f"{args.output}: {size:.1f} MiB, {told} with records")
    for note in report.notes:
        print(escaped(note), file=sys.stderr)


if __name__ == "__main__":
    main()
