"""KgCoOp: Knowledge-guided Context Optimization (Yao et al., CVPR 2023, arXiv 2303.13283).

CoOp whose learnt class embeddings are held near those of the data set's hand-written template, by a second loss.

In fp32 all numbers are those of the published code, except the hand-written template's embeddings, which that code
always computes in half precision. It reads its options from `TRAINER.COOP`; here they are in `TRAINER.KGCOOP`.
`CTX_INIT` is a text, as CoOp's, where the published code takes any true value for "a photo of a".
`CLASS_TOKEN_POSITION` has an effect, where the published code leaves the class name at the end. In half precision the
two differ as in CoOp (see there). With `PREC: amp` the published code cannot train.

Legend: C classes, D embedding width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch.nn.functional as F
from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy
from torch import Tensor
from yacs.config import CfgNode

from .coop import CoOp
from .modules.losses import knowledge_loss
from .modules.templates import format_template
from .modules.text import TextEncoder

cfg_default.TRAINER.KGCOOP = CfgNode(
    {
        "N_CTX": 16,  # context tokens, unless CTX_INIT is given
        "CSC": False,  # class-specific context; with CTX_INIT it is one for all classes all the same
        "CTX_INIT": "",  # words that the context starts from, as many tokens as words; "": random
        "W": 1.0,  # weight of the second loss
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32
        "CLASS_TOKEN_POSITION": "end",  # of the class name: end, middle or front
        "FEATURE_BANK": 0,  # train on the features of so many views of each image, encoded once; 0: encode every view
        "FEATURE_BANK_DIR": "",  # shared by runs; "": feature_bank in DATASET.ROOT
    }
)


# The published code's templates that are others than those of `modules.templates`, by data set
HAND_WRITTEN = {"DescribableTextures": "a photo of a {}, a type of texture."}


@TRAINER_REGISTRY.register()
class KgCoOp(CoOp):
    """Trainer of KgCoOp.

    Attributes:
        hand_written: templates that are others than those of `modules.templates`, by data set.
    """

    # The published code keeps a vector and a layer beside the context, which it does not use.
    untrained_keys = (*CoOp.untrained_keys, "bias_vectors", "meta_net.linear1.*")
    hand_written: Mapping[str, str] = HAND_WRITTEN

    def config_problems(self, cfg, options) -> list[str]:
        problems = super().config_problems(cfg, options)
        if options.W < 0:
            problems.append(f"W must not be negative, got {options.W}")
        return problems

    @functools.cached_property
    def anchor(self) -> Tensor:
        """`(C, D)`, L2-normalised class embeddings under the hand-written template; tests do without them."""
        return self.encode_hand_written(self.model.text_encoder)

    def encode_hand_written(self, encoder: TextEncoder) -> Tensor:
        """L2-normalised class embeddings `(C, D)` under the hand-written template."""
        dataset = self.cfg.DATASET.NAME
        texts = format_template(self.class_names, dataset, self.hand_written.get(dataset, ""))
        print(f"Hand-written template: {texts[0]!r} ...")
        with self.autocast():
            return encoder.encode_texts(texts)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy, and `W` times the distance to the hand-written template's class embeddings."""
        label = self.to_device(batch["label"])
        text_features = self.model.text_features()[0]  # (C, D)
        logits = self.scale * self.train_features(batch) @ text_features.T
        loss = F.cross_entropy(logits, label) + self.options.W * knowledge_loss(text_features, self.anchor)
        return loss, {"acc": compute_accuracy(logits, label)[0]}
