"""What the tiny CLIP can do without training: zero-shot tasks of the embedded world, and real handwriting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import compat  # noqa: F401  (makes `dassl`, which the readers beside the world need, importable)

from trainers.modules import loading  # noqa: F401  (imports `clip` without its warning)

# isort: split
import numpy as np
import torch
from clip.model import CLIP
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional

from datasets import world
from tools.tiny_clip.pictures import SIZE, to_input
from tools.tiny_clip.vocabulary import CONTEXT_LENGTH, Vocabulary


class Probe(NamedTuple):
    """A zero-shot task: prompts of its classes, pictures ``(N, 3, 48, 48)`` and their labels ``(N,)``."""

    prompts: list[str]
    pictures: torch.Tensor
    labels: torch.Tensor


def _probe(prompt: str, names: list[str], scenes: list[dict], each: int, seed: int, fonts: tuple[str, ...]) -> Probe:
    rng = np.random.default_rng([seed, 3])
    pictures, labels = [], []
    for label, fixed in enumerate(scenes):
        for _ in range(each):
            picture = world.render(world.sample_scene(rng, fonts, **fixed), SIZE, rng)
            pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
            labels.append(label)
    return Probe([prompt.format(name) for name in names], torch.stack(pictures), torch.tensor(labels))


def handwritten_digits() -> Probe:
    """scikit-learn's scans, bright on black, enlarged to 48 pixels."""
    scans = load_digits()
    pictures = [
        np.array(
            Image.fromarray(np.round(scan * (255 / 16)).astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        )
        for scan in scans.images
    ]
    prompts = [f"a photo of the digit {word}." for word in world.DIGITS]
    grey = torch.from_numpy(np.stack(pictures))[:, None].expand(-1, 3, -1, -1).contiguous()
    return Probe(prompts, grey, torch.from_numpy(scans.target))


def probes(each: int = 12, seed: int = 0) -> dict[str, Probe]:
    """The zero-shot tasks whose accuracy is recorded with the weights.

    All pictures are as disturbed as in pre-training. "unseen" tasks have only held-out combinations as classes.

    Args:
        each: pictures per class; tasks on pairs have half as many.
        seed: of the pictures.
    """
    plain = {"kind": "object", "texture": None}
    shapes, textures, colours = list(world.SHAPES), list(world.TEXTURES), list(world.COLOURS)
    seen_colours = [(s, c) for s in shapes for c in colours if (s, c) not in world.HELD_OUT_COLOURS][::5]
    seen_textures = [(s, t) for s in shapes for t in textures if (s, t) not in world.HELD_OUT_TEXTURES][::9]
    unseen_colours, unseen_textures = sorted(world.HELD_OUT_COLOURS), sorted(world.HELD_OUT_TEXTURES)
    grounds = [(c, b) for b in list(world.BACKGROUNDS)[1:] for c in colours][::2]
    photo = "a photo of a {}."

    def coloured(pairs: list[tuple[str, str]], many: int) -> Probe:
        scenes = [{**plain, "subject": s, "colour": c} for s, c in pairs]
        return _probe(photo, [f"{c} {s}" for s, c in pairs], scenes, many, seed, world.FONTS)

    def textured(pairs: list[tuple[str, str]], many: int) -> Probe:
        scenes = [{"kind": "object", "subject": s, "texture": t} for s, t in pairs]
        return _probe(photo, [f"{t} {s}" for s, t in pairs], scenes, many, seed, world.FONTS)

    def characters(kind: str, fonts: tuple[str, ...]) -> Probe:
        names = list(world.CHARACTERS[kind])
        scenes = [{"kind": kind, "subject": name, "writing": "printed"} for name in names]
        return _probe(f"a photo of the {kind} {{}}.", names, scenes, each, seed, fonts)

    return {
        "shapes": _probe(photo, shapes, [{**plain, "subject": s} for s in shapes], each, seed, world.FONTS),
        "colour + shape, seen": coloured(seen_colours, each // 2),
        "colour + shape, unseen": coloured(unseen_colours, each // 2),
        "texture + shape, seen": textured(seen_textures, each // 2),
        "texture + shape, unseen": textured(unseen_textures, each // 2),
        "textures on shapes": _probe(
            "{} texture.", textures, [{"kind": "object", "texture": t} for t in textures], each, seed, world.FONTS
        ),
        "textures, full frame": _probe(
            "{} texture.", textures, [{"kind": "texture", "texture": t} for t in textures], each, seed, world.FONTS
        ),
        "digits, printed": characters("digit", world.FONTS),
        "digits, real handwriting": handwritten_digits(),
        "letters, unseen fonts": characters("letter", world.UNSEEN_TEXT_FONTS),
        "symbols, unseen fonts": characters("symbol", world.UNSEEN_FONTS),
        "backgrounds": _probe(
            "a photo of something on a {} background.",
            [f"{c} {b}" for c, b in grounds],
            [{"background": b, "background_colour": c} for c, b in grounds],
            each // 2,
            seed,
            world.FONTS,
        ),
    }


@torch.no_grad()
def zero_shot(model: CLIP, probe: Probe, tokens: torch.Tensor) -> float:
    """Accuracy in percent; ``tokens`` are the prompts' ``(C, L)``."""
    tokens = functional.pad(tokens, (0, CONTEXT_LENGTH - tokens.shape[1]))
    text = functional.normalize(model.encode_text(tokens), dim=-1)
    hits = 0
    for pictures, labels in zip(probe.pictures.split(500), probe.labels.split(500)):
        image = functional.normalize(model.encode_image(to_input(pictures)), dim=-1)
        hits += int((image @ text.T).argmax(dim=-1).eq(labels).sum())
    return 100 * hits / len(probe.labels)


def zero_shot_metrics(model: CLIP, vocabulary: Vocabulary, tasks: Mapping[str, Probe]) -> dict[str, dict[str, float]]:
    """Zero-shot accuracy and chance, in percent, of each task."""
    model.eval()
    table = {
        name: {
            "classes": len(probe.prompts),
            "chance": round(100 / len(probe.prompts), 1),
            "accuracy": round(zero_shot(model, probe, vocabulary.batch(probe.prompts)), 1),
        }
        for name, probe in tasks.items()
    }
    model.train()
    return table
