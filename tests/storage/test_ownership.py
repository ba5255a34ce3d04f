"""One owner per folder: who comes second is told, and a dead owner does not block."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers import ROOT
from storage import ownership
from storage.ownership import FolderInUse, OwnershipLost, own_folder, owner_of, this_process

OWN = """
import sys, time
sys.path.insert(0, "storage")
from ownership import own_folder
with own_folder(sys.argv[1]):
    print("mine", flush=True)
    time.sleep(60)
"""


def start(folder, code=OWN):
    """A process that owns a folder."""
    process = subprocess.Popen([sys.executable, "-c", code, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    return process


# A process on one of several machines, which cannot see whether the others' processes run
CONTENDER = """
import sys, time
sys.path.insert(0, "storage")
import ownership
ownership.this_machine = lambda: sys.argv[1]
ownership.BEAT, ownership.SILENT = 0.05, 0.4
while True:
    try:
        with ownership.own_folder(sys.argv[2]) as owned:
            for step in range(20):
                owned.check()
                with open(sys.argv[2] + "/journal", "a") as journal:
                    journal.write(owned._key + "\\n")
                time.sleep(0.01)
    except ownership.OwnershipLost:
        pass
    except (ownership.FolderInUse, OSError):
        time.sleep(0.02)
"""


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def leave(folder, age=0.0, **changed):
    """An owner's file, of this process but for what is changed, that was renewed last `age` seconds ago."""
    folder.mkdir(exist_ok=True)
    machine, number, started = this_process()
    said = {"machine": machine, "number": number, "started": started, "host": "there", "since": "2030-01-01 00:00:00"}
    path = folder / ".owner"
    path.write_text(json.dumps([*{**said, **changed}.values(), "0"]))
    os.utime(path, (time.time() - age,) * 2)


def test_second_process_is_told_who_runs(tmp_path):
    process = start(tmp_path / "run")
    try:
        (tmp_path / "run/log.txt").write_text("its log")
        with pytest.raises(FolderInUse) as refused, own_folder(tmp_path / "run"):
            pass
        assert refused.value.owner == owner_of(tmp_path / "run")
        assert refused.value.owner.process.number == process.pid
        again = pickle.loads(pickle.dumps(refused.value))
        assert (str(again), again.owner) == (str(refused.value), refused.value.owner)
        host = re.sub(r"[^\w.-]", "_", os.uname().nodename)
        assert f"run is in use by process {process.pid} on {host} since 20" in str(refused.value)
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".owner", "log.txt"]
    finally:
        end(process)


def test_killed_process_owns_nothing(tmp_path):
    process = start(tmp_path / "run")
    process.kill()
    while ownership._started(process.pid) != "ended":  # it stays in the table, as nobody has asked for its status
        time.sleep(0.01)
    with own_folder(tmp_path / "run"):
        assert owner_of(tmp_path / "run").process.number == os.getpid()
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".owner"]
    end(process)
    assert owner_of(tmp_path / "run") is None


def test_folders_that_were_made_go_again_unless_something_is_in_them(tmp_path):
    with own_folder(tmp_path / "a/b"):
        assert (tmp_path / "a/b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with own_folder(tmp_path / "a/b"):
        (tmp_path / "a/file").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    with own_folder(tmp_path / "a"):
        (tmp_path / "a/file").unlink()
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize("moment", ["mkdir", "is_dir"])
def test_folder_around_that_another_owner_removes_is_made_again(tmp_path, monkeypatch, moment):
    """As at the ends of two runs of one method: both remove the folder that they share, where it is empty."""
    seed, removed = tmp_path / "CoOp/seed1", []
    real = getattr(Path, moment)

    def remove_after(path, *args, **kwargs):
        found = None if moment == "is_dir" else real(path, *args, **kwargs)
        if path in (seed, seed.parent) and not removed:
            removed.append(path)
            for place in (seed, seed.parent):
                if place.exists():
                    place.rmdir()
        return real(path) if moment == "is_dir" else found

    if moment == "is_dir":  # the other one's, which is asked for as it cannot be made
        seed.mkdir(parents=True)
    monkeypatch.setattr(Path, moment, remove_after)
    with own_folder(seed):
        assert owner_of(seed).process.number == os.getpid()
    assert removed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["run", "run/seed1"])
