"""How commands end that go on when they are called again."""

from __future__ import annotations

import pytest

from tools.common.commands import told_in_one_line


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("no such\x1b[31m thing"), 2, "it: no such\\x1b[31m thing\n"),
        (FileNotFoundError("no data"), 2, "it: no data\n"),
        (KeyboardInterrupt(), 130, "it: interrupted; the same command goes on\n"),
    ],
)
def test_error_and_interrupt_end_a_command_with_one_line(capsys, error, status, told):
    with pytest.raises(SystemExit) as ended, told_in_one_line("it"):
        raise error
    assert ended.value.code == status
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize("error", [BrokenPipeError(), TypeError("a fault of the program")])
def test_others_are_left_as_they_are(error):
    with pytest.raises(type(error)), told_in_one_line("it"):
        raise error
