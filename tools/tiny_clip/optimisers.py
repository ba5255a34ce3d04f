"""The optimisers of pre-training."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import compat  # noqa: F401  (makes `dassl`, which the trainers need, importable)

from trainers.modules import loading  # noqa: F401  (imports `clip` without its warning)

# isort: split
import torch
from clip.model import CLIP

from tools.tiny_clip.losses import Heads

Optimisers = tuple[torch.optim.Optimizer, torch.optim.AdamW]


def make_muon(matrices: Sequence[torch.Tensor], decay: float) -> torch.optim.Optimizer:
    """PyTorch's Muon, for parameters some of which are three matrices in one.

    Queries, keys and values of CLIP's attention are one parameter, and each must be made orthogonal by itself. So the
    optimiser gets views of the parameters, and before every step their gradients.

    Args:
        matrices: the parameters, ``(R, C)`` each; one with R = 3 C is taken for queries, keys and values.
        decay: weight decay.

    Raises:
        ImportError: this PyTorch is older than its Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(
            f"pre-training needs PyTorch 2.9 or newer, which has torch.optim.Muon; here is {torch.__version__}"
        )
    views = [matrix.detach().chunk(3 if len(matrix) == 3 * matrix.shape[1] else 1) for matrix in matrices]
    optimiser = torch.optim.Muon([part for parts in views for part in parts], lr=0.0, weight_decay=decay)
    optimiser.register_step_pre_hook(functools.partial(_hand_over_gradients, matrices, views))
    return optimiser


def _hand_over_gradients(matrices: Sequence[torch.Tensor], views: Sequence[Sequence[torch.Tensor]], *_: Any) -> None:
    for matrix, parts in zip(matrices, views):
        gradients = [None] * len(parts) if matrix.grad is None else matrix.grad.chunk(len(parts))
        for part, gradient in zip(parts, gradients):
            part.grad = gradient


def make_optimisers(model: CLIP, heads: Heads, decay: float) -> Optimisers:
    """Muon for the matrices of the blocks, AdamW for the rest, with weight decay on matrices alone.

    Raises:
        ImportError: this PyTorch has no Muon.
    """
    blocks = [p for n, p in model.named_parameters() if "resblocks" in n and p.ndim == 2]
    rest = [(n, p) for n, p in model.named_parameters() if not ("resblocks" in n and p.ndim == 2)]
    matrices = [p for n, p in rest if p.ndim >= 2 and "embedding" not in n]
    others = [p for n, p in rest if p.ndim < 2 or "embedding" in n] + list(heads.parameters())
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return make_muon(blocks, decay), torch.optim.AdamW(groups, betas=(0.9, 0.98))
