"""Runs Dassl's configuration, data sets, samplers, transforms and loaders on small inputs and notes what comes out.

    python tests/golden/make_dassl_data.py CHECKOUT

imports `dassl` from CHECKOUT, a checkout of github.com/KaiyangZhou/Dassl.pytorch (October 2022, c61a1b5), and writes
tests/golden/dassl_data.json. tests/test_compat_data.py calls `collect` on this project's own `dassl` and compares.
The inputs are drawn here, without random numbers.

Images are noted as the mean of each quadrant and channel, in grey levels, which small differences between versions of
Pillow do not change much. Where each step is exact for given versions, a hash of all the pixels is noted too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import platform
import random
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image

OUTPUT = Path(__file__).with_name("dassl_data.json")

CLASS_SIZES = (7, 5, 9, 3)
CLASS_NAMES = ("band", "check", "slope", "arc")
N_IMAGES = sum(CLASS_SIZES)
N_DOMAINS = 3

# Steps that compute in floating point on tensors: their last bit depends on the processor.
INEXACT = {"gaussian_blur", "gaussian_noise", "instance_norm"}

# name: (choices, changed keys of cfg.INPUT, draws)
TRAIN_TRANSFORMS = {
    "none": ([], {}, 1),
    "CoOp's": (["random_resized_crop", "random_flip", "normalize"], {"INTERPOLATION": "bicubic"}, 6),
    "random_flip": (["random_flip"], {}, 6),
    "random_resized_crop": (["random_resized_crop"], {"RRCROP_SCALE": (0.3, 0.9)}, 6),
    "random_crop": (["random_crop"], {"SIZE": (36, 28), "CROP_PADDING": 5}, 6),
    "random_translation": (["random_translation"], {}, 10),
    "random_translation, nearest": (["random_translation"], {"INTERPOLATION": "nearest"}, 4),
    "center_crop": (["center_crop"], {}, 1),
    "normalize": (["normalize"], {"PIXEL_MEAN": [0.4, 0.5, 0.6], "PIXEL_STD": [0.2, 0.25, 0.3]}, 1),
    "instance_norm": (["instance_norm"], {}, 1),
    "cutout": (["cutout"], {"CUTOUT_N": 2, "CUTOUT_LEN": 9}, 8),
    "gaussian_noise": (["gaussian_noise"], {"GN_MEAN": 0.2, "GN_STD": 0.1}, 8),
    "colorjitter": (["colorjitter"], {"COLORJITTER_B": 0.3, "COLORJITTER_H": 0.2}, 6),
    "randomgrayscale": (["randomgrayscale"], {"RGS_P": 0.5}, 6),
    "gaussian_blur": (["gaussian_blur"], {"GB_K": 7}, 6),
    "imagenet_policy": (["imagenet_policy"], {}, 3),
    "cifar10_policy": (["cifar10_policy"], {}, 3),
    "svhn_policy": (["svhn_policy"], {}, 3),
    "randaugment": (["randaugment"], {"RANDAUGMENT_N": 3, "RANDAUGMENT_M": 27}, 3),
    "randaugment2": (["randaugment2"], {}, 3),
    "randaugment_fixmatch": (["randaugment_fixmatch"], {"RANDAUGMENT_N": 1}, 3),
    "many": (
        [
            "normalize",
            "instance_norm",
            "cutout",
            "colorjitter",
            "randomgrayscale",
            "svhn_policy",
            "random_flip",
            "random_crop",
            "random_translation",
            "gaussian_noise",
            "randaugment2",
        ],
        {},
        6,
    ),
}
TEST_TRANSFORMS = {
    "none": ([], {}),
    "CoOp's": (["random_resized_crop", "random_flip", "normalize"], {"INTERPOLATION": "bicubic"}),
    "instance_norm": (["instance_norm", "normalize", "cutout"], {"SIZE": (24, 40)}),
}

# class: its arguments. Drawn often, so that every line of their tables has its turn.
POLICIES = {
    "ImageNetPolicy": [{}],
    "CIFAR10Policy": [{}],
    "SVHNPolicy": [{}],
    "RandAugment": [{}, {"n": 1, "m": 30}],
    "RandAugment2": [{"n": 1, "p": 0.8}],
    "RandAugmentFixMatch": [{"n": 1}],
}
POLICY_DRAWS = 500

# name: (sampler, batch_size, n_domain, n_ins)
SAMPLERS = {
    "RandomSampler": ("RandomSampler", 4, 0, 0),
    "SequentialSampler": ("SequentialSampler", 4, 0, 0),
    "RandomDomainSampler, all": ("RandomDomainSampler", 6, 0, 0),
    "RandomDomainSampler, 2": ("RandomDomainSampler", 4, 2, 0),
    "RandomDomainSampler, -1": ("RandomDomainSampler", 3, -1, 0),
    "SeqDomainSampler": ("SeqDomainSampler", 9, 0, 0),
    "RandomClassSampler": ("RandomClassSampler", 6, 0, 3),
    "RandomClassSampler, too few": ("RandomClassSampler", 12, 0, 4),
    "RandomClassSampler, uneven": ("RandomClassSampler", 7, 0, 2),
}

# name: (changed keys, how the loaders are asked for)
MANAGERS = {
    "plain": (["DATALOADER.TRAIN_X.BATCH_SIZE", 5], ""),
    "CoOp's": (
        [
            "INPUT.TRANSFORMS", ("random_resized_crop", "random_flip", "normalize"),
            "INPUT.INTERPOLATION", "bicubic",
            "DATALOADER.TRAIN_X.BATCH_SIZE", 100,
            "DATALOADER.TEST.BATCH_SIZE", 3,
        ],
        "",
    ),
    "views": (
        [
            "INPUT.TRANSFORMS", ("random_flip", "cutout", "normalize"),
            "DATALOADER.K_TRANSFORMS", 3,
            "DATALOADER.RETURN_IMG0", True,
            "DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler",
            "DATALOADER.TRAIN_X.BATCH_SIZE", 6,
            "DATALOADER.TRAIN_X.N_INS", 2,
        ],
        "",
    ),
    "several transforms": (
        [
            "DATALOADER.K_TRANSFORMS", 2,
            "DATALOADER.TRAIN_X.BATCH_SIZE", 4,
            "INPUT.TRANSFORMS", ("random_flip",),
        ],
        "list",
    ),
    "unlabelled, as labelled": (
        [
            "DATASET.SOURCE_DOMAINS", ("north", "south"),
            "DATASET.TARGET_DOMAINS", ("east",),
            "DATALOADER.TRAIN_X.SAMPLER", "SeqDomainSampler",
            "DATALOADER.TRAIN_X.BATCH_SIZE", 3,
        ],
        "unlabelled",
    ),
    "unlabelled, its own": (
        [
            "DATALOADER.TRAIN_U.SAME_AS_X", False,
            "DATALOADER.TRAIN_U.SAMPLER", "RandomDomainSampler",
            "DATALOADER.TRAIN_U.BATCH_SIZE", 4,
            "DATALOADER.TRAIN_U.N_DOMAIN", 2,
            "DATALOADER.TRAIN_X.BATCH_SIZE", 8,
        ],
        "unlabelled",
    ),
    "workers": (
        [
            "INPUT.TRANSFORMS", ("random_flip", "randaugment2", "cutout"),
            "DATALOADER.NUM_WORKERS", 2,
            "DATALOADER.TRAIN_X.BATCH_SIZE", 4,
        ],
        "",
    ),
    "silent": (["VERBOSE", False, "DATALOADER.TRAIN_X.BATCH_SIZE", 12], ""),
}  # fmt: skip


def versions() -> dict[str, str]:
    """Versions that the pixel hashes hold for."""
    return {
        "torch": torch.__version__.split("+")[0],
        "torchvision": torchvision.__version__.split("+")[0],
        "pillow": PIL.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


def make_images(folder: Path) -> list[Path]:
    """Draw 24 small pictures, different in size, colour and structure, none symmetric."""
    paths = []
    for number in range(N_IMAGES):
        height, width = 30 + number % 5 * 3, 44 - number % 7 * 2
        y, x = np.mgrid[:height, :width]
        red = (x * (3 + number % 4) + y * number) % 256
        green = (x * y * (1 + number % 3) // 4 + 40 * (number % 5)) % 200
        blue = np.where((x // 5 + y // (3 + number % 6)) % 2 == 0, 30 + 5 * number, 220 - 3 * y)
        pixels = np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number:02d}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def make_items(paths: list[Path]) -> list:
    """Make a Datum of each picture; neither labels nor domains are in order."""
    from dassl.data.datasets import Datum

    labels = [label for label, size in enumerate(CLASS_SIZES) for _ in range(size)]
    items = []
    for place, path in enumerate(paths):
        label = labels[(place * 7 + 13) % N_IMAGES]
        domain = (place * 5 // 2 + 1) % N_DOMAINS
        items.append(Datum(impath=str(path), label=label, domain=domain, classname=CLASS_NAMES[label]))
    return items


def seed_all(seed: int) -> None:
    """Seed as `dassl.utils.set_random_seed` does."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def next_numbers() -> list[float]:
    """Draw a number from each generator: they tell whether as many numbers were taken before."""
    return [round(number, 6) for number in (random.random(), float(np.random.random()), torch.rand(1).item())]


