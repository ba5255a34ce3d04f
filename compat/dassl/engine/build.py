"""The registry of trainers."""

from __future__ import annotations

from typing import Any

from dassl.utils import Registry, check_availability

__all__ = ["TRAINER_REGISTRY", "build_trainer"]

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: Any) -> Any:
    """Build the trainer that ``cfg.TRAINER.NAME`` names.

    Raises:
        ValueError: no such trainer.
    """
    name = cfg.TRAINER.NAME
    check_availability(name, TRAINER_REGISTRY.registered_names())
    if cfg.VERBOSE:
        print(f"Loading trainer: {name}")
    return TRAINER_REGISTRY.get(name)(cfg)
