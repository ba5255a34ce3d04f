"""Text from outside, such as class names and paths, as it can be printed, logged and written to tables."""

from __future__ import annotations

from typing import TypeVar

Cell = TypeVar("Cell")
FORMULA = ("=", "+", "-", "@")  # a spreadsheet takes a cell that starts with one of these for a formula


def escaped(text: str, bytes_kept: bool = False) -> str:
    """A text in one line, in which characters that are not printed stand as in a Python string: `\\\\n`, `\\\\x1b`.

    These are control characters, of which terminals take some as commands and log parsers others as new lines, marks
    that turn the direction of writing, and bytes of file names that are not UTF-8.

    Args:
        text: any text.
        bytes_kept: whether those bytes stay as they are, for a file that can hold them.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or (bytes_kept and "\udc80" <= character <= "\udcff")
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def last_line(error: BaseException) -> str:
    """The last line of what an error says, `escaped`."""
    return escaped(str(error).strip().split("\n")[-1].strip())


def safe_cell(value: Cell) -> Cell | str:
    """A value for a cell of a CSV table: a text `escaped`, with an apostrophe before it if it would be a formula.

    Numbers stay numbers, including those in a text.
    """
    if not isinstance(value, str):
        return value
    text = escaped(value, bytes_kept=True)
    return f"'{text}" if text.lstrip().startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
