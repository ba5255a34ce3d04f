"""The readers of the fifteen public sets: parity with CoOp's, kept few-shot selections, and bad input."""

from __future__ import annotations

import base64
import json
import os
import pickle
import random
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from dassl.config import get_cfg_default
from dassl.data.data_manager import DatasetWrapper
from dassl.data.datasets import DATASET_REGISTRY, Datum, build_dataset
from dassl.utils import set_random_seed
from PIL import Image
from scipy.io import savemat

from datasets.base import SplitDataset
from datasets.fewshot import FewShotSelector, draw_per_class
from datasets.pickles import read_pickled
from datasets.splits import Item
from helpers import GOLDEN, ROOT
from trees import MODULES, TEST_ONLY, WRITERS, write_images, write_text

FACTS = json.loads((GOLDEN / "coop_readers.json").read_text())
CONFIGS = ROOT / "configs" / "datasets"
PARTS = ("train_x", "val", "test")


def config(root, name, seed=1, shots=-1, subsample="all"):
    cfg = get_cfg_default()
    cfg.merge_from_list(["DATASET.ROOT", str(root), "DATASET.NAME", name, "DATASET.NUM_SHOTS", shots, "SEED", seed])
    cfg.merge_from_list(["DATASET.SUBSAMPLE_CLASSES", subsample])
    return cfg


def read(root, name, seed=1, state=None, **options):
    set_random_seed(abs(seed) if state is None else state)
    return build_dataset(config(root, name, seed=seed, **options))


def listed(reader, part):
    return [
        [os.path.relpath(item.impath, reader.image_dir), item.label, item.classname] for item in getattr(reader, part)
    ]


def kept(reader, suffix="json", shots=2, seed=1):
    return Path(reader.dataset_dir, "split_fewshot", f"shot_{shots}-seed_{seed}.{suffix}")


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A folder with all fifteen trees and the splits of seed 1; not for tests that change it."""
    root = tmp_path_factory.mktemp("data")
    for name, write in WRITERS.items():
        write(root)
        read(root, name)
    return root


@pytest.fixture
def pets(tmp_path):
    """A tree of one's own, with its split."""
    WRITERS["OxfordPets"](tmp_path)
    read(tmp_path, "OxfordPets")
    return tmp_path


# ---- parity with the published readers


@pytest.mark.parametrize("name", WRITERS)
def test_lists_are_the_published_readers(tmp_path, name):
    WRITERS[name](tmp_path)
    reader = read(tmp_path, name)
    for part in PARTS:
        assert listed(reader, part) == FACTS["readers"][name]["lists"][part]
    again = read(tmp_path, name, seed=5)  # from the split file, where there is one, with another seed
    assert [listed(again, part) for part in PARTS] == [listed(reader, part) for part in PARTS]


@pytest.mark.parametrize("name", WRITERS)
def test_selections_are_the_published_readers(trees, name):
    lists = FACTS["readers"][name]["lists"]
    for entry in FACTS["readers"][name]["selected"]:
        options = {key: entry[key] for key in ("seed", "shots", "subsample")}
        folder = Path(read(trees, name).dataset_dir, "split_fewshot")
        shutil.rmtree(folder, ignore_errors=True)
        for _ in ("drawn", "kept"):
            reader = read(trees, name, **options)
            assert random.random() == entry["next"]
            for part in PARTS:
                expected = [[lists[part][index][0], label, lists[part][index][2]] for index, label in entry[part]]
                assert listed(reader, part) == expected
            assert reader.classnames == entry["classnames"]
            assert reader.num_classes == len(entry["classnames"])
            assert folder.exists() == (name not in TEST_ONLY)


