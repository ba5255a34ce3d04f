"""The demo's progress."""

from __future__ import annotations

import pytest

from tools import demo


def test_progress_of_a_log():
    assert demo.progress_of("epoch [1/2] batch [5/10] time 0.1 (0.1)") == pytest.approx(0.25)
    assert demo.progress_of("epoch [2/2] batch [10/10] time") == 1.0
    assert demo.progress_of("Finish training") is None
