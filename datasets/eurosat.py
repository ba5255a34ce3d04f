"""EuroSAT (Helber et al., IEEE JSTARS 2019): 10 kinds of land cover seen by Sentinel-2, 27,000 images.

$DATA/eurosat/2750/<class>/*.jpg
$DATA/eurosat/split_zhou_EuroSAT.json
"""

from __future__ import annotations

from typing import ClassVar

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset


@DATASET_REGISTRY.register()
class EuroSAT(SplitDataset):
    """EuroSAT's RGB images; classes are called by words in place of the folders' CamelCase."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    renamed_classes: ClassVar = {
        "AnnualCrop": "Annual Crop Land",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "SeaLake": "Sea or Lake",
    }
