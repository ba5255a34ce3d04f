"""CDC: Causality-guided semantic Decoupling and Classification (Zhang et al., NeurIPS 2024, arXiv 2410.12816).

M prompt templates over a frozen CLIP. In training each sees its own augmentation of an image. A diversity loss keeps
the templates apart, and a consistency loss keeps them near a hand-written one. Each gives a Dirichlet opinion on the
image, and Dempster's rule fuses the opinions into one prediction with an uncertainty.

Equation numbers are those of docs/method.md. The templates' evidence, eq. (4), is in modules/cdc_model.py, the losses
are in modules/losses.py, the fusion rule is in modules/evidence.py, the options are in cdc_options.py.

Legend: M templates, B images, C classes, S image size in pixels, D embedding width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from dassl.data.transforms.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor

from .cdc_options import option_problems
from .invariance import estimate_invariant_map
from .modules.calibration import Calibration, fit_evidence
from .modules.cdc_model import CDCModel
from .modules.clip_types import CLIP
from .modules.differentiation import differentiate_now
from .modules.evidence import EvidenceFunction, Opinion, fuse, fused_log_evidence, template_certainty
from .modules.invariant import InvariantMap, check_estimate, cosine
from .modules.losses import dirichlet_kl, template_similarity, total_loss, trusted_cross_entropy
from .modules.prompts import CoupledTemplates, IndependentTemplates, Learner, TextTemplates
from .modules.self_regulation import GaussianAverage, distances, ensemble_features
from .modules.templates import PROMPTSRC_TEMPLATES, format_template
from .modules.text import TextEncoder
from .modules.vision import ImageEncoder, VisualPrompt
from .prompt_trainer import PromptTrainer


@TRAINER_REGISTRY.register()
class CDC(PromptTrainer):
    """Trainer of CDC, eq. (8), with the prediction of eq. (6) or (6')."""

    model: CDCModel

    def config_problems(self, cfg, options) -> list[str]:
        return super().config_problems(cfg, options) + option_problems(cfg, options)

    def transforms(self) -> tuple:
        views = [build_transform(self.cfg, is_train=True, choices=list(names)) for names in self.augmentations()]
        return views, views if self.options.TEST_VIEWS else None

    def augmentations(self) -> list[Sequence[str]]:
        return self.options.AUGMENTATIONS or [self.cfg.INPUT.TRANSFORMS] * self.options.N_TEMPLATES

    def build_clip(self, clip_model: CLIP) -> None:
        options = self.options
        print(f"Hand-written template: {self._hand_written()[0]!r} ...")
        learner = self._learner(TextEncoder(clip_model), ImageEncoder(clip_model))
        clip_model.to(self.device)
        estimate, width = options.INVARIANT_MAP, clip_model.text_projection.shape[1]
        if estimate.ENABLED:
            check_estimate(estimate.INTERVENTIONS, estimate.K, estimate.LAMBDA, width)
            learner.invariant = InvariantMap(width)  # part of the learner, so that checkpoints keep it
        evidence = EvidenceFunction(options.EVIDENCE, options.EVIDENCE_SCALE or self.scale, options.EVIDENCE_SHIFT)
        self.model = CDCModel(clip_model, learner, evidence, self.autocast).to(self.device)
        regulation = options.SELF_REGULATION
        if regulation.ENABLED:
            self.average = GaussianAverage(self.cfg.OPTIM.MAX_EPOCH, regulation.GPA_MEAN, regulation.GPA_STD)

    def _hand_written(self) -> list[str]:
        """The hand-written template's texts, one per class."""
        return format_template(self.class_names, self.cfg.DATASET.NAME, self.options.ANCHOR)

    # Both are for training alone: to test many classes would else take the time of many more texts.

    @functools.cached_property
    def anchor(self) -> Tensor:
        """`(C, D)`, L2-normalised class embeddings under the hand-written template."""
        with self.autocast():
            return self.model.text_encoder.encode_texts(self._hand_written())

    @functools.cached_property
    def frozen_texts(self) -> Tensor:
        """`(C, D)`, L2-normalised class embeddings of PromptSRC's templates by the frozen CLIP."""
        with self.autocast():
            return ensemble_features(self.model.text_encoder, PROMPTSRC_TEMPLATES, self.class_names)

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
        # A run that starts from INIT_WEIGHTS keeps the map that was saved with them.
        estimate = self.options.INVARIANT_MAP
        if estimate.ENABLED and self.start_epoch == 0 and not self.cfg.MODEL.INIT_WEIGHTS:
            anchor = self.anchor.cpu()

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
        anchor = self.model.project(self.anchor)
        loss, loss_de, loss_con = total_loss(
            loss_images, text_features, anchor, self.model.scale, beta=options.BETA, gamma=options.GAMMA
        )
        if options.FUSED_LOSS:
            loss = loss + trusted_cross_entropy(fused_log_evidence(log_evidence, options.FUSION)[None], label)

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
        """The terms of the loss that see images, and the log-evidence `(M, B, C)` that they are computed from.

        They are a sum over templates. So templates with visual prompts go through the image encoder in parts, each with
        its own backward pass, and memory does not grow with M. `FUSED_LOSS` couples them, so all activations are kept.
        """
        with self.autocast():  # as in testing
            prompt = self.model.prompt_learner.visual()
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
            amp_scale = self.scaler.scale if self.scaler else None
            inputs = (text_features[part], own.shallow, *own.deep)
            loss, log_evidence = differentiate_now(of_part, *inputs, scale=amp_scale)
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
        model, regulation = self.model, self.options.SELF_REGULATION
        features = model.project(features)
        log_evidence = model.log_evidence(features, text_features)
        loss = self._evidence_loss(log_evidence, label)
        if regulation.ENABLED:
            frozen = (model.project(plain_features), model.project(self.frozen_texts))
            far = distances(features, text_features, *frozen, model.scale)  # averaged over templates
            weighted = far.logits + regulation.TEXT_LOSS_WEIGHT * far.text + regulation.IMAGE_LOSS_WEIGHT * far.image
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
        """The fused opinion, eq. (5), of log-evidence `(M, B, C)`; that of the templates' mean if DECISION is mean."""
        if self.options.DECISION == "mean":
            mean = fuse(log_evidence.mean(dim=0, keepdim=True))
            return mean._replace(conflict=fuse(log_evidence).conflict)  # one opinion has none with itself
        return fuse(log_evidence, self.options.FUSION, self.options.PROBABILITY)

    def views(self, batch: dict) -> Tensor:
        """What each template sees, `(M, B, 3, S, S)`: Dassl gives the views as img, img2, img3, ..."""
        names = ["img"] + [f"img{m}" for m in range(2, self.options.N_TEMPLATES + 1)]
        return torch.stack([self.to_device(batch[name]) for name in names])

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        images, label = super().parse_batch_test(batch)
        return (self.views(batch) if self.options.TEST_VIEWS else images), label

    def model_inference(self, images: Tensor) -> Tensor:
        """Log-probabilities `(B, C)` of eq. (6) or (6'); images as in `CDCModel.forward`."""
        return self._decide(self.model(images)).log_prob

    def outputs(self, images: Tensor) -> Tensor:
        """Cosines `(M, B, C)`; images as in `CDCModel.forward`."""
        return self.model.cosines(images)

    def _evidence(self, outputs: Tensor, calibration: Mapping[str, float] | None) -> Tensor:
        """Log-evidence `(M, B, C)` of cosines, with the scale and shift of a calibration or the model's own."""
        evidence = self.model.evidence
        if calibration:
            evidence = evidence._replace(scale=calibration["scale"], shift=calibration["shift"])
        return evidence(outputs)

    def opinions(
        self, outputs: Tensor, calibration: Mapping[str, float] | None = None
    ) -> tuple[Opinion, list[Opinion]]:
        log_evidence = self._evidence(outputs, calibration)
        return self._decide(log_evidence), [fuse(own[None]) for own in log_evidence]

    def judge(
        self, outputs: Tensor, calibration: Mapping[str, float] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        log_evidence = self._evidence(outputs, calibration)
        opinion = self._decide(log_evidence)
        confidence, uncertainty = template_certainty(log_evidence)
        records = {
            "uncertainty": opinion.uncertainty,
            "conflict": opinion.conflict,
            "doubt": opinion.doubt,
            "template_prediction": log_evidence.argmax(dim=2).T,
            "template_confidence": confidence.T,
            "template_uncertainty": uncertainty.T,
        }
        return opinion.log_prob, records

    def fit_calibration(self, outputs: Tensor, label: Tensor) -> Calibration:
        """Scale and shift of the evidence, eq. (4)."""
        return fit_evidence(outputs, label, self.model.evidence, lambda own: self._decide(own).log_prob)
