"""Gradients that are taken at once, so that memory does not grow with the number of losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def differentiate_now(
    function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, scale: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, ...]:
    """Call `function` and take its gradient at once.

    So a sum of losses that share no computation needs the memory of only one of them: what a call has kept for its
    gradient is freed before the next call. Value and gradients are those of `function(*inputs)`.

    Args:
        function: of the inputs; returns a loss of one element and any other tensors, through which no gradient goes.
        inputs: floating-point tensors, all of which the loss depends on. Of what else it depends on it has no gradient.
        scale: what `amp`'s scaler does with a loss before its backward pass, taken here; None without a scaler.

    Returns:
        What `function` returns; the loss can be added to others and differentiated once.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    outputs: tuple[Tensor, ...] = _Differentiated.apply(function, scale, *inputs)
    return outputs


class _Differentiated(torch.autograd.Function):
    """Its gradients are known, up to a factor, when its value is."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., tuple[Tensor, ...]], scale: Any, *inputs: Tensor) -> Any:
        leaves = [x.detach().requires_grad_() for x in inputs]
        with torch.enable_grad():
            loss, *others = function(*leaves)
            factor = torch.ones_like(loss) if scale is None else scale(torch.ones_like(loss))
            gradients = torch.autograd.grad(loss * factor, leaves)
        ctx.save_for_backward(factor, *gradients)
        others = [x.detach() for x in others]
        ctx.mark_non_differentiable(*others)
        return (loss.detach(), *others)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> Any:
        factor, *gradients = ctx.saved_tensors
        return (None, None, *(gradient * (grad / factor) for gradient in gradients))
