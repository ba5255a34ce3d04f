"""Reading checkpoints of any origin without running what is in them."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch


class _StandIn:
    """What takes the place of every object in a checkpoint that is neither a tensor nor plain data."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _stand_in_dict(*arguments: object) -> OrderedDict[object, object]:
    """`_StandIn` for defaultdict, which the reader goes on to fill."""
    return OrderedDict()


def storable(content: object) -> object:
    """Content that `read_checkpoint` can read back: before PyTorch 2.0 it reads no floats, so they become tensors."""
    if torch.__version__ >= "2":
        return content
    if isinstance(content, float):
        return torch.tensor(content, dtype=torch.float64)
    return _each(storable, content)


def _restored(content: object) -> object:
    """What was given to `storable`."""
    if isinstance(content, torch.Tensor) and content.ndim == 0 and content.dtype == torch.float64:
        return content.item()
    return _each(_restored, content)


def _each(function: Callable[[object], object], content: object) -> object:
    """Plain containers with a function of what is in them; all else as it is."""
    if type(content) is dict:
        return {key: function(value) for key, value in content.items()}
    if type(content) is list:
        return [function(value) for value in content]
    if type(content) is tuple:
        return tuple(function(value) for value in content)
    return content


def read_checkpoint(path: str | Path, device: torch.device | str = "cpu", *needed: str) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain data only.

    Published checkpoints keep the scheduler behind the warm-up as an object, with its optimizer, and the validation
    result as a NumPy scalar. These and whatever else a file names are read as stand-ins that do nothing; the classes
    and functions themselves are never called. A file that uses them for more than to store an object is refused.
    Before PyTorch 2.6 all files that hold objects are refused, and with them every published checkpoint of a run that
    began with a warm-up. Before PyTorch 2.0 only files written by such a PyTorch can be read (see `storable`).

    Args:
        path: a file of `torch.save`.
        device: where its tensors go.
        needed: keys that it must have beside `state_dict`.

    Returns:
        What the file holds, at least the key `state_dict` (names to tensors).

    Raises:
        ValueError: the file is broken or no checkpoint.
    """
    try:
        with _stand_ins(path):
            checkpoint = torch.load(path, map_location=device, weights_only=True)
        missing = [key for key in ("state_dict", *needed) if key not in checkpoint]
        state, _ = checkpoint.get("state_dict", {}), int(checkpoint.get("epoch", 0))
        wrong = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    except Exception as error:  # whatever the unpickler or zip reader stumbles over
        # PyTorch's long text, which advises to read the file without safety, ends in the reason.
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().partition("\n")[0]
        if "Unsupported class" in reason:
            reason += " (to read a checkpoint that holds objects, as published ones do, takes PyTorch 2.6 or newer)"
        elif "Unsupported operand" in reason:
            reason += " (this PyTorch reads checkpoints without floats only; PyTorch 2.0 or newer reads all of ours)"
        raise ValueError(f"{path} is not a whole checkpoint: {type(error).__name__}: {reason}") from error
    if missing:
        raise ValueError(f"{path} is not a whole checkpoint: it lacks {', '.join(missing)}")
    if wrong:
        raise ValueError(f"{path} is not a whole checkpoint: {', '.join(wrong)} should be tensors")
    return {key: value if key == "state_dict" else _restored(value) for key, value in checkpoint.items()}


def _stand_ins(path: str | Path) -> AbstractContextManager[None]:
    """The context in which `torch.load` reads what `path` names as stand-ins."""
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint") or not zipfile.is_zipfile(path):
        return nullcontext()
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    kinds = {"collections.defaultdict": _stand_in_dict}
    return torch.serialization.safe_globals([(kinds.get(name, _StandIn), name) for name in names])
