"""The training loop of iterative trainers.

``train()`` calls the hooks in this order: ``before_train``, then for each epoch ``before_epoch``, ``run_epoch`` and
``after_epoch``, then ``after_train``. A method derives from :class:`TrainerX`, builds its model in ``build_model`` and
takes one step in ``forward_backward``, which returns the values to log and, at the epoch's last batch, calls
``update_lr``.
"""

from __future__ import annotations

import datetime
import os.path as osp
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from dassl.data import DataManager
from dassl.evaluation import build_evaluator
from dassl.modeling import build_backbone, build_head
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    count_num_param,
    load_checkpoint,
    load_pretrained_weights,
    mkdir_if_missing,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
)
from dassl.utils.torchtools import last_checkpoint, load_into, require_keys
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

__all__ = ["SimpleNet", "SimpleTrainer", "TrainerBase", "TrainerX", "TrainerXU"]


class SimpleNet(nn.Module):
    """A registered backbone, a registered head if the configuration names one, and a linear classifier.

    Args:
        cfg: the whole configuration.
        model_cfg: ``cfg.MODEL`` or a node like it.
        num_classes: 0 leaves the classifier out, and the network returns features.
        kwargs: go to backbone and head.
    """

    def __init__(self, cfg: Any, model_cfg: Any, num_classes: int, **kwargs: Any) -> None:
        super().__init__()
        self.backbone = build_backbone(
            model_cfg.BACKBONE.NAME, verbose=cfg.VERBOSE, pretrained=model_cfg.BACKBONE.PRETRAINED, **kwargs
        )
        self._fdim = self.backbone.out_features
        self.head = None
        if model_cfg.HEAD.NAME and model_cfg.HEAD.HIDDEN_LAYERS:
            self.head = build_head(
                model_cfg.HEAD.NAME,
                verbose=cfg.VERBOSE,
                in_features=self._fdim,
                hidden_layers=model_cfg.HEAD.HIDDEN_LAYERS,
                activation=model_cfg.HEAD.ACTIVATION,
                bn=model_cfg.HEAD.BN,
                dropout=model_cfg.HEAD.DROPOUT,
                **kwargs,
            )
            self._fdim = self.head.out_features
        self.classifier = nn.Linear(self._fdim, num_classes) if num_classes > 0 else None

    @property
    def fdim(self) -> int:
        """The width of the features that reach the classifier."""
        return self._fdim

    def forward(self, x: torch.Tensor, return_feature: bool = False) -> Any:
        """Return scores (B, C), with ``return_feature`` a pair of scores and features (B, fdim)."""
        features = self.backbone(x)
        if self.head is not None:
            features = self.head(features)
        if self.classifier is None:
            return features
        scores = self.classifier(features)
        return (scores, features) if return_feature else scores


