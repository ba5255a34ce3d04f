"""CDC's model: what the templates over a frozen CLIP say of images, as evidence (Zhang et al., NeurIPS 2024).

Eq. (4) of docs/method.md. `fuse` in evidence.py makes a prediction of it, eqs. (5) and (6). The terms of the loss, eqs.
(2), (3) and (7), are functions in losses.py.

Legend: M templates, B images, C classes, S image size in pixels, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch.nn.functional as F
from torch import Tensor

from .clip_types import CLIP
from .evidence import EvidenceFunction
from .prompted import PromptedCLIP
from .prompts import Learner


class CDCModel(PromptedCLIP):
    """The templates' evidence on images.

    Args:
        clip_model, prompt_learner, autocast: see `PromptedCLIP`.
        evidence: h of eq. (4).
    """

    def __init__(
        self,
        clip_model: CLIP,
        prompt_learner: Learner,
        evidence: EvidenceFunction,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__(clip_model, prompt_learner, autocast)
        self.evidence = evidence

    def project(self, features: Tensor) -> Tensor:
        """L2-normalised features `(..., k)` after the invariant map, if there is one, of such features `(..., D)`."""
        if not hasattr(self.prompt_learner, "invariant"):
            return features
        return F.normalize(self.prompt_learner.invariant(features), dim=-1)

    def text_features(self) -> Tensor:
        """As in `PromptedCLIP`, after the invariant map."""
        return self.project(super().text_features())

    def forward(self, images: Tensor) -> Tensor:
        """Log-evidence `(M, B, C)`, eq. (4).

        Args:
            images: `(M, B, 3, S, S)`, one view a template, or `(B, 3, S, S)`, one view for all.
        """
        return self.evidence(self.cosines(images))

    def cosines(self, images: Tensor) -> Tensor:
        """Cosines `(M, B, C)` of images as in `forward` and all classes."""
        return self.image_features(images) @ self.text_features().transpose(1, 2)

    def log_evidence(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """As `forward`, of L2-normalised features.

        Args:
            image_features: `(M, B, D)`, or `(B, D)` where they are one for all templates.
            text_features: `(M, C, D)`.
        """
        return self.evidence(image_features @ text_features.transpose(1, 2))
