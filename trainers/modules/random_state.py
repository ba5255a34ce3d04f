"""The random states of Python, NumPy and PyTorch: kept, restored and seeded together."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def get_random_state() -> dict[str, Any]:
    """All random states as plain data and tensors, as a checkpoint keeps them."""
    state: Any = np.random.get_state()  # the tuple, as nothing else was asked for
    name, keys, *rest = state
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `get_random_state` gave; GPUs' states only where there are as many GPUs.

    Raises:
        KeyError, TypeError, ValueError: `state` is something else.
    """
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Whatever is drawn inside, the CPU's random states are afterwards as they were before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def seed_all(content: bytes) -> None:
    """Seed all that a transform draws from, by the digest of some bytes.

    `torch.manual_seed` seeds the accelerators too. Where one is not in use yet, it keeps each call with its stack for
    later: that takes more time than most views, and memory that grows.
    """
    seed = int.from_bytes(hashlib.sha256(content).digest()[:4], "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
