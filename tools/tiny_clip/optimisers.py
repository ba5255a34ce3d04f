"""The optimisers of pre-training."""

from __future__ import annotations

from trainers.modules import loading  # noqa: F401  (imports `clip` without its warning)

# isort: split
import torch
from clip.model import CLIP

from tools.tiny_clip.losses import Heads
from tools.tiny_clip.model import FAST


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
