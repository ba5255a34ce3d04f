"""The engine without Ray: order, failures, what is tried again, what is told, and that nothing is left running."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from helpers import ROOT, kill_once, runs_still
from storage import interrupts
from tools.common.waiting import wait_for
from tools.sweep import engine, work
from tools.sweep.engine import Failure, OneByOne, Run, carry_out, choose_engine, clear_logs
from tools.sweep.view import Bars, Forecast, View, duration, pace_of, progress_of, view_of
from tools.sweep.work import Command, Ending, Outcome, perform


class Recorder:
    """Tasks by name that note when they were done, and fail where they should."""

    def __init__(self, folder):
        self.folder, self.done, self.fails = folder, [], {}

    def run(self, name, *needs, **options):
        return Run(name, partial(self._do, name), self.folder / f"{name}.log", needs, **options)

    def _do(self, name, log, tick):
        tick()
        self.done.append(name)
        if self.fails.get(name):
            raise self.fails[name].pop(0)


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path)


def do(runs, engine=None, stream=None):
    return carry_out(runs, engine or OneByOne(), View(runs, stream or io.StringIO()))


# ---- order and failures


def test_the_longest_goes_first_and_tests_after_their_training(recorder):
    runs = [
        recorder.run("test a", "a", weight=9),
        recorder.run("a", weight=1),
        recorder.run("b", weight=3),
        recorder.run("test b", "b", "finished before", weight=2),
        recorder.run("c", weight=3),
    ]
    assert do(runs) == []
    assert recorder.done == ["b", "c", "test b", "a", "test a"]
    assert list(recorder.folder.iterdir()) == []


def test_failure_is_one_line_with_its_log_and_the_others_go_on(recorder):
    recorder.fails["a"] = [ValueError("first line\n\x1b[31mno such thing")]
    runs = [recorder.run("a"), recorder.run("test a", "a"), recorder.run("table", "test a"), recorder.run("b")]
    stream = io.StringIO()
    failures = do(runs, stream=stream)
    log = recorder.folder / "a.log"
    assert [str(failure) for failure in failures] == [
        rf"a: ValueError: \x1b[31mno such thing; log: {log}",
        "test a: not run, as it needs a",
        "table: not run, as it needs a",
    ]
    assert recorder.done == ["a", "b"]
    assert "Traceback" in log.read_text()
    told = stream.getvalue().splitlines()
    assert [line for line in told if line.startswith("[4/4] finished b in 0:00:0")]
    assert f"[1/4] failed {failures[0]}" in told


def test_runs_that_need_each_other_and_names_that_are_there_twice_are_refused(recorder):
    with pytest.raises(ValueError, match="these runs need each other: a, b"):
        do([recorder.run("a", "b"), recorder.run("b", "a"), recorder.run("c")])
    with pytest.raises(ValueError, match="name of its own"):
        do([recorder.run("a"), recorder.run("a")])
    assert recorder.done == []


class Shared(OneByOne):
    """As if several runs were on one GPU."""

    shares_gpus = True

    def __init__(self):
        super().__init__()
        self.submitted, self.stopped = [], 0

    def submit(self, run, alone):
        self.submitted.append((run.name, alone))
        super().submit(run, alone)

    def stop(self):
        self.stopped += 1
        super().stop()


MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.mark.parametrize("again", [False, True])
def test_run_without_gpu_memory_is_tried_once_more_alone(recorder, again):
    recorder.fails["a"] = [RuntimeError(MEMORY)] * (2 if again else 1)
    runs = [recorder.run("a", weight=2), recorder.run("b", weight=1), recorder.run("test a", "a")]
    shared, stream = Shared(), io.StringIO()
    failures = do(runs, shared, stream)
    assert shared.submitted[:3] == [("a", False), ("b", False), ("a", True)]
    assert "GPU out of memory: a; it is tried once more, alone on its GPU" in stream.getvalue()
    if again:
        assert failures[0].error.startswith("GPU out of memory, alone on its GPU: RuntimeError: CUDA out of memory")
        assert [failure.needed for failure in failures] == [False, True]
    else:
        assert failures == []
        assert shared.submitted[3:] == [("test a", False)]
    assert shared.stopped == 1


def test_run_that_had_its_gpu_alone_is_not_tried_again(recorder):
    recorder.fails["a"] = [RuntimeError(MEMORY)]
    (failure,) = do([recorder.run("a")])
    assert failure.error.startswith("GPU out of memory, alone on its GPU: ")
    assert recorder.done == ["a"]


@pytest.mark.parametrize(
    "text",
    [MEMORY, "CUDA error: out of memory", "torch.OutOfMemoryError: x", "CUBLAS_STATUS_ALLOC_FAILED when calling"],
)
def test_words_of_missing_gpu_memory(tmp_path, text):
    def fails(log, tick):
        raise RuntimeError(text)

    assert perform(fails, tmp_path / "log").ending is Ending.OUT_OF_MEMORY


def test_run_whose_folder_is_in_use_is_tried_again_later(recorder, monkeypatch):
    monkeypatch.setattr(engine, "IN_USE_PAUSE", 0.3)
    monkeypatch.setattr(engine, "IN_USE_TRIES", 3)
    used = OSError("output/a is in use by process 7 on node2 since 12:00:00: wait until it has ended")
    recorder.fails["a"] = [used]
    stream = io.StringIO()
    assert do([recorder.run("a", weight=1), recorder.run("b")], stream=stream) == []
    assert recorder.done == ["a", "b", "a"]
    assert "in use: a; it is tried again in 0.3 s (OSError: output/a is in use by process 7" in stream.getvalue()
    recorder.fails["a"] = [used] * 5
    (failure,) = do([recorder.run("a")])
    assert "in use by process 7" in failure.error
    assert recorder.done[3:] == ["a"] * 3


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_stops_the_engine(recorder, sent):
    def interrupted(log, tick):
        os.kill(os.getpid(), sent)
        time.sleep(10)

    shared = Shared()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        do([Run("a", interrupted, recorder.folder / "a.log"), recorder.run("b")], shared)
    assert shared.stopped == 1
    assert recorder.done == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_further_interrupts_do_not_cut_short_what_the_first_one_ends(recorder):
    class Interrupted(Shared):
        def stop(self):
            interrupt(2)
            super().stop()

    engine, stream = Interrupted(), io.StringIO()
    run = Run("a", lambda log, tick: (log.write_text("on here\nat epoch 3\n"), interrupt()), recorder.folder / "a.log")
    with pytest.raises(KeyboardInterrupt):
        do([run], engine, stream)
    assert engine.stopped == 1
    assert stream.getvalue() == "interrupted: waiting for the current runs to end\nstopped a: at epoch 3\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_many_runs_are_done_in_no_time(tmp_path):
    runs = [Run(f"{n}", _nothing, tmp_path / f"{n}.log", (f"{n - 1}",) if n % 2 else ()) for n in range(2000)]
    started = time.process_time()
    assert do(runs) == []
    assert time.process_time() - started < 4


def _nothing(log, tick):
    pass


# ---- which engine


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpus_per_run": -1}, "--gpus-per-run must be 0 or more, got -1"),
        ({"gpus_per_run": 1.5}, "--gpus-per-run must be a whole number where it is more than 1, got 1.5"),
        ({"cpus_per_run": -0.5}, "--cpus-per-run"),
        ({"address": "auto", "one_by_one": True}, "give one of them"),
        ({"address": "auto"}, "a cluster needs Ray, which is not installed"),
    ],
)
def test_wrong_options_are_told(monkeypatch, options, words):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=words):
        choose_engine(5, **options)


def test_one_by_one_without_ray_or_for_a_single_run(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert isinstance(choose_engine(5, one_by_one=True), OneByOne)
    assert isinstance(choose_engine(1), OneByOne)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert isinstance(choose_engine(5), OneByOne)


# ---- programs


def bash(text, **environment):
    return Command(("bash", "-c", text), environment)


def test_program_runs_in_the_checkout_with_its_variables(tmp_path, monkeypatch):
    for name in ("LOADEP", "SUB", "TRAINER", "ASK"):
        monkeypatch.setenv(name, "of the machine")
    text = f'printf "%s|" "$PWD" "$SUB" "${{LOADEP-}}" "${{TRAINER-}}" "${{ASK-}}" "$PYTHON" > {tmp_path}/said'
    assert perform(bash(text, SUB="new"), tmp_path / "logs/log").ending is Ending.FINISHED
    assert (tmp_path / "said").read_text() == f"{ROOT}|new||||{sys.executable}|"
    assert not (tmp_path / "logs/log").exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("echo some; echo 'train.py: no data' >&2; echo; exit 2", "train.py: no data (exit status 2)"),
        ("kill -SEGV $$", "(ended by SIGSEGV)"),
        ("sh -c 'kill -KILL $$'", "(ended by SIGKILL)"),
    ],
)
def test_failed_program_is_told_by_its_last_line(tmp_path, text, error):
    outcome = perform(bash(text), tmp_path / "log")
    assert outcome.ending is Ending.FAILED
    assert outcome.error.endswith(error)
    assert (tmp_path / "log").read_text().startswith("on ")


def test_long_error_is_cut(tmp_path):
    outcome = perform(bash("head -c 3000 /dev/zero | tr '\\0' x; exit 1"), tmp_path / "log")
    assert len(outcome.error) == work.LONGEST


def read_number(path):
    return int(path.read_text()) if path.is_file() and path.read_text().endswith("\n") else 0


def test_interrupt_ends_a_program_and_what_it_started(tmp_path):
    child = tmp_path / "child"
    text = f"trap 'echo told > {tmp_path}/told; exit 1' TERM; sleep 1000 & echo $! > {child}; wait"
    threading.Thread(
        target=lambda: (wait_for(lambda: read_number(child)), os.kill(os.getpid(), signal.SIGINT)), daemon=True
    ).start()
    with pytest.raises(KeyboardInterrupt):
        perform(bash(text), tmp_path / "log")
    wait_for(lambda: not runs_still(read_number(child)))
    assert (tmp_path / "told").read_text() == "told\n"  # by SIGTERM, so that a training can write what it has


class Started:
    """Programs that `Command` starts, by their numbers; `then` is called as soon as one runs."""

    def __init__(self, monkeypatch, then=lambda: None):
        self.numbers, self.then = [], then
        started, popen = self, work.subprocess.Popen

        class Popen(popen):
            def __init__(self, arguments, **options):
                super().__init__(arguments, **options)
                if "env" in options:  # not the guard
                    started.numbers.append(self.pid)
                    started.then()

        monkeypatch.setattr(work.subprocess, "Popen", Popen)

    def still_run(self):
        found = []
        for number in self.numbers:
            with suppress(ProcessLookupError):
                os.kill(number, 0)
                found.append(number)
        return found

    def kill(self):
        for number in self.still_run():
            os.killpg(number, signal.SIGKILL)


def interrupt(times=1):
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("times", [1, 3])
def test_interrupt_as_a_program_starts_ends_it(tmp_path, monkeypatch, times):
    """Before its process is known to have started."""
    ready, told = tmp_path / "ready", tmp_path / "told"
    text = f"trap 'sleep 0.2; echo told > {told}; exit 1' TERM; touch {ready}; sleep 1000 & wait"
    started = Started(monkeypatch, lambda: (wait_for(ready.is_file), interrupt(times)))
    try:
        with pytest.raises(KeyboardInterrupt):
            perform(bash(text), tmp_path / "log")
        assert len(started.numbers) == 1
        assert started.still_run() == []
        assert told.read_text() == "told\n"
    finally:
        started.kill()


def test_further_interrupts_leave_a_program_time_to_end(tmp_path, monkeypatch):
    """They come while it writes what it has."""
    told = tmp_path / "told"
    again = f"kill -INT {os.getpid()}; sleep 0.2"
    text = f"trap '{again}; {again}; echo told > {told}; exit 1' TERM; kill -INT {os.getpid()}; sleep 1000 & wait"
    started = Started(monkeypatch)
    try:
        with pytest.raises(KeyboardInterrupt):
            perform(bash(text), tmp_path / "log")
        assert started.still_run() == []
        assert told.read_text() == "told\n"
    finally:
        started.kill()


def test_interrupt_is_not_lost_where_a_program_cannot_start(tmp_path, monkeypatch):
    def fails():
        interrupt()
        raise OSError("no such program")

    Started(monkeypatch, fails)
    with pytest.raises(KeyboardInterrupt):
        perform(bash("true"), tmp_path / "log")


@pytest.mark.parametrize("times", [1, 3])
def test_interrupt_at_any_line_leaves_no_program(tmp_path, monkeypatch, times):
    """One after another at each line that is run from before a program's start to after its end."""
    started, command = Started(monkeypatch), bash("sleep 0.02")
    files = {work.__file__, interrupts.__file__}
    counted = 0

    def trace(frame, event, argument):
        nonlocal counted
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            counted += 1
            if wanted <= counted < wanted + times:
                interrupt()
        return trace

    def interrupted():
        nonlocal counted
        counted = 0
        sys.settrace(trace)
        try:
            command(tmp_path / "log", lambda: None)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    before, wanted = sys.gettrace(), 1
    try:
        while interrupted():
            assert started.still_run() == []
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            started.numbers.clear()
            wanted += 1
    finally:
        started.kill()
    assert counted < wanted  # the last one came to its end
    assert wanted > 40


