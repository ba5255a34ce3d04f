"""Checkpoints: what is written is read again, whole or not at all, and what does not fit is told."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from trainers.modules.checkpoints import read_checkpoint, state_problems, write_checkpoint

OWN = {"ctx": torch.zeros(4, 8), "proj.weight": torch.zeros(8, 8)}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "prompt_learner/model.pth.tar-3"
    write_checkpoint(path, {"state_dict": OWN, "epoch": 3, "val_result": None})
    read = read_checkpoint(path)
    assert (read["epoch"], read["val_result"]) == (3, None)
    assert state_problems(read["state_dict"], OWN) == []
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.pth.tar-1"
    write_checkpoint(path, {"state_dict": OWN, "epoch": 1})

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="older checkpoints are kept: No space left on device"):
        write_checkpoint(path, {"state_dict": OWN, "epoch": 2})
    assert read_checkpoint(path)["epoch"] == 1


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"ctx": None}, ["has no ctx"]),
        ({"bias": torch.zeros(1)}, ["has bias, which is not known"]),
        ({"ctx": torch.zeros(2, 8)}, ["has ctx of shape (2, 8) where this run has (4, 8)"]),
        ({"ctx": torch.full((4, 8), float("nan"))}, ["has ctx with infinite values"]),
        (
            {"ctx": torch.zeros(4, 8, dtype=torch.int64)},
            ["has ctx of type torch.int64"],
        ),
        ({"ctx": None, "proj.weight": torch.zeros(8)}, ["has no ctx", "has proj.weight of shape (8,)"]),
        ({"b": torch.zeros(1), "a": torch.zeros(1)}, ["has a, b, which are not known"]),
        (
            {f"templates.{n}": torch.zeros(1) for n in range(24)},
            ["has templates.0, templates.1, templates.10, templates.11, templates.12 and 19 more, which are not known"],
        ),
    ],
)
def test_all_that_does_not_fit_is_told(changes, problems):
    state = {key: value for key, value in {**OWN, **changes}.items() if value is not None}
    told = state_problems(state, OWN)
    assert len(told) == len(problems)
    assert all(own.startswith(wanted) for own, wanted in zip(told, problems))
