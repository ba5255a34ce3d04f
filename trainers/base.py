"""What trainers share on Dassl's side: loading CLIP, one training step, checkpoints, testing, `results.json`."""

from __future__ import annotations

import inspect
import json
import math
import os
import platform
import random
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import dassl
import numpy as np
import torch
import torch.nn.functional as F
from dassl.data import DataManager
from dassl.engine import TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import _LRScheduler
from tqdm import tqdm

from .modules.checkpoints import read_checkpoint, storable
from .modules.clip_types import CLIP
from .modules.evidence import Opinion
from .modules.loading import PRECISIONS, load_clip
from .modules.prompted import PromptedCLIP


class ClipTrainer(TrainerX):
    """A frozen CLIP and its test.

    A subclass says in `build_clip` what it makes of CLIP, and in `model_inference` how it classifies images. Its own
    config is `cfg.TRAINER.<its name in capitals>`, with at least `PREC`.

    Args:
        cfg: the whole config.
        class_names: C class names in place of the data set's. No data set is read then, `dm` and the loaders are None,
            and the trainer can load a model and classify, but neither train nor test.

    Attributes:
        backbone_sha256: digest of CLIP's weights (`modules.loading.weights_digest`).
        scale: what CLIP multiplies cosines by.
        model_dir: folder of the run whose checkpoint was loaded for testing; None where there is none.
        trained_on: what the tested parameters were trained on (dataset, classes, shots, seed); None where nothing is
            trained, or the checkpoint does not tell.
    """

    model_dir: str | None = None
    trained_on: dict | None = None

    def __init__(self, cfg, class_names: Sequence[str] | None = None) -> None:
        self._given_names = None if class_names is None else list(class_names)
        super().__init__(cfg)

    @property
    def options(self):
        """The method's own config node."""
        return self.cfg.TRAINER[type(self).__name__.upper()]

    @property
    def class_names(self) -> list[str]:
        return self.dm.dataset.classnames if self._given_names is None else self._given_names

    def check_cfg(self, cfg) -> None:
        """Check the config once, at the start.

        Raises:
            ValueError: with all that is wrong in it.
        """
        problems = self.config_problems(cfg, cfg.TRAINER[type(self).__name__.upper()])
        if problems:
            raise ValueError("the config cannot run: " + "; ".join(problems))

    def config_problems(self, cfg, options) -> list[str]:
        """What is wrong in the config, a sentence each; a subclass adds its own."""
        if options.PREC not in PRECISIONS:
            return [f"PREC must be one of {', '.join(PRECISIONS)}, got {options.PREC!r}"]
        return []

    def transforms(self) -> tuple:
        """Transforms of training and of test images, each one or a list of views; None for the config's own."""
        return None, None

    def build_data_loader(self) -> None:
        if self._given_names is None:
            self.dm = DataManager(self.cfg, *self.transforms())
            for name in ("train_loader_x", "train_loader_u", "val_loader", "test_loader"):
                setattr(self, name, getattr(self.dm, name))
            self.num_source_domains = self.dm.num_source_domains
            self.lab2cname = self.dm.lab2cname
            self.num_classes = self.dm.num_classes
        else:
            for name in ("dm", "train_loader_x", "train_loader_u", "val_loader", "test_loader"):
                setattr(self, name, None)
            self.num_source_domains = 0
            self.lab2cname = dict(enumerate(self._given_names))
            self.num_classes = len(self._given_names)

    def build_model(self) -> None:
        cfg = self.cfg
        print(f"Loading CLIP (backbone: {cfg.MODEL.BACKBONE.NAME})")
        clip_model = load_clip(cfg.MODEL.BACKBONE.NAME, self.options.PREC)
        size = clip_model.visual.input_resolution
        if tuple(cfg.INPUT.SIZE) != (size, size):
            raise ValueError(f"INPUT.SIZE must be ({size}, {size}) for this CLIP, got {tuple(cfg.INPUT.SIZE)}")
        self.scale = float(clip_model.logit_scale.exp())
        self.backbone_sha256 = clip_model.sha256
        self.build_clip(clip_model)

    def build_clip(self, clip_model: CLIP) -> None:
        """Make the method's model of a frozen CLIP on the CPU, and move it to `self.device`."""
        raise NotImplementedError

    def weights_problem(self, sha256: str | None) -> str:
        """Why this run's CLIP is not the one that something was made with, a sentence without its subject.

        Args:
            sha256: the `backbone_sha256` that it was made with; None where that was not written down.

        Returns:
            The sentence, or "" if nothing is known to be wrong.
        """
        if sha256 in (None, self.backbone_sha256):
            return ""
        return (
            f"was made with other weights of CLIP (SHA-256 {str(sha256)[:12]}...) than those of this run "
            f"({self.backbone_sha256[:12]}..., {self.cfg.MODEL.BACKBONE.NAME})"
        )

    def autocast(self):
        """The context in which the encoders compute: mixed precision where `PREC` is amp."""
        return torch.autocast(self.device.type, dtype=self._mixed_dtype, enabled=self.options.PREC == "amp")

    @property
    def _mixed_dtype(self) -> torch.dtype:
        """What amp computes in besides float32."""
        return torch.float16 if self.device.type == "cuda" else torch.bfloat16

    @property
    def encoder_precision(self) -> str:
        """What the encoders compute in: `PREC` and, where it is amp, the other type beside float32."""
        precision = self.options.PREC
        return f"{precision} {self._mixed_dtype}" if precision == "amp" else precision

    def to_device(self, tensor: Tensor) -> Tensor:
        """A tensor of a batch on the trainer's device; a GPU gets it by pinned memory, while the host goes on."""
        if self.device.type == "cuda" and not tensor.is_cuda and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        return self.to_device(batch["img"]), self.to_device(batch["label"])

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on `split`, by default `cfg.TEST.SPLIT`, and write `results.json` unless it is for choosing a model.

        Returns:
            Accuracy in percent, the evaluator's first figure.
        """
        started = time.time()
        self.set_model_mode("eval")
        self.evaluator.reset()
        self.totals: dict[str, float] = defaultdict(float)
        choosing = split == "val"
        split = split or self.cfg.TEST.SPLIT
        loader = self.val_loader if split == "val" else None
        if loader is None:
            split, loader = "test", self.test_loader

        print(f"Evaluate on the *{split}* set")
        groups = Groups(self.dm.dataset.own_domains) if hasattr(self.dm.dataset, "own_domains") else None
        n_images = 0
        for batch in tqdm(loader):
            images, label = self.parse_batch_test(batch)
            scores = self.test_step(images, label)
            self.evaluator.process(scores, label)
            n_images += len(label)
            if groups:
                groups.process(scores.argmax(dim=1) == label, label, batch["domain"])
        figures = dict(self.evaluator.evaluate())
        figures.update({name: total / n_images for name, total in self.totals.items()})
        figures.update(groups.evaluate() if groups else {})
        figures.update(self.model_figures())
        for name, value in figures.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        if not choosing:
            self.write_results(split, figures, n_images, time.time() - started)
        return next(iter(figures.values()))

    def test_step(self, images: Tensor, label: Tensor) -> Tensor:
        """Scores `(B, C)` of one batch; a subclass may add to `self.totals` sums of further figures over images."""
        return self.model_inference(images)

    def model_figures(self) -> dict[str, float]:
        """Figures of the model itself, which do not depend on the images tested; a subclass may have some."""
        return {}

    def opinions(self, images: Tensor) -> tuple[Opinion, list[Opinion]] | None:
        """Where a method has opinions on images: the fused one and each template's own; else None."""
        return None

    def image_features(self, images: Tensor) -> Tensor:
        """L2-normalised features of images `(B, 3, S, S)`: `(B, D)`, or `(M, B, D)` where each template has its own."""
        raise NotImplementedError

    def class_features(self) -> Tensor | None:
        """L2-normalised class embeddings `(M, C, D)` under each template; None where each image has its own."""
        raise NotImplementedError

    def write_results(self, split: str, figures: dict, n_images: int, seconds: float) -> None:
        """`results.json` beside log.txt: what was run, on what, and every figure."""
        cfg = self.cfg
        results = {
            "trainer": cfg.TRAINER.NAME,
            "dataset": cfg.DATASET.NAME,
            "backbone": cfg.MODEL.BACKBONE.NAME,
            "backbone_sha256": self.backbone_sha256,
            "seed": cfg.SEED,
            "shots": cfg.DATASET.NUM_SHOTS,
            "classes": cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"),
            "class_names": list(self.class_names),
            "model_dir": self.model_dir,
            "trained_on": self.trained_on,
            "split": split,
            "images": n_images,
            "epoch": self.tested_epoch,
            "figures": {name: float(value) for name, value in figures.items()},
            "test_seconds": seconds,
            "train_seconds": self.train_seconds,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "dassl": dassl.__version__,
            },
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "config": json.loads(json.dumps(cfg)),
        }
        Path(self.output_dir).mkdir(parents=True, exist_ok=True)
        with replacing(Path(self.output_dir, "results.json")) as path:
            path.write_text(json.dumps(results, indent=1) + "\n")

    @property
    def tested_epoch(self) -> int:
        """The epoch whose parameters are tested; 0 where nothing is trained."""
        return 0

    @property
    def train_seconds(self) -> float | None:
        """How long training took in this process, without its test; None where there was none."""
        return None


