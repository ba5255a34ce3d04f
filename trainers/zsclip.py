"""Zero-shot CLIP (Radford et al., ICML 2021): class embeddings of one hand-written template, no training.

Legend: B images, C classes, D embedding width.
"""

from __future__ import annotations

from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from .base import ClipTrainer
from .modules.templates import fill
from .modules.text import TextEncoder
from .modules.vision import ImageEncoder

cfg_default.TRAINER.ZEROSHOTCLIP = CfgNode({"PREC": "fp16"})  # fp16, bf16, amp or fp32


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(ClipTrainer):
    """Cosine of image and class embedding, scaled as in CLIP; the template is the data set's own."""

    def build_clip(self, clip_model: nn.Module) -> None:
        clip_model.to(self.device)
        texts = fill(self.class_names, self.cfg.DATASET.NAME)
        print(f"Prompts: {texts}")
        with self.autocast():
            self.text_features = TextEncoder(clip_model).encode_texts(texts)  # (C, D)
        self.image_encoder = ImageEncoder(clip_model)
        self.scale = clip_model.logit_scale.exp().float()

    def train(self) -> None:
        """There is nothing to train: the test alone."""
        self.test()

    def model_inference(self, images: Tensor) -> Tensor:
        """Logits `(B, C)` of images `(B, 3, S, S)`."""
        with self.autocast():
            image_features = self.image_encoder(images)
        return self.scale * image_features @ self.text_features.T
