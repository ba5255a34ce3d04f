"""The rooms of tools, the names that have moved, and the demo's progress."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import runpy
from pathlib import Path

import pytest

from tools.common.paths import ROOT
from tools.moved import MOVED
from tools.sweep.view import progress_of

TOOLS = sorted((ROOT / "tools").rglob("*.py"))


def test_progress_of_a_log():
    assert progress_of("epoch [1/2] batch [5/10] time 0.1 (0.1)") == pytest.approx(0.25)
    assert progress_of("epoch [2/2] batch [10/10] time") == 1.0
    assert progress_of("Finish training") is None


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_old_name_tells_the_new_one(old, new, capsys):
    with pytest.raises(ImportError, match=f"^{old} has moved: import {new} instead$"):
        importlib.import_module(old)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(old, run_name="__main__")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"{old} has moved: call it as python -m {new}\n"
    assert importlib.util.find_spec(new)


def imports_of(path: Path) -> set[str]:
    """The modules of tools that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("tools.")}


def test_rooms_import_each_other_in_one_direction():
    """A room is a folder of tools, or a file in it."""
    rooms = {path: path.relative_to(ROOT / "tools").parts[0].removesuffix(".py") for path in TOOLS}
    above: dict[str, set[str]] = {room: set() for room in rooms.values()}
    for path, room in rooms.items():
        above[room] |= {name.split(".")[1] for name in imports_of(path)} - {room}
    assert {"common", "results"} <= above["study"]
    graphlib.TopologicalSorter(above).prepare()  # raises CycleError


def test_modules_of_a_room_import_each_other_in_one_direction():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in TOOLS}
    above = {}
    for module, path in modules.items():
        found = {name if name in modules else name.rpartition(".")[0] for name in imports_of(path)}
        above[module] = {name for name in found if name != module}
    assert "tools.study.plan" in above["tools.study.page"]
    graphlib.TopologicalSorter(above).prepare()


def test_no_folder_is_called_as_another_projects_package():
    """`python tools/dropin.py` looks for modules in tools first."""
    assert not (ROOT / "tools" / "datasets").exists()
