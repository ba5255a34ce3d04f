"""CLIPs of the package open_clip: their names, files and configs, which of them are supported, and building one.

A model is open_clip's own module, so its activation, widths and heads are the model's and nothing is assumed. Weights
are read by `weights`, which runs nothing of a file, and not by open_clip. The package is imported when such a model is
named.

Names: `open_clip:MODEL/TAG` and `open_clip:MODEL/FILE`, a model of the package's list with pre-trained weights of its
list or in a file; `hf-hub:OWNER/NAME`, a repository of the Hugging Face Hub in open_clip's layout; `local-dir:FOLDER`,
a folder with the files of one. The last two may stand after `open_clip:` as well.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .archives import printable, shortened
from .clip_types import CLIP
from .hub import PREFIX as HUB_PREFIX
from .hub import hub_file
from .weights import MOST_POSITIONS, SIZES

PACKAGE_PREFIX = "open_clip:"
FOLDER_PREFIX = "local-dir:"
OPEN_CLIP_PREFIXES = (PACKAGE_PREFIX, HUB_PREFIX, FOLDER_PREFIX)
CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TOKENS = 49408  # of CLIP's byte-pair tokenizer
MOST_LAYERS = 256
MOST_WIDTH = 65_536
MOST_PIXELS = 4096  # of a side of an image
# What a block or a tower must not have, as its features are computed here in another way than by its own module
BLOCK_OPTIONS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
CONFIG_KEYS = (
    *("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"),
    *("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"),
)
SUPPORTED = (
    "supported are open_clip's own ViT (feature: the class token) and ResNet as image encoder, with its causal text "
    "transformer (feature: end-of-text, one projection matrix) and CLIP's tokenizer, such as ViT-B-32, ViT-B-16, "
    "ViT-L-14, ViT-L-14-336 and ViT-H-14"
)

Pixels = dict[str, tuple[float, ...]]


class Source(NamedTuple):
    """Where a model comes from.

    Attributes:
        name: what it was asked for by.
        path: the file of its weights.
        config: open_clip's config of it, a dictionary with `embed_dim`, `vision_cfg` and `text_cfg`.
        pixels: the `mean` and `std` that images are normalised with; empty where that is not known.
    """

    name: str
    path: Path
    config: dict[str, Any]
    pixels: Pixels


def import_open_clip(name: str) -> ModuleType:
    """The package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ValueError(f"{name} needs the package open_clip: pip install open_clip_torch ({error})") from error
    return open_clip  # type: ignore[no-any-return]


def split_path(name: str) -> tuple[str, str]:
    """What stands before the path in a backbone's name, and the path; the whole name and "" where it holds none.

    A word that may be one of open_clip's pre-trained weights as well as a file counts as a path.
    """
    before = ""
    if name.startswith(PACKAGE_PREFIX):
        before, name = PACKAGE_PREFIX, name[len(PACKAGE_PREFIX) :]
    if name.startswith(HUB_PREFIX):
        return before + name, ""
    if name.startswith(FOLDER_PREFIX):
        return before + FOLDER_PREFIX, name[len(FOLDER_PREFIX) :]
    if before:
        model, slash, name = name.partition("/")
        before += model + slash
    return before, name


def find_source(name: str) -> Source:
    """Where a model comes from, after a check that it is supported; see the module for names.

    Raises:
        FileNotFoundError: there is no such model, tag, file or folder, or it cannot be downloaded.
        ValueError: open_clip is not installed, the config is broken, or the model is of a kind that is not supported.
    """
    bare = name[len(PACKAGE_PREFIX) :] if name.startswith(PACKAGE_PREFIX) else name
    package = import_open_clip(name)
    if bare.startswith((HUB_PREFIX, FOLDER_PREFIX)):
        config, pixels, locate = _from_repository(name, bare)
    else:
        config, pixels, locate = _from_list(name, bare, package)
    problems = config_problems(config)  # before weights are downloaded
    if problems:
        raise ValueError(f"{name} cannot be used: {'; '.join(problems)}; {SUPPORTED}")
    return Source(name, locate(), config, pixels)


def _from_repository(name: str, bare: str) -> tuple[dict[str, Any], Pixels, Callable[[], Path]]:
    """Config, pixels and file of a model by the files of its repository, on the Hub or in a folder."""
    if bare.startswith(HUB_PREFIX):
        path = hub_file(bare, CONFIG_FILE)
    else:
        folder = Path(bare[len(FOLDER_PREFIX) :]).expanduser()
        path = folder / CONFIG_FILE
        there = [folder / file for file in WEIGHT_FILES if (folder / file).is_file()]
        if not path.is_file() or not there:
            raise FileNotFoundError(f"{name}: the folder must hold {CONFIG_FILE} and {' or '.join(WEIGHT_FILES)}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a config of open_clip: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model_cfg"), dict):
        raise ValueError(f"{path} is not a config of open_clip: it has no model_cfg")
    locate = functools.partial(hub_file, bare, *WEIGHT_FILES) if bare.startswith(HUB_PREFIX) else lambda: there[0]
    return content["model_cfg"], _pixels(content.get("preprocess_cfg")), locate


