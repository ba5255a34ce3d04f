"""Files that were made on other systems: byte order marks, Windows' line ends and Windows' paths."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import Datum, build_dataset
from dassl.utils import set_random_seed

import datasets  # noqa: F401  registers the readers
from datasets.files import read_json, read_lines
from datasets.pickles import read_pickled
from helpers import ROOT
from tools.predict.predictor import read_class_names

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
MARKS = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}


def save(path, text, encoding, end="\r\n"):
    path.write_bytes((MARKS.get(encoding, "") + text.replace("\n", end)).encode(encoding))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text(tmp_path, encoding, end):
    path = tmp_path / "file"
    save(path, "n01 café\n\nn02 two words \n", encoding, end)
    assert read_lines(path, r"(\S+) (.+)", "") == [("n01", "café"), ("n02", "two words")]
    save(path, "café\ngreat tit\n", encoding, end)
    assert read_class_names(str(path)) == ["café", "great tit"]
    save(path, '{"a":\n["é"]}\n', encoding, end)
    assert read_json(path, "") == {"a": ["é"]}


def test_text_that_is_none(tmp_path):
    (tmp_path / "file").write_bytes(b"caf\xe9 x\n")
    with pytest.raises(ValueError, match="not readable as UTF-8 text"):
        read_lines(tmp_path / "file", ".*", "")


def read(root, **changes):
    cfg = get_cfg_default()
    cfg.merge_from_file(str(ROOT / "configs/datasets/dtd.yaml"))
    cfg.merge_from_list(["DATASET.ROOT", str(root), "SEED", 1, "DATASET.NUM_SHOTS", 2])
    cfg.merge_from_list([part for pair in changes.items() for part in pair])
    set_random_seed(1)
    return build_dataset(cfg)


def parts(dataset):
    return [[(item.impath, item.label, item.classname) for item in part] for part in (dataset.train_x, dataset.val)]


@pytest.fixture
def moved(data, tmp_path):
    """A copy of the set, with nothing that a reader keeps; its root and its split as plain data."""
    shutil.copytree(data / "dtd/images", tmp_path / "dtd/images")
    expected = parts(read(tmp_path))
    shutil.rmtree(tmp_path / "dtd/split_fewshot")
    split = tmp_path / "dtd/split_zhou_DescribableTextures.json"
    return tmp_path, split, json.loads(split.read_text()), expected


def test_split_with_windows_paths(moved):
    root, path, split, expected = moved
    split = {name: [[entry[0].replace("/", "\\"), *entry[1:]] for entry in part] for name, part in split.items()}
    save(path, json.dumps(split, indent=1), "utf-8-sig")
    assert parts(read(root)) == expected


def test_backslash_in_a_name_is_part_of_it(moved):
    root, path, split, _ = moved
    entry = split["train"][0]
    name = entry[0] + "\\x.jpg"
    (root / "dtd/images" / entry[0]).rename(root / "dtd/images" / name)
    entry[0] = name
    path.write_text(json.dumps(split))
    assert len(read(root).train_x) == 8


@pytest.mark.parametrize(
    "start",
    [
        "C:\\my data\\dtd\\images\\",
        "D:/data/dtd\\images\\",
        "C:\\data/dtd/images/",
        "\\\\server\\dtd\\images\\",
        "/x/dtd/images/",
    ],
)
def test_selection_that_coop_kept_on_windows(moved, start):
    """As os.path.join writes paths there: with both kinds of slashes."""
    root, _, split, expected = moved
    first = [entry for entry in split["train"] if entry[1] == 0][:2]
    chosen = first + [entry for label in (1, 2, 3) for entry in [e for e in split["train"] if e[1] == label][:2]]
    for inner in ("/", "\\"):
        datums = []
        for path, label, name in chosen:
            datum = Datum(impath=expected[0][0][0], label=label, classname=name)
            datum._impath = start + (path.replace("/", inner) if "\\" in start else path)
            datums.append(datum)
        folder = root / "dtd/split_fewshot"
        folder.mkdir(exist_ok=True)
        (folder / "shot_2-seed_1.pkl").write_bytes(pickle.dumps({"train": datums, "val": []}))
        kept = read_pickled(str(folder / "shot_2-seed_1.pkl"), "dtd/images")
        assert kept["train"] == [tuple(entry) for entry in chosen]


def test_class_lists_with_windows_paths(tmp_path):
    save(tmp_path / "list", "\\a\\abbey\\1.jpg\n", "utf-8-sig")
    pattern = r"/((.+)/[^/]+)"
    assert read_lines(tmp_path / "list", pattern, "", of_paths=True) == [("a/abbey/1.jpg", "a/abbey")]
    with pytest.raises(ValueError, match="line 1"):
        read_lines(tmp_path / "list", pattern, "")
