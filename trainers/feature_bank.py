"""Features of a run's training views, encoded once and kept on disk: CDC's `FEATURE_BANK`.

Where templates are text-only the image encoder sees nothing of what is trained, so all runs over the same views of the
same images share their features, whatever their losses, learning rate or number of templates. A bank holds n views of
every training image; training takes view e modulo n in epoch e.

Legend: N training images, n views an image, M templates, S image size in pixels, D embedding width.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from dassl.utils import read_image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .base import ClipTrainer

IMAGES_AT_ONCE = 100  # views in one pass of the image encoder


class Views(Dataset):
    """n random views `(n, 3, S, S)` of each image, which follow from seed, image and view alone.

    The global random states are left as they are.

    Args:
        paths: files of N images.
        transform: picture -> `(3, S, S)`, random.
        n_views: n.
        seed: of the views; differs between templates that have the same transform.
    """

    def __init__(self, paths: Sequence[str], transform: Callable, n_views: int, seed: str):
        self.paths = paths
        self.transform = transform
        self.n_views = n_views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = read_image(self.paths[index])
        return torch.stack([self.view(image, index, number) for number in range(self.n_views)])

    def view(self, image, index: int, number: int) -> Tensor:
        """View `number` of the picture of image `index`, `(3, S, S)`."""
        digest = hashlib.sha256(f"{self.seed} {index} {number}".encode()).digest()
        with random_states(int.from_bytes(digest[:4], "little")):
            return self.transform(image)


class Numbered(Dataset):
    """Number and label of each training image, in place of the image."""

    def __init__(self, items: Sequence):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"index": index, "label": self.items[index].label}


def numbered_loader(loader: DataLoader, items: Sequence) -> DataLoader:
    """A loader of `Numbered` items, in the batches and with the random draws of a loader of these items' images."""
    return DataLoader(Numbered(items), batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last)


def feature_bank(trainer: ClipTrainer, transforms: Sequence[Callable], names: Sequence, n_views: int) -> list[Tensor]:
    """Features of the run's training images under each template's transform, read or, the first time, made.

    Args:
        trainer: has the images, `model.image_encoder`, the digest of its CLIP, precision, seed and the folder.
        transforms: of the M templates.
        names: what each is made of, in words that tell it from any other.
        n_views: n.

    Returns:
        For each template `(n, N, D)`, L2-normalised, float32, on the CPU.

    Raises:
        ValueError: a file of the bank is broken.
        OSError: the folder cannot be written.
    """
    cfg = trainer.cfg
    folder = Path(trainer.options.FEATURE_BANK_DIR or os.path.join(cfg.DATASET.ROOT, "feature_bank"))
    paths = [item.impath for item in trainer.dm.dataset.train_x]
    same_for_all = {
        "clip": trainer.backbone_sha256,
        "precision": trainer.options.PREC,
        "images": [[os.path.relpath(path, cfg.DATASET.ROOT), *_stamp(path)] for path in paths],
        "input": json.loads(json.dumps(cfg.INPUT)),
        "seed": cfg.SEED,
        "views": n_views,
    }
    banks = []
    for m, (transform, name) in enumerate(zip(transforms, names)):
        copy = list(names[:m]).count(name)  # templates with the same transform see different views
        key = json.dumps({**same_for_all, "transform": name, "copy": copy}, sort_keys=True)
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        if not path.is_file():
            views = Views(paths, transform, n_views, f"{cfg.SEED} {copy}")
            _write(path, _encode(trainer, views, f"template {m + 1}"))
        try:
            bank = np.load(path)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is not a whole file of the feature bank, delete it: {error}") from error
        if bank.ndim != 3 or bank.shape[:2] != (n_views, len(paths)):
            raise ValueError(f"{path} is not the feature bank's, delete it: its shape is {bank.shape}")
        banks.append(torch.from_numpy(bank))
    return banks


def _encode(trainer: ClipTrainer, views: Views, name: str) -> np.ndarray:
    print(f"Feature bank: encode {views.n_views} view(s) of {len(views)} images for {name}")
    loader = DataLoader(
        views,
        batch_size=max(1, IMAGES_AT_ONCE // views.n_views),
        num_workers=trainer.cfg.DATALOADER.NUM_WORKERS,
        generator=torch.Generator(),
    )
    features = []
    for batch in tqdm(loader):
        with trainer.autocast():
            parts = batch.flatten(0, 1).split(IMAGES_AT_ONCE)
            encoded = torch.cat([trainer.model.image_encoder(part.to(trainer.device)) for part in parts])
        features.append(encoded.cpu().unflatten(0, batch.shape[:2]))
    return torch.cat(features).transpose(0, 1).contiguous().numpy()


def _write(path: Path, features: np.ndarray) -> None:
    """Write a file of the bank whole or not at all; of runs that make the same one at once, any may win."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            np.save(file, features)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _stamp(path: str) -> tuple[int, int]:
    """What tells that a file has been changed."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


@contextmanager
def random_states(seed: int):
    """The random states that a seed gives, inside; those from before, behind."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
