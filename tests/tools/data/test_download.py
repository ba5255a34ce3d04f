"""Downloads from a local server that fails in many ways."""

from __future__ import annotations

import hashlib
import threading
import time
from types import SimpleNamespace

import pytest

from server import CONTENT, Server
from tools.data import download as module
from tools.data.download import DownloadError, download, lock

MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(server, path, md5=MD5, timeout=5.0, attempts=3):
    download(server.url, str(path), md5=md5, timeout=timeout, attempts=attempts, pause=0.0)
    return path.read_bytes()


def left(folder):
    return sorted(entry.name for entry in folder.iterdir())


# ---- downloads


@pytest.mark.parametrize("md5", [MD5, MD5.upper(), ""])
def test_whole_file(server, tmp_path, md5):
    assert fetch(server, tmp_path / "a", md5) == CONTENT
    assert left(tmp_path) == ["a"]
    assert len(server.requests) == 1


def test_file_that_is_there_is_not_fetched(server, tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    fetch(server, tmp_path / "a")
    assert server.requests == []
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"must have the MD5 checksum {MD5}"):
        fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_cut_connection_goes_on_where_it_broke(server, tmp_path):
    server.cuts = (300_000, 200_000)
    assert fetch(server, tmp_path / "a") == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=300000-", "bytes=500000-"]
    assert left(tmp_path) == ["a"]


def test_second_call_goes_on_where_the_first_gave_up(server, tmp_path):
    server.cuts = (300_000,)
    with pytest.raises(DownloadError, match=r"broke off after 300,000 of 1,024,000 bytes; gave up after 1 attempts"):
        fetch(server, tmp_path / "a", attempts=1)
    assert left(tmp_path) == ["a.part", "a.part.version"]
    assert fetch(server, tmp_path / "a", md5="") == CONTENT
    assert server.requests[-1]["Range"] == "bytes=300000-"
    assert left(tmp_path) == ["a"]


def test_server_without_ranges_starts_over(server, tmp_path):
    server.cuts, server.ranges = (300_000,), False
    assert fetch(server, tmp_path / "a") == CONTENT
    assert len(server.requests) == 2


def test_file_that_changed_in_between_starts_over(server, tmp_path):
    server.cuts = (300_000,)
    with pytest.raises(DownloadError):
        fetch(server, tmp_path / "a", attempts=1)
    server.content, server.tag = CONTENT[::-1], '"two"'
    assert fetch(server, tmp_path / "a", md5="") == CONTENT[::-1]


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_nothing_is_resumed_that_may_be_of_another_file(server, tmp_path, tag):
    server.cuts, server.tag = (300_000,), tag
    assert fetch(server, tmp_path / "a") == CONTENT
    assert "Range" not in server.requests[1]


def test_another_part_than_was_asked_for(server, tmp_path):
    server.cuts, server.wrong_range = (300_000,), True
    assert fetch(server, tmp_path / "a") == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=300000-", None]


def test_whole_part_file_of_a_killed_call_is_used(server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT)
    (tmp_path / "a.part.version").write_text(server.tag)
    assert fetch(server, tmp_path / "a") == CONTENT
    (tmp_path / "b.part").write_bytes(CONTENT + b"more")
    (tmp_path / "b.part.version").write_text(server.tag)
    assert fetch(server, tmp_path / "b") == CONTENT


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(DownloadError, match=f"does not have the MD5 checksum {MD5}"):
        fetch(server, tmp_path / "a")
    assert left(tmp_path) == []
    assert len(server.requests) == 1


def test_wrong_checksum_after_resuming_starts_over(server, tmp_path):
    (tmp_path / "a.part").write_bytes(b"!" * 300_000)
    (tmp_path / "a.part.version").write_text(server.tag)
    assert fetch(server, tmp_path / "a") == CONTENT
    assert [request.get("Range") for request in server.requests] == ["bytes=300000-", None]


def test_no_length_and_a_cut_is_seen_by_the_checksum(server, tmp_path):
    server.length, server.cuts = False, (300_000,)
    with pytest.raises(DownloadError, match="MD5"):
        fetch(server, tmp_path / "a")
    assert fetch(server, tmp_path / "b") == CONTENT


@pytest.mark.parametrize("status", [403, 404, 410])
def test_refusal_is_final(server, tmp_path, status):
    server.statuses = (status,)
    with pytest.raises(DownloadError, match=f"answers {status} "):
        fetch(server, tmp_path / "a")
    assert len(server.requests) == 1
    assert left(tmp_path) == []


def test_passing_refusals_are_retried_so_often(server, tmp_path, capsys):
    server.statuses = (503, 429)
    assert fetch(server, tmp_path / "a") == CONTENT
    assert "answers 503 Service Unavailable; trying again (2 of 3)" in capsys.readouterr().out
    server.statuses = (500,) * 100
    with pytest.raises(DownloadError, match=r"answers 500 .*; gave up after 3 attempts$"):
        fetch(server, tmp_path / "b")
    assert len(server.requests) == 6


def test_server_that_says_nothing_times_out(server, tmp_path):
    server.delay = 30.0
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"broke off \(timed out\); gave up after 2 attempts"):
        fetch(server, tmp_path / "a", timeout=0.2, attempts=2)
    assert time.monotonic() - start < 5


def test_trickle_times_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLOWEST", 1_000_000)
    server.delay = 0.05
    with pytest.raises(DownloadError, match=r"sends only \d+ bytes a second"):
        fetch(server, tmp_path / "a", timeout=0.2, attempts=1)
    assert left(tmp_path) == ["a.part", "a.part.version"]


def test_nobody_listens(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=r"cannot be reached \(.*refused.*\); gave up after 2 attempts$"):
        fetch(server, tmp_path / "a", attempts=2)
    assert left(tmp_path) == []


def test_only_http(tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ValueError, match="must start with http"):
        download(f"file://{tmp_path}/secret", str(tmp_path / "a"))


def test_full_disk_is_told_before_it_is_full(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="1,000 bytes left, 1,024,000 are needed"):
        fetch(server, tmp_path / "a")
    assert left(tmp_path) == []


def test_two_processes_do_not_write_one_file(server, tmp_path):
    with open(tmp_path / "a.part", "ab") as file:
        lock(file, "")
        with pytest.raises(OSError, match="another process is downloading"):
            fetch(server, tmp_path / "a")
    assert fetch(server, tmp_path / "a") == CONTENT
