"""Running values of a training loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch

__all__ = ["AverageMeter", "MetricMeter"]


class AverageMeter:
    """The last value of a quantity and its average so far.

    Args:
        ema: average exponentially (0.9 of the old average, starting from 0) and not over all values.

    Attributes:
        val, avg, sum, count: the last value, the average, the weighted sum and the sum of the weights.
    """

    def __init__(self, ema: bool = False) -> None:
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self.val: float = 0
        self.avg: float = 0
        self.sum: float = 0
        self.count = 0

    def update(self, val: float | torch.Tensor, n: int = 1) -> None:
        """Add ``val`` (a number or a tensor of one element) with weight ``n``."""
        if isinstance(val, torch.Tensor):
            val = val.item()
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = 0.9 * self.avg + 0.1 * val if self.ema else self.sum / self.count


class MetricMeter:
    """One :class:`AverageMeter` per name; its text is ``loss 0.6931 (0.7012) acc 50.0000 (48.4375)``.

    Args:
        delimiter: what stands between two metrics in the text.
    """

    def __init__(self, delimiter: str = " ") -> None:
        self.meters: defaultdict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: Mapping[str, float | torch.Tensor] | None) -> None:
        """Add one value per name; None adds nothing.

        Raises:
            TypeError: ``input_dict`` is something else than a dictionary.
        """
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError(f"MetricMeter.update() takes a dictionary of name: value, got {type(input_dict).__name__}")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items())
