"""Accuracy by groups of images, for data sets with a confounder.

Legend: B images of a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor


class GroupAccuracy:
    """Accuracy by class and domain, for a data set each of whose classes has a domain of its own in training.

    Args:
        own_domains: each label's own domain.
    """

    def __init__(self, own_domains: Sequence[int]):
        self.own = torch.tensor(own_domains)
        self.counts: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])

    def process(self, right: Tensor, label: Tensor, domain: Tensor) -> None:
        """Count a batch, all `(B,)`: whether each image was classified rightly, its label, its domain."""
        for own, found, hit in zip(self.own[label.cpu()].tolist(), domain.tolist(), right.tolist()):
            count = self.counts[own, found]
            count[0] += hit
            count[1] += 1

    def evaluate(self) -> dict[str, float]:
        """Accuracies in percent: of the worst group, and of the images in their class's own domain and in others."""
        metrics = {"worst_group_accuracy": min(100.0 * hits / n for hits, n in self.counts.values())}
        for name, own in (("aligned_accuracy", True), ("conflicting_accuracy", False)):
            counts = [count for pair, count in self.counts.items() if (pair[0] == pair[1]) == own]
            if counts:
                metrics[name] = 100.0 * sum(hits for hits, _ in counts) / sum(n for _, n in counts)
        return metrics