def printed(function, *args, **kwargs):
    """Call a function and return its result and the lines it printed."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        result = function(*args, **kwargs)
    return result, text.getvalue().splitlines()


def describe(image, exact: bool) -> dict:
    """Note a picture, or a batch of pictures, given as a PIL image or a tensor (..., 3, H, W) of range [0, 1]."""
    if isinstance(image, Image.Image):
        image = torchvision.transforms.functional.pil_to_tensor(image).float() / 255
    row, column = image.shape[-2] // 2, image.shape[-1] // 2
    quadrants = [
        image[..., rows, columns].double().mean((-2, -1))
        for rows in (slice(row), slice(row, None))
        for columns in (slice(column), slice(column, None))
    ]
    means = torch.stack(quadrants, -1).reshape(-1, *image.shape[-3:-2], 4).mean(0) * 255
    noted = {"size": list(image.shape), "means": [round(mean, 2) for mean in means.flatten().tolist()]}
    if exact:
        noted["hash"] = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()[:16]
    return noted


def make_cfg(changes: dict | None = None):
    """The defaults at the tests' scale, with some keys of INPUT changed."""
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    cfg.INPUT.SIZE = (32, 32)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.USE_CUDA = False
    for key, value in (changes or {}).items():
        cfg.INPUT[key] = value
    return cfg


