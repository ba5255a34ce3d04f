"""What an installed Dassl (2022) needs to run with today's PyTorch, put right in memory; its files stay as they are.

- Its warm-up schedulers hand ``verbose`` to PyTorch's base class, which no longer takes it.
- Its checkpoints hold the scheduler that follows the warm-up as an object, which ``torch.load`` refuses by default. New
  ones hold that scheduler's state as plain data; older ones are read with an allow-list of exactly what they hold.
- Its `read_image` hands on what PIL says of a cut-off image, without the file's name.
- Its AutoAugment and RandAugment write ``np.int``, which NumPy 1.24 took away.
- Its data package imports gdown, wilds and pandas, for downloads and three data sets that CoOp-family code leaves
  alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import _LRScheduler

__all__ = ["mend"]


def mend() -> list[str]:
    """Mend the installed Dassl and return what was mended, for the log."""
    mended = []
    if _stand_in_for_missing_packages():
        mended.append("imports of packages that are not installed")
    if not hasattr(np, "int"):
        vars(np)["int"] = int
        mended.append("numpy's int")
    _name_broken_images()
    mended.append("names of broken images")
    if _mend_warmup():
        mended.append("warm-up schedulers")
    if _mend_checkpoints():
        mended.append("checkpoints")
    return mended


def _stand_in_for_missing_packages() -> bool:
    """Import Dassl's data package once with stand-ins for what it needs and does not find; nobody else sees them."""
    stand_ins = {}
    if importlib.util.find_spec("gdown") is None:
        stand_ins["gdown"] = ModuleType("gdown")
        vars(stand_ins["gdown"])["download"] = _refuse_download
    if any(importlib.util.find_spec(name) is None for name in ("wilds", "pandas")):
        stand_ins["dassl.data.datasets.dg.wilds"] = ModuleType("dassl.data.datasets.dg.wilds")
    if not stand_ins:
        return False
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("dassl.data")
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return True


def _refuse_download(url: str, *_: Any, **__: Any) -> None:
    raise ModuleNotFoundError(f"Downloading {url} needs the package gdown, which is not installed: pip install gdown")


def _mend_warmup() -> bool:
    module = importlib.import_module("dassl.optim.lr_scheduler")
    if "verbose" in inspect.signature(_LRScheduler.__init__).parameters:
        return False

    def init(
        self: Any, optimizer: Any, successor: Any, warmup_epoch: int, last_epoch: int = -1, verbose: bool = False
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        _LRScheduler.__init__(self, optimizer, last_epoch)

    module._BaseWarmupScheduler.__init__ = init
    return True


def _mend_checkpoints() -> bool:
    if torch.__version__ < "2.6":  # torch.load takes all by default
        return False
    embedded = _embedded("optim.lr_scheduler")._BaseWarmupScheduler
    upstream = importlib.import_module("dassl.optim.lr_scheduler")._BaseWarmupScheduler
    upstream.state_dict = embedded.state_dict
    upstream.load_state_dict = embedded.load_state_dict
    _replace("load_checkpoint", "utils.torchtools")
    return True


def _name_broken_images() -> None:
    _replace("read_image", "utils.tools")


def _embedded(module: str) -> ModuleType:
    """A module of the embedded Dassl, under a name that the installed one leaves free."""
    return importlib.import_module(f".dassl.{module}", __package__)


def _replace(function: str, module: str) -> None:
    """Put a function of the embedded Dassl in the place of the installed one's, wherever Dassl has imported it."""
    by = getattr(_embedded(module), function)
    replaced = getattr(importlib.import_module(f"dassl.{module}"), function)
    for name, loaded in list(sys.modules.items()):
        if name.split(".")[0] == "dassl" and getattr(loaded, function, None) is replaced:
            setattr(loaded, function, by)
