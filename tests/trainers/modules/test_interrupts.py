"""Ctrl-C that is put off: when it takes effect, and that it is never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from helpers import ROOT
from trainers.modules.interrupts import Interrupts, interrupts_put_off


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


def interrupted(work) -> list[str]:
    """What `work`, which is given the interrupts, says before it is interrupted."""
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupts_put_off() as interrupts:
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
