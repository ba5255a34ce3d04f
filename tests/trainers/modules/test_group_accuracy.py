"""Accuracy by groups: of the worst one, and of images that agree or conflict with what training showed."""

from __future__ import annotations

import pytest
import torch

from helpers import results_of
from trainers.modules.group_accuracy import GroupAccuracy


def test_by_hand():
    groups = GroupAccuracy([0, 1])
    groups.process(torch.tensor([True, False, True]), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    groups.process(torch.tensor([False, True]), torch.tensor([0, 0]), torch.tensor([0, 1]))
    # own and found domain: (0, 0) 1 of 2, (0, 1) 1 of 2, (1, 1) 1 of 1
    assert groups.evaluate() == pytest.approx(
        {"worst_group_accuracy": 50.0, "aligned_accuracy": 200 / 3, "conflicting_accuracy": 50.0}
    )


def test_without_conflict():
    groups = GroupAccuracy([0])
    groups.process(torch.tensor([True]), torch.tensor([0]), torch.tensor([0]))
    assert groups.evaluate() == {"worst_group_accuracy": 100.0, "aligned_accuracy": 100.0}


@pytest.mark.parametrize("method", ["CDC", "CoOp"])
def test_run_reports_them_where_the_data_set_has_groups(build_run, tmp_path, method):
    """Here all images have domain 0, which is the first class's own: so the groups are the two classes."""
    trainer = build_run(method, tmp_path)
    trainer.dm.dataset.own_domains = [0, 1]
    trainer.test()
    figures = results_of(tmp_path)["figures"]
    with torch.no_grad():
        rights = [
            (trainer.model_inference(batch["img"]).argmax(dim=1) == batch["label"]).tolist()
            for batch in trainer.test_loader
        ]
    labels = [label for batch in trainer.test_loader for label in batch["label"].tolist()]
    rights = [right for part in rights for right in part]
    by_class = [100.0 * sum(r for r, y in zip(rights, labels) if y == c) / labels.count(c) for c in (0, 1)]
    assert figures["aligned_accuracy"] == pytest.approx(by_class[0])
    assert figures["conflicting_accuracy"] == pytest.approx(by_class[1])
    assert figures["worst_group_accuracy"] == pytest.approx(min(by_class))


def test_other_data_sets_have_none(build_run, tmp_path):
    build_run("CDC", tmp_path).test()
    assert not any("group" in name for name in results_of(tmp_path)["figures"])
