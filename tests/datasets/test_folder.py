"""A folder of one's own as a data set: its two layouts, class names, what is noted, and bad input."""

from __future__ import annotations

import json
import os
import pickle
import random
import re

import numpy as np
import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from dassl.utils import read_image, set_random_seed
from PIL import Image

import datasets  # noqa: F401  registers the reader
from helpers import ROOT

CONFIG = ROOT / "configs" / "datasets" / "folder.yaml"


def read(root, folder="folder", seed=1, shots=-1, subsample="all", outside=False):
    cfg = get_cfg_default()
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list(["DATASET.ROOT", str(root), "DATASET.NUM_SHOTS", shots, "SEED", seed])
    cfg.merge_from_list(["DATASET.SUBSAMPLE_CLASSES", subsample, "DATASET.FOLDER", str(folder)])
    cfg.DATASET.IMAGES_OUTSIDE = outside
    set_random_seed(seed)
    return build_dataset(cfg)


def write(root, folder="folder", **counts):
    """Write so many images into each folder; the reader never decodes one, so a byte does."""
    for name, count in counts.items():
        path = root / folder / name.replace("__", "/")
        path.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (path / f"{index}.jpg").write_bytes(b"x")
    return root / folder


def listed(items, folder):
    return [(os.path.relpath(item.impath, folder), item.label, item.classname) for item in items]


def parts_of(dataset):
    return dataset.train_x, dataset.val, dataset.test


# ---- part folders


def test_part_folders_are_the_split(tmp_path):
    folder = write(tmp_path, train__b_bird=2, train__a=1, val__a=1, test__a=1, test__b_bird=2)
    dataset = read(tmp_path)
    assert listed(dataset.train_x, folder) == [
        ("train/a/0.jpg", 0, "a"),
        ("train/b_bird/0.jpg", 1, "b bird"),
        ("train/b_bird/1.jpg", 1, "b bird"),
    ]
    assert listed(dataset.val, folder) == [("val/a/0.jpg", 0, "a")]
    assert [path for path, *_ in listed(dataset.test, folder)] == [
        "test/a/0.jpg",
        "test/b_bird/0.jpg",
        "test/b_bird/1.jpg",
    ]
    assert not list(folder.glob("*.json"))  # the folders stay the only word on it


def test_images_added_to_part_folders_count(tmp_path):
    folder = write(tmp_path, train__a=1, train__b=1, val__a=1, test__a=1, test__b=1)
    assert len(read(tmp_path).test) == 2
    (folder / "test" / "a" / "new.JPG").write_bytes(b"x")
    assert len(read(tmp_path).test) == 3


def test_validation_images_are_taken_from_training(tmp_path, capsys):
    folder = write(tmp_path, train__a=10, train__b=2, train__c=1, test__a=3, test__b=1, test__c=1)
    dataset = read(tmp_path)
    labels = [[item.label for item in part] for part in parts_of(dataset)]
    assert labels == [[0] * 8 + [1] + [2], [0, 0, 1], [0, 0, 0, 1, 2]]
    train, val, _ = (set(listed(part, folder)) for part in parts_of(dataset))
    assert not train & val
    assert "no images in val/: 3 of those in train/ are for validation, and 10 remain" in capsys.readouterr().out


def test_validation_images_depend_on_neither_seed_nor_other_classes(tmp_path):
    folder = write(tmp_path, train__b=10, train__c=10, test__b=1, test__c=1)
    val = {path for path, *_ in listed(read(tmp_path, seed=1).val, folder)}
    assert val == {path for path, *_ in listed(read(tmp_path, seed=2).val, folder)}
    write(tmp_path, train__a=10, test__a=1)
    assert val < {path for path, *_ in listed(read(tmp_path).val, folder)}


def test_global_random_state_is_left_alone(tmp_path):
    write(tmp_path, "parts", train__b=10, train__c=10, test__b=1, test__c=1)
    write(tmp_path, "classes", b=10, c=10)
    random.seed(1)
    untouched = random.getstate()
    for folder in ("parts", "classes"):
        read(tmp_path, folder)
        assert random.getstate() == untouched


