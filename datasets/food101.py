"""Food-101 (Bossard et al., ECCV 2014): 101 dishes, 1,000 images each.

$DATA/food-101/images/<dish>/*.jpg
$DATA/food-101/split_zhou_Food101.json
"""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset


@DATASET_REGISTRY.register()
class Food101(SplitDataset):
    """Food-101 with CoOp's split, which is not the one in the set's own `meta/`."""

    dataset_dir = "food-101"
    split_file = "split_zhou_Food101.json"
