"""Pages that are written by hand and hold generated blocks.

A block stands between the lines `<!-- made: NAME -->` and `<!-- end -->`. What is between them is replaced; everything
else in the page is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

BLOCK = re.compile(r"^<!-- made: (?P<name>[^\n]*) -->\n(?P<content>.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)


def names(page: str) -> list[str]:
    """The names of a page's blocks, in order."""
    return [found["name"] for found in BLOCK.finditer(page)]


def contents(page: str) -> dict[str, str]:
    """What is in a page's blocks, by name."""
    return {found["name"]: found["content"].rstrip("\n") for found in BLOCK.finditer(page)}


def fill(page: str, contents: Mapping[str, str], source: object = "the page") -> str:
    """The page with these contents in its blocks.

    Args:
        page: the text of the page.
        contents: of each block by its name.
        source: where the page comes from, for the error.

    Raises:
        ValueError: the page lacks a block, or has one without contents or twice.
    """
    found = names(page)
    if sorted(found) != sorted(contents):
        raise ValueError(
            f"{source} must hold each of the blocks {', '.join(contents)} once, got {', '.join(found) or 'none'}"
        )
    return BLOCK.sub(lambda block: f"<!-- made: {block['name']} -->\n{contents[block['name']]}\n<!-- end -->", page)


def skeleton(page: str) -> str:
    """A page's headings and blocks without what is written by hand between them."""
    parts = re.findall(rf"{BLOCK.pattern}|^(?P<heading>#+ [^\n]*)$", page, re.MULTILINE | re.DOTALL)
    lines = [heading or f"<!-- made: {name} -->\n<!-- end -->" for name, _, heading in parts]
    return "\n\n".join(lines) + "\n"
