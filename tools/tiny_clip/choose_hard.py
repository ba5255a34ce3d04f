"""Choose the scenes of `ShapesA` by the zero-shot errors of the tiny CLIP, and write `datasets/shapes_a.json`.

    python -m tools.tiny_clip.choose_hard    # about a minute; again whenever the weights or the scenes of shapes change

Every class draws scenes as `Shapes` does, and each is painted several times. The scenes that are classified wrong most
often are chosen; between equal ones, those whose class gets the least probability. The set paints them once more, so
that no picture on which a scene was chosen is a test picture.
"""

from __future__ import annotations

from pathlib import Path

from tools.common.commands import argument_parser
from tools.common.paths import ROOT

WEIGHTS = ROOT / "weights" / "tiny_clip.pt.gz"
OUT = ROOT / "datasets" / "shapes_a.json"


def main(arguments: list[str] | None = None) -> None:
    parser = argument_parser("tools.tiny_clip.choose_hard", __doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(arguments)
    from tools.tiny_clip.hard_scenes import choose

    choose(args.weights, args.out)


if __name__ == "__main__":
    main()
