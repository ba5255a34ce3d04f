"""A trained run without its data set, and image files for it: what `tools.predict` and `tools.predict.features` share.

Legend: C classes, B images, S image size in pixels.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Callable

import compat  # noqa: F401  makes `import dassl` work; stands before it

import torch
from dassl.config import get_cfg_default
from dassl.data.transforms.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import read_image
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from yacs.config import CfgNode

import datasets  # noqa: F401  registers the data sets, whose config keys a run's config has
import trainers
from datasets.files import describe_nearest, odd_kind
from settings.paths import find_paths
from settings.reading import merge_checked, merge_options, merge_settings
from storage.safe_text import escaped
from tools.common.choices import DEVICES
from tools.predict.pictures import Picture
from trainers.base import ClipTrainer, build_without_data
from trainers.modules.checkpoints import read_checkpoint
from trainers.modules.loading import OtherWeights
from trainers.modules.random_state import kept_random_states, seed_all
from trainers.modules.sharing import find_shared
from trainers.prompt_trainer import PromptTrainer

trainers.register()


def read_run(run: str | Path) -> dict[str, Any]:
    """What a run's results.json holds, at least `config`, `class_names` and `epoch`; or the header of a shared file.

    Args:
        run: the run's folder, or what `find_shared` takes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken.
    """
    path = Path(run, "results.json")
    shared = None if path.is_file() else find_shared(run)
    if shared:
        return read_checkpoint(shared)["about"]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, which a run writes when it is tested at its end; {describe_nearest(str(run))}"
        )
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in ("config", "class_names", "epoch") if key not in results]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a whole results.json: {error}") from error
    if missing:
        raise ValueError(f"{path} is not a whole results.json: it lacks {', '.join(missing)}")
    names, epoch = results["class_names"], results["epoch"]
    if not isinstance(results["config"], dict):
        raise ValueError(f"{path}: the config in results.json must be an object, got {results['config']!r:.80}")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} is not a whole results.json: its class_names must be a list of texts")
    if type(epoch) is not int or epoch < 0:
        raise ValueError(f"{path} is not a whole results.json: its epoch must be a number from 0 on")
    return results


def restore_cfg(results: dict[str, Any], settings: Sequence[str] = ()) -> CfgNode:
    """The config of a run from its results, with the paths that lead into the checkout, as `find_paths` has them.

    Args:
        results: from `read_run`.
        settings: keys and values in turn, of options of the run's method, in place of its own.

    Raises:
        ValueError: it has keys or values that this project does not know, or the settings have other ones.
    """
    cfg = get_cfg_default()

    source = "the header of the file" if "format" in results else "results.json"
    merge_checked(f"the config in {source}", lambda config: merge_settings(cfg, CfgNode(config)), results["config"])
    own = f"TRAINER.{str(cfg.TRAINER.NAME).upper()}."
    others = [key for key in settings[::2] if not key.startswith(own)]
    if others:
        raise ValueError(f"settings of a trained run must be options of its method, {own}KEY, got {', '.join(others)}")
    merge_checked("the settings", lambda pairs: merge_options(cfg, pairs), list(settings))
    cfg.MODEL.INIT_WEIGHTS = cfg.TEST.CALIBRATION = ""  # what its training started from, and what its test used
    cfg.REPORT_TO = ""
    find_paths(cfg)
    return cfg


def fit_to_machine(cfg: CfgNode, device: str = "auto", backbone: str = "", precision: str = "") -> None:
    """Set in a config where and in what a model computes, and with which CLIP.

    Args:
        cfg: is changed.
        device: auto (a GPU if there is one), cpu or cuda.
        backbone: CLIP by name or path, in place of the config's own.
        precision: of the encoders (fp16, bf16, amp, fp32), in place of the config's own.

    Raises:
        ValueError: the trainer is none of this project's, or the device is unknown or not there.
    """
    known = [
        name for name in TRAINER_REGISTRY.registered_names() if issubclass(TRAINER_REGISTRY.get(name), ClipTrainer)
    ]
    if cfg.TRAINER.NAME not in known:
        raise ValueError(f"the trainer must be one of {', '.join(known)}, got {cfg.TRAINER.NAME!r}")
    if device not in DEVICES:
        raise ValueError(f"the device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("the device cuda is asked for, but PyTorch sees no GPU")
    cfg.USE_CUDA = device != "cpu"
    if precision:
        cfg.TRAINER[cfg.TRAINER.NAME.upper()].PREC = precision
    cfg.MODEL.BACKBONE.NAME = backbone or cfg.MODEL.BACKBONE.NAME


def load_trained(
    run: str | Path, results: dict[str, Any], cfg: CfgNode, class_names: Sequence[str], epoch: int | None = None
) -> ClipTrainer:
    """A run's trainer with its trained model, under any class names and without a data set.

    Args:
        run: the run's folder, or what `find_shared` takes.
        results: from `read_run`.
        cfg: its config, from `restore_cfg` and `fit_to_machine`.
        class_names: C class names.
        epoch: of the checkpoint; None for the one that the run has tested.

    Raises:
        FileNotFoundError: the checkpoint or CLIP is not there.
        ValueError: the checkpoint is broken, its method cannot tell these classes apart, or the run was made with other
            weights of CLIP.
    """
    method = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if not issubclass(method, PromptTrainer):
        return _build(run, results, cfg, class_names)
    folder = Path(run, method.checkpoint_folder)
    shared = None if folder.is_dir() else find_shared(run)
    if shared:
        try:
            trainer = _build(run, results, cfg, class_names)
        except FileNotFoundError as error:  # on the machine of whoever shared it CLIP lay elsewhere
            raise FileNotFoundError(f"{error}; --backbone says where the CLIP of {shared} is") from error
        trainer.load_model(str(shared), epoch=epoch)
        return trainer
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{run} has no folder {method.checkpoint_folder} of checkpoints; if it is a test, give the folder of the "
            "training that it tested"
        )
    trainer = _build(run, results, cfg, class_names)
    wanted = results["epoch"] if epoch is None else epoch
    # Where the best epoch was tested, it may be kept under that name alone.
    best = epoch is None and not (folder / f"model.pth.tar-{wanted}").exists() and any(folder.glob("model-best*"))
    trainer.load_model(str(run), epoch=None if best else wanted)
    if trainer.tested_epoch != wanted:
        raise ValueError(f"{run}: results.json is of epoch {wanted}, the checkpoint of epoch {trainer.tested_epoch}")
    return trainer


def _build(run: str | Path, results: dict[str, Any], cfg: CfgNode, class_names: Sequence[str]) -> ClipTrainer:
    """A run's trainer over the weights of CLIP that its results tell of; published checkpoints' do not."""
    sha256 = results.get("backbone_sha256")
    if sha256 is None:
        print(
            f"Note: {Path(run, 'results.json')} does not say which weights of CLIP the run was made with; those of "
            f"{escaped(cfg.MODEL.BACKBONE.NAME)} are taken",
            file=sys.stderr,
        )
    try:
        return build_without_data(cfg, class_names, sha256)
    except OtherWeights as error:
        raise ValueError(f"{run} {error}") from error


def test_views(trainer: ClipTrainer) -> list[Any]:
    """The transforms that a run's test images got, one per view."""
    _, views = trainer.transforms()
    views = views or build_transform(trainer.cfg, is_train=False)
    return views if isinstance(views, list) else [views]


