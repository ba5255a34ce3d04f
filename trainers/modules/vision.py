"""The frozen image encoder.

Legend: N images, S image size in pixels, D embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ImageEncoder(nn.Module):
    """CLIP's image encoder, a vision transformer or a ResNet, without prompts.

    Args:
        clip_model: a CLIP of the `clip` package; its image side is shared, not copied.
    """

    def __init__(self, clip_model: nn.Module):
        super().__init__()
        self.visual = clip_model.visual

    @property
    def input_size(self) -> int:
        """Height and width of the images it takes, in pixels."""
        return self.visual.input_resolution

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """L2-normalised features `(N, D)` in float32 of images `(N, 3, S, S)`, without gradient.

        Raises:
            ValueError: the images have another size than the encoder takes.
        """
        if images.shape[-2:] != (self.input_size, self.input_size):
            raise ValueError(
                f"this CLIP takes images of {self.input_size} x {self.input_size} pixels, "
                f"got {images.shape[-2]} x {images.shape[-1]}"
            )
        features = self.visual(images.to(self.visual.conv1.weight.dtype))
        return F.normalize(features.float(), dim=-1)
