"""What `python -m tools.tiny_clip.choose_hard` does: the scenes that the tiny CLIP gets wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import compat  # noqa: F401  (makes `dassl`, which the readers need, importable)

from trainers.modules import loading  # noqa: F401  (imports `clip` without its warning)

# isort: split
import numpy as np
import torch
from clip import tokenize
from clip.model import CLIP
from torch.nn import functional
from tqdm import tqdm

from datasets import shapes, world
from datasets.rendered import SIZE
from tools.tiny_clip.pictures import to_input
from tools.tiny_clip.weights import read_weights, write_beside

CANDIDATES = 70
PAINTINGS = 3
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


def choose(weights: Path, out: Path) -> None:
    """Choose for every class, and write the list.

    Args:
        weights: of the tiny CLIP.
        out: file of the list.
    """
    model = read_weights(weights).eval()
    names = [f"{look} {shape}" for look, shape in shapes.CLASSES]
    with torch.no_grad():
        text = functional.normalize(model.encode_text(tokenize([PROMPT.format(name) for name in names])), dim=-1)
    folders = shapes.ShapesA.class_folders
    scenes = {
        folder: hardest(model, text, label, sum(shapes.VARIANT))
        for label, folder in enumerate(tqdm(folders, unit="class"))
    }
    lines = ",\n".join(f"  {json.dumps(folder)}: {numbers}" for folder, numbers in scenes.items())
    head = f' "made by": "python -m tools.tiny_clip.choose_hard",\n "weights": "{fingerprint(weights)}",\n'
    write_beside(out, f'{{\n{head} "scenes": {{\n{lines}\n }}\n}}\n'.encode())