@pytest.mark.parametrize("name", FACTS["pickled"])
def test_selection_that_the_published_reader_pickled_is_taken(tmp_path, capsys, name):
    golden = FACTS["pickled"][name]
    WRITERS[name](tmp_path)
    reader = read(tmp_path, name)
    for file, content in golden["files"].items():
        path = Path(reader.dataset_dir, file)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(base64.b64decode(content))
    assert golden["images"].encode() in path.read_bytes()  # the pickle has the paths of another machine
    reader = read(tmp_path, name, shots=2, subsample="new")
    assert random.random() == golden["next"]
    assert [listed(reader, part) for part in ("train_x", "val")] == [golden["train_x"], golden["val"]]
    assert f"kept in {kept(reader, 'pkl')}" in capsys.readouterr().out
    assert not kept(reader).exists()

    os.remove(kept(reader, "pkl"))
    drawn = read(tmp_path, name, shots=2, subsample="new")
    assert listed(drawn, "train_x") != golden["train_x"]  # it was not what the seed would draw


def test_imagenet_takes_the_order_of_pickled_lists(tmp_path, capsys):
    WRITERS["ImageNet"](tmp_path)
    listing = listed(read(tmp_path, "ImageNet"), "train_x")
    path = tmp_path / "imagenet" / "preprocessed.pkl"
    path.write_bytes(base64.b64decode(FACTS["pickled"]["ImageNet"]["files"]["preprocessed.pkl"]))
    taken = listed(read(tmp_path, "ImageNet"), "train_x")
    assert taken != listing
    assert taken == sorted(sorted(listing, reverse=True), key=lambda entry: entry[1])
    assert "which decides" not in capsys.readouterr().out

    text = (tmp_path / "imagenet" / "classnames.txt").read_text().replace("tench", "another fish")
    (tmp_path / "imagenet" / "classnames.txt").write_text(text)
    assert read(tmp_path, "ImageNet").classnames[0] == "tench"
    assert f"{path}, which decides, has class names that classnames.txt has not: n01440764 'tench'" in (
        capsys.readouterr().out
    )
    os.remove(tmp_path / "imagenet" / "images" / "val" / "n01440764" / "ILSVRC2012_val_1.JPEG")
    with pytest.raises(FileNotFoundError, match=r"1 of the .*preprocessed.pkl names are not.*ILSVRC2012_val_1.JPEG"):
        read(tmp_path, "ImageNet")


def test_readers_have_the_published_modules_and_configs():
    for name, module in MODULES.items():
        assert DATASET_REGISTRY.get(name).__module__ == f"datasets.{module}"
        cfg = get_cfg_default()
        cfg.merge_from_file(str(CONFIGS / f"{module}.yaml"))
        assert name == cfg.DATASET.NAME


def test_variants_are_tested_among_their_own_classes(trees, capsys):
    assert read(trees, "ImageNet").num_classes == 7
    for name, classes in (("ImageNetA", 5), ("ImageNetR", 5), ("ImageNetSketch", 10), ("ImageNetV2", 1000)):
        reader = read(trees, name, shots=2, subsample="base")
        assert reader.num_classes == len(reader.classnames) == classes
        assert len(reader.test) == len(reader.train_x)
        assert f"{name} is for testing on all its images and classes" in capsys.readouterr().out


@pytest.mark.parametrize("shots", [1, 3, 50])
def test_draw_is_dassls(trees, capsys, shots):
    """The same images, the same random state afterwards and the same printed line as of Dassl's own function."""
    reader = read(trees, "OxfordPets")
    train = [Item(*entry) for entry in listed(reader, "train_x")]
    random.seed(3)
    capsys.readouterr()
    expected = reader.generate_fewshot_dataset(reader.train_x, num_shots=shots)
    printed, state = capsys.readouterr().out, random.getstate()
    random.seed(3)
    drawn = draw_per_class(train, shots)
    assert [os.path.join(reader.image_dir, item.path) for item in drawn] == [item.impath for item in expected]
    assert random.getstate() == state
    FewShotSelector(shots, -1, "no folder", "").select(train, [])
    assert printed in capsys.readouterr().out


def test_image_of_two_parts_is_one_datum(trees):
    reader = read(trees, "ImageNet")
    assert all(one is other for one, other in zip(reader.val, reader.test))
    assert len(reader.val) == len(reader.test)


# ---- selections kept as JSON


