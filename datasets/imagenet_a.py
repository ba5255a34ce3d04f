"""ImageNet-A (Hendrycks et al., CVPR 2021): 7,500 natural images that mislead ResNet-50, of 200 of ImageNet's classes.

$DATA/imagenet-adversarial/imagenet-a/<WordNet id>/*.jpg
$DATA/imagenet-adversarial/classnames.txt              ImageNet's
"""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetVariant


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetVariant):
    """ImageNet-A, tested among its own 200 classes; their labels, 0 to 199, are not those of ImageNet."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    ignored_folders = ("README.txt",)
