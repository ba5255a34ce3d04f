"""Outlines of the world's things: polygons of shapes, characters of fonts, pen strokes of digits and letters.

Every function returns a mask: an 8-bit PIL image, 255 inside the thing, 0 outside, grey on the edge.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# ---------------------------------------------------------------------------------------------- shapes
# A shape is a list of (polygon, ink): polygons in a box from -1 to 1 (y points down), painted in order,
# ink 1 adds and ink 0 cuts out.


def _regular(corners: int, radius: float = 1.0, phase: float = -math.pi / 2) -> list[tuple[float, float]]:
    angles = phase + 2 * math.pi * np.arange(corners) / corners
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _disc(x: float = 0.0, y: float = 0.0, rx: float = 1.0, ry: float | None = None) -> list[tuple[float, float]]:
    ry = rx if ry is None else ry
    return [(x + rx * cx, y + ry * cy) for cx, cy in _regular(36)]


def _box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _spikes(corners: int, inner: float, flat: float = 0.0) -> list[tuple[float, float]]:
    """A star (``flat`` = 0) or a gear wheel (``flat`` = angle by which a tooth is broadened)."""
    points = []
    for k in range(corners):
        angle = -math.pi / 2 + 2 * math.pi * k / corners
        half = math.pi / corners
        for radius, offset in ((1, -flat), (1, flat), (inner, half - flat), (inner, half + flat)):
            points.append((radius * math.cos(angle + offset), radius * math.sin(angle + offset)))
    return points


def _heart() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 2.5
    return list(zip(x / 16, y / 15))


def _drop() -> list[tuple[float, float]]:
    arc = [(0.62 * math.cos(a), 0.38 + 0.62 * math.sin(a)) for a in np.linspace(-0.45, math.pi + 0.45, 30)]
    return [(0, -1), *arc]


SHAPES: dict[str, list[tuple[list[tuple[float, float]], int]]] = {
    "circle": [(_disc(rx=0.92), 1)],
    "square": [(_box(-0.82, -0.82, 0.82, 0.82), 1)],
    "triangle": [([(0, -0.95), (1, 0.8), (-1, 0.8)], 1)],
    "diamond": [([(0, -1), (0.68, 0), (0, 1), (-0.68, 0)], 1)],
    "hexagon": [(_regular(6, phase=0), 1)],
    "oval": [(_disc(rx=1, ry=0.58), 1)],
    "star": [(_spikes(5, 0.42), 1)],
    "heart": [(_heart(), 1)],
    "cross": [(_box(-0.32, -0.95, 0.32, 0.95), 1), (_box(-0.95, -0.32, 0.95, 0.32), 1)],
    "ring": [(_disc(rx=0.95), 1), (_disc(rx=0.48), 0)],
    "crescent": [(_disc(rx=0.95), 1), (_disc(0.48, -0.12, 0.8), 0)],
    "arrow": [([(-1, -0.3), (0.1, -0.3), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.3), (-1, 0.3)], 1)],
    "drop": [(_drop(), 1)],
    "house": [
        ([(-0.75, 0.95), (-0.75, -0.1), (-1, -0.1), (0, -1), (1, -0.1), (0.75, -0.1), (0.75, 0.95)], 1),
        (_box(-0.2, 0.3, 0.2, 0.95), 0),
    ],
    "tree": [
        ([(0, -1), (0.6, -0.3), (0.35, -0.3), (0.8, 0.4), (-0.8, 0.4), (-0.35, -0.3), (-0.6, -0.3)], 1),
        (_box(-0.2, 0.4, 0.2, 1), 1),
    ],
    "fish": [(_disc(-0.2, 0, 0.8, 0.52), 1), ([(0.35, 0), (1, -0.6), (1, 0.6)], 1), (_disc(-0.6, -0.12, 0.1), 0)],
    "flower": [*((_disc(0.62 * x, 0.62 * y, 0.38), 1) for x, y in _regular(6)), (_disc(rx=0.24), 0)],
    "gear": [(_spikes(8, 0.68, 0.17), 1), (_disc(rx=0.3), 0)],
    "bolt": [([(0.3, -1), (-0.65, 0.15), (-0.05, 0.15), (-0.35, 1), (0.65, -0.25), (0.05, -0.25)], 1)],
    "cup": [
        (_disc(0.62, -0.05, 0.38, 0.42), 1),
        (_disc(0.62, -0.05, 0.18, 0.22), 0),
        ([(-0.9, -0.75), (0.62, -0.75), (0.45, 0.8), (-0.7, 0.8)], 1),
    ],
}


def shape_mask(name: str, size: int, matrix: np.ndarray) -> Image.Image:
    """Mask of a shape.

    Args:
        name: a key of ``SHAPES``.
        size: side of the mask in pixels.
        matrix: ``(2, 3)`` map from the shape's box (-1 to 1) to the unit square of the picture.
    """
    canvas = Image.new("L", (2 * size, 2 * size), 0)
    draw = ImageDraw.Draw(canvas)
    for polygon, ink in SHAPES[name]:
        points = (np.asarray(polygon) @ matrix[:, :2].T + matrix[:, 2]) * (2 * size)
        draw.polygon([tuple(p) for p in points.tolist()], fill=255 * ink)
    return canvas.reduce(2)


# ------------------------------------------------------------------------------------ printed characters
# Fonts that come with matplotlib; cmti10, which comes with matplotlib 3.11 only, lies in this package with its licence.
# The second list is kept from pre-training, for sets that ask for unseen fonts.
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "STIXGeneral",
    "DejaVuSerif-Italic",
)
UNSEEN_FONTS = ("DejaVuSerif-BoldItalic", "DejaVuSansMono-BoldOblique", "STIXGeneralBol")
# These lack some symbols, so they serve letters and digits alone.
UNSEEN_TEXT_FONTS = (
    *UNSEEN_FONTS,
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmr10",
    "cmtt10",
    "cmb10",
    "cmti10",
    "cmss10",
)
FONT_FOLDERS = (Path(__file__).parent / "fonts", Path(matplotlib.get_data_path()) / "fonts" / "ttf")


@functools.lru_cache(maxsize=4096)
def _character(character: str, font: str) -> Image.Image:
    """The character, drawn large and cut to its box."""
    paths = [folder / f"{font}.ttf" for folder in FONT_FOLDERS]
    face = ImageFont.truetype(str(next(path for path in paths if path.is_file())), 96)
    left, top, right, bottom = face.getbbox(character)
    picture = Image.new("L", (math.ceil(right - left) + 8, math.ceil(bottom - top) + 8), 0)
    ImageDraw.Draw(picture).text((4 - left, 4 - top), character, fill=255, font=face)
    return picture


def character_mask(character: str, font: str, size: int, matrix: np.ndarray) -> Image.Image:
    """Mask of a printed character; its box is fitted into -1 to 1 by its longer side. Arguments as ``shape_mask``."""
    source = _character(character, font)
    side = max(source.size) / 2
    # PIL wants the map from mask pixels back to source pixels.
    forward = matrix * size
    inverse = np.linalg.inv(forward[:, :2]) * side
    offset = np.array(source.size) / 2 - inverse @ forward[:, 2]
    coefficients = (*inverse[0], offset[0], *inverse[1], offset[1])
    return source.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


# ------------------------------------------------------------------------------------------- pen strokes
# Strokes go through their points as smooth curves, in a box from 0 to 10 (y points down); a repeated point
# makes a corner. Some characters are written in several ways, separated by "|"; strokes by ";".
_PEN = {
    "0": "5,0 1,2 0,5 1,8 5,10 9,8 10,5 9,2 5,0|6,0 2,2 1,6 2,9 5,10 8,8 9,4 8,1 5,0",
    "1": "5,0 5,10|2,3 6,0 6,0 6,10|7,0 4,10|2,3 5,0 5,0 5,10;2,10 8,10",
    "2": "1,3 2,1 5,0 8,1 9,3 7,6 1,10 1,10 10,10|1,2 5,0 9,2 7,6 2,9 1,10 3,8 6,9 10,10",
    "3": "1,1 5,0 9,2 8,4 4,5 4,5 8,5.5 10,8 6,10 1,9|1,0 9,0 9,0 5,4 5,4 9,6 8,9 4,10 1,9",
    "4": "6,0 0,7 0,7 10,7;7,3 7,10|1,0 1,5 1,5 9,5;8,0 8,10|7,10 7,0 7,0 0,7 0,7 10,7",
    "5": "9,0 2,0 2,0 1,4 1,4 6,3.5 10,6.5 7,10 0,9|2,0 1,4.5 1,4.5 6,3.5 9,6.5 6,10 1,9;2,0 9,0",
    "6": "8,0 3,3 0,7 3,10 8,9.5 9,7 6,5 1,7|6,0 2,4 1,8 4,10 8,8 6,6 2,7",
    "7": "0,0 10,0 10,0 4,10|0,1 9,0 9,0 5,10;3,5 9,5",
    "8": "8,2 5,0 1,2 3,4.3 8,6.5 9,9 5,10 1,9 2,6.5 7,4 8,2|5,0 1,2 5,4.5 9,2 5,0;5,4.5 0,7.5 5,10 10,7.5 5,4.5",
    "9": "9,3 6,0 1,2 2,5 6,5.5 9,3 9,3 8,10|9,2 5,0 1,3 4,5 9,2 9,2 9,7 6,10 2,9",
    "A": "0,10 5,0 5,0 10,10;2,6 8,6",
    "B": "1,0 1,10;1,0 7,0 8,2.5 6,5 1,5;1,5 8,5.2 9,8 7,10 1,10",
    "C": "9,2 6,0 2,1 0,5 2,9 6,10 9,8",
    "D": "1,0 1,10;1,0 6,0.5 9,5 6,9.5 1,10",
    "E": "9,0 1,0 1,0 1,10 1,10 9,10;1,5 7,5",
    "F": "9,0 1,0 1,0 1,10;1,5 7,5",
    "G": "9,2 6,0 2,1 0,5 2,9 6,10 9,8 9,5.5 9,5.5 6,5.5",
    "H": "1,0 1,10;9,0 9,10;1,5 9,5",
    "I": "5,0 5,10;2,0 8,0;2,10 8,10|5,0 5,10",
    "J": "7,0 7,7 5,10 2,9 1,7|7,0 7,7 5,10 2,9 1,7;4,0 10,0",
    "K": "1,0 1,10;8,0 1,5.5 1,5.5 9,10",
    "L": "2,0 2,10 2,10 9,10",
    "M": "0,10 1,0 1,0 5,7 5,7 9,0 9,0 10,10",
    "N": "1,10 1,0 1,0 9,10 9,10 9,0",
    "O": "5,0 1,2 0,5 1,8 5,10 9,8 10,5 9,2 5,0",
    "P": "1,0 1,10;1,0 7,0 9,2.5 7,5 1,5",
    "Q": "5,0 1,2 0,5 1,8 5,10 9,8 10,5 9,2 5,0;6,7 10,11",
    "R": "1,0 1,10;1,0 7,0 9,2.5 7,5 1,5;4,5 9,10",
    "S": "9,1.5 5,0 1,2 3,4.5 7,5.5 9,8 5,10 1,8.5",
    "T": "0,0 10,0;5,0 5,10",
    "U": "1,0 1,7 5,10 9,7 9,0",
    "V": "0,0 5,10 5,10 10,0",
    "W": "0,0 2.5,10 2.5,10 5,3 5,3 7.5,10 7.5,10 10,0",
    "X": "0,0 10,10;10,0 0,10",
    "Y": "0,0 5,5;10,0 5,5 5,5 5,10",
    "Z": "1,0 9,0 9,0 1,10 1,10 9,10|1,0 9,0 9,0 1,10 1,10 9,10;3,5 7,5",
}
PEN_STROKES: dict[str, list[list[np.ndarray]]] = {
    character: [
        [np.array([[float(n) / 5 - 1 for n in p.split(",")] for p in stroke.split()]) for stroke in variant.split(";")]
        for variant in table.split("|")
    ]
    for character, table in _PEN.items()
}


def _smooth(points: np.ndarray, steps: int = 6) -> np.ndarray:
    """A Catmull-Rom curve through the points; two equal points in a row make a corner."""
    if len(points) == 2:
        return points
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3)
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])


def pen_mask(character: str, size: int, matrix: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Mask of a digit or capital letter written with a pen: wobbly strokes of one width, slanted at random.

    Args:
        character: a key of ``PEN_STROKES``.
        size, matrix: as in ``shape_mask``.
        rng: source of variant, wobble, slant, narrowness and pen width.
    """
    variants = PEN_STROKES[character]
    strokes = variants[rng.integers(len(variants))]
    wobble, slant, narrow = rng.uniform(0.02, 0.09), rng.uniform(-0.35, 0.15), rng.uniform(0.45, 0.85)
    shape = np.array([[narrow, slant], [0.0, 1.0]])
    canvas = Image.new("L", (2 * size, 2 * size), 0)
    draw = ImageDraw.Draw(canvas)
    scale = 2 * size * math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    width = max(2, round(scale * rng.uniform(0.12, 0.48)))
    shift: dict[tuple[float, ...], np.ndarray] = {}
    for stroke in strokes:
        # Equal points move together, so that corners stay corners and strokes that touch still touch.
        moved = np.array([p + shift.setdefault(tuple(p), rng.normal(0, wobble, 2)) for p in stroke])
        points = (_smooth(moved) @ (matrix[:, :2] @ shape).T + matrix[:, 2]) * (2 * size)
        line = [tuple(p) for p in points.tolist()]
        draw.line(line, fill=255, width=width, joint="curve")
        for x, y in (line[0], line[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return canvas.reduce(2)