@pytest.mark.parametrize("is_link", [False, True])
def test_file_in_the_place_of_a_folder_is_told(tmp_path, place, is_link):
    if is_link:
        (tmp_path / "run").symlink_to("nowhere")
    else:
        (tmp_path / "run").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)) as told, own_folder(tmp_path / place):
        pass
    assert os.fspath(told.value.filename) in (str(tmp_path / "run"), str(tmp_path / place))


def test_folder_that_can_never_be_made_is_told(tmp_path, monkeypatch):
    """As below /proc, where the system says that it is not there."""

    def refuse(path, *args, **kwargs):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(ownership.time, "sleep", lambda seconds: None)
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*run"), own_folder(tmp_path / "run"):
        pass


def test_it_is_one_ownership_inside_another_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with own_folder(tmp_path / "run") as outer:
        with own_folder("run") as inner:
            assert inner is outer
        inner.check()
    assert not (tmp_path / "run").exists()


def test_other_threads_are_others(tmp_path):
    said = []

    def come():
        try:
            with own_folder(tmp_path):
                said.append("mine")
        except FolderInUse as refused:
            said.append(refused.owner.process)

    with own_folder(tmp_path):
        thread = threading.Thread(target=come)
        thread.start()
        thread.join()
    assert said == [this_process()]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"number": 2**31 - 1}, id="a number that no process has"),
        pytest.param({"started": "12"}, id="an earlier process of this number"),
    ],
)
def test_dead_owner_on_this_machine_does_not_block(tmp_path, changed):
    leave(tmp_path, **changed)
    with own_folder(tmp_path) as owned:
        owned.check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "broken",
    [b"", b"[", b"[1, 2]", b'["", 1e400, "", "", "", ""]', b'{"a": 1}', b"[" * 4000, b"\xff" * 10**6],
)
def test_owner_elsewhere_blocks_until_it_was_silent_for_long(tmp_path, broken):
    """So does one whose file tells nothing, as after a power failure."""
    leave(tmp_path, age=ownership.SILENT - 60, machine="another one")
    with pytest.raises(FolderInUse, match=r"on there since 2030-01-01 00:00:00, which gave a sign of life 2\d\d s ago"):
        own_folder(tmp_path).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == [".owner"]
    leave(tmp_path, age=ownership.SILENT + 60, machine="another one")
    with own_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []

    (tmp_path / ".owner").write_bytes(broken)
    with pytest.raises(FolderInUse, match="in use by a process that has not said which, which gave a sign of life"):
        own_folder(tmp_path).__enter__()
    os.utime(tmp_path / ".owner", (1, 1))
    with own_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


JOB = {"SLURM_JOB_ID": "77", "SLURM_CLUSTER_NAME": "hpc", "SLURM_RESTART_COUNT": "1"}


def leave_job(folder, age, job):
    leave(folder, machine="another one")
    path = folder / ".owner"
    path.write_text(json.dumps([*json.loads(path.read_text()), job]))
    os.utime(path, (time.time() - age,) * 2)


@pytest.fixture
def in_job(monkeypatch):
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)


def test_owner_of_the_same_job_blocks_for_a_minute_once_the_job_has_started_again(tmp_path, in_job, monkeypatch):
    leave_job(tmp_path, ownership.SILENT_ENDED + 5, ["hpc", "77", 0])
    with own_folder(tmp_path):
        assert owner_of(tmp_path).job == ("hpc", "77", 1)

    passed, signs = [], []

    def sleep(seconds):
        passed.append(seconds)
        if signs:
            utime(tmp_path / ".owner", (time.time(),) * 2)

    utime = os.utime
    monkeypatch.setattr(ownership.time, "sleep", sleep)
    monkeypatch.setattr(
        ownership.os, "utime", lambda path, times=None: utime(path, times or (time.time() + sum(passed),) * 2)
    )
    leave_job(tmp_path, 20.0, ["hpc", "77", 0])
    with own_folder(tmp_path):
        pass
    assert passed == pytest.approx([15.0, 15.0, 11.0], abs=1.0)
    passed.clear()
    signs.append("of life")
    leave_job(tmp_path, 20.0, ["hpc", "77", 0])
    with pytest.raises(FolderInUse, match="on there since"):
        own_folder(tmp_path).__enter__()
    assert passed == [15.0]


