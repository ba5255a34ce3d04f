"""The smaller set on which settings are chosen: pseudo-base and pseudo-new halves of a data set's base classes.

A painted set gets further pictures of its base classes, in numbers that are in no part of it. All others, public ones,
other generated ones and folders of one's own, are read as ever and give up a part of their base classes' training and
validation images (`datasets.pseudo`).
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import compat  # noqa: F401  makes `import dassl` work

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from dassl.utils import set_random_seed
from yacs.config import CfgNode

import datasets  # noqa: F401  registers the readers
from datasets.base import GENERATOR, GeneratedDataset, SplitDataset
from datasets.files import generate_once, write_json
from datasets.rendered import RenderedDataset
from datasets.splits import Item, Split, save_split
from tools.common.paths import ROOT
from tools.sweep.experiment import Experiment, configure

PICTURES = 25  # a class to choose by
FIRST = 1000  # their numbers begin far after those of the set's own pictures
PSEUDO_IMAGES = "DATASET.PSEUDO_IMAGES"
WORKERS = "DATALOADER.NUM_WORKERS"
# Keys that say on which images a run trains and is tested, and so are not to be set; of TEST all but one
OF_IMAGES = (PSEUDO_IMAGES, *(f"DATASET.{key}" for key in ("NAME", "NUM_SHOTS", "ROOT", "SUBSAMPLE_CLASSES")))
INIT_WEIGHTS = "MODEL.INIT_WEIGHTS"  # may have been trained on new classes and test images
OF_RUN = ("SEED", "OUTPUT_DIR", "RESUME", "TRAINER.NAME", INIT_WEIGHTS)
FINAL_MODEL = "TEST.FINAL_MODEL"
# Of all runs, whatever their config has: no other images are tested than those of the smaller set
OF_TESTS: Mapping[str, object] = {"TEST.SPLIT": "test", "TEST.OPEN_SET": False, "TEST.CALIBRATION": ""}


@dataclass(frozen=True)
class Smaller:
    """Where the smaller set of a data set is.

    Attributes:
        data: folder of the data sets.
        settings: config keys and values by which it is read.
    """

    data: Path
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)


def find_smaller(dataset: str, data: Path, own: Path, images: int, processes: int) -> Smaller:
    """The smaller set of a data set; one of a painted set is made if it is not there.

    Args:
        dataset: configs/datasets/<dataset>.yaml.
        data: folder of the data sets.
        own: folder for the smaller sets of painted ones.
        images: per class to choose by, where the set is no painted one.
        processes: that read a run's images, where the set is not a generated one.

    Raises:
        ValueError: its reader is none of this project's, or there is no image to choose by.
    """
    if images < 1:
        raise ValueError(f"there must be one image per class to choose by (--images), at least, got {images}")
    reader = _reader(dataset)
    if _painted(reader):
        make_pseudo_set(dataset, own)
        return Smaller(own)
    if not issubclass(reader, SplitDataset):
        raise ValueError(f"settings are chosen on sets that datasets.base.SplitDataset reads, which {dataset} is not")
    workers = 0 if issubclass(reader, GeneratedDataset) else processes
    return Smaller(data, {PSEUDO_IMAGES: images, WORKERS: workers})


def check_keys(keys: Iterable[str]) -> None:
    """Raise ValueError if settings would change which images are looked at, or what the search itself says of a run."""
    odd = [key for key in keys if key in (*OF_IMAGES, *OF_RUN) or (key.startswith("TEST.") and key != FINAL_MODEL)]
    if odd:
        raise ValueError(
            f"{', '.join(odd)} cannot be set or varied: the search says on which images a run trains and is tested "
            "(--dataset, --seeds, --shots, --images), and each run starts untrained"
        )


def check_start(cfg: CfgNode) -> None:
    """Raise ValueError if a config's runs would start from weights that may know more than the smaller set."""
    found = [key for key, value in ((INIT_WEIGHTS, cfg.MODEL.INIT_WEIGHTS), ("RESUME", cfg.RESUME)) if value]
    if found:
        raise ValueError(
            f"the config has {' and '.join(found)}: what it names may have been trained on new classes or test images, "
            "and a search takes a config without it"
        )


def check_smaller(experiment: Experiment, data: Path) -> None:
    """Read a smaller set as a run will, so that what is wrong with it is told before any has begun.

    Raises:
        FileNotFoundError, ValueError: as its reader.
    """
    _, cfg = configure(experiment, data)
    with contextlib.redirect_stdout(io.StringIO()):
        set_random_seed(cfg.SEED)
        build_dataset(cfg)


def make_pseudo_set(dataset: str, root: Path) -> None:
    """Write the smaller set of a painted one into `root`, where its reader finds it, unless it is there.

    Raises:
        ValueError: the set is not a painted one.
    """
    reader = _painted(_reader(dataset))
    if reader is None:
        raise ValueError(f"this takes a painted data set without options of its own, as shapes, got {dataset}")
    folder = root / reader.dataset_dir
    if (folder / reader.split_file).is_file():
        return
    painter = object.__new__(reader)  # without reading, and so without writing, the set itself
    n_base = -(-len(reader.class_folders) // 2)
    numbers = (range(reader.parts.train), range(FIRST, FIRST + PICTURES))
    parts = [[(label, number) for label in range(n_base) for number in part] for part in numbers]

    def write_images(images: str) -> None:
        for label, number in itertools.chain(*parts):
            path = Path(images, painter.file(label, number))
            path.parent.mkdir(exist_ok=True)
            painter.paint(label, number).save(path)

    def item(label: int, number: int) -> Item:
        name = reader.class_folders[label]
        return Item(painter.file(label, number), label, reader.renamed_classes.get(name, name))

    generate_once(str(folder / reader.image_dir), write_images)  # of searches that begin at once all read whole ones
    write_json(painter.generator(), str(folder / GENERATOR))  # or the reader would take them for an older version's
    train, further = (list(itertools.starmap(item, part)) for part in parts)
    save_split(Split(train, [], further), str(folder / reader.split_file))


def _reader(dataset: str) -> type:
    cfg = get_cfg_default()
    cfg.merge_from_file(str(ROOT / f"configs/datasets/{dataset}.yaml"))
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)


def _painted(reader: type) -> type[RenderedDataset] | None:
    """The reader, if its set is painted and has no options of its own."""
    painted = issubclass(reader, RenderedDataset) and reader.__init__ is RenderedDataset.__init__
    return reader if painted else None