class PromptTrainer(ClipTrainer):
    """A frozen CLIP under learnable prompts.

    A subclass's `build_clip` sets `self.model`, whose `prompt_learner` alone is trained and kept in checkpoints, and
    its `loss` says what is minimised.

    Attributes:
        checkpoint_folder: a run's folder of checkpoints.
        key_prefix: what stands before the prompt learner's own names in them.
        untrained_keys: names, as shell patterns, that the method's published code keeps there too and that are no part
            of what was trained: embeddings of class names, or CLIP itself. They are passed over when read.
    """

    model: PromptedCLIP
    checkpoint_folder = "prompt_learner"
    key_prefix = ""
    untrained_keys: tuple[str, ...] = ()

    @property
    def learner(self) -> nn.Module:
        """What is trained and kept in checkpoints."""
        return self.model.prompt_learner

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one training batch, and what to log of it by name."""
        raise NotImplementedError

    def train_features(self, batch: dict) -> Tensor:
        """L2-normalised features of the images of a training batch."""
        return self.model.image_features(self.to_device(batch["img"]))

    def build_model(self) -> None:
        super().build_model()
        cfg, learner = self.cfg, self.learner
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("prompt_learner."))
        self.trained_epochs = 0
        if cfg.MODEL.INIT_WEIGHTS:
            self.load_trained(Path(cfg.MODEL.INIT_WEIGHTS))
        n_parameters = sum(p.numel() for p in learner.parameters())
        print(f"Learnable parameters: {n_parameters:,}")
        # What is estimated without a gradient is kept in buffers, and there may be nothing else.
        self.optim = build_optimizer(learner, cfg.OPTIM) if n_parameters else None
        with schedulers_taking_verbose():
            self.sched = build_lr_scheduler(self.optim, cfg.OPTIM) if self.optim else None
        self.register_model(self.checkpoint_folder, learner, self.optim, self.sched)
        # On a CPU amp means bfloat16, which needs no scaling.
        scaled = self.options.PREC == "amp" and self.device.type == "cuda"
        self.scaler = grad_scaler(self.device.type) if scaled else None

    def forward_backward(self, batch: dict) -> dict[str, float]:
        """Take one training step and return what Dassl logs of it.

        All values come over from the device at once, after the step: to ask for each would make the host wait as often.

        Raises:
            FloatingPointError: the loss is infinite or not a number.
        """
        summary = self.step(batch)
        values = torch.stack([value.detach().float().reshape(()) for value in summary.values()]).tolist()
        logged = dict(zip(summary, values))
        if not math.isfinite(logged["loss"]):
            raise FloatingPointError(
                f"training diverges: the loss is {logged['loss']} in epoch {self.epoch + 1}, batch "
                f"{self.batch_idx + 1}, at the learning rate {self.get_current_lr():g}; try a smaller OPTIM.LR"
            )
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return logged

    def step(self, batch: dict) -> dict[str, Tensor]:
        """Forward and backward pass and the optimizer's step; the host waits for nothing that a GPU computes.

        But `amp`, whose scaler looks whether a gradient overflowed before it lets the optimizer take its step.

        Returns:
            The loss, under that name, and what else is logged, a tensor of one element each.
        """
        loss, summary = self.loss(batch)
        self.optim.zero_grad()
        if self.scaler is None:
            loss.backward()
            self.optim.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()
        return {"loss": loss, **summary}

    def after_epoch(self) -> None:
        diverged = [name for name, parameter in self.learner.named_parameters() if not parameter.isfinite().all()]
        if diverged:
            raise FloatingPointError(
                f"training diverges: {', '.join(diverged)} is infinite or not a number after epoch {self.epoch + 1}; "
                f"try a smaller OPTIM.LR than {self.cfg.OPTIM.LR:g}"
            )
        self.trained_epochs = self.epoch + 1
        self.trained_on = self._training_data()
        super().after_epoch()

    def _training_data(self) -> dict:
        """What this run trains on."""
        data = self.cfg.DATASET
        classes = data.get("SUBSAMPLE_CLASSES", "all")
        return {"dataset": data.NAME, "classes": classes, "shots": data.NUM_SHOTS, "seed": self.cfg.SEED}

    @property
    def tested_epoch(self) -> int:
        return self.trained_epochs

    def image_features(self, images: Tensor) -> Tensor:
        return self.model.image_features(images)

    def class_features(self) -> Tensor | None:
        return self.model.text_features()

    def after_train(self) -> None:
        self._train_seconds = time.time() - self.time_start  # the test is not training
        super().after_train()

    @property
    def train_seconds(self) -> float | None:
        return getattr(self, "_train_seconds", None)

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name="") -> None:
        """Write `<directory>/<checkpoint_folder>/model.pth.tar-<epoch + 1>` in Dassl's layout.

        Beside Dassl's keys stand the class names, what the run is trained on, the digest of CLIP's weights, and
        `resume`: the random states and what else a resumed run needs to end as if it had not been cut. An older
        checkpoint is replaced only once the new one is complete.
        """
        state = {
            "state_dict": self.learner.state_dict(prefix=self.key_prefix),
            "epoch": epoch + 1,
            "class_names": list(self.class_names),
            "trained_on": self._training_data(),
            "backbone_sha256": self.backbone_sha256,
            "optimizer": self.optim.state_dict() if self.optim else None,
            "scheduler": {"last_epoch": epoch + 1},
            "val_result": None if val_result is None else float(val_result),
            "resume": {
                "random": _random_state(),
                "scaler": self.scaler.state_dict() if self.scaler else None,
                "best_result": float(self.best_result),
            },
        }
        folder = Path(directory, self.checkpoint_folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = [model_name or f"model.pth.tar-{epoch + 1}"] + ["model-best.pth.tar"] * is_best
        for name in names:
            try:
                with replacing(folder / name) as path:
                    torch.save(storable(state), path)
            except (OSError, RuntimeError) as error:  # PyTorch tells of a full disk by a RuntimeError
                raise OSError(f"{folder / name} cannot be written, older checkpoints are kept: {error}") from error
            print(f"Checkpoint saved to {folder / name}")
        with replacing(folder / "checkpoint") as path:
            path.write_text(f"{names[0]}\n")

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load the trained parameters for testing, under whatever class names this run has.

        Raises:
            FileNotFoundError: no such checkpoint, with those that there are.
            ValueError: it is broken, of another trainer, or was made with other weights of CLIP.
        """
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        folder = Path(directory, self.checkpoint_folder)
        path = folder / ("model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}")
        if not path.is_file():
            there = sorted(file.name for file in folder.glob("model*")) or "nothing"
            raise FileNotFoundError(f"no checkpoint at {path}; that folder holds {there}")
        checkpoint = self.load_trained(path, "epoch")
        self.trained_epochs = checkpoint["epoch"]
        self.model_dir, self.trained_on = os.path.abspath(directory), checkpoint.get("trained_on")
        print(f"Loaded {path} (epoch {self.trained_epochs})")

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on from the last checkpoint in `directory`, if there is one.

        Returns:
            The epoch to start with.

        Raises:
            FileNotFoundError: the checkpoint that `directory` names is not there, or `cfg.RESUME` holds none.
            ValueError: the checkpoint is broken, of another trainer, or was made with other weights of CLIP.
        """
        pointer = Path(directory, self.checkpoint_folder, "checkpoint")
        if not pointer.is_file() and not self.cfg.RESUME:
            print("No checkpoint found, train from scratch")
            return 0
        path = pointer.parent / pointer.read_text().strip() if pointer.is_file() else pointer
        if not path.is_file():
            raise FileNotFoundError(f"training cannot go on from {directory}: there is no checkpoint {path}")
        checkpoint = self.load_trained(path, "epoch", "optimizer")
        epoch = self.trained_epochs = checkpoint["epoch"]
        self.trained_on = checkpoint.get("trained_on")
        try:
            self._resume_training(checkpoint)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"training cannot go on from {path}, which can only be tested or be MODEL.INIT_WEIGHTS: {error}"
            ) from error
        print(f"Found {path}, training goes on behind epoch {epoch}")
        return epoch

    def _resume_training(self, checkpoint: dict) -> None:
        """Bring all but the trained parameters where they were when the checkpoint was written."""
        if self.optim:
            with warnings.catch_warnings():
                # A scheduler is a function of how often it stepped; torch warns of steps without the optimizer's.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                for _ in range(checkpoint["epoch"]):
                    self.sched.step()
            self.optim.load_state_dict(checkpoint["optimizer"])
        resume = checkpoint.get("resume")
        if resume:
            self.best_result = resume["best_result"]
            if self.scaler and resume["scaler"]:
                self.scaler.load_state_dict(resume["scaler"])
            _set_random_state(resume["random"])

    def load_trained(self, path: Path, *needed: str) -> dict:
        """Load what was trained from a checkpoint of this method, ours or of the published code.

        Nothing changes unless all of it is right.

        Args:
            path: the checkpoint.
            needed: keys that it must have beside its parameters.

        Returns:
            The checkpoint.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is broken, or of another trainer; with all that is missing, unknown or does not fit. Or it
                was made with other weights of CLIP, which published checkpoints and older ones do not tell.
        """
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}")
        checkpoint = read_checkpoint(path, self.device, *needed)
        problems = self.checkpoint_problems(checkpoint)
        if problems:
            raise ValueError(f"{path} is no checkpoint of this {type(self).__name__}: it {'; it '.join(problems)}")
        problem = self.weights_problem(checkpoint.get("backbone_sha256"))
        if problem:
            raise ValueError(f"{path} {problem}")
        learner, state = self.learner, checkpoint["state_dict"]
        learner.load_state_dict({key: state[self.key_prefix + key] for key in learner.state_dict()})
        return checkpoint

    def checkpoint_problems(self, checkpoint: dict) -> list[str]:
        """Why this run cannot take a checkpoint's parameters, a sentence each without its subject."""
        state = {
            key: value
            for key, value in checkpoint["state_dict"].items()
            if not any(fnmatchcase(key, pattern) for pattern in self.untrained_keys)
        }
        own = self.learner.state_dict(prefix=self.key_prefix)
        problems = [f"has no {key}" for key in own.keys() - state.keys()]
        problems += [f"has {key}, which is not known" for key in state.keys() - own.keys()]
        problems += [
            f"has {key} of shape {tuple(state[key].shape)} where this run has {tuple(own[key].shape)}"
            for key in own.keys() & state.keys()
            if own[key].shape != state[key].shape
        ]
        return sorted(problems)