@pytest.mark.parametrize(
    "job",
    [["hpc", "77", 1], ["hpc", "77", 2], ["hpc", "78", 0], ["other", "77", 0], None, [], ["hpc", "77"], ["hpc", 77, 0]],
)
def test_owner_of_another_job_blocks_as_any(tmp_path, in_job, job):
    """So does one of the same job that has not been put back into the queue since, as several nodes may run it."""
    leave_job(tmp_path, ownership.SILENT - 60, job)
    with pytest.raises(FolderInUse):
        own_folder(tmp_path).__enter__()
    leave_job(tmp_path, ownership.SILENT + 60, job)
    with own_folder(tmp_path):
        pass


@pytest.mark.parametrize("changed", [{"SLURM_RESTART_COUNT": "x"}, {"SLURM_JOB_ID": ""}, {"SLURM_JOB_ID": "a\nb"}])
def test_environment_that_tells_no_job(tmp_path, in_job, monkeypatch, changed):
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with own_folder(tmp_path):
        assert owner_of(tmp_path).job is None


def test_of_several_machines_one_owns_at_a_time(tmp_path):
    """Processes that cannot see each other, and are killed or stand still. Who lost ends at most what it had begun."""
    chance, journal = random.Random(3), tmp_path / "journal"
    running, ended = [], []

    def come(number):
        command = [sys.executable, "-c", CONTENDER, f"{number:012x}", tmp_path]
        running.append(subprocess.Popen(command, cwd=ROOT))

    def owners():
        return [line.split()[0] for line in journal.read_text().splitlines()] if journal.exists() else []

    for number in range(3):
        come(number)
    limit = time.monotonic() + 60
    while len(set(owners())) < 6 and time.monotonic() < limit:
        time.sleep(chance.uniform(0.05, 0.2))
        process = running.pop(0)
        if chance.random() < 0.5:
            process.kill()
            ended.append(process)
            come(3 + len(ended))
        else:
            process.send_signal(signal.SIGSTOP)
            time.sleep(chance.choice([0.1, 0.6]))
            process.send_signal(signal.SIGCONT)
            running.append(process)
    for process in (*running, *ended):
        process.kill()
        process.wait()
    found = owners()
    assert len(set(found)) >= 6
    for owner in set(found):
        first = found.index(owner)
        others = [n for n, other in enumerate(found) if other != owner and n > first]
        assert not others or found[others[0] :].count(owner) <= 1


def test_text_of_an_owner_is_not_printed_raw(tmp_path):
    leave(tmp_path, machine="another one", host="there\n* accuracy: 99\x1b[2J")
    with pytest.raises(FolderInUse) as refused:
        own_folder(tmp_path).__enter__()
    assert "accuracy" not in str(refused.value)


def test_owners_file_that_is_none_is_told(tmp_path):
    os.mkfifo(tmp_path / ".owner")
    with pytest.raises(OSError, match="it should be a file that tells the folder's owner"):
        own_folder(tmp_path).__enter__()


def test_owner_gives_signs_of_life_and_sees_who_takes_over(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "BEAT", 0.01)
    with own_folder(tmp_path) as owned:
        path = tmp_path / ".owner"
        os.utime(path, (1, 1))
        limit = time.monotonic() + 20
        while path.stat().st_mtime < 2 and time.monotonic() < limit:
            time.sleep(0.01)
        assert path.stat().st_mtime > 2
        leave(tmp_path, machine="another one", age=100)
        with pytest.raises(OwnershipLost, match=r"process .* on there .* has taken over; nothing more is written"):
            owned.check()
        time.sleep(0.1)
        assert time.time() - path.stat().st_mtime > 90  # it is no longer renewed
    assert path.exists()
    path.unlink()
    with own_folder(tmp_path) as owned:
        path.unlink()
        with pytest.raises(OwnershipLost, match="was removed"):
            owned.check()


