"""The numbers that the CDC paper prints, and the data sets in its order.

Source: the tables of "Rethinking Misalignment in Vision-Language Model Adaptation from a Causal Perspective" (CDC;
Zhang et al., NeurIPS 2024): CLIP's ViT-B/16, 16 shots, mean of three seeds. Those of CLIP, CoOp, CoCoOp and MaPLe are
as printed there; they go back to these methods' own papers. All are accuracies in percent. Trainers are called as in
this project and in CoOp, data sets by their config files.

Two of CoOp's numbers do not follow from the others, and stand here as they are: new classes of Caltech101 (89.91; with
89.81 the harmonic mean 93.73 and the average 63.22 come out) and the harmonic mean of EuroSAT (68.90, where base and
new give 68.69).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

SOURCE = "the CDC paper (Zhang et al., NeurIPS 2024): ViT-B/16, 16 shots, mean of 3 seeds"
BACKBONE = "ViT-B/16"
BACKBONE_FILE = "ViT-B-16.pt"  # as OpenAI publishes it
SHOTS = 16

# Config file -> name, in the paper's order
DATASETS = {
    "imagenet": "ImageNet",
    "caltech101": "Caltech101",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "oxford_flowers": "Flowers102",
    "food101": "Food101",
    "fgvc_aircraft": "FGVCAircraft",
    "sun397": "SUN397",
    "dtd": "DTD",
    "eurosat": "EuroSAT",
    "ucf101": "UCF101",
    "imagenetv2": "ImageNetV2",
    "imagenet_sketch": "ImageNet-Sketch",
    "imagenet_a": "ImageNet-A",
    "imagenet_r": "ImageNet-R",
}

# In its order, too
TRAINERS = ("ZeroshotCLIP", "ZeroshotCLIP2", "CoOp", "CoCoOp", "MaPLe", "CDC")

# Base, new, harmonic mean; the rows in the order of DATASETS, the average last
_BASE_TO_NEW = {
    "CoOp": (
        (76.47, 67.88, 71.92),
        (98.00, 89.91, 93.73),
        (93.67, 95.29, 94.47),
        (78.12, 60.40, 68.13),
        (97.60, 59.67, 74.06),
        (88.33, 82.26, 85.19),
        (40.44, 22.30, 28.75),
        (80.60, 65.89, 72.51),
        (79.44, 41.18, 54.24),
        (92.19, 54.74, 68.90),
        (84.69, 56.05, 67.46),
        (82.69, 63.22, 71.66),
    ),
    "CoCoOp": (
        (75.98, 70.43, 73.10),
        (97.96, 93.81, 95.84),
        (95.20, 97.69, 96.43),
        (70.49, 73.59, 72.01),
        (94.87, 71.75, 81.71),
        (90.70, 91.29, 90.99),
        (33.41, 23.71, 27.74),
        (79.74, 76.86, 78.27),
        (77.01, 56.00, 64.85),
        (87.49, 60.04, 71.21),
        (82.33, 73.45, 77.64),
        (80.47, 71.69, 75.83),
    ),
    "MaPLe": (
        (76.66, 70.54, 73.47),
        (97.74, 94.36, 96.02),
        (95.43, 97.76, 96.58),
        (72.94, 74.00, 73.47),
        (95.92, 72.46, 82.56),
        (90.71, 92.05, 91.38),
        (37.44, 35.61, 36.50),
        (80.82, 78.70, 79.75),
        (80.36, 59.18, 68.16),
        (94.07, 73.23, 82.35),
        (83.00, 78.66, 80.77),
        (82.28, 75.14, 78.55),
    ),
    "CDC": (
        (77.50, 71.73, 74.51),
        (98.20, 94.37, 96.25),
        (96.07, 98.00, 97.02),
        (73.80, 73.97, 73.88),
        (96.93, 75.07, 84.61),
        (90.87, 92.33, 91.59),
        (37.47, 37.50, 37.48),
        (82.37, 80.03, 81.18),
        (82.70, 64.10, 72.22),
        (95.10, 82.33, 88.26),
        (85.70, 81.73, 83.67),
        (83.34, 77.38, 80.25),
    ),
}

# Trained on ImageNet: its own accuracy, those of the ten other sets, and the average of these ten
_CROSS_DATASET = {
    "CoOp": (71.51, 93.70, 89.14, 64.51, 68.71, 85.30, 18.47, 64.15, 41.92, 46.39, 66.55, 63.88),
    "CoCoOp": (71.02, 94.43, 90.14, 65.32, 71.88, 86.06, 22.94, 67.36, 45.73, 45.37, 68.21, 65.74),
    "MaPLe": (70.72, 93.53, 90.49, 65.57, 72.23, 86.20, 24.74, 67.01, 46.49, 48.06, 68.69, 66.30),
    "CDC": (71.76, 94.47, 90.77, 66.27, 72.67, 86.27, 24.50, 68.07, 46.60, 49.13, 68.60, 66.73),
}

# Trained on ImageNet: its own accuracy, those of its four variants, and the average of these four
_DOMAIN_GENERALISATION = {
    "ZeroshotCLIP": (66.73, 60.83, 46.15, 47.77, 73.96, 57.18),
    "CoOp": (71.51, 64.20, 47.99, 49.71, 75.21, 59.28),
    "CoCoOp": (71.02, 64.07, 48.75, 50.63, 76.18, 59.91),
    "MaPLe": (70.72, 64.07, 49.15, 50.90, 76.98, 60.28),
    "CDC": (71.76, 64.87, 50.33, 50.40, 78.10, 60.93),
}


def numbers(protocol: str) -> dict[str, dict[str, dict[str, float]]]:
    """The paper's numbers of a protocol.

    Args:
        protocol: base2new, xd or dg.

    Returns:
        By trainer and data set ("average" for the paper's own average, which in xd and dg leaves the source out) the
        figures: Base, New and HM, or Accuracy.

    Raises:
        ValueError: the paper prints no table of this protocol.
    """
    names = list(DATASETS)
    if protocol == "base2new":
        rows = [*names[:11], "average"]
        return {
            trainer: {row: dict(zip(("Base", "New", "HM"), figures)) for row, figures in zip(rows, table)}
            for trainer, table in _BASE_TO_NEW.items()
        }
    if protocol == "xd":
        rows = [*names[:11], "average"]
        tables: Mapping[str, tuple[float, ...]] = _CROSS_DATASET
    elif protocol == "dg":
        rows, tables = [names[0], *names[11:], "average"], _DOMAIN_GENERALISATION
    else:
        raise ValueError(f"the paper prints tables of base2new, xd and dg, none of {protocol}")
    return {
        trainer: {row: {"Accuracy": figure} for row, figure in zip(rows, table)} for trainer, table in tables.items()
    }


def is_backbone(name: str) -> bool:
    """Whether a run's backbone, a name or a path, is the paper's: by OpenAI's name, or by that of OpenAI's file."""
    return name == BACKBONE or PurePath(name).name == BACKBONE_FILE


def display_name(dataset: str) -> str:
    """A data set's name in the paper; of others that of the config file."""
    return DATASETS.get(dataset, dataset)


def in_order(datasets) -> list[str]:
    """Data sets in the paper's order, those that it does not have behind them by name."""
    order = {name: index for index, name in enumerate(DATASETS)}
    return sorted(datasets, key=lambda name: (order.get(name, len(order)), name))
