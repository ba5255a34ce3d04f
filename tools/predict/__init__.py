"""Trained runs on one's own images: `python -m tools.predict`, or in Python `from tools.predict import Predictor`."""

from __future__ import annotations

__all__ = ["Choice", "Prediction", "Predictor", "Skipped", "TemplateOpinion"]


def __getattr__(name: str) -> object:
    """What the predictor offers; imported when it is asked for, as PyTorch comes with it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tools.predict import predictor

    return getattr(predictor, name)
