"""CoCoOp: Conditional Context Optimization (Zhou et al., CVPR 2022, arXiv 2203.05557).

CoOp's context, shifted by every image: a small network turns the image embedding into one vector that is added to all
context tokens. So each image has prompts of its own, and the text encoder runs for every image and class.

In fp32 all numbers are those of the published code, which takes one image after the other; here the images of a batch
are the templates of one pass. As in CoOp (see there), context, network and their updates, the softmax and the loss are
in float32 whatever the encoders compute in; the published code has them in half precision with `PREC: fp16`.

Legend: B images, C classes, S image size in pixels, D embedding width.
"""

from __future__ import annotations

import torch
from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from .config_checks import collect_errors
from .modules.clip_types import CLIP
from .modules.prompted import PromptedCLIP
from .modules.prompts import ConditionalContext, check_context
from .modules.text import TextEncoder
from .prompt_trainer import LogitTrainer

cfg_default.TRAINER.COCOOP = CfgNode(
    {
        "N_CTX": 16,  # context tokens, unless CTX_INIT is given
        "CTX_INIT": "",  # words that the context starts from, as many tokens as words; "": random
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32
        "FEATURE_BANK": 0,  # train on the features of so many views of each image, encoded once; 0: encode every view
        "FEATURE_BANK_DIR": "",  # shared by runs; "": feature_bank in DATASET.ROOT
    }
)

PROMPTS_AT_ONCE = 4096  # images x classes in one pass of the text encoder, which bounds a test batch's memory


class ConditionalCLIP(PromptedCLIP):
    """CLIP's logits where every image has class embeddings of its own."""

    prompt_learner: ConditionalContext

    def logits(self, image_features: Tensor) -> Tensor:
        """Logits `(B, C)` of image features `(B, D)`, float32."""
        n_classes = len(self.prompt_learner.eot_index)
        parts = image_features.split(max(1, PROMPTS_AT_ONCE // n_classes))
        return torch.cat([self._logits(part) for part in parts])

    def _logits(self, image_features: Tensor) -> Tensor:
        text_features = self.encode_text(self.prompt_learner(image_features))  # (B, C, D)
        return self.scale * torch.einsum("bd,bcd->bc", image_features, text_features)


@TRAINER_REGISTRY.register()
class CoCoOp(LogitTrainer):
    """Trainer of CoCoOp."""

    untrained_keys = ("token_prefix", "token_suffix")

    def config_problems(self, cfg, options) -> list[str]:
        return super().config_problems(cfg, options) + collect_errors(check_context, options.N_CTX, options.CTX_INIT)

    def build_clip(self, clip_model: CLIP) -> None:
        options = self.options
        learner = ConditionalContext(TextEncoder(clip_model), self.class_names, options.N_CTX, options.CTX_INIT)
        self.model = ConditionalCLIP(clip_model, learner, self.autocast).to(self.device)

    def class_features(self) -> None:
        return None
