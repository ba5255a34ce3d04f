"""Pages in which tables are generated and the text about them is written by hand.

A generated block has a name and stands between two marks, which Markdown does not show:

    Text that nobody but its author changes.

    <!-- generated: tables -->

    | ... |

    <!-- written by hand -->

    More of such text.

The last block of a page may end with the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

GENERATED = re.compile(r"<!-- generated: (.+) -->")
BY_HAND = "<!-- written by hand -->"


def fill(text: str, blocks: Mapping[str, str], source: object) -> str:
    """Put the blocks into a page; what is written by hand stays as it is.

    Args:
        text: the page.
        blocks: name -> content of each generated block.
        source: where the page comes from, for the error.

    Raises:
        ValueError: the page does not have each of the blocks once, or has others; or a mark is missing.
    """
    before, *rest = GENERATED.split(text)
    names, parts = rest[::2], rest[1::2]
    if sorted(names) != sorted(blocks):
        expected, found = (", ".join(sorted(each)) or "none" for each in (blocks, names))
        raise ValueError(f"{source} must have the generated blocks {expected}, once each, but has {found}")
    hand_written = [part.partition(BY_HAND) for part in parts]
    ends = [mark for _, mark, _ in hand_written[:-1]]
    if not all(ends) or text.count(BY_HAND) != sum(bool(mark) for _, mark, _ in hand_written):
        raise ValueError(f"{source} must have the mark {BY_HAND} after each generated block, and nowhere else")
    filled = [before]
    for name, (_, mark, after) in zip(names, hand_written):
        filled.append(f"<!-- generated: {name} -->\n\n{blocks[name].strip()}\n" + (f"\n{mark}{after}" if mark else ""))
    return "".join(filled)