def test_what_is_left_running_does_not_outlive_a_program(tmp_path):
    child = tmp_path / "child"
    assert perform(bash(f"sleep 1000 & echo $! > {child}"), tmp_path / "log").ending is Ending.FINISHED
    wait_for(lambda: not runs_still(read_number(child)))


def test_killed_process_takes_its_program_with_it(tmp_path):
    child = tmp_path / "child"
    code = (
        "import sys; from pathlib import Path; from tools.sweep.work import Command, perform;"
        f"perform(Command(('bash', '-c', 'sleep 1000 & echo $! > {child}; wait')), Path('{tmp_path}/log'))"
    )
    kill_once(code, lambda: [read_number(child)] if read_number(child) else [])


# ---- what is shown


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("epoch [1/5] batch [5/20] time 0.1", 0.05),
        ("epoch [5/5] batch [20/20] loss 0.3", 1.0),
        ("epoch [1/5] batch [5/20]\nepoch [2/5] batch [20/20]\nEvaluate", 0.4),
        ("epoch [0/0] batch [0/0]", 0.0),
        ("Loading CLIP", None),
    ],
)
def test_progress_by_the_last_line_of_a_log_that_tells(text, share):
    assert progress_of(text) == (None if share is None else pytest.approx(share))


def named(name, seconds=None):
    return Run(name, _nothing, Path("none"), seconds=seconds)


