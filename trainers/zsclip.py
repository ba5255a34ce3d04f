"""Zero-shot CLIP (Radford et al., ICML 2021): class embeddings of hand-written templates, no training.

Legend: B images, C classes, S image size in pixels, D embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from .base import ClipTrainer
from .modules.clip_types import CLIP
from .modules.templates import ENSEMBLE, format_template
from .modules.text import TextEncoder
from .modules.vision import ImageEncoder

cfg_default.TRAINER.ZEROSHOTCLIP = CfgNode({"PREC": "fp16"})  # fp16, bf16, amp or fp32
cfg_default.TRAINER.ZEROSHOTCLIP2 = CfgNode({"PREC": "fp16"})


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(ClipTrainer):
    """Cosine of image and class embedding, scaled as in CLIP; the template is the data set's own."""

    def prompts(self) -> list[list[str]]:
        """The texts of all classes under one template, for every template."""
        texts = format_template(self.class_names, self.cfg.DATASET.NAME)
        print(f"Prompts: {texts}")
        return [texts]

    def build_clip(self, clip_model: CLIP) -> None:
        clip_model.to(self.device)
        encoder = TextEncoder(clip_model)
        with self.autocast():
            embeddings = torch.stack([encoder.encode_texts(texts) for texts in self.prompts()])
        self.text_features = F.normalize(embeddings.mean(dim=0), dim=-1)  # (C, D)
        self.image_encoder = ImageEncoder(clip_model)

    def train(self) -> None:  # type: ignore[override]  # as Dassl's SimpleTrainer
        """There is nothing to train: the test alone."""
        self.test()

    def model_inference(self, images: Tensor) -> Tensor:
        """Logits `(B, C)` of images `(B, 3, S, S)`."""
        return self.scale * self.image_features(images) @ self.text_features.T

    def image_features(self, images: Tensor) -> Tensor:
        with self.autocast():
            return self.image_encoder(images)

    def class_features(self) -> Tensor:
        return self.text_features[None]


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """Prompt ensemble: the class embedding is the mean over templates, seven for any data set and the set's own.

    On ImageNet it is the seven alone.
    """

    def prompts(self) -> list[list[str]]:
        templates = list(ENSEMBLE) if self.cfg.DATASET.NAME == "ImageNet" else [*ENSEMBLE, ""]
        print(f"Prompt ensembling (n={len(templates)})")
        return [format_template(self.class_names, self.cfg.DATASET.NAME, template) for template in templates]
