"""CDC: Causality-guided semantic Decoupling and Classification (Zhang et al., NeurIPS 2024, arXiv 2410.12816).

M prompt templates over a frozen CLIP. In training each sees its own augmentation of an image, a diversity loss keeps
the templates apart and a consistency loss keeps them near a hand-written one; each gives a Dirichlet opinion on the
image, and Dempster's rule fuses the opinions into one prediction with an uncertainty.

Legend: M templates, B images, C classes, S image size in pixels, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from dassl.config import cfg_default
from dassl.data.transforms.transforms import AVAI_CHOICES, build_transform
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from .base import collect_errors
from .invariance import estimate_invariant_map
from .modules.clip_types import CLIP
from .modules.differentiation import differentiate_now
from .modules.evidence import EVIDENCE_FUNCTIONS, EvidenceFunction, Opinion, fuse, fused_log_evidence
from .modules.invariant import InvariantMap, check_estimate, cosine
from .modules.losses import (
    consistency_loss,
    dirichlet_kl,
    diversity_loss,
    template_similarity,
    trusted_cross_entropy,
)
from .modules.prompted import PromptedCLIP
from .modules.prompts import (
    CoupledTemplates,
    IndependentTemplates,
    Learner,
    TextTemplates,
    check_coupled,
    check_start,
)
from .modules.self_regulation import GaussianAverage, distances, ensemble_features, gaussian_weights
from .modules.templates import PROMPTSRC_TEMPLATES, format_template
from .modules.text import TextEncoder
from .modules.vision import ImageEncoder, VisualPrompt
from .prompt_trainer import PromptTrainer

PROMPTS = ("coupled", "independent", "text")

# The sources settle M = 4 and that every template has its own augmentation. Templates are MaPLe's. Every other value is
# our choice.
cfg_default.TRAINER.CDC = CfgNode(
    {
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32; losses and evidence are always in fp32
        # Kind of template: coupled (MaPLe's, and by its numbers the paper's: tokens in several layers of both encoders;
        # needs a ViT, and M image passes), independent (PromptSRC's: the same without coupling), or text (tokens of the
        # text encoder alone; one image pass in testing)
        "PROMPT": "coupled",
        "N_TEMPLATES": 4,  # M
        "N_CTX": 2,  # context tokens of each template
        # Wordings that the templates start from: none (random), one for all, or one for each; of N_CTX tokens or, but
        # for text, more, the same number in all, of which the first N_CTX learn
        "CTX_INIT": ["a photo of a"],
        "CTX_STD": 0.0,  # normal noise on that start; text templates that start equal need some
        "PROMPT_DEPTH": 9,  # but for text: in how many layers tokens are put, 1 to CLIP's number of layers
        "ANCHOR": "",  # hand-written template of eq. (3), with {} for the class name; "": the data set's own
        # Dassl transforms in training, one list a template, or empty: INPUT.TRANSFORMS for all of them
        "AUGMENTATIONS": [
            ["random_resized_crop", "random_flip", "normalize"],
            ["random_resized_crop", "random_flip", "colorjitter", "normalize"],
            ["random_resized_crop", "random_flip", "randomgrayscale", "normalize"],
            ["random_resized_crop", "random_flip", "gaussian_blur", "normalize"],
        ],
        # Encode so many views of each training image once, keep their features on disk and train on these; 0: encode
        # every view when it is due. For text templates; with at least as many views as epochs nothing is seen twice.
        "FEATURE_BANK": 0,
        "FEATURE_BANK_DIR": "",  # shared by runs; "": feature_bank in DATASET.ROOT
        "TEST_VIEWS": False,  # in testing too each template sees its own augmentation, else all see the plain view
        "BETA": 0.1,  # weight of the diversity loss, eq. (2)
        "GAMMA": 0.1,  # weight of the consistency loss, eq. (3)
        # Evidence of eq. (4), h(EVIDENCE_SCALE * (cos - EVIDENCE_SHIFT)): exp, softplus or relu; scale 0 is CLIP's own
        "EVIDENCE": "exp",
        "EVIDENCE_SCALE": 0.0,
        "EVIDENCE_SHIFT": 0.2,
        # trusted: eqs. (5) to (7); mean, to show what these bring: plain cross-entropy of each template, and prediction
        # by the mean of the templates' logits, which are their log-evidence where EVIDENCE is exp
        "DECISION": "trusted",
        "FUSED_LOSS": False,  # add eq. (7) on the fused opinion
        "KL_WEIGHT": 0.0,  # weight of the KL to the uniform Dirichlet (Han et al., ICLR 2021) ...
        "KL_EPOCHS": 10,  # ... which grows linearly over so many epochs
        # PromptSRC's losses and average (Khattak et al., ICCV 2023) for each template, with its published weights
        "SELF_REGULATION": {
            "ENABLED": False,
            "TEXT_LOSS_WEIGHT": 25.0,  # of the distance of text features from the frozen CLIP's
            "IMAGE_LOSS_WEIGHT": 10.0,  # of that of image features; that of the predictions has weight 1
            "GPA_MEAN": 15.0,  # of the normal distribution that weighs the epochs 1, 2, ... in the average
            "GPA_STD": 1.0,
        },
        # All cosines after the invariant map of CLIP-ICM (Song et al., ICML 2025), estimated on plain CLIP before
        # training; cosines there are others, so that EVIDENCE_SHIFT may need another value
        "INVARIANT_MAP": {
            "ENABLED": False,
            "INTERVENTIONS": 1,  # on each training image
            "K": 0,  # dimension of the invariant subspace; 0: chosen on validation images
            "LAMBDA": 0.0,  # weight of the interventions; 0: chosen as K is
        },
    }
)
for old, new in {"INVARIANT": "ENABLED", "INTERVENTIONS": "INTERVENTIONS", "K": "K", "LAMBDA": "LAMBDA"}.items():
    cfg_default.register_renamed_key(f"TRAINER.CDC.{old}", f"TRAINER.CDC.INVARIANT_MAP.{new}")


class CDCModel(PromptedCLIP):
    """The templates' evidence on images.

    Args:
        clip_model, prompt_learner, autocast: see `PromptedCLIP`.
        anchor: `(C, D)`, L2-normalised class embeddings under the hand-written template.
        evidence: h of eq. (4).
    """

    anchor: Tensor

    def __init__(
        self,
        clip_model: CLIP,
        prompt_learner: Learner,
        autocast: Callable[[], AbstractContextManager[object]],
        anchor: Tensor,
        evidence: EvidenceFunction,
    ) -> None:
        super().__init__(clip_model, prompt_learner, autocast)
        self.register_buffer("anchor", anchor, persistent=False)
        self.evidence = evidence

    def project(self, features: Tensor) -> Tensor:
        """L2-normalised features `(..., k)` after the invariant map, if there is one, of such features `(..., D)`."""
        if not hasattr(self.prompt_learner, "invariant"):
            return features
        return F.normalize(self.prompt_learner.invariant(features), dim=-1)

    def text_features(self) -> Tensor:
        return self.project(super().text_features())

    def forward(self, images: Tensor) -> Tensor:
        """Log-evidence `(M, B, C)`, eq. (4).

        Args:
            images: `(M, B, 3, S, S)`, one view a template, or `(B, 3, S, S)`, one view for all.
        """
        return self.log_evidence(self.image_features(images), self.text_features())

    def log_evidence(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """As `forward`, of L2-normalised features.

        Args:
            image_features: `(M, B, D)`, or `(B, D)` where they are one for all templates.
            text_features: `(M, C, D)`.
        """
        return self.evidence(image_features @ text_features.transpose(1, 2))


@TRAINER_REGISTRY.register()
class CDC(PromptTrainer):
    """Trainer of CDC, eq. (8), with the prediction of eq. (6)."""

    model: CDCModel

    def config_problems(self, cfg, options) -> list[str]:
        problems = super().config_problems(cfg, options)
        if options.PROMPT not in PROMPTS:
            problems.append(f"PROMPT must be one of {', '.join(PROMPTS)}, got {options.PROMPT!r}")
        if cfg.INPUT.NO_TRANSFORM or cfg.DATALOADER.K_TRANSFORMS != 1:
            problems.append("INPUT.NO_TRANSFORM must be False and DATALOADER.K_TRANSFORMS 1: views are AUGMENTATIONS'")
        if options.EVIDENCE not in EVIDENCE_FUNCTIONS:
            problems.append(f"EVIDENCE must be one of {', '.join(EVIDENCE_FUNCTIONS)}, got {options.EVIDENCE!r}")
        if options.DECISION not in ("trusted", "mean"):
            problems.append(f"DECISION must be trusted or mean, got {options.DECISION!r}")
        elif options.DECISION == "mean" and (options.EVIDENCE != "exp" or options.FUSED_LOSS or options.KL_WEIGHT):
            problems.append("DECISION mean takes EVIDENCE exp, and neither FUSED_LOSS nor KL_WEIGHT")
        negative = [k for k in ("EVIDENCE_SCALE", "BETA", "GAMMA", "KL_WEIGHT", "KL_EPOCHS") if options[k] < 0]
        problems += [f"{key} must not be negative, got {options[key]}" for key in negative]
        start = (options.CTX_INIT, options.N_TEMPLATES, options.N_CTX, options.CTX_STD)
        deep = options.PROMPT != "text"
        problems += collect_errors(check_start, *start, deep)
        problems += collect_errors(check_coupled, options.PROMPT_DEPTH, cfg.MODEL.BACKBONE.NAME) if deep else []
        problems += collect_errors(format_template, [], cfg.DATASET.NAME, options.ANCHOR)
        estimate = options.INVARIANT_MAP
        problems += collect_errors(check_estimate, estimate.INTERVENTIONS, estimate.K, estimate.LAMBDA)
        if options.FEATURE_BANK and deep:
            problems.append(f"FEATURE_BANK takes PROMPT text, got {options.PROMPT}")
        near = options.SELF_REGULATION
        problems += collect_errors(gaussian_weights, cfg.OPTIM.MAX_EPOCH, near.GPA_MEAN, near.GPA_STD)
        negative = [key for key in ("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT") if near[key] < 0]
        problems += [f"SELF_REGULATION.{key} must not be negative, got {near[key]}" for key in negative]
        return problems + _augmentation_problems(options, cfg.INPUT.TRANSFORMS)

    def transforms(self) -> tuple:
        views = [build_transform(self.cfg, is_train=True, choices=list(names)) for names in self.augmentations()]
        return views, views if self.options.TEST_VIEWS else None

    def augmentations(self) -> list[Sequence[str]]:
        return self.options.AUGMENTATIONS or [self.cfg.INPUT.TRANSFORMS] * self.options.N_TEMPLATES

    def build_clip(self, clip_model: CLIP) -> None:
        options = self.options
        encoder = TextEncoder(clip_model)
        texts = format_template(self.class_names, self.cfg.DATASET.NAME, options.ANCHOR)
        print(f"Hand-written template: {texts[0]!r} ...")
        learner = self._learner(encoder, ImageEncoder(clip_model))
        clip_model.to(self.device)
        with self.autocast():
            anchor = encoder.encode_texts(texts)
        estimate = options.INVARIANT_MAP
        if estimate.ENABLED:
            check_estimate(estimate.INTERVENTIONS, estimate.K, estimate.LAMBDA, anchor.shape[1])
            learner.invariant = InvariantMap(anchor.shape[1])  # part of the learner, so that checkpoints keep it
        evidence = EvidenceFunction(options.EVIDENCE, options.EVIDENCE_SCALE or self.scale, options.EVIDENCE_SHIFT)
        self.model = CDCModel(clip_model, learner, self.autocast, anchor, evidence).to(self.device)
        near = options.SELF_REGULATION
        if near.ENABLED:
            with self.autocast():
                self.frozen_texts = ensemble_features(encoder, PROMPTSRC_TEMPLATES, self.class_names)
            self.average = GaussianAverage(self.cfg.OPTIM.MAX_EPOCH, near.GPA_MEAN, near.GPA_STD)

    def _learner(self, text_encoder: TextEncoder, image_encoder: ImageEncoder) -> Learner:
        """The templates, of the kind that the config says."""
        options, names = self.options, self.class_names
        size, start = (options.N_TEMPLATES, options.N_CTX), (options.CTX_INIT, options.CTX_STD)
        if options.PROMPT == "text":
            return TextTemplates(text_encoder, names, *size, *start)
        kind = CoupledTemplates if options.PROMPT == "coupled" else IndependentTemplates
        return kind(text_encoder, image_encoder, names, *size, options.PROMPT_DEPTH, *start)

    def before_train(self) -> None:
        super().before_train()
        # Templates that training starts from belong to the map that came with them.
        estimate = self.options.INVARIANT_MAP
        if estimate.ENABLED and self.start_epoch == 0 and not self.cfg.MODEL.INIT_WEIGHTS:
            anchor = self.model.anchor.cpu()

            def classify(a: Tensor, features: Tensor, labels: Tensor, images: Tensor) -> Tensor:
                return cosine(images @ a, anchor @ a)

            estimate_invariant_map(self, estimate, self.model.prompt_learner.invariant, classify)

    def model_metrics(self) -> dict[str, float]:
        metrics = self.model.prompt_learner.invariant.metrics() if self.options.INVARIANT_MAP.ENABLED else {}
        if self.options.N_TEMPLATES > 1:
            metrics["template_similarity"] = template_similarity(self.model.text_features()).item()
        return metrics

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. (8), `L_tce + beta L_de + gamma L_con`, and what the config adds."""
        options = self.options
        label = self.to_device(batch["label"])
        text_features = self.model.text_features()
        loss_images, log_evidence = self._image_loss(batch, text_features, label)
        loss_de = diversity_loss(text_features, self.model.scale)
        loss_con = consistency_loss(text_features, self.model.project(self.model.anchor), self.model.scale)
        loss = loss_images + options.BETA * loss_de + options.GAMMA * loss_con
        if options.FUSED_LOSS:
            loss = loss + trusted_cross_entropy(fused_log_evidence(log_evidence)[None], label)

        with torch.no_grad():
            loss_tce = self._classification_loss(log_evidence, label)
            opinion = self._decide(log_evidence)
            accuracy = 100.0 * (opinion.log_prob.argmax(dim=1) == label).float().mean()
        return loss, {
            "loss_tce": loss_tce,
            "loss_de": loss_de,
            "loss_con": loss_con,
            "acc": accuracy,
            "uncertainty": opinion.uncertainty.mean(),
        }

    def _image_loss(self, batch: dict, text_features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The terms of the loss that see images, and the log-evidence `(M, B, C)` that they are of.

        A sum over templates: those with prompts in the image encoder go through it in parts, each with its own backward
        pass, so that memory does not grow with M. `FUSED_LOSS` ties them together, and they are all kept.
        """
        prompt = self.learner.visual()
        if prompt is None:
            features = self.feature_source.features(batch)
            return self._loss_of_features(features, features, text_features, label)
        views = self.views(batch)
        if self.options.FUSED_LOSS:
            return self._loss_of_views(views, prompt, text_features, label)
        losses, found = [], []
        for part in self.model.image_encoder.parts(prompt, len(label)):

            def of_part(text: Tensor, *tokens: Tensor, images: Tensor = views[part]) -> tuple[Tensor, Tensor]:
                return self._loss_of_views(images, VisualPrompt(tokens[0], tokens[1:]), text, label)

            own = prompt.of(part)
            scale = self.scaler.scale if self.scaler else None
            loss, log_evidence = differentiate_now(of_part, text_features[part], own.shallow, *own.deep, scale=scale)
            losses.append(loss)
            found.append(log_evidence)
        return torch.stack(losses).sum(), torch.cat(found)

    def _loss_of_views(
        self, views: Tensor, prompt: VisualPrompt, text_features: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `_loss_of_features`, of what some templates see, `(M, B, 3, S, S)`, under their visual prompts."""
        features = self.model.encode_images(views, prompt)
        plain = self.model.plain_image_features(views) if self.options.SELF_REGULATION.ENABLED else features
        return self._loss_of_features(features, plain, text_features, label)

    def _loss_of_features(
        self, features: Tensor, plain_features: Tensor, text_features: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The terms of the loss that see images, summed over some templates, and their log-evidence `(M, B, C)`.

        Args:
            features, plain_features: `(M, B, D)` or `(B, D)` under the templates' prompts, and by CLIP without prompts.
            text_features: `(M, C, D)`.
            label: `(B,)`.
        """
        model, near = self.model, self.options.SELF_REGULATION
        features = model.project(features)
        log_evidence = model.log_evidence(features, text_features)
        loss = self._evidence_loss(log_evidence, label)
        if near.ENABLED:
            frozen = (model.project(plain_features), model.project(self.frozen_texts))
            far = distances(features, text_features, *frozen, model.scale)  # of templates the mean
            weighted = far.logits + near.TEXT_LOSS_WEIGHT * far.text + near.IMAGE_LOSS_WEIGHT * far.image
            loss = loss + len(text_features) * weighted
        return loss, log_evidence

    def _classification_loss(self, log_evidence: Tensor, label: Tensor) -> Tensor:
        """Eq. (7), or plain cross-entropy in its place, of log-evidence `(M, B, C)`: sum over templates."""
        if self.options.DECISION == "mean":
            return torch.stack([F.cross_entropy(own, label) for own in log_evidence]).sum()
        return trusted_cross_entropy(log_evidence, label)

    def _evidence_loss(self, log_evidence: Tensor, label: Tensor) -> Tensor:
        """`_classification_loss` and, where the config has it, the KL term: sum over templates."""
        options, loss = self.options, self._classification_loss(log_evidence, label)
        if options.KL_WEIGHT:
            grown = min(1.0, self.epoch / options.KL_EPOCHS) if options.KL_EPOCHS else 1.0
            loss = loss + options.KL_WEIGHT * grown * dirichlet_kl(log_evidence, label)
        return loss

    def _decide(self, log_evidence: Tensor) -> Opinion:
        """The opinion of all templates, eq. (5), or the one of their mean log-evidence, of `(M, B, C)`."""
        return fuse(log_evidence.mean(dim=0, keepdim=True) if self.options.DECISION == "mean" else log_evidence)

    def views(self, batch: dict) -> Tensor:
        """What each template sees, `(M, B, 3, S, S)`: Dassl gives the views as img, img2, img3, ..."""
        names = ["img"] + [f"img{m}" for m in range(2, self.options.N_TEMPLATES + 1)]
        return torch.stack([self.to_device(batch[name]) for name in names])

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        images, label = super().parse_batch_test(batch)
        return (self.views(batch) if self.options.TEST_VIEWS else images), label

    def model_inference(self, images: Tensor) -> Tensor:
        """Log-probabilities `(B, C)` of eq. (6); images as in `CDCModel.forward`."""
        return self._decide(self.model(images)).log_prob

    def opinions(self, images: Tensor) -> tuple[Opinion, list[Opinion]]:
        log_evidence = self.model(images)
        return self._decide(log_evidence), [fuse(own[None]) for own in log_evidence]

    def test_step(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        log_evidence = self.model(images)
        opinion = self._decide(log_evidence)
        records = {
            "uncertainty": opinion.uncertainty,
            "conflict": opinion.conflict,
            "template_prediction": log_evidence.argmax(dim=2).T,
        }
        return opinion.log_prob, records


def _augmentation_problems(options: CfgNode, transforms: list[str]) -> list[str]:
    """What is wrong with the templates' augmentations.

    A list that leaves out the normalisation that the test images get would ruin the features without an error.
    """
    if not options.AUGMENTATIONS:
        return []
    problems = []
    if len(options.AUGMENTATIONS) != options.N_TEMPLATES:
        problems.append(
            f"AUGMENTATIONS must hold one list for each of the {options.N_TEMPLATES} templates (N_TEMPLATES), "
            f"got {len(options.AUGMENTATIONS)}"
        )
    for m, names in enumerate(options.AUGMENTATIONS, 1):
        if not isinstance(names, (list, tuple)):
            problems.append(f"AUGMENTATIONS of template {m} must be a list of transforms, got {names!r}")
            continue
        unknown = [name for name in names if name not in AVAI_CHOICES]
        if unknown:
            problems.append(
                f"AUGMENTATIONS of template {m} has {', '.join(map(repr, unknown))} not among {', '.join(AVAI_CHOICES)}"
            )
        if ("normalize" in names) != ("normalize" in transforms):
            problems.append(f"AUGMENTATIONS of template {m} and INPUT.TRANSFORMS must both normalize or both not")
    return problems
