"""What keeps learnt prompts near the frozen CLIP in PromptSRC (Khattak et al., ICCV 2023, arXiv 2307.06948).

Three distances between features with prompts and plain CLIP's, and an average of the prompts over the epochs.

Legend: B images, C classes, D embedding width; `...` may be templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .text import TextEncoder


class Distances(NamedTuple):
    """How far prompts are from the frozen CLIP; scalars >= 0, without weights.

    Attributes:
        text: mean absolute difference of class embeddings, L_SCL-text.
        image: mean absolute difference of image embeddings, L_SCL-image.
        logits: the Kullback-Leibler divergence of the predictions from the frozen CLIP's, L_SCL-logits; mean over the
            batch, divided by C as in the published code.
    """

    text: Tensor
    image: Tensor
    logits: Tensor


def distances(
    image_features: Tensor, text_features: Tensor, frozen_images: Tensor, frozen_texts: Tensor, scale: Tensor | float
) -> Distances:
    """The self-regulating losses of one batch.

    Args:
        image_features, text_features: `(..., B, D)` and `(..., C, D)`, L2-normalised, with prompts.
        frozen_images, frozen_texts: `(B, D)` and `(C, D)` or as the former, L2-normalised, of the frozen CLIP.
        scale: CLIP's `logit_scale.exp()`.

    Returns:
        The three distances, of templates the mean.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    pairs = (("image", image_features, frozen_images), ("text", text_features, frozen_texts))
    for name, features, frozen in pairs:
        if frozen.ndim < 2 or features.shape[-frozen.ndim :] != frozen.shape:
            raise ValueError(
                f"frozen {name} features must have the last dimensions of those with prompts, {tuple(features.shape)}, "
                f"got {tuple(frozen.shape)}"
            )
    log_prob = torch.log_softmax(scale * image_features @ text_features.transpose(-1, -2), dim=-1)
    frozen_log_prob = torch.log_softmax(scale * frozen_images @ frozen_texts.transpose(-1, -2), dim=-1)
    return Distances(
        text=(text_features - frozen_texts).abs().mean(),
        image=(image_features - frozen_images).abs().mean(),
        logits=(frozen_log_prob.exp() * (frozen_log_prob - log_prob)).mean(),
    )


def ensemble_features(encoder: TextEncoder, templates: Sequence[str], class_names: Sequence[str]) -> Tensor:
    """Class embeddings of many hand-written templates: the mean of CLIP's own, not normalised ones, then normalised.

    Args:
        encoder: the frozen text encoder.
        templates: texts with `{}` for the class name.
        class_names: C class names; underscores count as blanks.

    Returns:
        `(C, D)` in float32, without gradient.

    Raises:
        ValueError: there is no template, or a text is too long.
    """
    if not templates:
        raise ValueError("there must be at least 1 template, got none")
    names = [name.replace("_", " ") for name in class_names]
    features = [encoder.plain_features([template.replace("{}", name) for name in names]) for template in templates]
    return F.normalize(torch.stack(features).mean(dim=0), dim=-1)


def gaussian_weights(n_epochs: int, mean: float, std: float) -> tuple[float, ...]:
    """Weights of the epochs 1 to n from a normal distribution's density, which sum to 1.

    Computed from logarithms, so that they are right also where all epochs are far from the mean.

    Raises:
        ValueError: no epoch, or a standard deviation that is not positive.
    """
    if n_epochs < 1 or std <= 0:
        raise ValueError(f"there must be at least 1 epoch and a standard deviation above 0, got {n_epochs} and {std}")
    epochs = torch.arange(1, n_epochs + 1, dtype=torch.float64)
    return tuple(torch.softmax(-0.5 * ((epochs - mean) / std) ** 2, dim=0).tolist())


class GaussianAverage:
    """The average of parameters over the epochs of a training, weighted by `gaussian_weights`.

    Args:
        n_epochs, mean, std: see `gaussian_weights`.

    Attributes:
        total: the weighted sum over the epochs that were added, by name; empty before the first.
    """

    total: dict[str, Tensor]

    def __init__(self, n_epochs: int, mean: float, std: float) -> None:
        self.weights = gaussian_weights(n_epochs, mean, std)
        self._settings = {"n_epochs": n_epochs, "mean": float(mean), "std": float(std)}
        self.n_added = 0
        self.total = {}

    def add(self, parameters: Mapping[str, Tensor]) -> None:
        """Add what the parameters are after the next epoch.

        Raises:
            ValueError: all epochs were added already.
        """
        if self.complete:
            raise ValueError(f"the average is over {len(self.weights)} epochs, and all of them are in it")
        weighted = {name: value.detach() * self.weights[self.n_added] for name, value in parameters.items()}
        self.total = {name: self.total[name] + value if self.total else value for name, value in weighted.items()}
        self.n_added += 1

    @property
    def complete(self) -> bool:
        """Whether all epochs were added, so that `total` is their average."""
        return self.n_added == len(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here: tensors and plain data."""
        return {**self._settings, "n_added": self.n_added, "total": dict(self.total)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where another average was.

        Raises:
            ValueError: there was none, or it was over other epochs or with other weights.
        """
        if not state:
            raise ValueError("there is no average of its epochs")
        other = {name: state.get(name) for name in self._settings}
        if other != self._settings:
            raise ValueError(f"the average of its epochs was made with {other}, not with {self._settings}")
        self.n_added, self.total = state["n_added"], dict(state["total"])
