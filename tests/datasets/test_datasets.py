"""The data set readers: parity with CoOp's published DTD reader, sets written on first use, and bad input."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from dassl.utils import set_random_seed
from PIL import Image
from sklearn.datasets import load_digits

from datasets.base import Item, Split, generate_once, read_split, save_split, split_folders, subsample_classes
from datasets.digits import Digits
from helpers import GOLDEN, ROOT
from storage.files import part_of
from storage.ownership import this_process
from trees import write_images

FACTS = json.loads((GOLDEN / "coop_datasets.json").read_text())
CONFIGS = ROOT / "configs" / "datasets"
SPLIT_FILE = "split_zhou_DescribableTextures.json"
fork = multiprocessing.get_context("fork")


def config(root, name="DescribableTextures", seed=1, shots=-1, subsample="all"):
    cfg = get_cfg_default()
    cfg.merge_from_list(["DATASET.ROOT", str(root), "DATASET.NAME", name, "DATASET.NUM_SHOTS", shots, "SEED", seed])
    cfg.merge_from_list(["DATASET.SUBSAMPLE_CLASSES", subsample])
    return cfg


def read(root, seed=1, **options):
    set_random_seed(seed)
    return build_dataset(config(root, seed=seed, **options))


def listed(items, images):
    return [[os.path.relpath(item.impath, images), item.label] for item in items]


def write_tree(root, tree):
    """Write a set in DTD's layout."""
    for folder, count in tree.items():
        write_images(root / "dtd" / "images" / folder, (f"{folder}_{index}.jpg" for index in range(count)))
    return root


def write_split(root, **parts):
    """Write a split file with the given lists, and the images that it names."""
    content = {"train": [], "val": [], "test": [], **parts}
    write_images(root / "dtd" / "images", (path for part in content.values() for path, *_ in part))
    (root / "dtd" / SPLIT_FILE).write_text(json.dumps(content))
    return root


@pytest.fixture
def tree(tmp_path):
    """The golden tree without a split file."""
    return write_tree(tmp_path, FACTS["tree"])


@pytest.fixture(scope="module")
def golden_root(tmp_path_factory):
    """The golden tree with the split file that CoOp's reader made for seed 1."""
    root = write_tree(tmp_path_factory.mktemp("data"), FACTS["tree"])
    (root / "dtd" / SPLIT_FILE).write_text(json.dumps(FACTS["made"]["1"]))
    return root


# ---- parity with the published reader


def saved_split(root):
    """The split file that a reader has saved, which says that it did."""
    saved = json.loads((root / "dtd" / SPLIT_FILE).read_text())
    assert saved.pop("made_by").startswith("this project's reader")
    return saved


@pytest.mark.parametrize("seed", FACTS["made"])
def test_new_split_is_the_published_readers(tree, seed):
    read(tree, seed=int(seed))
    assert saved_split(tree) == FACTS["made"][seed]


def test_ignored_and_renamed_folders_are_as_in_the_published_readers(tree):
    random.seed(1)
    split = split_folders(
        str(tree / "dtd" / "images"), ignored=FACTS["ignored_folders"], renamed=FACTS["renamed_folders"]
    )
    assert {part: [list(item) for item in items] for part, items in split._asdict().items()} == FACTS["renamed"]


@pytest.mark.parametrize("entry", FACTS["selected"], ids=lambda e: f"{e['seed']}-{e['shots']}-{e['subsample']}")
def test_selection_is_the_published_readers(golden_root, entry):
    reader = read(golden_root, entry["seed"], shots=entry["shots"], subsample=entry["subsample"])
    images = golden_root / "dtd" / "images"
    assert listed(reader.train_x, images) == entry["train_x"]
    assert listed(reader.val, images) == entry["val"]
    assert listed(reader.test, images) == FACTS["test"][entry["subsample"]]
    assert reader.classnames == entry["classnames"]
    assert reader.num_classes == len(entry["classnames"])


def test_first_run_selects_what_later_runs_select(tree):
    first = read(tree, seed=3, shots=4)
    after_first = random.getstate()
    second = read(tree, seed=3, shots=4)
    assert listed(first.train_x, tree) == listed(second.train_x, tree)
    assert listed(first.val, tree) == listed(second.val, tree)
    assert random.getstate() == after_first


def test_moved_data_folder_reads_the_same(tree, tmp_path_factory):
    before = listed(read(tree, shots=2).train_x, tree)
    moved = tmp_path_factory.mktemp("elsewhere") / "data"
    os.rename(tree, moved)
    assert listed(read(moved, shots=2).train_x, moved) == before


def test_read_only_use_writes_nothing(golden_root):
    before = sorted(golden_root.rglob("*"))
    read(golden_root, subsample="new")
    assert sorted(golden_root.rglob("*")) == before


