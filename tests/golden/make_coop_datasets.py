"""Run CoOp's published DTD reader on a small made-up tree and keep what it gives as golden numbers.

    python tests/golden/make_coop_datasets.py COOP_CHECKOUT DASSL_CHECKOUT

writes `coop_datasets.json` beside this file:
    tree              class folder -> number of images; their names are what `image_names` gives
    made              seed -> the split that the reader makes and saves where there is none
    renamed           the same for seed 1, without `ignored_folders` and with `renamed_folders` renamed
    selected          for each combination of shots, seed and classes, with the split of seed 1 in place: what `train_x`
                      and `val` hold as [path, label], and the class names
    test              classes -> what `test` holds, for every number of shots and seed
The listing of folders is sorted, which the reader leaves to the file system; everything else is the reader's own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

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
    """Import from the two checkouts, run the reader in every combination and write the golden file."""
    import torchvision  # noqa: F401  (looks at all modules when it is first imported, and trips over the ones below)

    # Upstream imports these for downloads and for data sets that are not read here.
    for name in ("gdown", "pandas", "wilds"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = mock.MagicMock()
    sys.path[:0] = [coop, dassl]
    from dassl.config import get_cfg_default
    from dassl.utils import set_random_seed

    listdir = os.listdir
    os.listdir = lambda path=".": sorted(listdir(path))
    from datasets.dtd import DescribableTextures

    def run(root: str, seed: int, shots: int, subsample: str) -> DescribableTextures:
        cfg = get_cfg_default()
        cfg.DATASET.SUBSAMPLE_CLASSES = subsample
        cfg.merge_from_list(["DATASET.ROOT", root, "DATASET.NUM_SHOTS", shots, "SEED", seed])
        set_random_seed(seed)
        return DescribableTextures(cfg)

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
    Path(__file__).with_name("coop_datasets.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tests/golden/make_coop_datasets.py COOP_CHECKOUT DASSL_CHECKOUT")
    main(*(os.path.abspath(path) for path in sys.argv[1:]))
