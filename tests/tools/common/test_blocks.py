"""Pages of hand-written text and generated blocks."""

from __future__ import annotations

import pytest

from tools.common.blocks import fill, names, skeleton

TEXT = """# A page

<!-- made: one -->
<!-- end -->

By hand.

## More

<!-- made: two -->
old
<!-- end -->
"""


def test_blocks_are_filled_and_the_rest_stays():
    filled = fill(TEXT, {"two": "| 2 |", "one": "1"})
    assert filled == TEXT.replace("one -->\n", "one -->\n1\n").replace("old", "| 2 |")
    assert fill(filled, {"one": "1", "two": "| 2 |"}) == filled
    assert names(filled) == ["one", "two"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<!-- made: two -->", ""),
        ("<!-- made: two -->", "<!-- made: one -->"),
        ("<!-- made: two -->", "<!-- made: three -->"),
        ("old\n<!-- end -->", "old"),
    ],
)
def test_page_without_its_blocks(old, new):
    with pytest.raises(ValueError, match=r"it must hold each of the blocks one, two once, got one"):
        fill(TEXT.replace(old, new), {"one": "1", "two": "2"}, "it")


def test_skeleton_keeps_headings_and_blocks_alone():
    page = skeleton(fill(TEXT, {"one": "1", "two": "2"}))
    assert names(page) == ["one", "two"]
    assert "## More" in page
    assert "By hand" not in page
