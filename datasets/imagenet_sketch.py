"""ImageNet-Sketch (Wang et al., NeurIPS 2019): 50,889 sketches of ImageNet's classes.

$DATA/imagenet-sketch/images/<WordNet id>/*.JPEG
$DATA/imagenet-sketch/classnames.txt              ImageNet's
"""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetVariant


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetVariant):
    """ImageNet-Sketch, with ImageNet's labels."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"
