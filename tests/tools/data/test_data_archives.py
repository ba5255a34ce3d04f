"""Unpacking archives: what is taken, what is refused, and what a killed call leaves."""

from __future__ import annotations

import os
import random
import tarfile
from pathlib import Path

import pytest

from tools.data import archives as module
from tools.data.archives import unpack
from trees import tree, write_archive


def left(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(params=["data filter", "own checks"])
def filtered(request, monkeypatch):
    """With tarfile's data filter, and without it, as in older Pythons."""
    if request.param == "own checks":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has no data filter")


MEMBERS = {
    "dtd/": b"",
    "./dtd/images/a/1.jpg": b"one",
    "dtd/images/b/2.jpg": b"two",
    "dtd/images/a/._1.jpg": b"macOS",
    "__MACOSX/dtd/images/x": b"macOS",
    "dtd/labels.txt": b"labels",
    "dtd/images2/3.jpg": b"three",
}


@pytest.mark.parametrize("file", ["x.tar", "x.tar.gz", "x.tgz", "x.zip"])
@pytest.mark.usefixtures("filtered")
def test_parts_are_unpacked_under_their_new_names(tmp_path, file):
    archive = write_archive(tmp_path / file, MEMBERS)
    folder = tmp_path / "set"
    assert unpack(archive, {"dtd/images": "pictures", "dtd/labels.txt": "labels.txt"}, str(folder)) == [
        "pictures",
        "labels.txt",
    ]
    assert tree(folder) == {"labels.txt": b"labels", "pictures/a/1.jpg": b"one", "pictures/b/2.jpg": b"two"}
    assert left(folder) == ["labels.txt", "pictures"]


def test_what_is_there_is_left_alone(tmp_path):
    archive = write_archive(tmp_path / "x.tar", MEMBERS)
    (tmp_path / "pictures").mkdir()
    assert unpack(archive, {"dtd/images": "pictures", "dtd/labels.txt": "labels.txt"}, str(tmp_path)) == ["labels.txt"]
    assert list((tmp_path / "pictures").iterdir()) == []
    os.remove(archive)
    assert unpack(archive, {"dtd/images": "pictures", "dtd/labels.txt": "labels.txt"}, str(tmp_path)) == []


def test_killed_call_is_gone_on_with(tmp_path, monkeypatch):
    archive = write_archive(tmp_path / "x.zip", MEMBERS)
    parts = {"dtd/images": "images", "dtd/labels.txt": "labels.txt"}
    folder, copied = tmp_path / "set", []
    copy = module.shutil.copyfileobj

    def stop_at_second(source, target, *rest):
        if copied:
            target.write(b"ha")
            raise KeyboardInterrupt
        copied.append(target.name)
        copy(source, target, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copyfileobj", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            unpack(archive, parts, str(folder))
    assert not (folder / "images").exists()
    first = folder / ".x.zip.part" / "dtd" / "images" / "a" / "1.jpg"
    before = first.stat().st_ino

    rename, renamed = os.rename, []

    def stop_after_first(source, target):
        if renamed:
            raise KeyboardInterrupt
        renamed.append(target)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "rename", stop_after_first)
        with pytest.raises(KeyboardInterrupt):
            unpack(archive, parts, str(folder))
    assert (folder / "images" / "a" / "1.jpg").stat().st_ino == before  # moved, not written again
    unpack(archive, parts, str(folder))
    assert tree(folder) == {"labels.txt": b"labels", "images/a/1.jpg": b"one", "images/b/2.jpg": b"two"}
    assert left(folder) == ["images", "labels.txt"]


@pytest.mark.parametrize("file", ["x.tar", "x.zip"])
@pytest.mark.parametrize("name", ["../evil", "dtd/../../evil", "/evil", "dtd/images/../../../evil", "dtd/a/../evil"])
@pytest.mark.usefixtures("filtered")
def test_path_out_of_the_folder(tmp_path, file, name):
    archive = write_archive(tmp_path / file, {"dtd/a": b"a", name: b"evil"})
    with pytest.raises(ValueError, match="unsafe path"):
        unpack(archive, {"dtd": "dtd"}, str(tmp_path / "deep" / "set"))
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path / "deep" / "set" / "dtd").exists()


