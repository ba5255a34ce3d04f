"""Made-up runs for the tests of the report: results, records, logs and images, without training anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from trainers.modules.predictions import write_predictions

NAMES = ("red fish", "blue fish", "green cup")


def arrays(prediction, label, confidence=None, templates=None, uncertainty=None, paths=None) -> dict:
    """The records of a test, with what is not given made up."""
    prediction, label = np.array(prediction, dtype=np.int32), np.array(label, dtype=np.int32)
    n = len(label)
    confidence = np.full(n, 0.8) if confidence is None else np.array(confidence, dtype=np.float64)
    found = {
        "path": np.array([f"images/{index}.png" for index in range(n)] if paths is None else paths, dtype=np.str_),
        "label": label,
        "prediction": prediction,
        "confidence": confidence,
        "label_log_prob": np.full(n, -0.5, dtype=np.float32),
        "entropy": np.full(n, 0.5, dtype=np.float32),
        "sum_of_squares": np.full(n, 0.7, dtype=np.float32),
    }
    if templates is not None:
        templates = np.array(templates, dtype=np.int32)
        found["template_prediction"] = templates
        found["template_confidence"] = np.full(templates.shape, 0.6, dtype=np.float32)
        found["template_uncertainty"] = np.full(templates.shape, 0.1, dtype=np.float32)
        found["uncertainty"] = np.array(np.linspace(0.1, 0.9, n) if uncertainty is None else uncertainty, np.float32)
        found["conflict"] = np.linspace(0.0, 0.6, n, dtype=np.float32)
    return found


def write_run(
    folder: Path, records: dict | None, *, names=NAMES, seed=1, classes="base", data="/nowhere", **more
) -> None:
    """A finished run with these records; without them one of an older version."""
    folder.mkdir(parents=True)
    trainer = more.pop("trainer", "CoOp")
    accuracy = more.pop("accuracy", None)
    if accuracy is None:
        accuracy = 100.0 * float((records["prediction"] == records["label"]).mean())
    content = {
        "trainer": trainer,
        "dataset": "DescribableTextures",
        "backbone": "ViT-B/16",
        "backbone_sha256": "0" * 64,
        "seed": seed,
        "classes": classes,
        "class_names": list(names),
        "split": "test",
        "images": 4,
        "figures": {"accuracy": accuracy},
        "test_seconds": 2.0,
        "versions": {"torch": "2.14.1"},
        "device": "cpu",
        "config": {"OPTIM": {"LR": 0.002}, "DATASET": {"ROOT": str(data)}, "TRAINER": {"NAME": trainer}},
    }
    content["config"]["OPTIM"].update(more.pop("optim", {}))
    content.update(more)
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    if records is not None:
        write_predictions(folder / "predictions.npz", records)


def write_images(folder: Path, number: int) -> None:
    (folder / "images").mkdir(parents=True)
    for index in range(number):
        Image.new("RGB", (200, 100), (40 * index, 90, 30)).save(folder / "images" / f"{index}.png")


def base_to_new(
    output: Path, dataset: str, trainer: str, config: str, seed: int, base: dict, new: dict, **more
) -> None:
    """Both halves of a run."""
    for part, classes, records in (("train_base", "base", base), ("test_new", "new", new)):
        folder = output / "base2new" / part / dataset / "shots_16" / trainer / config / f"seed{seed}"
        write_run(folder, records, trainer=trainer, classes=classes, seed=seed, **more)


_TIMES = "time 0.100 (0.200) data 0.010 (0.020)"
EPOCHS = f"""\
epoch [1/2] batch [1/2] {_TIMES} loss 3.0000 (3.0000) acc 10.0000 (10.0000) lr 1.0e-05 eta 0:00:01
epoch [1/2] batch [2/2] {_TIMES} loss 1.0000 (2.0000) acc 30.0000 (20.0000) lr 1.0e-05 eta 0:00:01
epoch [2/2][2/2]\ttime 0.100 (0.200)\teta 0:00:00\tloss 1.0e-01 (1.5e-01)\tacc 90.0000 (80.0000)\tlr 2.0e-03
"""


def two_systems(output: Path, data: Path) -> None:
    """CoOp and CDC on two data sets with two seeds, with images of the first."""
    write_images(data, 4)
    label = [0, 0, 1, 2]
    for dataset in ("dtd", "eurosat"):
        for seed in (1, 2):
            coop = arrays([0, 1, 1, 1], label, [0.9, 0.8, 0.7, 0.6])
            base_to_new(output, dataset, "CoOp", "vit_b16", seed, coop, coop, data=data)
            templates = [[0, 0], [0, 1], [1, 1], [1, 2]]
            cdc = arrays([0, 0, 1, 1 if seed == 1 else 2], label, [0.99, 0.6, 0.9, 0.95], templates)
            base_to_new(output, dataset, "CDC", "vit_b16", seed, cdc, cdc, data=data, optim={"LR": 0.0035})
    log = output / "base2new" / "train_base" / "dtd" / "shots_16" / "CDC" / "vit_b16" / "seed1" / "log.txt"
    log.write_text(EPOCHS)
