"""Loading CLIPs by the `clip` package or open_clip: a backbone's name or path -> frozen CLIP; and the tokenizer.

Works with OpenAI's package and its copies on PyPI, with CoOp's (`build_model(state_dict)`) and with MaPLe's
(`build_model(state_dict, design_details)`).
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import os
import urllib.error
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from .archives import printable, shortened
from .clip_import import clip_importable
from .clip_types import CLIP
from .open_clip_models import OPEN_CLIP_PREFIXES, build_open_clip, digest_of, find_source
from .weights import SIZES, read_state_dict

with clip_importable():
    from clip import clip
    from clip.model import CLIP as PackageCLIP
    from clip.model import build_model
    from clip.simple_tokenizer import SimpleTokenizer

CACHE = "~/.cache/clip"
# OpenAI's models: each one's file and the SHA-256 of that, which is part of its published address. Copies of the
# `clip` package know some of them, and may be changed.
PUBLISHED = {
    "RN50": ("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
    "RN101": ("RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
    "RN50x4": ("RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
    "RN50x16": ("RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
    "RN50x64": ("RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"),
    "ViT-B/32": ("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    "ViT-B/16": ("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    "ViT-L/14": ("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    "ViT-L/14@336px": ("ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
}
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "amp": torch.float32, "fp32": torch.float32}

_kept: dict[tuple[str, str, str, str | None], CLIP] | None = None  # those that have been read, in `clips_kept`


class OtherWeights(ValueError):
    """Something was made with other weights than a file's: an error without its subject."""

    def __init__(self, path: Path, sha256: str, wanted: str) -> None:
        super().__init__(
            f"was made with other weights of CLIP (SHA-256 {printable(wanted, 12)}...) than those in {path} "
            f"({sha256[:12]}...)"
        )


def load_clip(name: str, precision: str = "fp32", cache: str = CACHE, sha256: str | None = None) -> CLIP:
    """Build a frozen CLIP from OpenAI's file of it, from any file in OpenAI's two formats, or one of open_clip's.

    Args:
        name: one of OpenAI's names ("ViT-B/16", "RN50", ...), whose file is looked for in `cache` and else downloaded
            there by the `clip` package, and whose SHA-256 must be that of `PUBLISHED`; or the path of a file: a
            TorchScript archive, a state dict, a state dict compressed with gzip (".gz"), or a safetensors file; or one
            of `open_clip_models`.
        precision: a key of `PRECISIONS`: what convolutions, linear layers and projections compute in.
        cache: folder of OpenAI's files.
        sha256: the `weights_digest` that the weights must have, checked before a model is made of them; None for any.

    Returns:
        The `clip` package's module, or open_clip's, on the CPU, in eval mode, no parameter requiring a gradient. Its
        attribute `sha256` is the `weights_digest` of the file's weights, whatever the precision; of open_clip's models
        with another activation or number of heads than OpenAI's, `open_clip_models.digest_of` that.

    Raises:
        FileNotFoundError: the name is neither known nor a file, or the file cannot be downloaded.
        ValueError: the file is not a CLIP, or not the one of OpenAI's that was asked for by name; `precision` is
            unknown; or open_clip's model is of a kind that is not supported.
        OtherWeights: the weights are not those of `sha256`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if _kept is None:
        return _load(name, precision, cache, sha256)
    key = (name, precision, cache, sha256)
    if key not in _kept:
        _kept[key] = _load(name, precision, cache, sha256)
    return copy.deepcopy(_kept[key])


@contextmanager
def clips_kept() -> Iterator[None]:
    """The context in which `load_clip` reads each CLIP once and gives copies, for programs that build many trainers."""
    global _kept
    before, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


def _load(name: str, precision: str, cache: str, sha256: str | None) -> CLIP:
    """As `load_clip`, of a precision that there is."""
    if name.startswith(OPEN_CLIP_PREFIXES):
        return _load_open_clip(name, precision, sha256)
    path = find_file(name, cache)
    try:
        state_dict = read_state_dict(path)
    except ValueError as error:
        if is_published(path) is False:
            raise ValueError(f"{error} (it is not OpenAI's {path.name}, whose SHA-256 is another)") from error
        raise
    digest = weights_digest(state_dict)
    if sha256 not in (None, digest):
        raise OtherWeights(path, digest, str(sha256))
    if os.path.isfile(os.path.expanduser(name)) and is_published(path) is False:
        print(f"Note: {path} is named as one of OpenAI's files, and is not that file: its SHA-256 is another")
    model = _build(dict(state_dict), path)
    for key, parameter in model.named_parameters():
        if parameter.dtype == torch.float16:  # LayerNorm and embeddings stay in float32
            parameter.data = state_dict[key].to(PRECISIONS[precision])
    model.sha256, model.pixels = digest, {}
    return model.eval().requires_grad_(False)


def _load_open_clip(name: str, precision: str, sha256: str | None) -> CLIP:
    """One of open_clip's models; see `load_clip`."""
    source = find_source(name)
    state_dict = read_state_dict(source.path)
    digest = digest_of(source, weights_digest(state_dict))
    if sha256 not in (None, digest):
        raise OtherWeights(source.path, digest, str(sha256))
    model = build_open_clip(source, state_dict, PRECISIONS[precision])
    model.sha256 = digest
    return model.requires_grad_(False)


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
        with _without_memory():  # names and shapes, before memory is taken for the sizes that some of them claim
            build_model(dict(state_dict), *arguments)
        model: CLIP = build_model(state_dict, *arguments)
        differing = keys ^ set(model.state_dict())  # MaPLe's passes over what is missing
    except (KeyError, RuntimeError, AssertionError, ZeroDivisionError, IndexError, TypeError) as error:
        reason = printable(" ".join(str(error).split()), 500)
        raise ValueError(f"{path} is not a whole CLIP file: {type(error).__name__}: {reason}") from error
    if differing:
        raise ValueError(f"{path} is not a whole CLIP file: missing or not known are {shortened(sorted(differing))}")
    return model


