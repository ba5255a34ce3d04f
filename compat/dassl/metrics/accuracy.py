"""Top-k accuracy."""

from __future__ import annotations

import torch

__all__ = ["compute_accuracy"]


def compute_accuracy(
    output: torch.Tensor | tuple[torch.Tensor, ...] | list[torch.Tensor],
    target: torch.Tensor,
    topk: tuple[int, ...] = (1,),
) -> list[torch.Tensor]:
    """Compute the share of samples whose label is among the k highest scores.

    Args:
        output: scores, (B, C); if it is a tuple or list, its first element is taken.
        target: labels, (B,).
        topk: the values of k, each at most C.

    Returns:
        one tensor of shape (1,) per k, in percent.
    """
    if isinstance(output, (tuple, list)):
        output = output[0]
    ranked = output.topk(max(topk), dim=1).indices  # (B, max k)
    hits = (ranked == target.unsqueeze(1)).float()
    return [hits[:, :k].sum().reshape(1) * (100.0 / target.size(0)) for k in topk]
