"""The file of the tiny CLIP's weights, and the record beside it."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import compat  # noqa: F401  (makes `dassl`, which the trainers need, importable)

from trainers.modules import loading  # noqa: F401  (imports `clip` without its warning)

# isort: split
import torch
from clip.model import CLIP, build_model

from storage.files import atomic_write
from tools.tiny_clip.model import ARCHITECTURE
from tools.tiny_clip.vocabulary import CLIP_TOKENS, Vocabulary
from trainers.modules.weights import read_state_dict


def full_state(model: CLIP, vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    """The model's state in half precision with CLIP's whole vocabulary; rows of tokens never used are zero."""
    state = {name: tensor.detach().half() for name, tensor in model.state_dict().items()}
    table = torch.zeros(CLIP_TOKENS, ARCHITECTURE["transformer_width"], dtype=torch.float16)
    table[torch.tensor(vocabulary.tokens)] = state["token_embedding.weight"]
    state["token_embedding.weight"] = table
    return state


def write_beside(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old or the new one, never half of it."""
    with atomic_write(path) as part:
        part.write_bytes(content)


def write_weights(folder: Path, state: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
    """Write `tiny_clip.pt.gz` (the same bytes for the same state) and `tiny_clip.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(state, plain)
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(plain.getvalue())
    write_beside(folder / "tiny_clip.pt.gz", packed.getvalue())
    write_beside(folder / "tiny_clip.json", (json.dumps(record, indent=2) + "\n").encode())


def read_weights(path: Path) -> CLIP:
    """The tiny CLIP from its file, in float32, as `clip.model.build_model` makes it."""
    return build_model(read_state_dict(path)).float()
