"""Records what other people's code computes of uncertainty on small arrays, as golden numbers.

    python tests/golden/make_uncertainty.py OPENOOD_CHECKOUT

writes `uncertainty.npz` beside this file. For each case there are `probability` (N, C), `label` (N,), in which -1 is an
image of no class, and what the packages torchmetrics and torch-uncertainty and OpenOOD's `evaluators/metrics.py`
compute of them, as `<case>/<source>/<figure>`; and, as `versions`, which ones they were. In the case `equal` many
images have the same confidence; what depends there on the order in which a sort leaves them is left out.

The score is 1 - confidence. Calibration and errors are of the images with a label, an open set is all of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch_uncertainty.metrics import AURC, FPR95, BrierScore, CategoricalNLL, RiskAt80Cov
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_calibration_error,
)

N_KNOWN, N_UNKNOWN, N_CLASSES = 400, 200, 7


def draw(decimals: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels; unknown images are less certain, and wrong predictions too."""
    rng = np.random.default_rng(0)
    label = np.concatenate([rng.integers(0, N_CLASSES, N_KNOWN), np.full(N_UNKNOWN, -1)])
    logits = rng.normal(0, 1.2, (len(label), N_CLASSES))
    known = np.flatnonzero(label >= 0)
    logits[known, label[known]] += rng.gamma(2.0, 1.5, N_KNOWN)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if decimals is not None:
        probability = np.round(probability, decimals) + 10.0**-decimals / 2
        probability /= probability.sum(axis=1, keepdims=True)
        probability = 0.97 * probability + 0.03 / N_CLASSES  # so that none lies on the edge of two bins
    return probability.astype(np.float32), label


def of_torchmetrics(probability: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
    known = label >= 0
    score = 1 - probability.max(dim=1).values
    wrong = (probability.argmax(dim=1) != label)[known].int()
    own = (probability[known], label[known], N_CLASSES)
    return {
        "ece": multiclass_calibration_error(*own, 15, "l1").item(),
        "ece10": multiclass_calibration_error(*own, 10, "l1").item(),
        "auroc_error": binary_auroc(score[known], wrong).item(),
        "auroc_open": binary_auroc(score, (~known).int()).item(),
        "aupr_open": binary_average_precision(score, (~known).int()).item(),
    }


def of_torch_uncertainty(probability: torch.Tensor, label: torch.Tensor, equal: bool) -> dict[str, float]:
    known = label >= 0
    confidence = probability.max(dim=1).values
    metrics = {"brier": BrierScore(num_classes=N_CLASSES), "nll": CategoricalNLL()}
    if not equal:
        metrics.update(aurc=AURC(), risk80=RiskAt80Cov())
    found = {}
    for name, metric in metrics.items():
        metric.update(probability[known], label[known])
        found[name] = metric.compute().item()
    if not equal:
        # of the recalls that there are it takes the one nearest to 95%
        metric = FPR95(pos_label=1)
        metric.update(confidence, known.long())
        found["fpr95_known_kept"] = metric.compute().item()
    return found


def of_openood(module, probability: np.ndarray, label: np.ndarray) -> dict[str, float]:
    confidence, prediction = probability.max(axis=1), probability.argmax(axis=1)
    _, auroc, _, aupr_out, accuracy = module.compute_all_metrics(confidence, label, prediction)
    kept, _ = module.fpr_recall(confidence, label, 0.95)
    return {"auroc_open": auroc, "aupr_open": aupr_out, "fpr95_known_kept": kept, "accuracy": accuracy}


def load(checkout: Path):
    """OpenOOD's module of metrics, by itself."""
    spec = importlib.util.spec_from_file_location("metrics", checkout / "openood" / "evaluators" / "metrics.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"there is no OpenOOD in {checkout}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commit(checkout: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=checkout, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="checkout of Jingkang50/OpenOOD")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("uncertainty.npz"))
    args = parser.parse_args()
    module = load(args.checkout)
    content = {}
    for case, decimals in {"distinct": None, "equal": 1}.items():
        probability, label = draw(decimals)
        tensors = (torch.from_numpy(probability).double(), torch.from_numpy(label))
        numbers = {
            "torchmetrics": of_torchmetrics(*tensors),
            "torch_uncertainty": of_torch_uncertainty(*tensors, equal=decimals is not None),
            "openood": of_openood(module, probability.astype(np.float64), label),
        }
        content.update({f"{case}/probability": probability, f"{case}/label": label})
        for source, own in numbers.items():
            content.update({f"{case}/{source}/{name}": np.float64(value) for name, value in own.items()})
    packages = {name: version(name) for name in ("torchmetrics", "torch-uncertainty", "torch", "scikit-learn", "numpy")}
    packages["OpenOOD"] = commit(args.checkout)
    content["versions"] = np.array([f"{name} {number}" for name, number in packages.items()])
    np.savez_compressed(args.output, **content)


if __name__ == "__main__":
    main()
