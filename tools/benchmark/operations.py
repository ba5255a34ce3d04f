"""Floating-point operations of what runs, the same on every PyTorch and whichever kernel computes attention.

PyTorch's `FlopCounterMode` takes an operation without a formula for nothing. Of the kernels of
`scaled_dot_product_attention` on CPU and CUDA, forward and backward, these have none:

    PyTorch 2.1, 2.2     every kernel has one; the CPU's is CUDA's flash attention by name
    PyTorch 2.3, 2.4     flash attention for CPU, and cuDNN's
    PyTorch 2.5 to 2.14  flash attention for CPU
    PyTorch 2.15         every kernel has one

Here such a kernel gets one. What PyTorch counts already stays its own, so nothing is counted twice.

A kernel keeps no scores and computes them again for the gradient; without a kernel they are kept. Forward that is two
matrix products either way, backward it is five or four, and the fifth is told apart as computed again.

Legend: N queries, K keys, d width of queries and keys, e width of values.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from math import prod
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

KERNELS = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
BACKWARD_PRODUCTS = 5  # as PyTorch counts a kernel's; all of them are as large where values are as wide as keys


def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_, **__) -> int:
    """Operations of a kernel on shapes `(..., N, d)`, `(..., K, d)`, `(..., K, e)`: scores, and values by them."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def attention_backward(
    grad: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_, **__
) -> int:
    """The same of its gradient: the scores again, and the gradients of scores, values, queries and keys."""
    return 2 * prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


def kernels(ending: str = "") -> list:
    """The attention operations that this PyTorch has, with "_backward" those of the gradient."""
    names = [f"_scaled_dot_product_{kernel}{ending}" for kernel in KERNELS]
    return [getattr(torch.ops.aten, name) for name in names if hasattr(torch.ops.aten, name)]


def lacking(known: Container) -> dict[object, Callable[..., int]]:
    """Formulas of the attention operations that are not among the known ones."""
    formulas = dict.fromkeys(kernels(), attention)
    formulas.update(dict.fromkeys(kernels("_backward"), attention_backward))
    return {operation: formula for operation, formula in formulas.items() if operation not in known}


class _NoModules:
    """In place of what tells the modules apart, whose hooks do not bear gradients that are taken in a forward pass."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def counter() -> FlopCounterMode:
    """PyTorch's counter, silent, with a formula for every attention operation."""
    plain: Any = FlopCounterMode(display=False)
    known = plain.flop_registry if hasattr(plain, "flop_registry") else plain.flop_mapping  # PyTorch 2.1's name
    counted: Any = FlopCounterMode(display=False, custom_mapping=lacking(known))
    if hasattr(counted, "mod_tracker"):
        counted.mod_tracker = _NoModules()
    return counted


@contextlib.contextmanager
def counted_operations() -> Iterator[dict[str, int]]:
    """Count floating-point operations inside: a dict that gets `flops`, all of them, and `flops_again`.

    The latter are computed a second time, which the result does not need: by gradient checkpoints, and the scores by
    attention kernels.
    """
    counts = {"flops": 0, "flops_again": 0}
    counted = counter()

    def counting(checkpoint):
        def checkpoint_counted(function, *arguments, **options):
            calls = itertools.count()

            def run(*arguments):
                again, before = next(calls) > 0, counted.get_total_flops()
                try:
                    return function(*arguments)
                finally:  # a checkpoint may leave the second time by an exception
                    if again:
                        counts["flops_again"] += counted.get_total_flops() - before

            return checkpoint(run, *arguments, **options)

        return checkpoint_counted

    with contextlib.ExitStack() as stack:
        for name in ("trainers.modules.text", "trainers.modules.representation", "trainers.modules.losses"):
            module = sys.modules.get(name)
            if module:
                stack.enter_context(mock.patch.object(module, "checkpoint", counting(module.checkpoint)))
        stack.enter_context(counted)
        yield counts
        counts["flops"] = counted.get_total_flops()
        of_operations = counted.get_flop_counts().get("Global", {})
        backward = sum(of_operations.get(operation, 0) for operation in kernels("_backward"))
        counts["flops_again"] += backward // BACKWARD_PRODUCTS