def test_few_shot_files_are_no_class(tmp_path):
    write(tmp_path, "parts", train__b=10, train__c=10, test__b=1, test__c=1)
    write(tmp_path, "classes", b=10, c=10)
    for folder in ("parts", "classes"):
        for _ in range(2):
            assert len(read(tmp_path, folder, shots=4).train_x) == 8
        (tmp_path / folder / "split_fewshot").mkdir(exist_ok=True)
        (tmp_path / folder / "split.json").unlink(missing_ok=True)
        assert read(tmp_path, folder).classnames == ["b", "c"]


# ---- class folders


def test_class_folders_are_split_once_for_all_runs(tmp_path):
    folder = write(tmp_path, cat=10, dog=20)
    first = [listed(part, folder) for part in parts_of(read(tmp_path, seed=1))]
    assert [len(part) for part in first] == [15, 6, 9]
    (folder / "split.json").unlink()
    assert [listed(part, folder) for part in parts_of(read(tmp_path, seed=2))] == first
    saved = json.loads((folder / "split.json").read_text())
    assert [[tuple(entry) for entry in saved[part]] for part in ("train", "val", "test")] == first


def test_images_that_came_later_are_noted_and_not_used(tmp_path, capsys):
    folder = write(tmp_path, cat=10, dog=10)
    read(tmp_path)
    (folder / "cat" / "late.jpg").write_bytes(b"x")
    capsys.readouterr()
    assert sum(map(len, parts_of(read(tmp_path)))) == 20
    out = capsys.readouterr().out
    assert "1 images are not in" in out
    assert "cat/late.jpg" in out


def test_classes_that_came_later_are_noted_and_not_used(tmp_path, capsys):
    folder = write(tmp_path, cat=10, dog=10)
    read(tmp_path)
    write(tmp_path, fox=3, empty=0)
    capsys.readouterr()
    assert read(tmp_path).classnames == ["cat", "dog"]
    out = capsys.readouterr().out
    assert "Note: 3 images are not in" in out
    assert "fox/2.jpg (and no image of fox); remove that file" in out
    parts = write(tmp_path, "parts", train__a=2, train__b=2, test__a=1, test__b=1, test__c=1)
    entries = [["train/a/0.jpg", 0, "a"], ["train/b/0.jpg", 1, "b"]]
    (parts / "split.json").write_text(json.dumps({"train": entries, "val": [], "test": entries}))
    read(tmp_path, "parts")
    assert "Note: 5 images are not in" in (out := capsys.readouterr().out)
    assert "no image of test/a, test/b, test/c" in out
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("cat tabby\ndog dog\n", "other names of cat ('tabby')"),
        ("dog dog\ncat cat\n", "another order of the classes"),
        ("cat cat\ndog dog\nfox fox\n", ""),
        ("dog dog\n", ""),
    ],
)
def test_class_names_that_came_later_are_noted_and_not_used(tmp_path, capsys, text, note):
    folder = write(tmp_path, cat=10, dog=10)
    read(tmp_path)
    (folder / "classnames.txt").write_text(text)
    capsys.readouterr()
    assert read(tmp_path).classnames == ["cat", "dog"]
    out = capsys.readouterr().out
    assert ("classnames.txt has" in out) == bool(note)
    assert note in out
    (folder / "split.json").unlink()
    if len(text.split("\n")) > 2:
        assert read(tmp_path).classnames == [line.split()[1] for line in text.splitlines() if "fox" not in line]


def test_own_split_file_counts(tmp_path):
    folder = write(tmp_path, cat=3, dog=3)
    parts = {"train": ["cat/0.jpg", "dog/0.jpg"], "val": [], "test": ["dog/2.jpg", "cat/2.jpg"]}
    names = {"cat": (0, "my cat"), "dog": (1, "my dog")}
    content = {part: [[path, *names[path[:3]]] for path in paths] for part, paths in parts.items()}
    (folder / "split.json").write_text(json.dumps(content))
    dataset = read(tmp_path)
    assert listed(dataset.test, folder) == [("dog/2.jpg", 1, "my dog"), ("cat/2.jpg", 0, "my cat")]
    assert dataset.classnames == ["my cat", "my dog"]


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, car=10, train=10, bus=10)
    assert read(tmp_path).classnames == ["bus", "car", "train"]
    write(tmp_path, "test_only", car=10, test=10)
    assert read(tmp_path, "test_only").classnames == ["car", "test"]


