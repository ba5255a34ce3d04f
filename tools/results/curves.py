"""Few-shot curves: accuracy over the number of training images per class, a panel for each data set and the average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from tools.common.colours import LINES, MARKERS, Style, system_styles
from tools.results.published import display_name
from tools.results.tables import Table, shots_of

PANEL, LEGEND = 3.2, 0.5  # inches
PANELS_A_ROW = 4


def draw_curves(table: Table, path: str | Path) -> None:
    """Draw the few-shot curves of a table in the manner of CoOp's paper.

    Error bars are standard deviations over seeds. Zero-shot CLIP, at 0 shots, is a star with a line through the panel.
    There is a point for each figure of the table, so a curve goes past what is missing; runs with all images are no
    point of it.

    Args:
        table: of the few-shot protocol.
        path: the picture's; its ending says which format.

    Raises:
        ValueError: the table is of another protocol, or the ending names no format of pictures.
    """
    if table.protocol != "fewshot":
        raise ValueError(f"curves need a table of the few-shot protocol, got one of {table.protocol}")
    panels = ["average"] * bool(table.averaged) + table.datasets
    width = min(PANELS_A_ROW, len(panels))
    height = math.ceil(len(panels) / width)
    figure = Figure(figsize=(PANEL * width, PANEL * height + LEGEND))
    formats = figure.canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise ValueError(f"a picture's name must end in one of .{', .'.join(sorted(formats))}, got {path}")

    axes = figure.subplots(height, width, squeeze=False).flat
    handles = {}
    for panel, axis in zip(panels, axes):
        handles.update(_draw_panel(axis, table, panel))
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.tight_layout(rect=(0, LEGEND / (PANEL * height + LEGEND), 1, 1))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=150)


def _draw_panel(axis: Axes, table: Table, panel: str) -> dict:
    """One data set's curves, or those of the average; returns what the legend shows, by title."""
    handles, ticks = {}, {0}
    styles = system_styles((column.title, column.trainer) for column in table.columns)
    for column in table.columns:
        points = []
        for metric in column.metrics:
            figure = column.averages.get(metric) if panel == "average" else column.cells.get((panel, metric))
            if figure and shots_of(metric) >= 0:
                points.append((shots_of(metric), figure.mean, figure.std or 0.0))
            ticks.add(max(shots_of(metric), 0))
        if not points:
            continue
        shots, means, deviations = zip(*points)
        zero_shot = shots == (0,)
        style = styles[column.title]
        if zero_shot:
            axis.axhline(means[0], color=style.color, linestyle="dotted", linewidth=1)
        handles[column.title] = draw_line(axis, shots, means, deviations, style, symbol="star" if zero_shot else "")
    title = f"Average of {len(table.averaged)}" if panel == "average" else display_name(panel)
    axis.set_title(title, fontweight="bold" if panel == "average" else None)
    axis.set_xticks(sorted(ticks))
    axis.set_xlabel("training images per class")
    axis.set_ylabel("accuracy (%)")
    put_grid(axis)
    return handles


def draw_line(
    axis: Axes,
    x: Sequence[float],
    means: Sequence[float],
    deviations: Sequence[float],
    style: Style,
    label: str = "",
    symbol: str = "",
) -> ErrorbarContainer:
    """A line through means, with bars of standard deviations.

    Args:
        axis: that it is drawn into.
        x, means, deviations: of its points.
        style: of the system.
        label: for the legend.
        symbol: in place of the style's; a star is large.
    """
    symbol = symbol or style.symbol
    return axis.errorbar(
        x,
        means,
        deviations,
        color=style.color,
        linestyle=LINES[style.dash],
        marker=MARKERS[symbol],
        markersize=9 if symbol == "star" else 4,
        linewidth=1.5,
        elinewidth=1,
        capsize=2,
        label=label or None,
    )


def put_grid(axis: Axes) -> None:
    """The ground of all curves."""
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
