"""docs/compatibility.md and the rows that it is made of."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import suite
from helpers import ROOT
from tools import compatibility

SUITE_ROW = {**dict.fromkeys(compatibility.SUITE, "x"), "versions": "lock", "python": "3.11.7"}
PUBLISHED_ROW = {**dict.fromkeys(compatibility.PUBLISHED, "x"), "torch": "1.13.1"}


@pytest.fixture
def read(tmp_path):
    def write_and_read(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return compatibility.read_rows([path])

    return write_and_read


def test_page_is_that_of_the_rows():
    rows = compatibility.read_rows([compatibility.ROWS])
    assert (ROOT / "docs/compatibility.md").read_text(encoding="utf-8") == compatibility.render(*rows)


def test_rows_of_the_public_repositories(read):
    """One for each test, the later result of one that ran twice; the newest PyTorch comes first."""
    newer = {**PUBLISHED_ROW, "torch": "2.15.0+cu132", "result": "b"}
    suites, found = read({**PUBLISHED_ROW, "result": "a"}, newer, {**PUBLISHED_ROW, "result": "c"})
    assert suites == []
    assert [(row["torch"], row["result"]) for row in found] == [("2.15.0+cu132", "b"), ("1.13.1", "c")]
    assert "| 2.15.0+cu132 |" in compatibility.render([], found)


def test_rows_of_the_suite(read):
    """One for each kind of versions and Python, whatever versions they were; the newest Python comes first."""
    old = {**SUITE_ROW, "python": "3.9.18"}
    lowest = {**old, "versions": "lowest"}
    found, published = read(lowest, {**SUITE_ROW, "torch": "2.14.0"}, old, {**SUITE_ROW, "python": "3.11.9"})
    assert published == []
    assert [(row["versions"], row["python"], row["torch"]) for row in found] == [
        ("lock", "3.11.9", "x"),
        ("lock", "3.9.18", "x"),
        ("lowest", "3.9.18", "x"),
    ]
    assert "| lowest     | 3.9.18" in compatibility.render(found, [])


@pytest.mark.parametrize("row", [{"torch": "1"}, {**SUITE_ROW, "versions": "?"}, {"versions": "lock"}, 3])
def test_what_is_no_row(read, row):
    with pytest.raises(ValueError, match="line 1, is no row"):
        read(row)


OPTIONS = {"file_or_dir": [], "keyword": "", "deselect": None, "markexpr": "not gpu", "lf": False}


@pytest.mark.parametrize(
    "part", [{}, {"file_or_dir": ["tests/trainers/test_cdc.py"]}, {"keyword": "x"}, {"markexpr": "gpu"}]
)
@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize("versions", ["lock", None])
def test_suite_writes_a_row(part, status, versions, tmp_path, monkeypatch, read):
    """Only the whole suite, only where it passed, only where it is said what the environment was made of."""
    path = tmp_path / "written.jsonl"
    monkeypatch.setenv("COMPATIBILITY_ROWS", str(path))
    monkeypatch.delenv("SUITE_VERSIONS", raising=False)
    if versions:
        monkeypatch.setenv("SUITE_VERSIONS", versions)
    config = SimpleNamespace(
        option=SimpleNamespace(**{**OPTIONS, **part}), getini={"addopts": ["-q", "-m", "not gpu"]}.get
    )
    reporter = SimpleNamespace(stats={"passed": [1, 2, 3], "skipped": [4, 5], "deselected": [6]})
    suite.pytest_terminal_summary(reporter, status, config)
    assert path.exists() == (not part and status == 0 and versions is not None)
    if path.exists():
        (row,), _ = read(*map(json.loads, path.read_text().splitlines()))
        assert (row["versions"], row["passed"], row["skipped"]) == ("lock", "3", "2")
