"""The invariant map of CLIP-ICM (Song et al., ICML 2025) estimated on a run's data, for CLIPICM and for CDC.

Legend: N training images, n interventions an image, B images, C classes, D embedding width, k subspace dimension.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from dassl.data.datasets import DatasetBase, Datum
from dassl.data.transforms.transforms import build_transform
from dassl.utils import read_image
from torch import Tensor
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from .modules.interventions import InterventionViews
from .modules.invariant import InvariantMap, captured_energy, choose
from .modules.progress import progress
from .prompt_trainer import PromptTrainer


def held_out(dataset: DatasetBase) -> list[Datum]:
    """A Dassl data set's validation images; none where these are the test images, as ImageNet's readers give them."""
    tested = {item.impath for item in dataset.test or []}
    return [item for item in dataset.val or [] if item.impath not in tested]


@torch.no_grad()
def estimate_invariant_map(
    trainer: PromptTrainer,
    estimate: CfgNode,
    invariant: InvariantMap,
    classify: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Estimate the map of eq. (9) from interventions on the run's training images.

    What `K` and `LAMBDA` leave open is chosen by accuracy on `held_out` or, where nothing is held out, on
    the training images, whose labels have no part in the map. With a fixed seed nothing is drawn from the global random
    states.

    Args:
        trainer: has the images, the transform and `model.image_encoder`.
        estimate: has INTERVENTIONS, K and LAMBDA, see `check_estimate`.
        invariant: the map to set.
        classify: scores `(B, C)` by a map `(D, k)`, features `(N, D)` and labels `(N,)` of the training images, and
            features `(B, D)` of the images to classify, all on the CPU.

    Returns:
        Features `(N, D)`, not normalised, and labels `(N,)` of the training images, on the CPU.

    Raises:
        ValueError: the config asks for images without a transform.
    """
    cfg, dataset = trainer.cfg, trainer.dm.dataset
    seed = cfg.SEED if cfg.SEED >= 0 else random.getrandbits(32)
    transform = build_transform(cfg, is_train=False)
    if transform is None:
        raise ValueError("an invariant map is estimated on transformed images: INPUT.NO_TRANSFORM must be False")

    def encode(items: Sequence[Datum], n_interventions: int) -> tuple[Tensor, Tensor]:
        views = InterventionViews([item.impath for item in items], read_image, transform, n_interventions, seed)
        loader = DataLoader(
            views,
            batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            generator=torch.Generator(),
        )
        encoder = trainer.model.image_encoder
        with trainer.autocast():
            features = [encoder.features(trainer.to_device(batch)).cpu() for batch in progress(loader, "encode")]
        return torch.cat(features).transpose(0, 1), torch.tensor([item.label for item in items])

    print(f"Encode {len(dataset.train_x)} training images and {estimate.INTERVENTIONS} intervention(s) on each")
    views, labels = encode(dataset.train_x, estimate.INTERVENTIONS)
    features, intervened = views[0], views[1:]  # (N, D), (n, N, D)
    images, wanted, part = features, labels, "training"
    if held_out(dataset):
        (views, wanted), part = encode(held_out(dataset), 0), "validation"
        images = views[0]

    def accuracy(a: Tensor) -> float:
        return 100.0 * (classify(a, features, labels, images).argmax(dim=1) == wanted).double().mean().item()

    choice = choose(features, intervened, accuracy, estimate.LAMBDA, estimate.K)
    energy = captured_energy(features, intervened, choice.directions.vectors[:, : choice.k])
    invariant.set(choice, energy)
    width = features.shape[1]
    print(
        f"Invariant subspace: {choice.k} of {width} dimensions, lambda {choice.weight:g}; "
        f"{100 * energy:.1f}% of the interventions' energy inside, {100 * (1 - energy):.1f}% outside; accuracy on "
        f"{len(wanted)} {part} images {choice.score:.1f}%, in the whole space {accuracy(torch.eye(width)):.1f}%"
    )
    return features, labels
