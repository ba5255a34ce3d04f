"""From a configuration to loaders: the data set, its transforms, and batches of the images they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from dassl.utils import read_image
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from .datasets import build_dataset
from .samplers import build_sampler
from .transforms import build_transform
from .transforms.transforms import interpolation_mode

if TYPE_CHECKING:
    from PIL import Image
    from yacs.config import CfgNode

    from .datasets import Datum

Transform = Callable[[Any], Any]


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Transform | Sequence[Transform] | None = None,
    is_train: bool = True,
    dataset_wrapper: Callable[..., Dataset[Any]] | None = None,
) -> DataLoader[Any]:
    """Build a loader over a list of images.

    In training the last batch is dropped if it is not full, unless there are fewer images than a batch has.

    Args:
        cfg: a configuration; DATALOADER, INPUT and USE_CUDA are read.
        sampler_type: a name that `build_sampler` knows.
        data_source: images.
        batch_size: images in a batch.
        n_domain: domains in a batch (RandomDomainSampler).
        n_ins: images of one class in a batch (RandomClassSampler).
        tfm: a transform, a list of them for several views, or None.
        is_train: for training or evaluation.
        dataset_wrapper: class to use in place of `DatasetWrapper`.

    Raises:
        ValueError: the loader would have no batch.
    """
    images = () if data_source is None else data_source
    sampler = build_sampler(
        sampler_type, cfg=cfg, data_source=images, batch_size=batch_size, n_domain=n_domain, n_ins=n_ins
    )
    loader = DataLoader(
        (dataset_wrapper or DatasetWrapper)(cfg, images, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(images) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )
    if len(loader) == 0:
        raise ValueError(
            f"The loader has no batch: {sampler_type} gives {len(sampler)} of the {len(images)} images in an "
            f"epoch, the batch size is {batch_size}, and a batch that is not full is dropped."
        )
    return loader


class DataManager:
    """The data set that a configuration names, with a loader for each of its splits.

    Args:
        cfg: a configuration.
        custom_tfm_train: transform(s) of training images in place of the configuration's.
        custom_tfm_test: the same for validation and test images.
        dataset_wrapper: class to use in place of `DatasetWrapper`.

    Attributes:
        dataset: the data set.
        train_loader_x: labelled training images.
        train_loader_u: unlabelled training images, or None.
        val_loader: validation images, or None.
        test_loader: test images.

    Raises:
        ValueError: the configuration names what does not exist, or a split cannot fill a batch.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Transform | Sequence[Transform] | None = None,
        custom_tfm_test: Transform | Sequence[Transform] | None = None,
        dataset_wrapper: Callable[..., Dataset[Any]] | None = None,
    ) -> None:
        dataset = build_dataset(cfg)
        if not dataset.train_x or not dataset.test:
            split = "test" if dataset.train_x else "train_x"
            raise ValueError(f"The data set '{cfg.DATASET.NAME}' has no images in its split '{split}'.")

        if custom_tfm_train is None:
            tfm_train = build_transform(cfg, is_train=True)
        else:
            print("* Using custom transform for training")
            tfm_train = custom_tfm_train
        if custom_tfm_test is None:
            tfm_test = build_transform(cfg, is_train=False)
        else:
            print("* Using custom transform for testing")
            tfm_test = custom_tfm_test

        def train_loader(images: Sequence[Datum], section: CfgNode) -> DataLoader[Any]:
            return build_data_loader(
                cfg,
                sampler_type=section.SAMPLER,
                data_source=images,
                batch_size=section.BATCH_SIZE,
                n_domain=section.N_DOMAIN,
                n_ins=section.N_INS,
                tfm=tfm_train,
                is_train=True,
                dataset_wrapper=dataset_wrapper,
            )

        def test_loader(images: Sequence[Datum]) -> DataLoader[Any]:
            return build_data_loader(
                cfg,
                sampler_type=cfg.DATALOADER.TEST.SAMPLER,
                data_source=images,
                batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
                tfm=tfm_test,
                is_train=False,
                dataset_wrapper=dataset_wrapper,
            )

        self.dataset = dataset
        loaders = cfg.DATALOADER
        self.train_loader_x = train_loader(dataset.train_x, loaders.TRAIN_X)
        self.train_loader_u = None
        if dataset.train_u:
            section = loaders.TRAIN_X if loaders.TRAIN_U.SAME_AS_X else loaders.TRAIN_U
            self.train_loader_u = train_loader(dataset.train_u, section)
        self.val_loader = test_loader(dataset.val) if dataset.val else None
        self.test_loader = test_loader(dataset.test)

        self._num_classes = dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = dataset.lab2cname

        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    @property
    def num_classes(self) -> int:
        """Largest training label plus one."""
        return self._num_classes

    @property
    def num_source_domains(self) -> int:
        """How many source domains the configuration names."""
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name of each label."""
        return self._lab2cname

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Print a table of the data set's name, domains and sizes."""
        table = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            table.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            table.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        table.append(["# classes", f"{self.num_classes:,}"])
        for split in ("train_x", "train_u", "val", "test"):
            images = getattr(self.dataset, split)
            if images:
                table.append([f"# {split}", f"{len(images):,}"])
        print(tabulate(table))


class DatasetWrapper(Dataset[Any]):
    """Reads the images of a list and transforms them; each file is decoded once for all its views.

    Args:
        cfg: a configuration; DATALOADER and INPUT are read.
        data_source: images.
        transform: a transform, a list of them, or None to give the PIL image itself.
        is_train: whether `cfg.DATALOADER.K_TRANSFORMS` views are made of an image; in evaluation it is one.

    Raises:
        ValueError: several views are asked for without a transform, or the interpolation is not known.
    """

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence[Datum],
        transform: Transform | Sequence[Transform] | None = None,
        is_train: bool = False,
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(
                f"{self.k_tfm} views of an image need a transform (DATALOADER.K_TRANSFORMS), but it is None."
            )

        steps = [Resize(cfg.INPUT.SIZE, interpolation=interpolation_mode(cfg.INPUT.INTERPOLATION)), ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            steps.append(Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
        self.to_tensor = Compose(steps)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Return one image as a dictionary.

        Returns:
            `label`, `domain`, `impath` and `index`; the image as `img`, those of further transforms as `img2`, `img3`
            and so on, each a list if K_TRANSFORMS asks for several views; `img0`, only resized, if RETURN_IMG0 is
            set.
        """
        item = self.data_source[idx]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}

        img0 = read_image(item.impath)
        if self.transform is None:
            output["img"] = img0
        elif isinstance(self.transform, Sequence):
            for number, transform in enumerate(self.transform, start=1):
                output["img" if number == 1 else f"img{number}"] = self._transform_image(transform, img0)
        else:
            output["img"] = self._transform_image(self.transform, img0)
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output

    def _transform_image(self, tfm: Transform, img0: Image.Image) -> Any:
        views = [tfm(img0) for _ in range(self.k_tfm)]
        return views[0] if len(views) == 1 else views
