"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import time

import pytest

from trainers.modules import files
from trainers.modules.files import ABANDONED_AFTER, atomic_write, part_of


def write(path, text, **options):
    with atomic_write(path, **options) as part:
        part.write_text(text)


def age(path):
    old = time.time() - ABANDONED_AFTER - 60
    os.utime(path, (old, old))


def test_file_is_there_once_written(tmp_path):
    path = tmp_path / "a.json"
    with atomic_write(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def cut():
        with atomic_write(path) as part:
            part.write_text("half")
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        cut()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "a.json"
    with atomic_write(path) as first:
        first.write_text("first")
        with atomic_write(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


@pytest.mark.parametrize("links", [True, False])
def test_file_of_another_process_may_be_kept(tmp_path, monkeypatch, links):
    """Also on a file system without links."""
    path = tmp_path / "split.json"

    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    write(path, "first", replace=False)
    write(path, "second", replace=False)
    assert path.read_text() == "first"
    write(path, "third")
    assert path.read_text() == "third"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_beside_a_live_one(tmp_path):
    path, folder = tmp_path / "a[1].json", tmp_path / ".a[1].json-x.part"
    left, live, other = part_of(path), part_of(path), part_of(tmp_path / "b.json")
    for part in (left, live, other):
        part.write_text("half")
    folder.mkdir()  # which is none of ours
    for part in (left, other, folder):
        age(part)
    write(path, "new")
    assert {part for part in (left, live, other, folder) if part.exists()} == {live, other, folder}


def test_folder_that_cannot_be_synchronised_does_not_lose_the_file(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor):
        synced.append(os.fstat(descriptor))
        if len(synced) == 2:
            raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(files.os, "fsync", fsync)
    write(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
    assert len(synced) == (2 if os.name == "posix" else 1)


def test_full_disk_is_told(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a.json", "new")
    assert list(tmp_path.iterdir()) == []
