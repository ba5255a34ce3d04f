"""What `python -m tools.predict.features` does: features of a data set in a file.

Legend: N images, M templates, C classes, B images at once, D width of the features.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import compat  # noqa: F401  makes `import dassl` work; stands before it

import numpy as np
import torch
from dassl.config import clean_cfg, get_cfg_default
from dassl.data.datasets import DatasetBase, build_dataset
from dassl.data.transforms.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import set_random_seed
from yacs.config import CfgNode

from settings.paths import find_paths
from settings.reading import merge_checked, merge_file, merge_options
from storage.files import atomic_write
from tools.common.choices import SPLITS
from tools.predict.trained import fit_to_machine, load_images, load_trained, read_run, restore_cfg
from trainers.base import ClipTrainer, build_without_data
from trainers.modules.progress import progress
from trainers.prompt_trainer import PromptTrainer

LISTS = {"train": "train_x", "val": "val", "test": "test"}  # of the splits, by Dassl's names


class Images(NamedTuple):
    """Images of a data set, N each."""

    paths: list[str]
    labels: list[int]
    splits: list[str]


def list_images(dataset: DatasetBase, split: str) -> Images:
    """The images of one split, or of all that a data set has.

    Args:
        dataset: a Dassl data set.
        split: train, val, test or all.

    Raises:
        ValueError: there is no such split, or no image in it.
    """
    if split not in (*SPLITS, "all"):
        raise ValueError(f"the split must be one of {', '.join(SPLITS)} or all, got {split!r}")
    images = Images([], [], [])
    for name in SPLITS if split == "all" else (split,):
        for item in getattr(dataset, LISTS[name]) or []:
            images.paths.append(item.impath)
            images.labels.append(item.label)
            images.splits.append(name)
    if not images.paths:
        raise ValueError(f"{type(dataset).__name__} has no images in its split {split}")
    return images


@torch.no_grad()
def encode_images(
    trainer: ClipTrainer, paths: list[str], dtype: str = "float32", batch_size: int = 100, workers: int = 0
) -> np.ndarray:
    """L2-normalised features of image files, `(N, D)`, or `(M, N, D)` where each template has its own.

    Args:
        trainer: a trainer with its model.
        paths: of N image files.
        dtype: float32 or float16.
        batch_size, workers: see `load_images`.

    Raises:
        OSError: an image cannot be read; with its path.
        ValueError: features are not finite.
    """
    trainer.set_model_mode("eval")
    view: Any = build_transform(trainer.cfg, is_train=False)
    loader = load_images(paths, [view], batch_size, workers)
    whole, n_done = np.empty(0, dtype), 0
    for outcomes, batch in progress(loader, "features"):
        for path, reason in outcomes:
            if reason:
                raise OSError(f"{path} is an image of the data set, but {reason}")
        features = trainer.image_features(batch["img"].to(trainer.device)).cpu().numpy()
        if not np.isfinite(features).all():
            raise ValueError(f"features are not finite: {trainer.options.PREC} may be too narrow for this CLIP")
        if features.ndim == 3 and len(features) == 1:
            features = features[0]
        if not n_done:
            whole = np.empty((*features.shape[:-2], len(paths), features.shape[-1]), dtype)
        whole[..., n_done : n_done + len(outcomes), :] = features
        n_done += len(outcomes)
    return whole


def describe(trainer: ClipTrainer) -> dict:
    """What the features are of."""
    cfg = trainer.cfg
    return {
        "trainer": cfg.TRAINER.NAME,
        "epoch": trainer.tested_epoch,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "backbone_sha256": trainer.backbone_sha256,
        "dataset": cfg.DATASET.NAME,
        "classes": cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"),
        "shots": cfg.DATASET.NUM_SHOTS,
        "seed": cfg.SEED,
        "normalised": True,
        "scale": trainer.scale,
        "config": json.loads(json.dumps(cfg)),
    }


def build_cfg(args: argparse.Namespace, results: dict | None) -> CfgNode:
    """The config of a run, by its results, or that of the config files, with what the command line changes in it.

    Raises:
        FileNotFoundError: a config file is missing.
        ValueError: an unknown key, a value of the wrong type, or a key without a value.
    """
    cfg = get_cfg_default() if results is None else restore_cfg(results)
    for path in (args.dataset_config_file, args.config_file):
        if path:
            if not os.path.isfile(path):
                raise FileNotFoundError(f"no config file {path}")
            merge_checked(path, merge_file, cfg, path)
    find_paths(cfg)
    if results is None:
        cfg.TRAINER.NAME = args.trainer
    if args.root:
        cfg.DATASET.ROOT = args.root
    if args.seed is not None:
        cfg.SEED = args.seed
    if args.classes:
        cfg.DATASET.SUBSAMPLE_CLASSES = args.classes
    merge_checked("the command line", merge_options, cfg, args.opts)
    fit_to_machine(cfg, args.device, args.backbone, args.precision)
    clean_cfg(cfg, cfg.TRAINER.NAME)
    cfg.freeze()
    return cfg


def build(args: argparse.Namespace) -> tuple[ClipTrainer, DatasetBase]:
    """The trainer, with its model under the data set's class names, and the data set.

    Raises:
        FileNotFoundError, ValueError: something of the run, CLIP or the data set is missing or wrong; or the trainer is
            one that is trained, and no run is given.
    """
    results = read_run(args.model_dir) if args.model_dir else None
    cfg = build_cfg(args, results)
    trainer_class = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if results is None and issubclass(trainer_class, PromptTrainer):
        raise ValueError(f"{cfg.TRAINER.NAME} has to be trained: give the folder of a run of it as --model-dir")
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)  # which the few-shot images are drawn from
    dataset = build_dataset(cfg)
    if results is None:
        return build_without_data(cfg, dataset.classnames), dataset
    return load_trained(args.model_dir, results, cfg, dataset.classnames, args.load_epoch), dataset


def write_features(args: argparse.Namespace) -> None:
    """What the command line asks for."""
    trainer, dataset = build(args)
    images, cfg = list_images(dataset, args.split), trainer.cfg
    batch_size = cfg.DATALOADER.TEST.BATCH_SIZE if args.batch_size is None else args.batch_size
    workers = cfg.DATALOADER.NUM_WORKERS if args.workers is None else args.workers
    content: dict[str, Any] = {"image_features": encode_images(trainer, images.paths, args.dtype, batch_size, workers)}
    with torch.no_grad():
        text_features = trainer.class_features()
    if text_features is not None:
        content["text_features"] = text_features.cpu().numpy().astype(args.dtype)
    root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
    content.update(
        labels=np.array(images.labels),
        paths=np.array([_below(root, path) for path in images.paths]),
        splits=np.array(images.splits),
        class_names=np.array(trainer.class_names),
        about=np.array(json.dumps(describe(trainer))),
    )
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as path, path.open("wb") as file:
        np.savez(file, **content)
    for name, array in content.items():
        kind = "text" if array.dtype.kind == "U" else array.dtype.name
        print(f"{name:15} {kind:8} {' x '.join(map(str, array.shape))}".rstrip())
    print(f"Written to {output}")


def _below(root: str, path: str) -> str:
    """A path as seen from the folder of data sets, with "/"; as it is where it lies elsewhere."""
    path = os.path.abspath(path)
    return path[len(root) :].lstrip(os.sep).replace(os.sep, "/") if path.startswith(os.path.join(root, "")) else path
