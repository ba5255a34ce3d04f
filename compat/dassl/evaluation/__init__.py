"""Evaluators: what ``cfg.TEST.EVALUATOR`` names."""

from __future__ import annotations

from .build import EVALUATOR_REGISTRY, build_evaluator
from .evaluator import Classification, EvaluatorBase

__all__ = ["EVALUATOR_REGISTRY", "Classification", "EvaluatorBase", "build_evaluator"]
