"""Caltech101 (Fei-Fei et al., CVPR workshops 2004): 100 of its classes, 8,242 images in CoOp's split.

$DATA/caltech-101/101_ObjectCategories/<class>/*.jpg
$DATA/caltech-101/split_zhou_Caltech101.json
"""

from __future__ import annotations

from typing import ClassVar

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset


@DATASET_REGISTRY.register()
class Caltech101(SplitDataset):
    """Caltech101 without its background folder and the second of its two folders of faces."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    ignored_folders = ("BACKGROUND_Google", "Faces_easy")
    renamed_classes: ClassVar = {
        "airplanes": "airplane",
        "Faces": "face",
        "Leopards": "leopard",
        "Motorbikes": "motorbike",
    }
