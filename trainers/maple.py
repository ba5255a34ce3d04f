"""MaPLe: Multi-modal Prompt Learning (Khattak et al., CVPR 2023, arXiv 2210.03117).

Context tokens in the first layers of the text encoder, coupled by linear maps to prompts in the same layers of the
image encoder, are learnt by cross-entropy over a frozen CLIP. It needs a ViT.

In fp32, in which the published code cannot run, all numbers are that code's arithmetic in fp32. With `PREC: fp16` that
code also keeps and updates the first layer's tokens and their map in half precision; here parameters and updates, the
softmax and the loss are in float32 whatever the encoders compute in.
"""

from __future__ import annotations

from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from .config_checks import collect_errors
from .modules.clip_types import CLIP
from .modules.prompted import PromptedCLIP
from .modules.prompts import CoupledPrompt, check_coupled, check_start
from .modules.text import TextEncoder
from .modules.vision import ImageEncoder
from .prompt_trainer import LogitTrainer

cfg_default.TRAINER.MAPLE = CfgNode(
    {
        "N_CTX": 2,  # context tokens
        # Words of at least N_CTX tokens that the context starts from, those after the first N_CTX staying fixed; "":
        # random. As in the published code, more than 4 context tokens start from random numbers all the same.
        "CTX_INIT": "a photo of a",
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32
        "PROMPT_DEPTH": 9,  # in how many layers tokens are put: 1 to CLIP's number of layers
    }
)


@TRAINER_REGISTRY.register()
class MaPLe(LogitTrainer):
    """Trainer of MaPLe."""

    # As the published code, which keeps all of CLIP beside what was trained.
    checkpoint_folder = "MultiModalPromptLearner"
    key_prefix = "prompt_learner."
    untrained_keys = (
        "prompt_learner.token_prefix",
        "prompt_learner.token_suffix",
        "text_encoder.*",
        "image_encoder.*",
        "logit_scale",
    )

    def config_problems(self, cfg, options) -> list[str]:
        words = [_words(options)] if _words(options) else []
        problems = super().config_problems(cfg, options) + collect_errors(
            check_start, words, 1, options.N_CTX, 0.0, True
        )
        return problems + collect_errors(check_coupled, options.PROMPT_DEPTH, cfg.MODEL.BACKBONE.NAME)

    def build_clip(self, clip_model: CLIP) -> None:
        options, words = self.options, _words(self.options)
        learner = CoupledPrompt(
            TextEncoder(clip_model),
            ImageEncoder(clip_model),
            self.class_names,
            options.N_CTX,
            options.PROMPT_DEPTH,
            words,
            std=0.0 if words else 0.02,
        )
        self.model = PromptedCLIP(clip_model, learner, self.autocast).to(self.device)


def _words(options: CfgNode) -> str:
    """The words that the context starts from, "" for a random start."""
    return options.CTX_INIT if options.N_CTX <= 4 else ""
