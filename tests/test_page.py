"""Pages of hand-written text and generated blocks."""

from __future__ import annotations

import pytest

from tools.benchmark.page import PAGE, SECTIONS
from tools.common.page import BY_HAND, fill
from tools.common.paths import ROOT

TEXT = f"""# A page

<!-- generated: one -->
old
{BY_HAND}

By hand.

<!-- generated: two -->

older
"""


def test_blocks_are_replaced_and_the_rest_stays():
    filled = fill(TEXT, {"two": "| 2 |\n", "one": "\n1"}, "it")
    assert filled == (
        f"# A page\n\n<!-- generated: one -->\n\n1\n\n{BY_HAND}\n\nBy hand.\n\n<!-- generated: two -->\n\n| 2 |\n"
    )
    assert fill(filled, {"one": "1", "two": "| 2 |"}, "it") == filled


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("<!-- generated: two -->", "", r"it must have the generated blocks one, two, once each, but has one$"),
        ("<!-- generated: two -->", "<!-- generated: one -->", r"but has one, one$"),
        ("<!-- generated: two -->", "<!-- generated: three -->", r"but has one, three$"),
        (f"{BY_HAND}\n", "", r"it must have the mark <!-- written by hand --> after each generated block"),
        ("# A page", BY_HAND, r"after each generated block, and nowhere else"),
        ("By hand.", BY_HAND, r"after each generated block, and nowhere else"),
    ],
)
def test_marks_that_do_not_fit(old, new, error):
    assert old in TEXT
    with pytest.raises(ValueError, match=error):
        fill(TEXT.replace(old, new), {"one": "1", "two": "2"}, "it")


@pytest.mark.parametrize(
    ("page", "names"), [(PAGE, ("machine", "targets", *SECTIONS)), (ROOT / "docs/study.md", ("overview", "results"))]
)
def test_committed_pages_are_as_they_would_be_written_again(page, names):
    text = page.read_text()
    blocks = {}
    for name in names:
        blocks[name] = text.split(f"<!-- generated: {name} -->")[1].split(BY_HAND)[0]
    assert fill(text, blocks, page) == text
    assert all(block.strip() for block in blocks.values())
