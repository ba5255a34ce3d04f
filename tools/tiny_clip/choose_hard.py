"""Choose the scenes of `ShapesA` by the zero-shot errors of the tiny CLIP, and write `datasets/shapes_a.json`.

    python -m tools.tiny_clip.choose_hard    # about a minute; again whenever the weights or the scenes of shapes change

Every class draws `CANDIDATES` scenes as `Shapes` does, and each is painted `PAINTINGS` times. The scenes that are
classified wrong most often are chosen; between equal ones, those whose class gets the least probability. The set paints
them once more, so that no picture on which a scene was chosen is a test picture.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import compat  # noqa: F401  (makes `dassl`, which the readers need, importable)

import numpy as np
import torch
from clip import tokenize
from clip.model import CLIP
from torch.nn import functional
from tqdm import tqdm

from datasets import shapes, world
from datasets.rendered import SIZE
from tools.common.commands import argument_parser
from tools.common.paths import ROOT
from tools.tiny_clip.pretrain import read_weights, to_input, write_beside

CANDIDATES = 70
PAINTINGS = 3
WEIGHTS = ROOT / "weights" / "tiny_clip.pt.gz"
OUT = ROOT / "datasets" / "shapes_a.json"
PROMPT = "a photo of a {}."


def fingerprint(path: Path) -> str:
    """The beginning of a file's SHA-256, to tell which weights the scenes were chosen with."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@torch.no_grad()
def hardest(model: CLIP, text: torch.Tensor, label: int, count: int) -> list[int]:
    """Numbers of a class's `count` hardest candidates, in ascending order.

    Args:
        model: the CLIP whose errors count.
        text: normalised features of all classes' prompts ``(C, D)``.
        label: of the class.
        count: at most ``CANDIDATES``.
    """
    pictures = []
    for candidate in range(CANDIDATES):
        scene = shapes.ShapesA.candidate(label, candidate)
        for painting in range(PAINTINGS):
            rng = np.random.default_rng([shapes.ShapesA.key + 2, label, candidate, painting])
            pictures.append(np.array(world.render(scene, SIZE, rng)))
    batch = to_input(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    image = functional.normalize(model.encode_image(batch), dim=-1)
    probability = (model.logit_scale.exp() * image @ text.T).softmax(dim=-1)
    errors = probability.argmax(dim=-1).ne(label).view(CANDIDATES, PAINTINGS).sum(dim=1)
    own = probability[:, label].view(CANDIDATES, PAINTINGS).mean(dim=1)
    order = sorted(range(CANDIDATES), key=lambda candidate: (-int(errors[candidate]), float(own[candidate])))
    return sorted(order[:count])


def main(arguments: list[str] | None = None) -> None:
    """Choose for every class, and write the list."""
    parser = argument_parser("tools.tiny_clip.choose_hard", __doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(arguments)

    model = read_weights(args.weights).eval()
    names = [f"{look} {shape}" for look, shape in shapes.CLASSES]
    with torch.no_grad():
        text = functional.normalize(model.encode_text(tokenize([PROMPT.format(name) for name in names])), dim=-1)
    folders = shapes.ShapesA.class_folders
    scenes = {
        folder: hardest(model, text, label, sum(shapes.VARIANT))
        for label, folder in enumerate(tqdm(folders, unit="class"))
    }
    lines = ",\n".join(f"  {json.dumps(folder)}: {numbers}" for folder, numbers in scenes.items())
    head = f' "made by": "python -m tools.tiny_clip.choose_hard",\n "weights": "{fingerprint(args.weights)}",\n'
    write_beside(args.out, f'{{\n{head} "scenes": {{\n{lines}\n }}\n}}\n'.encode())


if __name__ == "__main__":
    main()
