"""What trainers with learnable prompts share: the training step, and what is done before and after it."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import Tensor
from torch.optim.lr_scheduler import _LRScheduler

from .checkpointing import CheckpointedTrainer
from .feature_bank import bank_problems, choose_source
from .modules import ranks
from .modules.random_state import get_random_state
from .modules.tensorboard_events import drop_events, naming, writer_tells_once


class Diverged(FloatingPointError):
    """A training whose loss or parameters are infinite or not a number."""


class PromptTrainer(CheckpointedTrainer):
    """A frozen CLIP under learnable prompts.

    A subclass's `build_clip` sets `self.model`, whose `prompt_learner` alone is trained and kept in checkpoints, and
    its `loss` says what is minimised.

    Attributes:
        used_parameters: which of the learner's the loss depends on; None before the first step.
        in_one_epoch: whether training is one pass, whatever OPTIM.MAX_EPOCH says.
    """

    used_parameters: list[bool] | None = None
    _log_dir = ""  # of TensorBoard
    in_one_epoch = False

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one training batch, and what to log of it by name."""
        raise NotImplementedError

    def config_problems(self, cfg, options) -> list[str]:
        return super().config_problems(cfg, options) + bank_problems(cfg, options)

    def augmentations(self) -> list[Sequence[str]] | None:
        """Each template's training transforms by name; None where one view, of `INPUT.TRANSFORMS`, is for all."""
        return None

    def views(self, batch: dict) -> Tensor:
        """What the image encoder sees of a batch: `(B, 3, S, S)`, or a view per template, `(M, B, 3, S, S)`."""
        return self.to_device(batch["img"])

    def build_data_loader(self) -> None:
        start = self.cfg.MODEL.INIT_WEIGHTS
        if start and not Path(start).is_file():
            raise FileNotFoundError(f"no checkpoint at {start}")
        super().build_data_loader()
        self.feature_source = choose_source(self)
        self.train_loader_x = self.feature_source.loader()

    def before_train(self) -> None:
        self._check_choice()
        self.feature_source.prepare()  # before the clock of training starts, as other runs may find a bank there
        super().before_train()
        self.epoch = max(self.start_epoch - 1, 0)  # of the test, where all epochs are done

    def before_epoch(self) -> None:
        super().before_epoch()
        if ranks.size() > 1:  # else features of different images would be put together
            images = [(item.label, os.path.basename(item.impath)) for item in self.dm.dataset.train_x]
            state = get_random_state()
            drawn = repr((self.epoch, self.class_names, images, state["python"], state["numpy"])).encode()
            tensors = [state["torch"], *(value.detach().cpu() for value in self.learner.parameters())]
            ranks.check_same(
                drawn + b"".join(value.numpy().tobytes() for value in tensors), f"before epoch {self.epoch + 1}"
            )

    def _check_choice(self) -> None:
        """Raise ValueError if the best epoch would be chosen on images that the run is tested on."""
        if self.cfg.TEST.NO_TEST or self.cfg.TEST.FINAL_MODEL != "best_val":
            return
        of_test = {item.impath for item in self.dm.dataset.test or ()}
        own = {item.impath for item in self.dm.dataset.val or ()}
        if self.val_loader is None or own & of_test:
            has = f"{len(own & of_test):,} are test images, too" if own else "there are none"
            raise ValueError(
                f"TEST.FINAL_MODEL best_val chooses the epoch on validation images, of which {has} in "
                f"{self.cfg.DATASET.NAME}: it would be chosen on test images; TEST.FINAL_MODEL last_step chooses none"
            )

    def train(self) -> None:  # type: ignore[override]
        try:
            with writer_tells_once():
                super().train()
        except Diverged:
            self._set_checkpoints_aside()
            raise
        except FloatingPointError as error:  # of a test: parameters can be finite, and what follows from them not
            self._set_checkpoints_aside()
            raise Diverged(
                f"training diverges: in the test after epoch {self.trained_epochs} {error}; try a smaller OPTIM.LR "
                f"than {self.cfg.OPTIM.LR:g}"
            ) from error

    def init_writer(self, log_dir: str) -> None:
        """Open TensorBoard's log, without what an interrupted run has logged after its last checkpoint."""
        if getattr(self, "_writer", None) is None:
            drop_events(log_dir, self.start_epoch * len(self.train_loader_x), self.start_epoch)
        with naming(log_dir):
            super().init_writer(log_dir)
        self._log_dir = log_dir

    def write_scalar(self, tag, scalar_value, global_step=None) -> None:
        with naming(self._log_dir):
            super().write_scalar(tag, scalar_value, global_step)

    def write_results(self, *found) -> None:
        """As any trainer, once TensorBoard's log is written."""
        if getattr(self, "_writer", None) is not None:
            with naming(self._log_dir):
                self._writer.flush()
        super().write_results(*found)

    def train_features(self, batch: dict) -> Tensor:
        """L2-normalised features `(B, D)` or `(M, B, D)` of a training batch."""
        return self.model.project(self.feature_source.features(batch))

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

        All values are copied from the device at once, after the step: to ask for each would make the host wait for
        each.

        Raises:
            Diverged: the loss is infinite or not a number.
            KeyboardInterrupt: Ctrl-C came.
        """
        summary = self.step(batch)
        values = torch.stack([value.detach().float().reshape(()) for value in summary.values()]).tolist()
        logged = dict(zip(summary, values))
        if not math.isfinite(logged["loss"]):
            raise Diverged(
                f"training diverges: the loss is {logged['loss']} in epoch {self.epoch + 1}, batch "
                f"{self.batch_idx + 1}, at the learning rate {self.get_current_lr():g}; try a smaller OPTIM.LR"
            )
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
            self._add_to_average()
        self.interrupts.check()
        return logged

    def _add_to_average(self) -> None:
        """After the last step of an epoch."""
        if self.average:
            parameters = dict(self.learner.named_parameters())
            self.average.add(parameters)
            if self.average.complete:
                with torch.no_grad():
                    for name, value in self.average.total.items():
                        parameters[name].copy_(value)

    def step(self, batch: dict) -> dict[str, Tensor]:
        """Forward and backward pass and the optimizer's step, without waiting for a GPU.

        Only with `amp` the host waits: the scaler checks whether a gradient overflowed before the optimizer's step.

        Returns:
            The loss, as `loss`, and what else is logged, each a tensor of one element.
        """
        self.optim.zero_grad()  # first, as a loss may need the memory that the last step's gradients have
        loss, summary = self.loss(batch)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        self.used_parameters = ranks.average_gradients(self.learner.parameters(), self.used_parameters)
        if self.scaler is None:
            self.optim.step()
        else:
            self.scaler.step(self.optim)
            self.scaler.update()
        return {"loss": loss, **summary}

    def after_epoch(self) -> None:
        diverged = [name for name, parameter in self.learner.named_parameters() if not parameter.isfinite().all()]
        if diverged:
            raise Diverged(
                f"training diverges: {', '.join(diverged)} is infinite or not a number after epoch {self.epoch + 1}; "
                f"try a smaller OPTIM.LR than {self.cfg.OPTIM.LR:g}"
            )
        self.trained_epochs = self.epoch + 1
        self.trained_on = self._training_data()
        super().after_epoch()

    def image_features(self, images: Tensor) -> Tensor:
        return self.model.image_features(images)

    def class_features(self) -> Tensor | None:
        return self.model.text_features()

    def after_train(self) -> None:
        self.train_seconds = self._seconds_until_now()  # the test is not training
        super().after_train()


class LogitTrainer(PromptTrainer):
    """A PromptTrainer trained with cross-entropy on `self.model.logits(features)`, `(B, C)` in float32.

    It logs the names that CoOp logs, loss and acc; the published CoCoOp and MaPLe log the loss alone.
    """

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        label = self.to_device(batch["label"])
        logits = self.model.logits(self.train_features(batch))
        return F.cross_entropy(logits, label), {"acc": compute_accuracy(logits, label)[0]}


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
    """For a Dassl that passes `verbose` to PyTorch's schedulers, which no longer take it."""
    init = _LRScheduler.__init__
    if "verbose" not in inspect.signature(init).parameters:

        def init_without(self, optimizer, last_epoch=-1, verbose=False):
            init(self, optimizer, last_epoch)

        _LRScheduler.__init__ = init_without  # type: ignore[method-assign]
    try:
        yield
    finally:
        _LRScheduler.__init__ = init  # type: ignore[method-assign]
