"""Figures and pictures of uncertainty: what is drawn is what the records say, for runs with and without an open set."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tools.uncertainty.__main__ import main, title
from tools.uncertainty.figures import text_of
from tools.uncertainty.pictures import BLUE, ORANGE, ROW, draw_reliability, draw_risk_coverage, draw_runs, draw_score
from trainers.modules.predictions import split_open_set, write_predictions
from trainers.modules.uncertainty import error_detection_metrics, open_set_metrics, selective_risk

# Two of three sure images are right, and one of two unsure ones
CONFIDENCE, RIGHT = np.array([0.95, 0.91, 0.93, 0.55, 0.52]), np.array([True, True, False, True, False])


def records_of(confidence, right, **more):
    n = len(confidence)
    return {
        "path": np.array([f"{i}.png" for i in range(n)]),
        "label": np.zeros(n, dtype=int),
        "prediction": (~right).astype(int),
        "confidence": confidence,
        "label_log_prob": np.log(np.where(right, confidence, 1 - confidence)),
        "entropy": -confidence * np.log(confidence) - (1 - confidence) * np.log(1 - confidence),
        "sum_of_squares": confidence**2 + (1 - confidence) ** 2,
        **more,
    }


def known(**more):
    return records_of(CONFIDENCE, RIGHT, **more)


def open_set():
    """Six known images, of which one is wrong, and three others; with the method's own uncertainty."""
    confidence = np.array([0.99, 0.97, 0.95, 0.9, 0.8, 0.6, 0.7, 0.65, 0.98])
    origin = np.array(["base"] * 6 + ["near", "digits", "digits"])
    right = np.array([True] * 5 + [False] * 4)
    uncertainty = np.array([0.0, 0.01, 0.02, 0.1, 0.2, 0.5, 0.9, 0.8, 0.3])
    records = records_of(confidence, right, uncertainty=uncertainty, origin=origin, out=origin != "base")
    records["label"][6:], records["label_log_prob"][6:] = -1, -np.inf
    return records


@pytest.fixture
def axis():
    return Figure().subplots()


def heights(stairs):
    values, _, _ = stairs.get_data()
    return values


def test_reliability_diagram_shows_accuracy_and_confidence_of_each_bin(axis):
    below = Figure().subplots()
    draw_reliability(axis, below, known(), bins=10)
    accuracy, gap = (container.patches for container in axis.containers)
    assert [bar.get_height() for bar in accuracy] == pytest.approx([1 / 2, 2 / 3])
    assert [bar.get_x() for bar in accuracy] == pytest.approx([0.5, 0.9])
    assert [bar.get_y() + bar.get_height() for bar in gap] == pytest.approx(
        [(0.55 + 0.52) / 2, (0.95 + 0.91 + 0.93) / 3]
    )
    assert [bar.get_height() for bar in below.containers[0]] == pytest.approx([0, 0, 0, 0, 0, 40, 0, 0, 0, 60])
    assert [line.get_xdata()[0] for line in below.get_lines()] == pytest.approx([0.6, CONFIDENCE.mean()])
    ece = (2 * abs(1 / 2 - 0.535) + 3 * abs(2 / 3 - 0.93)) / 5
    assert axis.get_title() == f"Reliability: ECE {100 * ece:.1f}%"


def test_risk_is_that_of_each_score_and_of_the_best(axis):
    records = known(uncertainty=np.array([0.5, 0.4, 0.1, 0.2, 0.3]))
    draw_risk_coverage(axis, records)
    confidence, _, uncertainty, best = axis.get_lines()
    assert confidence.get_ydata() == pytest.approx(100 * selective_risk(1 - CONFIDENCE, ~RIGHT))
    assert uncertainty.get_ydata() == pytest.approx([100, 50, 200 / 3, 50, 40])
    assert uncertainty.get_label() == f"uncertainty U: AURC {np.mean([100, 50, 200 / 3, 50, 40]):.1f}%"
    assert best.get_ydata() == pytest.approx([0, 0, 0, 25, 40])
    assert confidence.get_xdata() == pytest.approx([20, 40, 60, 80, 100])
    assert len({line.get_linestyle() + line.get_color() for line in axis.get_lines()}) == 4


def test_histogram_has_every_image_once_in_its_kind(axis):
    records, others = split_open_set(open_set())
    draw_score(axis, records, others, "uncertainty")
    drawn = {patch.get_label(): patch for patch in axis.patches if patch.get_label()}
    assert list(drawn) == [
        "right, 5",
        "wrong, 1: AUROC 100.0%",
        "new classes, 1: AUROC 100.0%",
        f"other data sets, 2: AUROC {100 * (6 + 5) / 12:.1f}%",
    ]
    for stairs in drawn.values():
        assert heights(stairs).sum() == pytest.approx(100)  # also of the uncertainty 0, on a logarithmic axis
    assert axis.get_xscale() == "log"
    assert heights(drawn["right, 5"])[0] == pytest.approx(20)


