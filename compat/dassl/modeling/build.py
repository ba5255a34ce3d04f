"""Building registered backbones, heads and networks."""

from __future__ import annotations

from typing import Any

from dassl.utils import Registry
from torch import nn

__all__ = [
    "BACKBONE_REGISTRY",
    "HEAD_REGISTRY",
    "NETWORK_REGISTRY",
    "Backbone",
    "build_backbone",
    "build_head",
    "build_network",
]

BACKBONE_REGISTRY = Registry("BACKBONE")
HEAD_REGISTRY = Registry("HEAD")
NETWORK_REGISTRY = Registry("NETWORK")


class Backbone(nn.Module):
    """Base of feature extractors, which set ``_out_features``."""

    @property
    def out_features(self) -> int | None:
        """The width of the features, None as long as it is not set."""
        return self.__dict__.get("_out_features")


def _build(kind: str, registry: Registry, name: str, verbose: bool, **kwargs: Any) -> Any:
    names = registry.registered_names()
    if name not in names:
        raise ValueError(
            f"{kind} {name!r} is not registered, only {names}. Dassl's own models are not part of the embedded Dassl: "
            f"install Dassl, register your own, or build the model in the trainer's build_model()"
        )
    if verbose:
        print(f"{kind}: {name}")
    return registry.get(name)(**kwargs)


def build_backbone(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Build a registered backbone; ``kwargs`` go to it. Raises ValueError for a name that is not registered."""
    return _build("Backbone", BACKBONE_REGISTRY, name, verbose, **kwargs)


def build_head(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Build a registered head; ``kwargs`` go to it. Raises ValueError for a name that is not registered."""
    return _build("Head", HEAD_REGISTRY, name, verbose, **kwargs)


def build_network(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Build a registered network; ``kwargs`` go to it. Raises ValueError for a name that is not registered."""
    return _build("Network", NETWORK_REGISTRY, name, verbose, **kwargs)
