"""A frozen CLIP under learnable prompts.

Legend: M templates, B images, C classes, S image size in pixels, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clip_types import CLIP
from .prompts import Learner
from .text import TextEncoder, TextPrompt
from .vision import ImageEncoder, VisualPrompt


class PromptedCLIP(nn.Module):
    """CLIP's logits where the class embeddings come from a prompt learner, which alone is trained.

    Args:
        clip_model: frozen CLIP.
        prompt_learner: gives the prompts of all templates and classes.
        autocast: context in which the encoders compute; by default none, so in CLIP's own precision.
    """

    def __init__(
        self,
        clip_model: CLIP,
        prompt_learner: Learner,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__()
        self.prompt_learner = prompt_learner
        self.text_encoder = TextEncoder(clip_model)
        self.image_encoder = ImageEncoder(clip_model)
        self.scale = float(clip_model.logit_scale.exp())
        self.autocast = autocast
        self._kept: tuple[list[Tensor], Tensor] | None = None

    def text_features(self) -> Tensor:
        """L2-normalised class embeddings `(M, C, D)` under each template, float32.

        Without gradient they are computed once and kept until a parameter changes. Parameters are compared by value:
        some optimisers change them without PyTorch's version counter noticing.
        """
        if torch.is_grad_enabled():
            return self.encode_text(self.prompt_learner())
        parameters = list(self.prompt_learner.parameters())
        if self._kept is None or not all(map(torch.equal, self._kept[0], parameters)):
            self._kept = ([p.detach().clone() for p in parameters], self.encode_text(self.prompt_learner()))
        return self._kept[1]

    def encode_text(self, prompt: TextPrompt) -> Tensor:
        """L2-normalised class embeddings `(M, C, D)` of prompts, float32."""
        with self.autocast():
            features = self.text_encoder(prompt, self.prompt_learner.prompts_images)
        return F.normalize(features.float(), dim=-1)

    def project(self, features: Tensor) -> Tensor:
        """Where cosines are taken, of L2-normalised features `(..., D)`: here CLIP's own space."""
        return features

    def image_features(self, images: Tensor) -> Tensor:
        """As `encode_images`, in the space where cosines are taken."""
        return self.project(self.encode_images(images))

    def encode_images(self, images: Tensor, prompt: VisualPrompt | None = None) -> Tensor:
        """L2-normalised image embeddings, float32.

        Args:
            images: `(B, 3, S, S)`, one view for all templates, or `(M, B, 3, S, S)`, one view per template.
            prompt: of the templates that see the images; None for all that the prompt learner has.

        Returns:
            `(B, D)` or `(M, B, D)` as the images come, without gradient; always `(M, B, D)` where the prompt learner
            has visual prompts too: then every template makes features of its own.
        """
        with self.autocast():
            features: Tensor = self.image_encoder(images, prompt or self.prompt_learner.visual())
        return features

    def plain_image_features(self, images: Tensor) -> Tensor:
        """L2-normalised embeddings `(..., D)` of images `(..., 3, S, S)` by CLIP without prompts, without gradient."""
        with self.autocast():
            features: Tensor = self.image_encoder(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, C)` of images `(B, 3, S, S)` under the one template, float32."""
        return self.logits(self.image_features(images))

    def logits(self, image_features: Tensor) -> Tensor:
        """As `forward`, of what `image_features` gives."""
        return (self.scale * image_features @ self.text_features().transpose(1, 2))[0]
