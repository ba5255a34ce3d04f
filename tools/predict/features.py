"""Write image and text features of a data set to a file, for one's own analysis.

    python -m tools.predict.features --model-dir RUN --output FILE.npz [--dataset-config-file FILE] [--split test]
    python -m tools.predict.features --config-file configs/trainers/ZeroshotCLIP/vit_b16.yaml \\
        --dataset-config-file configs/datasets/dtd.yaml --root DATA --output FILE.npz

takes the features of a trained run, on its own data set or another one, or those of plain zero-shot CLIP. Images are
transformed as in testing, also those of the training split. The file is whole or not there. It holds, for `np.load`,

    image_features  (N, D), or (M, N, D) where each template has its own; L2-normalised, float32 or float16
    text_features   (M, C, D), class embeddings under each template; L2-normalised, of the same type. Not there for
                    CoCoOp, where every image has its own
    labels          (N,), from 0
    paths           (N,), below the folder of data sets where they lie in it
    splits          (N,), train, val or test
    class_names     (C,)
    about           JSON: trainer, epoch, backbone, the digest of its weights, data set, seed, `scale` (what cosines
                    are multiplied by for logits; CDC: for its losses), and the whole config

The order is that of the data set's lists. A run's training images are its own few shots (DATASET.NUM_SHOTS -1: all).

Legend: N images, M templates, C classes, D width of the features.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from storage.safe_text import last_line
from tools.common.choices import DTYPES, SPLITS, SUBSAMPLES
from tools.common.commands import add_model_options, argument_parser


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argument_parser("tools.predict.features", __doc__)
    parser.add_argument("--output", required=True, help="file to write, *.npz; replaced if it is there")
    parser.add_argument(
        "--model-dir", default="", help="folder of a run, or file of tools.export; none: plain CLIP by the config files"
    )
    parser.add_argument("--root", default="", help="folder of the data sets (default: the run's)")
    parser.add_argument("--dataset-config-file", default="", help="YAML file of the data set (default: the run's)")
    parser.add_argument("--config-file", default="", help="YAML file of the method, without --model-dir")
    parser.add_argument("--trainer", default="", help="without --model-dir: ZeroshotCLIP (default) or ZeroshotCLIP2")
    parser.add_argument("--split", choices=[*SPLITS, "all"], default="test", help="images to take")
    parser.add_argument("--classes", choices=SUBSAMPLES, help="classes to take (default: the run's, else all)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="what features are stored in")
    parser.add_argument("--seed", type=int, help="seed that the few-shot images are drawn from (default: the run's)")
    add_model_options(parser, "config")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    args = parser.parse_args(arguments)
    if args.model_dir and (args.config_file or args.trainer):
        parser.error("--model-dir brings its trainer and config: leave out --trainer and --config-file")
    if not args.model_dir and args.load_epoch is not None:
        parser.error("--load-epoch is of a run: give --model-dir, too")
    args.trainer = args.trainer or "ZeroshotCLIP"
    return args


def check_output(path: Path) -> None:
    """Raise ValueError if a file of features cannot have this name."""
    if path.suffix != ".npz" or path.is_dir():
        raise ValueError(f"--output must be a file that ends in .npz, got {path}")


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    try:
        check_output(Path(args.output))
        from tools.predict.feature_file import write_features

        write_features(args)
    except (OSError, ValueError) as error:
        if args.debug:
            raise
        print(f"tools.predict.features: {last_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
