"""The picture of the method in README: views, templates, opinions, fusion, prediction.

    python -m docs.figures.method                  # writes docs/figures/method.svg
    python -m docs.figures.method picture.png      # or another file, in the format that its name says

The views are made of one picture of the data set `shapes`, by the augmentations of configs/trainers/CDC/tiny.yaml. The
evidence is made up; opinions, fusion and prediction are computed from it by `trainers.modules.evidence`.

Legend: M templates, C classes.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import compat  # noqa: F401  makes `import dassl` work

import matplotlib
import numpy as np
import torch
from dassl.config import get_cfg_default
from dassl.data.transforms.transforms import build_transform
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

import trainers  # noqa: F401  adds CDC's keys to the config
from datasets import world
from datasets.rendered import SIZE
from datasets.shapes import CLASSES, Shapes, sample_shape
from trainers.modules.evidence import fuse

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/trainers/CDC/tiny.yaml"
PICTURE = Path(__file__).with_suffix(".svg")

LABELS = ("blue fish", "green fish", "blue ring")
SUBJECT, NUMBER = ("blue", "fish"), 5  # the picture of `shapes` that is shown
# Of the config's four templates three are shown: how their views are called, and their evidence for each label.
VIEWS = {
    "plain": ["normalize"],
    "blurred": ["gaussian_blur", "normalize"],
    "cropped": ["random_resized_crop", "normalize"],
}
EVIDENCE = ((6.0, 1.5, 0.0), (3.0, 3.0, 1.5), (0.0, 1.5, 0.0))

WIDTH, HEIGHT, DPI = 920, 440, 96
INK, FAINT, PAPER, LINE = "#24292f", "#57606a", "#ffffff", "#d0d7de"
CLASS_COLOURS = ("#2f6fd0", "#2e9e5b", "#8a5cc7")
LEARNT = ("#e8833a", "#d6a419", "#cf5a44")  # context tokens of the three templates
UNSURE, BACK = "#c8ced6", "#f3f5f8"
ROWS = (118, 222, 326)  # middles of the templates' rows, counted from the top


class Example(NamedTuple):
    """The numbers in the picture.

    Attributes:
        evidence: of each template for each label.
        beliefs, uncertainties: each template's opinion.
        belief, uncertainty: the fused opinion.
        probability: the prediction.
    """

    evidence: Sequence[Sequence[float]]
    beliefs: Sequence[Sequence[float]]
    uncertainties: Sequence[float]
    belief: Sequence[float]
    uncertainty: float
    probability: Sequence[float]

    def told(self) -> str:
        """All numbers as one line of text, which is kept in the picture's file."""
        return json.dumps({name: np.round(value, 3).tolist() for name, value in self._asdict().items()})


def worked_example(evidence: Sequence[Sequence[float]] = EVIDENCE) -> Example:
    """Opinions, fusion and prediction, eqs. (4) to (6), of M templates' evidence for C labels, one image."""
    log_evidence = torch.tensor(evidence, dtype=torch.float64).log()[:, None]  # (M, 1, C)
    own = [fuse(template[None]) for template in log_evidence]
    fused = fuse(log_evidence)
    return Example(
        evidence,
        [opinion.belief[0].tolist() for opinion in own],
        [opinion.uncertainty.item() for opinion in own],
        fused.belief[0].tolist(),
        fused.uncertainty.item(),
        fused.log_prob[0].exp().tolist(),
    )


def paint_picture() -> Any:
    """The PIL image of `shapes` that is shown, as the data set has it."""
    rng = np.random.default_rng([Shapes.key, CLASSES.index(SUBJECT), NUMBER])
    return world.render(sample_shape(*SUBJECT, rng), SIZE, rng)


def make_views() -> dict[str, np.ndarray]:
    """One view per template, `(S, S, 3)` in [0, 1], by the config's own augmentations.

    Raises:
        ValueError: the config has no template with these augmentations.
    """
    cfg = get_cfg_default()
    cfg.merge_from_file(str(CONFIG))
    torch.manual_seed(0)
    random.seed(0)
    picture, views = paint_picture(), {}
    mean, std = (torch.tensor(values)[:, None, None] for values in (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    for name, choices in VIEWS.items():
        if choices not in cfg.TRAINER.CDC.AUGMENTATIONS:
            raise ValueError(f"no template in {CONFIG} has the augmentations {choices}")
        with redirect_stdout(StringIO()):  # Dassl tells what it builds
            transform = build_transform(cfg, is_train=True, choices=choices)
        view = transform(picture)
        views[name] = (view * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    return views


def draw(path: Path) -> None:
    """Draw the picture into a file."""
    example = worked_example()
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.set_axis_off()
    _box(axes, 1, 1, WIDTH - 2, HEIGHT - 2, PAPER, LINE, radius=10)
    _draw_views(axes)
    _draw_templates(axes)
    _draw_encoders(axes)
    _draw_opinions(axes, example)
    _draw_prediction(axes, example)
    _draw_key(axes)
    # The same file whenever it is drawn by the same matplotlib
    about: dict[str, Any] = {"Title": "How CDC classifies an image", "Description": example.told(), "Date": None}
    with matplotlib.rc_context({"svg.hashsalt": "method", "svg.fonttype": "path"}):
        figure.savefig(path, metadata=about if path.suffix == ".svg" else None)


def _text(axes: Axes, x: float, y: float, text: str, size: float = 12.5, **options: Any) -> None:
    """Text in pixels of height, its middle at `y`."""
    given = {"ha": "left", "va": "center", "color": INK, "fontsize": size * 72 / DPI, **options}
    axes.text(x, y, text, **given)


def _box(axes: Axes, x: float, y: float, width: float, height: float, face: str, edge: str, radius: float = 4) -> None:
    style = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=face, edgecolor=edge, linewidth=1))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0) -> None:
    shape = {"arrowstyle": "-|>,head_length=4,head_width=2.2", "connectionstyle": f"arc3,rad={bend}"}
    axes.add_patch(FancyArrowPatch(start, end, color=FAINT, linewidth=1.2, shrinkA=0, shrinkB=0, **shape))