def untouched_config():
    """A second copy of the module `dassl.config`, without the keys that trainers add to the first."""
    path = importlib.util.find_spec("dassl.config").origin
    folder = [str(Path(path).parent)]
    spec = importlib.util.spec_from_file_location("untouched_config", path, submodule_search_locations=folder)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def collect_config() -> dict:
    """Every key with its default, the printed form, and what `clean_cfg` leaves."""
    config = untouched_config()

    def flatten(node: dict, prefix: str = "") -> dict:
        leaves = {}
        for key, value in sorted(node.items()):
            leaves.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: repr(value)})
        return leaves

    cleaned = {}
    for trainer in ("FixMatch", "CDAC", "CoOp", "name"):
        cfg = config.get_cfg_default()
        config.clean_cfg(cfg, trainer)
        cleaned[trainer] = sorted(cfg.TRAINER)
    return {
        "keys": flatten(config.get_cfg_default()),
        "printed": str(config.get_cfg_default()).splitlines(),
        "cleaned": cleaned,
    }


def collect_datasets(items: list) -> dict:
    """Classes and groups of a data set; few-shot subsets as places in its list."""
    from dassl.data.datasets import DatasetBase

    dataset = DatasetBase(train_x=items, val=items[:5], test=items[5:9])
    place = {item.impath: number for number, item in enumerate(items)}

    def places(subset) -> list:
        return [places(part) if isinstance(part, (list, tuple)) else place[part.impath] for part in subset]

    few_shot = {}
    for seed in (0, 1, 2):
        for num_shots in (-1, 0, 1, 2, 4, 8, 16):
            for repeat in (False, True):
                seed_all(seed)
                one, lines = printed(dataset.generate_fewshot_dataset, items, num_shots=num_shots, repeat=repeat)
                two, _ = printed(
                    dataset.generate_fewshot_dataset, items, items[::-2], num_shots=num_shots, repeat=repeat
                )
                few_shot[f"seed {seed}, {num_shots} shots, repeat {repeat}"] = {
                    "one": places(one),
                    "two": places(two),
                    "printed": lines,
                    "next": next_numbers(),
                }
    return {
        "num_classes": dataset.num_classes,
        "num_classes, part": DatasetBase.get_num_classes([item for item in items if item.label != 1]),
        "lab2cname": [[label, dataset.lab2cname[label]] for label in sorted(dataset.lab2cname)],
        "classnames": dataset.classnames,
        "by label": [[label, places(found)] for label, found in dataset.split_dataset_by_label(items).items()],
        "by domain": [[domain, places(found)] for domain, found in dataset.split_dataset_by_domain(items).items()],
        "few-shot": few_shot,
    }


