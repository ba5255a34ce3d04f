"""What the page draws of a test's records, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from made_runs import arrays
from tools.report import records as figures

LABEL = [0, 0, 1, 2]


def test_class_accuracy_counts_each_class_and_knows_one_without_images():
    found = figures.class_accuracy(arrays([0, 1, 1, 1], LABEL), 4)
    assert found == [50.0, 100.0, 0.0, None]


def test_confusions_are_the_mean_over_runs_most_frequent_first():
    one, two = arrays([0, 1, 1, 1], LABEL), arrays([0, 1, 1, 2], LABEL)
    assert figures.confusions([one, two]) == [(0, 1, 1.0), (2, 1, 0.5)]


def test_reliability_bins_confidence_as_the_calibration_error_does():
    bins = figures.reliability([arrays([0, 1, 1, 1], LABEL, [0.95, 0.96, 1.0, 0.05])])
    number, confidence, accuracy = zip(*bins)
    assert number == (1, *[0] * 13, 3)
    assert confidence[0] == pytest.approx(5.0)
    assert confidence[-1] == pytest.approx(97.0)
    assert accuracy[0] == 0.0
    assert accuracy[-1] == pytest.approx(200 / 3)


def test_risk_falls_to_the_errors_among_the_most_certain():
    records = arrays([0, 1, 1, 1], LABEL, [0.9, 0.6, 0.8, 0.5])  # the two wrong ones are the least certain
    risk = figures.risk_curves([records])["confidence"]
    assert risk[0] == 0.0
    assert risk[len(risk) // 2 - 1] == 0.0
    assert risk[-1] == 50.0


def test_histograms_are_percentages_of_right_and_of_wrong_predictions():
    records = arrays([0, 1, 1, 1], LABEL, [0.99, 0.01, 0.99, 0.99], [[0], [1], [1], [1]], [0.0, 1.0, 1e-4, 1e-20])
    found = figures.histograms([records])
    assert found["confidence"]["right"][-1] == 100.0
    assert (found["confidence"]["wrong"][0], found["confidence"]["wrong"][-1]) == (50.0, 50.0)
    right, wrong = found["uncertainty"]["right"], found["uncertainty"]["wrong"]
    assert right[0] == 50.0
    assert right[figures.BARS // 2] == 50.0
    assert wrong[-1] == 50.0
    assert wrong[0] == 50.0
    assert "uncertainty" not in figures.histograms([records, arrays([0], [0])])


def test_template_metrics_by_hand():
    records = arrays([0, 0, 1, 1], LABEL, templates=[[0, 0], [0, 1], [1, 1], [1, 2]])
    found = figures.template_metrics([records])
    assert found["accuracy"] == [75.0, 75.0]
    assert found["fused"] == 75.0
    assert found["mean"] == 75.0
    assert found["best"] == 75.0
    assert found["agreement"] == [[100.0, 50.0], [50.0, 100.0]]
    assert figures.template_metrics([arrays([0], [0])]) == {}


def test_images_are_chosen_by_conflict_by_certainty_and_by_verdict():
    one = arrays([0, 1, 1, 1], LABEL, [0.9, 0.7, 0.7, 0.8], [[0], [1], [1], [1]])
    other = arrays([1, 0, 1, 1], LABEL, [0.6, 0.7, 0.7, 0.8])
    assert figures.most_conflict(one, 2) == [3, 2]
    assert figures.most_conflict(other, 2) == []
    assert figures.certain_mistakes(one, 5) == [3, 1]
    assert figures.judged_differently(one, other, 4) == [0, 1]
    assert figures.judged_differently(one, one, 4) == []


def test_nothing_depends_on_the_order_of_images():
    records = arrays([0, 1, 1, 1], LABEL, [0.9, 0.6, 0.8, 0.5], [[0, 0], [0, 1], [1, 1], [1, 2]])
    turned = {name: values[::-1] for name, values in records.items()}
    for function in (figures.reliability, figures.risk_curves, figures.histograms, figures.template_metrics):
        np.testing.assert_equal(function([records]), function([turned]))
