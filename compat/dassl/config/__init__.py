"""The configuration: Dassl's defaults as a yacs node, for trainers to extend and YAML files to change."""

from __future__ import annotations

from yacs.config import CfgNode

from .defaults import DEFAULTS

__all__ = ["cfg_default", "clean_cfg", "get_cfg_default"]

# One node for the process: a trainer that adds its own keys here does it before `get_cfg_default` is called.
cfg_default = CfgNode(DEFAULTS)


def get_cfg_default() -> CfgNode:
    """Return a deep copy of the default configuration, free to be changed."""
    return cfg_default.clone()


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Drop, in place, the sections of all trainers but one, so that `print(cfg)` shows what matters.

    Args:
        cfg: a configuration with a `TRAINER` section.
        trainer: the trainer to keep; its section is the name in capitals.
    """
    kept = {"NAME", trainer.upper()}
    for section in [key for key in cfg.TRAINER if key not in kept]:
        cfg.TRAINER.pop(section)
