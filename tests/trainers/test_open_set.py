"""Tests on an open set: which images are seen, what is kept of them, the figures, and what is refused."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from PIL import Image

from helpers import results_of
from trainers.modules.predictions import read_predictions
from trainers.modules.uncertainty import open_set_metrics


@pytest.fixture
def far(tmp_path):
    """The config file of a folder of pictures: of two classes that no model here knows, and one that it may know."""
    rng = np.random.default_rng(1)
    for name in ("noise", "BLUE_", "stripes"):
        folder = tmp_path / "far" / name
        folder.mkdir(parents=True)
        for n in range(10):
            Image.fromarray(rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    path = tmp_path / "pictures.yaml"
    path.write_text(f'DATASET:\n  NAME: "Folder"\n  FOLDER: "{tmp_path / "far"}"\n')
    return path


def open_set(*far_sets):
    return ("TEST.OPEN_SET", True, "TEST.FAR_SETS", [str(path) for path in far_sets])


@pytest.mark.parametrize("method", ["ZeroshotCLIP", "CoOp", "CDC"])
def test_figures_are_those_of_the_images_kept(build_run, data, tmp_path, far, method, capsys):
    plain = build_run(method, tmp_path / "plain")
    plain.test()
    trainer = build_run(method, tmp_path / "open", *open_set(far))
    capsys.readouterr()
    trainer.test()
    printed, results, before = capsys.readouterr().out, results_of(tmp_path / "open"), results_of(tmp_path / "plain")
    figures = results["figures"]

    # What the known images give is what it was, in the file and in the figures.
    assert {name: value for name, value in figures.items() if "/" not in name} == before["figures"]
    assert (results["images"], results["classes"]) == (before["images"], "base")
    found = read_predictions(tmp_path / "open")
    inside = {name: values[~found["out"]] for name, values in found.items()}
    for name, values in read_predictions(tmp_path / "plain").items():
        np.testing.assert_array_equal(inside[name], values)
    assert set(inside["origin"]) == {"base"}

    # Base classes are blue and green; near are red and yellow, far what has no known name.
    sets = {
        name: {key: values[found["origin"] == name] for key, values in found.items()} for name in ("near", "pictures")
    }
    assert {path.split("/")[2] for path in sets["near"]["path"]} == {"red", "yellow"}
    assert {path.split("/")[-2] for path in sets["pictures"]["path"]} == {"noise", "stripes"}
    assert "pictures: 3 images are left out, of known classes: BLUE" in printed
    assert len(sets["near"]["path"]) == before["images"]
    assert set(found["label"][found["out"]]) == {-1}
    assert set(found["label_log_prob"][found["out"]]) == {-np.inf}
    assert found["prediction"].max() < 2
    scores = {"confidence", "entropy"} | (
        {"uncertainty", "conflict", "doubt", "disagreement"} if method == "CDC" else set()
    )
    for name, records in sets.items():
        expected = open_set_metrics(inside, records)
        assert {metric.rsplit("_", 1)[1] for metric in expected} == scores
        for metric, value in {**expected, "images": len(records["path"])}.items():
            assert figures[f"{name}/{metric}"] == pytest.approx(value)
        assert f"* {name}/auroc_open_confidence: {expected['auroc_open_confidence']:.1f}%\n" in printed


def test_views_of_each_template_are_those_of_the_config(build_run, tmp_path, far):
    """CDC may see several views of a test image, so that a batch has more than one picture per image."""
    trainer = build_run("CDC", tmp_path, *open_set(far), "TRAINER.CDC.TEST_VIEWS", True)
    trainer.test()
    assert "pictures/auroc_open_uncertainty" in results_of(tmp_path)["figures"]


def test_images_are_chosen_by_the_seed_and_random_numbers_stay(build_run, tmp_path, far, monkeypatch, capsys):
    """A reader keeps the few-shot images that it draws, and other runs take them."""
    trainer = build_run("ZeroshotCLIP", tmp_path / "run", *open_set(far), "DATASET.NUM_SHOTS", 2)
    random.seed(7)
    before = random.getstate()
    trainer.test()
    assert random.getstate() == before
    kept = next((tmp_path / "far" / "split_fewshot").iterdir())
    chosen = json.loads(kept.read_text())
    kept.unlink()
    assert "Note: the few-shot" not in capsys.readouterr().out
    build_run("ZeroshotCLIP", tmp_path / "own", "DATASET.NUM_SHOTS", 2, "DATASET.NAME", "Folder",
              "DATASET.FOLDER", str(tmp_path / "far"), "DATASET.SUBSAMPLE_CLASSES", "all")  # fmt: skip
    assert json.loads(kept.read_text()) == chosen


def test_near_alone(build_run, tmp_path):
    build_run("ZeroshotCLIP", tmp_path, *open_set()).test()
    assert set(read_predictions(tmp_path)["origin"]) == {"base", "near"}


def test_choosing_a_model_sees_no_unknown_images(build_run, tmp_path, capsys):
    build_run("ZeroshotCLIP", tmp_path, *open_set()).test(split="val")
    assert "unknown" not in capsys.readouterr().out


def test_wrong_config_is_told_at_once(build_run, tmp_path, far):
    options = (*open_set(far, far, tmp_path / "none.yaml"), "DATASET.SUBSAMPLE_CLASSES", "all", "TEST.SPLIT", "val")
    with pytest.raises(ValueError, match="the config cannot run") as told:
        build_run("ZeroshotCLIP", tmp_path, *options)
    for words in (
        "DATASET.SUBSAMPLE_CLASSES must be base where TEST.OPEN_SET is True, got 'all'",
        "TEST.SPLIT must be test where TEST.OPEN_SET is True, got 'val'",
        "TEST.FAR_SETS must be of different names, none of them base or near, got pictures, pictures, none",
        f"there is no {tmp_path / 'none.yaml'}",
    ):
        assert words in str(told.value)
    with pytest.raises(ValueError, match=r"TEST\.FAR_SETS must be empty unless TEST\.OPEN_SET is True"):
        build_run("ZeroshotCLIP", tmp_path, "TEST.FAR_SETS", [str(far)])


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("DATASET:\n  NAMES: x\n", r"pictures\.yaml is not the config of a data set: .*DATASET\.NAMES"),
        ("[1, 2]", r"pictures\.yaml is not the config of a data set"),
        ("a: [", r"pictures\.yaml is not the config of a data set"),
    ],
)
def test_wrong_file_of_a_far_set_is_told(build_run, tmp_path, far, content, error):
    far.write_text(content)
    with pytest.raises(ValueError, match=error):
        build_run("ZeroshotCLIP", tmp_path, *open_set(far)).test()
    assert not (tmp_path / "results.json").exists()


def test_far_set_of_known_classes_alone_is_told(build_run, tmp_path, far):
    far.write_text('DATASET:\n  NAME: "DescribableTextures"\n')
    trainer = build_run("ZeroshotCLIP", tmp_path, *open_set(far))
    trainer.class_names = ["blue", "green", "red", "yellow"]
    with pytest.raises(ValueError, match="pictures has no test image of a class that the model does not know"):
        trainer.test()
