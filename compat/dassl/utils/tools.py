"""Files, images, seeds and names."""

from __future__ import annotations

import functools
import json
import os
import os.path as osp
import random
import stat
import urllib.request
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import SequenceMatcher
from typing import Any, BinaryIO

import numpy as np
import PIL
import torch
from PIL import Image
from tqdm import tqdm

__all__ = [
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "listdir_nohidden",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]


def mkdir_if_missing(dirname: str) -> None:
    """Create a folder and its parents if they do not exist; "" is the current folder."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    """Say whether ``fpath`` is a file, with a warning when it is not."""
    isfile = osp.isfile(fpath)
    if not isfile:
        warnings.warn(f"There is no file {fpath}", stacklevel=2)
    return isfile


def read_json(fpath: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON.
    """
    with open(fpath, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError(f"{fpath} is not a JSON file: {error}") from error


def write_json(obj: Any, fpath: str) -> None:
    """Write ``obj`` to a JSON file, indented by four spaces, and create its folder."""
    mkdir_if_missing(osp.dirname(fpath))
    with open(fpath, "w", encoding="utf-8") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))


@contextmanager
def replacing(fpath: str) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``fpath`` once it is complete and on the disk, or not at all."""
    beside = osp.join(osp.dirname(fpath), f".{osp.basename(fpath)}.tmp")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, fpath)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(beside)
        raise


def set_random_seed(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (CPU and every GPU).

    Args:
        seed: 0 to 2**32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def download_url(url: str, dst: str) -> None:
    """Download ``url`` to the file ``dst``, with a progress bar; ``dst`` appears only when it is complete."""
    print(f'* url="{url}"')
    print(f'* destination="{dst}"')
    with replacing(dst) as file, tqdm(unit="B", unit_scale=True, desc=osp.basename(dst)) as bar:

        def report(count: int, block_size: int, total_size: int) -> None:
            bar.total = total_size if total_size > 0 else None
            bar.update(count * block_size - bar.n)

        urllib.request.urlretrieve(url, file.name, report)


# `read_image` refuses what Pillow only warns about.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: str) -> Image.Image:
    """Return an image file as an RGB PIL image.

    Pillow clips 16-bit greys at 255, so they turn white. It clips 32-bit values, too. Published readers do the same.
    If ``path`` has an attribute ``scaled`` that is true, 16-bit greys are scaled to 8 bits, and 32-bit values without a
    known range are refused.

    An image may have ``PIL.Image.MAX_IMAGE_PIXELS`` pixels: 89 million, or as many as the environment variable
    ``MAX_IMAGE_PIXELS`` says. Pillow only warns about larger ones, up to twice the limit; here they are an error.

    Raises:
        ValueError: that variable is no number of pixels.
        FileNotFoundError: there is no such file.
        OSError: it is not a regular file, not an image, a damaged or too large one, or of values without a known range.
    """
    limit = _pixel_limit()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a FIFO waits for its writer
            raise OSError("it is not a regular file")
        with Image.open(path) as image:
            if limit and image.width * image.height > limit:
                raise OSError(
                    f"it has {image.width * image.height:,} pixels, more than {limit:,}; the environment variable "
                    "MAX_IMAGE_PIXELS raises the limit"
                )
            return _scaled(image) if getattr(path, "scaled", False) else image.convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no image file {path}") from error
    except Image.DecompressionBombError as error:  # more than twice the limit: Pillow raises, not only warns
        raise OSError(
            f"The image file {path} cannot be read: it has more than {2 * (limit or 0):,} pixels, and may have "
            f"{limit:,}; the environment variable MAX_IMAGE_PIXELS raises the limit"
        ) from error
    except (
        Exception
    ) as error:  # damaged files make PIL's decoders raise almost anything, mostly without the file's name
        raise OSError(f"The image file {path} cannot be read: {error}") from error


def _scaled(image: Image.Image) -> Image.Image:
    """Return an image in RGB, 16-bit greys scaled to 8 bits.

    Raises:
        OSError: it has 32-bit values that are not 0 to 255.
    """
    # Pillow before 11 holds a PNG's 16-bit values in 32 bits. All versions do so for a PGM, stretched to 16 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 255 or (image.mode == "F" and 0 < high <= 1):
            raise OSError(
                f"its 32-bit values must be 0 to 255, got {low:g} to {high:g}, of which nothing tells black and white; "
                "save it with 8 or 16 bits"
            )
    return image.convert("RGB")


def _pixel_limit() -> int | None:
    """Return the most pixels that an image may have, and set this limit in Pillow, too; None means no limit."""
    given = os.environ.get("MAX_IMAGE_PIXELS", "")
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise ValueError(f"MAX_IMAGE_PIXELS must be a number of pixels from 1 on, got {given!r}")
        Image.MAX_IMAGE_PIXELS = int(given)
    return Image.MAX_IMAGE_PIXELS


@functools.lru_cache(maxsize=1)  # it calls a dozen programs
def collect_env_info() -> str:
    """Return the versions of PyTorch, CUDA, Pillow and so on, as text."""
    from torch.utils.collect_env import get_pretty_env_info

    return f"{get_pretty_env_info()}\n        Pillow ({PIL.__version__})"


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    """Return the names in a folder that do not start with a dot.

    Args:
        path: the folder.
        sort: by name; otherwise in the order of ``os.listdir``, which differs between machines.
    """
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(names) if sort else names


def get_most_similar_str_to_a_from_b(a: str, b: Iterable[str]) -> str | None:
    """Return the string of ``b`` that is most similar to ``a`` (the last of equals), None when ``b`` is empty."""
    best, best_ratio = None, 0.0
    for candidate in b:
        ratio = SequenceMatcher(None, a, candidate).ratio()
        if ratio >= best_ratio:
            best, best_ratio = candidate, ratio
    return best


def check_availability(requested: str, available: Iterable[str]) -> None:
    """Check that a name is one of those that exist.

    Raises:
        ValueError: it is not; the message lists the names and guesses which one was meant.
    """
    available = list(available)
    if requested not in available:
        guess = get_most_similar_str_to_a_from_b(requested, available)
        hint = f" (did you mean {guess!r}?)" if guess is not None else ""
        raise ValueError(f"{requested!r} is not one of {available}{hint}")


def tolist_if_not(x: Any) -> list:
    """Return ``x`` when it is a list, else a list of it."""
    return x if isinstance(x, list) else [x]
