"""Pre-training of the tiny CLIP of the embedded world.

The model is the `clip` package's own class, small. Its loss is CLIP's symmetric contrastive loss, with one change: in a
world of few words, captions of one batch often hold for several of its pictures, so a pair that is true but not the
picture's own counts neither as positive nor as negative.

On two cores that loss alone learns too slowly, since a caption says little of what its picture shows. Four things help,
and none is left in the weights' format: linear heads, dropped in the end, classify every factor of the scene from the
picture's feature, and those named from the caption's; for the first `--alone` steps the picture encoder learns from
them alone; the first layer starts as whitened principal components of patches; and the blocks' matrices are trained
with orthogonalised steps (Muon, Jordan et al., 2024). The encoders compute in bfloat16, written out here, as it is
done several times faster than by `clip`'s own code.

Every batch follows from the seed and the number of its step, so that an interrupted run goes on exactly as if it had
not been cut. Pictures are rendered once, in all processes, and shown again with fresh captions and shifted by a few
pixels. The learning rate is level until the last two fifths, so that until then the number of steps is open:
`--minutes` chooses it by the clock, and the record beside the weights names it, for a run that gives the same weights.
The committed ones took 82 minutes on two cores that other programs shared; 2.7 to 3.3 steps a second were seen when it
had them nearly to itself, which would be 40 minutes. No GPU was tried.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import io
import itertools
import json
import math
import os
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import compat  # noqa: F401  (makes `dassl`, which the readers beside the world need, importable)

from trainers.modules import loading  # noqa: F401  (imports `clip` without its warning)

# isort: split
import numpy as np
import torch
from clip.model import CLIP, Transformer, build_model
from clip.simple_tokenizer import SimpleTokenizer
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from datasets import world

SIZE = 48
CONTEXT_LENGTH = 77
ARCHITECTURE = {
    "embed_dim": 128,
    "image_resolution": SIZE,
    "vision_layers": 4,
    "vision_width": 128,
    "vision_patch_size": 8,
    "context_length": CONTEXT_LENGTH,
    "transformer_width": 128,
    "transformer_heads": 2,
    "transformer_layers": 4,
}
VOCABULARY = 49408
CHUNK = 500
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
# Words of prompts that captions do not use, so that hand-written templates of other sets find all their words.
PROMPT_WORDS = (
    "something type of centered cropped bright dark good bad satellite itap origami sketch cartoon many low resolution "
    "X"
)


# ---------------------------------------------------------------------------------------------- text
class Vocabulary:
    """CLIP's tokens that the world uses, numbered without gaps while training.

    The order of CLIP's numbers is kept, so end-of-text stays the largest, which is how CLIP finds it.
    """

    def __init__(self) -> None:
        self.tokenizer = SimpleTokenizer()
        rng = np.random.default_rng(0)
        # The wordings are few, so that a large draw of captions has all of them; names are added in full below.
        texts = [world.caption(world.sample_scene(rng, world.FONTS), rng) for _ in range(4000)]
        names = [*world.COLOURS, *world.TEXTURES, *world.BACKGROUNDS, *world.STYLES, *world.UNSEEN_STYLES, *world.SIZES]
        subjects = itertools.chain(world.SHAPES, *world.CHARACTERS.values())
        texts += [*names, *subjects, *world.CHARACTERS, PROMPT_WORDS]
        used = {0, VOCABULARY - 2, VOCABULARY - 1}
        for text in texts:
            used.update(self.tokenizer.encode(text))
        self.tokens = sorted(used)
        self._number = {token: k for k, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.lru_cache(maxsize=100_000)  # noqa: B019  (one vocabulary lives as long as the program)
    def encode(self, text: str) -> tuple[int, ...]:
        """Numbers of the text's tokens between start and end of text."""
        tokens = (VOCABULARY - 2, *self.tokenizer.encode(text), VOCABULARY - 1)
        return tuple(self._number[token] for token in tokens)

    def batch(self, texts: list[str]) -> torch.Tensor:
        """``(B, longest)`` numbers, padded with zeros."""
        rows = [self.encode(text) for text in texts]
        longest = max(map(len, rows))
        return torch.tensor([row + (0,) * (longest - len(row)) for row in rows])


