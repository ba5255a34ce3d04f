"""Few-shot curves: accuracy over the number of training images a class, a panel for each data set and the average."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    for index, column in enumerate(table.columns):
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
        if zero_shot:
            axis.axhline(means[0], color=f"C{index}", linestyle="dotted", linewidth=1)
        handles[column.title] = axis.errorbar(
            shots,
            means,
            deviations,
            color=f"C{index}",
            marker="*" if zero_shot else "o",
            markersize=9 if zero_shot else 4,
            linewidth=1.5,
            elinewidth=1,
            capsize=2,
        )
    title = f"Average of {len(table.averaged)}" if panel == "average" else display_name(panel)
    axis.set_title(title, fontweight="bold" if panel == "average" else None)
    axis.set_xticks(sorted(ticks))
    axis.set_xlabel("training images a class")
    axis.set_ylabel("accuracy (%)")
    axis.set_facecolor("#EBEBEB")
    axis.grid(color="white")
    axis.set_axisbelow(True)
    return handles
