"""The learning rate over the steps, and how many steps there are."""

from __future__ import annotations

import math


def fall_begins(steps: int) -> int:
    """The step from which the learning rate of a run of ``steps`` steps falls."""
    return steps - steps * 2 // 5


def rate_at(step: int, steps: int, peak: float) -> float:
    """One cycle with a flat top: up in 200 steps, level, and down to zero over the last two fifths.

    Up to ``fall_begins`` it does not depend on ``steps``, so until then a run can still be made longer or shorter.
    """
    falling = (steps - step) / max(1, steps - fall_begins(steps))
    return peak * min(1.0, (step + 1) / 200, falling)


def steps_in_time(steps: int, done: int, spent: float, pace: float, limit: float) -> int:
    """The number of steps of a run that is to end after about `limit` seconds.

    Args:
        steps: how many it may have.
        done: how many are done; the learning rate has not fallen yet.
        spent: seconds spent on them.
        pace: seconds per step.
        limit: seconds of the whole run.

    Returns:
        `steps`, or fewer as soon as the shortest run that the steps done allow takes up the time.
    """
    shortest = math.ceil(done * 5 / 3)  # of the runs whose learning rate has not fallen yet
    return min(steps, shortest) if spent + (shortest - done) * pace >= limit else steps
