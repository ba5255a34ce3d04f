"""Ctrl-C that is put off: when it takes effect, and that it is never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from helpers import ROOT
from storage.interrupts import Interrupts, interrupts_put_off


class Swallowing:
    """Presses Ctrl-C where Python prints a KeyboardInterrupt and goes on."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def handler():
    """Python's own handler before a test, and still there after it."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupted(work, **options) -> list[str]:
    """What `work`, which is given the interrupts, says before it is interrupted."""
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupts_put_off(**options) as interrupts:
        work(interrupts, said.append)
    return said


def test_it_takes_effect_at_the_next_check():
    def work(interrupts, say):
        interrupts.check()
        Swallowing()
        say("after it")
        interrupts.check()
        say("after the check")

    assert interrupted(work) == ["after it"]


def test_it_takes_effect_at_the_end_where_there_is_no_check():
    assert interrupted(lambda interrupts, say: (Swallowing(), say("done"))) == ["done"]


def test_a_second_one_takes_effect_at_once():
    def work(interrupts, say):
        for count in ("first", "second"):
            os.kill(os.getpid(), signal.SIGINT)
            say(count)

    assert interrupted(work) == ["first"]


def test_being_told_to_end_waits_too_where_there_is_a_handler():
    """However often it comes, and whatever comes with it, as when a script is stopped in a terminal."""
    told = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with interrupts_put_off() as interrupts:
            for number in (signal.SIGTERM, signal.SIGTERM):
                os.kill(os.getpid(), number)
                assert told == []
            interrupts.check()
            assert told == [signal.SIGTERM]
            interrupts.check()

        def work(interrupts, say):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
                os.kill(os.getpid(), number)
            say("after them")

        assert interrupted(work) == ["after them"]
        assert told == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_is_not_replaced():
    def work():
        with interrupts_put_off():
            Swallowing()
            raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        work()


def test_all_wait_where_they_are_to_wait_however_often_they_come():
    def work(interrupts, say):
        for count in ("first", "second", "third"):
            os.kill(os.getpid(), signal.SIGINT)
            say(count)

    assert interrupted(work, however_often=True) == ["first", "second", "third"]


def test_an_error_does_not_hide_one_that_waits_however_often():
    def work(interrupts, say):
        Swallowing()
        say("before the error")
        raise ValueError("own")

    assert interrupted(work, however_often=True) == ["before the error"]


def test_one_takes_effect_at_once_where_it_may_and_the_next_waits():
    def work(interrupts, say):
        os.kill(os.getpid(), signal.SIGINT)
        say("before")
        try:
            with interrupts.at_once():
                say("not reached")
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            say("after")

    assert interrupted(work) == ["before", "after"]

    def later(interrupts, say):
        with interrupts.at_once():
            say("in it")
            os.kill(os.getpid(), signal.SIGINT)
            say("not reached")

    assert interrupted(later) == ["in it"]


def test_a_handler_that_raises_nothing_ends_nothing():
    told = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with interrupts_put_off() as interrupts, interrupts.at_once():
            for count in (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)
                assert len(told) == count
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handler_that_raises_at_the_end_leaves_ctrl_c_its_effect(monkeypatch):
    """SIGTERM may come as soon as its handler is restored, before that of Ctrl-C is."""

    def stop(number, frame):
        raise SystemExit(number)

    restore = signal.signal

    def restore_and_send(number, handler):
        restore(number, handler)
        if handler is stop:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit), interrupts_put_off():
            monkeypatch.setattr(signal, "signal", restore_and_send)
        monkeypatch.undo()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_one_context_in_another():
    """As a training in a sweep: each lets the signal through to what is around it."""

    def work(interrupts, say):
        with interrupts.at_once(), interrupts_put_off() as inner:
            os.kill(os.getpid(), signal.SIGINT)
            say("put off")
            inner.check()
            say("not reached")

    assert interrupted(work) == ["put off"]

    def often(interrupts, say):
        with interrupts_put_off(however_often=True):
            os.kill(os.getpid(), signal.SIGINT)
        say("put off by the outer one, too")

    assert interrupted(often) == ["put off by the outer one, too"]


def test_a_handler_of_another_kind_is_left_alone():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_put_off() as interrupts:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_change_nothing():
    seen = []

    def work():
        with interrupts_put_off() as interrupts:
            seen.append((signal.getsignal(signal.SIGINT), type(interrupts)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(signal.default_int_handler, Interrupts)]


def test_train_py_ends_as_an_interrupted_program_does():
    code = (
        "import sys, train; sys.excepthook = train._tell_uncaught\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == "\ntrain.py: stopped\n"
