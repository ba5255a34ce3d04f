"""Surfaces of the world: textures under DTD's words, and backgrounds. Both are fields of values from 0 to 1.

A texture is a function ``f(u, v, rng)`` of two coordinate arrays ``(S, S)``, measured in periods of the texture.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

TAU = 2 * math.pi
Texture = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _edge(x: np.ndarray, softness: float = 0.12) -> np.ndarray:
    """1 where ``x`` is positive, 0 where negative, a ramp of width ``softness`` between."""
    return np.clip(x / softness + 0.5, 0, 1)


def _frac(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def smooth_noise(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> np.ndarray:
    """Random values on a ``cells`` x ``cells`` lattice, interpolated to ``shape``: soft blobs around 0.5."""
    lattice = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(lattice.resize(shape[::-1], Image.Resampling.BICUBIC))


def _extent(u: np.ndarray) -> int:
    """How many periods the picture spans, as a lattice size for ``smooth_noise``."""
    return max(3, round(float(np.ptp(u)) * 0.7))


def _cells(
    u: np.ndarray, v: np.ndarray, rng: np.random.Generator, jitter: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the nearest and second nearest point of a jittered lattice, and the nearest one's own number."""
    table = rng.random((16, 16, 3), dtype=np.float32)
    iu, iv = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
    fu, fv = (u - iu).astype(np.float32) - 0.5, (v - iv).astype(np.float32) - 0.5
    first, second, number = (np.full(u.shape, value, dtype=np.float32) for value in (9, 9, 0))
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            entry = table.reshape(256, 3).take(((iu + du) % 16) * 16 + (iv + dv) % 16, axis=0)
            x = fu - du - jitter * (entry[..., 0] - 0.5)
            y = fv - dv - jitter * (entry[..., 1] - 0.5)
            distance = x * x + y * y
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            number = np.where(nearer, entry[..., 2], number)
            first = np.where(nearer, distance, first)
    first, second = np.sqrt(first), np.sqrt(second)
    return first, second, number


def _striped(u, v, rng):
    return _edge(np.sin(TAU * u), 0.4)


def _lined(u, v, rng):
    return _edge(np.cos(TAU * 1.1 * u) - 0.78, 0.3)


def _banded(u, v, rng):
    tones = rng.permutation(np.array([0.0, 0.35, 0.65, 1.0]))
    return tones[np.floor(u / 1.1).astype(int) % 4]


def _stratified(u, v, rng):
    warped = v + 1.6 * smooth_noise(u.shape, 4, rng)
    tones = rng.random(64)
    return tones[np.floor(2.2 * warped).astype(int) % 64]


def _pleated(u, v, rng):
    return _frac(0.8 * u)


def _zigzagged(u, v, rng):
    return _edge(np.sin(TAU * (v + 1.6 * np.abs(_frac(0.55 * u) - 0.5))), 0.4)


def _swirly(u, v, rng):
    a, b = rng.uniform(0, TAU, 2)
    bent = u + 0.75 * np.sin(TAU * 0.3 * v + a) + 0.45 * np.sin(TAU * 0.27 * u + b)
    return _edge(np.sin(TAU * 0.9 * bent), 0.5)


def _chequered(u, v, rng):
    return _edge(np.sin(math.pi * 1.3 * u) * np.sin(math.pi * 1.3 * v), 0.3)


def _gridded(u, v, rng):
    return _edge(np.maximum(np.cos(TAU * 0.8 * u), np.cos(TAU * 0.8 * v)) - 0.78, 0.3)


def _crosshatched(u, v, rng):
    a, b = 0.9 * u + 0.9 * v, 0.9 * u - 0.9 * v
    return _edge(np.maximum(np.cos(TAU * a), np.cos(TAU * b)) - 0.6, 0.4)


def _waffled(u, v, rng):
    return 1 - np.sqrt(np.abs(np.sin(math.pi * 0.8 * u) * np.sin(math.pi * 0.8 * v)))


def _woven(u, v, rng):
    upright = (np.floor(0.7 * u) + np.floor(0.7 * v)) % 2 > 0.5
    return _edge(np.cos(TAU * 2.1 * np.where(upright, u, v)), 0.8)