class ImageFiles(Dataset):
    """Image files read as Dassl reads them, one tensor a view; of a broken one the reason in their place.

    With a seed, random views follow from it and the picture alone, wherever and beside whatever it lies, and the global
    random states are left as they are.
    """

    def __init__(self, paths: Sequence[str | Picture], views: Sequence[Callable], seed: int | None = None) -> None:
        self.paths = paths
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, str, list[Tensor]]:
        """The path, why it cannot be read or "", and its views `(3, S, S)`."""
        given = self.paths[index]
        if isinstance(given, Picture):
            path, image = given
        else:
            path = given
            try:
                image = read_image(path)
            except Exception as error:  # damaged files make PIL's decoders raise almost anything
                return path, _reason(path, error), []
        with nullcontext() if self.seed is None else kept_random_states():
            if self.seed is not None:
                seed_all(f"{self.seed} {image.size} ".encode() + image.tobytes())
            return path, "", [view(image) for view in self.views]


def _reason(path: str, error: BaseException) -> str:
    """Why an image cannot be read, in one line; embedded Dassl's error names the path and stands on PIL's own."""
    cause = error.__cause__ or error
    if isinstance(cause, Image.DecompressionBombError):  # of which PIL does not say what raises its limit
        return str(error).partition("cannot be read: ")[2] or str(error)
    error = cause
    if reason := odd_kind(path):
        return reason
    if not os.path.exists(path):
        return "there is no such file"
    if os.path.isdir(path):
        return "it is a folder"
    if os.path.getsize(path) == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    return " ".join(str(error).split()) or type(error).__name__


def _collate(items: list[tuple[str, str, list[Tensor]]]) -> tuple[list[tuple[str, str]], dict[str, Tensor]]:
    """Paths with what is wrong with them, and a batch under Dassl's names of those that can be read, if any."""
    columns = list(zip(*(views for _, _, views in items if views)))
    batch = {f"img{n}" if n > 1 else "img": torch.stack(column) for n, column in enumerate(columns, 1)}
    if batch:
        batch["label"] = torch.zeros(len(batch["img"]), dtype=torch.long)  # Dassl's trainers ask for it
    return [(path, reason) for path, reason, _ in items], batch


def load_images(
    paths: Sequence[str | Picture],
    views: Sequence[Callable],
    batch_size: int,
    workers: int = 0,
    seed: int | None = None,
) -> DataLoader:
    """Batches of images, in order. No number is drawn from the global random states, unless by random views.

    Args:
        paths: of image files, or images in memory.
        views: transforms from a PIL image to a tensor `(3, S, S)`.
        batch_size: images at once.
        workers: processes that read, where there is more than one batch; 0 reads in this one.
        seed: of random views, as in `ImageFiles`; None leaves them to the global random states.

    Returns:
        A loader of pairs: for each path itself and why it cannot be read, or ""; and a batch `{"img": (B, 3, S, S),
        "img2": ..., "label": zeros (B,)}` of the others, empty where there are none.

    Raises:
        ValueError: the batch size or number of workers is out of range.
    """
    if batch_size < 1 or workers < 0:
        raise ValueError(f"the batch size must be at least 1 and workers at least 0, got {batch_size} and {workers}")
    workers = workers if len(paths) > batch_size else 0
    return DataLoader(
        ImageFiles(paths, views, seed),
        batch_size,
        num_workers=workers,
        collate_fn=_collate,
        generator=torch.Generator(),
    )
