"""The config without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from helpers import ROOT
from settings import declared


def test_declared_defaults_are_those_of_the_imported_modules():
    code = """
import json, sys
import compat
from settings.declared import declared_defaults
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
    monkeypatch.setattr(declared, "ROOT", tmp_path)
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text("import torch\nN = 3\ncfg_default.OWN = CfgNode({'N': N})\n")
    assert declared.declared_defaults().OWN.N == 3
    file.write_text(f"import torch\n{text}\n")
    assert declared.declared_defaults() is None


def test_defaults_of_modules_behind_a_link_are_not_declared(tmp_path, monkeypatch):
    monkeypatch.setattr(declared, "ROOT", tmp_path / "checkout")
    (tmp_path / "lab").mkdir()
    (tmp_path / "checkout/trainers").mkdir(parents=True)
    assert declared.declared_defaults() is not None
    (tmp_path / "checkout/trainers/lab").symlink_to(tmp_path / "lab")
    assert declared.declared_defaults() is None
