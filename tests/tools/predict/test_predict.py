"""Classifying one's own images: held to the trainers' own tests, class names, broken images, rows, exit status."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import AUGMENTED, ROOT, RUNS, WORDS, results_of, save_harmful_archive
from tools.predict import Predictor, Skipped, trained
from tools.predict import predictor as module
from tools.predict.__main__ import main
from tools.predict.classify import short
from trainers.modules import loading

EVIDENTIAL = [name for name in RUNS if name.startswith("CDC")]


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures of many kinds, three of them broken, and a file that is none by its name."""
    folder = tmp_path / "pictures"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    rng = np.random.default_rng(0)
    whole = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    whole.save(folder / "b.jpg")
    whole.save(folder / ".hidden" / "a.jpg")
    whole.convert("CMYK").save(folder / "sub" / "cmyk.JPG")
    whole.quantize(16).save(folder / "sub" / "palette.png")
    Image.fromarray(rng.integers(0, 65535, (40, 40), dtype=np.uint16)).save(folder / "sub" / "deep" / "16bit.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    whole.save(folder / "sub" / "turned.jpg", exif=exif)
    (folder / "cut.jpg").write_bytes((folder / "b.jpg").read_bytes()[:-600])
    (folder / "empty.png").write_bytes(b"")
    (folder / "sub" / "text.jpg").write_text("no picture")
    (folder / "readme.txt").write_text("no picture")
    return folder


READABLE = ["b.jpg", "sub/cmyk.JPG", "sub/palette.png", "sub/turned.jpg", "sub/deep/16bit.png"]


# ----------------------------------------------------------------------------------------------- same as the run's test


@pytest.mark.parametrize("name", RUNS)
def test_predictions_are_those_of_the_runs_own_test(run_of, name):
    run = run_of(name)
    predictor = Predictor(run.folder, device="cpu")
    names = results_of(run.folder)["class_names"]
    assert predictor.class_names == names == ["blue", "green"]
    predictions = predictor(run.images, top_k=2, batch_size=4)
    assert [p.path for p in predictions] == run.images
    assert [p.label for p in predictions] == [names[label] for label in run.scores.argmax(dim=1)]
    expected = run.scores.softmax(dim=1)
    for prediction, row in zip(predictions, expected):
        shares = dict(prediction.top)
        torch.testing.assert_close(torch.tensor([shares[name] for name in names]), row, rtol=1e-5, atol=1e-6)
        assert prediction.top[0] == (prediction.label, prediction.probability)
    assert len({p.probability for p in predictions}) > 1
    assert predictor.trainer.tested_epoch == results_of(run.folder)["epoch"]


@pytest.mark.parametrize("name", EVIDENTIAL)
def test_opinions_are_those_of_the_runs_own_test(run_of, name):
    run = run_of(name)
    predictions = Predictor(run.folder)(run.images)
    figures = results_of(run.folder)["figures"]
    for key in ("uncertainty", "conflict"):
        assert np.mean([getattr(p, key) for p in predictions]) == pytest.approx(figures[key], abs=1e-6)
    truth = [Path(path).parent.name for path in run.images]
    for m in range(2):
        right = [p.templates[m].label == label for p, label in zip(predictions, truth)]
        assert 100 * np.mean(right) == pytest.approx(figures[f"template{m + 1}_accuracy"])
    for prediction in predictions:
        # The larger belief in two classes: b + b' + u = 1, eq. (4).
        assert all(0 < t.uncertainty < 1 for t in prediction.templates)
        assert all(2 * t.belief + t.uncertainty >= 1 - 1e-6 for t in prediction.templates)
        assert prediction.uncertainty <= min(t.uncertainty for t in prediction.templates) + 1e-6


def test_methods_without_opinions_have_none(run_of):
    run = run_of("CoOp")
    (prediction,) = Predictor(run.folder)(run.images[:1])
    assert (prediction.uncertainty, prediction.conflict, prediction.templates) == (None, None, [])


def test_batches_and_workers_change_nothing(run_of, pictures):
    predictor = Predictor(run_of("CDC").folder)
    paths = module.find_images([pictures]).images
    one = list(predictor.predict(paths, batch_size=100))
    many = list(predictor.predict(paths, batch_size=3, workers=2))
    assert [o.path for o in one] == [o.path for o in many] == paths
    assert [type(o) for o in one] == [type(o) for o in many]
    for a, b in zip(one, many):
        assert isinstance(a, Skipped) or a.probability == pytest.approx(b.probability, abs=1e-6)


# ---------------------------------------------------------------------------------------------------------- class names


@pytest.mark.parametrize(
    "name", ["CDC", "CDC coupled", "CoOp", "CoCoOp", "MaPLe", "TCP", "PromptSRC", "MMRL", "CLIPICM", "ZeroshotCLIP"]
)
def test_other_class_names(run_of, build_run, data, tmp_path, name):
    """As a test of the same model on the new classes of the data set."""
    run = run_of(name)
    trainer, config, options = RUNS[name]
    options = (*options, "DATASET.SUBSAMPLE_CLASSES", "new", "DATASET.ROOT", data)
    tested = build_run(trainer, tmp_path, *options, config=config)
    if name != "ZeroshotCLIP":
        tested.load_model(str(run.folder), epoch=results_of(run.folder)["epoch"])
    paths = [item.impath for item in tested.dm.dataset.test]
    with torch.no_grad():
        tested.set_model_mode("eval")
        scores = torch.cat([tested.model_inference(batch["img"]) for batch in tested.test_loader])
    predictions = Predictor(run.folder, class_names=["red", "yellow"])(paths)
    expected = scores.softmax(dim=1).max(dim=1)
    assert [p.label for p in predictions] == [["red", "yellow"][i] for i in expected.indices]
    np.testing.assert_allclose([p.probability for p in predictions], expected.values, rtol=1e-5)


@pytest.mark.parametrize(("name", "message"), [("CoOp CSC", "context for each of"), ("CLIPICM probe", "linear probe")])
def test_heads_that_know_their_classes_refuse_others(run_of, name, message):
    with pytest.raises(ValueError, match=message):
        Predictor(run_of(name).folder, class_names=["red", "yellow"])
    with pytest.raises(ValueError, match=message):
        Predictor(run_of(name).folder, class_names=["blue", "green", "red"])


def test_class_names_from_files_and_lists(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffcat\n\n traffic light \ndog\n", encoding="utf-8")
    assert module.read_class_names(str(path)) == ["cat", "traffic light", "dog"]
    assert module.read_class_names("cat, traffic light,dog") == ["cat", "traffic light", "dog"]
    with pytest.raises(FileNotFoundError, match=r"no file names\.txt"):
        module.read_class_names("names.txt")
    for text, message in (("", "at least one"), ("a_b\na b\n", "several times a b"), ("\xff", "UTF-8")):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=message):
            module.read_class_names(str(path))
    with pytest.raises(ValueError, match="at least one and no empty one"):
        module.check_class_names("cat")


# --------------------------------------------------------------------------------------------------------------- images


def test_folders_are_searched_in_order(pictures):
    found = module.find_images([pictures / "sub", str(pictures / "readme.txt"), pictures])
    sub = ["sub/cmyk.JPG", "sub/palette.png", "sub/text.jpg", "sub/turned.jpg", "sub/deep/16bit.png"]
    expected = [*sub, "readme.txt", "b.jpg", "cut.jpg", "empty.png", *sub]
    assert [os.path.relpath(path, pictures) for path in found.images] == expected
    assert found.others == [str(pictures / "readme.txt")]
    assert found.skipped == []


def test_links_are_followed_once(pictures, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "there").symlink_to(pictures / "sub" / "deep")
    (pictures / "sub" / "deep" / "back").symlink_to(pictures / "sub")
    assert module.find_images([linked]).images == [
        str(linked / "there" / "16bit.png"),
        *(str(linked / "there" / "back" / name) for name in ("cmyk.JPG", "palette.png", "text.jpg", "turned.jpg")),
    ]


def test_folder_without_images_or_not_readable(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    assert module.find_images([tmp_path]).skipped == [(str(tmp_path), "there are no images in this folder")]

    def forbid(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "list_entries", forbid)
    assert module.find_images(tmp_path).skipped == [(str(tmp_path), "Permission denied")]


@pytest.mark.skipif(os.name == "nt", reason="there are no named pipes")
def test_odd_paths_are_one_entry_each(run_of, pictures, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    shutil.copy(pictures / "b.jpg", folder)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "loops").symlink_to("loops")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "null.jpg").symlink_to("/dev/null")
    reasons = {
        "loop.jpg": "it is a link to itself",
        "loops": "it is a link to itself",
        "null.jpg": "it is a device or socket",
        "pipe.jpg": "it is a named pipe (FIFO)",
    }
    given = ("--model-dir", run_of("CoOp").folder)
    capsys.readouterr()
    for paths in ((folder,), [folder / name for name in ("b.jpg", *reasons)]):
        assert call(*given, *paths) == 1
        told = capsys.readouterr()
        for name, reason in reasons.items():
            assert told.err.count(f"skipped {folder / name}: {reason}\n") == 1
        assert "classified 1, skipped 4" in told.err
        assert [row["path"] for row in csv.DictReader(told.out.splitlines())] == [str(folder / "b.jpg")]


def test_images_of_all_kinds_are_read_as_rgb(run_of, pictures):
    """As PIL's convert does, but for greys of 16 bits, which it cuts off: a turned image stays as its pixels lie."""
    predictor = Predictor(run_of("ZeroshotCLIP").folder)
    trainer, view = predictor.trainer, predictor.views[0]
    for name in READABLE:
        with Image.open(pictures / name) as image:
            if name.endswith("16bit.png"):
                image = Image.fromarray((np.asarray(image).astype(float) / 257).round().astype(np.uint8))
            expected = trainer.model_inference(view(image.convert("RGB"))[None]).softmax(dim=1).max().item()
        (prediction,) = predictor(pictures / name)
        assert prediction.probability == pytest.approx(expected, abs=1e-6)


def test_random_views_are_the_same_in_every_call(run_of, build_run, pictures, tmp_path):
    """In any order, batch and number of workers; nothing is drawn from the caller's random numbers."""
    options = (*AUGMENTED, *WORDS, "TRAINER.CDC.TEST_VIEWS", True, "OPTIM.MAX_EPOCH", 1)
    build_run("CDC", tmp_path / "run", *options).train()
    predictor = Predictor(tmp_path / "run")
    paths = [str(pictures / name) for name in READABLE]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = predictor(paths)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    torch.manual_seed(5)
    again = predictor(paths[::-1], batch_size=2, workers=2)[::-1]
    alone = Predictor(tmp_path / "run")(paths[-1])
    for one, other in zip([*first, first[-1]], [*again, *alone]):
        assert one.path == other.path
        assert one.probability == pytest.approx(other.probability, rel=1e-5)
        assert one.uncertainty == pytest.approx(other.uncertainty, rel=1e-5)
    copy = shutil.copy(paths[0], tmp_path / "copy.jpg")
    assert predictor(copy)[0].uncertainty == pytest.approx(first[0].uncertainty, rel=1e-5)

    results = results_of(tmp_path / "run")
    results["config"]["SEED"] = 2
    (tmp_path / "run/results.json").write_text(json.dumps(results))
    other = Predictor(tmp_path / "run")(paths)
    assert any(abs(a.uncertainty - b.uncertainty) > 1e-4 for a, b in zip(first, other))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # which read_image's module keeps quiet
@pytest.mark.parametrize("limit", [1000, 1500], ids=["far too many", "too many"])
def test_image_of_too_many_pixels_tells_what_raises_the_limit(tmp_path, monkeypatch, limit):
    """Also where Pillow itself refuses it, which names no variable."""
    Image.new("RGB", (50, 50)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # which the variable changes
    monkeypatch.setenv("MAX_IMAGE_PIXELS", str(limit))
    (_, reason, _) = trained.ImageFiles([str(tmp_path / "large.png")], [])[0]
    assert re.fullmatch(
        r"it has (2,500|more than 2,000) pixels, .*; the environment variable MAX_IMAGE_PIXELS .*", reason
    )


def test_python_call_tells_of_a_broken_image(run_of, pictures):
    predictor = Predictor(run_of("CoOp").folder)
    with pytest.raises(OSError, match=r"cut\.jpg: .*truncated"):
        predictor([pictures])
    with pytest.raises(OSError, match="no such file"):
        predictor(["nowhere.jpg"])
    with pytest.raises(OSError, match="no images in this folder"):
        predictor([_empty(pictures)])
    assert predictor([]) == []
    for top_k in (0, 3):
        with pytest.raises(ValueError, match="from 1 to 2"):
            predictor([pictures], top_k=top_k)
    with pytest.raises(ValueError, match="at least 1"):
        predictor([pictures], batch_size=0)


def _empty(folder):
    (folder / "nothing").mkdir()
    return folder / "nothing"


# --------------------------------------------------------------------------------------------------------- command line


def call(*arguments):
    return main([str(argument) for argument in arguments])


def test_csv_and_jsonl_hold_the_same(run_of, pictures, tmp_path, capsys):
    run = run_of("CDC").folder
    given = ("--model-dir", run, "--top-k", 2, "--workers", 0, "--batch-size", 2, pictures)
    assert call("--output", tmp_path / "rows.csv", *given) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert call("--format", "jsonl", *given) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with open(tmp_path / "rows.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    assert [row["path"] for row in rows] == [line["path"] for line in lines] == [str(pictures / p) for p in READABLE]
    exact = Predictor(run)([pictures / name for name in READABLE], top_k=2)
    for row, line, prediction in zip(rows, lines, exact):
        assert line["label"] == row["label"] == prediction.label
        for key in ("probability", "uncertainty", "conflict"):
            assert line[key] == float(row[key]) == pytest.approx(getattr(prediction, key), rel=1e-4)
        assert [tuple(choice.values()) for choice in line["top"]] == [
            (row["label"], float(row["probability"])),
            (row["label2"], float(row["probability2"])),
        ]
        assert line["templates"] == [
            {
                "label": row[f"template{m}_label"],
                "belief": float(row[f"template{m}_belief"]),
                "uncertainty": float(row[f"template{m}_uncertainty"]),
            }
            for m in (1, 2)
        ]
    for name, reason in (("cut.jpg", "truncated"), ("empty.png", "empty"), ("sub/text.jpg", "not an image")):
        assert any(str(pictures / name) in line and reason in line for line in told.err.splitlines())
    assert "readme.txt" in told.err
    assert "classified 5, skipped 3" in told.err


def test_numbers_are_exact_in_float32():
    value = torch.tensor(0.3).item()
    assert value != 0.3
    assert short(value) == 0.3
    assert np.float32(short(value)) == np.float32(value)


def test_columns_of_other_methods_stay_empty(run_of, pictures, capsys):
    folder = run_of("MaPLe").folder
    capsys.readouterr()  # what the training printed, if it was this test's
    assert call("--model-dir", folder, pictures / "b.jpg") == 0
    header, row = csv.reader(capsys.readouterr().out.splitlines())
    assert header == ["path", "label", "probability", "uncertainty", "conflict"]
    assert row[3:] == ["", ""]


@pytest.mark.skipif(os.name == "nt", reason="file names are bytes")
def test_file_names_of_all_kinds(run_of, pictures, tmp_path):
    names = ["a,b.jpg", 'quote".jpg', "line\nbreak.jpg", os.fsdecode(b"caf\xe9.jpg"), "größe.jpg"]
    paths = [shutil.copy(pictures / "b.jpg", tmp_path / name) for name in names]
    run = ("--model-dir", run_of("CoOp").folder, "--output")
    for raw, written in ((("--raw",), paths), ((), [str(path).replace("\n", "\\n") for path in paths])):
        assert call(*run, tmp_path / "rows.csv", *raw, *paths) == 0
        with open(tmp_path / "rows.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            assert [row["path"] for row in csv.DictReader(file)] == [str(path) for path in written]
    assert call(*run, tmp_path / "rows.jsonl", "--format", "jsonl", *paths) == 0
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["path"] for line in lines] == [str(path) for path in paths]


def test_labels_are_no_formulas_and_no_commands(run_of, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(pictures / "b.jpg", "=1.jpg")
    Path("-\x1b[2J.jpg").touch()
    Path("names.txt").write_text("=HYPERLINK(1)\n+\x1b[31mx\n")
    given = ("--model-dir", run_of("CoOp").folder, "--classnames", "names.txt", "--top-k", 2, "--output")
    assert call(*given, "rows.csv", "=1.jpg", "./-\x1b[2J.jpg") == 1
    told = capsys.readouterr()
    assert "\x1b" not in told.err + told.out
    assert r"skipped ./-\x1b[2J.jpg: the file is empty" in told.err
    row = next(csv.DictReader(Path("rows.csv").read_text().splitlines()))
    assert row["path"] == "'=1.jpg"
    assert {row["label"], row["label2"]} == {"'=HYPERLINK(1)", r"'+\x1b[31mx"}
    assert float(row["probability"]) > 0
    assert call(*given, "raw.csv", "--raw", "=1.jpg") == 0
    row = next(csv.DictReader(Path("raw.csv").read_text().splitlines()))
    assert (row["path"], {row["label"], row["label2"]}) == ("=1.jpg", {"=HYPERLINK(1)", "+\x1b[31mx"})


def test_exit_status(run_of, pictures, tmp_path, capsys):
    run = ("--model-dir", run_of("CoOp").folder)
    assert call(*run, pictures / "b.jpg") == 0
    assert call(*run, pictures / "b.jpg", pictures / "gone.jpg") == 1
    assert call(*run, pictures / "b.jpg", _empty(pictures)) == 1
    assert call(*run, pictures / "cut.jpg") == 2
    assert call(*run, pictures / "nothing") == 2
    assert call(*run, "--top-k", 3, pictures / "b.jpg") == 2
    assert call(*run, "--classnames", "red", pictures / "b.jpg") == 2
    assert call(*run, "--output", tmp_path / "no" / "rows.csv", pictures / "b.jpg") == 2
    (tmp_path / "rows.csv").write_text("mine")
    assert call(*run, "--output", tmp_path / "rows.csv", "--top-k", 3, pictures / "b.jpg") == 2
    assert (tmp_path / "rows.csv").read_text() == "mine"
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_rows_reach_the_file_one_by_one(run_of, pictures, tmp_path, monkeypatch, device):
    """What a killed run has written ends with a whole line."""
    output, seen = tmp_path / "rows.csv", []
    classify = Predictor._classify

    def look(self, batch, top_k):
        seen.append(output.read_bytes())
        return classify(self, batch, top_k)

    monkeypatch.setattr(Predictor, "_classify", look)
    run = ("--model-dir", run_of("CoOp").folder, "--output", output, "--batch-size", 1, "--device", device)
    assert call(*run, *(pictures / name for name in READABLE)) == 0
    assert [part.count(b"\n") for part in seen] == [0, 2, 3, 4, 5]
    assert all(part.endswith(b"\n") for part in seen[1:])


def test_reader_that_has_enough_ends_it_without_a_traceback(run_of, pictures):
    command = [sys.executable, "-m", "tools.predict", "--model-dir", str(run_of("CoOp").folder), "--batch-size", "1"]
    many = [str(pictures / "b.jpg")] * 50
    with subprocess.Popen([*command, *many], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"path,")
        process.stdout.close()
        told = process.stderr.read().decode()
        process.wait()
    assert "Traceback" not in told
    assert "BrokenPipe" not in told
    assert process.returncode == 1


# ----------------------------------------------------------------------------------------------------------- wrong runs


def test_run_that_is_none(run_of, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"results\.json is missing"):
        Predictor(tmp_path / "nothing")
    path = tmp_path / "results.json"
    for text, message in (("{", "not a whole"), ("[]", "lacks config, class_names, epoch"), ("3", "not a whole")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Predictor(tmp_path)
    results = results_of(run_of("CoOp").folder)
    path.write_text(json.dumps(results))
    with pytest.raises(FileNotFoundError, match="no folder prompt_learner"):
        Predictor(tmp_path)
    for change, message in (
        ({"TRAINER": {"NAME": "Nobody"}}, "one of CDC.*got 'Nobody'"),
        ({"OPTIM": {"LR": "fast"}}, "config in results.json.*fast"),
        ({"COLOUR": 1}, "config in results.json.*COLOUR"),
    ):
        path.write_text(json.dumps({**results, "config": {**results["config"], **change}}))
        with pytest.raises(ValueError, match=message):
            Predictor(tmp_path)
    path.write_text(json.dumps({**results, "config": [1]}))
    with pytest.raises(ValueError, match=r"config in results\.json"):
        Predictor(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"epoch": "2"}, {"epoch": -1}, {"epoch": True}, {"class_names": []}, {"class_names": [1]}, {"class_names": "ab"},
     {"config": []}, {"config": None}],
)  # fmt: skip
def test_results_of_wrong_types_are_told(run_of, tmp_path, change):
    (tmp_path / "results.json").write_text(json.dumps({**results_of(run_of("CoOp").folder), **change}))
    with pytest.raises(ValueError, match=rf"(results\.json: its|the) {next(iter(change))} (in .* )?must be"):
        Predictor(tmp_path)
    (tmp_path / "results.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"is not a whole results\.json"):
        Predictor(tmp_path)


def test_epochs(run_of, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_of("CoOp").folder, folder)
    checkpoints = folder / "prompt_learner"
    first, last = Predictor(folder, epoch=1).trainer, Predictor(folder).trainer
    assert (first.tested_epoch, last.tested_epoch) == (1, 2)
    assert not torch.equal(first.model.prompt_learner.ctx, last.model.prompt_learner.ctx)
    with pytest.raises(FileNotFoundError, match=r"model\.pth\.tar-7"):
        Predictor(folder, epoch=7)
    # The best epoch may be kept under that name alone.
    (checkpoints / "model.pth.tar-2").rename(checkpoints / "model-best.pth.tar")
    best = Predictor(folder).trainer
    assert torch.equal(best.model.prompt_learner.ctx, last.model.prompt_learner.ctx)
    (checkpoints / "model.pth.tar-1").rename(checkpoints / "model-best.pth.tar")
    with pytest.raises(ValueError, match="epoch 2, the checkpoint of epoch 1"):
        Predictor(folder)


def test_diverged_training_is_no_prediction(run_of, pictures, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run_of("CoOp").folder, folder)
    path = folder / "prompt_learner/model.pth.tar-2"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["ctx"].fill_(float("nan"))
    torch.save(checkpoint, path)
    assert call("--model-dir", folder, pictures / "b.jpg") == 2
    assert re.search(r"model\.pth\.tar-2 .* has ctx with infinite values .* diverged", capsys.readouterr().err)


def test_scores_that_are_not_numbers_are_no_prediction(run_of, pictures, monkeypatch):
    predictor = Predictor(run_of("CoOp").folder)
    monkeypatch.setattr(predictor.trainer, "model_inference", lambda images: torch.full((len(images), 2), float("nan")))
    with pytest.raises(ValueError, match="scores are infinite or not a number"):
        predictor(pictures / "b.jpg")


def test_device_precision_and_backbone(run_of, clip_files, monkeypatch):
    run = run_of("CoOp").folder
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        Predictor(run, device="tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no GPU"):
        Predictor(run, device="cuda")
    with pytest.raises(ValueError, match="fp64"):
        Predictor(run, precision="fp64")
    assert Predictor(run, precision="bf16").trainer.model.text_encoder.dtype == torch.bfloat16
    with pytest.raises(FileNotFoundError, match="ViT-B/61"):
        Predictor(run, backbone="ViT-B/61")
    other = str(clip_files["gzip"])
    assert other == Predictor(run, backbone=other).trainer.cfg.MODEL.BACKBONE.NAME


def test_results_of_older_versions_are_read(run_of):
    """Their config has the keys' names of then."""
    results = trained.read_run(run_of("CDC invariant").folder)
    options = results["config"]["TRAINER"]["CDC"]
    expected = options.pop("INVARIANT_MAP")
    options.update({{"ENABLED": "INVARIANT"}.get(name, name): value for name, value in expected.items()})
    assert options["INVARIANT"] is True
    assert expected == trained.restore_cfg(results).TRAINER.CDC.INVARIANT_MAP


def test_clip_in_the_checkout_is_found_from_any_folder(run_of, tmp_path, monkeypatch):
    """As a config file names it, and so do the results of runs in the checkout; not as an option names it."""
    results = trained.read_run(run_of("CoOp").folder)
    results["config"]["MODEL"]["BACKBONE"]["NAME"] = "weights/tiny_clip.pt.gz"
    monkeypatch.chdir(tmp_path)
    cfg = trained.restore_cfg(results)
    trained.fit_to_machine(cfg)
    assert Path(cfg.MODEL.BACKBONE.NAME) == ROOT / "weights/tiny_clip.pt.gz"
    trained.fit_to_machine(cfg, backbone="weights/tiny_clip.pt.gz")
    assert cfg.MODEL.BACKBONE.NAME == "weights/tiny_clip.pt.gz"


@pytest.mark.parametrize("name", ["CoOp", "ZeroshotCLIP"])
def test_other_weights_of_clip_are_refused(run_of, pictures, other_clip, tmp_path, capsys, name):
    """By the checkpoint or, where there is none or it does not tell, by results.json."""
    run = run_of(name).folder
    capsys.readouterr()
    assert call("--model-dir", run, "--backbone", other_clip, pictures / "b.jpg") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{run} was made with other weights of CLIP (SHA-256 " in told
    older = tmp_path / "older"
    shutil.copytree(run, older)
    results = results_of(older)
    del results["backbone_sha256"]
    (older / "results.json").write_text(json.dumps(results))
    if name == "CoOp":
        with pytest.raises(ValueError, match=r"model\.pth\.tar-2 was made with other weights of CLIP"):
            Predictor(older, backbone=str(other_clip))
    else:
        Predictor(older, backbone=str(other_clip))
    note = f"Note: {older / 'results.json'} does not say which weights of CLIP the run was made with; those of "
    assert capsys.readouterr().err == f"{note}{other_clip} are taken\n"


@pytest.mark.parametrize("name", ["CoOp", "ZeroshotCLIP"])
@pytest.mark.parametrize("sha256", ["0" * 64, "", 7, ["\x1b[31m"]])
def test_nothing_is_computed_with_other_weights(run_of, tmp_path, monkeypatch, name, sha256):
    run = tmp_path / "run"
    shutil.copytree(run_of(name).folder, run)
    (run / "results.json").write_text(json.dumps({**results_of(run), "backbone_sha256": sha256}))
    monkeypatch.setattr(loading, "build_model", None)
    with pytest.raises(ValueError, match="run was made with other weights of CLIP") as told:
        Predictor(run)
    assert str(told.value).isprintable()


def test_code_in_the_folder_of_a_run_does_not_run(run_of, tmp_path, capsys, pictures):
    """The weights that a foreign run names may be an archive with code, which PyTorch runs when it loads it."""
    run, trap = tmp_path / "run", tmp_path / "trap"
    shutil.copytree(run_of("ZeroshotCLIP").folder, run)
    save_harmful_archive(run / "clip.pt", trap, loops=True)
    results = results_of(run)
    results["config"]["MODEL"]["BACKBONE"]["NAME"] = str(run / "clip.pt")
    (run / "results.json").write_text(json.dumps(results))
    capsys.readouterr()
    assert call("--model-dir", run, pictures / "b.jpg") == 2
    assert capsys.readouterr().err.startswith(f"tools.predict: {run / 'clip.pt'} is not a CLIP file: it has no ")
    assert not trap.exists()


def test_building_says_nothing_on_stdout(run_of, pictures, capsys):
    Predictor(run_of("CDC").folder)([pictures / "b.jpg"])
    assert capsys.readouterr().out == ""
