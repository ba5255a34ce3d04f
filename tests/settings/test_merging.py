"""Settings merged into Dassl's config."""

from __future__ import annotations

import pytest
from yacs.config import CfgNode

from settings import merging
from settings.merging import merge_pairs, merge_tree


@pytest.fixture
def cfg():
    return CfgNode({"A": {"X": 0.5, "N": 3, "FLAG": True, "NAMES": ["a"]}, "B": {"X": 1.0, "NAME": ""}})


@pytest.mark.parametrize("merge", [merge_tree, lambda cfg, given: merge_pairs(cfg, ["A.X", str(given["A"]["X"])])])
@pytest.mark.parametrize("given", [0, 2])
def test_whole_number_is_taken_for_a_real_one(cfg, merge, given):
    merge(cfg, {"A": {"X": given}})
    assert (cfg.A.X, type(cfg.A.X)) == (given, float)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"A": {"X": True}}, "A.X must be a number, as 0.5 is, got True"),
        ({"A": {"N": 3.0}}, "A.N must be a whole number, as 3 is, got 3.0"),
        ({"A": {"FLAG": 1}}, "A.FLAG must be True or False, as True is, got 1"),
        ({"A": {"NAMES": "b"}}, "A.NAMES must be a list, as ['a'] is, got 'b'"),
        ({"A": 3}, "A is a group of the keys X, N, FLAG, NAMES, and takes no value, got 3"),
        ({"A": {"X": {"Y": 1}}}, "A.X must be a number"),
        ({"A": {"NAME": "c"}}, "there is no key A.NAME: did you mean A.NAMES?"),
        ({"X": 1}, "there is no key X: did you mean one of A.X, B.X?"),
        ({"C": {"D": 1}}, "there is no key C"),
        ({"A": {"x": 1}}, "there is no key A.x: did you mean A.X?"),
    ],
)
def test_wrong_settings_change_nothing(cfg, given, problem):
    before = cfg.clone()
    with pytest.raises(ValueError, match=r"^there is no key WRONG; ") as told:
        merge_tree(cfg, {"WRONG": 1, "B": {"NAME": "new"}, **given})
    assert problem in str(told.value)
    assert cfg == before


@pytest.mark.parametrize(
    "given", [{"A": {"X": int("1" * 2000)}}, {"A": {"NAMES": "b" * 100_000}}, {"A": "b" * 100_000}]
)
def test_long_value_is_told_in_part(cfg, given):
    with pytest.raises(ValueError, match="got ") as told:
        merge_tree(cfg, given)
    assert len(str(told.value)) < 400


def test_real_numbers_that_were_published_as_whole_ones(monkeypatch):
    monkeypatch.setattr(merging, "REAL_NUMBERS", ("A",))
    cfg = CfgNode({"A": 15, "B": 15})
    merge_pairs(cfg, ["A", "6.5"])
    assert cfg.A == 6.5
    merge_pairs(cfg, ["A", "7", "B", "8"])
    assert cfg == {"A": 7, "B": 8}


def test_new_keys_where_they_are_allowed(cfg):
    cfg.B.set_new_allowed(True)
    merge_tree(cfg, {"B": {"NEW": 1}})
    assert cfg.B.NEW == 1
