"""From a scene to a picture: everything is painted at twice the size and averaged down."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .patterns import BACKGROUNDS, texture_field
from .scenes import CHARACTERS, COLOURS, Scene
from .strokes import character_mask, pen_mask, shape_mask

RADII = {"small": (0.19, 0.25), "medium": (0.29, 0.37), "large": (0.40, 0.49)}


@functools.lru_cache(maxsize=8)
def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    x, y = np.meshgrid(axis, axis)
    return x, y


def _tint(colour: str, rng: np.random.Generator) -> np.ndarray:
    """One of the colour's shades, ``(3,)`` from 0 to 1."""
    return (np.clip(np.array(COLOURS[colour]) + rng.normal(0, 12, 3), 0, 255) / 255).astype(np.float32)


def _mix(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return below + alpha[..., None].astype(np.float32) * (above - below)


def _background(scene: Scene, side: int, rng: np.random.Generator) -> np.ndarray:
    """The background, ``(side, side, 3)``: its colour, patterned with a lighter or darker shade of it."""
    x, y = _grid(side)
    first = _tint(scene.background_colour, rng)
    bright = first.mean()
    towards = np.float32(1.0 if bright < 0.3 or (bright < 0.7 and rng.random() < 0.5) else 0.0)
    second = first + np.float32(rng.uniform(0.3, 0.5)) * (towards - first)
    field = BACKGROUNDS[scene.background](x, y, rng).astype(np.float32)
    return first + field[..., None] * (second - first)


def _strew(canvas: np.ndarray, pieces: int, rng: np.random.Generator) -> np.ndarray:
    """Lines and spots of random colours over the whole picture."""
    side = canvas.shape[0]
    picture = Image.fromarray((canvas * 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(pieces):
        ink = tuple(int(c) for c in rng.integers(0, 256, 3))
        x, y, dx, dy = rng.uniform(0, side, 2).tolist() + rng.uniform(-0.2 * side, 0.2 * side, 2).tolist()
        if rng.random() < 0.5:
            draw.line((x, y, x + dx, y + dy), fill=ink, width=max(1, side // 32))
        else:
            r = rng.uniform(0.015, 0.05) * side
            draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    return np.asarray(picture, dtype=np.float32) / 255


def _mask(scene: Scene, side: int, radius: float, centre: np.ndarray, rng: np.random.Generator) -> Image.Image:
    angle = rng.normal(0, 0.14)
    cos, sin = math.cos(angle), math.sin(angle)
    stretch = radius * rng.uniform(0.9, 1.1, 2)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.diag(stretch)
    matrix = np.concatenate([matrix, centre[:, None]], axis=1)
    if scene.kind == "object":
        return shape_mask(scene.subject, side, matrix)
    character = CHARACTERS[scene.kind][scene.subject]
    if scene.writing == "handwritten":
        return pen_mask(character, side, matrix, rng)
    if scene.font is None:
        raise ValueError(f"a printed {scene.kind} needs a font, got the scene {scene}")
    return character_mask(character, scene.font, side, matrix)


def _contour(mask: Image.Image, width: float) -> np.ndarray:
    """The rim of a mask, from 0 to 1."""
    inner = np.asarray(mask.filter(ImageFilter.BoxBlur(width)), dtype=np.float32) / 255
    solid = np.asarray(mask, dtype=np.float32) / 255
    return solid * np.clip((0.97 - inner) * 8, 0, 1)


def _centre(position: str, radius: float, rng: np.random.Generator) -> np.ndarray:
    room = max(0.0, 0.5 - radius)
    centre = 0.5 + rng.uniform(-0.04, 0.04, 2)
    shift = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "centre": (0, 0)}[position]
    return centre + np.array(shift) * room * rng.uniform(0.7, 1.0)


def render(
    scene: Scene, size: int, rng: np.random.Generator, background_rng: np.random.Generator | None = None
) -> Image.Image:
    """Paint a scene.

    Args:
        scene: what to paint.
        size: side of the picture in pixels, 16 or more; made for 48.
        rng: source of all that the scene leaves open: shades, exact place, angle, wobble, noise.
        background_rng: source of what the background leaves open, so that the thing before it does not depend on it;
            by default `rng`.

    Returns:
        an RGB picture; the same scene and state of ``rng`` give the same bytes.

    Raises:
        ValueError: if ``size`` is below 16, or a printed character has no font.
    """
    if size < 16:
        raise ValueError(f"size must be 16 pixels or more, but is {size}")
    side = 2 * size
    x, y = _grid(side)
    radius = rng.uniform(*RADII[scene.size])
    centre = _centre(scene.position, radius, rng)
    colour = _tint(scene.colour, rng)
    canvas = _background(scene, side, background_rng or rng)
    if scene.style == "sketched":
        canvas = 0.25 * canvas + 0.72

    pattern: np.ndarray | None = None
    paint = np.broadcast_to(colour, canvas.shape)
    if scene.texture is not None and scene.ground is not None:
        period = rng.uniform(0.13, 0.19)
        pattern = texture_field(scene.texture, x + 0.5 - centre[0], y + 0.5 - centre[1], period, rng)
        pattern = pattern.astype(np.float32)
        paint = _mix(np.broadcast_to(_tint(scene.ground, rng), canvas.shape), paint, pattern)

    if scene.kind == "texture":
        solid: np.ndarray = np.ones((side, side), dtype=np.float32)
        rim = np.zeros_like(solid)
    else:
        mask = _mask(scene, side, radius, centre, rng)
        solid = np.asarray(mask, dtype=np.float32) / 255
        thick = 0.012 if scene.kind in CHARACTERS else 0.022
        rim = _contour(mask, side * thick) if scene.style in ("outlined", "sketched", "embossed") else solid
    if scene.style == "outlined":
        inside = 0 if pattern is None else pattern * solid
        canvas = _mix(canvas, np.broadcast_to(colour, canvas.shape), np.maximum(rim, inside))
    elif scene.style == "sketched":
        crayon = 0.75 * colour
        hatch = 0 if pattern is None else 0.7 * pattern * solid
        again = np.roll(rim, tuple(rng.integers(-2, 3, 2)), axis=(0, 1))
        canvas = _mix(
            canvas, np.broadcast_to(crayon, canvas.shape), np.maximum.reduce([rim, 0.7 * again, hatch + 0 * rim])
        )
    else:
        if scene.style in ("shaded", "embossed"):
            angle = rng.uniform(0, 2 * math.pi)
            light = (math.cos(angle) * (x + 0.5 - centre[0]) + math.sin(angle) * (y + 0.5 - centre[1])) / radius
            paint = np.clip(paint * (1 + 0.55 * light[..., None]) + 0.12 * np.maximum(light, 0)[..., None], 0, 1)
            if scene.kind != "texture":
                drop = round(0.05 * side)
                shadow = ImageChops.offset(mask, -round(drop * math.cos(angle)), -round(drop * math.sin(angle)))
                canvas = canvas * (1 - 0.5 * np.asarray(shadow, dtype=np.float32)[..., None] / 255)
        canvas = _mix(canvas, paint, solid)

    if scene.clutter:
        canvas = _strew(np.clip(canvas, 0, 1), scene.clutter, rng)
    canvas = (canvas[::2, ::2] + canvas[1::2, ::2] + canvas[::2, 1::2] + canvas[1::2, 1::2]) / 4
    if scene.contrast < 1:
        grey = np.float32(rng.uniform(0.35, 0.65))
        canvas = grey + np.float32(scene.contrast) * (canvas - grey)
    if scene.noise > 0:
        canvas = canvas + scene.noise * rng.standard_normal(canvas.shape, dtype=np.float32)
    picture = Image.fromarray((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8))
    return _finish(picture, scene, size, rng)


def _finish(picture: Image.Image, scene: Scene, size: int, rng: np.random.Generator) -> Image.Image:
    """What a style does to the whole picture."""
    if scene.style == "blurry":
        picture = picture.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.022, 0.04)))
    elif scene.style == "pixelated":
        few = max(8, size * 3 // 8)
        picture = picture.resize((few, few), Image.Resampling.BOX).resize((size, size), Image.Resampling.NEAREST)
    elif scene.style == "posterised":
        picture = picture.quantize(5, dither=Image.Dither.NONE).convert("RGB")
    elif scene.style == "embossed":
        picture = Image.blend(picture, picture.filter(ImageFilter.EMBOSS), 0.7)
    if scene.blur > 0:
        picture = picture.filter(ImageFilter.GaussianBlur(size * scene.blur))
    return picture