def _dotted(u, v, rng):
    return _edge(0.23 - np.hypot(_frac(u) - 0.5, _frac(v) - 0.5))


def _polka_dotted(u, v, rng):
    row = np.floor(0.62 * v)
    return _edge(0.33 - np.hypot(_frac(0.55 * u + 0.5 * (row % 2)) - 0.5, _frac(0.62 * v) - 0.5), 0.08)


def _studded(u, v, rng):
    x, y = _frac(0.7 * u) - 0.5, _frac(0.7 * v) - 0.5
    dome = 0.55 + 1.1 * (-x - y)
    return np.where(np.hypot(x, y) < 0.4, np.clip(dome, 0, 1), 0.35)


def _honeycombed(u, v, rng):
    u, v = 0.85 * u, 0.85 * v
    distances = []
    # A hexagonal lattice is two rectangular ones; the edge lies where their two nearest centres are equally far.
    for shift in (0.0, 0.5):
        x, y = u + shift, v / math.sqrt(3) + shift
        dx, dy = x - np.round(x), (y - np.round(y)) * math.sqrt(3)
        for sx, sy in ((0, 0), (1, 0), (0, 1)):
            distances.append(np.hypot(np.abs(dx) - sx, np.abs(dy) - sy * math.sqrt(3)))
    nearest = np.sort(np.stack(distances), axis=0)
    return _edge(0.12 - (nearest[1] - nearest[0]), 0.08)


def _scaly(u, v, rng):
    row = np.floor(v)
    x, y = _frac(0.65 * u + 0.5 * (row % 2)) - 0.5, _frac(v)
    distance = np.hypot(x, 0.55 * y)
    return np.where(distance < 0.5, np.clip(1.7 * distance, 0, 1) ** 2, 0.0)


def _spiralled(u, v, rng):
    x, y = u + rng.uniform(-0.5, 0.5), v + rng.uniform(-0.5, 0.5)
    turn = rng.choice([-1, 1]) * np.arctan2(y, x) / TAU
    return _edge(np.sin(TAU * (0.85 * np.hypot(x, y) + turn)), 0.5)


def _cobwebbed(u, v, rng):
    x, y = u + rng.uniform(-0.6, 0.6), v + rng.uniform(-0.6, 0.6)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    spokes = 0.09 - np.abs(_frac(angle / TAU * 8) - 0.5) * TAU / 8 * radius
    sag = radius * (1 + 0.12 * np.cos(8 * angle))
    return np.maximum(_edge(spokes, 0.1), _edge(np.cos(TAU * 0.75 * sag) - 0.8, 0.3))


def _cracked(u, v, rng):
    first, second, _ = _cells(0.7 * u, 0.7 * v, rng, 1.0)
    return _edge(0.09 - (second - first), 0.08)


def _bubbly(u, v, rng):
    first, _, number = _cells(0.75 * u, 0.75 * v, rng, 0.6)
    return _edge(0.1 - np.abs(first - 0.18 - 0.26 * number), 0.08)


def _porous(u, v, rng):
    first, _, number = _cells(u, v, rng, 0.9)
    return _edge(0.08 + 0.38 * number**2 - first, 0.1)


def _flecked(u, v, rng):
    table = rng.random((16, 16, 3), dtype=np.float32)
    entry = table[np.floor(u).astype(int) % 16, np.floor(v).astype(int) % 16]
    x = _frac(u) - 0.5 - 0.2 * (entry[..., 0] - 0.5)
    y = _frac(v) - 0.5 - 0.2 * (entry[..., 1] - 0.5)
    cos, sin = np.cos(TAU * entry[..., 2]), np.sin(TAU * entry[..., 2])
    return np.minimum(_edge(0.46 - np.abs(cos * x + sin * y)), _edge(0.11 - np.abs(cos * y - sin * x)))


