"""What `results.json` of a run holds."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dassl
import torch

from .modules.memory import peak_bytes
from .modules.provenance import origin

if TYPE_CHECKING:
    from .base import ClipTrainer


def describe_run(
    trainer: ClipTrainer,
    split: str,
    metrics: Mapping[str, float],
    n_images: int,
    seconds: float,
    calibration: Mapping | None = None,
) -> dict[str, Any]:
    """What was run, on what, and every metric.

    Args:
        trainer: after its test.
        split: "val" or "test".
        metrics: of the test, all finite.
        n_images: how many images were tested.
        seconds: how long that took.
        calibration: from `read_calibration`; None for none.
    """
    cfg = trainer.cfg
    return {
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "backbone_sha256": trainer.backbone_sha256,
        "seed": cfg.SEED,
        "shots": cfg.DATASET.NUM_SHOTS,
        "classes": cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"),
        "class_names": list(trainer.class_names),
        "model_dir": trainer.model_dir,
        "trained_on": trainer.trained_on,
        "split": split,
        "images": n_images,
        "epoch": trainer.tested_epoch,
        "figures": {name: float(value) for name, value in metrics.items()},
        "calibration": calibration and {key: calibration[key] for key in ("values", "fitted_on")},
        "test_seconds": seconds,
        "train_seconds": trainer.train_seconds,
        "trained_values": sum(value.numel() for value in trainer.trained_state().values()),
        "peak_memory_bytes": peak_bytes(trainer.device) if trainer.peak_is_known else None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "dassl": dassl.__version__,
            **({"cuda": torch.version.cuda} if trainer.device.type == "cuda" else {}),
        },
        "device": torch.cuda.get_device_name() if trainer.device.type == "cuda" else "cpu",
        **origin(),
        "config": json.loads(json.dumps(cfg)),
    }
