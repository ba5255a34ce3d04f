"""Fit how certain runs are to how often they are right, on validation images of the classes that they were trained on.

    python -m tools.calibrate RUN... [--hold-out N]

RUN is the folder of a finished training, of a test where the method trains nothing, or a folder of such runs. What is
fitted is one temperature of the softmax, or scale and shift of CDC's evidence. `calibration.json` in the run's folder
holds it, with calibration and error detection before and after, and the scores for the thresholds of tools.predict.
Tests use it by TEST.CALIBRATION or CALIBRATED=1, tools.predict by --calibrated, --coverage and --reject-above.

Where a data set has no validation images, --hold-out N takes N per class of the training images that the run was not
trained on. The exit status is 0 if all runs were calibrated, 1 if some were not, and 2 if none was.
"""

from __future__ import annotations

import argparse
import sys

from storage.safe_text import last_line
from tools.common.commands import add_method_options, add_model_options, argument_parser


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argument_parser("tools.calibrate", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or of runs")
    parser.add_argument(
        "--hold-out",
        type=int,
        metavar="N",
        help="fit on N images per class that are for training, and that the run was not trained on",
    )
    parser.add_argument("--root", default="", help="folder of the data sets (default: the run's)")
    add_method_options(parser)
    add_model_options(parser)
    args = parser.parse_args(arguments)
    if args.hold_out is not None and args.hold_out < 1:
        parser.error(f"--hold-out must be at least 1 image per class, got {args.hold_out}")
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    from tools.calibrate.fit import calibrate, describe, find_runs

    n_done = n_failed = 0
    try:
        runs = find_runs(args.runs)
    except (OSError, ValueError) as error:
        print(f"tools.calibrate: {last_line(error)}", file=sys.stderr)
        return 2
    for run in runs:
        try:
            print(describe(run, *calibrate(run, args)))
            n_done += 1
        except (OSError, ValueError, FloatingPointError) as error:
            if args.debug:
                raise
            print(f"tools.calibrate: {run}: {last_line(error)}", file=sys.stderr)
            n_failed += 1
    if len(runs) > 1:
        print(f"calibrated {n_done} of {len(runs)} runs")
    return 0 if not n_failed else 1 if n_done else 2


if __name__ == "__main__":
    sys.exit(main())
