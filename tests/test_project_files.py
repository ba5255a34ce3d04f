"""What the files around the code say of each other: versions, dates, supported Pythons, paths."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import setuptools
import yaml

from helpers import ROOT

FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


@pytest.fixture(scope="module")
def setup():
    """What setup.py tells setuptools."""
    arguments = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **given: arguments.update(given))
        runpy.run_path(str(ROOT / "setup.py"))
    return arguments


def read_yaml(path: str):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_citation_changelog_and_setup_name_the_same_version(setup):
    citation, changelog = read_yaml("CITATION.cff"), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d[^]]*)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert versions[0] == (setup["version"], str(citation["date-released"]))
    assert citation["version"] == setup["version"]
    assert changelog.index("## [Unreleased]") < changelog.index(f"## [{setup['version']}]")


def test_one_licence_and_one_holder(setup):
    text, citation = (ROOT / "LICENSE").read_text(encoding="utf-8"), read_yaml("CITATION.cff")
    assert text.startswith("MIT License\n")
    assert setup["license"] == citation["license"] == "MIT"
    assert re.search(r"^Copyright \(c\) \d{4} (.+)$", text, re.MULTILINE)[1] == citation["authors"][0]["name"]


def test_citation_and_readme_give_the_same_paper():
    paper, readme = read_yaml("CITATION.cff")["preferred-citation"], (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"title={{{paper['title']}}}" in readme
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"author={{{authors}}}" in readme
    assert f"({paper['url']})" in readme


def test_workflow_runs_the_checks_on_every_supported_python(setup):
    (job,) = read_yaml(".github/workflows/ci.yml")["jobs"].values()
    pythons = job["strategy"]["matrix"]["python"]
    assert f">={pythons[0]}" == setup["python_requires"]
    minors = [int(python.removeprefix("3.")) for python in pythons]
    assert minors == list(range(minors[0], minors[-1] + 1))
    (checks,) = [step for step in job["steps"] if "run" in step]
    assert checks["run"] == "bash .ci/run"
    assert (ROOT / ".ci/run").is_file()
    for step in job["steps"]:
        assert step is checks or re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])  # a tag can be moved
    (kept,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact@")]
    assert kept["with"]["path"] == checks["env"]["SCREENSHOTS"]
    assert kept["if"] == "always()"


def test_pre_commit_formats_as_make_lint_does():
    (locked,) = re.findall(r"^ruff==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    hooks = [hook for repo in read_yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    wanted = [hook["additional_dependencies"] for hook in hooks if hook["id"].startswith("ruff")]
    assert wanted == [[f"ruff=={locked}"]] * 2


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_form(path):
    form = read_yaml(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_there_are_forms_for_a_bug_and_for_numbers():
    assert [path.stem for path in FORMS] == ["bug", "numbers"]


def test_folders_of_tests_are_those_of_the_code():
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert len(folders) > 10
    # the campaign of faults is about whole runs
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == [Path("faults")]


def test_paths_in_contributing_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:[\w.]+/)+[\w.-]*)`", text)
    paths += re.findall(r"\]\(([\w./]+)\)", text)
    paths += [f"tests/golden/{name}" for name in re.findall(r"`(\w+\.(?:npz|json|py))\b", text) if "make_" in name]
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_tests_on_checkouts_are_skipped_where_there_are_none():
    """By `helpers.checkout_of`, which says why; to read the variable alone would be a KeyError."""
    reading = re.compile(r"environ\[\W*\w+_CHECKOUT")
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "_CHECKOUT" in path.read_text()]
    assert len(files) > 5
    assert [path.name for path in files if reading.search(path.read_text())] == []
