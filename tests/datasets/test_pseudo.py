"""The smaller set to choose settings on: which images it has, and which it never has."""

from __future__ import annotations

import json
import random

import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from dassl.utils import set_random_seed

import datasets  # noqa: F401  registers the readers
from trees import WRITERS, write_images

CLASSES = [f"class{number}" for number in range(9)]  # five base classes


def read(root, name="DescribableTextures", images=25, shots=4, subsample="all", seed=1, **more):
    cfg = get_cfg_default()
    cfg.merge_from_list(["DATASET.ROOT", str(root), "DATASET.NAME", name, "DATASET.NUM_SHOTS", shots, "SEED", seed])
    cfg.merge_from_list(["DATASET.SUBSAMPLE_CLASSES", subsample, "DATASET.PSEUDO_IMAGES", images])
    cfg.merge_from_list([text for pair in more.items() for text in (f"DATASET.{pair[0]}", pair[1])])
    set_random_seed(seed)
    return build_dataset(cfg)


def paths(items):
    return {item.impath for item in items}


@pytest.fixture
def tree(tmp_path):
    for name in CLASSES:
        write_images(tmp_path / "dtd" / "images" / name, (f"{number}.jpg" for number in range(40)))
    return tmp_path


def test_it_has_no_new_class_and_no_test_image(tree):
    whole, base = read(tree, images=0, shots=-1), read(tree, images=0, shots=-1, subsample="base")
    smaller = read(tree)
    assert smaller.classnames == base.classnames == CLASSES[:5]
    every = paths(smaller.train_x) | paths(smaller.val) | paths(smaller.test)
    assert not every & paths(whole.test)
    assert every <= paths(base.train_x) | paths(base.val)
    assert not paths(smaller.test) & (paths(smaller.train_x) | paths(smaller.val))


def test_it_trains_on_the_images_that_every_run_of_the_seed_trains_on(tree):
    for seed in (1, 2):
        run, smaller = read(tree, images=0, subsample="base", seed=seed), read(tree, images=20, seed=seed)
        assert [item.impath for item in smaller.train_x] == [item.impath for item in run.train_x]
        assert [item.impath for item in smaller.val] == [item.impath for item in run.val]
        after = random.random()
        read(tree, images=0, subsample="base", seed=seed)
        assert random.random() == after  # nothing more was drawn


def test_its_halves_are_halves_of_the_base_classes(tree):
    halves = [read(tree, subsample=half) for half in ("base", "new")]
    assert [half.classnames for half in halves] == [CLASSES[:3], CLASSES[3:5]]
    assert paths(halves[0].test) | paths(halves[1].test) == paths(read(tree).test)
    assert {item.label for item in halves[1].test} == {0, 1}


def test_it_has_so_many_images_per_class_to_choose_by(tree):
    # 40 images: 20 train, 8 val; of these 4 and 4 are the few-shot ones.
    assert [len(read(tree, images=images).test) for images in (3, 20)] == [15, 100]
    assert [item.impath for item in read(tree, images=3).test] == [item.impath for item in read(tree, images=3).test]
    assert paths(read(tree, images=3).test) != paths(read(tree, images=3, seed=2).test)


def test_validation_images_are_taken_to_choose_by_where_a_class_has_too_few_others(tree, capsys):
    smaller = read(tree, images=20)
    assert (len(smaller.val), len(smaller.test)) == (20, 100)
    assert "for validation are among them" not in capsys.readouterr().out
    smaller = read(tree, images=21)
    assert (len(smaller.val), len(smaller.test)) == (0, 105)
    assert "not all classes of DescribableTextures have 21 further images" in capsys.readouterr().out
    smaller = read(tree, shots=20)  # all training images
    assert (len(smaller.val), len(smaller.test)) == (0, 40)
    assert paths(smaller.test) == paths(read(tree, images=0, shots=-1, subsample="base").val)


def test_a_test_image_that_a_split_names_for_training_too_is_not_looked_at(tree):
    whole = read(tree, images=0, shots=-1)  # makes the split
    path = tree / "dtd" / "split_zhou_DescribableTextures.json"
    split = json.loads(path.read_text())
    twice = [entry for entry in split["test"] if entry[1] == 0][:6]
    split["val"] += twice
    path.write_text(json.dumps(split))
    smaller = read(tree)
    assert not paths(smaller.test) & paths(whole.test)
    assert len(smaller.test) == 5 * 24


def test_own_folder_and_imagenet_have_one_too(tmp_path):
    for name in CLASSES:
        write_images(tmp_path / "mine" / name, (f"{number}.jpg" for number in range(10)))
    own = read(tmp_path, "Folder", shots=2, FOLDER="mine")
    assert (len(own.classnames), len(own.test)) == (5, 25)
    WRITERS["ImageNet"](tmp_path)
    smaller = read(tmp_path, "ImageNet", shots=2)
    assert all("/train/" in item.impath for item in smaller.test)
    assert not smaller.val


@pytest.mark.parametrize(
    ("name", "images", "shots", "message"),
    [
        ("DescribableTextures", -1, 4, "PSEUDO_IMAGES must be from 0 on, got -1"),
        ("ImageNetSketch", 25, 4, "ImageNetSketch is for testing only, and no settings are chosen on it"),
        ("ImageNet", 25, -1, "ImageNet has no further training or validation image to choose by.*train on fewer shots"),
        ("Food101", 25, 4, "must have at least 4 base classes, 7 in all; Food101 has 5"),
    ],
)
def test_sets_without_one_are_refused(tree, name, images, shots, message):
    if name in WRITERS and name != "DescribableTextures":
        WRITERS[name](tree)
    with pytest.raises(ValueError, match=message):
        read(tree, name, images, shots)
