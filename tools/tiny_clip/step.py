"""One step of pre-training, its encoders in two threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import compat  # noqa: F401  (makes `dassl`, which the trainers need, importable)

from trainers.modules import loading  # noqa: F401  (imports `clip` without its warning)

# isort: split
import torch
from clip.model import CLIP
from torch import nn

from tools.tiny_clip.losses import Heads, contrastive_loss
from tools.tiny_clip.model import encode_image, encode_text
from tools.tiny_clip.optimisers import Optimisers
from tools.tiny_clip.pairs import Batch


def train_step(
    model: CLIP,
    heads: Heads,
    optimisers: Optimisers,
    rate: float,
    batch: Batch,
    pool: ThreadPoolExecutor,
) -> float:
    """One step on one batch at one learning rate; returns the loss.

    One thread takes some of the pictures, the other one the rest and the texts, which is as much work. This keeps both
    cores busy even where others use them too, and gives the same bits whatever their number.
    """
    parameters = [p for p in model.parameters() if p is not model.logit_scale]
    captions = batch.captions
    cut = len(batch.pictures) * (8 if captions is None else 11) // 16
    pictures, tokens = batch.pictures.tensor_split([cut]), (None, None if captions is None else captions.tokens)
    features = list(pool.map(_encode, [model] * 2, pictures, tokens))
    leaves = [[feature.detach().requires_grad_() for feature in part] for part in features]
    image = torch.cat([part[0] for part in leaves])
    loss = heads.loss(image, batch.shown)
    if captions is not None:
        text = leaves[1][1]
        loss = loss + heads.loss(text, captions.named)
        loss = loss + contrastive_loss(image, text, model.logit_scale.exp(), captions.true)
    for each in optimisers:
        each.zero_grad()
    loss.backward()
    for parameter, *parts in zip(parameters, *pool.map(_gradients, features, leaves, [parameters] * 2)):
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


def _encode(model: CLIP, pictures: torch.Tensor, tokens: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Features of the pictures and, where there are some, of the texts."""
    image = encode_image(model, pictures)
    return (image,) if tokens is None else (image, encode_text(model, tokens))


def _gradients(
    features: Sequence[torch.Tensor], leaves: Sequence[torch.Tensor], parameters: Sequence[nn.Parameter]
) -> tuple[torch.Tensor | None, ...]:
    """The parameters' gradients by way of these features, whose own gradients their leaves have."""
    given: list[Any] = [leaf.grad for leaf in leaves]  # the hints of PyTorch 2.8 allow no None here
    return torch.autograd.grad(features, parameters, given, allow_unused=True)
