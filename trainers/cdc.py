"""CDC: Causality-guided semantic Decoupling and Classification (Zhang et al., NeurIPS 2024, arXiv 2410.12816).

M prompt templates over a frozen CLIP. In training each sees its own augmentation of an image, a diversity loss keeps
the templates apart and a consistency loss keeps them near a hand-written one; each gives a Dirichlet opinion on the
image, and Dempster's rule fuses the opinions into one prediction with an uncertainty.

Legend: M templates, B images, C classes, S image size in pixels, D embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from dassl.config import cfg_default
from dassl.data import DataManager
from dassl.data.transforms.transforms import AVAI_CHOICES, build_transform
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from .base import PromptTrainer
from .modules.evidence import EVIDENCE_FUNCTIONS, fuse, fused_log_evidence, log_evidence
from .modules.losses import consistency_loss, decoupling_loss, dirichlet_kl, trusted_cross_entropy
from .modules.prompts import TextTemplates, check_start
from .modules.templates import fill
from .modules.text import TextEncoder
from .modules.vision import ImageEncoder

# The sources settle M = 4 and that every template has its own augmentation. Every other value here is our choice.
cfg_default.TRAINER.CDC = CfgNode(
    {
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32; losses and evidence are always in fp32
        "PROMPT": "text",  # kind of template: text (context tokens of the text encoder alone)
        "N_TEMPLATES": 4,  # M
        "N_CTX": 4,  # context tokens a template
        # Wordings that the templates start from, each of N_CTX tokens: none (random), one for all, or one a template
        "CTX_INIT": ["a photo of a", "a picture of a", "an image of a", "a snapshot of a"],
        "CTX_STD": 0.0,  # normal noise on that start; templates that start equal need some
        "ANCHOR": "",  # hand-written template of eq. (3), with {} for the class name; "": the data set's own
        # Dassl transforms in training, one list a template, or empty: INPUT.TRANSFORMS for all of them
        "AUGMENTATIONS": [
            ["random_resized_crop", "random_flip", "normalize"],
            ["random_resized_crop", "random_flip", "colorjitter", "normalize"],
            ["random_resized_crop", "random_flip", "randomgrayscale", "normalize"],
            ["random_resized_crop", "random_flip", "gaussian_blur", "normalize"],
        ],
        "TEST_VIEWS": False,  # in testing too each template sees its own augmentation, else all see the plain view
        "BETA": 0.1,  # weight of the diversity loss, eq. (2)
        "GAMMA": 0.1,  # weight of the consistency loss, eq. (3)
        # Evidence of eq. (4), h(EVIDENCE_SCALE * (cos - EVIDENCE_SHIFT)): exp, softplus or relu; scale 0 is CLIP's own
        "EVIDENCE": "exp",
        "EVIDENCE_SCALE": 0.0,
        "EVIDENCE_SHIFT": 0.2,
        "FUSED_LOSS": False,  # add eq. (7) on the fused opinion
        "KL_WEIGHT": 0.0,  # weight of the KL to the uniform Dirichlet (Han et al., ICLR 2021) ...
        "KL_EPOCHS": 10,  # ... which grows linearly over so many epochs
    }
)


class CDCModel(nn.Module):
    """The templates' evidence on images; only `prompt_learner` is trained.

    Args:
        clip_model: frozen CLIP.
        prompt_learner: gives the `TextPrompt` of all templates and classes.
        anchor: `(C, D)`, L2-normalised class embeddings under the hand-written template.
        evidence: evidence function, scale (0: CLIP's logit scale) and shift of `log_evidence`.
        autocast: context factory in which the encoders compute.
    """

    def __init__(self, clip_model, prompt_learner, anchor, evidence, autocast):
        super().__init__()
        self.prompt_learner = prompt_learner
        self.text_encoder = TextEncoder(clip_model)
        self.image_encoder = ImageEncoder(clip_model)
        self.scale = float(clip_model.logit_scale.exp())
        self.register_buffer("anchor", anchor, persistent=False)
        function, scale, shift = evidence
        self.evidence = (function, scale or self.scale, shift)
        self.autocast = autocast
        self._kept: tuple[list[Tensor], Tensor] | None = None

    def text_features(self) -> Tensor:
        """L2-normalised class embeddings `(M, C, D)` under each template, float32.

        Without gradient they are computed once and kept until a parameter changes. Parameters are compared by value:
        some optimisers change them without PyTorch's version counter noticing.
        """
        if torch.is_grad_enabled():
            return self._encode_text()
        parameters = list(self.prompt_learner.parameters())
        if self._kept is None or not all(map(torch.equal, self._kept[0], parameters)):
            self._kept = ([p.detach().clone() for p in parameters], self._encode_text())
        return self._kept[1]

    def _encode_text(self) -> Tensor:
        with self.autocast():
            features = self.text_encoder(self.prompt_learner())
        return F.normalize(features.float(), dim=-1)

    def forward(self, images: Tensor, text_features: Tensor) -> Tensor:
        """Log-evidence `(M, B, C)`, eq. (4).

        Args:
            images: `(M, B, 3, S, S)`, one view a template, or `(B, 3, S, S)`, one view for all.
            text_features: `(M, C, D)`.
        """
        with self.autocast():
            image_features = self.image_encoder(images.flatten(0, -4))  # (M B or B, D)
        image_features = image_features.view(*images.shape[:-3], -1)
        similarity = image_features @ text_features.transpose(1, 2)  # (M, B, C)
        return log_evidence(similarity, *self.evidence)


@TRAINER_REGISTRY.register()
class CDC(PromptTrainer):
    """Trainer of CDC, eq. (8), with the prediction of eq. (6)."""

    def config_problems(self, cfg, options) -> list[str]:
        problems = super().config_problems(cfg, options)
        if options.PROMPT != "text":
            problems.append(f"PROMPT must be text, got {options.PROMPT!r}")
        if cfg.INPUT.NO_TRANSFORM or cfg.DATALOADER.K_TRANSFORMS != 1:
            problems.append("INPUT.NO_TRANSFORM must be False and DATALOADER.K_TRANSFORMS 1: views are AUGMENTATIONS'")
        if options.EVIDENCE not in EVIDENCE_FUNCTIONS:
            problems.append(f"EVIDENCE must be one of {', '.join(EVIDENCE_FUNCTIONS)}, got {options.EVIDENCE!r}")
        negative = [k for k in ("EVIDENCE_SCALE", "BETA", "GAMMA", "KL_WEIGHT", "KL_EPOCHS") if options[k] < 0]
        problems += [f"{key} must not be negative, got {options[key]}" for key in negative]
        for check, *arguments in (
            (check_start, options.CTX_INIT, options.N_TEMPLATES, options.N_CTX, options.CTX_STD),
            (fill, [], cfg.DATASET.NAME, options.ANCHOR),
        ):
            try:
                check(*arguments)
            except ValueError as error:
                problems.append(str(error))
        return problems + _augmentation_problems(options, cfg.INPUT.TRANSFORMS)

    def build_data_loader(self) -> None:
        choices = self.options.AUGMENTATIONS or [self.cfg.INPUT.TRANSFORMS] * self.options.N_TEMPLATES
        views = [build_transform(self.cfg, is_train=True, choices=list(choice)) for choice in choices]
        self.dm = DataManager(
            self.cfg, custom_tfm_train=views, custom_tfm_test=views if self.options.TEST_VIEWS else None
        )
        self.train_loader_x = self.dm.train_loader_x
        self.train_loader_u = self.dm.train_loader_u
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def build_clip(self, clip_model: nn.Module) -> None:
        options = self.options
        encoder = TextEncoder(clip_model)
        texts = fill(self.class_names, self.cfg.DATASET.NAME, options.ANCHOR)
        print(f"Hand-written template: {texts[0]!r} ...")
        learner = TextTemplates(
            encoder, self.class_names, options.N_TEMPLATES, options.N_CTX, options.CTX_INIT, options.CTX_STD
        )
        clip_model.to(self.device)
        with self.autocast():
            anchor = encoder.encode_texts(texts)
        evidence = (options.EVIDENCE, options.EVIDENCE_SCALE, options.EVIDENCE_SHIFT)
        self.model = CDCModel(clip_model, learner, anchor, evidence, self.autocast).to(self.device)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. (8), `L_tce + beta L_de + gamma L_con`."""
        options = self.options
        images, label = self._views(batch), batch["label"].to(self.device)
        text_features = self.model.text_features()
        evidence = self.model(images, text_features)

        loss_tce = trusted_cross_entropy(evidence, label)
        loss_de = decoupling_loss(text_features, self.model.scale)
        loss_con = consistency_loss(text_features, self.model.anchor, self.model.scale)
        loss = loss_tce + options.BETA * loss_de + options.GAMMA * loss_con
        if options.FUSED_LOSS:
            loss = loss + trusted_cross_entropy(fused_log_evidence(evidence)[None], label)
        if options.KL_WEIGHT:
            grown = min(1.0, self.epoch / options.KL_EPOCHS) if options.KL_EPOCHS else 1.0
            loss = loss + options.KL_WEIGHT * grown * dirichlet_kl(evidence, label)

        with torch.no_grad():
            opinion = fuse(evidence)
            accuracy = 100.0 * (opinion.log_prob.argmax(dim=1) == label).float().mean()
        return loss, {
            "loss_tce": loss_tce,
            "loss_de": loss_de,
            "loss_con": loss_con,
            "acc": accuracy,
            "uncertainty": opinion.uncertainty.mean(),
        }

    def _views(self, batch: dict) -> Tensor:
        """What each template sees, `(M, B, 3, S, S)`: Dassl gives the views as img, img2, img3, ..."""
        names = ["img"] + [f"img{m}" for m in range(2, self.options.N_TEMPLATES + 1)]
        return torch.stack([batch[name] for name in names]).to(self.device)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        images = self._views(batch) if self.options.TEST_VIEWS else batch["img"].to(self.device)
        return images, batch["label"].to(self.device)

    def model_inference(self, images: Tensor) -> Tensor:
        """Log-probabilities `(B, C)` of eq. (6); images as in `CDCModel.forward`."""
        return fuse(self.model(images, self.model.text_features())).log_prob

    def test_step(self, images: Tensor, label: Tensor) -> None:
        evidence = self.model(images, self.model.text_features())
        opinion = fuse(evidence)
        self.evaluator.process(opinion.log_prob, label)
        self.totals["uncertainty"] += opinion.uncertainty.sum().item()
        self.totals["conflict"] += opinion.conflict.sum().item()
        for m, right in enumerate((evidence.argmax(dim=2) == label).sum(dim=1).tolist()):
            self.totals[f"template{m + 1}_accuracy"] += 100.0 * right


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