def _image(axes: Axes, pixels: Any, x: float, y: float, side: float) -> None:
    axes.imshow(pixels, extent=(x, x + side, y + side, y), interpolation="nearest", aspect="auto", zorder=2)
    axes.add_patch(Rectangle((x, y), side, side, facecolor="none", edgecolor=FAINT, linewidth=1, zorder=3))
    axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))


def _heading(axes: Axes, x: float, title: str, below: str) -> None:
    _text(axes, x, 26, title, 15, weight="bold")
    _text(axes, x, 46, below, color=FAINT)


def _draw_views(axes: Axes) -> None:
    _heading(axes, 18, "Views", "one for each template")
    _image(axes, paint_picture(), 18, ROWS[1] - 38, 76)
    _text(axes, 56, ROWS[1] + 52, "the image", ha="center")
    for (name, view), y in zip(make_views().items(), ROWS):
        _box(axes, 138, y - 44, 290, 88, BACK, LINE, radius=6)
        _arrow(axes, (98, ROWS[1] + (y - ROWS[1]) * 0.2), (136, y + (ROWS[1] - y) * 0.08))
        _image(axes, view, 144, y - 38, 76)
        _text(axes, 232, y - 28, name, color=FAINT)


def _draw_templates(axes: Axes) -> None:
    _heading(axes, 246, "Templates", "learnt tokens, class name")
    for y, learnt in zip(ROWS, LEARNT):
        _tokens(axes, 232, y + 8, 17, learnt)
        for label, colour, line in zip(LABELS, CLASS_COLOURS, (-12, 8, 28)):
            _text(axes, 328, y + line, f"{label}.", color=colour)


def _tokens(axes: Axes, x: float, y: float, width: float, colour: str) -> None:
    for n in range(4):
        _box(axes, x + n * (width + 5), y - 8, width, 16, colour, colour, radius=3)


def _draw_encoders(axes: Axes) -> None:
    top, height = ROWS[0] - 44, ROWS[2] - ROWS[0] + 88
    _box(axes, 450, top, 58, height, PAPER, INK)
    _text(axes, 472, top + height / 2, "CLIP’s two encoders, frozen", 14, rotation=90, ha="center")
    _text(axes, 493, top + height / 2, "cosines of view and class texts", rotation=90, ha="center", color=FAINT)
    for y in ROWS:
        _arrow(axes, (430, y), (448, y))
        _arrow(axes, (510, y), (530, y))


def _bar(axes: Axes, x: float, y: float, width: float, parts: Sequence[float], unsure: float) -> None:
    """A stacked bar of beliefs and uncertainty, each with its number in it."""
    for share, colour in zip((*parts, unsure), (*CLASS_COLOURS, UNSURE)):
        if not share:
            continue
        hatch = "////" if colour == UNSURE else None
        part = Rectangle((x, y - 13), share * width, 26, facecolor=colour, edgecolor=PAPER, hatch=hatch, linewidth=1)
        axes.add_patch(part)
        if share * width > 24:
            ink = {"color": INK, "bbox": {"facecolor": UNSURE, "pad": 1, "linewidth": 0}} if hatch else {"color": PAPER}
            _text(axes, x + share * width / 2, y, f"{share:.2f}"[1:], ha="center", **ink)
        x += share * width


def _draw_opinions(axes: Axes, example: Example) -> None:
    _heading(axes, 534, "Opinions", "beliefs and uncertainty")
    for y, evidence, belief, unsure in zip(ROWS, example.evidence, example.beliefs, example.uncertainties):
        numbers = ", ".join(f"{value:g}" for value in evidence)
        _text(axes, 534, y - 26, f"evidence {numbers}", color=FAINT)
        _bar(axes, 534, y, 144, belief, unsure)
        _text(axes, 534, y + 26, f"uncertainty {unsure:.2f}", color=FAINT)


def _draw_prediction(axes: Axes, example: Example) -> None:
    _heading(axes, 732, "Prediction", "fused by Dempster’s rule")
    for y in ROWS:
        _arrow(axes, (684, y), (726, ROWS[1] + (y - ROWS[1]) * 0.16))
    y = ROWS[1]
    _text(axes, 732, y - 26, "fused opinion", color=FAINT)
    _bar(axes, 732, y, 170, example.belief, example.uncertainty)
    _text(axes, 732, y + 26, f"uncertainty {example.uncertainty:.2f}", weight="bold")
    for line, (label, colour, share) in enumerate(zip(LABELS, CLASS_COLOURS, example.probability)):
        weight = "bold" if share == max(example.probability) else "normal"
        _text(axes, 732, y + 56 + 20 * line, f"{label}", color=colour, weight=weight)
        _text(axes, 902, y + 56 + 20 * line, f"{share:.2f}", color=colour, weight=weight, ha="right")


def _draw_key(axes: Axes) -> None:
    """What is learnt, and by which losses."""
    y = HEIGHT - 30
    axes.plot((18, WIDTH - 18), (y - 26, y - 26), color=LINE, linewidth=1)
    for n, colour in enumerate(LEARNT):
        _box(axes, 18 + 14 * n, y - 8, 10, 16, colour, colour, radius=3)
    losses = "(2) keeps templates apart, (3) near a hand-written one; (7) makes opinions right."
    _text(axes, 66, y, f"Only the templates are learnt. Losses: {losses}")


def main() -> None:
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)


if __name__ == "__main__":
    main()
