"""Text from outside as it is printed and written to tables."""

from __future__ import annotations

import pytest

from storage.safe_text import escaped, last_line, safe_cell


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a photo of a cat", "a photo of a cat"),
        ("größe 猫 é", "größe 猫 é"),
        ("a\\n", "a\\n"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\x1b[31mred\x9b0m\x07", "\\x1b[31mred\\x9b0m\\x07"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("tab\tnull\0", "tab\\tnull\\x00"),
        ("caf\udce9", "caf\\udce9"),
        ("", ""),
    ],
)
def test_escaped(text, printed):
    assert escaped(text) == printed
    assert len(printed.splitlines()) <= 1


def test_bytes_of_file_names_can_be_kept():
    assert escaped("caf\udce9\n\ud800", bytes_kept=True) == "caf\udce9\\n\\ud800"


def test_last_line_of_an_error():
    assert (
        last_line(ValueError("Traceback ...\nValueError: it is \x1b[2Jwrong \n")) == "ValueError: it is \\x1b[2Jwrong"
    )
    assert last_line(ValueError()) == ""


@pytest.mark.parametrize("formula", ["=1+1", "+cmd|x", "-2+3", "@SUM(A1)", " =1", "=", "-"])
def test_formulas_are_texts(formula):
    assert safe_cell(formula) == f"'{formula}"


@pytest.mark.parametrize("value", [-1.5, 3, None, "-1.5", "+3", "-1e-07", "cat", "a=b", "a-b", ""])
def test_numbers_and_plain_texts_stay(value):
    assert safe_cell(value) is value


def test_cell_is_one_line():
    assert safe_cell("a\n=1") == "a\\n=1"
    assert safe_cell("\t=1") == "\\t=1"
    assert safe_cell("caf\udce9") == "caf\udce9"