def test_kept_selection_is_plain_and_relative(trees):
    reader = read(trees, "SUN397", shots=2)
    content = json.loads(kept(reader).read_text())
    assert set(content) == {"num_shots", "seed", "split", "train", "val"}
    assert [content["num_shots"], content["seed"]] == [2, 1]
    assert content["train"] == listed(reader, "train_x")
    assert content["val"] == listed(reader, "val")
    assert str(trees) not in kept(reader).read_text()


def test_kept_selection_decides_and_says_so(pets, capsys):
    first = read(pets, "OxfordPets", shots=2, subsample="new")
    after = random.getstate()
    capsys.readouterr()
    again = read(pets, "OxfordPets", shots=2, subsample="new")
    assert random.getstate() == after
    out = capsys.readouterr().out
    assert f"earlier runs from {kept(first)}" in out
    assert "would now draw other images" not in out
    assert listed(again, "train_x") == listed(first, "train_x")

    content = json.loads(kept(first).read_text())
    content["train"] = json.loads(keep_of_seed(2, pets).read_text())["train"]
    kept(first).write_text(json.dumps(content))
    other = read(pets, "OxfordPets", shots=2, subsample="new")
    assert "would now draw other images" in capsys.readouterr().out
    assert listed(other, "train_x") != listed(first, "train_x")
    assert listed(other, "val") == listed(first, "val")

    moved = pets.with_name(f"{pets.name}_moved")
    os.rename(pets, moved)
    assert listed(read(moved, "OxfordPets", shots=2, subsample="new"), "train_x") == listed(other, "train_x")


def keep_of_seed(seed, root):
    """The file of the selection for a seed."""
    return kept(read(root, "OxfordPets", seed=seed, shots=2), seed=seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_draw_from_another_random_state_is_neither_kept_nor_taken_from_a_file(pets, capsys, seed):
    """As in a notebook that builds the data set by hand; the file is for the seed's own images alone."""
    note = f"are not those of seed {seed}, because"
    unseeded = read(pets, "OxfordPets", seed=seed, shots=2, state=77)
    assert note in capsys.readouterr().out
    assert not kept(unseeded, seed=seed).exists()
    random.seed(seed)
    random.random()
    build_dataset(config(pets, "OxfordPets", seed=seed, shots=2))
    assert not kept(unseeded, seed=seed).exists()

    capsys.readouterr()
    own = read(pets, "OxfordPets", seed=seed, shots=2)
    assert note not in capsys.readouterr().out
    before = kept(own, seed=seed).read_text()
    again = read(pets, "OxfordPets", seed=seed, shots=2, state=77)
    assert listed(again, "train_x") == listed(unseeded, "train_x") != listed(own, "train_x")
    assert kept(own, seed=seed).read_text() == before
    assert listed(read(pets, "OxfordPets", seed=seed, shots=2), "train_x") == listed(own, "train_x")


def test_selection_from_another_split_is_drawn_again(pets, capsys):
    reader = read(pets, "OxfordPets", shots=2)
    split = json.loads(Path(reader.split_path).read_text())
    split["train"].reverse()
    Path(reader.split_path).write_text(json.dumps(split))
    capsys.readouterr()
    again = read(pets, "OxfordPets", shots=2)
    assert f"{kept(reader)} were drawn from another split" in capsys.readouterr().out
    assert listed(again, "train_x") != listed(reader, "train_x")
    read(pets, "OxfordPets", shots=2)
    assert "another split" not in capsys.readouterr().out


def test_image_that_the_split_names_twice_may_be_drawn_twice(pets):
    reader = read(pets, "OxfordPets", shots=2)
    split = json.loads(Path(reader.split_path).read_text())
    split["train"] += split["train"]
    Path(reader.split_path).write_text(json.dumps(split))
    first = read(pets, "OxfordPets", shots=16)
    assert len({item.impath for item in first.train_x}) < len(first.train_x)
    assert listed(read(pets, "OxfordPets", shots=16), "train_x") == listed(first, "train_x")


def test_runs_without_a_seed_keep_nothing(pets):
    reader = read(pets, "OxfordPets", seed=-1, shots=2)  # though `random` is as seed 1 leaves it
    assert not Path(reader.dataset_dir, "split_fewshot").exists()


def test_folder_that_cannot_be_written_is_noted(pets, capsys, monkeypatch):
    def read_only(*args, **options):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("datasets.fewshot.os.makedirs", read_only)
        first = read(pets, "OxfordPets", shots=2)
    assert f"not kept in {kept(first)} (Read-only file system)" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr("datasets.files.json.dump", read_only)
        read(pets, "OxfordPets", shots=2)
    assert list(kept(first).parent.iterdir()) == []  # nothing half-written either
    assert listed(read(pets, "OxfordPets", shots=2), "train_x") == listed(first, "train_x")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: content["train"].pop(), "2 train images of each class"),
        (lambda content: content["train"].append(content["train"][0]), "does not have .or not so often"),
        (lambda content: content["val"].clear(), "2 val images of each class"),
        (lambda content: content["train"][0].__setitem__(2, "cat"), r"train list does not have .*'cat'\)"),
        (lambda content: content["train"][0].__setitem__(1, 4), "train list does not have"),
        (lambda content: content["train"].__setitem__(0, content["val"][0]), "train list does not have"),
        (lambda content: content["train"].__setitem__(0, ["a.jpg"]), "must hold num_shots, seed, split, train and val"),
        (lambda content: content.pop("val"), "must hold num_shots, seed, split, train and val"),
    ],
)
def test_kept_selection_that_does_not_fit(pets, change, sentence):
    path = kept(read(pets, "OxfordPets", shots=2))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=sentence) as caught:
        read(pets, "OxfordPets", shots=2)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ['{"train": [["a', "[]"])