def _from_list(name: str, bare: str, package: ModuleType) -> tuple[dict[str, Any], Pixels, Callable[[], Path]]:
    """Config, pixels and file of a model of open_clip's list, with weights of its list or in a file."""
    model, _, weights = bare.partition("/")
    config = package.get_model_config(model)
    if config is None:
        near = ", ".join(difflib.get_close_matches(model, package.list_models(), cutoff=0)) or "none"
        raise FileNotFoundError(
            f"{name}: this open_clip has no model {model!r}; nearest are {near}, and open_clip.list_models() names all"
        )
    known = package.get_pretrained_cfg(model, weights) if weights else {}
    if known:
        quick = bool(known.get("quick_gelu"))
        if quick != bool(config.get("quick_gelu")):
            other = f"{model}-quickgelu" if quick else model.replace("-quickgelu", "")
            raise ValueError(
                f"{name}: these weights were trained with {'QuickGELU' if quick else 'GELU'}, and {model} computes "
                f"{'GELU' if quick else 'QuickGELU'}; with theirs it is {PACKAGE_PREFIX}{other}/{weights}"
            )
        return config, _pixels(known), functools.partial(_download, name, known, package)
    path = Path(weights).expanduser()
    if not weights or not path.is_file():
        tags = ", ".join(package.list_pretrained_tags_by_model(model)) or "none"
        raise FileNotFoundError(
            f"{name}: after the model's name stands a file or one of its pre-trained weights ({tags}), got {weights!r}"
        )
    return config, {}, lambda: path


def _download(name: str, known: Mapping[str, Any], package: ModuleType) -> Path:
    """The file of weights of open_clip's list."""
    repository, _, file = str(known.get("hf_hub") or "").rpartition("/")
    if repository:
        return hub_file(f"{HUB_PREFIX}{repository}", *([file] if file else WEIGHT_FILES))
    try:
        return Path(package.download_pretrained(known))
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{name}: the weights are not in the cache and the download failed ({error}); a file can stand in their "
            "place, after the model's name"
        ) from error


def _pixels(preprocessing: object) -> Pixels:
    """Mean and standard deviation out of what a config says of preprocessing, as far as it says them."""
    if not isinstance(preprocessing, Mapping):
        return {}
    found = {key: preprocessing.get(key) for key in ("mean", "std")}
    return {
        key: tuple(map(float, values))
        for key, values in found.items()
        if isinstance(values, (list, tuple)) and len(values) == 3 and all(type(v) in (int, float) for v in values)
    }


def config_problems(config: Mapping[str, Any]) -> list[str]:
    """Why the model of a config is not supported, an error each; empty where it is."""
    vision, text = config.get("vision_cfg"), config.get("text_cfg")
    if not isinstance(vision, Mapping) or not isinstance(text, Mapping) or "embed_dim" not in config:
        return ["its config must have embed_dim, vision_cfg and text_cfg"]
    if "multimodal_cfg" in config:
        return ["it is a CoCa, whose text encoder is a captioner as well"]
    problems = [f"its config has the unknown {printable(str(key))}" for key in config if key not in CONFIG_KEYS]
    if vision.get("timm_model_name"):
        problems.append(f"its image encoder is timm's {printable(str(vision['timm_model_name']))}")
    elif vision.get("attentional_pool"):
        problems.append("its image encoder pools by attention")
    elif vision.get("pool_type", "tok") != "tok":
        problems.append(f"its image encoder pools by {printable(str(vision['pool_type']))}")
    if text.get("hf_model_name"):
        problems.append(f"its text encoder is Hugging Face's {printable(str(text['hf_model_name']))}")
    else:
        problems += _text_problems(text)
    for side, options in (("image", vision), ("text", text)):
        custom = [key for key in BLOCK_OPTIONS if options.get(key)]
        if custom or options.get("block_type") not in (None, "default"):
            problems.append(f"its {side} encoder has blocks of another kind ({', '.join(custom) or 'custom'})")
        layers = options.get("layers", 12)
        sizes = [(f"{side} layers", n, MOST_LAYERS) for n in (layers if isinstance(layers, list) else [layers])]
        sizes += [(f"{side} {key}", options.get(key, 64), MOST_WIDTH) for key in ("width", "heads", "head_width")]
        problems += [
            f"its {key} must be from 1 to {most}, got {printable(str(n))}"
            for key, n, most in sizes
            if type(n) is not int or not 1 <= n <= most
        ]
    if config.get("custom_text") and not problems:
        problems.append("its text encoder is a module of its own (custom_text)")
    size = vision.get("image_size", 224)
    sides = size if isinstance(size, list) else [size]
    if not all(type(side) is int and 1 <= side <= MOST_PIXELS for side in sides) or len(set(sides)) != 1:
        problems.append(f"its images must be square, of 1 to {MOST_PIXELS} pixels, got {printable(str(size))}")
    return problems


