"""One run on several processes: each encodes its share of the images and classes, and all take the same step.

torchrun starts the processes, or ranks. All see the same batches and hold the same parameters. The encoders' work is
divided among them, and the results are gathered; each rank computes everything else, such as the losses, by itself. So
a run ends with the parameters of one process, up to rounding. Without torchrun there is one rank, which does
everything.

The gradient: each rank differentiates the whole loss, but through the encoders only as far as its own share goes. Its
share of a parameter's gradient counts `size()` times, what all ranks compute alike counts once in each, and the mean
over ranks (`average_gradients`) is the gradient.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

_alone = 0  # how many contexts `alone` are open


def launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and dist.is_available()


def size() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _alone else 1


def number() -> int:
    """Which rank this is, from 0 on. The first one alone writes."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@contextmanager
def joined(on_gpu: bool) -> Iterator[None]:
    """The context in which this process works with the others that torchrun has started, if there are any.

    Args:
        on_gpu: whether each process on this machine takes one of its GPUs.

    Raises:
        ValueError: there are more processes than GPUs on this machine.
        RuntimeError: another process is not there, or has ended.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    local, several = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if on_gpu:
        if several > torch.cuda.device_count():
            raise ValueError(
                f"torchrun has started {several} processes on a machine with {torch.cuda.device_count()} GPUs: "
                f"set --nproc_per_node to at most as many"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    yield
    # Not after an error: NCCL would wait for the others, which wait for what this process has not sent.
    dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """The context in which this rank computes by itself, as if it were the only one."""
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


def share(n: int) -> slice:
    """This rank's part of n things: they are divided in order, and the first ranks have one more where need be."""
    least, more = divmod(n, size())
    rank = number() if size() > 1 else 0
    start = rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))


def divided(n: int, dim: int, compute: Callable[[slice], Tensor]) -> Tensor:
    """What is computed of n things, each rank its share.

    Args:
        n: at least 1.
        dim: of the result along which the things lie.
        compute: of some of them, at least one. No gradient goes through it to the result of another call: of that each
            rank would have the part that comes through its own share.

    Returns:
        `compute(slice(0, n))`, the same on all ranks, with its gradient (`average_gradients`).
    """
    if size() == 1:
        return compute(slice(0, n))
    own = share(n)
    return gather(compute(own_or_first(n)).narrow(dim, 0, own.stop - own.start), n, dim)


def own_or_first(n: int) -> slice:
    """As `share`; the first thing where this rank has none: a rank that computes nothing has no gradient to average."""
    own = share(n)
    return own if own.start < own.stop else slice(0, 1)


def gather(part: Tensor, n: int, dim: int) -> Tensor:
    """The shares of all ranks together.

    Args:
        part: this rank's, whose size along `dim` is that of `share(n)`.
        n: how many things all ranks have.
        dim: along which they lie.
    """
    if size() == 1:
        return part
    whole: Tensor = _Gathered.apply(part, n, dim)
    return whole


def average_gradients(parameters: Iterable[nn.Parameter], used: list[bool] | None = None) -> list[bool]:
    """Make each parameter's gradient the mean over all ranks, which is that of one process.

    Args:
        parameters: all that is trained.
        used: what an earlier call has returned for the same loss, so that a GPU need not be waited for.

    Returns:
        Which of the parameters have a gradient on any rank; others keep none.

    Raises:
        ValueError: a parameter has a gradient that had none in the earlier call.
    """
    parameters = list(parameters)
    if size() == 1:
        return [parameter.grad is not None for parameter in parameters]
    if used is None:
        flags = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        flags = flags.to(parameters[0].device)
        dist.all_reduce(flags)
        used = [flag > 0 for flag in flags.tolist()]
    elif any(parameter.grad is not None and not has for parameter, has in zip(parameters, used)):
        raise ValueError("of several processes the loss must depend on the same parameters in every step")
    own = [parameter for parameter, has in zip(parameters, used) if has]
    if not own:
        return used
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= size()
    for parameter, gradient in zip(own, together.split([p.numel() for p in own])):
        parameter.grad = gradient.view_as(parameter)
    return used


def agree(value: T) -> T:
    """The first rank's value, on all ranks; none goes on before the first one is here.

    Args:
        value: what pickle can take.
    """
    if size() == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values, device=torch.device("cpu"))
    agreed: T = values[0]
    return agreed


def check_same(content: bytes, place: str) -> None:
    """Raise ValueError on all ranks unless all have the same.

    Args:
        content: what they are to have.
        place: where the run is, for the error.
    """
    if size() == 1:
        return
    own = torch.frombuffer(bytearray(hashlib.sha256(content).digest()), dtype=torch.uint8)
    found = [torch.empty_like(own) for _ in range(size())]
    dist.all_gather(found, own)
    others = [str(rank) for rank, digest in enumerate(found) if not torch.equal(digest, found[0])]
    if others:
        raise ValueError(
            f"{place} the processes {', '.join(others)} have other images, random numbers or parameters than the first "
            f"of {len(found)}: all need the same data, code and versions"
        )


class _Gathered(torch.autograd.Function):
    """The shares of all ranks; of the gradient each rank takes its own share, `size()` times."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, n: int, dim: int) -> Tensor:
        ranks = size()
        own = share(n)
        ctx.place = (dim, own.start, own.stop - own.start, ranks)
        least, more = divmod(n, ranks)
        sizes = [least + (rank < more) for rank in range(ranks)]
        # All shares are sent at the size of the largest, in float32, which every backend can send and which holds
        # whatever half precision does.
        sent = part.transpose(0, dim)
        sent = sent.float() if part.dtype in (torch.float16, torch.bfloat16) else sent
        padded = sent.new_zeros((sizes[0], *sent.shape[1:]))
        padded[: len(sent)] = sent
        received = [torch.empty_like(padded) for _ in range(ranks)]
        dist.all_gather(received, padded)
        whole = torch.cat([found[:count] for found, count in zip(received, sizes)])
        return whole.to(part.dtype).transpose(0, dim).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        dim, start, length, ranks = ctx.place
        return grad.narrow(dim, start, length) * ranks, None, None
