"""A CLIP's weights in a file: what `archives` reads, checked by names, types and numbers before values are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from .archives import Saved, kind, opened, shortened
from .inert_pickle import NAME_LENGTH, Foreign, StoredTensor, Unreadable
from .tensor_file import is_tensor_file, read_tensor_file

T = TypeVar("T")

# What OpenAI's archives hold beside parameters: sizes, which the parameters' shapes say as well
SIZES = ("input_resolution", "context_length", "vocab_size")
WANTED = (
    *("token_embedding.weight", "positional_embedding", "text_projection", "ln_final.weight", "logit_scale"),
    "visual.conv1.weight",
)
MOST_WEIGHTS = 5000  # three times those of RN50x64
MOST_SHARING = 2  # weights that a stored value may be part of, on average
MOST_POSITIONS = 4096  # of the text encoder, which keeps a mask of their square
# Positions that LongCLIP takes from the first of its embeddings, all others from the second: the masks in the published
# code, beichenzbc/Long-CLIP, model/model_longclip.py.
LONG_CLIP_KEPT = 20


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a CLIP's parameters from a TorchScript archive or a state dict, compressed with gzip or not, or safetensors.

    Nothing in the file is executed (`archives`, `tensor_file`). What lies beside the tensors is passed over. LongCLIP's
    two positional embeddings become the one that its text encoder adds up from them.

    Raises:
        ValueError: the file is empty, broken, or holds something else; with what it seems to be, and what to do.
    """
    path = Path(path)

    def check(named: Mapping[str, object]) -> None:
        problem = _problem(named)
        if problem:
            raise ValueError(f"{path} is not a CLIP file: {problem}")

    try:
        if is_tensor_file(path):
            tensors, _ = read_tensor_file(path, lambda stored: check(_bare(stored)))
            state_dict = _bare(tensors)
        else:
            with opened(path) as saved:
                named = _named_values(saved)
                check(named)
                state_dict = {
                    name: saved.tensor(value) for name, value in named.items() if isinstance(value, StoredTensor)
                }
    except Unreadable as error:
        raise ValueError(f"{path} cannot be read as a CLIP file: {error}") from error
    first, rest = state_dict["positional_embedding"], state_dict.get("positional_embedding_res")
    if rest is not None and rest.shape == first.shape:
        del state_dict["positional_embedding_res"]
        state_dict["positional_embedding"] = torch.cat([first[:LONG_CLIP_KEPT], rest[LONG_CLIP_KEPT:]])
    return state_dict


def _named_values(saved: Saved) -> dict[str, object]:
    """What a file holds under the names of a state dict."""
    content = saved.content
    if isinstance(content, Foreign) and content.name.startswith("__torch__."):
        # The causal mask is neither parameter nor buffer, and in no state dict.
        return {name: value for name, value in saved.module_tensors().items() if not name.endswith(".attn_mask")}
    state = content.get("state_dict", content) if isinstance(content, dict) else content  # as training code wraps it
    if not isinstance(state, dict):
        raise Unreadable(f"it holds {kind(state)} in place of weights; torch.save(model.state_dict(), ...) writes them")
    return _bare({str(name)[:NAME_LENGTH]: value for name, value in state.items()})


def _bare(named: Mapping[str, T]) -> dict[str, T]:
    """The same under names without what parallel training puts before them."""
    return {_without(name, "module."): value for name, value in named.items()}


def _without(name: str, prefix: str) -> str:
    return name[len(prefix) :] if name.startswith(prefix) else name


def _problem(named: Mapping[str, object]) -> str:
    """Why a file's entries are not the weights of a CLIP, by names, types and numbers; "" where they are."""
    stored = {name: value for name, value in named.items() if isinstance(value, StoredTensor)}
    missing = [name for name in WANTED if name not in named]
    if missing:
        return f"it has no {', '.join(missing)}; {_other_model(named)}"
    wrong = [f"{name} is {kind(named[name])}" for name in WANTED if name not in stored]
    if wrong:
        return f"its {', its '.join(wrong)}"
    integers = [
        name
        for name, value in stored.items()
        if not value.storage.dtype.is_floating_point and name not in SIZES and not name.endswith(".num_batches_tracked")
    ]
    if integers:
        return f"its weights are integers, as of a quantised model: {shortened(integers)}"
    n_values = sum(math.prod(value.size) for value in stored.values())
    n_stored = sum({value.storage.key: value.storage.length for value in stored.values()}.values())
    if len(stored) > MOST_WEIGHTS or n_values > MOST_SHARING * n_stored:
        return f"its {len(stored):,} weights claim {n_values:,} values where it holds {n_stored:,}"
    if stored["positional_embedding"].size[:1] > (MOST_POSITIONS,):
        return f"its text encoder has more than {MOST_POSITIONS:,} positions"
    return ""


def _other_model(named: Mapping[str, object]) -> str:
    """What a file without CLIP's weights seems to be, and what to do."""
    do = "MODEL.BACKBONE.NAME takes OpenAI's file or a state dict with its names"
    if any(name.startswith(("text_model.", "vision_model.")) for name in named):
        return f"it seems to be a CLIP in the layout of Hugging Face's transformers; {do}"
    if any(name.split(".")[-1].startswith("ctx") for name in named):
        return f"it seems to be a checkpoint of prompts, which --model-dir or MODEL.INIT_WEIGHTS takes; {do}"
    there = [f"{name} ({kind(value)})" if isinstance(value, Foreign) else name for name, value in named.items()]
    return f"it seems to be another model, with {shortened(there) or 'nothing'}; {do}"
