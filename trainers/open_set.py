"""Tests on an open set: images of classes that a model does not know, under the names of those that it knows.

A model of base classes sees, besides their own test images, those of the new classes (near) and of other data sets
(far). Config keys: `TEST.OPEN_SET`, and `TEST.FAR_SETS`, the config files of the other data sets.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from dassl.config import cfg_default
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import build_dataset
from dassl.data.transforms.transforms import build_transform

from storage.safe_text import escaped

from .modules.predictions import Arrays
from .modules.uncertainty import open_set_metrics

BASE, NEAR = "base", "near"  # beside the names of far sets

cfg_default.TEST.OPEN_SET = False
cfg_default.TEST.FAR_SETS = ()


def open_set_problems(cfg: Any) -> list[str]:
    """What is wrong in the config of a test on an open set, an error each."""
    files = [Path(str(path)) for path in cfg.TEST.FAR_SETS]
    if not cfg.TEST.OPEN_SET:
        return ["TEST.FAR_SETS must be empty unless TEST.OPEN_SET is True"] if files else []
    problems = []
    classes = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
    if classes != "base":
        problems.append(f"DATASET.SUBSAMPLE_CLASSES must be base where TEST.OPEN_SET is True, got {classes!r}")
    if cfg.TEST.SPLIT != "test":
        problems.append(f"TEST.SPLIT must be test where TEST.OPEN_SET is True, got {cfg.TEST.SPLIT!r}")
    names = [path.stem for path in files]
    if len({BASE, NEAR, *names}) < 2 + len(names):
        problems.append(
            f"TEST.FAR_SETS must be of different names, none of them {BASE} or {NEAR}, got {', '.join(names)}"
        )
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        problems.append(f"TEST.FAR_SETS must be config files of data sets, but there is no {', '.join(missing)}")
    return problems


def unknown_images(cfg: Any, class_names: list[str], transform: Any = None) -> Iterator[tuple[str, Any]]:
    """The sets of images of unknown classes: the name and a loader of each, the new classes' first.

    Images of another data set whose class has the name of a known class are left out.

    Args:
        cfg: the whole config, as `open_set_problems` accepts it.
        class_names: of the classes that the model knows.
        transform: of test images, or a list of them; None for the config's own.

    Raises:
        FileNotFoundError, ValueError: a data set cannot be read, a config file is not one of a data set, or no image of
            an unknown class is left.
    """
    transform = transform or build_transform(cfg, is_train=False)
    for name, own in _configs(cfg):
        images = _test_images(own)
        known = {_plain(text) for text in class_names} if name != NEAR else set()
        unknown = [image for image in images if _plain(image.classname) not in known]
        shared = sorted({image.classname for image in images} - {image.classname for image in unknown})
        if shared:
            print(f"{name}: {len(images) - len(unknown)} images are left out, of known classes: {_texts(shared)}")
        if not unknown:
            raise ValueError(f"{name} has no test image of a class that the model does not know")
        section = cfg.DATALOADER.TEST
        yield (
            name,
            build_data_loader(
                cfg,
                sampler_type=section.SAMPLER,
                data_source=unknown,
                batch_size=section.BATCH_SIZE,
                tfm=transform,
                is_train=False,
            ),
        )


def compare(known: Arrays, unknown: Mapping[str, Arrays], when: str = "") -> tuple[Arrays, dict[str, float]]:
    """Join the records of all images, and measure and print how well each score detects unknown ones.

    Args:
        known: records of the test images of known classes.
        unknown: of each set of other images by its name.
        when: what the heading of the printed metrics ends in.

    Returns:
        The records with two more arrays, `out`, whether an image is of an unknown class, and `origin`, the name of its
        set; and the metrics of `open_set_metrics` and the number of images, as `<set>/<metric>`.
    """
    parts = {BASE: known, **unknown}
    together = {name: np.concatenate([part[name] for part in parts.values()]) for name in known}
    sizes = [len(part["label"]) for part in parts.values()]
    together["origin"] = np.repeat(list(parts), sizes)
    together["out"] = together["origin"] != BASE
    print(f"=> open set{when}")
    metrics = {}
    for name, part in unknown.items():
        own = open_set_metrics(known, part)
        for metric, value in own.items():
            print(f"* {name}/{metric}: {value:.1f}%")
        metrics[f"{name}/images"] = float(len(part["label"]))
        metrics.update({f"{name}/{metric}": value for metric, value in own.items()})
    return together, metrics


def _configs(cfg: Any) -> Iterator[tuple[str, Any]]:
    """Name and config of each set of images."""
    near = cfg.clone()
    near.defrost()
    near.DATASET.SUBSAMPLE_CLASSES = "new"
    yield NEAR, near
    for path in map(Path, cfg.TEST.FAR_SETS):
        far = cfg.clone()
        far.defrost()
        try:
            far.merge_from_other_cfg(far.load_cfg(path.read_text(encoding="utf-8")))
        except (KeyError, AssertionError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise ValueError(f"{path} is not the config of a data set: {' '.join(str(error).split())}") from error
        far.DATASET.SUBSAMPLE_CLASSES = "all"
        yield path.stem, far


def _test_images(cfg: Any) -> list[Any]:
    """A data set's test images. Readers keep the few-shot images that they draw, which must be those of the seed."""
    state = random.getstate()
    if cfg.SEED >= 0:
        random.seed(cfg.SEED)
    try:
        return list(build_dataset(cfg).test or ())
    finally:
        random.setstate(state)


def _plain(name: str) -> str:
    """A class name as far as it is compared."""
    return " ".join(name.replace("_", " ").casefold().split())


def _texts(names: list[str]) -> str:
    """Names in one line, not too long."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return escaped(", ".join(names[:5]) + more)