def collect_samplers(items: list) -> dict:
    """Two epochs of each sampler."""
    from dassl.data.samplers import build_sampler

    noted = {}
    for name, (sampler_type, batch_size, n_domain, n_ins) in SAMPLERS.items():
        for seed in (1, 2):
            seed_all(seed)
            sampler = build_sampler(
                sampler_type, make_cfg(), data_source=items, batch_size=batch_size, n_domain=n_domain, n_ins=n_ins
            )
            epochs = [[int(index) for index in sampler] for _ in range(2)]
            noted[f"{name}, seed {seed}"] = {"length": len(sampler), "epochs": epochs, "next": next_numbers()}
    return noted


def collect_transforms(items: list, hash_all: bool) -> dict:
    """Every transform by its name: what it prints, and what it makes of some pictures."""
    from dassl.data.transforms import INTERPOLATION_MODES, build_transform
    from dassl.data.transforms.transforms import AVAI_CHOICES

    images = [Image.open(item.impath).convert("RGB") for item in items]
    noted = {}
    for name, (choices, changes, draws) in TRAIN_TRANSFORMS.items():
        cfg = make_cfg(changes)
        cfg.INPUT.TRANSFORMS = tuple(choices)
        transform, lines = printed(build_transform, cfg, is_train=True)
        seed_all(7)
        exact = hash_all or INEXACT.isdisjoint(choices)
        made = [describe(transform(images[draw % N_IMAGES]), exact) for draw in range(draws)]
        noted[f"train: {name}"] = {"printed": lines, "images": made, "next": next_numbers()}
    for name, (choices, changes) in TEST_TRANSFORMS.items():
        transform, lines = printed(build_transform, make_cfg(changes), is_train=False, choices=choices)
        exact = hash_all or INEXACT.isdisjoint(choices)
        noted[f"test: {name}"] = {"printed": lines, "images": [describe(transform(img), exact) for img in images[:3]]}
    transform, lines = printed(build_transform, make_cfg({"NO_TRANSFORM": True}))
    noted["no transform"] = {"printed": lines, "is None": transform is None}
    noted["names"] = {
        "choices": sorted(AVAI_CHOICES),
        "interpolation": {name: mode.value for name, mode in INTERPOLATION_MODES.items()},
    }
    return noted


def collect_policies(items: list) -> dict:
    """Many draws of each augmentation policy: the means of two opposite quadrants, one hash of all pixels."""
    from dassl.data.transforms import transforms

    images = [Image.open(item.impath).convert("RGB") for item in items]
    noted = {}
    for name, all_arguments in POLICIES.items():
        for arguments in all_arguments:
            policy = getattr(transforms, name)(**arguments)
            seed_all(11)
            pixels, means = hashlib.sha256(), []
            for draw in range(POLICY_DRAWS):
                made = np.array(policy(images[draw % N_IMAGES]))
                pixels.update(made.tobytes())
                row, column = made.shape[0] // 2, made.shape[1] // 2
                means += [round(float(part.mean()), 1) for part in (made[:row, :column], made[row:, column:])]
            called = ", ".join(f"{key}={value}" for key, value in arguments.items())
            noted[f"{name}({called})"] = {"means": means, "hash": pixels.hexdigest()[:16], "next": next_numbers()}
    return noted


