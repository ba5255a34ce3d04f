"""Images in memory, and the predictor in a program in any folder."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import ROOT
from tools.predict import Predictor
from tools.predict.pictures import pictures_of

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 255, (6, 8, 3), dtype=np.uint8)
GREY = RGB[..., 0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=-1)),
        (RGB, RGB),
        (GREY, np.stack([GREY] * 3, axis=-1)),
        (GREY[..., None], np.stack([GREY] * 3, axis=-1)),
        (np.dstack([RGB, GREY]), RGB),
        (RGB / 255, RGB),
        (GREY.astype(np.uint16) * 257, np.stack([GREY] * 3, axis=-1)),
        (Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, axis=-1)),
        (torch.from_numpy(RGB).movedim(-1, 0), RGB),
        (torch.from_numpy(RGB).movedim(-1, 0) / 255, RGB),
        (torch.from_numpy(GREY), np.stack([GREY] * 3, axis=-1)),
    ],
)
def test_all_kinds_are_the_same_picture(value, expected):
    (found,) = pictures_of(value)
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), expected)


def test_batches():
    for batch in (np.stack([RGB, RGB[::-1]]), torch.from_numpy(np.stack([RGB, RGB[::-1]])).movedim(-1, 1)):
        assert [np.array_equal(np.asarray(image), one) for image, one in zip(pictures_of(batch), (RGB, RGB[::-1]))] == [
            True,
            True,
        ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (RGB.astype(float), r"must lie in \[0, 1\], got "),
        (RGB / 255 - 0.5, r"must lie in \[0, 1\]"),
        (np.full((4, 4), np.nan), r"must lie in"),
        (RGB.astype(np.int64), "uint8, uint16 or real numbers"),
        (np.moveaxis(RGB, -1, 0), r"ndarray of images must be .*, got \(3, 6, 8\)"),
        (torch.from_numpy(RGB), r"Tensor of images must be .*, got \(6, 8, 3\)"),
        (RGB[:0], "must be"),
        (Image.new("F", (4, 4)), "got the mode F"),
    ],
)
def test_what_is_no_image(value, message):
    with pytest.raises(ValueError, match=message):
        list(pictures_of(value))


def test_predictions_on_files_and_on_what_they_hold_are_the_same(run_of, tmp_path):
    run = run_of("CoOp")
    predictor = Predictor(run.folder, device="cpu")
    by_path = predictor(run.images[:2])
    images = [Image.open(path) for path in run.images[:2]]
    arrays = [np.asarray(image) for image in images]
    given = [images[0], run.images[1], arrays[1], torch.from_numpy(arrays[0].copy()).movedim(-1, 0)]
    found = predictor(given)
    assert [one.path for one in found] == ["image 0", run.images[1], "image 1", "image 2"]
    expected = [by_path[n].probability for n in (0, 1, 1, 0)]
    assert [one.probability for one in found] == pytest.approx(expected, abs=1e-6)  # of batches of other sizes
    assert predictor(images[0])[0].label == by_path[0].label
    if Image.registered_extensions().get(".avif") in Image.SAVE:
        (tmp_path / "many").mkdir()
        images[0].save(tmp_path / "many/a.avif", quality=95)
        assert len(predictor(tmp_path / "many")) == 1


PROGRAM = """
import sys, datasets, tools
before = datasets, tools
from cdc import Predictor
predictor = Predictor(sys.argv[1], device="cpu")
import numpy as np
print(predictor(sys.argv[2])[0].label)
print([one.path for one in predictor.predict([sys.argv[2]])] == [sys.argv[2]])
print(len(predictor(np.zeros((2, 9, 9, 3), np.uint8))))
import datasets as again, tools.own
assert (datasets.WHOSE, again, tools) == ("another one's", *before)
assert sys.argv[3] not in sys.path
assert "trainers" not in sys.modules
"""


def test_predictor_works_in_any_folder_and_shadows_nobody(run_of, tmp_path):
    """Where others have the names of the checkout's folders; `cdc` is importable as `pip install -e .` makes it."""
    run = run_of("CoOp")
    for name, text in {"datasets": 'WHOSE = "another one\'s"\n', "tools": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    (tmp_path / "tools/own.py").touch()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/cdc").symlink_to(ROOT / "cdc")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", PROGRAM, str(run.folder), run.images[0], str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = Predictor(run.folder, device="cpu")(run.images[0])[0].label
    assert done.stdout.split() == [expected, "True", "2"]


def test_predictor_in_the_checkout_is_the_checkouts_own():
    """Nothing is imported twice there."""
    program = "from cdc import Predictor; from tools.predict import predictor as own; "
    program += "print(issubclass(Predictor, own.Predictor)); import trainers"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr
