"""Evaluation of classifiers. People's scripts parse the printed lines, so these keep Dassl's form to the character."""

from __future__ import annotations

import os.path as osp
from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score

from .build import EVALUATOR_REGISTRY

__all__ = ["Classification", "EvaluatorBase"]


class EvaluatorBase:
    """What an evaluator offers: ``reset``, then ``process`` for each batch, then ``evaluate``.

    Args:
        cfg: the whole configuration.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    def reset(self) -> None:
        """Forget all predictions."""
        raise NotImplementedError

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Take the model's output ``mo`` and the ground truth ``gt`` of a batch."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        """Print and return the figures; the first one is the result of ``trainer.test()``."""
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error and macro F1 in percent; accuracy per class and a confusion matrix on request.

    Args:
        cfg: the configuration, of which it reads ``TEST.PER_CLASS_RESULT``, ``TEST.COMPUTE_CMAT`` and
            ``OUTPUT_DIR``, which gets ``cmat.pt``.
        lab2cname: label to class name, needed for ``TEST.PER_CLASS_RESULT``.

    Raises:
        ValueError: class names are needed and not given.
    """

    def __init__(self, cfg: Any, lab2cname: dict[int, str] | None = None, **_: Any) -> None:
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs class names: the trainer must set lab2cname, got None")
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self) -> None:
        self._correct = 0
        self._total = 0
        self._y_true: list[int] = []
        self._y_pred: list[int] = []

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Count a batch.

        Args:
            mo: scores, (B, C); the highest one is the prediction.
            gt: labels, (B,).

        Raises:
            ValueError: the two hold different numbers of samples.
        """
        pred = mo.max(dim=1).indices
        if pred.shape != gt.shape:
            raise ValueError(
                f"The model's output is of {pred.shape[0]} samples, the labels are of shape {tuple(gt.shape)}"
            )
        self._correct += int(pred.eq(gt).sum())
        self._total += gt.shape[0]
        self._y_true.extend(gt.tolist())
        self._y_pred.extend(pred.tolist())

    def evaluate(self) -> OrderedDict[str, float]:
        """Print and return ``accuracy``, ``error_rate``, ``macro_f1`` and, on request, ``perclass_accuracy``.

        Raises:
            ValueError: no sample has been processed.
        """
        if self._total == 0:
            raise ValueError("There is nothing to evaluate: no sample has been processed")
        acc = 100.0 * self._correct / self._total
        err = 100.0 - acc
        macro_f1 = 100.0 * f1_score(self._y_true, self._y_pred, average="macro", labels=np.unique(self._y_true))
        results = OrderedDict(accuracy=acc, error_rate=err, macro_f1=float(macro_f1))
        print(
            "=> result\n"
            f"* total: {self._total:,}\n"
            f"* correct: {self._correct:,}\n"
            f"* accuracy: {acc:.1f}%\n"
            f"* error: {err:.1f}%\n"
            f"* macro_f1: {macro_f1:.1f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._evaluate_classes()
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion_matrix()
        return results

    def _evaluate_classes(self) -> float:
        """Print the accuracy of each class that occurs and return their mean."""
        hits: defaultdict[int, list[bool]] = defaultdict(list)
        for label, predicted in zip(self._y_true, self._y_pred):
            hits[label].append(label == predicted)
        print("=> per-class result")
        accs = []
        for label in sorted(hits):
            total, correct = len(hits[label]), sum(hits[label])
            accs.append(100.0 * correct / total)
            print(
                f"* class: {label} ({self._lab2cname[label]})\t"
                f"total: {total:,}\t"
                f"correct: {correct:,}\t"
                f"acc: {accs[-1]:.1f}%"
            )
        mean = float(np.mean(accs))
        print(f"* average: {mean:.1f}%")
        return mean

    def _save_confusion_matrix(self) -> None:
        """Save, per true class (rows), the share of each predicted class (columns), over the classes that occur."""
        cmat = confusion_matrix(self._y_true, self._y_pred, normalize="true")
        path = osp.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        # A tensor, whereas upstream has an array: torch.load() refuses arrays by default.
        torch.save(torch.from_numpy(cmat), path)
        print(f"Confusion matrix is saved to {path}")
