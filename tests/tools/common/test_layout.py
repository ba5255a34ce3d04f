"""Where runs lie: folders are made and read alike, and which trainers train nothing is what the trainers are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

import pytest

import trainers
from helpers import ROOT
from tools.common.layout import (
    PATTERNS,
    PROTOCOLS,
    Place,
    config_folder,
    parse,
    split_source,
    training_set,
    trains_nothing,
)

# By folder the attributes of Place, in their order
PLACES = {
    "base2new/train_base/dtd/shots_16/MaPLe/cfg/seed1": ("train_base", "dtd", 16, "MaPLe", "cfg", 1),
    "base2new/test_base/dtd/shots_-1/MaPLe/a/b/seed1": ("test_base", "dtd", -1, "MaPLe", "a/b", 1),
    "base2new/test_new/dtd/shots_4/VPT/a+b/seed12": ("test_new", "dtd", 4, "VPT", "a+b", 12),
    "base2new/test_new/dtd/shots_4/ZeroshotCLIP/a/seed0": ("test_new", "dtd", 4, "ZeroshotCLIP", "a", 0),
    "open_set/dtd/shots_16/MaPLe/a/b/seed1": ("open_set", "dtd", 16, "MaPLe", "a/b", 1),
    "dtd/CDC/tiny_-1shots/seed3": ("all", "dtd", -1, "CDC", "tiny", 3),
    "dtd/CDC/tiny_2shots_8shots/seed3": ("all", "dtd", 8, "CDC", "tiny_2shots", 3),
    "dtd/CDC/tiny+LR=0.1_8shots/seed3": ("all", "dtd", 8, "CDC", "tiny+LR=0.1", 3),
    "dtd/CoOp/rn50_ep50_1shots/nctx16_cscFalse_ctpend/seed2": (
        *("all", "dtd", 1, "CoOp", "rn50_ep50/nctx16_cscFalse_ctpend", 2),
    ),
    "evaluation/CDC/tiny_16shots/dtd/seed1": ("evaluation", "dtd", 16, "CDC", "tiny", 1),
    "evaluation/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/dtd/seed1": (
        *("evaluation", "dtd", 16, "CoOp", "rn50/nctx16_cscFalse_ctpend", 1),
    ),
}


@pytest.mark.parametrize(("folder", "values"), PLACES.items())
def test_folder_is_made_and_read_alike(folder, values):
    place = Place(*values)
    assert place.folder.as_posix() == folder
    assert parse(PurePath(folder)) == place


@pytest.mark.parametrize(
    ("folder", "values"),
    [
        ("ZeroshotCLIP/vit_b16/dtd", ("evaluation", "dtd", 0, "ZeroshotCLIP", "vit_b16", 0)),
        ("dtd/CDC/tiny_16shots+LR=0.1/seed1", ("all", "dtd", 16, "CDC", "tiny+LR=0.1", 1)),
    ],
)
def test_folder_that_others_made_is_read(folder, values):
    assert parse(PurePath(folder)) == Place(*values)


@pytest.mark.parametrize(
    "folder",
    ["", "digits", "seed1", "evaluation/seed1", "base2new/seed1", "dtd/CDC/tiny_16shots", "dtd/CDC/tiny/seed1",
     "CDC/vit_b16/dtd", "dtd/CDC/x_16shots/seed1b", "base2new/train_base/dtd/shots_16/CDC/seed1",
     "base2new/CDC/tiny_16shots/seed1", "open_set/CDC/tiny_16shots/seed1", "evaluation/CDC/tiny_16shots/seed1",
     "base2new/other/dtd/shots_16/CDC/tiny/seed1", "base2new/train_base/dtd/shots_x/CDC/tiny/seed1"],
)  # fmt: skip
def test_folders_that_are_no_runs(folder):
    assert parse(PurePath(folder)) is None


def test_classes_that_are_tested():
    place = Place("all", "dtd", 16, "CDC", "tiny", 1)
    assert {kind: replace(place, kind=kind).classes for kind in PATTERNS} == {
        "train_base": "base",
        "test_base": "base",
        "test_new": "new",
        "open_set": "base",
        "evaluation": "all",
        "all": "all",
    }


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/home/CDC/output/imagenet/CDC/cfg_16shots/seed1", "imagenet"),
        ("output/shapes/CDC/cfg_16shots/nctx16/seed1", "shapes"),
        ("/CDC/x_1shots/output/dtd/CDC/cfg_16shots/seed1", "dtd"),
        ("/home/output/imagenet/CoOp/cfg_16shots/seed1", None),
        ("/home/output/evaluation/CDC/cfg_16shots/dtd/seed1", None),
        ("/home/output/base2new/train_base/dtd/shots_16/CDC/cfg/seed1", None),
        ("", None),
    ],
)
def test_data_set_in_the_path_of_a_training(folder, expected):
    assert training_set(PurePath(folder), "CDC") == expected


def test_marks_of_a_config():
    assert config_folder("tiny") == "tiny"
    assert config_folder("tiny", "a=1", 0, "dtd") == "tiny+a=1+epoch0+from_dtd"
    assert split_source("tiny+a=1+epoch0+from_dtd") == ("tiny+a=1+epoch0", "dtd")
    assert split_source("tiny+a=1") == ("tiny+a=1", "")


def test_trainers_that_train_nothing():
    from dassl.engine import TRAINER_REGISTRY

    from trainers.prompt_trainer import PromptTrainer

    trainers.register()
    names = [path.name for path in (ROOT / "configs/trainers").iterdir()]
    untrained = [name for name in names if not issubclass(TRAINER_REGISTRY.get(name), PromptTrainer)]
    assert [name for name in names if trains_nothing(name)] == untrained
    assert len(untrained) == 2


def test_page_shows_the_places():
    text = (ROOT / "docs/tables.md").read_text(encoding="utf-8")
    places = {place for places in PROTOCOLS.values() for place in places.split(" and ")}
    assert [place for place in places if f"| `{place}` |" not in text] == []
    assert len(places) == 4
