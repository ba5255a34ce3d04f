"""From a data set's name in the configuration to the data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dassl.utils import Registry, check_availability

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from .base_dataset import DatasetBase

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> DatasetBase:
    """Build the data set that `cfg.DATASET.NAME` names, with the reader registered under that name.

    Raises:
        ValueError: no reader of that name is registered.
    """
    try:
        check_availability(cfg.DATASET.NAME, DATASET_REGISTRY.registered_names())
    except ValueError as error:
        raise ValueError(f"Unknown data set (DATASET.NAME): {error}.") from error
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