def test_images_of_16_bits_are_scaled(tmp_path):
    """Not white, as Pillow has them; also after a worker has handed the path on."""
    folder = write(tmp_path, train__cat=1, train__dog=1, test__cat=1, test__dog=1)
    for path in folder.rglob("*.jpg"):
        Image.fromarray(np.full((8, 8), 257 * 100, dtype=np.uint16)).save(path.with_suffix(".png"))
        path.unlink()
    dataset = read(tmp_path)
    for item in (*dataset.train_x, *dataset.test):
        assert type(item.impath) is type(pickle.loads(pickle.dumps(item.impath)))
        assert np.asarray(read_image(item.impath)).tolist() == np.full((8, 8, 3), 100).tolist()


# ---- which folder


def test_folder_by_name_and_by_path(tmp_path, monkeypatch):
    assert get_cfg_default().DATASET.FOLDER == "folder"
    write(tmp_path, "birds", cat=10, dog=10)
    elsewhere = write(tmp_path / "other", "mine", ant=10, bee=10)
    assert read(tmp_path, "birds").classnames == ["cat", "dog"]
    assert read(tmp_path, elsewhere).classnames == ["ant", "bee"]
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    assert read("/nowhere", "~/mine").train_x[0].impath.startswith(str(elsewhere))


def test_missing_folder_says_where_and_what_is_there(tmp_path):
    write(tmp_path, "birds", cat=10, dog=10)
    with pytest.raises(FileNotFoundError, match=rf"DATASET\.FOLDER .* no {tmp_path}/folder: {tmp_path} holds birds/"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"DATASET\.FOLDER must name"):
        read(tmp_path, "")


# ---- class names


def test_classnames_file_names_and_orders_the_classes(tmp_path, capsys):
    folder = write(tmp_path, **{"n01": 10, "n02": 10, "n 03": 10})
    (folder / "classnames.txt").write_text("n02 great  white shark\n\nn09 not here\nn 03\ttench\nn01 goldfish\n")
    dataset = read(tmp_path)
    assert dataset.classnames == ["great white shark", "tench", "goldfish"]
    assert {item.impath.split("/")[-2] for item in dataset.test if item.label == 1} == {"n 03"}
    assert read(tmp_path, subsample="base").classnames == ["great white shark", "tench"]
    assert "not images" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a x\n", r"a line for every class folder, but has none for b"),
        ("a x\nb y\na z\n", r"several for 'a'"),
        ("a x\nb\n", r"line 2 of .* must be a folder's name, a blank \(or a tab\) and a class name, got 'b'"),
        ("a Crane\nb crane\n", r"'a' and 'b' the names 'Crane' and 'crane', which are the same to CLIP"),
    ],
)
def test_bad_classnames_file(tmp_path, text, sentence):
    folder = write(tmp_path, a=10, b=10)
    (folder / "classnames.txt").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path)


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("big_cat", "big cat")])
def test_folders_that_clip_reads_as_one(tmp_path, one, other):
    write(tmp_path, **{one: 10, other: 10})
    if len(os.listdir(tmp_path / "folder")) < 2:
        pytest.skip("this file system knows no capitals")
    with pytest.raises(ValueError, match="which are the same to CLIP"):
        read(tmp_path)


# ---- bad input


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({}, r"two classes at least, but has none: .* is empty"),
        ({"cat": 10}, r"only the class 'cat'"),
        ({"train__cat": 10, "test__cat": 1}, r"only the class 'cat'"),
        ({"cat": 10, "dog": 2}, r"at least 4 images, .*folder there are fewer in dog \(2\): add images"),
        ({"cat": 10, "_": 10}, r"gives the class folder '_' no name"),
        ({"train__cat": 9, "train__dog": 9}, r"holds train/ without classes in test/"),
        ({"test__cat": 9, "val__cat": 9}, r"holds val/ and test/ without classes in train/"),
        ({"train__cat": 9, "train__Dog": 9, "test__dog": 1}, r"test must hold only classes .* dog, .* has Dog, cat"),
        ({"train__cat": 9, "train__dog": 9, "test__cat": 1, "val__ant": 1}, r"val must hold only .* holds ant"),
        ({"train__cat": 9, "train__dog": 0, "test__cat": 1}, r"train/dog must hold at least one training image"),
        ({"train__cat": 9, "train__dog": 1, "test__cat": 0}, r"must have training and test images, got \d+ and 0"),
    ],
)
def test_what_is_no_data_set(tmp_path, counts, sentence):
    (tmp_path / "folder").mkdir()
    write(tmp_path, **counts)
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path)
    assert not (tmp_path / "folder" / "split.json").exists()


