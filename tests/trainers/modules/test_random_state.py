"""Random states of Python, NumPy and PyTorch, kept and restored together."""

from __future__ import annotations

import random

import numpy as np
import torch

from trainers.modules.random_state import get_random_state, kept_random_states, seed_all, set_random_state


def draw():
    return random.random(), np.random.random(), torch.rand(1).item()


def test_restored_state_draws_the_same(tmp_path):
    """Also through a file, as a checkpoint keeps it."""
    state = get_random_state()
    torch.save(state, tmp_path / "state.pt")
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == first


def test_states_stay_whatever_is_drawn_inside():
    state = get_random_state()
    expected = draw()
    set_random_state(state)
    with kept_random_states():
        seed_all(b"a")
        inside = draw()
    assert draw() == expected
    with kept_random_states():
        seed_all(b"a")
        assert draw() == inside
        seed_all(b"b")
        assert all(one != other for one, other in zip(draw(), inside))
