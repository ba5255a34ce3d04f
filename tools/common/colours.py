"""The colours of all pictures and pages: one for each trainer, and one for each kind of prediction.

Those of trainers stand out from a white ground and from the dark one of the report, by a contrast of 3:1 or more (WCAG
2.1, 1.4.11). So their lightness differs little, and their hues were chosen to be far apart, also for the colour-blind
as simulated by Machado et al. (2009). Those of kinds are Okabe and Ito's.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from typing import NamedTuple

TRAINERS = {
    "ZeroshotCLIP": "#8c8c8c",
    "ZeroshotCLIP2": "#6e6e6e",
    "CoOp": "#1496fa",
    "CoCoOp": "#006e96",
    "KgCoOp": "#5046fa",
    "MaPLe": "#c88200",
    "PromptSRC": "#0aaa50",
    "TCP": "#788246",
    "MMRL": "#fa3cd2",
    "CLIPICM": "#aa00d2",
    "CDC": "#b43c00",
}
OTHERS = ("#4d9221", "#c51b7d", "#35978f", "#7767c4", "#b8860b", "#cf2440")  # of trainers that are not known here
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
        color = _of_hue(number * 0.618034 % 1)
        if color not in taken:
            return color
        number += 1


def _of_hue(hue: float) -> str:
    """A colour between both grounds: of luminance 0.2, where white has 1 and black 0.

    Args:
        hue: from 0 to 1.
    """
    darkest, lightest = 0.0, 1.0
    for _ in range(16):
        middle = (darkest + lightest) / 2
        rgb = colorsys.hls_to_rgb(hue, middle, 0.65)
        darkest, lightest = (middle, lightest) if luminance(rgb) < 0.2 else (darkest, middle)
    return "#" + "".join(f"{round(255 * each):02x}" for each in rgb)


def luminance(rgb: Iterable[float]) -> float:
    """Relative luminance of red, green and blue of sRGB, each from 0 to 1 (WCAG 2.1)."""
    linear = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in rgb)
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear))


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
