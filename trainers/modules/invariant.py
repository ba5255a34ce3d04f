"""The invariant subspace of CLIP's image features: CLIP-ICM (Song et al., ICML 2025, arXiv 2405.15289).

Pairs of an image and an intervention on it show which directions of the features follow what interventions change
(style) and which do not (content), eq. (9). Classes are told apart in the latter, eq. (10).

Legend: N images, n interventions an image, B images to classify, C classes, D embedding width, k subspace dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What `choose` tries; our choice. The released code's function has lambda = 1000, for k there is no published rule. At
# lambda a direction counts as content while an intervention changes less than 1 / lambda of its energy.
LAMBDAS = (0.1, 1.0, 10.0, 100.0, 1000.0)
SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1.0)  # k / D


class Directions(NamedTuple):
    """Eigenvectors of eq. (9), the most invariant first.

    Attributes:
        vectors: `(D, D)`, orthonormal columns; the map A is the first k of them.
        values: `(D,)`, their eigenvalues, falling.
    """

    vectors: Tensor
    values: Tensor


def invariant_directions(features: Tensor, intervened: Tensor, weight: float) -> Directions:
    """Solve the eigenproblem of eq. (9), `S = Z^T Z / n - lambda Delta^T Delta / n`, in float64.

    The released code keeps the first columns that `eigh` gives, which belong to the smallest eigenvalues: what follows
    the interventions most. Here those of the largest eigenvalues come first.

    Args:
        features: `(N, D)`, image features Z, not normalised.
        intervened: `(N, D)` or `(n, N, D)`, the features of n interventions on each image.
        weight: lambda >= 0; 0 gives the principal directions of the features, not centred.

    Returns:
        Directions on the CPU, in float64.

    Raises:
        ValueError: the shapes do not fit each other, or the weight is negative.
    """
    delta = _changes(features, intervened)
    if weight < 0:
        raise ValueError(f"lambda must not be negative, got {weight}")
    z = features.double().cpu()
    s = z.T @ z / len(z) - weight * delta.T @ delta / len(delta)
    values, vectors = torch.linalg.eigh(s)  # ascending
    return Directions(vectors.flip(1), values.flip(0))


def captured_energy(features: Tensor, intervened: Tensor, vectors: Tensor) -> float:
    """Share of the interventions' energy, `trace(Delta^T Delta)`, that lies in the span of orthonormal columns.

    Args:
        features, intervened: as for `invariant_directions`.
        vectors: `(D, k)`.

    Returns:
        A share in [0, 1]; 0 where no intervention changed anything.
    """
    delta = _changes(features, intervened)
    total = delta.square().sum().item()
    inside = (delta @ vectors.double().cpu()).square().sum().item()
    return min(inside / total, 1.0) if total else 0.0  # rounding may exceed the whole


def _changes(features: Tensor, intervened: Tensor) -> Tensor:
    """All `Delta = Z - Z~`, `(n N, D)`, in float64 on the CPU."""
    if features.ndim != 2 or intervened.ndim not in (2, 3) or intervened.shape[-2:] != features.shape:
        raise ValueError(
            "features must be (images, width) and intervened the same, or (interventions, images, width); "
            f"got {tuple(features.shape)} and {tuple(intervened.shape)}"
        )
    return (features.double().cpu() - intervened.double().cpu()).flatten(0, -2)


def candidate_sizes(values: Tensor, shares: Sequence[float] = SHARES) -> list[int]:
    """Subspace dimensions k to choose among: shares of D.

    Fewer images than D leave directions that no image has a part in. Their eigenvalue is 0, their order arbitrary, so
    a k that would take some of them takes all of them.

    Args:
        values: `(D,)`, falling eigenvalues of eq. (9).
        shares: in (0, 1].
    """
    width = len(values)
    unseen = values.abs() <= width * torch.finfo(values.dtype).eps * values.abs().max()
    sizes = set()
    for share in shares:
        k = max(1, round(share * width))
        while k < width and unseen[k - 1] and unseen[k]:
            k += 1
        sizes.add(k)
    return sorted(sizes)


def check_estimate(n_interventions: int, k: int, weight: float, width: int | None = None) -> None:
    """Whether a map can be estimated so; `width` is D where it is known.

    Raises:
        ValueError: it cannot.
    """
    if n_interventions < 1:
        raise ValueError(f"INTERVENTIONS must be at least 1 per image, got {n_interventions}")
    if k < 0 or weight < 0:
        raise ValueError(f"K and LAMBDA must be positive, or 0 to choose them on validation images, got {k}, {weight}")
    if width is not None and k > width:
        raise ValueError(f"K must be at most {width}, the width of this CLIP's features, got {k}")


class Choice(NamedTuple):
    """A map of eq. (9) and how well its images are classified."""

    weight: float  # lambda
    k: int
    score: float
    directions: Directions


def choose(
    features: Tensor, intervened: Tensor, score: Callable[[Tensor], float], weight: float = 0.0, k: int = 0
) -> Choice:
    """Choose lambda among `LAMBDAS` and k among `candidate_sizes` by the score that the map gets.

    Among equals it is the largest k, which changes CLIP least, then the smallest lambda. As k = D changes no cosine,
    the choice is never worse than plain CLIP by the score.

    Args:
        features, intervened: as for `invariant_directions`.
        score: map A `(D, k)` -> how well images are classified after it.
        weight: a given lambda, or 0 to choose it.
        k: a given dimension, or 0 to choose it.

    Raises:
        ValueError: k or the weight is negative, or k larger than D.
    """
    check_estimate(1, k, weight, features.shape[1])
    choices = []
    for tried in [weight] if weight else LAMBDAS:
        directions = invariant_directions(features, intervened, tried)
        vectors = directions.vectors.to(features.dtype)
        for size in [k] if k else candidate_sizes(directions.values):
            choices.append(Choice(tried, size, score(vectors[:, :size]), directions))
    return max(choices, key=lambda choice: (choice.score, choice.k, -choice.weight))


class InvariantMap(nn.Module):
    """The map A of eq. (9), `x -> A^T x`. Until it is set it is the identity, and CLIP is plain CLIP.

    Its state dict holds all D directions and k, so its shapes are the same for every k.

    Args:
        width: D.
    """

    directions: Tensor
    k: Tensor
    weight: Tensor
    energy: Tensor
    probe: LinearProbe

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("directions", torch.eye(width))
        self.register_buffer("k", torch.tensor(width))
        self.register_buffer("weight", torch.tensor(0.0, dtype=torch.float64))  # lambda
        self.register_buffer("energy", torch.tensor(1.0, dtype=torch.float64))  # `captured_energy` of the map
        self._known: tuple[Tensor, int, int] | None = None  # the tensor k, its version and its value

    @property
    def dimension(self) -> int:
        """k as a number. The device is asked for it when it has changed, not in every training step."""
        if self.k.is_inference():  # which has no version
            return int(self.k)
        if self._known is None or self._known[0] is not self.k or self._known[1] != self.k._version:
            self._known = (self.k, self.k._version, int(self.k))
        return self._known[2]

    def set(self, choice: Choice, energy: float) -> None:
        """Take the first `choice.k` directions as the map."""
        self.directions.copy_(choice.directions.vectors)
        self.k.fill_(choice.k)
        self.weight.fill_(choice.weight)
        self.energy.fill_(energy)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., D)` -> `(..., k)`."""
        return x @ self.directions[:, : self.dimension]

    def metrics(self) -> dict[str, float]:
        """What to report of the map."""
        energy = self.energy.item()
        return {
            "subspace_dimension": float(self.dimension),
            "lambda": self.weight.item(),
            "energy_inside": energy,
            "energy_outside": 1.0 - energy,
        }


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosines `(B, C)` of the rows of `(B, k)` and `(C, k)`, eq. (10)."""
    return F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T


class LinearProbe(nn.Module):
    """Multinomial logistic regression, eq. (10), in buffers as no gradient step trains it.

    Args:
        n_classes: C.
        width: D, the largest k.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, n_classes: int, width: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_classes, width))
        self.register_buffer("bias", torch.zeros(n_classes))

    def fit(self, x: Tensor, labels: Tensor) -> LinearProbe:
        """Fit to `(N, k)` and their classes `(N,)`, with the released code's regularisation and iterations."""
        # Imported here, since only this needs it and the import takes a while.
        from sklearn.linear_model import LogisticRegression

        regression = LogisticRegression(C=0.316, max_iter=1000).fit(x.cpu().numpy(), labels.cpu().numpy())
        weight, bias = torch.from_numpy(regression.coef_), torch.from_numpy(regression.intercept_)
        if len(weight) == 1:  # of two classes scikit-learn keeps the second one's logit, the first one's being 0
            weight, bias = (torch.cat([torch.zeros_like(part), part]) for part in (weight, bias))
        self.weight[:, : x.shape[1]] = weight
        self.bias.copy_(bias)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, C)` of `(B, k)`."""
        return x @ self.weight[:, : x.shape[1]].T + self.bias
