"""What a picture of the world shows: a scene's factors, how scenes are drawn at random, and how captions name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from .patterns import BACKGROUNDS, TEXTURES
from .strokes import SHAPES

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 36),
    "orange": (246, 138, 24),
    "yellow": (246, 226, 40),
    "green": (30, 146, 52),
    "cyan": (48, 206, 214),
    "blue": (32, 66, 206),
    "purple": (128, 36, 158),
    "pink": (250, 150, 190),
    "brown": (122, 72, 30),
    "black": (16, 16, 18),
    "white": (246, 246, 244),
    "gray": (132, 132, 132),
}
DIGITS: dict[str, str] = {
    word: str(k)
    for k, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
}
LETTERS: dict[str, str] = {letter: letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
SYMBOLS: dict[str, str] = {
    "plus": "+",
    "equals": "=",
    "question mark": "?",
    "exclamation mark": "!",
    "hash": "#",
    "percent": "%",
    "ampersand": "&",
    "at": "@",
    "dollar": "$",
    "euro": "€",
    "pound": "£",
    "less than": "<",
    "greater than": ">",
    "infinity": "∞",
    "root": "√",
    "paragraph": "¶",
}
CHARACTERS: dict[str, dict[str, str]] = {"digit": DIGITS, "letter": LETTERS, "symbol": SYMBOLS}
SUBJECTS: dict[str, tuple[str, ...]] = {
    "object": tuple(SHAPES),
    **{kind: tuple(table) for kind, table in CHARACTERS.items()},
}
KIND_SHARES = (0.54, 0.14, 0.2, 0.12)  # of scenes drawn at random, in the order of SUBJECTS
STYLES = ("filled", "outlined", "shaded", "blurry")
# Ways of drawing that pre-training never shows, for shifted target domains.
UNSEEN_STYLES = ("sketched", "pixelated", "posterised", "embossed")
SIZES = ("small", "medium", "large")
POSITIONS = ("centre", "left", "right", "top", "bottom")

# Pairs that pre-training never draws: about one in eight, spread evenly over shapes, colours and textures.
HELD_OUT_COLOURS = frozenset(
    (shape, colour) for i, shape in enumerate(SHAPES) for j, colour in enumerate(COLOURS) if (5 * i + 7 * j) % 8 == 0
)
HELD_OUT_TEXTURES = frozenset(
    (shape, texture) for i, shape in enumerate(SHAPES) for j, texture in enumerate(TEXTURES) if (3 * i + 5 * j) % 8 == 0
)


@dataclass(frozen=True)
class Scene:
    """The factors of one picture. Those above the line can be named in a caption; the others only disturb.

    ``kind`` is "object", "digit", "letter", "symbol", or "texture": one that fills the frame, with "" as ``subject``.
    ``colour`` is the thing's, or the pattern's where there is a texture, whose ground is then ``ground``.
    """

    kind: str
    subject: str
    colour: str
    texture: str | None = None
    ground: str | None = None
    style: str = "filled"
    writing: str | None = None  # "printed" or "handwritten", for characters
    background: str = "plain"
    background_colour: str = "white"
    size: str = "medium"
    position: str = "centre"
    # --------------------------------------------------------------------
    font: str | None = None  # for printed characters
    contrast: float = 1.0  # 0 (all grey) to 1
    noise: float = 0.0  # standard deviation, in parts of the range
    clutter: int = 0  # bits and pieces strewn over the picture
    blur: float = 0.0  # radius, in parts of the side

    def __post_init__(self) -> None:
        """Raise ValueError for a value that no picture can show."""
        allowed = {
            "kind": (*SUBJECTS, "texture"),
            "subject": SUBJECTS.get(self.kind, ("",)),
            "colour": COLOURS,
            "texture": (None, *TEXTURES) if self.kind == "object" else TEXTURES if self.kind == "texture" else (None,),
            "ground": COLOURS if self.texture else (None,),
            "style": (*STYLES, *UNSEEN_STYLES),
            "writing": ("printed", "handwritten") if self.kind in CHARACTERS else (None,),
            "background": BACKGROUNDS,
            "background_colour": COLOURS,
            "size": SIZES,
            "position": POSITIONS,
        }
        for factor, values in allowed.items():
            if getattr(self, factor) not in values:
                options = ", ".join(map(str, values))
                raise ValueError(f"a scene's {factor} must be one of {options}, but is {getattr(self, factor)!r}")


_FACTORS = tuple(field.name for field in fields(Scene))
NAMED = _FACTORS[: _FACTORS.index("font")]


def held_out(scene: Scene) -> bool:
    """Whether the scene shows a combination that pre-training never draws."""
    return (
        (scene.subject, scene.colour) in HELD_OUT_COLOURS
        or (scene.subject, scene.ground) in HELD_OUT_COLOURS
        or (scene.subject, scene.texture) in HELD_OUT_TEXTURES
    )


# Colours that are hard to tell apart when they touch.
_NEAR = (("white", "yellow"), ("gray", "pink"), ("black", "brown"), ("red", "orange"), ("blue", "purple"))


def _pick(options: Iterable[str], rng: np.random.Generator) -> str:
    options = tuple(options)
    return options[rng.integers(len(options))]


def _contrasting_colour(taken: Iterable[str | None], rng: np.random.Generator) -> str:
    """A colour that stands out from those taken."""
    taken = set(taken)
    blocked = taken.union(*(pair for pair in _NEAR if taken & set(pair)))
    return _pick((name for name in COLOURS if name not in blocked), rng)


def sample_scene(rng: np.random.Generator, fonts: tuple[str, ...], kind: str | None = None, **fixed: Any) -> Scene:
    """Draw a scene at random, combinations held out from pre-training included.

    Args:
        rng: source of all random choices.
        fonts: fonts of printed characters.
        kind: "object", "digit", "letter", "symbol" or "texture"; at random (never "texture") if not given.
        fixed: factors of ``Scene`` that are given; ``texture=None`` asks for a thing without texture.

    Raises:
        ValueError: for a kind, a factor or a value that does not exist.
    """
    if kind is None:
        kind = tuple(SUBJECTS)[rng.choice(len(SUBJECTS), p=KIND_SHARES)]
    unknown = sorted(set(fixed) - set(_FACTORS))
    if unknown:
        raise ValueError(f"a scene's factors are {', '.join(_FACTORS)}, but {', '.join(unknown)} is given")
    character = kind in CHARACTERS
    factors: dict[str, Any] = {"kind": kind}
    factors["subject"] = fixed.get("subject", _pick(SUBJECTS.get(kind, ("",)), rng) if kind != "texture" else "")
    textured = kind == "texture" or (kind == "object" and rng.random() < 0.65)
    factors["texture"] = fixed.get("texture", _pick(TEXTURES, rng) if textured else None)

    # Half of the characters are black or white, most of these on white or black: ink on paper, chalk on slate.
    if "colour" in fixed:
        colour = fixed["colour"]
    elif character and "background_colour" not in fixed and rng.random() < 0.5:
        colour = _pick(("black", "white"), rng)
    elif "background_colour" in fixed:
        colour = _contrasting_colour((fixed["background_colour"],), rng)
    else:
        colour = _pick(COLOURS, rng)
    factors["colour"] = colour
    if factors["texture"] is not None:
        taken = (colour, fixed.get("background_colour"))
        factors["ground"] = fixed["ground"] if "ground" in fixed else _contrasting_colour(taken, rng)
    ink = character and "colour" not in fixed and colour in ("black", "white") and rng.random() < 0.6
    background = _pick(BACKGROUNDS, rng) if rng.random() < 0.7 else "plain"
    background_colour = _contrasting_colour((colour, factors.get("ground")), rng)
    if ink:
        background, background_colour = "plain", "white" if colour == "black" else "black"
    factors.update(background=background, background_colour=background_colour)

    styles: tuple[str, ...] = STYLES
    writing = None
    if character:
        writing = "handwritten" if kind != "symbol" and rng.random() < 0.55 else "printed"
        writing = fixed.get("writing", writing)
        # A pen's line is too thin to have an outline of its own.
        styles = ("outlined", "blurry") if writing == "printed" else ("blurry",)
        factors["font"] = _pick(fonts, rng)
    factors["writing"] = writing
    factors["style"] = _pick(styles, rng) if rng.random() < (0.4 if character else 0.5) else "filled"
    factors["size"] = _pick(SIZES if factors["texture"] is None and not character else SIZES[1:], rng)
    factors["position"] = "centre" if factors["size"] == "large" or rng.random() < 0.4 else _pick(POSITIONS, rng)
    factors["contrast"] = float(rng.uniform(0.5, 1.0))
    factors["noise"] = float(rng.uniform(0.0, 0.08))
    factors["clutter"] = int(rng.integers(0, 4)) if rng.random() < 0.3 else 0
    factors["blur"] = float(rng.uniform(0.0, 0.055)) if writing == "handwritten" else 0.0
    return Scene(**{**factors, **fixed})


def sample_pretraining_scene(rng: np.random.Generator, fonts: tuple[str, ...]) -> Scene:
    """A scene for pre-training: never a held-out combination, never a texture that fills the frame."""
    clear: dict[str, Any] = {"contrast": 1.0, "noise": 0.0, "clutter": 0, "blur": 0.0, "background": "plain"}
    fixed = clear if rng.random() < 0.5 else {}
    while True:
        scene = sample_scene(rng, fonts, **fixed)
        if not held_out(scene):
            return scene


# ---------------------------------------------------------------------------------------------- captions
class Caption(NamedTuple):
    """A caption and the factors that it names, with their values."""

    text: str
    named: dict[str, str | None]


_FRAMES = ("a photo of {}.", "a photo of {}.", "a picture of {}.", "an image of {}.", "a drawing of {}.", "{}.", "{}")
_PLACES = {
    "centre": ("in the centre", "in the middle"),
    "left": ("on the left",),
    "right": ("on the right",),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
}


def _with_article(phrase: str, rng: np.random.Generator) -> str:
    """The phrase after "a"; or "an" where English wants it, but not always, since prompts never ask."""
    return ("an " if phrase[0] in "aeiou" and rng.random() < 0.5 else "a ") + phrase


def describe(scene: Scene, rng: np.random.Generator) -> Caption:
    """Name a random subset of a scene's factors, the thing itself most often, in one of many wordings."""
    named: dict[str, str | None] = {}

    def name(factor: str, chance: float) -> bool:
        if rng.random() < chance:
            named[factor] = getattr(scene, factor)
            return True
        return False

    frame = _FRAMES[rng.integers(len(_FRAMES))]
    if scene.kind != "texture" and rng.random() < 0.05:
        ground = f"{scene.background_colour} {scene.background} background"
        named.update(background=scene.background, background_colour=scene.background_colour)
        return Caption(frame.format(_with_article(ground, rng)), named)
    character = scene.kind in CHARACTERS
    with_subject = scene.subject != "" and name("subject", 0.85)
    adjectives = []
    if scene.size != "medium" and name("size", 0.15):
        adjectives.append(scene.size)
    if scene.style != "filled" and name("style", 0.3):
        adjectives.append(scene.style)
    if scene.writing is not None and name("writing", 0.3):
        adjectives.append(scene.writing)
    if name("colour", 0.35 if scene.texture or character else 0.7):
        adjectives.append(scene.colour)
        if scene.ground is not None and name("ground", 0.5):
            adjectives[-1] += f" and {scene.ground}"
    with_texture = False
    if scene.texture is not None and name("texture", 0.8):
        with_texture = True
        adjectives.append(scene.texture)
    tail = ""
    if name("position", 0.12):
        places = _PLACES[scene.position]
        tail += " " + places[rng.integers(len(places))]
    if scene.kind != "texture" and name("background", 0.22):
        colour = f"{scene.background_colour} " if name("background_colour", 0.6) else ""
        tail += f" on {_with_article(colour + scene.background, rng)} background"
    elif scene.kind != "texture" and name("background_colour", 0.12):
        tail += f" on {scene.background_colour}"

    words = " ".join(adjectives)
    if scene.kind == "texture" or (with_texture and not with_subject and rng.random() < 0.7):
        phrase = _with_article(f"{words} texture".strip(), rng) if rng.random() < 0.5 else f"{words} texture".strip()
    else:
        named["kind"] = scene.kind
        if not with_subject:
            noun = ("thing" if rng.random() < 0.5 else "object") if scene.kind == "object" else scene.kind
        elif not character:
            noun = scene.subject
        elif scene.kind == "symbol":
            noun = f"{scene.subject} sign" if rng.random() < 0.5 else f"symbol {scene.subject}"
        else:
            noun = f"{scene.kind} {scene.subject}"
        article = "the " if character and with_subject and rng.random() < 0.7 else ""
        phrase = article + f"{words} {noun}".strip() if article else _with_article(f"{words} {noun}".strip(), rng)
    return Caption(frame.format(phrase + tail), named)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """The text of ``describe``."""
    return describe(scene, rng).text


def is_true(named: Mapping[str, str | None], scene: Scene) -> bool:
    """Whether a caption that names these factors holds for a scene."""
    return all(getattr(scene, factor) == value for factor, value in named.items())
