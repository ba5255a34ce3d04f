"""Run CoOp's published readers on small made-up trees and keep what they give as golden numbers.

    python tests/golden/make_coop_datasets.py COOP_CHECKOUT DASSL_CHECKOUT

writes two files beside this one. `coop_datasets.json`, of the DTD reader:
    tree              class folder -> number of images; their names are what `image_names` gives
    made              seed -> the split that the reader makes and saves where there is none
    renamed           the same for seed 1, without `ignored_folders` and with `renamed_folders` renamed
    selected          for each combination of shots, seed and classes, with the split of seed 1 in place: what `train_x`
                      and `val` hold as [path, label], and the class names
    test              classes -> what `test` holds, for every number of shots and seed
`coop_readers.json`, of the readers on the trees of `tests/trees.py`:
    readers           for each of the fifteen:
        lists         what `train_x`, `val` and `test` hold, as [path, label, class name], without shots, for seed 1,
                      where the reader makes the split
        selected      for combinations of shots, seed and classes, with that split in place and no kept selection: the
                      same as [index in `lists`, label], the class names, and the random number that comes next
    pickled           for four of them, a selection that the reader kept, drawn from another random state, as base64
                      (its paths are those of the machine that ran this), and what the reader makes of it for the new
                      classes; for ImageNet also the lists that it kept, in reverse order
The listing of folders is sorted, which the readers leave to the file system; everything else is the readers' own.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trees import MODULES, TEST_ONLY, WRITERS

TREE = {
    "woven": 41,
    "banded": 10,
    "polka-dotted": 24,
    "blotchy": 13,
    "lace_like": 9,
    "crystalline": 30,
    "zigzagged": 17,
}
SEEDS = (0, 1, 2, 17)
SHOTS = (-1, 1, 4, 16)
SUBSAMPLES = ("all", "base", "new")
IGNORED = ["blotchy"]
RENAMED = {"banded": "striped", "lace_like": "lace"}


def image_names(folder: str, count: int) -> list[str]:
    """Return the file names of one class; unpadded, so that their order is not that of the index."""
    return [f"{folder}_{index}.jpg" for index in range(count)]


def write_tree(root: str) -> None:
    """Write `root/dtd/images/<class>/*.jpg`; the reader never opens an image, so they are empty."""
    for folder, count in TREE.items():
        os.makedirs(os.path.join(root, "dtd", "images", folder))
        for name in image_names(folder, count):
            Path(root, "dtd", "images", folder, name).touch()


def main(coop: str, dassl: str) -> None:
    """Import from the two checkouts, run the readers in every combination and write the golden files."""
    import torchvision  # noqa: F401  (looks at all modules when it is first imported, and trips over the ones below)

    # Upstream imports these for downloads and for data sets that are not read here.
    for name in ("gdown", "pandas", "wilds"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = mock.MagicMock()
    sys.path[:0] = [coop, dassl]
    from dassl.config import get_cfg_default
    from dassl.utils import set_random_seed

    listdir = os.listdir

    def list_in_order(reverse: bool) -> None:
        os.listdir = lambda path=".": sorted(listdir(path), reverse=reverse)

    def run(
        root: str, seed: int, shots: int, subsample: str, name: str = "DescribableTextures", state: int | None = None
    ) -> Any:
        cfg = get_cfg_default()
        cfg.DATASET.SUBSAMPLE_CLASSES = subsample
        cfg.merge_from_list(["DATASET.ROOT", root, "DATASET.NUM_SHOTS", shots, "SEED", seed])
        set_random_seed(seed if state is None else state)
        return getattr(importlib.import_module(f"datasets.{MODULES[name]}"), name)(cfg)

    list_in_order(reverse=False)
    write(make_dtd(run, set_random_seed), "coop_datasets.json")
    write({"readers": make_readers(run), "pickled": make_pickled(run, list_in_order)}, "coop_readers.json")


def write(golden: dict, name: str) -> None:
    """Write a golden file beside this one."""
    Path(__file__).with_name(name).write_text(json.dumps(golden, separators=(",", ":")) + "\n")


def make_dtd(run: Callable, set_random_seed: Callable) -> dict:
    """Run the DTD reader, and the two options of its splitting that readers of other sets use."""
    from datasets.dtd import DescribableTextures

    golden = {"tree": TREE, "made": {}, "renamed_folders": RENAMED, "ignored_folders": IGNORED, "selected": []}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as root:
            write_tree(root)
            run(root, seed, -1, "all")
            split_file = Path(root, "dtd", "split_zhou_DescribableTextures.json")
            golden["made"][str(seed)] = json.loads(split_file.read_text())

    with tempfile.TemporaryDirectory() as root:
        write_tree(root)
        images = os.path.join(root, "dtd", "images")
        set_random_seed(1)
        parts = DescribableTextures.read_and_split_data(images, ignored=IGNORED, new_cnames=RENAMED)
        golden["renamed"] = {
            part: [[os.path.relpath(item.impath, images), item.label, item.classname] for item in items]
            for part, items in zip(("train", "val", "test"), parts)
        }

    with tempfile.TemporaryDirectory() as root:
        write_tree(root)
        Path(root, "dtd", "split_zhou_DescribableTextures.json").write_text(json.dumps(golden["made"]["1"]))
        images = os.path.join(root, "dtd", "images")
        for seed in SEEDS:
            for shots in SHOTS:
                for subsample in SUBSAMPLES:
                    reader = run(root, seed, shots, subsample)
                    entry = {"seed": seed, "shots": shots, "subsample": subsample, "classnames": reader.classnames}
                    for part in ("train_x", "val", "test"):
                        items = getattr(reader, part)
                        entry[part] = [[os.path.relpath(item.impath, images), item.label] for item in items]
                    golden["selected"].append(entry)

    # The test lists depend on the classes alone: keep them once.
    tests = {}
    for entry in golden["selected"]:
        test = entry.pop("test")
        if tests.setdefault(entry["subsample"], test) != test:
            raise ValueError("the test list depends on shots or seed, which the golden file has no place for")
    golden["test"] = tests
    return golden


def make_readers(run: Callable) -> dict:
    """Run every reader without a split and with its own."""
    golden = {}
    for name, write_tree_of in WRITERS.items():
        with tempfile.TemporaryDirectory() as root:
            write_tree_of(Path(root))
            reader = run(root, 1, -1, "all", name)
            images = str(reader.image_dir if hasattr(reader, "image_dir") else reader.dataset_dir)  # Cars has none
            lists = {
                part: [[os.path.relpath(item.impath, images), item.label, item.classname] for item in items or []]
                for part, items in parts_of(reader).items()
            }
            selected = []
            kept = Path(reader.dataset_dir, "split_fewshot")
            for seed in (1, 2):
                for shots in (2, 16):
                    for subsample in SUBSAMPLES:
                        if name in TEST_ONLY and (seed, shots, subsample) != (2, 2, "new"):
                            continue
                        shutil.rmtree(kept, ignore_errors=True)
                        reader = run(root, seed, shots, subsample, name)
                        entry = {"seed": seed, "shots": shots, "subsample": subsample, "next": random.random()}
                        for part, items in parts_of(reader).items():
                            index = {path: number for number, (path, _, _) in enumerate(lists[part])}
                            entry[part] = [
                                [index[os.path.relpath(item.impath, images)], item.label] for item in items or []
                            ]
                        selected.append({**entry, "classnames": reader.classnames})
            golden[name] = {"lists": lists, "selected": selected}
    return golden


def make_pickled(run: Callable, list_in_order: Callable) -> dict:
    """Let readers keep selections from another random state than the seed's, and run them on what they kept."""
    golden = {}
    for name in ("Caltech101", "FGVCAircraft", "StanfordCars", "ImageNet"):
        with tempfile.TemporaryDirectory() as root:
            WRITERS[name](Path(root))
            list_in_order(reverse=name == "ImageNet")  # so that its kept lists differ from what anyone would list
            run(root, 1, -1, "all", name)
            list_in_order(reverse=False)
            run(root, 1, 2, "all", name, state=99)
            reader = run(root, 1, 2, "new", name)
            images = str(reader.image_dir if hasattr(reader, "image_dir") else reader.dataset_dir)
            entry = {"next": random.random()}
            for part in ("train_x", "val"):
                items = getattr(reader, part)
                entry[part] = [[os.path.relpath(item.impath, images), item.label, item.classname] for item in items]
            kept = sorted(Path(reader.dataset_dir).rglob("*.pkl"))
            entry["files"] = {
                str(path.relative_to(reader.dataset_dir)): base64.b64encode(path.read_bytes()).decode() for path in kept
            }
            entry["images"] = images
            golden[name] = entry
    return golden


def parts_of(reader: Any) -> dict[str, Any]:
    """Return the three lists of a reader by their names."""
    return {part: getattr(reader, part) for part in ("train_x", "val", "test")}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tests/golden/make_coop_datasets.py COOP_CHECKOUT DASSL_CHECKOUT")
    main(*(os.path.abspath(path) for path in sys.argv[1:]))
