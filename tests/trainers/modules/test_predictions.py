"""What a test says of each image: by hand, at the limits of precision, in the file, and by every trainer."""

from __future__ import annotations

import math
import zipfile

import numpy as np
import pytest
import torch

from helpers import ROOT, results_of
from trainers.modules.predictions import (
    NO_CLASS,
    Predictions,
    describe,
    read_predictions,
    split_open_set,
    write_predictions,
)
from trainers.modules.uncertainty import calibration_metrics

EVERY_TEST = {"path", "label", "prediction", "confidence", "label_log_prob", "entropy", "sum_of_squares"}
METHODS = sorted(path.parent.name for path in (ROOT / "configs/trainers").glob("*/tiny.yaml"))
FITTING = {  # a CLIP of two image and three text layers
    "MMRL": ["TRAINER.MMRL.REP_LAYERS", [1, 2]],
    "MaPLe": ["TRAINER.MAPLE.PROMPT_DEPTH", 2],
    "PromptSRC": ["TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2],
    "TCP": ["TRAINER.TCP.LAYER", 1],
}
TEMPLATES = {"template_prediction", "template_confidence", "template_uncertainty"}


def test_by_hand():
    probability = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    found = describe(probability.log() + 3, torch.tensor([1, 2]))
    assert found["prediction"].tolist() == [0, 2]
    assert found["confidence"].tolist() == pytest.approx([0.5, 0.8])
    assert found["label_log_prob"].tolist() == pytest.approx([math.log(0.25), math.log(0.8)])
    assert found["entropy"].tolist() == pytest.approx([1.5 * math.log(2), -0.8 * math.log(0.8) - 0.2 * math.log(0.1)])
    assert found["sum_of_squares"].tolist() == pytest.approx([0.375, 0.66])


def test_logits_and_their_log_probabilities_say_the_same():
    logits, label = 10 * torch.randn(20, 7), torch.arange(20) % 7
    for name, values in describe(logits.double(), label).items():
        torch.testing.assert_close(describe(logits.double().log_softmax(dim=1), label)[name], values)


def test_confident_images_stay_apart():
    found = describe(torch.tensor([[30.0, 0.0], [25.0, 0.0]]), torch.tensor([0, 1]))
    assert (1 - found["confidence"]).tolist() == pytest.approx([math.exp(-30), math.exp(-25)], rel=1e-4)
    assert found["label_log_prob"].tolist() == pytest.approx([-math.exp(-30), -25], rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_first(dtype):
    logits, label = torch.tensor([[3.5, 3.25, -2.0]]), torch.tensor([1])
    for name, values in describe(logits, label).items():
        assert torch.equal(describe(logits.to(dtype), label)[name], values)


def test_classes_without_evidence():
    found = describe(torch.tensor([[0.0, -1e30], [-math.inf, 0.0]]), torch.tensor([0, 1]))
    assert found["confidence"].tolist() == [1, 1]
    assert found["entropy"].tolist() == [0, 0]
    assert found["label_log_prob"].tolist() == [0, 0]
    assert found["sum_of_squares"].tolist() == [1, 1]


@pytest.mark.parametrize("none", [-1e30, -math.inf])
def test_label_without_evidence_has_no_likelihood(none):
    predictions = Predictions()
    predictions.add(torch.tensor([[0.0, none], [1.0, 0.0]]), torch.tensor([1, 0]), ["a", "b"])
    records = predictions.arrays()
    assert records["label_log_prob"][0] == -math.inf
    metrics = calibration_metrics(records)
    assert "nll" not in metrics
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["brier"] == pytest.approx(50 * (2 + 2 * (1 / (1 + math.e)) ** 2))


def test_image_of_no_class():
    scores = torch.randn(3, 4)
    found = describe(scores, torch.tensor([2, NO_CLASS, 0]))
    known = describe(scores, torch.tensor([2, 1, 0]))
    assert found.pop("label").tolist() == [2, -1, 0]
    likelihood = known.pop("label_log_prob")
    likelihood[1] = -math.inf
    assert torch.equal(found.pop("label_log_prob"), likelihood)
    assert all(torch.equal(values, known[name]) for name, values in found.items())
    with pytest.raises(RuntimeError):
        describe(scores, torch.tensor([2, NO_CLASS - 1, 0]))


def test_batches_and_file(tmp_path):
    scores, label = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    templates = torch.randint(3, (5, 2))
    names = ["data/a b/ä.jpg", "data/x.png", "database/z", "data/\udcff"]  # the last one is no UTF-8
    paths = ["/other/y.png", *(str(tmp_path / name) for name in names)]
    whole, parts = Predictions(), Predictions()
    whole.add(scores, label, paths, {"template_prediction": templates, "uncertainty": scores[:, 0]})
    for part in (slice(0, 3), slice(3, 5)):
        parts.add(scores[part], label[part], paths[part], {"template_prediction": templates[part],
                  "uncertainty": scores[part, 0]})  # fmt: skip
    arrays = parts.arrays(tmp_path / "data")
    assert arrays["path"].tolist() == ["/other/y.png", "a b/ä.jpg", "x.png", str(tmp_path / "database/z"), "\udcff"]
    assert arrays.keys() == EVERY_TEST | {"template_prediction", "uncertainty"}
    assert arrays["template_prediction"].tolist() == templates.tolist()
    assert {name: str(values.dtype) for name, values in arrays.items() if name != "path"} == {
        "label": "int32", "prediction": "int32", "confidence": "float64", "label_log_prob": "float32",
        "entropy": "float32", "sum_of_squares": "float32", "template_prediction": "int32", "uncertainty": "float32",
    }  # fmt: skip
    for name, values in whole.arrays(tmp_path / "data").items():
        np.testing.assert_allclose(arrays[name], values, rtol=1e-6) if name != "path" else None

    write_predictions(tmp_path / "predictions.npz", arrays)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        assert set(file.files) == set(arrays)
    found = read_predictions(tmp_path)
    assert all(np.array_equal(found[name], values) for name, values in arrays.items())


def test_many_images_are_kept_whatever_the_batch():
    n = 5000
    scores, label, more = torch.randn(n, 3), torch.arange(n) % 3, torch.rand(n, 2)
    paths, found = [str(i) for i in range(n)], []
    for size in (n, 700):
        predictions = Predictions()
        for first in range(0, n, size):
            part = slice(first, first + size)
            predictions.add(scores[part], label[part], paths[part], {"template_confidence": more[part]})
        found.append(predictions.arrays())
    assert found[0]["path"].tolist() == paths
    np.testing.assert_array_equal(found[0]["template_confidence"], more.numpy())
    for name, values in found[0].items():
        np.testing.assert_array_equal(found[1][name], values)


def test_paths_stay_as_they_are_without_a_folder(monkeypatch, tmp_path):
    predictions = Predictions()
    predictions.add(torch.zeros(1, 2), torch.tensor([0]), ["data/x.png"])
    assert predictions.arrays()["path"].tolist() == ["data/x.png"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert predictions.arrays("data")["path"].tolist() == predictions.arrays("~/data")["path"].tolist() == ["x.png"]


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda p: p.add(torch.zeros(2, 3, 4), torch.zeros(2), ["a", "b"]), r"got \(2, 3, 4\) and \(2,\)"),
        (lambda p: p.add(torch.zeros(2, 3), torch.zeros(3), ["a", "b"]), r"got \(2, 3\) and \(3,\)"),
        (lambda p: p.add(torch.zeros(1, 3), torch.tensor([0]), ["a", "b"]), "got 2"),
        (lambda p: p.add(torch.zeros(1, 3), torch.tensor([0]), ["a"], {"u": torch.zeros(2)}), r"{'u': \(2,\)}"),
        (lambda p: p.add(torch.zeros(1, 3), torch.tensor([0]), ["a"], {"label": torch.zeros(1)}), "got label"),
        (lambda p: p.add(torch.zeros(1, 3), torch.tensor([0]), ["a"], {"path": torch.zeros(1)}), "got path"),
        (lambda p: p.add(torch.zeros(1, 3), torch.tensor([0]), ["a"], {"u": torch.zeros(1)}), r"got \['u'\]"),
    ],
)
def test_wrong_batch_is_told(add, message):
    predictions = Predictions()
    predictions.add(torch.zeros(1, 3), torch.tensor([0]), ["first"])
    with pytest.raises(ValueError, match=message):
        add(predictions)


