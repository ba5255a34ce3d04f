"""Checkpoints and small operations on modules.

A checkpoint is ``<folder>/model.pth.tar-<epoch>`` with the keys ``state_dict``, ``epoch``, ``optimizer``,
``scheduler`` and ``val_result``; the file ``<folder>/checkpoint`` holds the name of the last one. Files are written
beside their place and then renamed, so a full disk or a kill leaves the older file whole.
"""

from __future__ import annotations

import os.path as osp
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from .tools import mkdir_if_missing, replacing

__all__ = [
    "count_num_param",
    "init_network_weights",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "resume_from_checkpoint",
    "save_checkpoint",
]


_STORED_OBJECTS = (
    "torch.optim.lr_scheduler.StepLR",
    "torch.optim.lr_scheduler.MultiStepLR",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.adam.Adam",
    "torch.optim.adamw.AdamW",
    "torch.optim.rmsprop.RMSprop",
    "torch.optim.sgd.SGD",
    "dassl.optim.radam.RAdam",
)


def _without_module(state_dict: dict[str, Any]) -> OrderedDict[str, Any]:
    """Drop the leading ``module.`` that ``nn.DataParallel`` puts before every name."""
    prefix = "module."
    return OrderedDict((key[len(prefix) :] if key.startswith(prefix) else key, v) for key, v in state_dict.items())


