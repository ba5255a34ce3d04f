"""Arrows run one way: what each part of the project may import, and no circle among its modules."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

from helpers import ROOT

# From the bottom up; `compat` holds the embedded Dassl, which imports itself by the name `dassl`.
MAY_IMPORT: dict[str, set[str]] = {
    "storage": set(),
    "compat": {"dassl"},
    "datasets": {"dassl", "storage"},
    "trainers.modules": {"storage"},
    "trainers": {"dassl", "storage", "trainers.modules"},
    "settings": {"compat", "dassl", "storage", "datasets", "trainers", "trainers.modules"},
    "train": {"compat", "dassl", "storage", "trainers", "trainers.modules", "settings"},
    "tools": {"compat", "dassl", "storage", "datasets", "trainers", "trainers.modules", "settings", "train"},
    "cdc": {"tools"},
}
NAMES = {part.partition(".")[0] for part in MAY_IMPORT} | {"dassl"}
FOLDERS = sorted(NAMES - {"dassl"})
FILES = [path for name in FOLDERS for path in [*ROOT.glob(f"{name}.py"), *(ROOT / name).rglob("*.py")]]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    return "trainers.modules" if module.startswith("trainers.modules") else module.partition(".")[0]


def imports_of(path: Path) -> set[str]:
    """Modules of the project that a file imports anywhere in it, but for types alone, each with what it takes there."""
    package = path.parent.relative_to(ROOT).parts
    found, nodes = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] in NAMES}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_no_arrow_leads_up(part):
    arrows = {(name_of(path), name) for path in FILES if part_of(name_of(path)) == part for name in imports_of(path)}
    assert [arrow for arrow in sorted(arrows) if part_of(arrow[1]) not in MAY_IMPORT[part] | {part}] == []


def test_arrows_are_seen():
    """By the ways in which this project imports: relative, by name, in a function."""
    assert "trainers.checkpointing.CheckpointedTrainer" in imports_of(ROOT / "trainers/prompt_trainer.py")
    assert "trainers.modules.ranks" in imports_of(ROOT / "trainers/prompt_trainer.py")
    assert "storage.files.atomic_write" in imports_of(ROOT / "trainers/modules/checkpoints.py")
    assert "settings.reading.setup_cfg" in imports_of(ROOT / "train.py")
    assert len(FILES) > 200


def test_no_circle_among_modules():
    modules = {name_of(path): path for path in FILES if not path.is_relative_to(ROOT / "compat")}
    below = {}
    for module, path in modules.items():
        taken = {name if name in modules else name.rpartition(".")[0] for name in imports_of(path)}
        below[module] = taken & set(modules) - {module}
    graphlib.TopologicalSorter(below).prepare()  # raises CycleError
