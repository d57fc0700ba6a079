"""Vectors of many images by class: points in the plane, and heat maps of classes by channels."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coseglib.figures.style import COLOUR_MAP, finish, grid_of, styled, text_width, wrapped
from coseglib.segmenting.labels import class_colours

AXES = "first and second direction (no unit)"  # written once, below all panels, which have no ticks


def _label(ax: Axes, points: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> None:
    """Each class's name above the point in its middle, or as near as it is free; the layout must be the final one."""
    placed = []
    for name in names:
        own = points[classes == name]
        middle = own[np.abs(own - np.median(own, axis=0)).sum(axis=1).argmin()]  # a point of its own, and not a void
        text = ax.annotate(name, middle, (0, 5), textcoords="offset points", ha="center", fontsize=8, zorder=5)
        text.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground="white", alpha=0.9)])
        box = text.get_window_extent()
        for up in sorted(range(-400, 401, 2), key=abs):
            moved = box.translated(0, up)
            if ax.bbox.y0 <= moved.y0 and moved.y1 <= ax.bbox.y1 and not any(moved.overlaps(other) for other in placed):
                break
        placed.append(moved)
        text.set_position((0, 5 + 72 * up / ax.figure.dpi))


@styled()
def show_points(
    panels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    title: str,
    labels: bool = True,
    hollow: Sequence[bool] | None = None,
    columns: int | None = None,
) -> Figure:
    """Points in the plane, a colour and a shape for every class, the same in all panels.

    panels  {title: (n, 2)}; classes: n names
    labels  names written at the classes in every panel, for few and large ones; False: small ones and a legend
    hollow  (n,) points that are drawn as outlines: unseen classes, say
    Raises ValueError where the numbers differ.
    """
    names, classes = list(dict.fromkeys(map(str, classes))), np.asarray(classes, str)
    hollow = np.zeros(len(classes), bool) if hollow is None else np.asarray(hollow, bool)
    for panel, points in panels.items():
        if np.shape(points) != (len(classes), 2) or len(hollow) != len(classes):
            raise ValueError(f"{panel}: points of {np.shape(points)} for {len(classes)} classes, {len(hollow)} hollow")
    look = {n: (c, "osD^vPX"[i % 7]) for i, (n, c) in enumerate(zip(names, class_colours(len(names)), strict=True))}
    side, below = (3.9, 0.4) if labels else (2.0, 0.65)
    fig, grid = grid_of(len(panels), columns or (2 if labels else 4), (side, side + 0.1), (0, below))
    for ax, (panel, points) in zip(grid, panels.items(), strict=True):
        for name, (colour, marker) in look.items():
            for empty in (False, True):
                some = np.asarray(points)[(classes == name) & (hollow == empty)]
                face, edge = ("none", colour) if empty else (colour, "white")
                ax.scatter(*some.T, s=34 if labels else 14, c=face, edgecolors=edge, linewidths=0.5, marker=marker)
        ax.set_title(wrapped(panel, side - 0.1), fontsize=8)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    if not labels:
        small = {"linestyle": "none", "markersize": 5}
        dots = [Line2D([], [], color=c, marker=m, label=name, **small) for name, (c, m) in look.items()]
        return finish(fig, title, dots, AXES)
    finish(fig, title)
    fig.supxlabel(AXES, fontsize=9)
    fig.canvas.draw()
    for ax, points in zip(grid, panels.values(), strict=True):
        _label(ax, np.asarray(points), classes, names)
    return fig


@styled()
def show_channels(table: pd.DataFrame, title: str, unit: str, limits: tuple[float, float] | None = None) -> Figure:
    """A heat map of classes (rows) by channels (columns), both reordered so that like ones stand side by side.

    table  K rows by class, columns by channel; clustered by average linkage of Euclidean distances, trees at the sides
    unit   of the values, written beside the bar; limits: of the colour scale
    Raises ValueError for fewer than two rows or columns.
    """
    import seaborn  # not at the top: it takes a second, and nothing else needs it

    if min(table.shape) < 2:
        raise ValueError(f"table of {table.shape}: two rows and two columns at least")
    low, high = limits or (None, None)
    width = max(5.0, 2.6 + 0.17 * table.shape[1])
    title = wrapped(title, width - 0.2, 10)
    height = max(3.2, 2.0 + 0.24 * len(table)) + 0.17 * title.count("\n")
    look = {"cmap": COLOUR_MAP, "vmin": low, "vmax": high, "cbar_kws": {"label": wrapped(unit, 0.75 * height, 9)}}
    look |= {"dendrogram_ratio": (0.08, 0.16), "xticklabels": True, "yticklabels": True}
    with plt.rc_context({"figure.constrained_layout.use": False, "axes.grid": False}):
        drawn = seaborn.clustermap(table, figsize=(width, height), **look)
    drawn.ax_heatmap.set(xlabel="channel", ylabel="class")
    drawn.ax_heatmap.tick_params(axis="x", labelsize=6, rotation=90)
    drawn.ax_heatmap.tick_params(axis="y", rotation=0)
    names = 0.5 + max(text_width(str(name)) for name in table.index)  # inches at the right
    top = 1 - (0.35 + 0.17 * title.count("\n")) / height
    drawn.figure.subplots_adjust(left=0.85 / width, right=1 - names / width, bottom=0.6 / height, top=top)
    drawn.ax_cbar.set_position((0.6 / width, 0.25, 0.1 / width, 0.5))
    drawn.ax_cbar.yaxis.set_ticks_position("left")
    drawn.ax_cbar.yaxis.set_label_position("left")
    drawn.figure.suptitle(title, x=0.1 / width, ha="left")
    return drawn.figure