def save_checkpoint(
    state: dict[str, Any],
    save_dir: str,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write a checkpoint and note its name in the file ``checkpoint`` beside it.

    Args:
        state: ``state_dict``, ``epoch`` and whatever else is to be kept.
        save_dir: the folder, created when missing.
        is_best: keep a copy as ``model-best.pth.tar``.
        remove_module_from_keys: drop the leading ``module.`` of the names in ``state["state_dict"]``.
        model_name: the file's name, by default ``model.pth.tar-<epoch>``.
    """
    mkdir_if_missing(save_dir)
    if remove_module_from_keys:
        state["state_dict"] = _without_module(state["state_dict"])

    fpath = osp.join(save_dir, model_name or f"model.pth.tar-{state['epoch']}")
    try:
        with replacing(fpath) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        # PyTorch hides a full disk behind a complaint about positions in the file.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(f"The checkpoint {fpath} cannot be written, an older one is kept: {reason}") from error
    print(f"Checkpoint saved to {fpath}")

    with replacing(osp.join(save_dir, "checkpoint")) as file:
        file.write(f"{osp.basename(fpath)}\n".encode())

    if is_best:
        best_fpath = osp.join(save_dir, "model-best.pth.tar")
        with open(fpath, "rb") as source, replacing(best_fpath) as file:
            shutil.copyfileobj(source, file)
        print(f'Best checkpoint saved to "{best_fpath}"')


class _StoredObject:
    """What stands for a scheduler or an optimiser of an older checkpoint: its attributes, and none of its code."""


def _stored_defaultdict(*_: Any) -> OrderedDict:
    return OrderedDict()  # a kind of dictionary that PyTorch lets the file fill


def _allowing_older_checkpoints() -> AbstractContextManager:
    """Let ``torch.load(weights_only=True)`` read what upstream's checkpoints hold beside tensors and plain data.

    With a warm-up upstream stored the scheduler that follows as an object, and through it the optimiser; and a
    validation result may be a NumPy scalar.
    """
    if torch.__version__ < "2.6":  # from then on the list takes stand-ins
        return nullcontext()
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [(_StoredObject, name) for name in _STORED_OBJECTS]
    allowed += [(_stored_defaultdict, "collections.defaultdict"), (dict, "builtins.dict")]
    allowed += [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    allowed += [np.dtype, type(np.dtype("float32")), type(np.dtype("float64"))]
    known = torch.serialization.get_safe_globals()  # leaving the context would take these from whoever allowed them
    return torch.serialization.safe_globals([entry for entry in allowed if entry not in known])


def _refuse_torchscript(file: BinaryIO) -> None:
    """Raise ValueError for a TorchScript archive, whose code PyTorch before 2.6 would run, ``weights_only`` or not."""
    if torch.__version__ < "2.6" and b"constants.pkl" in file.read():
        raise ValueError("a TorchScript archive")
    file.seek(0)


def load_checkpoint(fpath: str) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain data only; on a machine without CUDA everything lands on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ``fpath`` is None, or the file is empty, damaged or not a checkpoint.
    """
    if fpath is None:
        raise ValueError("The path of the checkpoint to load is None")
    if not osp.exists(fpath):
        raise FileNotFoundError(f"There is no checkpoint file {fpath}")

    map_location = None if torch.cuda.is_available() else "cpu"
    with open(fpath, "rb") as file, _allowing_older_checkpoints():
        try:
            _refuse_torchscript(file)
            checkpoint = torch.load(file, map_location=map_location, weights_only=True)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # damaged bytes make the reader raise almost anything, without the file's name
            raise ValueError(
                f"The checkpoint {fpath} ({osp.getsize(fpath)} bytes) cannot be read: it is empty, damaged, or holds "
                f"more than tensors and plain data ({type(error).__name__})"
            ) from error

    scheduler = checkpoint.get("scheduler") if isinstance(checkpoint, dict) else None
    if isinstance(scheduler, dict) and isinstance(scheduler.get("successor"), _StoredObject):
        stored = vars(scheduler["successor"])
        scheduler["successor"] = {key: value for key, value in stored.items() if key != "optimizer"}
    return checkpoint


def load_into(module: nn.Module, state_dict: dict[str, Any], fpath: str) -> None:
    """Load ``state_dict``, read from ``fpath``, into a module that has exactly these parameters and buffers.

    Raises:
        RuntimeError: names or shapes differ; the message names the file and the keys.
    """
    try:
        module.load_state_dict(state_dict)
    except RuntimeError as error:
        raise RuntimeError(f"The checkpoint {fpath} does not fit the model. {error}") from error


def last_checkpoint(fdir: str) -> str | None:
    """Return the path of the checkpoint that was last saved in a folder; None if the folder notes none.

    Raises:
        ValueError: the note is empty.
    """
    note = osp.join(fdir, "checkpoint")
    if not osp.exists(note):
        return None
    with open(note, encoding="utf-8") as file:
        name = file.readline().strip("\n")
    if not name:
        raise ValueError(f"The file {note} is empty; it must hold the name of the checkpoint to resume from")
    return osp.join(fdir, name)


def resume_from_checkpoint(fdir: str, model: nn.Module, optimizer: Any = None, scheduler: Any = None) -> int:
    """Load the last checkpoint of a folder into a model and, if given and kept, its optimiser and scheduler.

    Args:
        fdir: the folder that holds the file ``checkpoint``.

    Returns:
        the number of epochs done, which is the index of the next one.

    Raises:
        FileNotFoundError: the folder notes no checkpoint, or one that is not there.
        ValueError: the checkpoint cannot be read or lacks ``state_dict`` or ``epoch``.
        RuntimeError: it does not fit the model.
    """
    fpath = last_checkpoint(fdir)
    if fpath is None:
        raise FileNotFoundError(
            f"There is no file {osp.join(fdir, 'checkpoint')} that names the checkpoint to resume from"
        )

    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    require_keys(checkpoint, ("state_dict", "epoch"), fpath)
    load_into(model, checkpoint["state_dict"], fpath)
    print("Loaded model weights")

    if optimizer is not None and checkpoint.get("optimizer") is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
        print("Loaded optimizer")

    if scheduler is not None and checkpoint.get("scheduler") is not None:
        scheduler.load_state_dict(checkpoint["scheduler"])
        print("Loaded scheduler")

    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def require_keys(checkpoint: Any, keys: Iterable[str], fpath: str) -> None:
    """Check that what was read from ``fpath`` is a dictionary with these keys.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{fpath} is not a checkpoint: it holds a {type(checkpoint).__name__}, not a dictionary")
    missing = [key for key in keys if key not in checkpoint]
    if missing:
        raise ValueError(f"{fpath} is not a trainer's checkpoint: it lacks {', '.join(missing)}")


def open_all_layers(model: nn.Module) -> None:
    """Put a model into training mode with gradients for all its parameters."""
    model.train()
    for p in model.parameters():
        p.requires_grad = True


def open_specified_layers(model: nn.Module, open_layers: str | list[str]) -> None:
    """Train some of a model's children and freeze the others, in evaluation mode.

    Args:
        open_layers: name(s) of direct children.

    Raises:
        ValueError: the model has no such attribute.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    if isinstance(open_layers, str):
        open_layers = [open_layers]
    for name in open_layers:
        if not hasattr(model, name):
            raise ValueError(
                f"{name!r} is not a layer of the model, which has {[n for n, _ in model.named_children()]}"
            )
    for name, module in model.named_children():
        is_open = name in open_layers
        module.train(is_open)
        for p in module.parameters():
            p.requires_grad = is_open


def count_num_param(model: nn.Module | None = None, params: Iterable[Any] | None = None) -> int:
    """Count the numbers in a model, or in parameters or parameter groups.

    Raises:
        ValueError: neither is given.
    """
    if model is not None:
        params = model.parameters()
    if params is None:
        raise ValueError("count_num_param() needs a model or params")
    count = 0
    for p in params:
        members = p["params"] if isinstance(p, dict) else p
        count += sum(t.numel() for t in ([members] if isinstance(members, torch.Tensor) else members))
    return count


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Load what fits a model by name and shape from a checkpoint or a bare state dict, and leave the rest as it is.

    Warns if nothing fits; prints the names that were left out.
    """
    checkpoint = load_checkpoint(weight_path)
    require_keys(checkpoint, (), weight_path)
    state_dict = _without_module(checkpoint.get("state_dict", checkpoint))

    own = model.state_dict()
    fitting = {
        key: v
        for key, v in state_dict.items()
        if key in own and isinstance(v, torch.Tensor) and own[key].size() == v.size()
    }
    model.load_state_dict({**own, **fitting})

    if not fitting:
        warnings.warn(f"Nothing in {weight_path} fits the model (check the names by hand)", stacklevel=2)
        return
    print(f"Successfully loaded pretrained weights from {weight_path}")
    discarded = [key for key in state_dict if key not in fitting]
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Draw the weights of convolutions and linear layers again, zero their biases, and reset batch and instance norms.

    Args:
        init_type: normal (standard deviation ``gain``), xavier, kaiming or orthogonal.

    Raises:
        NotImplementedError: another ``init_type``.
    """
    draw = {
        "normal": lambda w: nn.init.normal_(w, 0.0, gain),
        "xavier": lambda w: nn.init.xavier_normal_(w, gain=gain),
        "kaiming": lambda w: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
        "orthogonal": lambda w: nn.init.orthogonal_(w, gain=gain),
    }
    if init_type not in draw:
        raise NotImplementedError(f"init_type must be one of {list(draw)}, got {init_type!r}")

    def init(module: nn.Module) -> None:
        kind = type(module).__name__
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if ("Conv" in kind or "Linear" in kind) and weight is not None:
            draw[init_type](weight.data)
            if bias is not None:
                nn.init.zeros_(bias.data)
        elif ("BatchNorm" in kind or "InstanceNorm" in kind) and weight is not None and bias is not None:
            nn.init.ones_(weight.data)
            nn.init.zeros_(bias.data)

    model.apply(init)
