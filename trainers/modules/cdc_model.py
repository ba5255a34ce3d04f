"""CDC's model: what the templates over a frozen CLIP say of images, as evidence (Zhang et al., NeurIPS 2024).

Eq. (4) of docs/method.md. `fuse` in evidence.py makes a prediction of it, eqs. (5) and (6). The loss, eq. (8), and its
terms are functions in losses.py.

Legend: M templates, B images, C classes, S image size in pixels, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from .clip_types import CLIP
from .evidence import EvidenceFunction, Opinion, fuse
from .loading import tokenize
from .losses import total_loss, trusted_cross_entropy
from .prompted import PromptedCLIP
from .prompts import Learner, TextTemplates
from .text import TextEncoder


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

    @classmethod
    def text_only(
        cls, clip_model: CLIP, class_names: Sequence[str], templates: Sequence[str], shift: float = 0.2
    ) -> CDCModel:
        """The model with text-only templates, and the exponential as h of eq. (4), with CLIP's own scale.

        Args:
            clip_model: frozen CLIP.
            class_names: C class names.
            templates: the M wordings that the templates start from, all different, of d tokens each: "a photo of a".
            shift: of h.

        Raises:
            ValueError: there are no wordings, they are not all different or differ in length, or a text is too long.
        """
        n_ctx = len(tokenize(templates[0])) - 2 if templates else 0
        learner = TextTemplates(TextEncoder(clip_model), class_names, len(templates), n_ctx, templates, std=0.0)
        return cls(clip_model, learner, EvidenceFunction("exp", float(clip_model.logit_scale.exp()), shift))

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
            images: `(M, B, 3, S, S)`, one view per template, or `(B, 3, S, S)`, one view for all.
        """
        return self.evidence(self.cosines(images))

    def loss(self, images: Tensor, target: Tensor, anchor: Tensor, beta: float, gamma: float) -> Tensor:
        """Eq. (8) of a training batch: `L_tce + beta L_de + gamma L_con`.

        Args:
            images: as in `forward`.
            target: `(B,)`, class indices in [0, C).
            anchor: `(C, D)`, L2-normalised class embeddings under a hand-written template.
            beta, gamma: weights of the diversity and of the consistency loss.

        Raises:
            ValueError: the shapes do not fit each other.
        """
        text_features = self.text_features()
        log_evidence = self.log_evidence(self.image_features(images), text_features)
        classification = trusted_cross_entropy(log_evidence, target)
        return total_loss(classification, text_features, self.project(anchor), self.scale, beta, gamma)[0]

    @torch.no_grad()
    def predict(self, images: Tensor) -> Opinion:
        """The fused opinion on images as in `forward`, eqs. (5) and (6), without gradient."""
        return fuse(self(images))

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
