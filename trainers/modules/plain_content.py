"""What is wrong with the content of a file of plain data, which says by a number which format it has."""

from __future__ import annotations

import sys
from collections.abc import Mapping

KIND_NAMES: Mapping[type, str] = {str: "a text", int: "a number", dict: "an object", list: "a list"}


def content_problem(content: object, newest: int, kinds: Mapping[str, type], part: str = "") -> str:
    """Why content is not of a format: its number, its keys, and the kinds of their values.

    Args:
        content: what was read, of any kind.
        newest: number of the newest format that is known; older ones are read, too.
        kinds: the keys that it must have, each with the kind of its value, one of `KIND_NAMES`.
        part: of the file that the content is, as "header"; "" for all of it.

    Returns:
        An error; "" if nothing is wrong.
    """
    whole = f"its {part}" if part else "it"
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        return f"{whole} has no number of its format"
    if content["format"] > newest:
        return f"it was written by a newer version (format {content['format']}, here {newest})"
    missing = [key for key in kinds if key not in content]
    if missing:
        return f"{whole} lacks {', '.join(missing)}"
    wrong = [f"{key} must be {KIND_NAMES[kind]}" for key, kind in kinds.items() if type(content[key]) is not kind]
    return f"{f'in its {part} ' if part else 'its '}{', '.join(wrong)}" if wrong else ""


def is_number(value: object) -> bool:
    """Whether a value of JSON is a number that a real number can be: finite, and no integer beyond the largest one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
