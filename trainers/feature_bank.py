"""Features of a run's training views, encoded once and kept on disk: the option `FEATURE_BANK`.

With text-only prompts the image encoder does not depend on what is trained. So all runs over the same views of the same
images share their features, whatever their method, losses, learning rate or number of templates. A bank holds n views
of every training image; epoch e of a training takes view e modulo n.

Legend: N training images, n views per image, M templates, B images of a batch, S image size in pixels, D embedding
width.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import dassl
import numpy as np
import PIL
import torch
import torchvision
from dassl.utils import read_image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from yacs.config import CfgNode

from storage.files import atomic_write, sweep

from .modules import ranks
from .modules.progress import progress
from .modules.random_state import kept_random_states, seed_all

if TYPE_CHECKING:
    from .prompt_trainer import PromptTrainer

VERSION = 2  # of the views that a seed gives; files of another one are not read
NORM_TOLERANCE = 0.01  # half-precision encoders round
IMAGES_AT_ONCE = 100  # views in one pass of the image encoder


class EncodedViews:
    """Training features from the views of each batch, encoded when they are due.

    Args:
        trainer: has the images, the model and, by its `views`, what the image encoder sees.
    """

    def __init__(self, trainer: PromptTrainer):
        self.trainer = trainer

    def loader(self) -> DataLoader:
        """The batches of an epoch."""
        return self.trainer.dm.train_loader_x

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def features(self, batch: dict) -> Tensor:
        """L2-normalised features `(B, D)` or `(M, B, D)` of a batch."""
        return self.trainer.model.encode_images(self.trainer.views(batch))


class FeatureBank:
    """Training features from the bank: of epoch e, view e modulo n of each image.

    Args:
        trainer: has the images, the model, the templates' `augmentations`, and options FEATURE_BANK (n) and
            FEATURE_BANK_DIR. Its method leaves the image encoder as it is.

    Attributes:
        banks: for each template `(n, N, D)`, on the CPU.
    """

    banks: list[Tensor]

    def __init__(self, trainer: PromptTrainer):
        self.trainer = trainer
        self.n_views = trainer.options.FEATURE_BANK

    def loader(self) -> DataLoader:
        """Batches of numbers and labels, with the order and the random draws of the batches of images."""
        loader = self.trainer.dm.train_loader_x
        return DataLoader(
            IndexDataset(self.trainer.dm.dataset.train_x),
            batch_size=loader.batch_size,
            sampler=loader.sampler,
            drop_last=loader.drop_last,
            pin_memory=loader.pin_memory,
        )

    def prepare(self) -> None:
        """Read the bank or, the first time, make it."""
        images: Any = self.trainer.dm.train_loader_x.dataset
        transforms, names = images.transform, self.trainer.augmentations()
        if names is None:
            transforms, names = [transforms], [self.trainer.cfg.INPUT.TRANSFORMS]
        self.banks = feature_bank(self.trainer, transforms, names, self.n_views)

    def features(self, batch: dict) -> Tensor:
        """L2-normalised features `(B, D)` of a batch, or `(M, B, D)` where there are `augmentations`."""
        view = self.trainer.epoch % self.n_views
        features = self.trainer.to_device(torch.stack([bank[view, batch["index"]] for bank in self.banks]))
        return features[0] if self.trainer.augmentations() is None else features


def choose_source(trainer: PromptTrainer) -> EncodedViews | FeatureBank:
    """Where the features that a run trains on come from."""
    return FeatureBank(trainer) if trainer.options.get("FEATURE_BANK", 0) else EncodedViews(trainer)


def bank_problems(cfg: CfgNode, options: CfgNode) -> list[str]:
    """What is wrong in a config with `FEATURE_BANK`, an error each."""
    n_views = options.get("FEATURE_BANK", 0)
    if n_views and (n_views < 0 or cfg.SEED < 0 or cfg.INPUT.NO_TRANSFORM):
        return [
            f"FEATURE_BANK takes a number of views, a SEED from 0 on and INPUT.NO_TRANSFORM False, got {n_views}, "
            f"{cfg.SEED} and {cfg.INPUT.NO_TRANSFORM}"
        ]
    return []


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


class IndexDataset(Dataset):
    """Number and label of each training image, in place of the image."""

    def __init__(self, items: Sequence):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"index": index, "label": self.items[index].label}


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
    sweep(folder)
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
        own = {"transform": steps[m], "made_of": describe(transform), "copy": copy}
        key = json.dumps({**same_for_all, **own}, sort_keys=True)
        files.append(folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy")
        if not ranks.agree(files[-1].is_file()):
            missing[files[-1]] = (transform, view_seed(cfg.SEED, steps[m], copy))
    if missing:
        missing_transforms, seeds = zip(*missing.values())
        features = _encode(trainer, Views(paths, missing_transforms, seeds, n_views))
        for file, bank in zip(missing, features):
            if ranks.number() == 0:
                _write(file, bank)
        ranks.agree("written")
    width = trainer.model.text_encoder.text_projection.shape[1]
    return [_read(file, (n_views, len(paths), width)) for file in files]


def view_seed(seed: int, names: Sequence[str], copy: int) -> str:
    """What a transform's views are seeded by, beside image and number: others for every transform.

    Otherwise templates whose transforms begin alike would see the same crops.
    """
    return f"{seed} {' '.join(names)} {copy}"


def describe(part: object) -> object:
    """What a transform is made of, as plain data: the class and the attributes of each of its steps.

    Two transforms that do the same have one description, whatever other options their configs have.

    Raises:
        ValueError: a part cannot be distinguished from others of its kind, such as a function with a closure.
    """
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if isinstance(part, Mapping):
        return {str(key): describe(value) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [describe(value) for value in part]
    if isinstance(part, Tensor):
        return part.tolist()
    if isinstance(part, Enum):
        return part.name
    if isinstance(part, (np.ndarray, np.generic)):
        return part.tolist()
    if isinstance(part, type):
        return f"{part.__module__}.{part.__qualname__}"
    if isinstance(part, functools.partial):
        return ["partial", describe([part.func, part.args, part.keywords])]
    if isinstance(part, FunctionType) and part.__closure__ is None and part.__name__ != "<lambda>":
        return f"{part.__module__}.{part.__qualname__}"
    if hasattr(part, "__qualname__") or not hasattr(part, "__dict__"):  # another function, or who knows what
        raise ValueError(
            f"FEATURE_BANK cannot distinguish views of {part!r} from others: write it as a class or a function"
        )
    own = {key: value for key, value in vars(part).items() if not key.startswith("_") and key != "training"}
    return [type(part).__qualname__, describe({**own, **vars(part).get("_modules", {})})]


def _encode(trainer: PromptTrainer, views: Views) -> np.ndarray:
    """Features `(T, n, N, D)` of all views, each process encoding its share of the images."""
    n_transforms, own = len(views.transforms), ranks.own_or_first(len(views))
    print(f"Feature bank: encode {views.n_views} view(s) of {len(views)} images for {n_transforms} template(s)")
    loader = DataLoader(
        Subset(views, range(len(views))[own]),
        batch_size=max(1, IMAGES_AT_ONCE // (n_transforms * views.n_views)),
        num_workers=trainer.cfg.DATALOADER.NUM_WORKERS,
        generator=torch.Generator(),
    )
    features = []
    for batch in progress(loader, "feature bank"):
        trainer.interrupts.check()
        with trainer.autocast(), ranks.alone():
            parts = batch.flatten(0, 2).split(IMAGES_AT_ONCE)
            encoded = torch.cat([trainer.model.image_encoder(trainer.to_device(part)) for part in parts])
        features.append(encoded.cpu().unflatten(0, batch.shape[:3]))
    found = torch.cat(features)[: len(range(len(views))[ranks.share(len(views))])]  # (N', T, n, D)
    return ranks.gather(found, len(views), 0).permute(1, 2, 0, 3).contiguous().numpy()


def _read(file: Path, shape: tuple[int, int, int]) -> Tensor:
    """A file of the bank, `(n, N, D)`.

    Raises:
        ValueError: it is broken, or holds anything but L2-normalised features in float32 of this shape.
    """
    try:
        bank = np.load(file, mmap_mode="r")  # a header may claim more than the file has
    except OSError:
        raise
    except Exception as error:  # NumPy reads the header as a text of Python, and stumbles in many ways
        raise ValueError(f"{file} is not a whole file of the feature bank, delete it: {error}") from error
    if not isinstance(bank, np.ndarray) or bank.dtype != np.float32 or bank.shape != shape:
        found = f"{bank.shape} of {bank.dtype}" if isinstance(bank, np.ndarray) else "an archive"
        raise ValueError(f"{file} is not the feature bank's, delete it: it must hold {shape} of float32, got {found}")
    features = torch.from_numpy(np.array(bank))
    norms = features.norm(dim=-1)
    if not ((norms - 1).abs() < NORM_TOLERANCE).all():  # not of NaN, either
        raise ValueError(f"{file} is not the feature bank's, delete it: its features have norms other than 1")
    return features


def _write(path: Path, features: np.ndarray) -> None:
    """Write a file of the bank; of runs that make the same one at once, any may win."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part, part.open("wb") as file:
        np.save(file, features)


def _stamp(path: str) -> tuple[int | str, ...]:
    """What changes when a file has been changed, or is read in another way."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, *(["scaled"] if getattr(path, "scaled", False) else [])
