"""MMRL: Multi-Modal Representation Learning (Guo and Gu, CVPR 2025, arXiv 2503.08497).

Learnt tokens of a space that both encoders share are put into their later layers. The image encoder's class token, and
these tokens through a second projection, each classify the image; two cross-entropies and two cosine distances to the
frozen CLIP are minimised. Trained classes are predicted by both, others by the class token alone. It needs a ViT.

In fp32 all numbers are those of the published code, from the same start; it draws the second projection while it
builds CLIP, so that a seed gives another one there. Cosines are multiplied by CLIP's own factor, where that code has
100, which is that of OpenAI's models. With `PREC: fp16` that code updates its parameters in half precision; here
parameters and updates, the softmax and the losses are in float32 whatever the encoders compute in.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch.nn.functional as F
from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy
from torch import Tensor
from yacs.config import CfgNode

from .checkpointing import ENCODER_KEYS
from .config_checks import collect_errors
from .modules.clip_types import CLIP
from .modules.representation import (
    RepresentationCLIP,
    RepresentationLearner,
    check_representation,
    cosine_distance,
)
from .modules.templates import format_template
from .modules.text import TextEncoder
from .modules.vision import ImageEncoder
from .prompt_trainer import PromptTrainer

# The published key for the protocol, which says what classifies: B2N (base to new classes), CD (train on ImageNet, test
# elsewhere) or FS (few-shot). "": trained classes are predicted by both, others by the class token alone; that is the
# same, where a checkpoint says what it was trained on. Published ones do not.
cfg_default.TASK = ""
cfg_default.TRAINER.MMRL = CfgNode(
    {
        "ALPHA": 0.7,  # weight of the class token, beside that of the representation tokens, 1 - ALPHA
        "REG_WEIGHT": 1.0,  # of both distances to the frozen CLIP
        "N_REP_TOKENS": 5,  # representation tokens per layer
        "REP_LAYERS": [6, 7, 8, 9, 10, 11, 12],  # that they are put in, counted from 1
        "REP_DIM": 512,  # width of the space that both encoders share
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32
        # Take REG_WEIGHT and REP_DIM from these tables, by the data set's registered name, where it is there. The
        # published results do. Such weights were chosen for each test set; so one for all is the default here.
        "BY_DATASET": False,
        "REG_WEIGHTS": {
            "StanfordCars": 7.0,
            "FGVCAircraft": 6.0,
            "SUN397": 6.0,
            "DescribableTextures": 6.0,
            "Food101": 5.0,
            "OxfordFlowers": 4.0,
            "UCF101": 3.0,
            "ImageNet": 0.5,
            "Caltech101": 0.5,
            "OxfordPets": 0.2,
            "EuroSAT": 0.01,
        },
        "REP_DIMS": {"EuroSAT": 2048},
    }
)
TASKS = ("", "B2N", "CD", "FS")


@TRAINER_REGISTRY.register()
class MMRL(PromptTrainer):
    """Trainer of MMRL.

    Attributes:
        trained_classes: the classes that a loaded checkpoint was trained on; None where it does not say, or none was
            loaded.
    """

    model: RepresentationCLIP
    trained_classes: list[str] | None = None
    # As the published code, which keeps all of CLIP beside what was trained.
    checkpoint_folder = "MultiModalRepresentationLearner"
    untrained_keys = ("prompt_embeddings", *ENCODER_KEYS)

    def config_problems(self, cfg, options) -> list[str]:
        problems = super().config_problems(cfg, options)
        size = (options.N_REP_TOKENS, options.REP_LAYERS, _by_dataset(cfg, options, "REP_DIM"))
        problems += collect_errors(check_representation, *size, cfg.MODEL.BACKBONE.NAME)
        if not 0 <= options.ALPHA <= 1:
            problems.append(f"ALPHA must be from 0 to 1, got {options.ALPHA}")
        reg_weight = _by_dataset(cfg, options, "REG_WEIGHT")
        if reg_weight < 0:
            problems.append(f"REG_WEIGHT must not be negative, got {reg_weight}")
        if cfg.TASK not in TASKS:
            problems.append(f"TASK must be one of {', '.join(TASKS[1:])} or empty, got {cfg.TASK!r}")
        return problems

    def checkpoint_key(self, name: str) -> str:
        """The published code keeps the second projection in the image encoder."""
        return "image_encoder.proj_rep" if name == "proj_rep" else f"representation_learner.{name}"

    def build_clip(self, clip_model: CLIP) -> None:
        cfg, options = self.cfg, self.options
        learner = RepresentationLearner(
            TextEncoder(clip_model),
            ImageEncoder(clip_model),
            options.N_REP_TOKENS,
            options.REP_LAYERS,
            _by_dataset(cfg, options, "REP_DIM"),
        )
        self.reg_weight = _by_dataset(cfg, options, "REG_WEIGHT")
        texts = format_template(self.class_names, cfg.DATASET.NAME)
        clip_model.to(self.device)
        self.model = RepresentationCLIP(clip_model, learner, texts, options.ALPHA, self.autocast).to(self.device)

    @functools.cached_property
    def frozen_texts(self) -> Tensor:
        """`(C, D)`, L2-normalised class embeddings of the frozen CLIP; tests do without them."""
        texts = format_template(self.class_names, self.cfg.DATASET.NAME)
        with self.autocast():
            return self.model.text_encoder.encode_texts(texts)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Two cross-entropies and two distances. Of all these the published code logs loss and acc."""
        model, alpha = self.model, self.options.ALPHA
        label, images = self.to_device(batch["label"]), self.views(batch)
        text_features = model.text_features()[0]
        of_class, of_tokens = model.both_image_features(images)
        logits, logits_rep = (model.scale * features @ text_features.T for features in (of_class, of_tokens))
        loss_class, loss_rep = F.cross_entropy(logits, label), F.cross_entropy(logits_rep, label)
        reg_image = cosine_distance(of_class, model.plain_image_features(images))
        reg_text = cosine_distance(text_features, self.frozen_texts)
        loss = alpha * loss_class + (1 - alpha) * loss_rep + self.reg_weight * (reg_image + reg_text)
        return loss, {
            "loss_class": loss_class,
            "loss_rep": loss_rep,
            "reg_image": reg_image,
            "reg_text": reg_text,
            "acc": compute_accuracy(model.fused(logits, logits_rep), label)[0],
        }

    def load_trained(self, path: Path, *needed: str, epoch: int | None = None) -> dict:
        checkpoint = super().load_trained(path, *needed, epoch=epoch)
        self.trained_classes = checkpoint.get("class_names")
        return checkpoint

    def model_inference(self, images: Tensor) -> Tensor:
        """Logits `(B, C)`: fused ones of the classes trained on, else the class token's."""
        return self.model(images) if self.takes_fused() else self.model.logits(self.model.encode_images(images))

    def takes_fused(self) -> bool:
        """Whether the class token and the representation tokens classify together.

        Raises:
            ValueError: the checkpoint does not say, and the config has no TASK.
        """
        data, task = self.cfg.DATASET, self.cfg.TASK
        classes = data.get("SUBSAMPLE_CLASSES", "all")
        if task:
            return {"B2N": classes == "base", "CD": data.NAME == "ImageNet", "FS": True}[task]
        if self.model_dir is None:
            return True  # in the training itself
        if self.trained_classes is not None and self.trained_on is not None:
            return self.trained_classes == self.class_names and self.trained_on["dataset"] == data.NAME
        if classes == "all":
            raise ValueError(
                f"the checkpoint in {self.model_dir} does not say what it was trained on: set TASK to CD (trained on "
                "ImageNet, tested elsewhere) or FS (few-shot)"
            )
        return classes == "base"


def _by_dataset(cfg: CfgNode, options: CfgNode, key: str):
    """An option, or the data set's own value of it where the config asks for these."""
    own = options[f"{key}S"] if options.BY_DATASET else {}
    return own.get(cfg.DATASET.NAME, options[key])
