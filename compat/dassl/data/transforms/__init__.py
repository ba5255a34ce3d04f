"""Image transforms, chosen by name in `cfg.INPUT.TRANSFORMS`."""

from __future__ import annotations

from .transforms import INTERPOLATION_MODES, build_transform

__all__ = ["INTERPOLATION_MODES", "build_transform"]
