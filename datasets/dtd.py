"""Describable Textures (DTD, Cimpoi et al., CVPR 2014): 47 textures, 5,640 images.

$DATA/dtd/images/<texture>/*.jpg
$DATA/dtd/split_zhou_DescribableTextures.json
"""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset


@DATASET_REGISTRY.register()
class DescribableTextures(SplitDataset):
    """DTD in CoOp's layout, under CoOp's name; without a split file, half of each class is for training."""

    dataset_dir = "dtd"
    split_file = "split_zhou_DescribableTextures.json"