def repeat_draws(clip_model: CLIP) -> None:
    """Draw, and discard, the random numbers that building this CLIP drew.

    Published code that loads CLIP a second time while it starts draws them there. Nothing is drawn for a model of
    open_clip, which no published code takes.
    """
    if not isinstance(clip_model, PackageCLIP):
        return
    _build(dict(clip_model.state_dict()), Path("the loaded CLIP"))


@contextmanager
def _without_memory() -> Iterator[None]:
    """The context in which modules are made without their values; before PyTorch 2.0 with values, drawn for nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter")  # which takes no values
        with torch.device("meta") if torch.__version__ >= "2" else torch.random.fork_rng(devices=[]):
            yield


def find_file(name: str, cache: str = CACHE) -> Path:
    """The file behind a backbone's name or path; see `load_clip`.

    Raises:
        FileNotFoundError, ValueError: as `load_clip`.
    """
    if os.path.isfile(os.path.expanduser(name)):
        return Path(name).expanduser()
    folder = os.path.expanduser(cache)
    if name not in clip._MODELS:
        raise FileNotFoundError(
            f"CLIP {name!r} is neither a file (seen from {os.getcwd()}), nor one of OpenAI's models ("
            + ", ".join(clip._MODELS)
            + "), nor one of open_clip's, whose names begin with "
            + " or ".join(OPEN_CLIP_PREFIXES)
        )
    url = clip._MODELS[name]
    try:
        path = Path(clip._download(url, folder))
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CLIP {name}: {os.path.join(folder, os.path.basename(url))} is missing or not OpenAI's file, and the "
            f"download failed ({error}); put the file there, or give a file's path as MODEL.BACKBONE.NAME"
        ) from error
    if name in PUBLISHED and _file_digest(path) != PUBLISHED[name][1]:
        raise ValueError(
            f"CLIP {name}: {path}, from {url}, is not OpenAI's file: its SHA-256 is not {PUBLISHED[name][1]}; other "
            "weights are given by the path of their file as MODEL.BACKBONE.NAME"
        )
    return path


def published_name(file: str) -> str | None:
    """OpenAI's name of the model that a file of this name holds; None where it is none of OpenAI's."""
    return {own: name for name, (own, _) in PUBLISHED.items()}.get(file)


def published_model(path: Path) -> str | None:
    """OpenAI's name of the model whose file this is by its SHA-256, however it is called; None for other files."""
    digest = _file_digest(path)
    return next((name for name, (_, sha256) in PUBLISHED.items() if sha256 == digest), None)


def published_address(name: str) -> str | None:
    """Where OpenAI's file of a model of this name is downloaded from; None where it is no name of OpenAI's."""
    address: str | None = clip._MODELS.get(name)
    return address


def is_published(path: Path) -> bool | None:
    """Whether a file that is named as one of OpenAI's is that file, by its SHA-256; None for other names."""
    name = published_name(path.name)
    return _file_digest(path) == PUBLISHED[name][1] if name else None


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def assumptions(name: str, model: CLIP) -> str:
    """What is assumed of a CLIP in a file, because its weights do not say it: a note, "" for OpenAI's own files.

    Weights that were trained with another activation or number of heads fit without an error, and cost accuracy.

    Args:
        name: as of `load_clip`.
        model: what it has returned.
    """
    path = Path(name).expanduser()
    if name.startswith(OPEN_CLIP_PREFIXES) or not path.is_file():
        return ""
    if published_model(path):
        return ""
    towers = {"text encoder": model.transformer, "image encoder": getattr(model.visual, "transformer", None)}
    heads = [f"{tower.resblocks[0].attn.num_heads} in the {part}" for part, tower in towers.items() if tower]
    return (
        f"{path} is not one of OpenAI's files, and is computed as if it were, with QuickGELU and heads of width 64 "
        f"({', '.join(heads)}); weights that were trained with others are open_clip:MODEL/FILE (docs/backbones.md)"
    )


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


def words_read(text: str) -> tuple[str, int]:
    """A text as CLIP's tokens have it, "-" between those of one word, and how many they are.

    Raises:
        ValueError: it is longer than CLIP takes.
    """
    tokens = tokenize(text)[1:-1]
    pieces = [_tokenizer().decode([token]) for token in tokens]  # with a blank after the last one of a word
    return "".join(piece if piece.endswith(" ") else f"{piece}-" for piece in pieces).strip(), len(tokens)