@pytest.mark.parametrize("links", [True, False])
def test_of_many_one_takes_over_at_a_time(tmp_path, monkeypatch, links):
    """Threads are others, too; each finds the files that those before it left as they were killed."""
    if not links:

        def refuse(*_):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(ownership.os, "link", refuse)
    inside, counts, refused = [], [], []

    def come():
        for _ in range(15):
            try:
                with own_folder(tmp_path):
                    inside.append(1)
                    counts.append(len(inside))
                    time.sleep(0.002)
                    inside.pop()
                    dead = [this_process().machine, 2**31 - 1, "1", "there", "2030-01-01 00:00:00", len(counts)]
                    # As if it were killed here: a live owner's file becomes a dead one's.
                    (tmp_path / "dead").write_text(json.dumps(dead))
                    os.replace(tmp_path / "dead", tmp_path / ".owner")
            except FolderInUse:
                refused.append(1)
                time.sleep(0.002)

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(counts) == {1}
    assert len(counts) + len(refused) == 90
    assert len(counts) > 10


def test_takeover_that_was_cut_is_taken_over(tmp_path):
    """A dead owner, and a second one that was killed between its link and its rename."""
    leave(tmp_path, number=2**31 - 1)
    first = owner_of(tmp_path)
    (tmp_path / "x").write_text(json.dumps([*first.process, "there", "2030-01-01 00:00:00", "1"]))
    os.rename(tmp_path / "x", tmp_path / f".owner.{first.key}")
    (tmp_path / ".owner-left").touch()
    assert owner_of(tmp_path) != first
    with own_folder(tmp_path) as owned:
        owned.check()
        assert [path.name for path in tmp_path.iterdir()] == [".owner"]
    assert list(tmp_path.iterdir()) == []


def test_interrupt_while_it_becomes_the_owner_leaves_none(tmp_path, monkeypatch):
    settle = ownership._settle

    def interrupt(*arguments):
        settle(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(ownership, "_settle", interrupt)
    with pytest.raises(KeyboardInterrupt):
        own_folder(tmp_path / "run").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_forked_process_does_not_own_and_does_not_release(tmp_path):
    with own_folder(tmp_path) as owned:
        child = os.fork()
        if child == 0:
            try:
                own_folder(tmp_path).__enter__()
            except FolderInUse:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        owned.check()


def test_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        own_folder(tmp_path / "file/run").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_logs_of_a_failed_run_are_removed_by_who_owns_them(tmp_path):
    def clean():
        command = [sys.executable, "storage/ownership.py", tmp_path / "run"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    (tmp_path / "run/tensorboard").mkdir(parents=True)
    for file in ("log.txt", "log.txt-2030-01-01", "tensorboard/events"):
        (tmp_path / "run" / file).touch()
    process = start(tmp_path / "run")
    assert "in use" in clean().stderr
    assert (tmp_path / "run/tensorboard/events").exists()
    end(process)
    (tmp_path / "run/results.json").touch()
    assert clean().returncode == 0
    assert (tmp_path / "run/log.txt").exists()
    (tmp_path / "run/results.json").unlink()
    assert clean().returncode == 0
    assert list((tmp_path / "run").iterdir()) == []


def test_process_is_told_from_others_where_there_is_no_proc(monkeypatch):
    """As on macOS, where ps is asked."""
    real = Path.read_text
    monkeypatch.setattr(Path, "exists", lambda path: False)

    def read_text(path, *arguments, **options):
        if path.parts[1] == "proc":
            raise FileNotFoundError(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    ownership.this_machine.cache_clear()
    try:
        process = this_process()
        assert process.started or not any(os.access(f"{folder}/ps", os.X_OK) for folder in os.get_exec_path())
        assert process.alive() is True
        assert process._replace(number=2**31 - 1).alive() is False
    finally:
        ownership.this_machine.cache_clear()


def test_signal_ends_an_owner_without_a_trace(tmp_path):
    process = start(tmp_path / "run")
    process.send_signal(signal.SIGINT)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "run").exists()
