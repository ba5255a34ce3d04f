"""The text encoder as the published trainers compute it: what the benchmark compares with.

Legend: M templates, C classes, P prefix and L suffix positions, W transformer width, D embedding width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:  # a published checkout's process must find the checkout's own `trainers`
    from trainers.modules.clip_types import CLIP


class PlainTextEncoder(nn.Module):
    """All positions of every class through CLIP's own blocks, one template after the other, all kept for the gradient.

    It takes and gives what `trainers.modules.text.TextEncoder` does, so that it can stand in any trainer's model.

    Args:
        clip_model: a CLIP of the `clip` package; its text side is shared, not copied.
    """

    def __init__(self, clip_model: CLIP):
        super().__init__()
        self.blocks = clip_model.transformer.resblocks
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection

    def forward(self, prompt, beside_images: bool = False) -> Tensor:
        """Text features `(M, C, D)` of a `TextPrompt`, not normalised."""
        features = []
        for m in range(len(prompt.prefix)):
            suffix = prompt.suffix[m] if prompt.suffix.ndim == 4 else prompt.suffix
            deep = {layer: tokens[m][:, None] for layer, tokens in enumerate(prompt.deep, 1)}  # each (d, 1, W)
            if prompt.class_tokens is not None:
                layer, tokens = prompt.class_tokens
                deep[layer] = (tokens[m] if tokens.ndim == 4 else tokens).transpose(0, 1)  # (d, C, W)
            features.append(self._encode(prompt.prefix[m], suffix, prompt.eot_index, deep))
        return torch.stack(features)

    def _encode(self, prefix: Tensor, suffix: Tensor, end, deep: dict[int, Tensor]) -> Tensor:
        n_prefix, n_classes, dtype = len(prefix), len(suffix), self.text_projection.dtype
        x = torch.cat([prefix.expand(n_classes, -1, -1), suffix], dim=1)
        x = F.pad(x, (0, 0, 0, len(self.positional_embedding) - x.shape[1])).to(dtype)  # (C, 77, W)
        x = (x + self.positional_embedding.to(dtype)).transpose(0, 1)
        for layer, block in enumerate(self.blocks):
            if layer in deep:
                tokens = deep[layer].to(x.dtype)
                x = torch.cat([x[:1], tokens.expand(-1, n_classes, -1), x[1 + len(tokens) :]])
            x = block(x)
        x = self.ln_final(x.transpose(0, 1)).to(dtype)
        ends = torch.tensor(end, device=x.device) + n_prefix
        return x[torch.arange(n_classes, device=x.device), ends] @ self.text_projection
