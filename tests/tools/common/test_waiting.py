"""Waiting until something is there."""

from __future__ import annotations

import pytest

from tools.common import waiting
from tools.common.waiting import wait_for


def test_it_gives_what_is_found_as_soon_as_it_is_there(monkeypatch):
    monkeypatch.setattr(waiting, "PAUSE", 0.001)
    looks = iter([None, [], ["it"], ["later"]])
    assert wait_for(lambda: next(looks)) == ["it"]
    assert next(looks) == ["later"]


def test_what_never_comes_is_told(monkeypatch):
    monkeypatch.setattr(waiting, "PAUSE", 0.001)
    with pytest.raises(TimeoutError, match=r"there was no training in 0\.01 s"):
        wait_for(lambda: False, 0.01, "training")
    with pytest.raises(TimeoutError, match=r"there was no result in 0\.01 s"):
        wait_for(lambda: False, 0.01)