def test_damaged_selection(pets, content):
    path = kept(read(pets, "OxfordPets", shots=2))
    path.write_text(content)
    with pytest.raises(ValueError, match=f"the few-shot selection {path}"):
        read(pets, "OxfordPets", shots=2)


# ---- pickles


def pickled_as_coop_does(reader, protocol=pickle.HIGHEST_PROTOCOL, change=lambda items: items):
    """Write the selection of a reader in the format of CoOp's."""
    content = {"train": change(list(reader.train_x)), "val": list(reader.val)}
    path = kept(reader, "pkl")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def put(item, **values):
    """A Datum with other values; its own initialiser would ask for the file."""
    other = Datum.__new__(Datum)
    other.__dict__.update({**item.__dict__, **{f"_{key}": value for key, value in values.items()}})
    return other


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_every_protocol(pets, protocol):
    first = read(pets, "OxfordPets", shots=2, state=9)
    pickled_as_coop_does(first, protocol=protocol)
    assert listed(read(pets, "OxfordPets", shots=2), "train_x") == listed(first, "train_x")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda items: items[1:], "2 train images of each class"),
        (lambda items: [*items[:-1], items[0]], "does not have .or not so often"),
        (lambda items: [put(items[0], classname="cat"), *items[1:]], "with this label and class name"),
        (
            lambda items: [put(items[0], label=(items[0].label + 1) % 5), *items[1:]],
            "with this label and class name",
        ),
        (lambda items: [put(items[0], impath="/oxford_pets/images/no.jpg"), *items[1:]], "does not have .*'no.jpg'"),
        (lambda items: [put(items[0], impath="/elsewhere/1.jpg"), *items[1:]], r"not below .*/oxford_pets/images/"),
        (lambda items: [put(items[0], label="0"), *items[1:]], "must have a path, a label and a class name"),
        (lambda items: ["a.jpg"], "cannot be read as what CoOp's readers keep"),
        (lambda items: tuple(items), "must hold a dictionary of lists"),
    ],
)
def test_pickled_selection_that_does_not_fit(pets, change, sentence):
    path = pickled_as_coop_does(read(pets, "OxfordPets", shots=2), change=change)
    with pytest.raises(ValueError, match=sentence) as caught:
        read(pets, "OxfordPets", shots=2)
    assert str(path) in str(caught.value)


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (lambda marker: pickle.dumps({"train": [Call(os.mkdir, marker)]}), r"(posix|nt)\.mkdir"),
        (lambda marker: pickle.dumps({"train": [Call(eval, "1")]}, protocol=0), r"\w+\.eval"),
        (lambda marker: pickle.dumps({"train": [np.zeros(1)]}), r"numpy\."),
        (lambda marker: pickle.dumps(Call(getattr, Datum, "label")), "getattr"),
        # a name with dots, by which an unpickler would walk from the class to a module's globals
        (
            lambda marker: (
                b"\x80\x04"
                + b"".join(
                    b"\x8c" + struct.pack("B", len(text)) + text
                    for text in (b"dassl.data.datasets.base_dataset", b"Datum.__init__.__globals__")
                )
                + b"\x93."
            ),
            "Datum.__init__.__globals__",
        ),
    ],
)
def test_pickle_that_names_anything_else_is_refused(tmp_path, payload, named):
    path = tmp_path / "shot_2-seed_1.pkl"
    path.write_bytes(payload(str(tmp_path / "marker")))
    with pytest.raises(ValueError, match=f"{named}.* and nothing but Dassl's Datum is admitted") as caught:
        read_pickled(str(path), "oxford_pets/images")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("content", [b"", b"not even a pickle", pickle.dumps({"train": []})[:-3], pickle.dumps([])])