@pytest.mark.parametrize(
    ("file", "link"),
    [
        ("x.zip", (tarfile.SYMTYPE, "/etc/passwd")),
        ("x.tar", (tarfile.SYMTYPE, "/etc/passwd")),
        ("x.tar", (tarfile.SYMTYPE, "a")),
        ("x.tar", (tarfile.LNKTYPE, "../../secret")),
        ("x.tar", (tarfile.FIFOTYPE, "")),
        ("x.tar", (tarfile.CHRTYPE, "")),
        ("x.tar", (tarfile.BLKTYPE, "")),
    ],
)
@pytest.mark.usefixtures("filtered")
def test_links_and_devices(tmp_path, file, link):
    archive = write_archive(tmp_path / file, {"dtd/a": b"a", "dtd/b": link})
    with pytest.raises(ValueError, match=r"holds 'dtd/b', which is a link, a device or encrypted"):
        unpack(archive, {"dtd": "dtd"}, str(tmp_path / "set"))
    assert not (tmp_path / "set" / "dtd").exists()


@pytest.mark.parametrize("file", ["x.tar", "x.zip"])
@pytest.mark.parametrize("place", ["dtd", "dtd/a"])
@pytest.mark.usefixtures("filtered")
def test_link_in_the_hidden_folder_is_not_followed(tmp_path, file, place):
    """What somebody else has put where an earlier call stopped."""
    archive = write_archive(tmp_path / file, {"dtd/a": b"a"})
    outside, hidden = tmp_path / "outside", tmp_path / "set" / f".{file}.part"
    outside.mkdir()
    (hidden / place).parent.mkdir(parents=True)
    (hidden / place).symlink_to(outside)
    with pytest.raises(ValueError, match=r"holds 'dtd/a', which cannot be unpacked into .*part: "):
        unpack(archive, {"dtd": "dtd"}, str(tmp_path / "set"))
    assert left(outside) == []
    assert not (tmp_path / "set" / "dtd").exists()


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python has no data filter")
def test_tarfiles_own_filter_has_a_say(tmp_path, monkeypatch):
    def refuse(member, folder):
        raise tarfile.SpecialFileError(member)

    monkeypatch.setattr(tarfile, "data_filter", refuse)
    archive = write_archive(tmp_path / "x.tar", {"dtd/a": b"a"})
    with pytest.raises(ValueError, match=r"holds 'dtd/a', which cannot be unpacked into .*: 'dtd/a' is a special file"):
        unpack(archive, {"dtd": "dtd"}, str(tmp_path / "set"))


def test_link_that_is_not_asked_for_does_no_harm(tmp_path):
    archive = write_archive(tmp_path / "x.tar", {"dtd/a": b"a", "other": (tarfile.SYMTYPE, "/etc/passwd")})
    unpack(archive, {"dtd": "dtd"}, str(tmp_path / "set"))
    assert tree(tmp_path / "set") == {"dtd/a": b"a"}


@pytest.mark.parametrize("file", ["x.tar", "x.tgz", "x.zip"])
@pytest.mark.parametrize("damage", ["cut", "half", "empty", "text", "flip"])
def test_damaged_archive(tmp_path, file, damage):
    members = {f"dtd/{index}": random.Random(index).randbytes(3000) for index in range(5)}
    archive = write_archive(tmp_path / file, members)
    content = Path(archive).read_bytes()
    middle = len(content) // 2
    damaged = {
        "cut": content[:-30],
        "half": content[:middle],
        "empty": b"",
        "text": b"<html>not found</html>",
        "flip": content[:middle] + bytes(255 - b for b in content[middle : middle + 600]) + content[middle + 600 :],
    }
    if file == "x.tar":  # which checks its headers, and nothing in a member
        damaged["cut"] = content[: 2 * 3584]  # between two members of 3,000 bytes
        damaged["flip"] = content.replace(b"dtd/3", b"dtd/X", 1)
    Path(archive).write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=r"the archive .* is damaged"):
        unpack(archive, {"dtd": "dtd"}, str(tmp_path / "set"))
    assert left(tmp_path / "set") == []


def test_archive_of_something_else(tmp_path):
    archive = write_archive(tmp_path / "x.tar", {"dtd/images/1.jpg": b"one"})
    with pytest.raises(ValueError, match=r"must hold dtd/labels, but does not"):
        unpack(archive, {"dtd/images": "images", "dtd/labels": "labels"}, str(tmp_path / "set"))
    assert left(tmp_path / "set") == [".x.tar.part"]
