"""Choose a method's settings without looking at test images or new classes.

    python -m tools.sweep.search --dataset shapes textures --trainer CDC --seeds 1 2 --vary TRAINER.CDC.GAMMA 0.5 1.0
    python -m tools.sweep.search ... --vary OPTIM.LR 0.002 0.01 --vary TRAINER.CDC.BETA 0.0 0.1

From each embedded data set a smaller one is made: the training images of its base classes, and as test images further
pictures of these classes that are in no part of the set. Base-to-new on that has pseudo-new classes, the second half of
the base classes. Every combination of the values is run on every set and seed; the table gives accuracy on both halves,
means over sets and seeds, best harmonic mean first. Runs that are finished are read, not run again. Where Ray is
installed they go side by side, as with `python -m tools.sweep`.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from storage.safe_text import escaped
from tools.common.commands import argument_parser
from tools.common.paths import ROOT

# Options that change no result
WHERE = ("--output", "--save", "--address", "--gpus-per-run", "--cpus-per-run")


def without(options: tuple[str, ...], arguments: list[str]) -> list[str]:
    """Command-line arguments without some options and their values."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument.split("=")[0] not in options:
            kept.append(argument)
        skip = not skip and argument in options
    return kept


def main() -> None:
    from tools.sweep.engine import add_options

    parser = argument_parser("tools.sweep.search", __doc__, allow_abbrev=False)
    parser.add_argument("--dataset", nargs="+", default=["shapes"], help="painted data sets")
    parser.add_argument("--trainer", default="CDC")
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--vary", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"))
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="for all runs")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "search")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="keep the table and how it was made")
    add_options(parser)
    args = parser.parse_args()
    args.output = args.output.absolute()
    command = shlex.join(
        [
            "python",
            "-m",
            "tools.sweep.search",
            *without(WHERE, [given for given in sys.argv[1:] if given != "--one-by-one"]),
        ]
    )
    from tools.sweep.grid import search

    try:
        search(args, command)
    except (ValueError, OSError) as error:
        parser.exit(2, f"tools.sweep.search: {escaped(str(error))}\n")
    except KeyboardInterrupt:
        parser.exit(130, "tools.sweep.search: interrupted; the same command goes on\n")


if __name__ == "__main__":
    main()
