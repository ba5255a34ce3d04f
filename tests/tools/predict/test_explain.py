"""The page on one image: its numbers are the predictor's, its views those of training, its names text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from dassl.utils import read_image
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

pytest.importorskip("jinja2", reason="the page needs jinja2: pip install -e '.[report]'")

from tools.predict import Predictor
from tools.predict.__main__ import main
from tools.predict.explain import _picture, explain, write_page

COUPLED = ("TRAINER.CDC.N_TEMPLATES", 2, "TRAINER.CDC.EVIDENCE_SCALE", 10.0, "TRAINER.CDC.PROMPT_DEPTH", 2)
VIEWS = ("TRAINER.CDC.AUGMENTATIONS", [["normalize"], ["random_resized_crop", "normalize"]])


@pytest.fixture(scope="module")
def runs():
    return {}


@pytest.fixture
def run_of(runs, tmp_path_factory, build_run):
    def make(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp(name)
            options = (*COUPLED, *VIEWS) if name == "CDC" else ()
            trainer = build_run(name, folder, "OPTIM.MAX_EPOCH", 1, *options, config="tiny")
            trainer.train()
            runs[name] = folder, trainer.dm.dataset.test[0].impath
        return runs[name]

    return make


def test_numbers_are_the_predictors(run_of):
    folder, image = run_of("CDC")
    predictor = Predictor(folder, device="cpu")
    (prediction,) = predictor([image])
    found = explain(predictor, image)
    assert (found.label, found.probability) == pytest.approx((prediction.label, prediction.probability))
    assert (found.fused.uncertainty, found.conflict) == pytest.approx((prediction.uncertainty, prediction.conflict))
    for own, expected in zip(found.templates, prediction.templates):
        assert dict(own.shares)[expected.label] == pytest.approx(expected.belief)
        assert own.uncertainty == pytest.approx(expected.uncertainty)
    # both classes are shown, so belief and uncertainty are whole
    for own in (found.fused, *found.templates):
        assert sum(share for _, share in own.shares) + own.uncertainty == pytest.approx(1)


def test_views_are_those_of_training_and_the_same_every_time(run_of):
    folder, image = run_of("CDC")
    predictor = Predictor(folder, device="cpu")
    state = torch.get_rng_state()
    first, second = explain(predictor, image), explain(predictor, image)
    assert torch.equal(state, torch.get_rng_state())
    assert [view.tobytes() for view in first.views] == [view.tobytes() for view in second.views]
    plain, cropped = first.views
    assert plain.size == cropped.size == first.seen[0].size
    assert plain.tobytes() != cropped.tobytes()
    # Without chance, the first view is the image itself, resized.
    near = read_image(image).resize(plain.size, Image.Resampling.BICUBIC)
    difference = torch.tensor(list(plain.tobytes())).float() - torch.tensor(list(near.tobytes())).float()
    assert difference.abs().max() <= 2


def test_each_view_is_shown_without_its_own_normalisation():
    """A template's augmentation may have one where the config's own transforms have none, and the other way round."""
    image = Image.new("RGB", (4, 4), (200, 30, 90))
    steps = [ToTensor(), Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))]
    for transform in (Compose(steps[:1]), Compose(steps)):
        assert _picture(transform(image), transform).getpixel((0, 0)) == (200, 30, 90)


def test_a_method_without_opinions_has_probabilities(run_of):
    folder, image = run_of("CoOp")
    predictor = Predictor(folder, device="cpu")
    found = explain(predictor, image)
    assert (found.conflict, found.fused.uncertainty, found.templates) == (None, None, [])
    assert sum(share for _, share in found.fused.shares) == pytest.approx(1)
    assert len(found.views) == 1


def test_the_page_shows_names_as_text_and_asks_for_nothing(run_of, tmp_path):
    folder, image = run_of("CDC")
    hostile = "</title><script>alert(1)</script>\u202e"
    predictor = Predictor(folder, [hostile, "green"], device="cpu")
    write_page(explain(predictor, image), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert len(re.findall("<h2>Template", page)) == 2


def test_the_command(run_of, tmp_path, capsys):
    folder, image = run_of("CDC")
    page = tmp_path / "page.html"
    assert main(["--model-dir", str(folder), "--explain", image, "--output", str(page), "--device", "cpu"]) == 0
    assert page.read_text(encoding="utf-8").count("<img") == 4
    written = capsys.readouterr()
    assert written.out == ""
    assert "page.html: " in written.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--explain", "{image}"], "--explain writes an HTML page: give its name with --output"),
        ([], "give images or folders, or one image with --explain"),
        (["a.png", "--explain", "{image}", "--output", "p.html"], "give images or folders, or one image"),
        (["--explain", "{image}", "--output", "p.html", "--coverage", "0.9"], "--explain rejects nothing"),
    ],
)
def test_wrong_options_are_one_clear_error(run_of, capsys, arguments, said):
    folder, image = run_of("CDC")
    with pytest.raises(SystemExit):
        main(["--model-dir", str(folder), *(text.format(image=image) for text in arguments)])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("name", "said"), [("nowhere.png", "there is no such file"), ("text.png", "not an image")])
def test_an_image_that_cannot_be_read_is_one_clear_error(run_of, tmp_path, capsys, name, said):
    folder, _ = run_of("CDC")
    Path(tmp_path, "text.png").write_text("text")
    arguments = ["--explain", str(tmp_path / name), "--output", str(tmp_path / "p.html"), "--device", "cpu"]
    assert main(["--model-dir", str(folder), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "p.html").exists()
