"""The frozen text encoder under learnable prompts, computing only what differs between prompts.

CLIP's text transformer is causal and its feature is read at the end-of-text token, so nothing behind the longest class
name is computed (of 77 positions about 10), and the start `[SOS][context tokens]`, which the classes of one template
share, is computed once a template: every class's own tokens attend to its keys and values. In the last layer only the
end-of-text position is a query. All of it is exact: outputs and gradients are those of the plain 77-position encoder.

Legend: M templates, C classes, P prefix and L suffix positions, W transformer width, D embedding width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .loading import tokenize


class TextPrompt(NamedTuple):
    """Token embeddings of `M x C` prompts, without positions, split where the classes begin to differ.

    Attributes:
        prefix: `(M, P, W)`, what all classes of a template share: `[SOS][context tokens]`.
        suffix: `(C, L, W)`, or `(M, C, L, W)` where it differs between templates; arbitrary behind end-of-text.
        end: `(C,)`, position of end-of-text in the suffix.
        deep: for layers 1, 2, ...: `(M, d, W)`, what replaces the prefix positions 1..d before that layer.
    """

    prefix: Tensor
    suffix: Tensor
    end: Tensor
    deep: Sequence[Tensor] = ()


class TextEncoder(nn.Module):
    """CLIP's text encoder as a function of `TextPrompt`s.

    Args:
        clip_model: a CLIP of the `clip` package; its text side is shared, not copied.
    """

    def __init__(self, clip_model: nn.Module):
        super().__init__()
        self.blocks = clip_model.transformer.resblocks
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.token_embedding = clip_model.token_embedding

    @property
    def context_length(self) -> int:
        return len(self.positional_embedding)

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer computes in."""
        return self.text_projection.dtype

    def embed(self, tokens: Tensor) -> Tensor:
        """Token embeddings `(..., W)` of token numbers `(...)`, in float32."""
        return self.token_embedding(tokens).float()

    def forward(self, prompt: TextPrompt) -> Tensor:
        """Text features `(M, C, D)`, not normalised.

        Raises:
            ValueError: the prompts are longer than the encoder has positions.
        """
        prefix, suffix, end, deep = prompt
        n_prefix, n_suffix = prefix.shape[1], suffix.shape[-2]
        if n_prefix + n_suffix > self.context_length:
            raise ValueError(
                f"CLIP's text encoder takes {self.context_length} tokens, a prompt has {n_prefix + n_suffix}"
            )
        positions = self.positional_embedding.to(self.dtype)
        shared = prefix.to(self.dtype) + positions[:n_prefix]  # (M, P, W)
        own = suffix.to(self.dtype) + positions[n_prefix : n_prefix + n_suffix]
        own = own.expand(len(prefix), *own.shape[-3:])  # (M, C, L, W)
        # (1, C, 1, 1) ready to gather one position of (M, C, L, W)
        end = end.view(1, -1, 1, 1).expand(len(prefix), -1, 1, own.shape[-1])
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            if 0 < layer <= len(deep):
                tokens = deep[layer - 1].to(shared.dtype)
                shared = torch.cat([shared[:, :1], tokens, shared[:, 1 + tokens.shape[1] :]], dim=1)
            shared, own = _block(block, shared, own, end if layer == last else None)
        features = self.ln_final(own[:, :, 0]).to(self.dtype)  # (M, C, W)
        return features @ self.text_projection

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised features `(C, D)` of plain texts, float32, without gradient.

        Raises:
            ValueError: a text is longer than the encoder has positions.
        """
        tokens = [tokenize(text, self.context_length) for text in texts]
        n_shared = _common_length(tokens)
        device = self.positional_embedding.device
        suffix, end = pad([text[n_shared:] for text in tokens], device)
        prefix = torch.tensor([tokens[0][:n_shared]], device=device)
        features = self(TextPrompt(self.embed(prefix), self.embed(suffix), end))
        return F.normalize(features[0].float(), dim=-1)


def pad(tokens: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Token lists of unequal length -> `(C, L)` filled up with zeros, and the position of each one's last token."""
    length = max(len(text) for text in tokens)
    padded = torch.tensor([[*text, *[0] * (length - len(text))] for text in tokens], device=device)
    return padded, torch.tensor([len(text) - 1 for text in tokens], device=device)


def _common_length(tokens: Sequence[Sequence[int]]) -> int:
    """How many first tokens all texts share, at least the start- and never the end-of-text token."""
    longest = min(len(text) for text in tokens) - 1
    return next((n for n in range(longest) if len({text[n] for text in tokens}) > 1), longest)


def _block(block: nn.Module, shared: Tensor, own: Tensor, end: Tensor | None) -> tuple[Tensor, Tensor]:
    """One residual attention block on prefixes `(M, P, W)` and suffixes `(M, C, L, W)`.

    With `end` it is the last one: `own` comes back as the end-of-text position alone, `(M, C, 1, W)`.
    """
    n_heads = block.attn.num_heads
    shared = shared[:, None]  # (M, 1, P, W), as a class of its own
    shared_q, shared_k, shared_v = _project(block, shared, n_heads)  # (M, 1, H, P, W/H)
    q, k, v = _project(block, own, n_heads)  # (M, C, H, L, W/H)
    allowed = _causal(k)
    if end is not None:
        own = own.gather(2, end)
        heads = end[..., 0, 0].view(*end.shape[:2], 1, 1, 1).expand(*q.shape[:3], 1, q.shape[-1])
        q = q.gather(3, heads)
        allowed = torch.arange(k.shape[-2], device=q.device) <= end[:, :, None, :, :1]
    own = _residual(block, own, _attend(q, k, v, allowed, shared_k[:, 0], shared_v[:, 0]))
    if end is None:
        nothing = shared_k[:, 0, :, :0]
        shared = _residual(block, shared, _attend(shared_q, shared_k, shared_v, _causal(shared_k), nothing, nothing))
    return shared[:, 0], own


def _causal(k: Tensor) -> Tensor:
    """`(length, length)`: which keys each position may attend to."""
    return torch.ones(k.shape[-2], k.shape[-2], dtype=torch.bool, device=k.device).tril()


def _project(block: nn.Module, x: Tensor, n_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `(..., H, length, W/H)` of `(..., length, W)`."""
    x = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    q, k, v = (part.unflatten(-1, (n_heads, -1)).transpose(-2, -3) for part in x.chunk(3, dim=-1))
    return q, k, v


def _attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, shared_k: Tensor, shared_v: Tensor) -> Tensor:
    """Attention of suffix queries `(M, C, H, L, W/H)` to the whole prefix and to the allowed suffix positions.

    The prefix's keys and values are used where they are, `(M, H, P, W/H)`, and not copied to every class.
    """
    n_prefix = shared_k.shape[-2]
    q = q * q.shape[-1] ** -0.5
    to_shared = torch.einsum("mchld,mhpd->mchlp", q, shared_k)
    to_own = (q @ k.transpose(-1, -2)).masked_fill(~allowed, float("-inf"))
    weights = torch.softmax(torch.cat([to_shared, to_own], dim=-1).float(), dim=-1).to(v.dtype)
    from_shared = torch.einsum("mchlp,mhpd->mchld", weights[..., :n_prefix], shared_v)
    return from_shared + weights[..., n_prefix:] @ v


def _residual(block: nn.Module, x: Tensor, mixed: Tensor) -> Tensor:
    """The rest of a block: attention's output projection and the feed-forward network, `(..., length, W)`."""
    x = x + block.attn.out_proj(mixed.transpose(-2, -3).flatten(-2))
    return x + block.mlp(block.ln_2(x))
