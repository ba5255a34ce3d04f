"""Colours: one for each trainer, no two alike, the same on every picture."""

from __future__ import annotations

from pathlib import Path

from tools.common.colours import DASHES, LINES, MARKERS, SYMBOLS, TRAINERS, system_styles, trainer_colours


def test_every_method_has_a_colour_of_its_own():
    methods = {path.name for path in (Path(__file__).resolve().parents[3] / "configs/trainers").iterdir()}
    assert methods <= TRAINERS.keys()
    assert len(set(TRAINERS.values())) == len(TRAINERS)
    assert trainer_colours(["CDC", "CoOp"]) == {name: TRAINERS[name] for name in ("CDC", "CoOp")}


def test_no_two_unknown_trainers_share_a_colour():
    names = ["abc", "cab", "bca", *(f"Mine{index}" for index in range(40)), "CDC"]
    found = trainer_colours(names)
    assert len({*found.values(), *TRAINERS.values()}) == len(names) - 1 + len(TRAINERS)
    assert trainer_colours(reversed(names)) == found
    assert trainer_colours(["Mine1"])["Mine1"] == trainer_colours(["Mine1", "CDC"])["Mine1"]


def test_systems_of_one_trainer_differ_by_more_than_colour():
    styles = system_styles([("CDC tiny", "CDC"), ("CDC", "CDC"), ("CoOp", "CoOp")])
    assert styles["CDC"].color == styles["CDC tiny"].color == TRAINERS["CDC"]
    assert styles["CDC"][1:] == styles["CoOp"][1:] == ("circle", "solid", "")
    assert [one == other for one, other in zip(styles["CDC"], styles["CDC tiny"])] == [True, False, False, False]


def test_matplotlib_has_each_symbol_and_dash():
    assert (len(set(MARKERS.values())), len(set(LINES.values()))) == (len(SYMBOLS), len(DASHES))