class LogitTrainer(PromptTrainer):
    """A PromptTrainer trained with cross-entropy on `self.model.logits(features)`, `(B, C)` in float32.

    It logs the names that CoOp logs, loss and acc; the published CoCoOp and MaPLe log the loss alone.
    """

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        label = self.to_device(batch["label"])
        logits = self.model.logits(self.train_features(batch))
        return F.cross_entropy(logits, label), {"acc": compute_accuracy(logits, label)[0]}


class Groups:
    """Accuracy by groups of a data set whose classes have, in training, a domain each that is theirs.

    Args:
        own_domains: each label's own domain.
    """

    def __init__(self, own_domains: Sequence[int]):
        self.own = torch.tensor(own_domains)
        self.counts: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])

    def process(self, right: Tensor, label: Tensor, domain: Tensor) -> None:
        """Count a batch, all `(B,)`: whether each image was classified rightly, its label, its domain."""
        for own, found, hit in zip(self.own[label.cpu()].tolist(), domain.tolist(), right.tolist()):
            count = self.counts[own, found]
            count[0] += hit
            count[1] += 1

    def evaluate(self) -> dict[str, float]:
        """Accuracies in percent: of the worst group, and of the images in their class's own domain and in others."""
        figures = {"worst_group_accuracy": min(100.0 * hits / n for hits, n in self.counts.values())}
        for name, own in (("aligned_accuracy", True), ("conflicting_accuracy", False)):
            counts = [count for pair, count in self.counts.items() if (pair[0] == pair[1]) == own]
            if counts:
                figures[name] = 100.0 * sum(hits for hits, _ in counts) / sum(n for _, n in counts)
        return figures