def _sprinkled(u, v, rng):
    grains = rng.random((u.shape[0] // 3 + 1, u.shape[1] // 3 + 1)) < 0.2
    return np.kron(grains, np.ones((3, 3)))[: u.shape[0], : u.shape[1]]


def _blotchy(u, v, rng):
    return _edge(smooth_noise(u.shape, _extent(u), rng) - 0.52, 0.1)


def _marbled(u, v, rng):
    coarse, fine = smooth_noise(u.shape, 4, rng), smooth_noise(u.shape, 9, rng)
    vein = np.abs(np.sin(TAU * (0.15 * u + 0.9 * coarse + 0.35 * fine)))
    return np.clip(1.1 - 1.9 * vein, 0, 1) * 0.8 + 0.2 * fine


TEXTURES: dict[str, Texture] = {
    "banded": _banded,
    "blotchy": _blotchy,
    "bubbly": _bubbly,
    "chequered": _chequered,
    "cobwebbed": _cobwebbed,
    "cracked": _cracked,
    "crosshatched": _crosshatched,
    "dotted": _dotted,
    "flecked": _flecked,
    "gridded": _gridded,
    "honeycombed": _honeycombed,
    "lined": _lined,
    "marbled": _marbled,
    "pleated": _pleated,
    "polka-dotted": _polka_dotted,
    "porous": _porous,
    "scaly": _scaly,
    "spiralled": _spiralled,
    "sprinkled": _sprinkled,
    "stratified": _stratified,
    "striped": _striped,
    "studded": _studded,
    "swirly": _swirly,
    "waffled": _waffled,
    "woven": _woven,
    "zigzagged": _zigzagged,
}
# Textures that have a direction of their own may be turned by any angle; lattices only a little, so that
# crosshatched (a grid on its corner) and gridded stay two things.
ANY_ANGLE = ("banded", "lined", "pleated", "striped", "swirly", "zigzagged", "spiralled", "cobwebbed", "marbled")


def texture_field(
    name: str, x: np.ndarray, y: np.ndarray, period: float, rng: np.random.Generator, angle: float | None = None
) -> np.ndarray:
    """A texture's values on the points ``(x, y)`` of the unit square, its period given as a part of the side.

    Args:
        name: a key of ``TEXTURES``.
        x, y: ``(S, S)`` coordinates, from the thing's centre.
        period: greater than 0; 0.1 to 0.25 is readable at 48 pixels.
        rng: source of angle, phase and random elements.
        angle: in radians; at random if not given.

    Returns:
        ``(S, S)`` values from 0 to 1.
    """
    if angle is None:
        angle = rng.uniform(0, TAU) if name in ANY_ANGLE else rng.normal(0, 0.12)
    cos, sin = math.cos(angle) / period, math.sin(angle) / period
    centred = name in ("spiralled", "cobwebbed")
    a, b = (0.0, 0.0) if centred else rng.uniform(0, 4, 2)
    return np.clip(TEXTURES[name](cos * x + sin * y + a, cos * y - sin * x + b, rng), 0, 1)


# Backgrounds have words of their own, so that a full-frame texture is new to a model that saw textures on things.


def _plain(x, y, rng):
    return np.zeros_like(x)


def _graded(x, y, rng):
    angle = rng.uniform(0, TAU)
    return np.clip(0.5 + 0.8 * (math.cos(angle) * x + math.sin(angle) * y), 0, 1)


def _ruled(x, y, rng):
    line = y + 0.02 * rng.normal() * x
    return _edge(np.cos(TAU * (rng.uniform(4, 6) * line + rng.random())) - 0.7, 0.3)


def _tiled(x, y, rng):
    tiles = rng.uniform(4, 6)
    return _edge(np.sin(math.pi * tiles * x) * np.sin(math.pi * tiles * y), 0.3)


def _grainy(x, y, rng):
    return np.kron(rng.random((x.shape[0] // 2, x.shape[1] // 2)), np.ones((2, 2)))


def _misty(x, y, rng):
    return smooth_noise(x.shape, 5, rng)


def _rayed(x, y, rng):
    angle = np.arctan2(y + rng.uniform(-0.2, 0.2), x + rng.uniform(-0.2, 0.2))
    return _edge(np.sin(rng.integers(5, 9) * angle), 0.2)


BACKGROUNDS: dict[str, Texture] = {
    "plain": _plain,
    "graded": _graded,
    "ruled": _ruled,
    "tiled": _tiled,
    "grainy": _grainy,
    "misty": _misty,
    "rayed": _rayed,
}