@pytest.mark.parametrize("counts", [{"cat": 9, "dog": 9}, {"train__cat": 9, "train__dog": 9, "test__cat": 9}])
def test_empty_files_are_named_before_a_split_is_kept(tmp_path, counts):
    folder = write(tmp_path, **counts)
    victim = next(folder.rglob("*.jpg"))
    victim.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"1 of the images .* empty files .*{re.escape(victim.parent.name)}/"):
        read(tmp_path)
    victim.unlink()
    assert sum(map(len, parts_of(read(tmp_path)))) == sum(counts.values()) - 1


def test_other_files_are_noted(tmp_path, capsys):
    folder = write(tmp_path, train__cat=9, train__dog=9, test__cat=1, test__dog=1, extra__fish=3)
    (folder / "README.md").touch()
    (folder / "train" / "list.txt").touch()
    (folder / "train" / "cat" / "Thumbs.db").touch()
    read(tmp_path)
    assert "4 entries under" in (out := capsys.readouterr().out)
    assert "extra, README.md, train/list.txt, train/cat/Thumbs.db" in out


@pytest.mark.parametrize("counts", [{"cat": 9, "dog": 9}, {"train__cat": 9, "train__dog": 9, "test__cat": 9}])
def test_odd_entries_are_left_out_and_noted(tmp_path, capsys, counts):
    folder = write(tmp_path, **counts)
    place = next(path for path in folder.rglob("cat"))
    (place / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(place / "pipe.jpg")
    (place.parent / "loops").symlink_to("loops")
    assert sum(map(len, parts_of(read(tmp_path)))) == sum(counts.values())
    out = capsys.readouterr().out
    assert "loop.jpg (it is a link to itself)" in out
    assert "pipe.jpg (it is a named pipe (FIFO))" in out


def test_split_that_names_a_pipe_or_a_loop(tmp_path):
    folder = write(tmp_path, a=1, b=1)
    (folder / "a" / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "a" / "pipe.jpg")
    write_own_split(folder, "a/loop.jpg", "a/pipe.jpg")
    with pytest.raises(FileNotFoundError, match=r"2 of the 4 images .* a/loop\.jpg, a/pipe\.jpg"):
        read(tmp_path)


def write_own_split(folder, *paths):
    entries = [
        [path, label, name] for name, label in (("a", 0), ("b", 1)) for path in (f"{name}/0.jpg", *paths[label:][:1])
    ]
    (folder / "split.json").write_text(json.dumps({"train": entries, "val": [], "test": entries}))


@pytest.mark.parametrize("way", ["../../elsewhere/0.jpg", "a/../../../elsewhere/0.jpg", "{elsewhere}/0.jpg"])
def test_split_that_names_images_outside_the_data_folder(tmp_path, way):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.jpg").write_bytes(b"x")
    path = way.format(elsewhere=tmp_path / "elsewhere")
    for root, folder in ((tmp_path / "data", "folder"), (tmp_path / "else", tmp_path / "data" / "folder")):
        here = write(tmp_path / "data", a=1, b=1)
        write_own_split(here, path)
        allowed = root if folder == "folder" else here
        with pytest.raises(
            ValueError,
            match=rf"split\.json names images outside the data folder {allowed}, .*IMAGES_OUTSIDE True.*0\.jpg",
        ):
            read(root, folder)
        assert len(read(root, folder, outside=True).test) == 3


def test_data_folder_is_a_path_as_it_is_written(tmp_path):
    """Other sets and links that lead out of it are in it, and no folder whose name begins alike."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "0.jpg").write_bytes(b"x")
    (tmp_path / "data-2").mkdir()
    (tmp_path / "data-2" / "0.jpg").write_bytes(b"x")
    folder = write(tmp_path / "data", a=1, b=1)
    write(tmp_path / "data", "other", c=1)
    (folder / "link").symlink_to(tmp_path / "disk")
    write_own_split(folder, "link/0.jpg", "../other/c/0.jpg")
    assert len(read(tmp_path / "data").test) == 4
    write_own_split(folder, "../../data-2/0.jpg")
    with pytest.raises(ValueError, match="outside the data folder"):
        read(tmp_path / "data")