def _text_problems(text: Mapping[str, Any]) -> list[str]:
    """What is not supported in the config of open_clip's own text transformer."""
    problems = []
    if text.get("no_causal_mask"):
        problems.append("its text encoder is not causal")
    if text.get("embed_cls"):
        problems.append("its text encoder has a class token")
    if text.get("pool_type", "argmax") != "argmax":
        problems.append(f"its text encoder pools by {printable(str(text['pool_type']))}")
    if text.get("proj_bias") or text.get("proj_type", "linear") != "linear":
        problems.append("its text projection is not one matrix")
    if text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs") or text.get("vocab_size", TOKENS) != TOKENS:
        tokenizer = text.get("hf_tokenizer_name") or f"one of {text.get('vocab_size', TOKENS)} tokens"
        problems.append(f"its tokenizer is not CLIP's but {printable(str(tokenizer))}")
    length = text.get("context_length", 77)
    if type(length) is not int or not 3 <= length <= MOST_POSITIONS:
        problems.append(f"its text encoder must have 3 to {MOST_POSITIONS} positions, got {printable(str(length))}")
    return problems


def digest_of(source: Source, weights_digest: str) -> str:
    """The digest of a model: that of its weights and of what it computes with them.

    The same weights give other features under another activation or number of heads. Where all of this is as in
    OpenAI's models, the digest is `weights_digest` itself, as of the same weights in OpenAI's file.
    """
    vision, text = source.config["vision_cfg"], source.config["text_cfg"]
    computed = {
        "quick_gelu": bool(source.config.get("quick_gelu")),
        "head_width": [vision.get("head_width", 64), text.get("width", 512) / text.get("heads", 8)],
        "act_kwargs": [vision.get("act_kwargs"), text.get("act_kwargs")],
        "norm_kwargs": [vision.get("norm_kwargs"), text.get("norm_kwargs")],
    }
    openai = {
        "quick_gelu": True,
        "head_width": [64, 64],
        "act_kwargs": [None, None],
        "norm_kwargs": [None, None],
    }
    if computed == openai:
        return weights_digest
    return hashlib.sha256(f"{weights_digest} {json.dumps(computed, sort_keys=True)}".encode()).hexdigest()


def build_open_clip(source: Source, state_dict: Mapping[str, Tensor], dtype: torch.dtype) -> CLIP:
    """open_clip's module of a source, with its weights.

    Args:
        source: where it comes from, see `find_source`.
        state_dict: what its file holds.
        dtype: of convolutions, linear layers and projections; others stay in float32.

    Returns:
        The module on the CPU, in eval mode, with `visual.input_resolution` and `pixels` set, as `CLIP` has them.

    Raises:
        ValueError: the weights are not those of the config; with names.
    """
    package = import_open_clip(source.name)
    config = {key: value for key, value in source.config.items() if key != "custom_text"}
    # Patches are dropped in training alone, a second output is of no use here, and positions come with the weights.
    fixed = {"patch_dropout": 0.0, "output_tokens": False, "pos_embed_type": "learnable"}
    config["vision_cfg"] = {**config["vision_cfg"], **fixed}
    given = {name: value for name, value in state_dict.items() if name not in SIZES}
    try:
        with torch.device("meta"):  # names and shapes, before memory is taken for the sizes that the config claims
            planned = package.CLIP(**config).state_dict()
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        reason = printable(" ".join(str(error).split()), 500)
        raise ValueError(
            f"{source.name}: open_clip cannot build its config: {type(error).__name__}: {reason}"
        ) from error
    missing, unknown = sorted(planned.keys() - given.keys()), sorted(given.keys() - planned.keys())
    other = [
        f"{name} {tuple(given[name].shape)} in place of {tuple(planned[name].shape)}"
        for name in sorted(planned.keys() & given.keys())
        if given[name].shape != planned[name].shape and not given[name].numel() == planned[name].numel() == 1
    ]
    found = {"missing": missing, "not known": unknown, "of other shapes": other}
    problems = [f"{what} are {shortened(names)}" for what, names in found.items() if names]
    if problems:
        raise ValueError(f"{source.path} does not hold the weights of {source.name}: {'; '.join(problems)}")

    low = dtype in (torch.float16, torch.bfloat16)
    model: nn.Module = package.CLIP(**config, cast_dtype=dtype if low else None)
    if low:
        package.model.convert_weights_to_lp(model, dtype)
        for name, parameter in model.named_parameters():
            if name.endswith((".ls_1.gamma", ".ls_2.gamma")):
                parameter.data = parameter.data.to(dtype)
    model.load_state_dict({name: value.reshape(planned[name].shape) for name, value in given.items()})
    visual: Any = model.visual
    size = visual.image_size
    visual.input_resolution = size[0] if isinstance(size, (list, tuple)) else size
    model.pixels = source.pixels  # type: ignore[assignment]
    return model.eval()  # type: ignore[return-value]
