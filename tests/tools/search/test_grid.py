"""A grid of settings, as the command line of the search runs it."""

from __future__ import annotations

import json
import sys

import pytest

from tools.common.paths import ROOT
from tools.search import smaller
from tools.search.__main__ import main


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA", str(tmp_path))

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["search", "--one-by-one", *map(str, arguments)])
        main()

    return call


def test_every_setting_is_tried_and_the_table_kept(call, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)  # a grid needs none
    monkeypatch.setattr(smaller, "PICTURES", 4)
    arguments = ("--dataset", "textures", "--trainer", "ZeroshotCLIP", "--seeds", 1)
    vary = ("--vary", "DATALOADER.TEST.BATCH_SIZE", 50, 100)
    call(*arguments, *vary, "--output", "runs", "--save", "table.json")
    printed = capsys.readouterr().out
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["header"] == ["DATALOADER.TEST.BATCH_SIZE", "pseudo-base", "pseudo-new", "HM"]
    assert sorted(row[0] for row in table["rows"]) == ["100", "50"]
    (_, base, new, mean), other = table["rows"]
    assert other[1:] == [base, new, mean]  # the size of test batches changes nothing
    assert mean == pytest.approx(2 * base * new / (base + new))
    assert f"{mean:.2f}" in printed
    assert table["command"] == f"python -m tools.search {' '.join(map(str, (*arguments, *vary)))}"

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    assert len(before) == 4
    monkeypatch.chdir(ROOT)  # where the path of CLIP is another
    call(*arguments, *vary, "--output", tmp_path / "runs")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "textures", "--set", "OPTIM.LRR", "1"], "OPTIM.LRR"),
        (["--dataset", "no_such_set"], "no_such_set"),
        (["--dataset", "textures", "dtd"], "several default configs, tiny, vit_b16: give --config"),
    ],
)
def test_what_cannot_run_is_told(call, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        call(*arguments, "--seeds", 1, "--vary", "OPTIM.LR", 0.01, "--output", tmp_path)
    error = capsys.readouterr().err
    assert "tools.search: " in error
    assert message in error


def test_trained_weights_in_the_config_of_any_set_are_refused(call, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(smaller, "PICTURES", 4)
    sets = ("textures", "backgrounds")
    for path in (*(f"configs/datasets/{name}.yaml" for name in sets), "configs/trainers/CoOp/tiny.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text((ROOT / path).read_text())
    with (tmp_path / "configs/datasets/backgrounds.yaml").open("a") as file:
        file.write(f"MODEL:\n  INIT_WEIGHTS: {__file__}\n")
    monkeypatch.setattr("tools.sweep.experiment.ROOT", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        call("--trainer", "CoOp", "--dataset", *sets, "--vary", "OPTIM.LR", 0.1, "--seeds", 1, "--output", "runs")
    assert "the config has MODEL.INIT_WEIGHTS" in capsys.readouterr().err
