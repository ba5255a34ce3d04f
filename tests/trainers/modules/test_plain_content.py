"""What is told of files of plain data that are not of the format they should be."""

from __future__ import annotations

import math

import pytest

from trainers.modules.plain_content import content_problem, is_number

KINDS = {"name": str, "epoch": int, "values": dict, "names": list}
WHOLE = {"format": 1, "name": "a", "epoch": 0, "values": {}, "names": []}


@pytest.mark.parametrize(
    ("content", "part", "problem"),
    [
        (WHOLE, "", ""),
        ({**WHOLE, "format": 0, "more": None}, "", ""),
        ([], "", "it has no number of its format"),
        ({**WHOLE, "format": True}, "header", "its header has no number of its format"),
        ({"format": 2}, "header", "it was written by a newer version (format 2, here 1)"),
        ({"format": 1, "epoch": "1"}, "", "it lacks name, values, names"),
        ({"format": 1, "epoch": "1"}, "header", "its header lacks name, values, names"),
        ({**WHOLE, "epoch": True, "name": 1}, "", "its name must be a text, epoch must be a number"),
        (
            {**WHOLE, "values": [], "names": {}},
            "header",
            "in its header values must be an object, names must be a list",
        ),
    ],
)
def test_problems(content, part, problem):
    assert content_problem(content, 1, KINDS, part) == problem


@pytest.mark.parametrize("value", [10**400, -(10**400), math.inf, math.nan, True, "1", None, [1]])
def test_what_is_no_number(value):
    assert not is_number(value)


@pytest.mark.parametrize("value", [0, -1.5, 10**300, 1e308])
def test_what_is_one(value):
    assert is_number(value)
