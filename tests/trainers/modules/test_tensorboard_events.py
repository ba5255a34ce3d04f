"""TensorBoard's log where it cannot be written: one error, and no traceback of TensorBoard's own thread."""

from __future__ import annotations

import _thread
import errno
import resource
import threading
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from trainers.modules.tensorboard_events import drop_events, naming, writer_tells_once


@pytest.fixture
def small_files():
    """No file may grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def log_until_it_fails(folder):
    writer = SummaryWriter(folder, flush_secs=0)
    for step in range(100_000):
        writer.add_scalar("train/loss", 0.5, step)


def test_error_of_its_thread_is_raised_and_not_printed(tmp_path, small_files, capfd):
    hook = threading.excepthook
    with pytest.raises(OSError, match="too large") as raised, writer_tells_once(), naming(tmp_path):
        log_until_it_fails(tmp_path)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(tmp_path))
    assert capfd.readouterr().err == ""
    assert threading.excepthook is hook


@pytest.mark.parametrize("kind", [ValueError, OSError])
def test_other_threads_errors_are_printed(kind, capfd, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", _thread._excepthook)  # pytest has its own

    def fail():
        raise kind("of another thread")

    with writer_tells_once():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert f"{kind.__name__}: of another thread" in capfd.readouterr().err


def test_error_that_names_a_file_keeps_it(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, naming(tmp_path):
        (tmp_path / "missing").read_bytes()
    assert raised.value.filename == str(tmp_path / "missing")


def test_what_is_no_file_is_not_read(tmp_path):
    Path(tmp_path, "events.out.tfevents.1").symlink_to("/dev/zero")
    Path(tmp_path, "events.out.tfevents.2").mkdir()
    drop_events(tmp_path, 0, 0)
