"""Registries of backbones, heads and networks.

They are empty: Dassl's own backbones are for training from images, and CoOp-family code builds none of them, its models
are CLIP's. A lab's own can be registered and built as with Dassl.
"""

from __future__ import annotations

from .build import (
    BACKBONE_REGISTRY,
    HEAD_REGISTRY,
    NETWORK_REGISTRY,
    Backbone,
    build_backbone,
    build_head,
    build_network,
)

__all__ = [
    "BACKBONE_REGISTRY",
    "HEAD_REGISTRY",
    "NETWORK_REGISTRY",
    "Backbone",
    "build_backbone",
    "build_head",
    "build_network",
]
