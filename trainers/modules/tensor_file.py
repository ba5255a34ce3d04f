"""Reading and writing safetensors files: tensors by name beside a few texts, and nothing that could run.

The package `safetensors` checks a file's header and bounds. It is imported when a file is read or written, so that a
checkout without it works with all other formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from storage.files import atomic_write

from .archives import printable
from .inert_pickle import NAME_LENGTH, Storage, StoredTensor, Unreadable

SUFFIX = ".safetensors"
HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def is_tensor_file(path: str | Path) -> bool:
    """Whether a file begins as safetensors files do: the length of the header, and the header."""
    with Path(path).open("rb") as file:
        start = file.read(9)
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < HEADER_BYTES


def read_tensor_file(
    path: str | Path, check: Callable[[dict[str, StoredTensor]], object] = lambda stored: None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file.

    Args:
        path: the file.
        check: is called with the tensors' names, types and shapes before any value is read; what it raises ends the
            reading.

    Returns:
        Tensors by name on the CPU, and the texts beside them.

    Raises:
        Unreadable: the file is broken, or has types of numbers that are not read.
        ValueError: the package `safetensors` is not installed.
        OSError: the file cannot be opened.
    """
    _import(path)
    from safetensors import SafetensorError, safe_open

    with Path(path).open("rb"):  # of a file that is missing or may not be read, the package's own errors say less
        pass
    try:
        with safe_open(str(path), "pt") as file:
            stored = {name: _stored(name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118  no mapping
            check(stored)
            return {name: file.get_tensor(name) for name in stored}, dict(file.metadata() or {})
    except SafetensorError as error:
        reason = printable(" ".join(str(error).split()), 200)
        raise Unreadable(f"it is a damaged safetensors file ({reason}); download or copy it again") from error


def _stored(name: str, entry: object) -> StoredTensor:
    """A tensor's type and shape, as `archives` has them of other formats."""
    code, shape = entry.get_dtype(), tuple(entry.get_shape())  # type: ignore[attr-defined]  # a class without a name
    if len(name) > NAME_LENGTH:
        raise Unreadable(f"it has names longer than {NAME_LENGTH}")
    if code not in DTYPES:
        raise Unreadable(f"its {printable(name)} is of type {printable(code)}; read are {', '.join(DTYPES)}")
    strides = torch.empty(shape, device="meta").stride()
    return StoredTensor(Storage(DTYPES[code], name, torch.Size(shape).numel()), 0, shape, tuple(strides))


def write_tensor_file(path: str | Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    Args:
        path: the file; its folder exists. It is replaced if it is there.
        tensors: by name; each is written from the CPU, in its own type.
        texts: what stands beside them.

    Raises:
        ValueError: the package `safetensors` is not installed.
        OSError: the folder cannot be written or the disk is full.
    """
    _import(path)
    from safetensors.torch import save

    # Tensors that share values would be refused.
    values = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
    }
    content = save(values, dict(texts))
    with atomic_write(path) as part:
        part.write_bytes(content)


def _import(path: str | Path) -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ValueError(f"{path} needs the package safetensors: pip install safetensors") from error
    return safetensors
