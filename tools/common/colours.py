"""The colours of all pictures and pages: one for each trainer, and one for each kind of prediction.

They are Okabe and Ito's, which the colour-blind tell apart, and darker and lighter ones of the same hues.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from typing import NamedTuple

TRAINERS = {
    "ZeroshotCLIP": "#7f7f7f",
    "ZeroshotCLIP2": "#a9a9a9",
    "CoOp": "#56B4E9",
    "CoCoOp": "#0072B2",
    "KgCoOp": "#00487a",
    "MaPLe": "#E69F00",
    "PromptSRC": "#009E73",
    "TCP": "#8c6d31",
    "MMRL": "#CC79A7",
    "CLIPICM": "#7b5fa8",
    "CDC": "#D55E00",
}
OTHERS = ("#4d9221", "#c51b7d", "#35978f", "#5e4fa2", "#b8860b", "#a50026")  # of trainers that are not known here
# Kinds of images in histograms; "out" are all of unknown classes
KINDS = {"right": "#0072B2", "wrong": "#E69F00", "near": "#CC79A7", "far": "#000000", "out": "#8c8c8c"}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down", "pentagon", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
PATTERNS = ("", "x", ".", "|", "+", "-", "/", "\\")  # of bars
# What matplotlib calls symbols and dashes
MARKERS = dict(zip(SYMBOLS, "osD^X*PvpH"))
LINES = dict(zip(DASHES, ("-", "--", ":", "-.", (0, (9, 3)), (0, (9, 3, 1, 3)))))


class Style(NamedTuple):
    """How a system is drawn.

    Attributes:
        color: of its trainer.
        symbol, dash, pattern: which tell systems of one trainer apart.
    """

    color: str
    symbol: str = SYMBOLS[0]
    dash: str = DASHES[0]
    pattern: str = PATTERNS[0]


def trainer_colours(trainers: Iterable[str]) -> dict[str, str]:
    """A colour for each trainer, no two alike.

    That of a trainer which is not known here follows from its name, unless another one has it.
    """
    names = set(trainers)
    found = {name: TRAINERS[name] for name in names if name in TRAINERS}
    taken = {*TRAINERS.values()}
    for name in sorted(names - found.keys()):
        first = sum(map(ord, name))
        choice = (OTHERS[(first + index) % len(OTHERS)] for index in range(len(OTHERS)))
        color = next((color for color in choice if color not in taken), None) or _further(len(taken), taken)
        found[name] = color
        taken.add(color)
    return found


def _further(number: int, taken: set[str]) -> str:
    """A colour that is not taken, its hue far from that of the last."""
    while True:
        red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 0.7)
        color = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
        if color not in taken:
            return color
        number += 1


def system_styles(systems: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """How each system is drawn.

    Args:
        systems: titles of systems, each with its trainer.
    """
    trainers = dict(systems)
    colors = trainer_colours(trainers.values())
    numbers: dict[str, int] = {}
    styles = {}
    for title, trainer in sorted(trainers.items(), key=lambda own: own[0] != own[1]):  # one without a config first
        n = numbers[trainer] = numbers.get(trainer, -1) + 1
        kinds = (kind[n % len(kind)] for kind in (SYMBOLS, DASHES, PATTERNS))
        styles[title] = Style(colors[trainer], *kinds)
    return styles