def test_root_may_start_with_a_tilde(golden_root, monkeypatch):
    monkeypatch.setenv("HOME", str(golden_root.parent))
    assert read(f"~/{golden_root.name}").train_x[0].impath.startswith(str(golden_root))


@pytest.mark.parametrize("config_file", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_names_a_reader(config_file):
    cfg = get_cfg_default()
    cfg.merge_from_file(str(config_file))
    assert cfg.DATASET.NAME in DATASET_REGISTRY.registered_names()


# ---- what is noted


def test_files_that_are_no_images_are_left_out_and_counted(tree, capsys):
    images = tree / "dtd" / "images"
    (images / "README.txt").touch()
    (images / "banded" / "Thumbs.db").touch()
    (images / "banded" / ".directory").touch()
    (images / "banded" / "more").mkdir()
    read(tree)
    assert saved_split(tree) == FACTS["made"]["1"]
    out = capsys.readouterr().out
    assert "3 entries" in out
    assert "README.txt, banded/more, banded/Thumbs.db" in out


def test_classes_with_fewer_images_than_shots_are_noted(golden_root, capsys):
    read(golden_root, shots=16)
    assert "6 of 7 classes have fewer than 16 training images (fewest: lace_like, 4)" in capsys.readouterr().out
    read(golden_root, shots=4)
    assert "fewer than" not in capsys.readouterr().out


def test_image_named_twice_and_class_without_test_images_are_noted(tmp_path, capsys):
    write_split(
        tmp_path,
        train=[["a/1.jpg", 0, "a"], ["b/1.jpg", 1, "b"]],
        test=[["a/1.jpg", 0, "a"], ["a/2.jpg", 0, "a"]],
    )
    read(tmp_path)
    out = capsys.readouterr().out
    assert "no test image of 1 of 2 classes: b" in out
    assert "names 1 images more than once: a/1.jpg" in out


# ---- bad input


def test_missing_data_folder_says_where_and_what_is_there(tmp_path):
    (tmp_path / "caltech-101").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/dtd/images .*{tmp_path} holds caltech-101/"):
        read(tmp_path)
    (tmp_path / "dtd" / "imdb").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/dtd holds imdb/"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} holds caltech-101/, dtd/"):
        read(tmp_path / "no" / "such")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["caltech-101", "dtd", "imdb"]


def test_class_folder_without_images(tree):
    (tree / "dtd" / "images" / "empty").mkdir()
    (tree / "dtd" / "images" / "empty" / "notes.txt").touch()
    with pytest.raises(
        ValueError, match=r"at least 4 images, .* in .*images there are fewer in empty \(0\): add images"
    ):
        read(tree)
    assert not (tree / "dtd" / SPLIT_FILE).exists()


def test_class_folder_too_small_to_split(tmp_path):
    """All such classes are told at once, with how many images they have."""
    write_tree(tmp_path, {"many": 10, "few": 3, "enough": 4, "one": 1})
    with pytest.raises(ValueError, match=r"at least 4 images, .* there are fewer in few \(3\), one \(1\): add images"):
        read(tmp_path)


def test_no_class_folders(tmp_path):
    (tmp_path / "dtd" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"must hold one folder per class, but .*images is empty"):
        read(tmp_path)


def test_split_names_missing_images(tree):
    split = FACTS["made"]["1"]
    named = {part: [list(entry) for entry in entries] for part, entries in split.items()}
    named["test"][0][0] = "nowhere/banded_0.jpg"
    named["val"][0][0] = "banded/banded_99.jpg"
    (tree / "dtd" / SPLIT_FILE).write_text(json.dumps(named))
    with pytest.raises(
        FileNotFoundError, match=rf"2 of the 144 .*{SPLIT_FILE}.*banded/banded_99.jpg, nowhere/banded_0"
    ):
        read(tree)


def test_dangling_link_is_a_missing_image(golden_root, tmp_path):
    images = tmp_path / "dtd" / "images"
    images.mkdir(parents=True)
    for folder in FACTS["tree"]:
        (images / folder).symlink_to(golden_root / "dtd" / "images" / folder)
    (tmp_path / "dtd" / SPLIT_FILE).write_text(json.dumps(FACTS["made"]["1"]))
    read(tmp_path)  # linked folders are as good as folders

    (images / "banded").unlink()
    (images / "banded").mkdir()
    for index in range(FACTS["tree"]["banded"]):
        (images / "banded" / f"banded_{index}.jpg").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="10 of the 144"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"train": [["a/1.jpg", 0, ', "not readable as JSON"),
        ("", "not readable as JSON"),
        ("[]", "lists train, val and test"),
        ('{"train": [], "val": []}', "lists train, val and test"),
        (
            '{"train": [["a/1.jpg", "0", "a"]], "val": [], "test": []}',
            r"entry 0 of train .* got \['a/1.jpg', '0', 'a'\]",
        ),
        ('{"train": [["a/1.jpg", 0]], "val": [], "test": []}', "entry 0 of train"),
        ('{"train": [], "val": [], "test": [["a/1.jpg", 0, "a"]]}', "training and test images, got 0 and 1"),
        ('{"train": [["a/1.jpg", 0, "a"]], "val": [], "test": []}', "training and test images, got 1 and 0"),
    ],
)
def test_broken_split_file(tmp_path, content, sentence):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_split(str(path))
    assert str(path) in str(caught.value)


