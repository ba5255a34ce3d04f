"""Pre-train the tiny CLIP of the embedded world, and write `weights/tiny_clip.pt.gz` and `weights/tiny_clip.json`.

    python -m tools.tiny_clip                        # the committed weights; resumes from output/pretrain_tiny
    python -m tools.tiny_clip --steps 20 --pictures 1000 --out /elsewhere --checkpoint /elsewhere/tiny.pt

The model is the `clip` package's own class, small. Its loss is CLIP's symmetric contrastive loss, with one change: in a
world of few words, captions of one batch often hold for several of its pictures, so a pair that is true but not the
picture's own counts neither as positive nor as negative.

On two cores that loss alone learns too slowly, since a caption says little of what its picture shows. Four things help,
and none is left in the weights' format: linear heads, dropped in the end, classify every factor of the scene from the
picture's feature, and those named from the caption's; for the first `--alone` steps the picture encoder learns from
them alone; the first layer starts as whitened principal components of patches; and the blocks' matrices are trained
with orthogonalised steps (Muon, Jordan et al., 2024). The encoders compute in bfloat16, written out here, as it is
done several times faster than by `clip`'s own code. PyTorch has Muon since 2.9; pre-training needs that or newer.

Every batch follows from the seed and the number of its step, so that an interrupted run goes on exactly as if it had
not been cut. Pictures are rendered once, in all processes, and shown again with fresh captions and shifted by a few
pixels. The learning rate is level until the last two fifths, so that until then the number of steps is open:
`--minutes` chooses it by the clock, and the record beside the weights names it, for a run that gives the same weights.
The committed ones took 82 minutes on two cores that other programs shared; 2.7 to 3.3 steps a second were seen when it
had them nearly to itself, which would be 40 minutes. They were made with this tool's former Muon, which differs from
PyTorch's by rounding alone: a run gives weights that are as good and not the same. No GPU was tried.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tools.common.commands import argument_parser
from tools.common.paths import ROOT


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argument_parser("tools.tiny_clip", __doc__)
    parser.add_argument("--steps", type=int, default=7449)
    parser.add_argument("--minutes", type=float, help="choose fewer steps than --steps, to be done in about this time")
    parser.add_argument("--alone", type=int, default=3000, help="steps of the picture encoder alone, at the start")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--pictures", type=int, default=60_000, help="rendered once, then shown again and again")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak of the one-cycle learning rate")
    parser.add_argument("--decay", type=float, default=0.1, help="weight decay")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that render")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--look-every", type=int, default=500, help="steps between weights with figures")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "output" / "pretrain_tiny" / "checkpoint.pt")
    parser.add_argument("--out", type=Path, default=ROOT / "weights", help="folder of the weights")
    args = parser.parse_args(arguments)
    for name in ("steps", "batch", "pictures", "workers", "save_every", "look_every"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more, but is {getattr(args, name)}")
    if args.pictures < args.batch:
        parser.error(f"--pictures must be --batch ({args.batch}) or more, but is {args.pictures}")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    from tools.tiny_clip.pretrain import pretrain

    try:
        pretrain(args)
    except (ImportError, ValueError) as error:
        print(f"tools.tiny_clip: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
