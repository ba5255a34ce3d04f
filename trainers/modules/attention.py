"""What both encoders' layers need to compute attention themselves.

Legend: H heads, W transformer width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .clip_types import ResidualBlock


def project(block: ResidualBlock, x: Tensor) -> Tensor:
    """Queries, keys and values, side by side `(..., 3 W)`, of the tokens `(..., W)` that come to a residual block."""
    return F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)


def heads(x: Tensor, n_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `(..., H, length, W/H)`, that are side by side in `(..., length, 3 W)`."""
    q, k, v = (part.unflatten(-1, (n_heads, -1)).transpose(-2, -3) for part in x.chunk(3, dim=-1))
    return q, k, v


def merge(x: Tensor) -> Tensor:
    """`(..., H, length, W/H)` -> `(..., length, W)`."""
    return x.transpose(-2, -3).flatten(-2)


def scaled(block: ResidualBlock, name: str, x: Tensor) -> Tensor:
    """What a branch of a residual block adds, after its LayerScale where the model has one."""
    scale = getattr(block, name, None)
    return x if scale is None else scale(x)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """`scaled_dot_product_attention` as PyTorch has it from 2.0 on."""
    if is_causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    scores: Tensor = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


attention = getattr(F, "scaled_dot_product_attention", plain_attention)
