"""Metrics of calibration, error detection and open sets: by hand, at their limits, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers import GOLDEN
from trainers.modules.uncertainty import (
    aupr,
    aurc,
    auroc,
    brier_score,
    calibration_bins,
    calibration_metrics,
    disagreement,
    error_detection_metrics,
    excess_aurc,
    expected_calibration_error,
    false_positive_rate,
    negative_log_likelihood,
    open_set_metrics,
    selective_accuracy,
    selective_risk,
    uncertainty_scores,
)


def records_of(probability, label, **more):
    """What a test keeps of these probabilities `(N, C)`."""
    probability, label = np.array(probability, dtype=float), np.array(label)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nan_to_num(probability * np.log(probability)).sum(axis=1)
    return {
        "label": label,
        "prediction": probability.argmax(axis=1),
        "confidence": probability.max(axis=1),
        "label_log_prob": np.log(probability[np.arange(len(label)), label]),
        "entropy": entropy,
        "sum_of_squares": (probability**2).sum(axis=1),
        **{name: np.array(values) for name, values in more.items()},
    }


def draw(n=400, ties=False):
    """Scores and mistakes that have to do with each other."""
    rng = np.random.default_rng(0)
    score = rng.normal(size=n)
    wrong = rng.normal(size=n) + score > 0.7
    return (score.round(1) if ties else score), wrong


# Calibration


def test_calibration_error_by_hand():
    # bins of a fifth: [0.2, 0.4) has 0.25 right and 0.35 wrong, [0.8, 1] has 0.9 right, 1 wrong
    found = expected_calibration_error([0.25, 0.35, 0.9, 1.0], [True, False, True, False], bins=5)
    assert found == pytest.approx((abs(1 - 0.6) + abs(1 - 1.9)) / 4)


def test_sums_in_bins_by_hand():
    counts, sure, right = calibration_bins([0.25, 0.35, 0.9, 1.0], [True, False, True, False], bins=5)
    assert counts.tolist() == [0, 2, 0, 0, 2]
    assert sure.tolist() == pytest.approx([0, 0.6, 0, 0, 1.9])
    assert right.tolist() == [0, 1, 0, 0, 1]


def test_confidence_on_an_edge_belongs_to_the_upper_bin():
    assert expected_calibration_error([0.5, 0.6], [True, False], bins=2) == pytest.approx(abs(1 - 1.1) / 2)
    assert expected_calibration_error([0.5, 0.4], [True, False], bins=2) == pytest.approx((0.5 + 0.4) / 2)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_what_a_loop_over_bins_gives(bins):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 1000)
    correct = rng.uniform(size=1000) < confidence**2
    expected = 0.0
    for b in range(bins):
        inside = (confidence >= b / bins) & (confidence < (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected)


def test_calibration_error_has_its_limits():
    assert expected_calibration_error(np.ones(5), np.ones(5)) == 0
    assert expected_calibration_error(np.ones(5), np.zeros(5)) == 1
    assert expected_calibration_error(np.full(4, 0.75), [1, 1, 1, 0]) == 0


def test_likelihood_and_brier_score_by_hand():
    records = records_of([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], [0, 1])
    assert negative_log_likelihood(records["label_log_prob"]) == pytest.approx(-math.log(0.7 * 0.3) / 2)
    expected = (0.3**2 + 0.2**2 + 0.1**2 + 0.3**2 + 0.7**2 + 0.4**2) / 2
    assert brier_score(records["label_log_prob"], records["sum_of_squares"]) == pytest.approx(expected)


def test_likelihood_and_brier_score_have_their_limits():
    assert brier_score([0.0], [1.0]) == 0
    assert str(negative_log_likelihood([0.0])) == "0.0"
    assert brier_score([-math.inf], [1.0]) == 2  # sure of another class
    assert negative_log_likelihood([-math.inf, 0]) == math.inf
    uniform = records_of(np.full((3, 4), 0.25), [0, 1, 2])
    assert negative_log_likelihood(uniform["label_log_prob"]) == pytest.approx(math.log(4))
    assert brier_score(uniform["label_log_prob"], uniform["sum_of_squares"]) == pytest.approx(0.75)


# Error detection

SCORE, WRONG = [0.1, 0.2, 0.3, 0.4, 0.5], [False, True, False, False, True]


def test_risk_by_hand():
    assert selective_risk(SCORE, WRONG) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4, 2 / 5])
    assert aurc(SCORE, WRONG) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    best = (1 / 4 + 2 / 5) / 5  # three right ones first
    assert excess_aurc(SCORE, WRONG) == pytest.approx(aurc(SCORE, WRONG) - best)
    assert selective_accuracy(SCORE, WRONG) == pytest.approx(3 / 4)
    assert selective_accuracy(SCORE, WRONG, coverage=1) == pytest.approx(3 / 5)
    assert selective_accuracy(SCORE, WRONG, coverage=0.7) == pytest.approx(3 / 4)  # 3.5 images are 4


def test_auroc_by_hand():
    # wrong 0.2 is above one of three right ones, wrong 0.5 above all
    assert auroc(SCORE, WRONG) == pytest.approx(4 / 6)
    assert auroc([1, 1, 2], [False, True, True]) == pytest.approx((0.5 + 1) / 2)


def test_risk_among_equal_scores_is_the_mean_over_their_orders():
    from itertools import permutations

    score, wrong = np.array([0.0, 1, 1, 1, 2, 2]), np.array([0, 1, 0, 0, 1, 0])
    risks = []
    for order in permutations(range(6)):
        if (np.diff(score[list(order)]) >= 0).all():
            risks.append(np.cumsum(wrong[list(order)]) / np.arange(1, 7))
    assert len(risks) == 12
    assert selective_risk(score, wrong) == pytest.approx(np.mean(risks, axis=0))


def test_a_score_that_says_nothing():
    _, wrong = draw()
    score = np.zeros(len(wrong))
    assert auroc(score, wrong) == 0.5
    assert selective_risk(score, wrong) == pytest.approx(wrong.mean())
    assert selective_accuracy(score, wrong) == pytest.approx(1 - wrong.mean())


def test_a_perfect_score_and_its_opposite():
    _, wrong = draw()
    assert (auroc(wrong, wrong), auroc(~wrong, wrong)) == (1, 0)
    assert excess_aurc(wrong, wrong) == 0
    r = wrong.mean()
    assert aurc(wrong, wrong) == pytest.approx(r + (1 - r) * math.log(1 - r), abs=2e-3)  # Geifman's limit
    assert aurc(~wrong, wrong) > aurc(np.zeros(len(wrong)), wrong) > aurc(wrong, wrong)


@pytest.mark.parametrize("wrong", [np.zeros(7), np.ones(7)], ids=["none", "all"])
def test_without_wrong_or_right_predictions(wrong):
    score = np.arange(7.0)
    assert aurc(score, wrong) == wrong[0]
    assert excess_aurc(score, wrong) == 0
    assert selective_accuracy(score, wrong) == 1 - wrong[0]
    with pytest.raises(ValueError, match="both kinds"):
        auroc(score, wrong)


@pytest.mark.parametrize("ties", [False, True])
def test_neither_order_nor_scale_matters(ties):
    score, wrong = draw(ties=ties)
    order = np.random.default_rng(1).permutation(len(score))
    for metric in (auroc, aupr, aurc, excess_aurc, selective_accuracy, false_positive_rate):
        found = metric(score, wrong)
        assert metric(score[order], wrong[order]) == pytest.approx(found, abs=1e-12)
        assert metric(np.exp(3 * score), wrong) == pytest.approx(found, abs=1e-12)
        assert metric(torch.from_numpy(score), torch.from_numpy(wrong)) == found


# Open sets


def test_open_set_by_hand():
    score, unknown = [1, 2, 3, 4, 2.5, 3, 9], [0, 0, 0, 0, 1, 1, 1]
    assert false_positive_rate(score, unknown, kept=0.5) == 0  # the threshold is 2
    assert false_positive_rate(score, unknown, kept=0.75) == pytest.approx(2 / 3)  # 3, and the unknown 3 passes with it
    assert false_positive_rate(score, unknown) == pytest.approx(2 / 3)  # 4
    # from above: 9 is unknown, 4 is known, 3 is one of each, 2.5 is unknown
    assert aupr(score, unknown) == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    assert auroc(score, unknown) == pytest.approx((2 + 2.5 + 4) / 12)


def test_threshold_keeps_the_share_that_it_says():
    known, unknown = np.arange(20.0), np.array([18.0, 18.5])
    score, out = np.append(known, unknown), np.arange(22) >= 20
    assert false_positive_rate(score, out, kept=0.95) == 0.5  # 19 of 20: at most 18
    assert false_positive_rate(score, out, kept=1) == 1


# By other people's code, on the same arrays


@pytest.fixture(scope="module", params=["distinct", "equal"])
def golden(request):
    """Records of known images and of others, and what each library computes of them by `<library>/<figure>`."""
    with np.load(GOLDEN / "uncertainty.npz") as file:
        content = {name.partition("/")[2]: file[name] for name in file.files if name.startswith(f"{request.param}/")}
    probability, label = content.pop("probability").astype(float), content.pop("label")
    known = label >= 0
    parts = records_of(probability[known], label[known]), records_of(probability[~known], 0 * label[~known])
    return (*parts, {name: float(value) for name, value in content.items()})


def test_calibration_is_that_of_torchmetrics_and_torch_uncertainty(golden):
    known, _, theirs = golden
    ours = calibration_metrics(known)
    assert ours["ece"] == pytest.approx(100 * theirs["torchmetrics/ece"], rel=1e-5)
    assert ours["ece10"] == pytest.approx(100 * theirs["torchmetrics/ece10"], rel=1e-5)
    assert ours["brier"] == pytest.approx(100 * theirs["torch_uncertainty/brier"], rel=1e-5)
    assert ours["nll"] == pytest.approx(theirs["torch_uncertainty/nll"], rel=1e-5)


def test_error_detection_is_that_of_torchmetrics_and_torch_uncertainty(golden):
    """torch-uncertainty takes the mean of the risk by trapezoids, so that the first and the last count half."""
    known, _, theirs = golden
    ours = error_detection_metrics(known)
    assert ours["auroc_error_confidence"] == pytest.approx(100 * theirs["torchmetrics/auroc_error"], rel=1e-5)
    wrong = known["prediction"] != known["label"]
    assert 1 - wrong.mean() == pytest.approx(theirs["openood/accuracy"])
    if "torch_uncertainty/aurc" in theirs:
        assert ours["acc80_confidence"] == pytest.approx(100 - 100 * theirs["torch_uncertainty/risk80"], rel=1e-5)
        risk = selective_risk(1 - known["confidence"], wrong)
        trapezoids = ours["aurc_confidence"] / 100 * len(risk) - (risk[0] + risk[-1]) / 2
        assert trapezoids / (len(risk) - 1) == pytest.approx(theirs["torch_uncertainty/aurc"], rel=1e-5)


def test_open_set_is_that_of_torchmetrics_and_openood(golden):
    """OpenOOD has the area under precision and recall by trapezoids, which differs from the average precision."""
    known, unknown, theirs = golden
    ours = open_set_metrics(known, unknown)
    assert ours["auroc_open_confidence"] == pytest.approx(100 * theirs["torchmetrics/auroc_open"], rel=1e-5)
    assert ours["auroc_open_confidence"] == pytest.approx(100 * theirs["openood/auroc_open"], rel=1e-9)
    assert ours["aupr_open_confidence"] == pytest.approx(100 * theirs["torchmetrics/aupr_open"], rel=1e-5)
    assert ours["aupr_open_confidence"] == pytest.approx(100 * theirs["openood/aupr_open"], abs=0.5)
    assert ours["fpr95_open_confidence"] == pytest.approx(100 * theirs["openood/fpr95_known_kept"], rel=1e-9)
    others = theirs.get("torch_uncertainty/fpr95_known_kept", theirs["openood/fpr95_known_kept"])
    assert ours["fpr95_open_confidence"] == pytest.approx(100 * others, rel=1e-5)


# Of a test's records


def test_disagreement_by_hand():
    assert disagreement([[1, 1, 2, 0], [3, 3, 3, 3]], [1, 3]).tolist() == [0.5, 0]


def test_scores_are_higher_where_less_is_certain():
    records = records_of([[0.9, 0.1], [0.6, 0.4]], [0, 0], uncertainty=[0.1, 0.2], conflict=[0.0, 0.5],
                         doubt=[0.3, 0.4], template_prediction=[[0, 0], [0, 1]])  # fmt: skip
    scores = uncertainty_scores(records)
    assert list(scores) == ["confidence", "entropy", "uncertainty", "conflict", "doubt", "disagreement"]
    assert all(sure < unsure for sure, unsure in scores.values())
    assert list(uncertainty_scores(records_of([[0.9, 0.1]], [0]))) == ["confidence", "entropy"]


def test_one_template_cannot_disagree():
    assert "disagreement" not in uncertainty_scores(records_of([[0.9, 0.1]], [0], template_prediction=[[0]]))


def test_metrics_of_a_test_in_percent():
    probability = [[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.9, 0.1]]
    records = records_of(probability, [0, 1, 1, 0], uncertainty=[0.2, 0.1, 0.3, 0.4])
    calibration, errors = calibration_metrics(records), error_detection_metrics(records)
    assert list(calibration) == ["mean_confidence", "ece", "ece10", "nll", "brier"]
    assert calibration["mean_confidence"] == pytest.approx(75)
    assert calibration["ece"] == pytest.approx(100 * (0.2 + 0.3 + 0.6 + 0.1) / 4)
    assert calibration["nll"] == pytest.approx(-math.log(0.8 * 0.7 * 0.4 * 0.9) / 4)
    assert calibration["brier"] == pytest.approx(100 * 2 * (0.2**2 + 0.3**2 + 0.6**2 + 0.1**2) / 4)
    assert len(errors) == 4 * 3
    assert (errors["auroc_error_confidence"], errors["acc80_confidence"]) == (100, 75)
    assert errors["auroc_error_uncertainty"] == pytest.approx(100 * 2 / 3)
    assert (errors["aurc_confidence"], errors["eaurc_confidence"]) == (pytest.approx(100 / 16), 0)
    assert errors["aurc_uncertainty"] == pytest.approx(100 * (1 / 3 + 1 / 4) / 4)


def test_without_errors_there_is_no_auroc_and_nothing_that_is_not_finite():
    metrics = error_detection_metrics(records_of([[0.9, 0.1], [0.2, 0.8]], [0, 1]))
    assert set(metrics) == {
        f"{name}_{score}" for name in ("aurc", "eaurc", "acc80") for score in ("confidence", "entropy")
    }
    assert all(math.isfinite(value) for value in metrics.values())


def test_open_set_metrics_of_two_tests():
    known = records_of([[0.9, 0.1], [0.2, 0.8]], [0, 1], uncertainty=[0.1, 0.2])
    unknown = records_of([[0.6, 0.4], [0.85, 0.15]], [0, 0])
    metrics = open_set_metrics(known, unknown)
    assert {name.rsplit("_", 1)[1] for name in metrics} == {"confidence", "entropy"}  # what both have
    assert metrics["auroc_open_confidence"] == pytest.approx(75)
    assert metrics["fpr95_open_confidence"] == 50
    assert metrics["aupr_open_confidence"] == pytest.approx(100 * (1 + 2 / 3) / 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_makes_no_metric(bad):
    records = records_of([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], uncertainty=[0.1, bad, 0.2])
    with pytest.raises(ValueError, match="must be finite, got 1 "):
        error_detection_metrics(records)
    records["confidence"][0] = math.nan
    with pytest.raises(ValueError, match="must be finite, got 1 "):
        calibration_metrics(records)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_calibration_error([0.5], [1], bins=0), "bins must be at least 1, got 0"),
        (lambda: expected_calibration_error([1.5], [1]), "confidence must lie in 0 to 1, got 1.5"),
        (lambda: expected_calibration_error([0.5], [1, 0]), "confidence of 1, correct of 2"),
        (lambda: expected_calibration_error([0.5], [2]), "correct must be truth values"),
        (lambda: expected_calibration_error([], []), "at least one"),
        (lambda: negative_log_likelihood([0.1]), "at most 0, got 0.1"),
        (lambda: negative_log_likelihood([math.nan, -math.inf]), "must be finite, got 1 "),
        (lambda: brier_score([-0.1], [0.5, 0.5]), "same images"),
        (lambda: selective_risk([[0.1]], [True]), r"shape \(images,\)"),
        (lambda: selective_accuracy(SCORE, WRONG, coverage=0), r"coverage must lie in \(0, 1\], got 0"),
        (lambda: false_positive_rate(SCORE, WRONG, kept=1.1), r"kept must lie in \(0, 1\], got 1.1"),
        (lambda: aupr([0.1, 0.2], [True, True]), "both kinds"),
        (lambda: disagreement([1, 2], [1, 2]), r"got \(2,\) and \(2,\)"),
    ],
)
def test_wrong_input_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
