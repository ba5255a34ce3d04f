"""Reading checkpoints of any origin without running what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .archives import kind, opened, shortened
from .inert_pickle import Unreadable
from .sharing import read_shared
from .tensor_file import is_tensor_file

MOST_EPOCHS = 1_000_000  # of a training; schedules go through them one by one


def read_saved(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a dictionary that `torch.save` wrote: tensors and plain data.

    Args:
        path: the file.
        device: where its tensors go.

    Returns:
        What it holds; in the place of each object, function and class a `inert_pickle.Foreign`, which is only its name.

    Raises:
        ValueError: the file is broken or something else; with what it seems to be, and what to do.
    """
    try:
        with opened(path) as saved:
            content = saved.everything(device)
    except Unreadable as error:
        raise ValueError(f"{path} is not a whole checkpoint: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a whole checkpoint: it holds {kind(content)}, not a dictionary")
    return content


def read_checkpoint(path: str | Path, device: torch.device | str = "cpu", *needed: str) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain data only.

    Published checkpoints keep the scheduler that follows the warm-up as an object, with its optimizer, and the
    validation result as a NumPy scalar. In the place of these and of whatever else a file names stands a
    `inert_pickle.Foreign`; the classes and functions themselves are never called.

    Args:
        path: a file of `torch.save`, or one of `sharing`, whose header is the entry `about` too.
        device: where its tensors go.
        needed: keys that it must have beside `state_dict`.

    Returns:
        What the file holds, at least the key `state_dict` (names to tensors).

    Raises:
        ValueError: the file is broken or no checkpoint; with what it seems to be, and what to do.
    """
    checkpoint = _read_shared(path, device) if is_tensor_file(path) else read_saved(path, device)
    missing = [key for key in ("state_dict", *needed) if key not in checkpoint]
    if missing:
        raise ValueError(f"{path} is not a whole checkpoint: it lacks {', '.join(missing)}")
    state, epoch = checkpoint["state_dict"], checkpoint.get("epoch", 0)
    if not isinstance(state, dict) or type(epoch) is not int:
        wrong = f"state_dict is {kind(state)}" if not isinstance(state, dict) else f"epoch is {kind(epoch)}"
        raise ValueError(f"{path} is not a whole checkpoint: its {wrong}")
    if not 0 <= epoch <= MOST_EPOCHS:
        raise ValueError(f"{path} is not a whole checkpoint: its epoch must be from 0 to {MOST_EPOCHS:,}, got {epoch}")
    no_tensors = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if no_tensors:
        raise ValueError(f"{path} is not a whole checkpoint: {shortened(no_tensors)} should be tensors")
    return checkpoint


def _read_shared(path: str | Path, device: torch.device | str) -> dict[str, Any]:
    """A file of `sharing` under the keys of a checkpoint."""
    try:
        state_dict, about = read_shared(path)
    except Unreadable as error:
        raise ValueError(f"{path} is not a whole checkpoint: {error}") from error
    checkpoint: dict[str, Any] = {}
    checkpoint.update(
        (key, about[key]) for key in ("epoch", "class_names", "trained_on", "backbone_sha256") if key in about
    )
    checkpoint.update(about=about, state_dict={name: value.to(device) for name, value in state_dict.items()})
    return checkpoint
