"""ImageNet-R (Hendrycks et al., ICCV 2021): 30,000 renditions (art, toys, ...) of 200 of ImageNet's classes.

$DATA/imagenet-rendition/imagenet-r/<WordNet id>/*.jpg
$DATA/imagenet-rendition/classnames.txt              ImageNet's
"""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetVariant


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetVariant):
    """ImageNet-R, tested among its own 200 classes; their labels, 0 to 199, are not those of ImageNet."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    ignored_folders = ("README.txt",)
