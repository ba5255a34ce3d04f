"""Settings merged into Dassl's config, and the config without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys

from compat import settings
from compat.settings import merge_pairs, merge_tree

import pytest
from yacs.config import CfgNode

from helpers import ROOT


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
    monkeypatch.setattr(settings, "REAL_NUMBERS", ("A",))
    cfg = CfgNode({"A": 15, "B": 15})
    merge_pairs(cfg, ["A", "6.5"])
    assert cfg.A == 6.5
    merge_pairs(cfg, ["A", "7", "B", "8"])
    assert cfg == {"A": 7, "B": 8}


def test_new_keys_where_they_are_allowed(cfg):
    cfg.B.set_new_allowed(True)
    merge_tree(cfg, {"B": {"NEW": 1}})
    assert cfg.B.NEW == 1


def test_declared_defaults_are_those_of_the_imported_modules():
    code = """
import json, sys
import compat
from compat.settings import declared_defaults
assert compat.which() == "embedded" or sys.exit(7)
early = declared_defaults()
assert "torch" not in sys.modules
import datasets, trainers
trainers.register()
from dassl.config import get_cfg_default
full = get_cfg_default()
renamed = [cfg.__dict__[cfg.RENAMED_KEYS] for cfg in (early, full)]
print(json.dumps([early, full, *renamed]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 7:
        pytest.skip("an installed Dassl imports PyTorch itself")
    early, full, early_names, full_names = json.loads(done.stdout)
    assert early == full
    assert early_names == full_names != {}


@pytest.mark.parametrize(
    "text",
    [
        "cfg_default.OWN = CfgNode({'N': make_n()})",
        "cfg_default.OWN = cfg_default.TRAINER.DECLARED_BY_ANOTHER.clone()",
        "from dassl.config import cfg_default as defaults\ndefaults.OWN = CfgNode({'N': 3})",
        "from dassl.config.defaults import _C as cfg\ncfg.OWN = CfgNode({'N': 3})",
        "import dassl.config as config\nconfig.cfg_default.OWN = CfgNode({'N': 3})",
        "cfg = cfg_default\ncfg.OWN = CfgNode({'N': 3})",
        "node = cfg_default.TRAINER\nnode.OWN = CfgNode({'N': 3})",
        "def declare():\n    cfg_default.OWN = CfgNode({'N': 3})\n\ndeclare()",
        "import torch, a_labs_package",
        "    from a_labs_package.trainers import Own",
    ],
)
@pytest.mark.parametrize("place", ["trainers/own.py", "datasets/lab/own.py"])
def test_defaults_that_only_importing_tells_are_not_declared(tmp_path, monkeypatch, text, place):
    """Else a key of one's own trainer would be refused as one that is not there."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text("import torch\nN = 3\ncfg_default.OWN = CfgNode({'N': N})\n")
    assert settings.declared_defaults().OWN.N == 3
    file.write_text(f"import torch\n{text}\n")
    assert settings.declared_defaults() is None


def test_defaults_of_modules_behind_a_link_are_not_declared(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "ROOT", tmp_path / "checkout")
    (tmp_path / "lab").mkdir()
    (tmp_path / "checkout/trainers").mkdir(parents=True)
    assert settings.declared_defaults() is not None
    (tmp_path / "checkout/trainers/lab").symlink_to(tmp_path / "lab")
    assert settings.declared_defaults() is None
