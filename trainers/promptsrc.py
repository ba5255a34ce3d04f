"""PromptSRC: Self-regulating Prompts (Khattak et al., ICCV 2023, arXiv 2307.06948).

Independent deep prompts in both encoders are learnt by cross-entropy over a frozen CLIP, kept near it by three
distances: of the text features, of the image features, and of the predictions. Tested is their average over the epochs,
weighted by a normal distribution. With prompts in the image encoder it needs a ViT.

In fp32, in which the published code cannot run, all numbers are that code's arithmetic in fp32, from the same start;
it draws the start while it builds CLIP, so that a seed gives another one there. With `PREC: fp16` that code updates the
context in half precision and computes the frozen text features in float32; here parameters and updates, the softmax and
the losses are in float32, and both encoders in what `PREC` says. A resumed training goes on with its average; there it
starts the average again.
"""

from __future__ import annotations

import functools

import torch.nn.functional as F
from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy
from torch import Tensor
from yacs.config import CfgNode

from .checkpointing import ENCODER_KEYS
from .config_checks import collect_errors
from .modules.clip_types import CLIP
from .modules.prompted import PromptedCLIP
from .modules.prompts import IndependentPrompt, check_independent, check_start
from .modules.self_regulation import GaussianAverage, distances, ensemble_features, gaussian_weights
from .modules.templates import PROMPTSRC_TEMPLATES
from .modules.text import TextEncoder
from .modules.vision import ImageEncoder
from .prompt_trainer import PromptTrainer

cfg_default.TRAINER.PROMPTSRC = CfgNode(
    {
        "N_CTX_VISION": 4,  # context tokens of the image encoder
        "N_CTX_TEXT": 4,  # context tokens of the text encoder
        # Words of at least N_CTX_TEXT tokens that the context starts from, those after the first N_CTX_TEXT staying
        # fixed; "": random. As in the published code, more than 4 tokens start from random numbers all the same.
        "CTX_INIT": "a photo of a",
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32
        "PROMPT_DEPTH_VISION": 9,  # in how many layers of the image encoder tokens are put: 0 to its number of layers
        "PROMPT_DEPTH_TEXT": 9,  # the same of the text encoder, from 1 on
        "TEXT_LOSS_WEIGHT": 25,  # of the distance of the text features
        "IMAGE_LOSS_WEIGHT": 10,  # of the distance of the image features; that of the predictions has weight 1
        "GPA_MEAN": 15,  # of the normal distribution that weighs the epochs 1, 2, ...
        "GPA_STD": 1,
    }
)


@TRAINER_REGISTRY.register()
class PromptSRC(PromptTrainer):
    """Trainer of PromptSRC."""

    # As the published code, which keeps all of CLIP beside what was trained.
    checkpoint_folder = "VLPromptLearner"
    untrained_keys = (
        "prompt_learner.token_prefix",
        "prompt_learner.token_suffix",
        "prompt_learner.ZS_image_encoder.*",
        *ENCODER_KEYS,
    )

    def config_problems(self, cfg, options) -> list[str]:
        words = [_words(options)] if _words(options) else []
        depths = (options.PROMPT_DEPTH_TEXT, options.PROMPT_DEPTH_VISION)
        problems = super().config_problems(cfg, options)
        problems += collect_errors(check_start, words, 1, options.N_CTX_TEXT, 0.0, True)
        problems += collect_errors(check_independent, *depths, options.N_CTX_VISION, cfg.MODEL.BACKBONE.NAME)
        problems += collect_errors(gaussian_weights, cfg.OPTIM.MAX_EPOCH, options.GPA_MEAN, options.GPA_STD)
        negative = [key for key in ("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT") if options[key] < 0]
        return problems + [f"{key} must not be negative, got {options[key]}" for key in negative]

    def checkpoint_key(self, name: str) -> str:
        """The published code keeps deeper tokens in the encoders' layers."""
        kind, _, number = name.partition(".")
        if kind == "ctx":
            return "prompt_learner.ctx"
        if kind == "visual_ctx":
            return "image_encoder.VPT"
        encoder = {"compound_prompts_text": "text_encoder", "compound_prompts_visual": "image_encoder"}[kind]
        return f"{encoder}.transformer.resblocks.{int(number) + 1}.VPT_shallow"

    def build_clip(self, clip_model: CLIP) -> None:
        options, words = self.options, _words(self.options)
        learner = IndependentPrompt(
            TextEncoder(clip_model),
            ImageEncoder(clip_model),
            self.class_names,
            options.N_CTX_TEXT,
            options.PROMPT_DEPTH_TEXT,
            words,
            std=0.0 if words else 0.02,
            visual_n_ctx=options.N_CTX_VISION,
            visual_depth=options.PROMPT_DEPTH_VISION,
        )
        self.model = PromptedCLIP(clip_model, learner, self.autocast).to(self.device)
        self.average = GaussianAverage(self.cfg.OPTIM.MAX_EPOCH, options.GPA_MEAN, options.GPA_STD)

    @functools.cached_property
    def frozen_texts(self) -> Tensor:
        """`(C, D)`, L2-normalised class embeddings of sixty templates by the frozen CLIP; tests do without them."""
        with self.autocast():
            return ensemble_features(self.model.text_encoder, PROMPTSRC_TEMPLATES, self.class_names)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy and the three distances. Of all these the published code logs the loss alone."""
        options, model = self.options, self.model
        label = self.to_device(batch["label"])
        image_features = self.train_features(batch)  # (1, B, D), or (B, D) without prompts in the image encoder
        text_features = model.text_features()[0]
        logits = (model.scale * image_features @ text_features.T).reshape(len(label), -1)
        loss_ce = F.cross_entropy(logits, label)
        far = distances(
            image_features,
            text_features,
            model.plain_image_features(self.views(batch)),
            self.frozen_texts,
            model.scale,
        )
        loss_text, loss_image = options.TEXT_LOSS_WEIGHT * far.text, options.IMAGE_LOSS_WEIGHT * far.image
        return loss_ce + far.logits + loss_text + loss_image, {
            "loss_ce": loss_ce,
            "loss_text": loss_text,
            "loss_image": loss_image,
            "loss_logits": far.logits,
            "acc": compute_accuracy(logits, label)[0],
        }


def _words(options: CfgNode) -> str:
    """The words that the context starts from, "" for a random start."""
    return options.CTX_INIT if options.N_CTX_TEXT <= 4 else ""