class TrainerBase:
    """Named models with their optimisers and schedules, their checkpoints, and the order of the hooks."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()
        self._writer: Any = None

    def register_model(self, name: str = "model", model: Any = None, optim: Any = None, sched: Any = None) -> None:
        """Put a model under the trainer's care: its mode, steps, learning rate and checkpoints.

        Args:
            name: its name, and that of its folder of checkpoints.
            model: what is saved and loaded.
            optim: its optimiser, None for a model that does not learn.
            sched: its learning rate schedule.

        Raises:
            AttributeError: called before ``TrainerBase.__init__``.
            ValueError: the name is taken.
        """
        if "_models" not in vars(self):
            raise AttributeError("register_model() needs TrainerBase.__init__() to have been called first")
        if name in self._models:
            raise ValueError(f"A model named {name!r} is already registered; the names are {list(self._models)}")
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """Return the registered names, or ``names`` as a list.

        Raises:
            ValueError: one of ``names`` is not registered.
        """
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        unknown = [name for name in names if name not in self._models]
        if unknown:
            raise ValueError(f"No model is registered as {unknown}; the names are {list(self._models)}")
        return names

    def save_model(
        self, epoch: int, directory: str, is_best: bool = False, val_result: float | None = None, model_name: str = ""
    ) -> None:
        """Save every model to ``<directory>/<name>/``.

        Args:
            epoch: index of the epoch just done.
            directory: the run's folder.
            is_best: keep a copy as ``model-best.pth.tar``.
            val_result: kept with it.
            model_name: the file's name, by default ``model.pth.tar-<epoch + 1>``.
        """
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            state = {
                "state_dict": self._models[name].state_dict(),
                "epoch": epoch + 1,
                "optimizer": None if optim is None else optim.state_dict(),
                "scheduler": None if sched is None else sched.state_dict(),
                "val_result": val_result,
            }
            save_checkpoint(state, osp.join(directory, name), is_best=is_best, model_name=model_name)

    def resume_model_if_exist(self, directory: str) -> int:
        """Load the last checkpoints of all models, if each has one.

        Returns:
            the index of the epoch to go on with; 0 if some model has no checkpoint yet.
        """
        folders = {name: osp.join(directory, name) for name in self.get_model_names()}
        if any(last_checkpoint(folder) is None for folder in folders.values()):
            print("No checkpoint found, train from scratch")
            return 0

        print(f"Found checkpoint at {directory} (will resume training)")
        start_epoch = 0
        for name, folder in folders.items():
            start_epoch = resume_from_checkpoint(folder, self._models[name], self._optims[name], self._scheds[name])
        return start_epoch

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load the weights of all models.

        Args:
            directory: the folder of the run that saved them; when empty, nothing is loaded.
            epoch: how many epochs they were trained; None takes the best ones by validation.

        Raises:
            FileNotFoundError: no such checkpoint.
            ValueError: a file that is not a checkpoint.
            RuntimeError: one that does not fit its model.
        """
        if not directory:
            print(
                "Note that load_model() is skipped as no pretrained "
                "model is given (ignore this if it's done on purpose)"
            )
            return

        file_name = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            path = osp.join(directory, name, file_name)
            if not osp.exists(path):
                raise FileNotFoundError(f"No model at {path}")
            checkpoint = load_checkpoint(path)
            require_keys(checkpoint, ("state_dict", "epoch"), path)
            val_result = checkpoint.get("val_result")
            shown = "None" if val_result is None else f"{val_result:.1f}"
            print(f"Load {path} to {name} (epoch={checkpoint['epoch']}, val_result={shown})")
            load_into(self._models[name], checkpoint["state_dict"], path)

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Put models into training ("train") or evaluation mode ("test", "eval").

        Raises:
            KeyError: another mode.
        """
        if mode not in ("train", "test", "eval"):
            raise KeyError(f"A model's mode is train, test or eval, got {mode!r}")
        for name in self.get_model_names(names):
            model = self._models[name]
            model.train() if mode == "train" else model.eval()

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Take one step of the learning rate schedules."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def detect_anomaly(self, loss: torch.Tensor) -> None:
        """Check a loss.

        Raises:
            FloatingPointError: it is infinite or not a number.
        """
        if not torch.isfinite(loss).all():
            raise FloatingPointError("Loss is infinite or NaN!")

    def init_writer(self, log_dir: str) -> None:
        """Open the TensorBoard log, unless one is open."""
        if self._writer is not None:
            return
        print(f"Initialize tensorboard (log_dir={log_dir})")
        # Imported here, since only training writes and the import takes a while.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=log_dir)

    def close_writer(self) -> None:
        """Close the TensorBoard log, if one is open."""
        if self._writer is not None:
            self._writer.close()

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Write a value to the TensorBoard log, if one is open."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Train from epoch ``start_epoch`` (which ``before_train`` may change) until ``max_epoch`` epochs are done."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch

        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020 (of self an attribute is set, only)
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self) -> None:
        """Hook before the first epoch."""

    def after_train(self) -> None:
        """Hook after the last epoch."""

    def before_epoch(self) -> None:
        """Hook before each epoch."""

    def after_epoch(self) -> None:
        """Hook after each epoch."""

    def run_epoch(self) -> None:
        """Train for one epoch."""
        raise NotImplementedError

    def test(self) -> float:
        """Evaluate and return the first figure."""
        raise NotImplementedError

    def parse_batch_train(self, batch: Any) -> Any:
        """Take what training needs from a batch, to the device."""
        raise NotImplementedError

    def parse_batch_test(self, batch: Any) -> Any:
        """Take images and labels from a batch, to the device."""
        raise NotImplementedError

    def forward_backward(self, batch: Any) -> Mapping[str, float | torch.Tensor]:
        """Take one training step and return the values to log."""
        raise NotImplementedError

    def model_inference(self, input: Any) -> torch.Tensor:
        """Return the scores (B, C) of a batch of images."""
        raise NotImplementedError

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        """Clear the gradients of models that have an optimiser."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: torch.Tensor) -> None:
        """Check the loss and compute gradients."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        """Take one step of the optimisers."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: torch.Tensor, names: str | list[str] | None = None) -> None:
        """Clear the gradients, compute them and take one step."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)


class SimpleTrainer(TrainerBase):
    """A trainer of one classifier: data, model and evaluator from the configuration; checkpoints and tests on the way.

    Args:
        cfg: the whole configuration.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = -np.inf

    def check_cfg(self, cfg: Any) -> None:
        """Hook to check the configuration before anything is built."""

    def build_data_loader(self) -> None:
        """Set ``train_loader_x``, ``train_loader_u``, ``val_loader`` (these two may be None), ``test_loader``,
        ``num_classes``, ``num_source_domains``, ``lab2cname`` and ``dm``; an override must set all but ``dm``.
        """
        dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self) -> None:
        """Build and register the model, by default a :class:`SimpleNet`."""
        cfg = self.cfg
        print("Building model")
        self.model: nn.Module = SimpleNet(cfg, cfg.MODEL, self.num_classes)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        print(f"# params: {count_num_param(self.model):,}")
        self.optim: Any = build_optimizer(self.model, cfg.OPTIM)
        self.sched: Any = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)

        device_count = torch.cuda.device_count()
        if device_count > 1:
            print(f"Detected {device_count} GPUs (use nn.DataParallel)")
            self.model = nn.DataParallel(self.model)

    def train(self) -> None:
        """Train from the last checkpoint, or the start, to ``OPTIM.MAX_EPOCH``."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Resume from ``RESUME`` or the output folder, open the TensorBoard log, start the clock."""
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.cfg.OUTPUT_DIR)
        writer_dir = osp.join(self.output_dir, "tensorboard")
        mkdir_if_missing(writer_dir)
        self.init_writer(writer_dir)
        self.time_start = time.time()

    def after_train(self) -> None:
        """Test the model that ``TEST.FINAL_MODEL`` asks for, unless ``TEST.NO_TEST``, and close the log."""
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        print(f"Elapsed: {datetime.timedelta(seconds=round(time.time() - self.time_start))}")
        self.close_writer()

    def after_epoch(self) -> None:
        """Keep the best model by validation, for ``best_val``; save every ``CHECKPOINT_FREQ`` epochs and at the end."""
        cfg, done = self.cfg, self.epoch + 1
        if not cfg.TEST.NO_TEST and cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name="model-best.pth.tar")
        freq = cfg.TRAIN.CHECKPOINT_FREQ
        if done == self.max_epoch or (freq > 0 and done % freq == 0):
            self.save_model(self.epoch, self.output_dir)

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate the model.

        Args:
            split: "val" or "test", by default ``TEST.SPLIT``; without validation data "val" is "test".

        Returns:
            the evaluator's first figure.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()

        if (split or self.cfg.TEST.SPLIT) == "val" and self.val_loader is not None:
            split, data_loader = "val", self.val_loader
        else:
            split, data_loader = "test", self.test_loader
        print(f"Evaluate on the *{split}* set")

        for batch in tqdm(data_loader):
            images, labels = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(images), labels)
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        return next(iter(results.values()))

    def model_inference(self, input: torch.Tensor) -> torch.Tensor:
        """Return the scores (B, C) of a batch of images."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and labels on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """Return the learning rate of the first parameter group of the first model."""
        return self._optims[self.get_model_names(names)[0]].param_groups[0]["lr"]

    def _run_batches(self, batches: Iterable[tuple[Any, ...]], num_batches: int) -> None:
        """Train on ``num_batches`` batches, each the arguments of ``forward_backward``, and log them."""
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = num_batches
        end = time.time()
        for self.batch_idx, batch in enumerate(batches):
            data_time.update(time.time() - end)
            loss_summary = self.forward_backward(*batch)
            batch_time.update(time.time() - end)
            losses.update(loss_summary)

            print_freq, done = self.cfg.TRAIN.PRINT_FREQ, self.batch_idx + 1
            if done % print_freq == 0 or num_batches < print_freq:
                remaining = (self.max_epoch - self.epoch) * num_batches - done
                eta = datetime.timedelta(seconds=int(batch_time.avg * remaining))
                print(
                    f"epoch [{self.epoch + 1}/{self.max_epoch}] "
                    f"batch [{done}/{num_batches}] "
                    f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
                    f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
                    f"{losses} "
                    f"lr {self.get_current_lr():.4e} "
                    f"eta {eta}"
                )

            step = self.epoch * num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(), step)
            end = time.time()


class TrainerX(SimpleTrainer):
    """A trainer on labelled data."""

    def run_epoch(self) -> None:
        """Train once on every batch of ``train_loader_x``."""
        self._run_batches(((batch,) for batch in self.train_loader_x), len(self.train_loader_x))

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return images, labels and domains on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))


class TrainerXU(SimpleTrainer):
    """A trainer on pairs of a labelled and an unlabelled batch."""

    def run_epoch(self) -> None:
        """Train on as many pairs as ``TRAIN.COUNT_ITER`` says; the loader that ends first starts again.

        Raises:
            ValueError: there are no unlabelled images, or ``TRAIN.COUNT_ITER`` is not train_x, train_u or smaller_one.
        """
        if self.train_loader_u is None:
            raise ValueError(f"This trainer needs unlabelled images, which {self.cfg.DATASET.NAME} does not have")
        sizes = len(self.train_loader_x), len(self.train_loader_u)
        counts = {"train_x": sizes[0], "train_u": sizes[1], "smaller_one": min(sizes)}
        count_iter = self.cfg.TRAIN.COUNT_ITER
        if count_iter not in counts:
            raise ValueError(f"TRAIN.COUNT_ITER must be one of {list(counts)}, got {count_iter!r}")
        pairs = self._pairs([self.train_loader_x, self.train_loader_u], counts[count_iter])
        self._run_batches(pairs, counts[count_iter])

    def _pairs(self, loaders: list[DataLoader[Any]], count: int) -> Iterator[tuple[Any, ...]]:
        iterators = [iter(loader) for loader in loaders]
        for _ in range(count):
            pair = []
            for i, loader in enumerate(loaders):
                try:
                    batch = next(iterators[i])
                except StopIteration:
                    iterators[i] = iter(loader)
                    batch = next(iterators[i])
                pair.append(batch)
            yield tuple(pair)

    def parse_batch_train(
        self, batch_x: dict[str, Any], batch_u: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return labelled images, their labels and unlabelled images on the device."""
        return tuple(t.to(self.device) for t in (batch_x["img"], batch_x["label"], batch_u["img"]))