def told(check: Callable, *arguments) -> list[str]:
    """What a check raises as ValueError, as a list of problems; empty where it raises nothing."""
    try:
        check(*arguments)
    except ValueError as error:
        return [str(error)]
    return []


def grad_scaler(device: str):
    """PyTorch's scaler of gradients for amp on "cuda" or "cpu".

    Raises:
        ValueError: this PyTorch has none for the device; before 2.3 it has one for "cuda" alone.
    """
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device)
    if device != "cuda":
        raise ValueError(f"PyTorch {torch.__version__} scales gradients on cuda alone, got {device}; 2.3 has others")
    return torch.cuda.amp.GradScaler()


@contextmanager
def schedulers_taking_verbose():
    """For a Dassl that hands on to PyTorch's schedulers the `verbose` that they take no longer."""
    init = _LRScheduler.__init__
    if "verbose" not in inspect.signature(init).parameters:

        def init_without(self, optimizer, last_epoch=-1, verbose=False):
            init(self, optimizer, last_epoch)

        _LRScheduler.__init__ = init_without  # type: ignore[method-assign]
    try:
        yield
    finally:
        _LRScheduler.__init__ = init  # type: ignore[method-assign]


@contextmanager
def replacing(path: Path):
    """A path beside `path` to write to, which takes its place once written; a failed write leaves the old file."""
    beside = path.with_name(f".{path.name}.part")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _random_state() -> dict:
    state: Any = np.random.get_state()  # the tuple, as nothing else was asked for
    name, keys, *rest = state
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
