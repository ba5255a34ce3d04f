"""Saved features: what they are of, that they classify as their method does, and that a file is whole or not there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import helpers
from helpers import ROOT, SIZE, results_of
from tools.predict.feature_file import build_cfg, describe, encode_images, list_images
from tools.predict.features import main, parse_arguments

# Runs whose image features are those of plain test images
KINDS = ("CDC", "CDC coupled", "CoOp", "CoCoOp", "KgCoOp", "MaPLe", "TCP", "PromptSRC", "MMRL")
RUNS = {name: helpers.RUNS[name] for name in KINDS}
RUNS["CLIPICM"] = ("CLIPICM", "tiny", ("TRAINER.CLIPICM.K", 20))
N_TEMPLATES = {"CDC": 2, "CDC coupled": 2}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("runs"), {}


@pytest.fixture
def run_of(kept, build_run):
    """The folder of a run of `RUNS`, trained once, and its trainer."""
    top, runs = kept

    def make(name):
        if name not in runs:
            trainer_name, config, options = RUNS[name]
            trainer = build_run(trainer_name, top / name, "OPTIM.MAX_EPOCH", 1, *options, config=config)
            trainer.train()
            runs[name] = (top / name, trainer)
        return runs[name]

    return make


@pytest.fixture
def plain(data, clip_files):
    """Arguments for plain zero-shot CLIP on the test data."""
    return (
        *("--root", data, "--backbone", clip_files["plain"]),
        *("--config-file", ROOT / "configs/trainers/ZeroshotCLIP/tiny.yaml"),
        *("--dataset-config-file", ROOT / "configs/datasets/dtd.yaml", "--workers", 0),
    )


SMALL = ("INPUT.SIZE", f"({SIZE}, {SIZE})")


def write(output, *arguments):
    """The content of the file that the command writes."""
    assert main([str(argument) for argument in ("--output", output, *arguments)]) == 0
    with np.load(output) as file:  # without pickle
        return {name: file[name] for name in file.files}


def test_options_are_taken_as_by_train(plain, tmp_path):
    """Also under the names that keys once had, and whole numbers for real ones."""
    options = ("TRAINER.CDC.LAMBDA", "2", "TRAINER.CDC.BETA", "1")
    arguments = ("--output", tmp_path / "a.npz", *plain, "--trainer", "CDC", *options)
    cfg = build_cfg(parse_arguments([str(argument) for argument in arguments]), None)
    assert (cfg.TRAINER.CDC.INVARIANT_MAP.LAMBDA, cfg.TRAINER.CDC.BETA) == (2.0, 1.0)


@pytest.mark.parametrize("name", RUNS)
def test_features_of_a_run_classify_as_the_run_does(run_of, tmp_path, name):
    run, trainer = run_of(name)
    content = write(tmp_path / "a.npz", "--model-dir", run, "--batch-size", 4)
    items = trainer.dm.dataset.test
    assert content["labels"].tolist() == [item.label for item in items]
    assert all(item.impath.endswith("/" + path) for item, path in zip(items, content["paths"]))
    assert content["paths"][0].startswith("dtd/images/")
    assert set(content["splits"]) == {"test"}
    assert content["class_names"].tolist() == results_of(run)["class_names"] == ["blue", "green"]
    about = json.loads(str(content["about"]))
    assert (about["trainer"], about["epoch"], about["normalised"]) == (RUNS[name][0], 1, True)
    assert about["config"] == {**results_of(run)["config"], "USE_CUDA": True}

    images = torch.from_numpy(content["image_features"])
    batch = torch.stack([trainer.test_loader.dataset[i]["img"] for i in range(len(items))])
    trainer.set_model_mode("eval")
    with torch.no_grad():
        scores = trainer.model_inference(batch)
        if name == "MMRL":  # classifies the classes trained on by more than the class token
            scores = trainer.model.logits(trainer.image_features(batch))
        opinions = trainer.opinions(trainer.outputs(batch))
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(images.shape[:-1]))
    if name == "CoCoOp":
        assert "text_features" not in content
        assert images.shape == (len(items), 48)
        return
    texts = torch.from_numpy(content["text_features"])
    n_templates, width = N_TEMPLATES.get(name, 1), 20 if name == "CLIPICM" else 48
    assert images.shape == (*(2,) * (name == "CDC coupled"), len(items), width)
    assert texts.shape == (n_templates, 2, width)
    cosines = images @ texts.transpose(1, 2)  # (M, N, C)
    if opinions is None:
        torch.testing.assert_close(about["scale"] * cosines[0], scores, rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(cosines.argmax(dim=2), torch.stack([o.log_prob.argmax(1) for o in opinions[1]]))


def test_plain_clip(small_clip, plain, tmp_path, data, capsys):
    """Zero-shot CLIP's own arithmetic, on all splits and classes."""
    from clip import clip
    from torchvision.transforms import functional

    content = write(tmp_path / "new" / "a.npz", *plain, "--split", "all", *SMALL)
    assert content["class_names"].tolist() == ["blue", "green", "red", "yellow"]
    assert content["splits"].tolist() == ["train"] * 20 + ["val"] * 8 + ["test"] * 12
    names = [path.split("/")[2] for path in content["paths"]]
    assert content["class_names"][content["labels"]].tolist() == names
    assert len(set(content["paths"])) == 40
    texts = F.normalize(small_clip.encode_text(clip.tokenize(["blue texture.", "green texture."])), dim=-1)
    torch.testing.assert_close(torch.from_numpy(content["text_features"])[0, :2], texts)

    from dassl.utils import read_image

    image = functional.resize(read_image(str(data / content["paths"][0])), SIZE, functional.InterpolationMode.BICUBIC)
    pixels = functional.to_tensor(functional.center_crop(image, SIZE))
    pixels = functional.normalize(pixels, [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    expected = F.normalize(small_clip.encode_image(pixels[None]), dim=-1)[0]
    torch.testing.assert_close(torch.from_numpy(content["image_features"][0]), expected)
    assert "image_features  float32  40 x 48" in capsys.readouterr().out


def test_half_precision_classes_and_splits(plain, tmp_path):
    whole = write(tmp_path / "a.npz", *plain, "--split", "val", *SMALL)
    half = write(tmp_path / "b.npz", *plain, "--split", "val", "--classes", "new", "--dtype", "float16", *SMALL)
    assert half["image_features"].dtype == half["text_features"].dtype == np.float16
    assert half["class_names"].tolist() == ["red", "yellow"]
    assert whole["paths"][4:].tolist() == half["paths"].tolist()
    assert half["labels"].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(half["image_features"], whole["image_features"][4:], atol=1e-3)


def test_clip_of_a_config_is_found_from_any_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = ("--config-file", ROOT / "configs/trainers/ZeroshotCLIP/tiny.yaml")
    configs += ("--dataset-config-file", ROOT / "configs/datasets/dtd.yaml")
    content = write("a.npz", "--root", data, *configs, "--workers", 0)
    assert json.loads(str(content["about"]))["backbone"] == str(ROOT / "weights/tiny_clip.pt.gz")


def test_training_images_of_a_run_are_its_own_shots(run_of, tmp_path):
    run, trainer = run_of("CoOp")
    content = write(tmp_path / "a.npz", "--model-dir", run, "--split", "train")
    expected = [item.impath for item in trainer.dm.dataset.train_x]
    assert len(expected) == 8
    assert [path.rpartition("/")[2] for path in content["paths"]] == [path.rpartition("/")[2] for path in expected]
    content = write(tmp_path / "a.npz", "--model-dir", run, "--split", "train", "DATASET.NUM_SHOTS", -1)
    assert len(content["paths"]) == 10


def test_a_run_on_other_classes_and_another_place(run_of, data, tmp_path):
    run, _ = run_of("CoOp")
    moved = tmp_path / "moved"
    moved.symlink_to(data)
    config = ROOT / "configs/datasets/dtd.yaml"
    given = ("--root", moved, "--dataset-config-file", config, "--classes", "all", "--split", "test")
    content = write(tmp_path / "a.npz", "--model-dir", run, *given)
    assert content["text_features"].shape == (1, 4, 48)
    assert len(content["paths"]) == 12


# ---------------------------------------------------------------------------------------------------------- wrong input


def refused(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tools.predict.features: ")]
    return line


def test_wrong_input_is_one_error(run_of, plain, tmp_path, capsys):
    output, (run, _) = ("--output", tmp_path / "out" / "a.npz"), run_of("CoOp")
    assert "ends in .npz" in refused(capsys, "--output", tmp_path / "a.txt", *plain)
    assert "--model-dir" in refused(capsys, *output, *plain, "--trainer", "CDC", *SMALL)
    assert "got 'Nobody'" in refused(capsys, *output, *plain, "--trainer", "Nobody", *SMALL)
    assert "no config file nothing.yaml" in refused(capsys, *output, *plain, "--config-file", "nothing.yaml")
    (tmp_path / "x.py").write_text(f"open({str(tmp_path / 'trap')!r}, 'w')\n")
    assert "must be YAML" in refused(capsys, *output, *plain, "--config-file", tmp_path / "x.py")
    assert not (tmp_path / "trap").exists()
    assert "KEY VALUE" in refused(capsys, *output, *plain, "SEED")
    assert "COLOUR" in refused(capsys, *output, *plain, "COLOUR", 1)
    assert "results.json is missing" in refused(capsys, *output, "--model-dir", tmp_path)
    assert "must lie in" in refused(capsys, *output, "--model-dir", run, "--root", tmp_path / "nothing")
    assert "batch size" in refused(capsys, *output, "--model-dir", run, "--batch-size", 0)
    for both in (("--config-file", "x"), ("--trainer", "CoOp")):
        with pytest.raises(SystemExit):
            main([str(argument) for argument in (*output, "--model-dir", run, *both)])
    assert not (tmp_path / "out").exists()


def test_other_weights_of_clip_are_refused(run_of, other_clip, tmp_path, capsys):
    run, trainer = run_of("CDC")
    arguments = ("--model-dir", run, "--output", tmp_path / "a.npz", "--backbone", other_clip)
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{run} was made with other weights of CLIP" in told
    assert not (tmp_path / "a.npz").exists()
    assert describe(trainer)["backbone_sha256"] == results_of(run)["backbone_sha256"]


def test_split_that_is_not_there(run_of):
    dataset = run_of("CoOp")[1].dm.dataset
    with pytest.raises(ValueError, match="train, val, test or all, got 'tests'"):
        list_images(dataset, "tests")
    dataset._val, val = None, dataset._val
    try:
        with pytest.raises(ValueError, match="DescribableTextures has no images in its split val"):
            list_images(dataset, "val")
        assert set(list_images(dataset, "all").splits) == {"train", "test"}
    finally:
        dataset._val = val


def test_broken_image_is_named(plain, data, tmp_path, capsys):
    path = next((data / "dtd/images/blue").iterdir())
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    try:
        output = tmp_path / "a.npz"
        sentence = refused(capsys, "--output", output, *plain, "--split", "all", *SMALL)
    finally:
        path.write_bytes(content)
    assert str(path) in sentence
    assert "truncated" in sentence
    assert not output.exists()


def test_failed_write_leaves_the_old_file(plain, tmp_path, monkeypatch, capsys):
    output = tmp_path / "a.npz"
    write(output, *plain, *SMALL)
    before = output.read_bytes()

    def fill_disk(file, **content):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fill_disk)
    assert "No space left" in refused(capsys, "--output", output, *plain, *SMALL)
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_features_that_are_not_finite(run_of, monkeypatch):
    _, trainer = run_of("CoOp")
    paths = [item.impath for item in trainer.dm.dataset.test]
    monkeypatch.setattr(trainer, "image_features", lambda images: torch.full((len(images), 4), float("nan")))
    with pytest.raises(ValueError, match="not finite: fp32"):
        encode_images(trainer, paths)