def test_damaged_pickle(tmp_path, content):
    path = tmp_path / "shot_2-seed_1.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} cannot be read .* remove it to do without it"):
        read_pickled(str(path), "oxford_pets/images")


# ---- bad input


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name in WRITERS for file in DATASET_REGISTRY.get(name).required_files]
)
def test_missing_file(tmp_path, name, file):
    WRITERS[name](tmp_path)
    reader = DATASET_REGISTRY.get(name)
    os.rename(tmp_path / reader.dataset_dir / file, tmp_path / "away")
    with pytest.raises(FileNotFoundError, match=f"{name} needs .*{reader.split_file}.* but lacks {file}"):
        read(tmp_path, name)
    if reader.split_file:  # then it is needed once only
        os.rename(tmp_path / "away", tmp_path / reader.dataset_dir / file)
        read(tmp_path, name)
        os.remove(tmp_path / reader.dataset_dir / file)
        read(tmp_path, name)


@pytest.mark.parametrize("name", WRITERS)
def test_missing_images(tmp_path, name):
    reader = DATASET_REGISTRY.get(name)
    with pytest.raises(FileNotFoundError, match=f"the images of {name} must lie in {tmp_path}/{reader.dataset_dir}"):
        read(tmp_path, name)


@pytest.mark.parametrize(
    ("name", "file", "line", "sentence"),
    [
        ("OxfordPets", "annotations/test.txt", "Bengal_1 4", "line 1 .* must be '<Breed>_<number> <label>"),
        ("OxfordPets", "annotations/test.txt", "Bengal_1 0 1 1", "line 1 .*'Bengal_1 0 1 1'"),
        ("OxfordPets", "annotations/trainval.txt", "", "trainval.txt must hold lines .* is empty"),
        (
            "OxfordPets",
            "annotations/trainval.txt",
            "Bengal_1 1 1 1",
            "trainval.txt .* 3 images of the class 'bengal', .* names 1",
        ),
        ("OxfordPets", "annotations/test.txt", "Bengal_1 1 1 1", "label 0 two class names, 'abyssinian' and 'bengal'"),
        ("FGVCAircraft", "images_variant_val.txt", "0000001 Concorde", "classes that variants.txt has not: Concorde"),
        ("FGVCAircraft", "images_variant_val.txt", "0000001", "line 1 .*'<number> <class name>', got '0000001'"),
        ("FGVCAircraft", "images_variant_val.txt", "999 DC-10", "1 of the .* are not under .*: 999.jpg"),
        ("FGVCAircraft", "variants.txt", "DC-10\nDC-10", "must name each class once, but has 2 lines and 1 names"),
        ("SUN397", "Training_01.txt", "/z/zoo/sun_1.jpg", "classes that ClassName.txt has not: z/zoo"),
        ("SUN397", "ClassName.txt", "abbey", "line 1 .*'/<letter>/<scene>', got 'abbey'"),
        (
            "UCF101",
            "ucfTrainTestlist/testlist01.txt",
            "Dancing/v.avi",
            "classInd.txt has not: Dancing",
        ),
        ("UCF101", "ucfTrainTestlist/testlist01.txt", "v.avi", "line 1 .*'<Action>/<video>.avi', got 'v.avi'"),
        ("UCF101", "ucfTrainTestlist/classInd.txt", "Archery 1", "line 1 .*'<label> <Action>', got 'Archery 1'"),
        ("ImageNet", "classnames.txt", "n01440764", "line 1 .*'<folder> <class name>', got 'n01440764'"),
        ("ImageNet", "classnames.txt", "n01440764 tench", "no class name for 6 of the 7 folders in .*train: n01443537"),
        ("ImageNetA", "classnames.txt", "n01440764 tench", "no class name for 4 of the 5 folders"),
        ("ImageNetR", "classnames.txt", "n1 a\nn1 b", "must name each folder once, but has 2 lines for 1 folders"),
        ("OxfordFlowers", "cat_to_name.json", "[]", "no class name for the labels 1, 2, 3, 4, 5"),
        ("OxfordFlowers", "cat_to_name.json", '{"1": "rose"}', "no class name for the labels 2, 3, 4, 5"),
        ("OxfordFlowers", "cat_to_name.json", "{", "cat_to_name.json is not readable as JSON"),
        ("OxfordFlowers", "imagelabels.mat", "not MATLAB's", "imagelabels.mat cannot be read as a MATLAB file"),
        ("StanfordCars", "devkit/cars_meta.mat", "", "cars_meta.mat cannot be read as a MATLAB file"),
    ],
)
def test_file_with_wrong_content(tmp_path, name, file, line, sentence):
    WRITERS[name](tmp_path)
    folder = tmp_path / DATASET_REGISTRY.get(name).dataset_dir
    write_text(folder / file, line)
    before = sorted(folder.rglob("*"))
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as caught:
        read(tmp_path, name)
    assert str(folder) in str(caught.value)
    assert sorted(folder.rglob("*")) == before  # above all, no split


