"""The one door to the `clip` package: a backbone's name or path -> frozen CLIP module, and its tokenizer.

Works with OpenAI's package and its copies on PyPI, with CoOp's (`build_model(state_dict)`) and with MaPLe's
(`build_model(state_dict, design_details)`).
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import inspect
import io
import os
import urllib.error
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from .clip_import import clip_importable
from .clip_types import CLIP

with clip_importable():
    from clip import clip
    from clip.model import build_model
    from clip.simple_tokenizer import SimpleTokenizer

CACHE = "~/.cache/clip"
# What OpenAI's archives hold beside parameters: sizes, which the parameters' shapes say as well
SIZES = ("input_resolution", "context_length", "vocab_size")
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "amp": torch.float32, "fp32": torch.float32}


def load_clip(name: str, precision: str = "fp32", cache: str = CACHE) -> CLIP:
    """Build a frozen CLIP from OpenAI's file of it, or from any file in OpenAI's two formats.

    Args:
        name: one of OpenAI's names ("ViT-B/16", "RN50", ...), whose file is looked for in `cache` and else downloaded
            there by the `clip` package, which checks its SHA-256; or the path of a file: a TorchScript archive, a
            state dict, or a state dict compressed with gzip (".gz").
        precision: a key of `PRECISIONS`: what convolutions, linear layers and projections compute in.
        cache: folder of OpenAI's files.

    Returns:
        The `clip` package's module on the CPU, in eval mode, no parameter requiring a gradient. Its attribute `sha256`
        is the `weights_digest` of the file's weights, whatever the precision.

    Raises:
        FileNotFoundError: the name is neither known nor a file, or the file cannot be downloaded.
        ValueError: the file is not a CLIP, or `precision` is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    path = find_file(name, cache)
    state_dict = read_state_dict(path)
    model = _build(dict(state_dict), path)
    for key, parameter in model.named_parameters():
        if parameter.dtype == torch.float16:  # LayerNorm and embeddings stay in float32
            parameter.data = state_dict[key].to(PRECISIONS[precision])
    model.sha256 = weights_digest(state_dict)
    return model.eval().requires_grad_(False)


def weights_digest(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 of a CLIP's weights: of names, shapes and values in float32.

    So it is the same for all formats of file, and for half-precision weights that were stored in float32.

    Args:
        state_dict: names to tensors, as `read_state_dict` gives them.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(set(state_dict) - set(SIZES)):
        values = state_dict[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} ".encode())
        digest.update(values.reshape(-1).numpy().data)
    return digest.hexdigest()


def _build(state_dict: dict[str, Tensor], path: Path) -> CLIP:
    """The `clip` package's module of a state dict, which it changes."""
    arguments = []
    if "design_details" in inspect.signature(build_model).parameters:
        # MaPLe's package: a trainer name other than its own, and no prompts inside the encoders, give the plain CLIP.
        no_prompts = {"vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0}
        arguments = [{"trainer": "CoOp", **no_prompts}]
    keys = set(state_dict) - set(SIZES)
    try:
        model: CLIP = build_model(state_dict, *arguments)
        differing = keys ^ set(model.state_dict())  # MaPLe's passes over what is missing
    except (KeyError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is not a whole CLIP file: {type(error).__name__}: {error}") from error
    if differing:
        raise ValueError(f"{path} is not a whole CLIP file: missing or not known are {', '.join(sorted(differing))}")
    return model


def find_file(name: str, cache: str = CACHE) -> Path:
    """The file behind a backbone's name or path; see `load_clip`.

    Raises:
        FileNotFoundError: as `load_clip`.
    """
    if os.path.isfile(os.path.expanduser(name)):
        return Path(name).expanduser()
    folder = os.path.expanduser(cache)
    if name not in clip._MODELS:
        raise FileNotFoundError(
            f"CLIP {name!r} is neither a file (seen from {os.getcwd()}) nor one of OpenAI's models: "
            + ", ".join(clip._MODELS)
        )
    url = clip._MODELS[name]
    try:
        return Path(clip._download(url, folder))
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CLIP {name}: {os.path.join(folder, os.path.basename(url))} is missing or not OpenAI's file, and the "
            f"download failed ({error}); put the file there, or give a file's path as MODEL.BACKBONE.NAME"
        ) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a CLIP's parameters from a TorchScript archive, a state dict, or a gzip-compressed state dict.

    Raises:
        ValueError: the file is empty, broken, or holds something else.
    """
    path = Path(path)
    try:
        data = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else path.open("rb")
        with data:
            state_dict = _read_archive(data) if _is_torchscript(data) else _read_plain(data)
    except Exception as error:  # whatever the unpickler, zip or gzip reader stumbles over
        raise ValueError(f"{path} cannot be read as a CLIP file: {type(error).__name__}: {error}") from error
    wanted = ("token_embedding.weight", "text_projection", "ln_final.weight", "logit_scale", "visual.conv1.weight")
    missing = [key for key in wanted if key not in state_dict]
    if missing:
        raise ValueError(f"{path} is not a CLIP file: it has no {', '.join(missing)}")
    return state_dict


def _is_torchscript(data: IO[bytes]) -> bool:
    found = False
    if zipfile.is_zipfile(data):
        with zipfile.ZipFile(data) as archive:
            found = any(member.endswith("/constants.pkl") for member in archive.namelist())
    data.seek(0)
    return found


def _read_archive(data: IO[bytes]) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # Deprecated, yet the format that OpenAI's files are in.
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        state_dict: dict[str, Tensor] = dict(torch.jit.load(data, map_location="cpu").state_dict())
        return state_dict


def _read_plain(data: IO[bytes]) -> dict[str, Tensor]:
    content = torch.load(data, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content)  # as training code wraps it
    return {key[len("module.") :] if key.startswith("module.") else key: value for key, value in content.items()}


@functools.lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def tokenize(text: str, context_length: int = 77) -> list[int]:
    """Byte-pair tokens of one text between the start- and the end-of-text token, without padding.

    Underscores count as blanks, as in all CoOp-family code.

    Raises:
        ValueError: more tokens than the text encoder has positions.
    """
    tokenizer = _tokenizer()
    start, end = tokenizer.encoder["<|startoftext|>"], tokenizer.encoder["<|endoftext|>"]
    tokens = [start, *tokenizer.encode(text.replace("_", " ")), end]
    if len(tokens) > context_length:
        raise ValueError(f"CLIP's text encoder takes {context_length} tokens, {text!r} has {len(tokens)}")
    return tokens