def test_no_pickles(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        write_predictions(tmp_path / "predictions.npz", {"bad": np.array([None])})
    assert list(tmp_path.iterdir()) == []


def test_open_set_is_split_by_the_origin_of_its_images():
    arrays = {"label": np.array([0, -1, 1, -1]), "template_prediction": np.arange(8).reshape(4, 2)}
    known, others = split_open_set(arrays)
    assert known.keys() == arrays.keys()
    assert others == {}
    arrays.update(out=np.array([False, True, False, True]), origin=np.array(["base", "near", "base", "digits"]))
    known, others = split_open_set(arrays)
    assert known["label"].tolist() == [0, 1]
    assert known.keys() == {"label", "template_prediction"}
    assert list(others) == ["near", "digits"]
    assert others["digits"]["template_prediction"].tolist() == [[6, 7]]


def test_broken_or_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*predictions\.npz: the run is not finished, or is from before"):
        read_predictions(tmp_path)
    path = tmp_path / "predictions.npz"
    write_predictions(path, {"label": np.arange(1000)})
    whole = path.read_bytes()
    with zipfile.ZipFile(tmp_path / "objects.npz", "w") as file, file.open("a.npy", "w") as member:
        np.lib.format.write_array(member, np.array([None]), allow_pickle=True)
    changed = [whole[:at] + bytes([whole[at] ^ 255] * 40) + whole[at + 40 :] for at in range(60, len(whole) - 100, 150)]
    assert len(changed) > 5
    for content in (b"", b"no archive", whole[:100], whole[:-30], *changed, (tmp_path / "objects.npz").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a whole file of predictions"):
            read_predictions(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_every_trainer_leaves_them(build_run, data, tmp_path, method):
    trainer = build_run(method, tmp_path, *FITTING.get(method, []))
    trainer.test()
    found, figures = read_predictions(tmp_path), results_of(tmp_path)["figures"]
    own = {"uncertainty", "conflict", "doubt", *TEMPLATES} if method == "CDC" else set()
    assert found.keys() == EVERY_TEST | own

    assert [str(data / path) for path in found["path"]] == [item.impath for item in trainer.dm.dataset.test]
    assert found["label"].tolist() == [item.label for item in trainer.dm.dataset.test]
    with torch.no_grad():
        scores = torch.cat([trainer.model_inference(batch["img"]) for batch in trainer.test_loader])
    probability = scores.double().softmax(dim=1)
    np.testing.assert_allclose(found["confidence"], probability.amax(dim=1), rtol=1e-5)
    assert found["prediction"].tolist() == scores.argmax(dim=1).tolist()
    right = found["prediction"] == found["label"]
    assert figures["accuracy"] == pytest.approx(100 * right.mean())
    assert figures["mean_confidence"] == pytest.approx(100 * found["confidence"].mean())
    assert figures["nll"] == pytest.approx(-found["label_log_prob"].mean())
    for name in own - TEMPLATES:
        assert figures[name] == pytest.approx(found[name].mean(), rel=1e-5)
    wanted = {"ece", "ece10", "brier", "aurc_confidence", "eaurc_entropy", "acc80_confidence"}
    wanted |= {f"aurc_{name}" for name in own - TEMPLATES}
    assert wanted <= figures.keys()


def test_template_records_are_of_each_template(build_run, tmp_path):
    trainer = build_run("CDC", tmp_path, "TRAINER.CDC.EVIDENCE_SCALE", 10.0)
    trainer.test()
    found, figures = read_predictions(tmp_path), results_of(tmp_path)["figures"]
    with torch.no_grad():
        own = [trainer.opinions(trainer.outputs(batch["img"]))[1] for batch in trainer.test_loader]
    for m in range(trainer.options.N_TEMPLATES):
        opinions = [batch[m] for batch in own]
        confidence = torch.cat([opinion.log_prob.exp().amax(dim=1) for opinion in opinions])
        uncertainty = torch.cat([opinion.uncertainty for opinion in opinions])
        np.testing.assert_allclose(found["template_confidence"][:, m], confidence, rtol=1e-5)
        np.testing.assert_allclose(found["template_uncertainty"][:, m], uncertainty, rtol=1e-5)
        right = found["template_prediction"][:, m] == found["label"]
        assert figures[f"template{m + 1}_accuracy"] == pytest.approx(100 * right.mean())


def test_file_is_there_before_the_run_counts_as_finished(build_run, tmp_path, monkeypatch):
    trainer = build_run("ZeroshotCLIP", tmp_path)

    def fail(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("trainers.base.write_predictions", fail)
        with pytest.raises(OSError, match="no space"):
            trainer.test()
    assert not (tmp_path / "results.json").exists()
    assert not (tmp_path / "predictions.npz").exists()
    trainer.test()
    assert (tmp_path / "predictions.npz").stat().st_mtime_ns <= (tmp_path / "results.json").stat().st_mtime_ns


def test_choosing_a_model_leaves_none(build_run, tmp_path, capsys):
    trainer = build_run("ZeroshotCLIP", tmp_path)
    trainer.test(split="val")
    assert not (tmp_path / "predictions.npz").exists()
    assert "=> uncertainty" not in capsys.readouterr().out


def test_log_has_the_metrics_after_the_lines_that_scripts_read(build_run, tmp_path, capsys):
    build_run("ZeroshotCLIP", tmp_path).test()
    printed, figures = capsys.readouterr().out, results_of(tmp_path)["figures"]
    before, after = printed.split("=> uncertainty\n")
    assert before.count("* accuracy: ") == 1
    assert "accuracy" not in after
    assert f"* ece: {figures['ece']:.1f}%\n" in after
    assert f"* nll: {figures['nll']:.4f}\n" in after
    assert f"* aurc_confidence: {figures['aurc_confidence']:.1f}%\n" in after


def test_size_of_a_file(tmp_path):
    """Bytes per image, of random numbers, which do not compress, and paths like those of ImageNet."""
    n = 5000
    predictions = Predictions()
    more = {
        **{name: torch.rand(n) for name in ("uncertainty", "conflict", "doubt")},
        "template_prediction": torch.randint(1000, (n, 4)),
        **{name: torch.rand(n, 4) for name in ("template_confidence", "template_uncertainty")},
    }
    paths = [f"/data/imagenet/images/val/n{i % 1000:08d}/ILSVRC2012_val_{i:08d}.JPEG" for i in range(n)]
    predictions.add(torch.randn(n, 10), torch.randint(10, (n,)), paths, more)
    write_predictions(tmp_path / "predictions.npz", predictions.arrays("/data"))
    assert (tmp_path / "predictions.npz").stat().st_size < 150 * n