def test_binary_split_file(tmp_path):
    (tmp_path / "split.json").write_bytes(b"\xff\xfe\x00PK")
    with pytest.raises(ValueError, match="not readable as JSON"):
        read_split(str(tmp_path / "split.json"))


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([(0, "a"), (1, "a")], "labels 0, 1 the same class name 'a'"),
        ([(0, "a"), (0, "b")], "label 0 two class names, 'a' and 'b'"),
        ([(0, "a"), (2, "b")], "its 2 classes the labels 0 to 1 without gaps, but also gives 2"),
        ([(1, "a"), (2, "b")], "0 to 1 without gaps, but also gives 2"),
        ([(-1, "a"), (0, "b")], "0 to 1 without gaps, but also gives -1"),
    ],
)
def test_unusable_labels(tmp_path, labels, sentence):
    entries = [[f"{index}.jpg", label, name] for index, (label, name) in enumerate(labels)]
    write_split(tmp_path, train=entries, test=entries)
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path)


def test_class_without_training_image(tmp_path):
    write_split(tmp_path, train=[["1.jpg", 0, "a"]], test=[["2.jpg", 0, "a"], ["3.jpg", 1, "b"]])
    with pytest.raises(ValueError, match=r"no training image of b \(label 1\)"):
        read(tmp_path)


def test_one_class_has_no_halves(tmp_path):
    write_tree(tmp_path, {"only": 10})
    assert read(tmp_path).classnames == ["only"]
    for subsample in ("base", "new"):
        with pytest.raises(ValueError, match="DescribableTextures has one class only, 'only'"):
            read(tmp_path, subsample=subsample)


def test_unknown_subsample():
    items = [Item("1.jpg", 0, "a")]
    with pytest.raises(ValueError, match="all, base, new, got 'old'"):
        subsample_classes(items, subsample="old", name="a set")


