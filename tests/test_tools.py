"""Tables from results.json, and the demo's progress."""

from __future__ import annotations

import json

import pytest

from tools import demo, results


def write(output, part, trainer, seed, accuracy, dataset="shapes"):
    folder = output / "base2new" / part / dataset / "shots_16" / trainer / "tiny" / f"seed{seed}"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"figures": {"accuracy": accuracy}}))


def test_harmonic_mean():
    assert results.harmonic_mean(60.0, 40.0) == pytest.approx(48.0)
    assert results.harmonic_mean(0.0, 40.0) == 0.0


def test_table_of_means(tmp_path):
    for seed, base, new in ((1, 80.0, 50.0), (2, 90.0, 70.0)):
        write(tmp_path, "train_base", "CDC", seed, base)
        write(tmp_path, "test_new", "CDC", seed, new)
    rows, missing = results.base_to_new(results.read_runs(tmp_path))
    # HM of the means 85 and 60, not the mean of the seeds' HM
    assert rows == [["shapes", "16", "CDC", "tiny", 2, "85.00 ± 7.07", "60.00 ± 14.14", "70.34"]]
    assert missing == []


def test_test_of_base_classes_goes_before_the_training_run(tmp_path):
    write(tmp_path, "train_base", "CDC", 1, 10.0)
    write(tmp_path, "test_base", "CDC", 1, 20.0)
    write(tmp_path, "test_new", "CDC", 1, 20.0)
    assert results.base_to_new(results.read_runs(tmp_path))[0][0][5] == "20.00"


def test_what_is_missing_is_named_and_not_averaged(tmp_path):
    write(tmp_path, "train_base", "CDC", 1, 80.0)
    write(tmp_path, "test_new", "CDC", 1, 60.0)
    write(tmp_path, "train_base", "CDC", 2, 0.0)
    write(tmp_path, "test_new", "CoOp", 1, 60.0)
    rows, missing = results.base_to_new(results.read_runs(tmp_path))
    assert [row[2:6] for row in rows] == [["CDC", "tiny", 1, "80.00"]]
    assert missing == ["shapes 16 CDC tiny seed 2: no new result", "shapes 16 CoOp tiny seed 1: no base result"]
    assert "no base result" in results.table(tmp_path)


def test_only_one_data_set(tmp_path):
    for dataset in ("shapes", "digits"):
        write(tmp_path, "test_base", "CDC", 1, 80.0, dataset)
        write(tmp_path, "test_new", "CDC", 1, 60.0, dataset)
    assert "digits" not in results.table(tmp_path, "shapes")


def test_nothing_and_broken(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        results.table(tmp_path)
    write(tmp_path, "test_new", "CDC", 1, 60.0)
    next(tmp_path.rglob("results.json")).write_text("{")
    with pytest.raises(ValueError, match=r"results\.json is not a whole"):
        results.table(tmp_path)


def test_progress_of_a_log():
    assert demo.progress_of("epoch [1/2] batch [5/10] time 0.1 (0.1)") == pytest.approx(0.25)
    assert demo.progress_of("epoch [2/2] batch [10/10] time") == 1.0
    assert demo.progress_of("Finish training") is None
