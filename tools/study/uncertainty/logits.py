"""Methods that are measured by their logits, before and after one temperature is fitted.

Legend: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import compat  # noqa: F401  makes `import dassl` work; stands before it

import numpy as np
import torch
from dassl.data.datasets import build_dataset
from dassl.utils import set_random_seed
from numpy.typing import NDArray

from storage.files import atomic_write
from tools.calibrate.fit import compute_outputs
from tools.predict import feature_file, features
from tools.predict.trained import read_run, test_views
from tools.study.uncertainty.measure import figures_of
from trainers.base import ClipTrainer
from trainers.modules.calibration import fit_temperature
from trainers.modules.predictions import Arrays, Predictions


def write_logits(path: Path, base: list[str], new: list[str], far: Sequence[list[str]]) -> None:
    """A run's logits on the images that the study needs, into an .npz file.

    Args:
        path: of the file. It holds `val`, `base` and `new`, each `(N, C)`, with `<name>_label` `(N,)`; and under the
            names of base classes `unknown`, the images of new ones, and `far0`, `far1` of other data sets.
        base, new, far: command lines of `tools.predict.features` for base and new classes and each other data set.

    Raises:
        OSError, ValueError: as `feature_file.build` and `compute_outputs`.
    """
    trainer, dataset = feature_file.build(features.parse_arguments(base))
    content: dict[str, Any] = {}
    for name, split in (("val", "val"), ("base", "test")):
        images = feature_file.list_images(dataset, split)
        content[name], content[f"{name}_label"] = logits_of(trainer, images.paths), np.array(images.labels)
    other, dataset = feature_file.build(features.parse_arguments(new))
    images = feature_file.list_images(dataset, "test")
    content["new"], content["new_label"] = logits_of(other, images.paths), np.array(images.labels)
    content["unknown"] = logits_of(trainer, images.paths)
    for number, arguments in enumerate(far):
        args = features.parse_arguments(arguments)
        cfg = feature_file.build_cfg(args, read_run(args.model_dir))
        set_random_seed(cfg.SEED)  # which the set's few-shot images are drawn from, though none is taken
        dataset = build_dataset(cfg)
        content[f"far{number}"] = logits_of(trainer, feature_file.list_images(dataset, "test").paths)
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, **content)


def logits_of(trainer: ClipTrainer, paths: list[str]) -> NDArray:
    """A trainer's logits `(N, C)` of image files."""
    return compute_outputs(trainer, paths, test_views(trainer), workers=0).numpy()


def measure_logits(content: Mapping[str, NDArray]) -> tuple[dict[str, float], dict[str, float]]:
    """Figures as of `figures_of` before and after a temperature that is fitted on the validation images.

    Args:
        content: of a file of `write_logits`.
    """
    temperature = fit_temperature(torch.from_numpy(content["val"]), torch.from_numpy(content["val_label"]))

    def figures(divisor: float) -> dict[str, float]:
        def judged(name: str) -> Arrays:
            logits = torch.from_numpy(content[name]).double() / divisor
            label = content.get(f"{name}_label", np.zeros(len(logits), dtype=np.int64))
            kept = Predictions()
            kept.add(logits, torch.from_numpy(label), [""] * len(logits), {})
            return kept.arrays()

        far = [judged(name) for name in content if name.startswith("far")]
        return figures_of(judged("base"), judged("new"), judged("unknown"), far)

    return figures(1.0), figures(temperature.values["temperature"])
