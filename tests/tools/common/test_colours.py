"""Colours: one for each trainer, no two alike, the same on every picture."""

from __future__ import annotations

import re

import pytest
from PIL import ImageColor

from tools.common.colours import (
    DASHES,
    LINES,
    MARKERS,
    OTHERS,
    SYMBOLS,
    TRAINERS,
    luminance,
    system_styles,
    trainer_colours,
)
from tools.common.paths import ROOT


def test_every_method_has_a_colour_of_its_own():
    methods = {path.name for path in (ROOT / "configs/trainers").iterdir()}
    assert methods <= TRAINERS.keys()
    assert len(set(TRAINERS.values())) == len(TRAINERS)
    assert trainer_colours(["CDC", "CoOp"]) == {name: TRAINERS[name] for name in ("CDC", "CoOp")}


def contrast(one, other):
    high, low = sorted(
        (luminance(each / 255 for each in ImageColor.getrgb(color)) for color in (one, other)), reverse=True
    )
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", re.findall(r"--ground: (#\w+)", (ROOT / "tools/report/assets/page.css").read_text()))
def test_every_colour_stands_out_from_both_grounds(ground):
    known = {**TRAINERS, **{color: color for color in OTHERS}}
    further = trainer_colours(f"Mine{index}" for index in range(60))
    found = {name: contrast(color, ground) for name, color in {**known, **further}.items()}
    assert {name: ratio for name, ratio in found.items() if ratio < 3} == {}


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # the lightest grey for text on white


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
