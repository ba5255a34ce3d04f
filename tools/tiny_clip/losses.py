"""The losses of pre-training: CLIP's own between pictures and captions, and classifiers of the scene's factors."""

from __future__ import annotations

import math

import compat  # noqa: F401  (makes `dassl`, which the readers beside the world need, importable)

import torch
from torch import nn
from torch.nn import functional

from datasets import world
from tools.tiny_clip.pairs import Factors


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
