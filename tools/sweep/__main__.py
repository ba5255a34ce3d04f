"""Many runs of a protocol with one command, side by side on all GPUs of a machine or of a cluster.

    python -m tools.sweep base2new --trainers CDC MaPLe --datasets dtd eurosat --seeds 1 2 3 [KEY VALUE ...]
    python -m tools.sweep xd --trainers CDC --dry-run

PROTOCOL is one of
    base2new    train on base classes; test on them and on new ones
    xd          train on all classes of --source, test on the other data sets
    dg          train on a data set (imagenet), test on its variants
    fewshot     train on all classes with 1, 2, 4, 8 and 16 images per class
    open_set    train on base classes; test on them, on new ones and on other data sets (FAR) as unknown

Runs are those of scripts/cdc/*.sh, with their folders and numbers, and their environment variables hold here (DATA,
OUTPUT, CFG, TAG, PYTHON, CALIBRATED, FAR, REPORT_TO). First it prints which runs have finished, which will go on and
which are new. The remaining ones are run, tests after their training, the longest first, and a table of all follows.
A failed run does not stop the others. It is reported with its log, and the exit status is 1. After Ctrl-C the same
command goes on.

--calibrated fits the calibrations that tests need, each after its training. CALIBRATED=1 takes those that are there.

Runs go side by side if Ray is installed (pip install -e '.[cluster]'), else one after the other. Several machines:
docs/cluster.md.

KEY VALUE pairs stand last; before a KEY without a dot, as USE_CUDA, put --.
"""

from __future__ import annotations

import os
import re
import sys

from tools.common.commands import argument_parser, told_in_one_line
from tools.common.pipes import ending_quietly

NAMES = ("base2new", "xd", "dg", "fewshot", "open_set")
KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+")


def split_settings(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments before the KEY VALUE pairs, and these."""
    for number, argument in enumerate(arguments):
        if argument == "--":
            return arguments[:number], arguments[number + 1 :]
        if KEY.fullmatch(argument):
            return arguments[:number], arguments[number:]
    return arguments, []


@ending_quietly()
def main() -> None:
    from tools.sweep.engine import add_options, add_report_to

    parser = argument_parser(
        "tools.sweep", __doc__, allow_abbrev=False, usage="%(prog)s PROTOCOL [options] [KEY VALUE ...]"
    )
    parser.add_argument("protocol", choices=NAMES, metavar="PROTOCOL", help=", ".join(NAMES))
    parser.add_argument(
        "--trainers",
        nargs="+",
        default=["CDC"],
        metavar="TRAINER",
        help="or TRAINER/CONFIG, where not the default config is meant (default: CDC)",
    )
    parser.add_argument("--datasets", nargs="+", metavar="DATASET", help="(default: those of the papers)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="SEED", help="(default: 1 2 3)")
    parser.add_argument(
        "--shots",
        nargs="+",
        type=int,
        metavar="N",
        help="training images per class, -1 for all (default: SHOTS, or 16; in fewshot 1 2 4 8 16)",
    )
    parser.add_argument("--source", metavar="DATASET", help="of xd (default: imagenet; shapes for generated sets)")
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="calibrate each run by tools.calibrate, and have its tests say also what predictions are worth then",
    )
    parser.add_argument(
        "--hold-out",
        type=int,
        metavar="N",
        help="with --calibrated: fit on N training images per class that the run was not trained on, as ImageNet needs",
    )
    parser.add_argument("--dry-run", action="store_true", help="run nothing, only tell what would be run")
    add_report_to(parser)
    add_options(parser)
    arguments, settings = split_settings(sys.argv[1:])
    args = parser.parse_args(arguments)
    if any(setting.startswith("--") for setting in settings):
        parser.error(f"options stand before KEY VALUE pairs, got {' '.join(settings)}")
    if args.hold_out is not None and args.hold_out < 1:
        parser.error(f"--hold-out must be at least 1 image per class, got {args.hold_out}")
    if args.source and args.protocol != "xd":
        parser.error("--source is of xd; in dg the sources are --datasets")

    from tools.sweep.sweep import sweep

    with told_in_one_line("tools.sweep"):
        environment = dict(os.environ)
        if args.report_to:
            from tools.sweep.experiment import check_receiver  # PyTorch takes seconds to load

            check_receiver(args.report_to)
            environment["REPORT_TO"] = args.report_to
        status = sweep(args, settings, environment)
    sys.exit(status)


if __name__ == "__main__":
    main()
