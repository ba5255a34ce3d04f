"""Images that are in memory: of Pillow, NumPy or PyTorch, made what a file of them would be read as."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

KINDS = (Image.Image, np.ndarray, Tensor)
DEEP_GREYS = ("I;16", "I;16B", "I;16L", "I;16N")


class Picture(NamedTuple):
    """An image in memory.

    Attributes:
        name: what stands for its path in predictions.
        image: in RGB.
    """

    name: str
    image: Image.Image


def pictures_of(value: Image.Image | np.ndarray | Tensor) -> Iterator[Image.Image]:
    """The image, or the images of a batch, in RGB.

    Args:
        value: an image of Pillow; an array `(H, W)`, `(H, W, K)` or `(B, H, W, K)`; or a tensor `(H, W)`, `(K, H, W)`
            or `(B, K, H, W)`, with K of 1 (grey), 3 (RGB) or 4 (RGB and opacity, which is dropped). Values are bytes,
            16-bit integers without sign, or real numbers in [0, 1].

    Raises:
        ValueError: it is no such image.
    """
    if isinstance(value, Image.Image):
        if value.mode in DEEP_GREYS:
            yield _from_array(np.asarray(value))
        elif value.mode in ("I", "F"):
            raise ValueError(f"an image of Pillow must have 8 or 16 bits, got the mode {value.mode}, of 32 bits")
        else:
            yield value.convert("RGB")
        return
    shape, kind = tuple(value.shape), type(value).__name__
    array = _channels_last(value) if isinstance(value, Tensor) else value
    if array.ndim not in (2, 3, 4) or (array.ndim > 2 and array.shape[-1] not in (1, 3, 4)) or 0 in array.shape:
        layouts = "(H, W), (K, H, W) or (B, K, H, W)" if kind == "Tensor" else "(H, W), (H, W, K) or (B, H, W, K)"
        raise ValueError(f"a {kind} of images must be {layouts} with K of 1, 3 or 4, got {shape}")
    for one in array if array.ndim == 4 else [array]:
        yield _from_array(one)


def _channels_last(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu()
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    return (tensor if tensor.ndim < 3 else tensor.movedim(-3, -1)).numpy()


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    """An image of `(H, W)` or `(H, W, K)`."""
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # also of NaN
            raise ValueError(
                f"real numbers of an image must lie in [0, 1], got {array.min():g} to {array.max():g}; images that are "
                "normalised for CLIP are no input here"
            )
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype.newbyteorder("=") == np.uint16:
        array = np.round(array.astype(np.float32) / 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"an image must hold uint8, uint16 or real numbers in [0, 1], got {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array)).convert("RGB")