def test_full_disk_leaves_no_split_file(tree, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.files.json.dump", full)
    with pytest.raises(OSError, match=f"cannot be saved to .*{SPLIT_FILE} .No space left"):
        read(tree)
    assert [path.name for path in (tree / "dtd").iterdir()] == ["images"]


def test_file_system_without_links(tree, monkeypatch):
    def no_links(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("datasets.files.os.link", no_links)
    read(tree)
    assert saved_split(tree) == FACTS["made"]["1"]


def test_split_of_another_process_is_kept_and_used(tree, monkeypatch):
    made = split_folders

    def slower_than_the_other(*args, **options):
        split = made(*args, **options)
        (tree / "dtd" / SPLIT_FILE).write_text(json.dumps(FACTS["made"]["2"]))
        return split

    monkeypatch.setattr("datasets.base.split_folders", slower_than_the_other)
    reader = read(tree, seed=1)
    images = tree / "dtd" / "images"
    assert listed(reader.train_x, images) == [[path, label] for path, label, _ in FACTS["made"]["2"]["train"]]
    assert sorted(path.name for path in (tree / "dtd").iterdir()) == ["images", SPLIT_FILE]


# ---- sets written on first use


@pytest.fixture(scope="module")
def digits_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "not" / "there" / "yet"
    build_dataset(config(root, name="Digits"))
    return root


def test_digits(digits_root):
    reader = read(digits_root, name="Digits")
    assert reader.classnames == ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    assert len(list((digits_root / "digits" / "images").rglob("*.png"))) == 1797
    assert [len(reader.train_x), len(reader.val), len(reader.test)] == [898, 359, 540]
    assert len({item.impath for item in (*reader.train_x, *reader.val, *reader.test)}) == 1797
    half = read(digits_root, name="Digits", shots=16, subsample="new")
    assert half.classnames == ["five", "six", "seven", "eight", "nine"]
    assert len(half.train_x) == 5 * 16


def test_digit_pictures_are_the_scans(digits_root):
    scans = load_digits()
    reader = read(digits_root, name="Digits")
    for item in (*reader.train_x, *reader.val, *reader.test):
        index = int(Path(item.impath).stem)
        assert scans.target[index] == item.label
        with Image.open(item.impath) as image:
            assert (image.size, image.mode) == ((48, 48), "L")
            blocks = np.asarray(image, dtype=float).reshape(8, 6, 8, 6)
        centres = blocks[:, 2:4, :, 2:4].mean(axis=(1, 3))  # where the filter hardly mixes neighbours in
        assert np.abs(centres - scans.images[index] * 255 / 16).max() < 255 / 16  # less than one level of ink


def test_generated_split_does_not_depend_on_the_seed_of_the_first_run(digits_root):
    split_file = digits_root / "digits" / "split_zhou_Digits.json"
    before = split_file.read_text()
    split_file.unlink()
    random.seed(99)
    state = random.getstate()
    read_again = build_dataset(config(digits_root, name="Digits", seed=99))
    assert split_file.read_text() == before
    assert random.getstate() == state
    assert read_again.train_x[0].impath.startswith(str(digits_root / "digits" / "images" / "zero"))


def test_digits_of_another_version_are_refused(digits_root, tmp_path, monkeypatch):
    shutil.copytree(digits_root, tmp_path / "data")
    folder = tmp_path / "data" / "digits"
    monkeypatch.setattr(Digits, "version", 2)
    with pytest.raises(ValueError, match=rf"which differs in version: delete the folder {folder}, and they"):
        read(tmp_path / "data", name="Digits")
    (folder / "generator.json").write_text("[]")
    with pytest.raises(ValueError, match=r"before there was a generator\.json"):
        read(tmp_path / "data", name="Digits")
    (folder / "generator.json").write_text("{")
    with pytest.raises(ValueError, match=rf"{folder}/generator\.json is not readable as JSON"):
        read(tmp_path / "data", name="Digits")


def write_generator(folder):
    """Say of a folder that the present version of Digits has written it."""
    (folder / "generator.json").write_text(json.dumps(Digits.generator(object.__new__(Digits))))


def test_generated_set_with_other_folders_is_refused(tmp_path):
    (tmp_path / "digits" / "images" / "0").mkdir(parents=True)
    write_generator(tmp_path / "digits")
    with pytest.raises(ValueError, match=r"digits/images must hold the class folders zero, one, .*, but holds 0"):
        build_dataset(config(tmp_path, name="Digits"))


def test_generated_set_with_deleted_pictures_is_refused(tmp_path):
    split = Split([Item("zero/0000.png", 0, "zero")], [], [Item("zero/0001.png", 0, "zero")])
    (tmp_path / "digits" / "images" / "zero").mkdir(parents=True)
    save_split(split, str(tmp_path / "digits" / Digits.split_file))
    write_generator(tmp_path / "digits")
    with pytest.raises(FileNotFoundError, match="2 of the 2 images"):
        build_dataset(config(tmp_path, name="Digits"))


def build_slowly(folder):
    for name in "abc":
        Path(folder, name).write_text(name)
        time.sleep(0.05)


def test_two_processes_at_once(tmp_path):
    folder = tmp_path / "set" / "images"
    barrier = fork.Barrier(2)

    def work():
        barrier.wait()
        generate_once(str(folder), build_slowly)
        if sorted(os.listdir(folder)) != ["a", "b", "c"]:
            os._exit(1)

    processes = [fork.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert os.listdir(folder.parent) == ["images"]
    assert sorted(os.listdir(folder)) == ["a", "b", "c"]


def test_half_made_set_of_a_killed_process_is_replaced(tmp_path):
    folder = tmp_path / "images"
    half_made = fork.Event()

    def build_half(part):
        Path(part, "a").write_text("a")
        half_made.set()
        time.sleep(60)

    process = fork.Process(target=generate_once, args=(str(folder), build_half))
    process.start()
    assert half_made.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert not folder.exists()
    (left,) = tmp_path.iterdir()

    part_of(folder).mkdir()  # of a process at work
    generate_once(str(folder), build_slowly)
    assert sorted(os.listdir(folder)) == ["a", "b", "c"]
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("beside", [".", "split_fewshot"])
def test_what_killed_processes_left_beside_finished_files_is_removed(tree, beside):
    read(tree, shots=1)
    folder = tree / "dtd" / beside
    gone = folder / f".x.json-{this_process()._replace(started='1')}-{'5' * 8}.part"
    live = part_of(folder / "x.json")
    for part in (gone, live):
        part.touch()
    read(tree, shots=1)
    assert not gone.exists()
    assert live.exists()


def test_failed_build_leaves_nothing(tmp_path):
    def fail(part):
        Path(part, "a").write_text("a")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        generate_once(str(tmp_path / "images"), fail)
    assert list(tmp_path.iterdir()) == []


def test_existing_content_is_never_touched(tmp_path):
    (tmp_path / "mine.png").touch()
    generate_once(str(tmp_path), lambda folder: pytest.fail("must not build"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