def test_forecast_follows_what_runs_did_take():
    runs = [named("a", 10.0), named("b", 20.0), named("c", 30.0), named("d")]
    forecast = Forecast(runs)
    assert forecast.seconds == pytest.approx(10 + 20 + 30 + 20)  # an unknown one as the mean of the others
    forecast.ended(runs[0], 20.0)  # twice what was expected
    assert forecast.seconds == pytest.approx(2 * 20 + 2 * 30 + 50)
    forecast.running(2)
    assert forecast.seconds == pytest.approx(75)
    forecast.ended(runs[1], None)
    assert forecast.seconds == pytest.approx((60 + 60) / 2)
    assert Forecast([named("a")]).seconds is None


def write_log(path, share):
    path.write_text(
        f"on node7, GPU 3\nepoch [{share}/10] batch [4/4] time 0.310 (0.250) data 0.0 (0.0) loss 1 (1) eta 1:00:05\n"
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_view_tells_what_started_where_and_how_far_it_is(tmp_path, monkeypatch):
    clock = iter(range(0, 100000, 700))
    monkeypatch.setattr("tools.sweep.view.time.monotonic", lambda: next(clock))
    runs = [Run(name, _nothing, tmp_path / name) for name in "abc"]
    stream = io.StringIO()
    view = view_of(runs, stream)
    view.finished(runs.pop(), 300.0)
    write_log(runs[0].log, 3)
    view.update(runs)
    write_log(runs[0].log, 5)
    view.update(runs)
    lines = stream.getvalue().splitlines()
    assert lines[1] == "started a on node7, GPU 3"  # b waits for a place
    assert re.fullmatch(r"\[1/3, [\d.]+ runs per hour, about 0:10:00 left\] running: a 50%", lines[-1])


def test_pace_of_logs_of_newer_and_older_versions_of_dassl():
    assert pace_of("epoch [1/2] batch [1/8] time 9 (1.50) data 0 (0) loss 1 (1) lr 1e-3 eta 1 day, 2:00:00\n") == (
        "1.5 s per batch, 1 day, 2:00:00 left"
    )
    assert pace_of("epoch [2/2][2/2]\ttime 0.100 (0.200)\teta 0:00:07\tloss 1.0 (1.5)\n") == (
        "0.2 s per batch, 0:00:07 left"
    )
    assert pace_of("no epoch") == ""


def test_bars_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.sweep.view.LOOKS", 0.0)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((100, 5)))
    runs = [Run(name, _nothing, tmp_path / name) for name in "abcd"]
    stream = Terminal()
    view = view_of(runs, stream)
    assert isinstance(view, Bars)
    for run in runs[:3]:
        write_log(run.log, 5)
    view.update(runs)
    view.finished(runs[0], 3.0)
    view.failed(runs[3], "d: no data; log: somewhere")
    view.update(runs[1:3])
    view.close()
    text = stream.getvalue()
    assert "a on node7, GPU 3  50%" in text
    assert "|, 0.25 s per batch, 1:00:05 left" in text
    assert re.search(r"2/4 runs, .* since the start, [\d,]+ runs per hour, about 0:00:02 left", text)
    assert "1 more running" in text  # than the terminal has lines for
    assert "failed d: no data; log: somewhere\n" in text
    assert "2/4 runs" in text


def test_empty_folders_of_logs_go(tmp_path):
    (tmp_path / "sweep/a/b").mkdir(parents=True)
    (tmp_path / "sweep/c").mkdir()
    (tmp_path / "sweep/c/run.log").touch()
    clear_logs(tmp_path)
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["c"]


def test_words():
    assert duration(3661.4) == "1:01:01"
    assert str(Failure(named("a"), "bad")) == "a: bad; log: none"
    assert Outcome(Ending.FINISHED).error == ""
