"""Write what a run has trained to one small file, to be handed on.

    python -m tools.export RUN [--output FILE.safetensors] [--push hf-hub:OWNER/NAME]

RUN is the folder of a finished training. The file holds what was trained, and a header that says with which method,
config, class names and weights of CLIP, and what the run's test found. CLIP itself is not in it, and paths of this
machine are left out. `python -m tools.predict --model-dir FILE` classifies images with it, and `python train.py
--eval-only --model-dir FILE` tests it. Both also take a folder with one such file, or hf-hub:OWNER/NAME.
"""

from __future__ import annotations

import argparse
import sys

from storage.safe_text import last_line
from tools.common.commands import argument_parser


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argument_parser("tools.export", __doc__)
    parser.add_argument("run", metavar="RUN", help="folder of the training")
    parser.add_argument("--output", default="", help="file to write (default: model.safetensors in RUN)")
    parser.add_argument("--load-epoch", type=int, help="epoch of the checkpoint (default: the one that the run tested)")
    parser.add_argument("--push", default="", metavar="hf-hub:OWNER/NAME", help="repository of the Hub to put it into")
    parser.add_argument("--public", action="store_true", help="make that repository public if it is new")
    parser.add_argument("--debug", action="store_true", help="show the traceback of wrong input")
    args = parser.parse_args(arguments)
    if args.public and not args.push:
        parser.error("--public is of a repository: give --push, too")
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    from tools.export.share import export

    try:
        export(args.run, args.output, args.load_epoch, args.push, args.public)
    except (OSError, ValueError) as error:
        if args.debug:
            raise
        print(f"tools.export: {last_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
