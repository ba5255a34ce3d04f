"""Rectified Adam."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["RAdam"]


class RAdam(torch.optim.Optimizer):
    """Rectified Adam (Liu et al., ICLR 2020) with decoupled weight decay, in float32 for parameters of any precision.

    PyTorch's own RAdam keeps the averages of half-precision parameters in half precision, where ``eps`` is zero, so its
    results differ.

    Args:
        params: parameters or parameter groups.
        lr: learning rate, at least 0.
        betas: decay rates of the averages of the gradient and of its square, each in [0, 1).
        eps: added to the square root of the second average, at least 0.
        weight_decay: the share of ``lr`` times the parameter that is taken off in each step.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0.0:
            raise ValueError(f"lr must be at least 0, got {lr}")
        if eps < 0.0:
            raise ValueError(f"eps must be at least 0, got {eps}")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must lie in [0, 1), got {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns what ``closure`` returns.

        Raises:
            RuntimeError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step_one(p, p.grad, group)
        return loss

    def _step_one(self, p: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        if grad.is_sparse:
            raise RuntimeError("RAdam takes no sparse gradients")
        grad, value, state = grad.float(), p.float(), self.state[p]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(value), exp_avg_sq=torch.zeros_like(value))
        # A loaded state has the parameter's precision.
        mean, square = (state[key].float() for key in ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]
        mean.mul_(beta1).add_(grad, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        step = state["step"] + 1
        state.update(step=step, exp_avg=mean, exp_avg_sq=square)

        value = value * (1 - group["weight_decay"] * group["lr"])
        step_size = group["lr"] / (1 - beta1**step)
        rectification = _rectification(step, beta2)
        if rectification is None:  # too few steps to know the variance: momentum alone
            value = value.sub(mean, alpha=step_size)
        else:
            value = value.addcdiv(mean, square.sqrt().add(group["eps"]), value=-step_size * rectification)
        p.copy_(value)


def _rectification(step: int, beta2: float) -> float | None:
    """Return the step size's factor, the second average's bias correction in it; None for an intractable variance."""
    decay = beta2**step
    length_max = 2 / (1 - beta2) - 1
    length = length_max - 2 * step * decay / (1 - decay)
    if length < 5:
        return None
    ratio = (length - 4) * (length - 2) * length_max / ((length_max - 4) * (length_max - 2) * length)
    return math.sqrt((1 - decay) * ratio)
