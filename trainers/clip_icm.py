"""CLIP-ICM: the Invariant Causal Mechanism of CLIP (Song et al., ICML 2025, arXiv 2405.15289).

A linear map to the factors that interventions do not change is estimated from pairs of an image and a random
intervention on it, eq. (9). Images are classified after that map, eq. (10): by the cosine with class embeddings, which
works for any classes, or by a linear probe, which knows only the classes of its run. No gradient step is taken.

It differs from the released code (github ML-TASA/CLIP-ICM) in two points. The map consists of the eigenvectors of the
largest eigenvalues, as the paper says; that code keeps those of the smallest. The cosine is taken after the map; that
code normalises the class embeddings before the map and the image features not at all, so it prefers classes whose
embeddings keep more of their length.

Legend: N training images, B images, C classes, S image size in pixels, D embedding width, k subspace dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch.nn.functional as F
from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from .config_checks import collect_errors
from .invariance import estimate_invariant_map, held_out
from .modules.clip_types import CLIP
from .modules.invariant import InvariantMap, LinearProbe, check_estimate, cosine
from .modules.templates import format_template
from .modules.text import TextEncoder
from .modules.vision import ImageEncoder
from .prompt_trainer import PromptTrainer

PREDICTIONS = ("cosine", "probe")

cfg_default.TRAINER.CLIPICM = CfgNode(
    {
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32; the eigenproblem is always in float64
        "INTERVENTIONS": 1,  # interventions on each training image, each one random operation
        "K": 0,  # dimension of the invariant subspace; 0: chosen on validation images
        "LAMBDA": 0.0,  # weight of the interventions in eq. (9), 1000 in the released code; 0: chosen as K is
        "PREDICTION": "cosine",  # eq. (10): cosine, or probe (for the classes of the training run alone)
    }
)


class InvariantCLIP(nn.Module):
    """CLIP with the invariant map after it.

    Args:
        clip_model: frozen CLIP.
        text_features: `(C, D)`, class embeddings.
        invariant: the map; its `probe`, if it has one, classifies in place of the cosine.
        autocast: context in which the image encoder computes.
    """

    text_features: Tensor

    def __init__(
        self,
        clip_model: CLIP,
        text_features: Tensor,
        invariant: InvariantMap,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(clip_model)
        self.scale = float(clip_model.logit_scale.exp())
        self.register_buffer("text_features", text_features, persistent=False)
        self.invariant = invariant
        self.autocast = autocast

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, C)` of images `(B, 3, S, S)`, eq. (10)."""
        x = self.features(images)
        if hasattr(self.invariant, "probe"):
            return self.invariant.probe(x)
        return self.scale * cosine(x, self.invariant(self.text_features))

    def features(self, images: Tensor) -> Tensor:
        """`A^T v`, `(B, k)`."""
        with self.autocast():
            features = self.image_encoder.features(images)
        return self.invariant(features)


@TRAINER_REGISTRY.register()
class CLIPICM(PromptTrainer):
    """What is "trained", in one epoch, is the invariant map (and the probe): estimated, kept, resumed and tested."""

    model: InvariantCLIP  # type: ignore[assignment]  # what the base class asks of a PromptedCLIP is overridden here
    checkpoint_folder = "invariant_map"
    in_one_epoch = True

    def config_problems(self, cfg, options) -> list[str]:
        problems = super().config_problems(cfg, options)
        problems += collect_errors(check_estimate, options.INTERVENTIONS, options.K, options.LAMBDA)
        if options.PREDICTION not in PREDICTIONS:
            problems.append(f"PREDICTION must be one of {', '.join(PREDICTIONS)}, got {options.PREDICTION!r}")
        return problems

    @property
    def learner(self) -> InvariantMap:
        return self.model.invariant

    def before_train(self) -> None:
        options = self.options
        given = options.K and options.LAMBDA
        if options.PREDICTION == "probe" and not (given or held_out(self.dm.dataset)):
            raise ValueError(
                f"{self.cfg.DATASET.NAME} has no validation images of its own to choose a probe's K and LAMBDA on, "
                f"and the training images fit it: give both, got {options.K} and {options.LAMBDA}"
            )
        super().before_train()

    def build_clip(self, clip_model: CLIP) -> None:
        options = self.options
        clip_model.to(self.device)
        with self.autocast():
            text_features = TextEncoder(clip_model).encode_texts(
                format_template(self.class_names, self.cfg.DATASET.NAME)
            )
        n_classes, width = text_features.shape
        check_estimate(options.INTERVENTIONS, options.K, options.LAMBDA, width)
        invariant = InvariantMap(width)
        if options.PREDICTION == "probe":
            invariant.probe = LinearProbe(n_classes, width)
        else:
            self.untrained_keys = ("probe.*",)  # the map of a run with a probe serves the cosine as well
        self.model = InvariantCLIP(clip_model, text_features, invariant, self.autocast).to(self.device)
        self.max_epoch = 1

    def run_epoch(self) -> None:
        """Estimate the map, K and LAMBDA being chosen by the prediction in use, and fit the probe."""
        features, labels = estimate_invariant_map(self, self.options, self.learner, self.classify)
        if self.options.PREDICTION == "probe":
            self.learner.probe.fit(self.learner(features.to(self.device)), labels)

    def classify(self, a: Tensor, features: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """Scores `(B, C)` of image features `(B, D)` after a map `(D, k)`, eq. (10).

        A probe is fitted to `features` `(N, D)` and `labels` `(N,)`.
        """
        if self.options.PREDICTION == "probe":
            return LinearProbe(self.num_classes, a.shape[1]).fit(features @ a, labels)(images @ a)
        return cosine(images @ a, self.model.text_features.cpu() @ a)

    def checkpoint_problems(self, checkpoint: dict) -> list[str]:
        """As in the base class; and a linear probe predicts its own classes only."""
        problems, names = super().checkpoint_problems(checkpoint), checkpoint.get("class_names")
        if self.options.PREDICTION == "probe" and names != self.class_names:
            known = f"{', '.join(names or ['unknown'])}, not for {', '.join(self.class_names)}"
            problems.append(f"has a linear probe for {known}, which PREDICTION cosine can predict")
        return problems

    def model_inference(self, images: Tensor) -> Tensor:
        """Logits `(B, C)` of images `(B, 3, S, S)`."""
        return self.model(images)

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.model.features(images), dim=-1)

    def class_features(self) -> Tensor:
        return F.normalize(self.model.invariant(self.model.text_features), dim=-1)[None]

    def model_metrics(self) -> dict[str, float]:
        return self.learner.metrics()
