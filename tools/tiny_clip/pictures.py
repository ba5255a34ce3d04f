"""Pictures of the embedded world, rendered once for a pre-training."""

from __future__ import annotations

import math
from typing import Any

import compat  # noqa: F401  (makes `dassl`, which the readers beside the world need, importable)

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datasets import world

SIZE = 48
CHUNK = 500  # pictures of one random generator
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


class _Chunks(Dataset):
    """Pictures and their scenes, `CHUNK` of them at a time."""

    def __init__(self, seed: int, chunks: int) -> None:
        self.seed, self.chunks = seed, chunks

    def __len__(self) -> int:
        return self.chunks

    def __getitem__(self, chunk: int) -> tuple[np.ndarray, list[world.Scene]]:
        rng = np.random.default_rng([self.seed, 1, chunk])
        scenes = [world.sample_pretraining_scene(rng, world.FONTS) for _ in range(CHUNK)]
        return np.stack([np.asarray(world.render(scene, SIZE, rng)) for scene in scenes]), scenes


def _as_it_is(chunk: Any) -> Any:
    return chunk


def render_pictures(seed: int, count: int, workers: int) -> tuple[torch.Tensor, list[world.Scene]]:
    """``count`` pictures (rounded up to whole chunks) as ``(count, 3, 48, 48)`` bytes, and their scenes."""
    chunks = math.ceil(count / CHUNK)
    loader = DataLoader(_Chunks(seed, chunks), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    parts = list(tqdm(loader, total=chunks, desc="rendering", unit_scale=CHUNK, unit="picture"))
    pictures = torch.from_numpy(np.concatenate([part[0] for part in parts])).permute(0, 3, 1, 2)
    return pictures, [scene for part in parts for scene in part[1]]


def to_input(pictures: torch.Tensor) -> torch.Tensor:
    """Bytes ``(B, 3, H, W)`` to CLIP's normalised floats."""
    return (pictures.float() / 255 - MEAN) / STD
