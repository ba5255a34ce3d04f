"""`clip` is imported beside any setuptools, and nobody else takes notice. The `clip` here is written by the tests."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

import packaging
import pytest

from trainers.modules.clip_import import clip_importable

CLIP = "from pkg_resources import packaging\nimport ftfy\n\npackaging.version.parse('1.7.1')\n"
REAL = "import warnings\n\nwarnings.warn('pkg_resources is deprecated as an API', UserWarning)\n"
ASKS = "try:\n    import pkg_resources\nexcept ImportError:\n    pkg_resources = None\n"
NAMES = ("clip", "clip.clip", "ftfy", "pkg_resources")


class NoPkgResources:
    """Hides an installed pkg_resources, as a finder before all others."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "pkg_resources":
            raise ModuleNotFoundError("No module named 'pkg_resources'", name="pkg_resources")


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Modules from their sources, pkg_resources among them or hidden, before the first import of any."""
    before = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}

    def make(clip=CLIP, **sources):
        (tmp_path / "clip").mkdir()
        (tmp_path / "clip/__init__.py").write_text("from .clip import *\n")
        (tmp_path / "clip/clip.py").write_text(clip)
        for name, source in {"ftfy": "", **sources}.items():
            (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        if "pkg_resources" not in sources:
            monkeypatch.setattr(sys, "meta_path", [NoPkgResources, *sys.meta_path])

    yield make
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def import_clip() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with clip_importable():
            from clip import clip
    return clip


def test_without_pkg_resources(environment):
    environment()
    assert import_clip().packaging is packaging
    assert "pkg_resources" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="pkg_resources"):
        importlib.import_module("pkg_resources")


def test_pkg_resources_without_packaging(environment):
    """As that of setuptools 70.0."""
    environment(pkg_resources=REAL)
    assert import_clip().packaging is packaging
    assert not hasattr(sys.modules["pkg_resources"], "packaging")


def test_pkg_resources_with_packaging(environment):
    """Then clip has its packaging, and no warning of it."""
    own = "class packaging:\n    class version:\n        parse = float\n"
    environment(clip="from pkg_resources import packaging\n", pkg_resources=REAL + own)
    assert import_clip().packaging is sys.modules["pkg_resources"].packaging
    assert import_clip().packaging is not packaging


def test_others_meet_no_stand_in(environment):
    """A package that clip imports asks for pkg_resources, too."""
    environment(ftfy=ASKS)
    import_clip()
    assert sys.modules["ftfy"].pkg_resources is None


def test_clip_that_needs_no_pkg_resources(environment):
    """Such as CoOp's and MaPLe's own."""
    environment(clip=f"model = 1\n{ASKS}")
    clip = import_clip()
    assert (clip.model, clip.pkg_resources) == (1, None)


@pytest.mark.parametrize("clip", ["import missing_package\n", f"{CLIP}import missing_package\n"])
def test_clip_that_lacks_something_else(environment, clip):
    environment(clip=clip)
    with pytest.raises(ModuleNotFoundError, match="missing_package"):
        import_clip()
    assert "pkg_resources" not in sys.modules
