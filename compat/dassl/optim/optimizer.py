"""Optimisers, built from ``cfg.OPTIM``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .radam import RAdam

__all__ = ["AVAI_OPTIMS", "build_optimizer"]

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(
    model: nn.Module | Iterable[Any], optim_cfg: Any, param_groups: Iterable[Any] | None = None
) -> torch.optim.Optimizer:
    """Build the optimiser that ``cfg.OPTIM.NAME`` names.

    Args:
        model: a module, all of whose parameters are taken, or parameters or parameter groups.
        optim_cfg: ``cfg.OPTIM``.
        param_groups: taken in the model's place when given; ``STAGED_LR`` then has no effect.

    Raises:
        ValueError: ``NAME`` is not one of :data:`AVAI_OPTIMS`.
        TypeError: ``STAGED_LR`` is on and ``model`` is not a module.
    """
    cfg = optim_cfg
    if cfg.NAME not in AVAI_OPTIMS:
        raise ValueError(f"OPTIM.NAME must be one of {AVAI_OPTIMS}, got {cfg.NAME!r}")

    if param_groups is not None:
        if cfg.STAGED_LR:
            warnings.warn("OPTIM.STAGED_LR has no effect on given parameter groups; set their 'lr'", stacklevel=2)
    elif cfg.STAGED_LR:
        param_groups = _staged(model, cfg)
    else:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model

    common: dict[str, Any] = {"lr": cfg.LR, "weight_decay": cfg.WEIGHT_DECAY}
    betas = (cfg.ADAM_BETA1, cfg.ADAM_BETA2)
    if cfg.NAME == "sgd":
        return torch.optim.SGD(
            param_groups, momentum=cfg.MOMENTUM, dampening=cfg.SGD_DAMPNING, nesterov=cfg.SGD_NESTEROV, **common
        )
    if cfg.NAME == "rmsprop":
        return torch.optim.RMSprop(param_groups, momentum=cfg.MOMENTUM, alpha=cfg.RMSPROP_ALPHA, **common)
    if cfg.NAME == "radam":
        return RAdam(param_groups, betas=betas, **common)
    if cfg.NAME == "adamw":
        return torch.optim.AdamW(param_groups, betas=betas, **common)
    return torch.optim.Adam(param_groups, betas=betas, amsgrad=cfg.NAME == "amsgrad", **common)


def _staged(model: Any, cfg: Any) -> list[dict[str, Any]]:
    """Split a module's children into old ones, at ``LR * BASE_LR_MULT``, and ``NEW_LAYERS``, at ``LR``."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"With OPTIM.STAGED_LR the model must be an nn.Module, got {type(model).__name__}")
    if isinstance(model, nn.DataParallel):
        model = model.module
    new_layers = [cfg.NEW_LAYERS] if isinstance(cfg.NEW_LAYERS, str) else cfg.NEW_LAYERS
    if not any(name in new_layers for name, _ in model.named_children()):
        warnings.warn(f"OPTIM.STAGED_LR has no effect: no layer is in OPTIM.NEW_LAYERS, {new_layers}", stacklevel=3)

    old: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, child in model.named_children():
        (new if name in new_layers else old).extend(child.parameters())
    return [{"params": old, "lr": cfg.LR * cfg.BASE_LR_MULT}, {"params": new}]