@pytest.mark.parametrize(
    ("name", "file", "content", "sentence"),
    [
        ("StanfordCars", "devkit/cars_meta.mat", {"names": [1]}, "must hold the variable 'class_names'"),
        ("StanfordCars", "devkit/cars_meta.mat", {"class_names": 3}, "must hold class_names, a row of texts"),
        ("StanfordCars", "cars_test_annos_withlabels.mat", {"annotations": [[1]]}, "a row with fname and class"),
        (
            "StanfordCars",
            "cars_test_annos_withlabels.mat",
            {"annotations": {"fname": "1.jpg", "class": 6}},
            "gives 1.jpg the label 6, but the classes are 1 to 5",
        ),
        (
            "StanfordCars",  # the devkit's own list of test images
            "cars_test_annos_withlabels.mat",
            {"annotations": {"fname": "1.jpg"}},
            "a row with fname and class",
        ),
        ("OxfordFlowers", "imagelabels.mat", {"labels": np.zeros((0, 0))}, "a row of numbers"),
    ],
)
def test_matlab_file_with_wrong_content(tmp_path, name, file, content, sentence):
    WRITERS[name](tmp_path)
    path = tmp_path / DATASET_REGISTRY.get(name).dataset_dir / file
    savemat(path, content)
    with pytest.raises(ValueError, match=sentence) as caught:
        read(tmp_path, name)
    assert str(path) in str(caught.value)


