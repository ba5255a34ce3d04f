"""Figures of a batch."""

from __future__ import annotations

from .accuracy import compute_accuracy

__all__ = ["compute_accuracy"]
