"""Runs as the engine's tasks do what train.py does."""

from __future__ import annotations

from tools.sweep import experiment
from tools.sweep.experiment import Experiment, execute


def test_a_method_that_learns_in_one_epoch_is_tested_after_it(tmp_path, monkeypatch):
    """As CLIP-ICM does, whatever OPTIM.MAX_EPOCH says."""
    loaded = []

    class InOneEpoch:
        max_epoch = 1

        def load_model(self, directory, epoch):
            loaded.append((directory, epoch))

        def test(self):
            assert self.output_dir == str(tmp_path / "new")

    monkeypatch.setattr(experiment, "build_trainer", lambda cfg: InOneEpoch())
    settings = {"OPTIM.MAX_EPOCH": 3}
    execute(Experiment("CLIPICM", "tiny", "digits", 1, "new", tmp_path / "new", settings, tmp_path / "run"), tmp_path)
    assert loaded == [(str(tmp_path / "run"), 1)]
