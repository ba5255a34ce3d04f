"""Checkpoints: writing them whole, reading those of any origin without running what is in them, comparing them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from storage.files import atomic_write

from .archives import kind, opened, shortened
from .inert_pickle import Unreadable
from .sharing import read_shared
from .tensor_file import is_tensor_file

MOST_EPOCHS = 1_000_000  # of a training; schedules go through them one by one


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; one of that name is replaced only once the new one is complete.

    Args:
        path: the file; its folder is made.
        content: tensors and plain data.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        saved = io.BytesIO()  # where the disk is full, PyTorch's own error gives positions in a file
        torch.save(content, saved)
        with atomic_write(path) as unfinished:
            unfinished.write_bytes(saved.getbuffer())
    except OSError as error:
        reason = error.strerror or error  # without the number, and the path again
        raise OSError(f"{path} cannot be written, older checkpoints are kept: {reason}") from error


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
    no_tensors = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
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


def state_problems(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Why a model cannot take the parameters of a checkpoint, without its subject.

    Names that are missing are one error, of which the first five are told, and so are names that are not known.

    Args:
        state: the checkpoint's, by name.
        own: the model's, by the same names.
    """
    lacking, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    problems = [f"has no {shortened(lacking)}"] if lacking else []
    if unknown:
        problems.append(f"has {shortened(unknown)}, which {'is' if len(unknown) == 1 else 'are'} not known")
    for key in own.keys() & state.keys():
        there, wanted = state[key], own[key]
        if there.shape != wanted.shape:
            problems.append(f"has {key} of shape {tuple(there.shape)} where this run has {tuple(wanted.shape)}")
        if not there.isfinite().all():
            problems.append(
                f"has {key} with infinite values or some that are not numbers, as of a training that diverged"
            )
        if wanted.is_floating_point() and not there.is_floating_point():
            problems.append(f"has {key} of type {there.dtype} where this run has real numbers")
    return sorted(problems)
