"""What results say of where they come from."""

from __future__ import annotations

import datetime
import shlex
import subprocess

import pytest

from trainers.modules.provenance import commit_of, origin


def git(folder, *arguments):
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "file").write_text("a")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1", "-m", "a tag is no commit")
    commit_of.cache_clear()
    return tmp_path


def test_commit_and_changes(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "untracked").write_text("of no account")
    assert commit_of(checkout) == commit
    (checkout / "file").write_text("b")
    commit_of.cache_clear()
    assert commit_of(checkout) == f"{commit}-dirty"


def test_repository_around_a_checkout_is_not_its_own(checkout, tmp_path_factory):
    (checkout / "inner").mkdir()
    assert commit_of(checkout / "inner") is None
    assert commit_of(tmp_path_factory.mktemp("none")) is None


def test_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) is None


def test_command_can_be_called_again_and_date_is_of_now(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--root", "my data"])
    found = origin()
    assert shlex.split(found["command"]) == ["python", "train.py", "--root", "my data"]
    age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(found["date"])
    assert abs(age.total_seconds()) < 60
