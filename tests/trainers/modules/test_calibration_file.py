"""calibration.json: written whole, read again, and refused where it is broken or of another model."""

from __future__ import annotations

import json
import math
import os

import pytest

from trainers.modules.calibration_file import FILE_NAME, read_calibration, write_calibration

MODEL = {
    "trainer": "CDC",
    "epoch": 5,
    "trained_sha256": "a" * 64,
    "backbone_sha256": "b" * 64,
    "options": {"EVIDENCE": "exp", "N_TEMPLATES": 4},
}
IMAGES = {"wrong": [0, 1, 0], "scores": {"confidence": [0.1, 0.5, 0.2], "entropy": [0.3, 1, 1e-9]}}
CONTENT = {
    **MODEL,
    "values": {"scale": 30.0, "shift": 0.3},
    "at_bound": [],
    "fitted_on": {"what": "validation", "images": 3},
    "figures": {"before": {"nll": 2.0}, "after": {"nll": 1.0}},
    "best_score": {"before": "entropy", "after": "confidence"},
    "images": {"before": IMAGES, "after": IMAGES},
}


def changed(*keys, to):
    """`CONTENT` with another value at a place."""
    content = node = json.loads(json.dumps(CONTENT))
    for key in keys[:-1]:
        node = node[key]
    if to is None:
        del node[keys[-1]]
    else:
        node[keys[-1]] = to
    return content


def test_what_is_written_is_read(tmp_path):
    path = write_calibration(tmp_path, CONTENT)
    assert path == tmp_path / FILE_NAME
    assert os.listdir(tmp_path) == [FILE_NAME]
    for place in (tmp_path, path):
        assert read_calibration(place, MODEL) == {"format": 1, **CONTENT}


def test_the_same_is_not_written_again(tmp_path):
    """So that tests which used it stay finished."""
    path = write_calibration(tmp_path, CONTENT)
    os.utime(path, (1, 1))
    write_calibration(tmp_path, CONTENT)
    assert path.stat().st_mtime == 1
    write_calibration(tmp_path, changed("values", "scale", to=31.0))
    assert path.stat().st_mtime > 1


def test_none_is_told_with_what_makes_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"no calibration .*{FILE_NAME}; `python -m tools.calibrate {tmp_path}`"
    ):
        read_calibration(tmp_path, MODEL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainer": "CoOp"}, "of CDC, and this one is of CoOp"),
        ({"epoch": 10}, "epoch 5, and this is epoch 10"),
        ({"trained_sha256": "c" * 64}, "another training"),
        ({"backbone_sha256": "c" * 64}, "other weights of CLIP"),
        ({"options": {"EVIDENCE": "relu"}}, "EVIDENCE 'exp', where it is now 'relu'"),
        # Whether an option that the file is older than changes predictions cannot be told from here.
        ({"options": {**MODEL["options"], "FUSION": "averaging"}}, "no option FUSION, where it is now 'averaging'"),
    ],
)
def test_other_models_are_refused(tmp_path, change, message):
    write_calibration(tmp_path, CONTENT)
    with pytest.raises(ValueError, match=message) as caught:
        read_calibration(tmp_path, {**MODEL, **change})
    assert f"`python -m tools.calibrate {tmp_path}` makes a new one" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("values", to=None), "it lacks values"),
        (changed("epoch", to="5"), "its epoch must be a number"),
        (changed("values", to={}), "values must be finite"),
        (changed("values", to={"temperature": 0.0}), "temperature must be above 0"),
        (changed("values", to={"scale": -1.0, "shift": 0.0}), "values must be"),
        (changed("values", to={"scale": 1.0, "shift": "0"}), "values must be"),
        (changed("figures", "after", to=None), "no figures after calibration"),
        (changed("images", "before", to=[]), "no images before calibration"),
        (changed("images", "before", "wrong", to=[0, 2, 0]), "0 and 1"),
        (changed("images", "before", "wrong", to=[]), "0 and 1"),
        (changed("images", "after", "scores", "entropy", to=[1, 2]), "score entropy must be 3 finite numbers after"),
        (changed("images", "after", "scores", "entropy", to=[1, 2, "3"]), "score entropy must be 3 finite numbers"),
        (changed("best_score", "after", to="conflict"), "best score 'conflict' is none of confidence, entropy"),
        (changed("best_score", "after", to={}), "best score {} is none of confidence, entropy"),
        (changed("values", to={"temperature": 10**400}), "values must be finite"),
        (changed("images", "after", "scores", "entropy", to=[1, 2, 10**400]), "score entropy must be 3 finite numbers"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        write_calibration(tmp_path, content)
    assert os.listdir(tmp_path) == []
    (tmp_path / FILE_NAME).write_text(json.dumps({"format": 1, **content}))
    with pytest.raises(ValueError, match=message):
        read_calibration(tmp_path, MODEL)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "{}", '{"format": "1"}'])
def test_what_is_no_such_file_is_refused(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match="is not a whole calibration"):
        read_calibration(tmp_path, MODEL)


def test_newer_files_are_refused(tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps({**CONTENT, "format": 2}))
    with pytest.raises(ValueError, match="newer version"):
        read_calibration(tmp_path, MODEL)


def test_numbers_must_be_finite(tmp_path):
    with pytest.raises(ValueError, match="finite"):
        write_calibration(tmp_path, changed("values", "scale", to=math.inf))
    (tmp_path / FILE_NAME).write_text(json.dumps({"format": 1, **changed("values", "shift", to=math.nan)}))
    with pytest.raises(ValueError, match="finite"):
        read_calibration(tmp_path, MODEL)
