"""Features of a run's training views, encoded once and kept on disk: the option `FEATURE_BANK`.

Where prompts are text-only the image encoder sees nothing of what is trained, so all runs over the same views of the
same images share their features, whatever their method, losses, learning rate or number of templates. A bank holds n
views of every training image; training takes view e modulo n in epoch e.

Legend: N training images, n views an image, M templates, B images of a batch, S image size in pixels, D embedding
width.
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
from typing import Any

import dassl
import numpy as np
import PIL
import torch
import torchvision
from dassl.utils import read_image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from yacs.config import CfgNode

from .base import PromptTrainer

VERSION = 2  # of the views that a seed gives; files of another one are not read
IMAGES_AT_ONCE = 100  # views in one pass of the image encoder

# How the options of INPUT begin that only some transforms read, by how these transforms' names begin.
OWN_OPTIONS = {
    "random_resized_crop": "RRCROP_",
    "random_crop": "CROP_",
    "randaugment": "RANDAUGMENT_",
    "colorjitter": "COLORJITTER_",
    "randomgrayscale": "RGS_",
    "gaussian_blur": "GB_",
    "cutout": "CUTOUT_",
    "gaussian_noise": "GN_",
}


class BankedTrainer(PromptTrainer):
    """A PromptTrainer that trains on views or, with `FEATURE_BANK`, on a bank of their features.

    For methods that leave the image encoder as it is; their options have `FEATURE_BANK` and `FEATURE_BANK_DIR`.
    """

    def augmentations(self) -> list[Sequence[str]] | None:
        """Each template's training transforms by name; None where one view, of `INPUT.TRANSFORMS`, is for all."""
        return None

    def config_problems(self, cfg, options) -> list[str]:
        problems, n_views = super().config_problems(cfg, options), options.FEATURE_BANK
        if n_views and (n_views < 0 or cfg.SEED < 0 or cfg.INPUT.NO_TRANSFORM):
            problems.append(
                f"FEATURE_BANK takes a number of views, a SEED from 0 on and INPUT.NO_TRANSFORM False, got {n_views}, "
                f"{cfg.SEED} and {cfg.INPUT.NO_TRANSFORM}"
            )
        return problems

    def build_data_loader(self) -> None:
        super().build_data_loader()
        if self.dm and self.options.FEATURE_BANK:
            self.train_loader_x = numbered_loader(self.dm.train_loader_x, self.dm.dataset.train_x)

    def before_train(self) -> None:
        if self.options.FEATURE_BANK:  # before the clock of training starts, as other runs may find it there
            images: Any = self.dm.train_loader_x.dataset
            transform, names = images.transform, self.augmentations()
            if names is None:
                transform, names = [transform], [self.cfg.INPUT.TRANSFORMS]
            self.banks = feature_bank(self, transform, names, self.options.FEATURE_BANK)
        super().before_train()

    def train_features(self, batch: dict) -> Tensor:
        """L2-normalised features of a training batch: `(B, D)`, or `(M, B, D)` where there are `augmentations`."""
        if not self.options.FEATURE_BANK:
            return super().train_features(batch)
        view = self.epoch % self.options.FEATURE_BANK
        features = self.to_device(torch.stack([bank[view, batch["index"]] for bank in self.banks]))
        return features[0] if self.augmentations() is None else features


class Views(Dataset):
    """n random views of each image for each of T transforms, `(T, n, 3, S, S)`, of an image that is read once.

    A view follows from seed, image and number alone. The global random states are left as they are.

    Args:
        paths: files of N images.
        transforms: T of them, picture -> `(3, S, S)`, random.
        seeds: of each transform's views; differ between templates that have the same transform.
        n_views: n.
    """

    def __init__(self, paths: Sequence[str], transforms: Sequence[Callable], seeds: Sequence[str], n_views: int):
        self.paths = paths
        self.transforms = transforms
        self.seeds = seeds
        self.n_views = n_views

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = read_image(self.paths[index])
        views = []
        with kept_random_states():
            for transform, seed in zip(self.transforms, self.seeds):
                for number in range(self.n_views):
                    seed_all(f"{seed} {index} {number}".encode())
                    views.append(transform(image))
        return torch.stack(views).unflatten(0, (len(self.transforms), self.n_views))


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
    return DataLoader(
        Numbered(items),
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        drop_last=loader.drop_last,
        pin_memory=loader.pin_memory,
    )


def feature_bank(
    trainer: PromptTrainer, transforms: Sequence[Callable], names: Sequence[Sequence[str]], n_views: int
) -> list[Tensor]:
    """Features of the run's training images under each template's transform, read or, the first time, made.

    Args:
        trainer: has the images, `model.image_encoder`, the digest of its CLIP, precision, seed and the folder.
        transforms: of the M templates.
        names: of Dassl's transforms that each is made of, whose order is always Dassl's.
        n_views: n.

    Returns:
        For each template `(n, N, D)`, L2-normalised, float32, on the CPU.

    Raises:
        ValueError: a file of the bank is broken.
        OSError: the folder cannot be written.
    """
    cfg = trainer.cfg
    root = Path(cfg.DATASET.ROOT).expanduser().absolute()
    folder = Path(trainer.options.FEATURE_BANK_DIR or root / "feature_bank").expanduser()
    paths = [item.impath for item in trainer.dm.dataset.train_x]
    same_for_all = {
        "version": VERSION,
        "made_by": [dassl.__version__, torchvision.__version__, PIL.__version__],
        "clip": trainer.backbone_sha256,
        "precision": trainer.encoder_precision,
        "images": [[os.path.relpath(path, root), *_stamp(path)] for path in paths],
        "seed": cfg.SEED,
        "views": n_views,
    }
    steps = [sorted(set(choice)) for choice in names]  # Dassl brings them into an order of its own
    files, missing = [], {}
    for m, transform in enumerate(transforms):
        copy = steps[:m].count(steps[m])  # templates with the same transform see different views
        own = {"transform": steps[m], "input": input_options(cfg, steps[m]), "copy": copy}
        key = json.dumps({**same_for_all, **own}, sort_keys=True)
        files.append(folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy")
        if not files[-1].is_file():
            missing[files[-1]] = (transform, view_seed(cfg.SEED, steps[m], copy))
    if missing:
        missing_transforms, seeds = zip(*missing.values())
        features = _encode(trainer, Views(paths, missing_transforms, seeds, n_views))
        for file, bank in zip(missing, features):
            _write(file, bank)
    return [_read(file, (n_views, len(paths))) for file in files]


def view_seed(seed: int, names: Sequence[str], copy: int) -> str:
    """What a transform's views are seeded by, beside image and number: others for every transform.

    Else templates whose transforms begin alike would see the same crops.
    """
    return f"{seed} {' '.join(names)} {copy}"


def input_options(cfg: CfgNode, names: Sequence[str]) -> dict:
    """What of `cfg.INPUT` the training transforms of these names are made with, and perhaps more."""
    others = [start for name, start in OWN_OPTIONS.items() if not any(own.startswith(name) for own in names)]
    return {key: value for key, value in cfg.INPUT.items() if not key.startswith(("TRANSFORMS", *others))}


def _encode(trainer: PromptTrainer, views: Views) -> np.ndarray:
    """Features `(T, n, N, D)` of all views."""
    n_transforms = len(views.transforms)
    print(f"Feature bank: encode {views.n_views} view(s) of {len(views)} images for {n_transforms} template(s)")
    loader = DataLoader(
        views,
        batch_size=max(1, IMAGES_AT_ONCE // (n_transforms * views.n_views)),
        num_workers=trainer.cfg.DATALOADER.NUM_WORKERS,
        generator=torch.Generator(),
    )
    features = []
    for batch in tqdm(loader):
        with trainer.autocast():
            parts = batch.flatten(0, 2).split(IMAGES_AT_ONCE)
            encoded = torch.cat([trainer.model.image_encoder(trainer.to_device(part)) for part in parts])
        features.append(encoded.cpu().unflatten(0, batch.shape[:3]))
    return torch.cat(features).permute(1, 2, 0, 3).contiguous().numpy()


def _read(file: Path, shape: tuple[int, int]) -> Tensor:
    """A file of the bank, `(n, N, D)`."""
    try:
        bank = np.load(file)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} is not a whole file of the feature bank, delete it: {error}") from error
    if bank.ndim != 3 or bank.shape[:2] != shape:
        raise ValueError(f"{file} is not the feature bank's, delete it: its shape is {bank.shape}")
    return torch.from_numpy(bank)


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
def kept_random_states():
    """Whatever is drawn inside, the random states from before stand behind."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def seed_all(content: bytes) -> None:
    """Seed all that a transform draws from, by the digest of some bytes.

    `torch.manual_seed` seeds the accelerators too and, where one is not in use yet, keeps each call with the stack that
    it came from for later: more time than most views take, and memory that grows.
    """
    seed = int.from_bytes(hashlib.sha256(content).digest()[:4], "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