# ---------------------------------------------------------------------------------------------- encoders
FAST = torch.bfloat16


def _norm(x: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], layer.weight.to(FAST), layer.bias.to(FAST))


def _blocks(transformer: Transformer, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """CLIP's residual attention blocks on ``(B, L, D)``, with an additive mask ``(L, L)``."""
    batch, length, width = x.shape
    for block in transformer.resblocks:
        attention, heads = block.attn, block.attn.num_heads
        joint = functional.linear(
            _norm(x, block.ln_1), attention.in_proj_weight.to(FAST), attention.in_proj_bias.to(FAST)
        )
        query, key, value = joint.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query * (width // heads) ** -0.5) @ key.transpose(-1, -2)
        if mask is not None:
            scores = scores + mask
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, length, width)
        x = x + functional.linear(mixed, attention.out_proj.weight.to(FAST), attention.out_proj.bias.to(FAST))
        # x * sigmoid(1.702 x) is silu(1.702 x) / 1.702; the factors go to the small matrices beside it.
        up, down = block.mlp.c_fc, block.mlp.c_proj
        hidden = functional.linear(_norm(x, block.ln_2), (1.702 * up.weight).to(FAST), (1.702 * up.bias).to(FAST))
        x = x + functional.linear(functional.silu(hidden), (down.weight / 1.702).to(FAST), down.bias.to(FAST))
    return x


def patches(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """``(B, 3, H, W)`` to square patches ``(B, patches, 3 * side * side)``, as a convolution sees them."""
    batch, _, height, width = pictures.shape
    cut = pictures.reshape(batch, 3, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, 3 * side * side)


def encode_image(model: CLIP, pictures: torch.Tensor) -> torch.Tensor:
    """``CLIP.encode_image`` in bfloat16: ``(B, 3, H, W)`` to features ``(B, D)`` in float32."""
    visual = model.visual
    seen = patches(pictures, visual.conv1.kernel_size[0]).to(FAST)
    x = functional.linear(seen, visual.conv1.weight.flatten(1).to(FAST))
    first = visual.class_embedding.to(FAST).expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + visual.positional_embedding.to(FAST)
    x = _blocks(visual.transformer, _norm(x, visual.ln_pre))
    return _norm(x[:, 0], visual.ln_post).float() @ visual.proj


def _encode_cut(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    end = tokens.argmax(dim=-1)
    length = int(end.max()) + 1
    mask = torch.full((length, length), -math.inf, dtype=FAST).triu_(1)
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = _blocks(model.transformer, x.to(FAST), mask)[torch.arange(len(x)), end]
    return _norm(x, model.ln_final).float() @ model.text_projection


def encode_text(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """``CLIP.encode_text`` in bfloat16, tokens ``(B, L)`` to features ``(B, D)``, not computing what is past the ends.

    Short and long texts go separately, so that the short ones are not padded to the longest.
    """
    order = tokens.argmax(dim=-1).argsort(stable=True)
    features = torch.cat([_encode_cut(model, tokens[rows]) for rows in order.chunk(2)])
    return features[order.argsort()]


# ---------------------------------------------------------------------------------------------- pictures
def _render_chunk(seed: int, chunk: int) -> tuple[np.ndarray, list[world.Scene]]:
    rng = np.random.default_rng([seed, 1, chunk])
    scenes = [world.sample_pretraining_scene(rng, world.FONTS) for _ in range(CHUNK)]
    return np.stack([np.asarray(world.render(scene, SIZE, rng)) for scene in scenes]), scenes


def render_pictures(seed: int, count: int, workers: int) -> tuple[torch.Tensor, list[world.Scene]]:
    """``count`` pictures (rounded up to whole chunks) as ``(count, 3, 48, 48)`` bytes, and their scenes."""
    chunks = math.ceil(count / CHUNK)
    with ProcessPoolExecutor(workers) as pool:
        running = pool.map(_render_chunk, itertools.repeat(seed, chunks), range(chunks))
        parts = list(tqdm(running, total=chunks, desc="rendering", unit_scale=CHUNK, unit="picture"))
    pictures = torch.from_numpy(np.concatenate([part[0] for part in parts])).permute(0, 3, 1, 2)
    return pictures, [scene for part in parts for scene in part[1]]


def to_input(pictures: torch.Tensor) -> torch.Tensor:
    """Bytes ``(B, 3, H, W)`` to CLIP's normalised floats."""
    return (pictures.float() / 255 - MEAN) / STD


class Factors:
    """A scene's named factors as numbers, -1 where a scene has no such factor."""

    def __init__(self) -> None:
        options = {
            "kind": ("object", *world.CHARACTERS),
            "subject": (*world.SHAPES, *itertools.chain(*world.CHARACTERS.values())),
            "texture": world.TEXTURES,
            "style": world.STYLES,
            "writing": ("printed", "handwritten"),
            "background": world.BACKGROUNDS,
            "size": world.SIZES,
            "position": world.POSITIONS,
        }
        table = {factor: tuple(options.get(factor, world.COLOURS)) for factor in world.NAMED}
        self.sizes = [len(values) for values in table.values()]
        self._number = {factor: {value: k for k, value in enumerate(values)} for factor, values in table.items()}

    def codes(self, named: Mapping[str, str | None]) -> list[int]:
        """Numbers of factors in the order of ``world.NAMED``, -1 for those not given."""
        values = ((factor, named.get(factor)) for factor in world.NAMED)
        return [-1 if value is None else self._number[factor].get(value, -1) for factor, value in values]


class Batch(NamedTuple):
    """Pictures and, unless they come alone, their captions.

    Attributes:
        pictures: ``(B, 3, 48, 48)``, normalised.
        shown: numbers of the scenes' factors ``(B, F)``, -1 where there is none.
        tokens: ``(B, L)``.
        named: ``shown`` where the caption names the factor, else -1, ``(B, F)``.
        true: ``(B, B)``, which caption (column) holds for which picture (row).
    """

    pictures: torch.Tensor
    shown: torch.Tensor
    tokens: torch.Tensor | None = None
    named: torch.Tensor | None = None
    true: torch.Tensor | None = None


class Batches:
    """Batch number ``step``, made from seed and step alone; the first ``alone`` are without captions."""

    def __init__(
        self,
        pictures: torch.Tensor,
        scenes: list[world.Scene],
        vocabulary: Vocabulary,
        size: int,
        seed: int,
        alone: int = 0,
    ) -> None:
        self.pictures, self.scenes, self.vocabulary = pictures, scenes, vocabulary
        self.size, self.seed, self.alone = size, seed, alone
        self.factors = Factors()
        self.codes = np.array([self.factors.codes(vars(scene)) for scene in scenes], dtype=np.int64)

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, 2, step])
        rows = rng.choice(len(self.scenes), self.size, replace=False)
        pictures = torch.empty((self.size, 3, SIZE, SIZE), dtype=torch.uint8)
        padded = functional.pad(self.pictures[torch.from_numpy(rows)].float(), (3, 3, 3, 3), mode="replicate").byte()
        for k, (dx, dy) in enumerate(rng.integers(0, 7, (self.size, 2)).tolist()):
            pictures[k] = padded[k, :, dy : dy + SIZE, dx : dx + SIZE]
        shown = self.codes[rows]
        if step < self.alone:
            return Batch(to_input(pictures), torch.from_numpy(shown))
        captions = [world.describe(self.scenes[row], rng) for row in rows]
        is_named = np.array([[factor in caption.named for factor in world.NAMED] for caption in captions])
        true = (~is_named[None] | (shown[None] == shown[:, None])).all(axis=-1)
        return Batch(
            to_input(pictures),
            torch.from_numpy(shown),
            self.vocabulary.batch([caption.text for caption in captions]),
            torch.from_numpy(np.where(is_named, shown, -1)),
            torch.from_numpy(true),
        )


def contrastive_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric loss; true pairs off the diagonal are left out.

    Args:
        image, text: features ``(B, D)``, of any length.
        scale: factor of the cosines.
        true: ``(B, B)`` booleans, whether caption (column) holds for picture (row); the diagonal is not read.
    """
    logits = scale * functional.normalize(image, dim=-1) @ functional.normalize(text, dim=-1).T
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(true & ~own, -math.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


class Heads(nn.Linear):
    """Linear classifiers of all factors from one feature, for picture and caption alike; not part of the weights."""

    def __init__(self, width: int, factors: Factors) -> None:
        super().__init__(width, sum(factors.sizes))
        self.sizes = factors.sizes
        # What a picture shows is harder to learn than how it shows it.
        self.weights = [4.0 if factor in ("subject", "texture") else 1.0 for factor in world.NAMED]

    def loss(self, features: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of features ``(B, D)`` with factors ``(B, F)``, averaged over those that are given."""
        total = features.new_zeros(())
        for logits, code, weight in zip(self(features).split(self.sizes, dim=1), codes.T, self.weights):
            given = code >= 0
            if given.any():
                total = total + weight * functional.cross_entropy(logits[given], code[given])
        return total / sum(self.weights)


# ---------------------------------------------------------------------------------------------- zero-shot figures
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
    """The zero-shot tasks whose accuracy is recorded with the weights; ``each`` pictures a class, half of it for pairs.

    All pictures are as disturbed as in pre-training. "unseen" tasks have only held-out combinations as classes.
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


def figures(model: CLIP, vocabulary: Vocabulary, tasks: dict[str, Probe]) -> dict[str, dict[str, float]]:
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


# ---------------------------------------------------------------------------------------------- training
def make_model(vocabulary: Vocabulary, seed: int) -> CLIP:
    """A fresh tiny CLIP whose vocabulary is only what the world uses."""
    torch.manual_seed(seed)
    return CLIP(**ARCHITECTURE, vocab_size=len(vocabulary)).float()


@torch.no_grad()
def whiten_(model: CLIP, pictures: torch.Tensor) -> None:
    """Let the first layer start with the patches' strongest principal components, each scaled to variance 1.

    Neighbouring pixels are alike, so that from a random start the patch's mean colour drowns its lines and spots.

    Args:
        pictures: ``(B, 3, H, W)``, normalised.
    """
    kernel = model.visual.conv1.weight
    seen = patches(pictures, kernel.shape[-1]).flatten(0, 1).double()
    variance, directions = torch.linalg.eigh(torch.cov(seen.T))
    variance, directions = variance[-len(kernel) :], directions[:, -len(kernel) :]
    turn = torch.linalg.qr(torch.randn(len(kernel), len(variance), dtype=torch.float64)).Q
    kernel.copy_((turn @ (directions / (variance + 1e-3).sqrt()).T).view_as(kernel))
    model.visual.positional_embedding.mul_(5)  # as large beside the patches as before


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal matrices (Jordan et al., 2024), by five Newton-Schulz iterations."""

    def __init__(self, matrices: list[torch.Tensor], decay: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": 0.0, "decay": decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it never computes the loss again
        """One step along the gradients; matrices of one shape are made orthogonal together."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "speed" not in state:
                    state["speed"] = torch.zeros_like(matrix)
                speed = state["speed"].mul_(group["momentum"]).add_(matrix.grad)
                ahead = matrix.grad + group["momentum"] * speed
                # Queries, keys and values are three square matrices in one.
                pieces = 3 if len(matrix) == 3 * matrix.shape[1] else 1
                for part, towards in zip(matrix.chunk(pieces), ahead.chunk(pieces)):
                    alike.setdefault(part.shape, []).append((part, towards))
            for parts in alike.values():
                steps = orthogonalised(torch.stack([towards for _, towards in parts]))
                for (part, _), towards in zip(parts, steps):
                    part.mul_(1 - group["lr"] * group["decay"]).add_(towards, alpha=-group["lr"])


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """``(N, R, C)`` matrices with singular values of about 1, times the root of R / C where that is above 1."""
    _, rows, columns = matrices.shape
    x = (matrices.mT if rows > columns else matrices).to(FAST)
    x = x / (x.flatten(1).float().norm(dim=1).to(FAST)[:, None, None] + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * (square @ square) - 4.775 * square) @ x
    x = x.mT if rows > columns else x
    return x.to(matrices.dtype) * max(1.0, rows / columns) ** 0.5


def make_optimisers(model: CLIP, heads: Heads, decay: float) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the matrices of the blocks, AdamW for the rest, with weight decay on matrices alone."""
    blocks = [p for n, p in model.named_parameters() if "resblocks" in n and p.ndim == 2]
    rest = [(n, p) for n, p in model.named_parameters() if not ("resblocks" in n and p.ndim == 2)]
    matrices = [p for n, p in rest if p.ndim >= 2 and "embedding" not in n]
    others = [p for n, p in rest if p.ndim < 2 or "embedding" in n] + list(heads.parameters())
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return Muon(blocks, decay), torch.optim.AdamW(groups, betas=(0.9, 0.98))


def fall_begins(steps: int) -> int:
    """The step from which the learning rate of a run of ``steps`` steps falls."""
    return steps - steps * 2 // 5


def rate_at(step: int, steps: int, peak: float) -> float:
    """One cycle with a flat top: up in 200 steps, level, and down to zero over the last two fifths.

    Up to ``fall_begins`` it does not depend on ``steps``, so until then a run can still be made longer or shorter.
    """
    falling = (steps - step) / max(1, steps - fall_begins(steps))
    return peak * min(1.0, (step + 1) / 200, falling)


def train_step(
    model: CLIP,
    heads: Heads,
    optimisers: tuple[Muon, torch.optim.AdamW],
    rate: float,
    batch: Batch,
    pool: ThreadPoolExecutor,
) -> float:
    """One step on one batch at one learning rate, its encoders in two threads; returns the loss.

    One thread takes some of the pictures, the other one the rest and the texts, which is as much work. This keeps both
    cores busy even where others use them too, and gives the same bits whatever their number.
    """
    parameters = [p for p in model.parameters() if p is not model.logit_scale]
    texts: Any = batch  # with `tokens` come `named` and `true`
    captioned = batch.tokens is not None
    cut = len(batch.pictures) * (11 if captioned else 8) // 16

    def second() -> tuple[torch.Tensor, ...]:
        image = encode_image(model, batch.pictures[cut:])
        return (image, encode_text(model, texts.tokens)) if captioned else (image,)

    outputs = list(pool.map(lambda half: half(), (lambda: (encode_image(model, batch.pictures[:cut]),), second)))
    leaves = [[output.detach().requires_grad_() for output in half] for half in outputs]
    image = torch.cat([half[0] for half in leaves])
    loss = heads.loss(image, batch.shown)
    if captioned:
        text = leaves[1][1]
        loss = loss + heads.loss(text, texts.named)
        loss = loss + contrastive_loss(image, text, model.logit_scale.exp(), texts.true)
    for each in optimisers:
        each.zero_grad()
    loss.backward()

    def backward(half: tuple[torch.Tensor, ...], ends: list[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
        given: list[Any] = [end.grad for end in ends]
        return torch.autograd.grad(half, parameters, given, allow_unused=True)

    for parameter, *parts in zip(parameters, *pool.map(backward, outputs, leaves)):
        given = [part for part in parts if part is not None]
        parameter.grad = sum(given) if given else None
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    # Muon's steps have a size of their own, for which 0.02 is customary where AdamW's rate is 0.001.
    for optimiser, factor in zip(optimisers, (20, 1)):
        for group in optimiser.param_groups:
            group["lr"] = factor * rate
        optimiser.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(100))
    return loss.item()


def full_state(model: CLIP, vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    """The model's state in half precision with CLIP's whole vocabulary; rows of tokens never used are zero."""
    state = {name: tensor.detach().half() for name, tensor in model.state_dict().items()}
    table = torch.zeros(VOCABULARY, ARCHITECTURE["transformer_width"], dtype=torch.float16)
    table[torch.tensor(vocabulary.tokens)] = state["token_embedding.weight"]
    state["token_embedding.weight"] = table
    return state


def write_beside(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old or the new one, never half of it."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(content)
    os.replace(beside, path)


def write_weights(folder: Path, state: dict[str, torch.Tensor], record: dict) -> None:
    """Write `tiny_clip.pt.gz` (the same bytes for the same state) and `tiny_clip.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(state, plain)
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(plain.getvalue())
    write_beside(folder / "tiny_clip.pt.gz", packed.getvalue())
    write_beside(folder / "tiny_clip.json", (json.dumps(record, indent=2) + "\n").encode())


def read_weights(path: Path) -> CLIP:
    """The tiny CLIP from its file, in float32, as `clip.model.build_model` makes it."""
    with gzip.open(path) as file:
        state = torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)
    return build_model(state).float()


def pretrain(args: argparse.Namespace) -> None:
    """Train from the last checkpoint, or from the start, and write the weights."""
    recipe = {name: getattr(args, name) for name in ("alone", "batch", "pictures", "rate", "decay", "seed")}
    vocabulary = Vocabulary()
    model = make_model(vocabulary, args.seed)
    heads = Heads(ARCHITECTURE["embed_dim"], Factors())
    optimisers = make_optimisers(model, heads, args.decay)
    done, seconds, losses = 0, 0.0, []
    if args.checkpoint.exists():
        saved = torch.load(args.checkpoint, weights_only=True)
        done, seconds, losses = saved["done"], saved["seconds"], saved["losses"]
        if args.minutes is not None and done > fall_begins(saved["steps"]):
            args.steps = saved["steps"]
        undecided = done <= min(fall_begins(args.steps), fall_begins(saved["steps"]))
        if saved["recipe"] != recipe or (saved["steps"] != args.steps and not undecided):
            raise ValueError(
                f"{args.checkpoint} holds {done} steps of a run with steps {saved['steps']}, {saved['recipe']}, "
                f"but this run has steps {args.steps}, {recipe}: "
                "give the same arguments, or another --checkpoint, or delete the file"
            )
        model.load_state_dict(saved["model"])
        heads.load_state_dict(saved["heads"])
        for optimiser, state in zip(optimisers, saved["optimisers"]):
            optimiser.load_state_dict(state)

    started = time.perf_counter() - seconds
    if done < args.steps:
        pictures = render_pictures(args.seed, args.pictures, args.workers)
        batches = Batches(*pictures, vocabulary, args.batch, args.seed, args.alone)
        if done == 0:
            whiten_(model, to_input(pictures[0][:1000]))
    tasks = probes()

    def write(step: int) -> None:
        record = {
            "made by": f"python -m tools.tiny_clip --steps {steps} "
            + " ".join(f"--{name} {value}" for name, value in recipe.items()),
            "steps done": step,
            "seconds": round(time.perf_counter() - started),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "architecture": ARCHITECTURE,
            "tokens in use": len(vocabulary),
            "held-out combinations": len(world.HELD_OUT_COLOURS) + len(world.HELD_OUT_TEXTURES),
            "loss, mean of the last 50 steps": round(float(np.mean(losses[-50:])), 4),
            "zero-shot": figures(model, vocabulary, tasks),
        }
        write_weights(args.out, full_state(model, vocabulary), record)
        print(json.dumps(record["zero-shot"]), flush=True)

    torch.set_num_threads(1)  # in each of the two threads of a step
    pool = ThreadPoolExecutor(2)
    steps, first, resumed = args.steps, done, time.perf_counter()
    progress = tqdm(initial=done, total=steps, desc="training", unit="step")
    while done < steps:
        if args.minutes is not None and done - first >= 200 and done <= fall_begins(steps):
            shortest = math.ceil(done * 5 / 3)  # of the runs whose learning rate has not fallen yet
            now = time.perf_counter()
            if now - started + (shortest - done) * (now - resumed) / (done - first) >= 60 * args.minutes:
                steps = progress.total = min(steps, shortest)
        rate = rate_at(done, steps, args.rate)
        losses.append(train_step(model, heads, optimisers, rate, batches(done), pool))
        done += 1
        progress.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
        progress.update()
        if done % args.save_every == 0 or done == steps:
            content = io.BytesIO()
            state = {
                "steps": steps,
                "recipe": recipe,
                "model": model.state_dict(),
                "heads": heads.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                "done": done,
                "seconds": time.perf_counter() - started,
                "losses": losses,
            }
            torch.save(state, content)
            args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_beside(args.checkpoint, content.getvalue())
        if done % args.look_every == 0 or done == steps:
            write(done)
    if done == first:
        write(done)
