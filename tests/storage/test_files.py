"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import time

import pytest

from storage import files
from storage.files import ABANDONED_AFTER, atomic_write, part_of, put, put_folder, sweep
from storage.ownership import Process, this_process


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


def leave(path, process, old=False):
    """What a process was writing for `path`."""
    part = path.with_name(f".{path.name}-{process}{'-' if isinstance(process, Process) else ''}{'5' * 8}.part")
    part.write_text("half")
    if old:
        age(part)
    return part


GONE = Process(this_process().machine, 2**31 - 1, "1")
EARLIER = this_process()._replace(started="1")  # another one of this number
ELSEWHERE = Process("0" * 12, 1, "1")
OLDER_VERSION = "0" * 24  # names had no process


@pytest.mark.parametrize("by", ["the next write", "a sweep"])
def test_what_a_killed_process_left_is_removed_beside_a_live_one(tmp_path, by):
    path, beside = tmp_path / "a[1]-b.json", tmp_path / "c.json"
    gone = [leave(path, GONE), leave(path, EARLIER), leave(path, ELSEWHERE, old=True), leave(path, OLDER_VERSION, True)]
    live = part_of(path)
    live.write_text("half")
    age(live)
    (tmp_path / "x").mkdir()
    kept = [live, leave(path, ELSEWHERE._replace(number=2)), leave(path, OLDER_VERSION.replace("0", "1"))]
    for number, name in enumerate((".a[1]-b.json-x.part", "own-1.part", ".part", ".hidden", ".a-b-c-d.part")):
        kept.append(tmp_path / name)  # of others
        kept[-1].write_text(str(number))
        age(kept[-1])
    others = [leave(beside, GONE), leave(tmp_path / "x/d", GONE)]
    if by == "a sweep":
        sweep(tmp_path)
    else:
        write(path, "new")
        assert path.read_text() == "new"
    assert [part for part in gone if part.exists()] == []
    assert [part for part in kept if not part.exists()] == []
    assert [part.exists() for part in others] == [by != "a sweep", True]
    sweep(tmp_path, below=True)
    assert [part for part in others if part.exists()] == []


def test_half_a_folder_is_removed_with_what_is_in_it_and_links_are_not_followed(tmp_path):
    folder, other = tmp_path / f".images-{GONE}-{'5' * 8}.part", tmp_path / f".other-{GONE}-{'5' * 8}.part"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/1.png").touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/1.png").touch()
    other.symlink_to(tmp_path / "kept")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert (tmp_path / "kept/1.png").exists()
    sweep(tmp_path / "nowhere")


def recorded(monkeypatch):
    """Calls that bring something to the disk, in their order."""
    calls = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def synced(descriptor):
        calls.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}')).rpartition('.')[2]}")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(files.os, "replace", lambda *paths: (calls.append("rename"), replace(*paths)))
    monkeypatch.setattr(files.os, "rename", lambda *paths: (calls.append("rename"), rename(*paths)))
    return calls


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_data_are_on_the_disk_before_the_name_is_and_the_name_at_the_end(tmp_path, monkeypatch):
    folder = tmp_path / "x.folder"
    folder.mkdir()
    calls = recorded(monkeypatch)
    write(folder / "a.json", "new")
    assert calls == ["fsync part", "rename", "fsync folder"]
    calls.clear()
    (folder / "b.new").write_text("b")
    put(folder / "b.new", folder / "b")
    assert calls == ["fsync new", "rename", "fsync folder"]
    calls.clear()
    monkeypatch.setattr(files.ctypes, "CDLL", lambda _: None)  # without the call that is faster
    (folder / "c.part").mkdir()
    (folder / "c.part/d.png").touch()
    put_folder(folder / "c.part", folder / "c")
    assert calls == ["fsync png", "fsync part", "rename", "fsync folder"]
    assert (folder / "c/d.png").exists()


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
    with pytest.raises(OSError, match=r"No space left on device: .*a\.json"):
        write(tmp_path / "a.json", "new")
    assert list(tmp_path.iterdir()) == []
