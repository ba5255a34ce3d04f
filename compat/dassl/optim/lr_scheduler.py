"""Learning rate schedules, one step per epoch, built from ``cfg.OPTIM``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, StepLR, _LRScheduler

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler  # since PyTorch 2.0

__all__ = ["AVAI_SCHEDS", "ConstantWarmupScheduler", "LinearWarmupScheduler", "build_lr_scheduler"]

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]


class _PlainMultiStepLR(MultiStepLR):
    """PyTorch's, with a state of plain data: before 2.5 ``torch.load(weights_only=True)`` refuses its ``Counter``."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, the milestones as a dictionary."""
        return {**super().state_dict(), "milestones": dict(self.milestones)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state with milestones of either kind."""
        super().load_state_dict({**state_dict, "milestones": Counter(state_dict["milestones"])})


class _BaseWarmupScheduler(_LRScheduler):
    """A first phase of ``warmup_epoch`` epochs before another scheduler, the successor.

    The successor stands still during the warm-up. In epoch ``warmup_epoch`` the learning rate is the one that the
    successor started with; each later step is the successor's.
    """

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, last_epoch: int = -1) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def warmup_lr(self) -> list[Any]:
        """Return the learning rate of each parameter group in epoch ``last_epoch`` of the warm-up."""
        raise NotImplementedError

    def get_lr(self) -> list[Any]:
        return self.successor.get_last_lr() if self.last_epoch >= self.warmup_epoch else self.warmup_lr()

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch < self.warmup_epoch:
            super().step(epoch)
            return
        self.successor.step(epoch)
        self._last_lr = self.successor.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data, the successor's state in place of the successor."""
        state = {key: value for key, value in vars(self).items() if key != "optimizer"}
        return {**state, "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; the successor goes on with this scheduler's optimiser.

        Upstream replaces its successor by the saved one, which holds the optimiser that was saved with it. So after
        resuming, no step changes the learning rate in use.
        """
        state = dict(state_dict)
        self.successor.load_state_dict(state.pop("successor"))
        vars(self).update(state)


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    """Warm-up at one learning rate, ``cons_lr``."""

    def __init__(
        self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, cons_lr: float, last_epoch: int = -1
    ) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[Any]:
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_BaseWarmupScheduler):
    """Warm-up at ``min_lr`` in the first epoch and ``base_lr * epoch / warmup_epoch`` in the next ones."""

    def __init__(
        self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, min_lr: float, last_epoch: int = -1
    ) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[Any]:
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: Any) -> LRScheduler:
    """Build the schedule that ``cfg.OPTIM.LR_SCHEDULER`` names, after a warm-up when ``WARMUP_EPOCH`` is above 0.

    With ``WARMUP_RECOUNT`` the schedule counts its epochs from the warm-up's end; without, the warm-up's epochs count
    as done, though the schedule still starts from the full learning rate.

    Args:
        optimizer: whose learning rates are set.
        optim_cfg: ``cfg.OPTIM``.

    Raises:
        ValueError: an unknown schedule or kind of warm-up.
        TypeError: ``STEPSIZE`` does not suit the schedule.
    """
    cfg = optim_cfg
    if cfg.LR_SCHEDULER not in AVAI_SCHEDS:
        raise ValueError(f"OPTIM.LR_SCHEDULER must be one of {AVAI_SCHEDS}, got {cfg.LR_SCHEDULER!r}")

    if cfg.LR_SCHEDULER == "single_step":
        stepsize = cfg.STEPSIZE[-1] if isinstance(cfg.STEPSIZE, (list, tuple)) else cfg.STEPSIZE
        if not isinstance(stepsize, int):
            raise TypeError(
                f"For single_step OPTIM.STEPSIZE must be a whole number, or end in one, got {cfg.STEPSIZE!r}"
            )
        scheduler: LRScheduler = StepLR(
            optimizer, step_size=stepsize if stepsize > 0 else cfg.MAX_EPOCH, gamma=cfg.GAMMA
        )
    elif cfg.LR_SCHEDULER == "multi_step":
        if not isinstance(cfg.STEPSIZE, (list, tuple)):
            raise TypeError(f"For multi_step OPTIM.STEPSIZE must be a list of epochs, got {cfg.STEPSIZE!r}")
        scheduler = _PlainMultiStepLR(optimizer, milestones=cfg.STEPSIZE, gamma=cfg.GAMMA)
    else:
        n_epochs: Any = float(cfg.MAX_EPOCH)  # as upstream keeps it in checkpoints
        scheduler = CosineAnnealingLR(optimizer, n_epochs)

    if cfg.WARMUP_EPOCH <= 0:
        return scheduler
    if not cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = cfg.WARMUP_EPOCH
    if cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, cfg.WARMUP_EPOCH, cfg.WARMUP_CONS_LR)
    if cfg.WARMUP_TYPE == "linear":
        return LinearWarmupScheduler(optimizer, scheduler, cfg.WARMUP_EPOCH, cfg.WARMUP_MIN_LR)
    raise ValueError(f"OPTIM.WARMUP_TYPE must be constant or linear, got {cfg.WARMUP_TYPE!r}")
