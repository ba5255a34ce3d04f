"""Classify one's own images with a trained run, without its data set.

    python -m tools.predict --model-dir RUN IMAGE_OR_FOLDER... [--classnames FILE_OR_LIST] [--output FILE]
    python -m tools.predict --model-dir RUN --explain IMAGE --output page.html

or in Python

    from tools.predict import Predictor
    predictor = Predictor("output/base2new/train_base/shapes/shots_16/CDC/tiny/seed1")
    predictor(["a.jpg"])

RUN is the folder of a finished training, or of a test where the method trains nothing; its results.json says how to
build the model. Images are read and transformed as the run's test images were. Folders are searched with all below
them, in the order of their names. What cannot be read is told on stderr and left out. The exit status is 0 if all were
classified, 1 if some were left out, and 2 if none was classified or the input is wrong.
"""

from __future__ import annotations

import argparse
import sys

from storage.safe_text import last_line
from tools.common.choices import PREDICTIONS, REJECTED
from tools.common.commands import add_method_options, add_model_options, argument_parser
from tools.common.pipes import ending_quietly


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argument_parser("tools.predict", __doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE_OR_FOLDER", help="images, and folders of images")
    parser.add_argument("--model-dir", required=True, help="folder of the run, or file of tools.export")
    parser.add_argument(
        "--explain",
        default="",
        metavar="IMAGE",
        help="write a page on this image: as each template sees it in training, and what each believes of it",
    )
    parser.add_argument(
        "--classnames", default="", help="classes in place of the run's: a file, one per line, or a,b,c"
    )
    parser.add_argument("--output", default="", help="file to write, in place of stdout; replaced if it is there")
    parser.add_argument("--format", choices=PREDICTIONS, default="csv", help="a table, or one JSON object a line")
    parser.add_argument(
        "--raw", action="store_true", help="CSV: texts as they are, also formulas and control characters"
    )
    parser.add_argument("--top-k", type=int, default=1, help="how many classes to tell of each image")
    parser.add_argument("--calibrated", action="store_true", help="predict after the calibration of tools.calibrate")
    parser.add_argument(
        "--coverage",
        type=float,
        metavar="C",
        help="reject what is less certain than a share C of the run's validation images (0.9: nine of ten are kept)",
    )
    parser.add_argument("--reject-above", type=float, metavar="U", help="reject what has a score above U")
    parser.add_argument(
        "--score", default="", help="to reject by, as confidence or entropy (default: the best on validation images)"
    )
    parser.add_argument(
        "--rejected", choices=REJECTED, help="mark rejected images in a column (default), or drop their rows"
    )
    add_method_options(parser)
    add_model_options(parser)
    args = parser.parse_args(arguments)
    if bool(args.images) == bool(args.explain):
        parser.error("give images or folders, or one image with --explain")
    if args.explain and not args.output:
        parser.error("--explain writes an HTML page: give its name with --output")
    rejecting = [name for name in ("coverage", "reject_above") if getattr(args, name) is not None]
    if len(rejecting) == 2:
        parser.error("--coverage and --reject-above both set the threshold: give one of them")
    if args.explain and rejecting:
        parser.error("--explain rejects nothing: leave --coverage and --reject-above out")
    if not rejecting and (args.score or args.rejected):
        parser.error("--score and --rejected are of a rejection: give --coverage or --reject-above with them")
    args.rejected = args.rejected or "mark"
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    from tools.predict.classify import classify, explain_image

    try:
        with ending_quietly():
            return explain_image(args) if args.explain else classify(args)
    except (OSError, ValueError) as error:
        if args.debug:
            raise
        print(f"tools.predict: {last_line(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
