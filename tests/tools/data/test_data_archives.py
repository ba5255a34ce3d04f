"""Unpacking archives: what is taken, what is refused, and what a killed call leaves."""

from __future__ import annotations

import errno
import io
import os
import random
import tarfile
import tracemalloc
import zipfile
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

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "put", stop)  # of a file, after the folder has been moved
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
    with pytest.raises(ValueError, match=r"holds 'dtd/b', which is a link, a device, sparse or encrypted"):
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
    assert left(tmp_path / "set") == []


@pytest.mark.parametrize("file", ["x.tar", "x.zip"])
def test_members_whose_names_are_those_of_parts(tmp_path, file):
    members = {"dtd/x.part": b"first", "dtd/x": b"second", "dtd/x.part.part": b"third"}
    unpack(write_archive(tmp_path / file, members), {"dtd": "dtd"}, str(tmp_path / "set"))
    assert tree(tmp_path / "set") == dict(sorted(members.items()))


@pytest.mark.parametrize("file", ["x.tar", "x.zip"])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"dtd/a": b"a", "dtd/a/b": b"b"}, "'dtd/a/b' both as a file and as a folder"),
        ({"dtd/a/b": b"b", "dtd/a": b"a"}, "'dtd/a' both as a file and as a folder"),
        ({"dtd/a": b"a", "./dtd/a": b"b"}, "'dtd/a' twice"),
        ({"dtd/" + "a/" * 3000 + "x": b""}, r"'dtd/a/.*\.\.\.', 3,002 levels deep"),
        ({"dtd/" + "a" * 256: b""}, "255 bytes a name"),
    ],
)
@pytest.mark.usefixtures("filtered")
def test_paths_that_cannot_be(tmp_path, file, members, message):
    archive = write_archive(tmp_path / file, {"dtd/0": b"0", **members})
    with pytest.raises(ValueError, match=message):
        unpack(archive, {"dtd": "dtd"}, str(tmp_path / "set"))
    assert left(tmp_path / "set") == []


def sparse_tar(path, size):
    """A file that claims a terabyte, in some hundred bytes."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("dtd/a")
        entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(size)}
        entry.pax_headers.update({"GNU.sparse.map": f"0,1,{size},0", "GNU.sparse.name": "dtd/a"})
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    return str(path)


@pytest.mark.usefixtures("filtered")
def test_sparse_file(tmp_path):
    archive = sparse_tar(tmp_path / "x.tgz", 1 << 40)
    assert os.path.getsize(archive) < 1000
    with pytest.raises(ValueError, match="holds 'dtd/a', which is a link, a device, sparse"):
        unpack(archive, {"dtd": "dtd"}, str(tmp_path / "set"))
    assert left(tmp_path / "set") == []


@pytest.mark.parametrize("file", ["x.tgz", "x.zip"])
def test_archive_that_unpacks_to_far_too_much(tmp_path, file, monkeypatch):
    """By its size, by the number of images that are published, and by the number of files."""
    monkeypatch.setattr(module, "BESIDE", 1 << 20)
    monkeypatch.setattr(module, "BESIDE_FILES", 20)
    noise, zeros = random.Random(0).randbytes(1 << 18), bytes(1 << 20)
    packed = {f"dtd/{n}": zeros if n < 8 else noise for n in range(12)}
    path = tmp_path / file
    if file == "x.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in packed.items():
                archive.writestr(name, content)
    else:
        write_archive(path, packed)
    assert unpack(str(path), {"dtd": "dtd"}, str(tmp_path / "a"), images=10) == ["dtd"]
    with pytest.raises(ValueError, match=r"unpacks to more than 5,242,880 bytes or 30 files, which the published one"):
        unpack(str(path), {"dtd": "dtd"}, str(tmp_path / "b"), images=1)
    monkeypatch.setattr(module, "RATIO", 5)
    with pytest.raises(ValueError, match="unpacks to more than"):
        unpack(str(path), {"dtd": "dtd"}, str(tmp_path / "b"), images=10)
    many = write_archive(tmp_path / f"many{file[1:]}", {f"dtd/{n}": b"" for n in range(31)})
    with pytest.raises(ValueError, match="or 30 files"):
        unpack(many, {"dtd": "dtd"}, str(tmp_path / "b"), images=1)
    assert left(tmp_path / "b") == []


@pytest.mark.parametrize("first", [True, False])
def test_what_is_said_about_a_member_may_not_fill_the_memory(tmp_path, first):
    path = tmp_path / "x.tgz"
    with tarfile.open(path, "w:gz") as archive:
        long = tarfile.TarInfo("././@LongLink")
        long.type, long.size = tarfile.GNUTYPE_LONGNAME, 64 << 20
        if not first:
            archive.addfile(tarfile.TarInfo("dtd/a"))
        archive.addfile(long, io.BytesIO(bytes(64 << 20)))
        archive.addfile(tarfile.TarInfo("dtd/b"))
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=r"is damaged \((what it says about a member has 67,108,864 bytes|it is no tar)"
    ):
        unpack(str(path), {"dtd": "dtd"}, str(tmp_path / "set"))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 << 20
    assert left(tmp_path / "set") == []


def test_headers_after_headers(tmp_path):
    """tarfile looks for what they are about by recursion."""
    path = tmp_path / "x.tar"
    long = tarfile.TarInfo("././@LongLink")
    long.type = tarfile.GNUTYPE_LONGNAME
    path.write_bytes(long.tobuf() * 5000)
    with pytest.raises(ValueError, match="is damaged"):
        unpack(str(path), {"dtd": "dtd"}, str(tmp_path / "set"))
    assert left(tmp_path / "set") == []


@pytest.mark.parametrize("file", ["x.tar", "x.tgz", "x.zip"])
def test_disk_that_has_no_room(tmp_path, file, monkeypatch):
    """It is asked before, and nothing is left to fill it."""
    archive = write_archive(tmp_path / file, {f"dtd/{n}": random.Random(n).randbytes(10_000) for n in range(2)})
    usage = module.shutil.disk_usage(tmp_path)
    for free, written in ((5_000, 0), (15_000, 0), (25_000, 1)):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        if written:
            monkeypatch.setattr(module.shutil, "copyfileobj", fill_up)
        with pytest.raises(OSError, match=r"bytes left|No space left"):
            unpack(archive, {"dtd": "dtd"}, str(tmp_path / "set"))
        assert left(tmp_path / "set") == []


def fill_up(source, target, *_):
    target.write(source.read(100))
    raise OSError(errno.ENOSPC, "No space left on device")