def test_imagenet_classes_of_one_name_are_noted(trees, capsys):
    reader = read(trees, "ImageNet")
    assert reader.classnames.count("missile") == 2
    assert "the labels 3, 4 the same class name 'missile'" in capsys.readouterr().out


def test_imagenet_folders_that_differ(tmp_path):
    WRITERS["ImageNet"](tmp_path)
    shutil.rmtree(tmp_path / "imagenet" / "images" / "val" / "n03773504")
    with pytest.raises(ValueError, match="1 are in one of them only: n03773504"):
        read(tmp_path, "ImageNet")


def test_imagenet_folder_without_images(tmp_path):
    WRITERS["ImageNetA"](tmp_path)
    (tmp_path / "imagenet-adversarial" / "imagenet-a" / "n07871810").mkdir()
    with pytest.raises(ValueError, match="imagenet-a/n07871810 holds no image"):
        read(tmp_path, "ImageNetA")


def test_imagenet_archives_left_behind_are_noted(tmp_path, capsys):
    WRITERS["ImageNet"](tmp_path)
    expected = listed(read(tmp_path, "ImageNet"), "train_x")
    write_images(tmp_path / "imagenet" / "images" / "train", ["n01440764.tar", "n01440764/._n01440764_1.JPEG"])
    write_images(tmp_path / "imagenet" / "images" / "val", ["n01440764/notes.txt", ".cache/1.JPEG"])
    capsys.readouterr()
    assert listed(read(tmp_path, "ImageNet"), "train_x") == expected
    out = capsys.readouterr().out
    assert "left out: n01440764.tar" in out
    assert "left out: val/n01440764/notes.txt" in out


def test_imagenetv2_folders_must_be_all_labels(tmp_path, capsys):
    WRITERS["ImageNetV2"](tmp_path)
    folder = tmp_path / "imagenetv2"
    lines = (folder / "classnames.txt").read_text().splitlines()
    (folder / "classnames.txt").write_text("\n".join(reversed(lines)))
    assert read(tmp_path, "ImageNetV2").classnames[:2] == ["class 998", "class 998"]
    assert "classnames.txt is not sorted" in capsys.readouterr().out
    os.rename(folder / "imagenetv2-matched-frequency-format-val" / "7", folder / "7")
    with pytest.raises(ValueError, match=r"the folders 0 to 999, .* but 1 are missing or too many: 7"):
        read(tmp_path, "ImageNetV2")


def test_class_whose_folder_is_gone_is_named(trees, tmp_path):
    shutil.copytree(trees / "ucf101", tmp_path / "ucf101")
    shutil.rmtree(tmp_path / "ucf101" / "UCF-101-midframes" / "Tai_Chi")
    with pytest.raises(FileNotFoundError, match=r"split_zhou_UCF101.json .*no image at all of Tai_Chi \(label 2\)"):
        read(tmp_path, "UCF101")


def test_empty_image_that_the_run_needs(pets):
    reader = read(pets, "OxfordPets", shots=2)
    used = {item.impath for item in (*reader.train_x, *reader.val, *reader.test)}
    unused = next(item.impath for item in read(pets, "OxfordPets").train_x if item.impath not in used)
    Path(unused).write_bytes(b"")
    read(pets, "OxfordPets", shots=2)
    with pytest.raises(ValueError, match=rf"1 of the images of OxfordPets .*\(0 bytes\).*: {Path(unused).name}"):
        read(pets, "OxfordPets")
    Path(reader.test[0].impath).write_bytes(b"")
    with pytest.raises(ValueError, match=Path(reader.test[0].impath).name):
        read(pets, "OxfordPets", shots=2)


# ---- images of all kinds, and many classes


