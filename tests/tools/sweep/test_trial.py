"""The trial's own parts; the trial itself takes minutes."""

from __future__ import annotations

import pytest

from tools.sweep.trial import STARTS, started


@pytest.mark.parametrize("failures", [0, STARTS - 1])
def test_part_of_a_cluster_is_started_again_if_ray_gives_up(failures):
    tries = []

    def start():
        tries.append(None)
        if len(tries) <= failures:
            raise Exception("timed out")
        return "a node"

    assert started(start) == "a node"
    assert len(tries) == failures + 1


def test_last_failure_is_told():
    def start():
        raise Exception("timed out")

    with pytest.raises(Exception, match="timed out"):
        started(start)