def test_histogram_without_an_open_set_or_mistakes(axis):
    records = records_of(CONFIDENCE, np.ones(5, dtype=bool))
    draw_score(axis, records, {}, "confidence")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["right, 5"]
    with pytest.raises(ValueError, match="score must be one of confidence, entropy, got 'conflict'"):
        draw_score(axis, records, {}, "conflict")


def test_disagreement_is_drawn_from_nothing_to_all(axis):
    templates = np.array([[0, 0], [0, 1], [1, 0], [0, 0], [1, 1]])
    draw_score(axis, known(template_prediction=templates), {}, "disagreement")
    assert axis.get_xscale() == "linear"
    assert axis.get_xlim() == (0, 1)


def test_picture_that_cannot_be_drawn_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"must end in one of .*\.png.*, got .*a\.doc"):
        draw_runs({"one": known()}, tmp_path / "a.doc")
    with pytest.raises(ValueError, match="at least one run"):
        draw_runs({}, tmp_path / "none.png")


def test_text_has_the_figures_of_each_score():
    lines = text_of(open_set()).splitlines()
    assert lines[0].startswith("6 images of known classes: accuracy 83.3%, mean confidence 86.8%, ECE ")
    assert lines[2].split() == ["score", "errors", "accuracy", "near", "(1)", "digits", "(2)"]
    records, others = split_open_set(open_set())
    errors, digits = error_detection_metrics(records), open_set_metrics(records, others["digits"])
    cells = {line.split()[0]: line.split()[1:] for line in lines[5:]}
    assert list(cells) == ["confidence", "entropy", "uncertainty"]
    wanted = [errors["auroc_error_confidence"], errors["aurc_confidence"], errors["eaurc_confidence"]]
    wanted += [errors["acc80_confidence"]]
    wanted += [83.3333333, 100.0, digits["auroc_open_confidence"], digits["fpr95_open_confidence"]]
    assert cells["confidence"] == [f"{number:.1f}" for number in wanted]


def test_text_of_a_run_without_mistakes():
    lines = text_of(records_of(CONFIDENCE, np.ones(5, dtype=bool)), bins=3).splitlines()
    assert "(3 bins)" in lines[0]
    assert lines[-1].split() == ["entropy", "–", "0.0", "0.0", "100.0"]


def run_in(folder, records, **content):
    folder.mkdir(parents=True)
    write_predictions(folder / "predictions.npz", records)
    (folder / "results.json").write_text(json.dumps(content))
    return str(folder)


def test_command_prints_figures_and_draws_a_row_for_each_run(tmp_path, capsys):
    told = {"trainer": "CDC", "dataset": "Shapes", "classes": "base"}
    one, two = (run_in(tmp_path / f"seed{seed}", open_set(), **told, seed=seed) for seed in (1, 2))
    main([one, two, "--picture", str(tmp_path / "a.png"), "--bins", "10"])
    printed = capsys.readouterr().out
    assert printed.startswith("CDC, Shapes, base classes, seed 1\n6 images of known classes")
    assert "\n\nCDC, Shapes, base classes, seed 2\n6 images" in printed
    assert "(10 bins)" in printed
    with Image.open(tmp_path / "a.png") as picture:
        rows = [picture.crop((0, top, picture.width, top + picture.height // 2)) for top in (0, picture.height // 2)]
        assert picture.size == (round(110 * ROW[0]), round(110 * 2 * ROW[1]))
    blue, orange = ((*bytes.fromhex(colour[1:]), 255) for colour in (BLUE, ORANGE))
    for row in rows:
        assert {blue, orange} <= {colour for _, colour in row.convert("RGBA").getcolors(1 << 24)}
    other = run_in(tmp_path / "other", known(), **told, seed=1)
    main([one, other])  # with one title they are told apart by their folders
    assert f"{other}\n5 images of known classes" in capsys.readouterr().out
    write_predictions(tmp_path / "other" / "predictions_calibrated.npz", open_set())
    main([other, f"{other}/predictions_calibrated.npz"])
    assert "\n\nCDC, Shapes, base classes, seed 1, predictions_calibrated\n6 images" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"trainer": "CDC"}'])
def test_run_that_does_not_say_what_it_is_has_its_folder_for_a_title(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    assert title(tmp_path) == str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nowhere"], "there is no nowhere: "),
        (["{run}", "--picture", "{run}/a.txt"], "a picture's name must end in"),
        (["{run}", "--picture", "{run}/a.png", "--score", "conflict"], "the score must be one of confidence, entropy"),
        (["{run}", "--bins", "0"], "bins must be at least 1, got 0"),
    ],
)
def test_wrong_call_is_told_in_a_line(tmp_path, capsys, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    run = run_in(tmp_path / "run", known())
    with pytest.raises(SystemExit) as ended:
        main([argument.format(run=run) for argument in arguments])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"tools.uncertainty: {error}")
    assert printed.count("\n") == 1