def images_of_all_kinds(folder):
    """Write one image of each kind and return their names."""
    noise = np.random.RandomState(0)
    colours = Image.fromarray(noise.randint(0, 256, (6, 4, 3), dtype=np.uint8))
    folder.mkdir(parents=True, exist_ok=True)
    colours.convert("CMYK").save(folder / "cmyk.jpg")
    colours.convert("L").save(folder / "grey.jpg")
    Image.fromarray(noise.randint(0, 65536, (6, 4), dtype=np.uint16)).save(folder / "sixteen_bit.png")
    palette = colours.quantize(8)
    palette.info["transparency"] = 3
    palette.save(folder / "palette.png", transparency=3)
    colours.convert("1").save(folder / "black_and_white.png")
    colours.copy().save(folder / "gif.gif")
    with_alpha = colours.convert("RGBA")
    with_alpha.putalpha(colours.convert("L"))
    with_alpha.save(folder / "alpha.png")
    with_alpha.convert("LA").save(folder / "grey_alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    colours.save(folder / "turned.jpg", exif=exif)
    return sorted(path.name for path in folder.iterdir())


def test_images_are_seen_as_the_published_readers_see_them(tmp_path):
    images = tmp_path / "dtd" / "images"
    names = images_of_all_kinds(images / "a")
    split = {part: [[f"a/{name}", 0, "a"] for name in names] for part in ("train", "val", "test")}
    write_text(tmp_path / "dtd" / "split_zhou_DescribableTextures.json", json.dumps(split))
    reader = read(tmp_path, "DescribableTextures")
    wrapper = DatasetWrapper(config(tmp_path, "DescribableTextures"), reader.test)
    assert len(wrapper) == 9
    for index, name in enumerate(names):
        seen = wrapper[index]["img"]
        with Image.open(images / "a" / name) as image:
            expected = image.convert("RGB")
        assert seen.mode == "RGB"
        assert seen.size == (4, 6), name  # EXIF's turn is not followed
        assert np.array_equal(np.asarray(seen), np.asarray(expected)), name


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 cut off", b"<html>404 Not Found</html>", None])
def test_broken_image_is_named_when_it_is_read(pets, content):
    reader = read(pets, "OxfordPets")
    path = Path(reader.test[3].impath)
    if content is None:
        Image.effect_noise((64, 64), 90).save(path)
        content = path.read_bytes()[:600]
    path.write_bytes(content)
    wrapper = DatasetWrapper(config(pets, "OxfordPets"), read(pets, "OxfordPets").test)
    with pytest.raises(OSError, match=str(path)):
        wrapper[3]


def test_many_classes_ask_the_file_system_once(tmp_path, monkeypatch):
    """21,000 classes: each folder is listed once, each image that the run needs is asked for twice, no time is lost."""
    classes, folders = 21000, 2100
    images = tmp_path / "dtd" / "images"
    write_images(images, ["first.jpg"])
    split = {"train": [], "val": [], "test": []}
    for label in range(classes):
        path = f"f{label % folders}/{label}.jpg"
        if label < folders:
            os.mkdir(images / f"f{label}")
        os.link(images / "first.jpg", images / path)
        for part in ("train", "test"):
            split[part].append([path, label, f"class {label}"])
    write_text(tmp_path / "dtd" / "split_zhou_DescribableTextures.json", json.dumps(split))

    calls = {"scandir": 0, "stat": 0}

    def counted(name, function):
        def call(*args, **options):
            calls[name] += 1
            return function(*args, **options)

        return call

    monkeypatch.setattr(os, "scandir", counted("scandir", os.scandir))
    monkeypatch.setattr(os, "stat", counted("stat", os.stat))
    start = time.process_time()
    reader = read(tmp_path, "DescribableTextures", shots=4, subsample="new")
    assert time.process_time() - start < 30  # 1 s here; anything quadratic takes minutes
    assert len(reader.classnames) == classes // 2
    assert reader.classnames[0] == f"class {classes // 2}"
    assert calls["scandir"] <= folders + 10
    # Is each folder there; of the new half's images, which are trained and tested on, is it a file, and how large.
    assert calls["stat"] <= folders + classes // 2 * 3 + 100


def test_every_reader_names_its_files():
    for name in WRITERS:
        reader = DATASET_REGISTRY.get(name)
        assert issubclass(reader, SplitDataset)
        assert reader.dataset_dir
        assert reader.split_file or reader.required_files