def collect_managers(items: list) -> dict:
    """DataManager's printed lines, and the batches of two epochs of its loaders."""
    from dassl.data import DataManager
    from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
    from dassl.data.transforms import build_transform

    class GoldenPictures(DatasetBase):
        def __init__(self, cfg) -> None:
            unlabelled = items[3:20] if cfg.DATASET.NUM_LABELED > 0 else None
            super().__init__(train_x=items[:17], train_u=unlabelled, val=items[17:20], test=items[16:])

    DATASET_REGISTRY.register(GoldenPictures, force=True)

    def batches(loader) -> list:
        noted = []
        for batch in loader:
            entry = {key: batch[key].tolist() for key in ("label", "domain", "index")}
            entry["impath"] = [Path(path).name for path in batch["impath"]]
            for key in sorted(set(batch) - set(entry)):
                views = batch[key] if isinstance(batch[key], list) else [batch[key]]
                entry[key] = [describe(view, exact=True) for view in views]
            noted.append(entry)
        return noted

    noted = {}
    for name, (changes, how) in MANAGERS.items():
        cfg = make_cfg()
        cfg.DATASET.NAME = "GoldenPictures"
        cfg.merge_from_list(changes)
        custom = {}
        if how == "list":
            custom["custom_tfm_train"] = [printed(build_transform, cfg)[0] for _ in range(3)]
            custom["custom_tfm_test"] = printed(build_transform, cfg, is_train=False)[0]
        elif how == "unlabelled":
            cfg.DATASET.NUM_LABELED = 1
        seed_all(3)
        manager, lines = printed(DataManager, cfg, **custom)
        loaders = {
            "train_x": manager.train_loader_x,
            "train_u": manager.train_loader_u,
            "val": manager.val_loader,
            "test": manager.test_loader,
        }
        epochs = {
            split: [batches(loader) for _ in range(2 if split == "train_x" else 1)]
            for split, loader in loaders.items()
            if loader is not None
        }
        noted[name] = {
            "printed": lines,
            "num_classes": manager.num_classes,
            "num_source_domains": manager.num_source_domains,
            "epochs": epochs,
            "next": next_numbers(),
        }
    return noted


def collect(hash_all: bool = False) -> dict:
    """Run everything on the `dassl` that can be imported.

    Args:
        hash_all: also hash images whose last bit depends on the processor, to compare on one machine.

    Returns:
        What came out, in types that JSON has.
    """
    with tempfile.TemporaryDirectory() as folder:
        items = make_items(make_images(Path(folder)))
        noted = {
            "versions": versions(),
            "config": collect_config(),
            "datasets": collect_datasets(items),
            "samplers": collect_samplers(items),
            "transforms": collect_transforms(items, hash_all),
            "policies": collect_policies(items),
            "managers": collect_managers(items),
        }
    return json.loads(json.dumps(noted))


def use_checkout(checkout: Path) -> None:
    """Make `import dassl` find the checkout, with stand-ins for what its data sets import and nothing here needs."""
    if not (checkout / "dassl" / "data").is_dir():
        raise FileNotFoundError(f"'{checkout}' is no checkout of Dassl: it has no folder dassl/data.")
    sys.path.insert(0, str(checkout))
    for name in ("gdown", "wilds", "pandas"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].get_dataset = None
    if not hasattr(np, "int"):
        np.int = int  # an alias that numpy 1.24 removed


def main() -> None:
    """Write the golden numbers."""
    parser = argparse.ArgumentParser(description="Write golden numbers of Dassl's config and data packages.")
    parser.add_argument("checkout", type=Path, help="checkout of Dassl.pytorch")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--hash-all", action="store_true", help="hash every image, to compare on this machine alone")
    args = parser.parse_args()
    use_checkout(args.checkout)
    sections = collect(args.hash_all)
    lines = [
        f"{json.dumps(section)}: {{\n"
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in noted.items())
        + "\n}"
        for section, noted in sections.items()
    ]
    args.output.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"Wrote {args.output} ({args.output.stat().st_size / 1000:.0f} kB).")


if __name__ == "__main__":
    main()
