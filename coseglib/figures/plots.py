"""Figures in one style: masks over images, heat maps, training curves, bars. Every function returns a closed Figure.

Colours are told apart by colour-blind readers too (Okabe and Ito): orange is a prediction, blue the truth; values are
shown in cividis. Images are uint8 (3, H, W), masks uint8 (H, W): what is not 0 is foreground, in truths but for 255.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from sklearn.isotonic import IsotonicRegression

from coseglib.core.errors import CosegError
from coseglib.data.record import VOID
from coseglib.scoring.metrics import jaccard
from coseglib.segmenting.overlays import OKABE_ITO, class_colours

ORANGE, BLUE, *OTHERS = OKABE_ITO
SERIES = (BLUE, ORANGE, *OTHERS)
VALUES = "cividis"
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelsize": 9,
    "axes.prop_cycle": matplotlib.cycler(color=SERIES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.titlesize": 10,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "image.cmap": VALUES,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "coseglib",  # the same figure is the same file
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def use_style() -> None:
    """Set the figure style for everything that is drawn from here on, a notebook's own figures for example."""
    plt.rcParams.update(STYLE)


@contextmanager
def _styled():
    """The style while a figure is drawn; closed afterwards, so that a notebook shows it once, as a cell's value."""
    with plt.rc_context(STYLE):
        before = set(plt.get_fignums())
        try:
            yield
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)


def _picture(image) -> np.ndarray:
    """uint8 (3, H, W) -> (H, W, 3), at most about 1000 pixels a side: a figure shows no more."""
    picture = np.asarray(image).transpose(1, 2, 0)
    step = max(1, max(picture.shape[:2]) // 1000)
    return picture[::step, ::step]


def _grid(
    count: int, columns: int | None, titled: bool, below: float = 0.0, beside: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A grid of panels of 1.7 inches, with room in inches below and beside it; panels left over are hidden."""
    if count == 0:
        raise ValueError("no images to show")
    columns = min(count, columns or 6)
    rows = -(-count // columns)
    size = columns * 1.7 + beside, rows * (1.9 if titled else 1.72) + 0.25 + below
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return fig, list(axes.flat[:count])


def shortened(name: str, most: int = 26) -> str:
    """A name that fits above a panel: the end stays, where photographs of one camera differ."""
    return name if len(name) <= most else f"{name[: most - 9]}…{name[-8:]}"


def _contour(ax: Axes, mask: np.ndarray, colour: str, extent, **line) -> None:
    """The mask's outline, with a halo that keeps it visible on any photograph."""
    framed = np.pad(mask.astype(float), 1)  # an object that is cut off by the image's border has an outline there too
    h, w = mask.shape
    if not mask.any():
        return
    x = (np.arange(-1, w + 1) + 0.5) * extent[0] / w - 0.5
    y = (np.arange(-1, h + 1) + 0.5) * extent[1] / h - 0.5
    outline = ax.contour(x, y, framed, levels=[0.5], colors=[colour], **line)
    halo = "black" if colour == ORANGE else "white"
    outline.set_path_effects([patheffects.withStroke(linewidth=line["linewidths"] + 1.4, foreground=halo, alpha=0.75)])


def show_group(
    images: Sequence,
    masks: Sequence | None = None,
    truths: Sequence | None = None,
    names: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
) -> Figure:
    """A grid of images: predictions tinted and outlined in orange, truths outlined in blue, J beside the name.

    images  N of uint8 (3, H, W), each of its own size; masks, truths: N of uint8 (H, W), 255 void; names: N
    Raises ValueError where the numbers differ.
    """
    for what, given in (("masks", masks), ("truths", truths), ("names", names)):
        if given is not None and len(given) != len(images):
            raise ValueError(f"{len(images)} images and {len(given)} {what}")
    with _styled():
        fig, axes = _grid(len(images), columns, names is not None or truths is not None, below=0.25)
        for i, ax in enumerate(axes):
            picture = _picture(images[i])
            ax.imshow(picture)
            h, w = picture.shape[:2]
            scored = masks is not None and truths is not None
            label = [shortened(str(names[i]), 18 if scored else 26)] if names is not None else []
            if masks is not None:
                mask = np.asarray(masks[i]) != 0
                tint = np.zeros((*mask.shape, 4))
                tint[mask] = (*matplotlib.colors.to_rgb(ORANGE), 0.35)
                ax.imshow(tint, extent=(-0.5, w - 0.5, h - 0.5, -0.5), interpolation="nearest")
                _contour(ax, mask, ORANGE, (w, h), linewidths=1.3)
            if truths is not None:
                truth = np.asarray(truths[i])
                _contour(ax, (truth != 0) & (truth != VOID), BLUE, (w, h), linewidths=1.2, linestyles="dashed")
            if scored:
                label.append(f"J {jaccard(masks[i], truths[i]):.2f}")
            ax.set_xlim(-0.5, w - 0.5)
            ax.set_ylim(h - 0.5, -0.5)
            ax.set_title("  ".join(label), fontsize=8)
        handles = []
        if masks is not None:
            handles.append(
                Patch(facecolor=(*matplotlib.colors.to_rgb(ORANGE), 0.5), edgecolor=ORANGE, label="prediction")
            )
        if truths is not None:
            handles.append(Line2D([], [], color=BLUE, linestyle="dashed", label="truth"))
        if handles:
            fig.legend(handles=handles, loc="outside lower center", ncols=2)
        fig.suptitle(title)
        return fig


def show_heat(
    images: Sequence,
    maps: Sequence,
    title: str,
    unit: str,
    names: Sequence[str] | None = None,
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Heat maps over grey images, all on one colour scale with a bar.

    images  N of uint8 (3, H, W); maps N of (h, w), of any size, enlarged bilinearly
    title   what the maps show; unit: of their values ("probability, 0 to 1"), written beside the bar
    limits  of the colour scale; None: the smallest and the largest value of all maps
    Raises ValueError where the numbers differ.
    """
    if len(images) != len(maps) or (names is not None and len(names) != len(images)):
        raise ValueError(f"{len(images)} images, {len(maps)} maps and {len(images if names is None else names)} names")
    maps = [np.asarray(m, float) for m in maps]
    with _styled():
        fig, axes = _grid(len(images), columns, names is not None, beside=0.7)
        low, high = limits or (min(m.min() for m in maps), max(m.max() for m in maps))
        for i, ax in enumerate(axes):
            picture = _picture(images[i])
            h, w = picture.shape[:2]
            ax.imshow(picture @ (0.299, 0.587, 0.114), cmap="gray", vmin=0, vmax=255)
            shown = ax.imshow(
                maps[i],
                vmin=low,
                vmax=high,
                alpha=0.65,
                extent=(-0.5, w - 0.5, h - 0.5, -0.5),
                interpolation="bilinear",
            )
            ax.set_title(shortened(str(names[i])) if names is not None else "", fontsize=8)
        bar = fig.colorbar(shown, ax=fig.axes, fraction=0.03, pad=0.01, aspect=18)
        bar.set_label(unit)
        bar.outline.set_visible(False)
        fig.suptitle(title)
        return fig


def _label_ends(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names beside the lines' last points (x, y, name, colour), moved apart just so that they do not overlap."""
    if not ends:
        return
    ordered = sorted(ends, key=lambda e: e[1])
    low, high = ax.get_ylim()
    gaps = 0.08 * (high - low) * np.arange(len(ordered))
    # y_i + gap <= y_{i+1}: without the gaps, the nearest increasing sequence.
    places = IsotonicRegression().fit_transform(gaps, [y for _, y, _, _ in ordered] - gaps) + gaps
    places = places - max(0.0, places[-1] - high) + max(0.0, low - places[0])
    for (x, _, name, colour), y in zip(ordered, places, strict=True):
        ax.annotate(name, (x, y), (5, 0), textcoords="offset points", color=colour, va="center", fontsize=8)


def curves(
    logs: pd.DataFrame | Mapping[str, pd.DataFrame],
    title: str | None = None,
    loss: str = "cross-entropy (nats a pixel)",
) -> Figure:
    """Loss, and J in training and in validation, against the step; every line is named at its end.

    logs  a run's log.csv as a table (columns step, loss, J and, where validated, val_J), or {name: table} of several
    loss  what was minimised and its unit: the left axis' name
    Raises ValueError for a table without these columns.
    """
    runs = {"": logs} if isinstance(logs, pd.DataFrame) else dict(logs)
    for name, log in runs.items():
        if missing := {"step", "loss", "J"} - set(log.columns):
            raise ValueError(f"log {name or 'table'}: lacks {', '.join(sorted(missing))}")
    validated = any("val_J" in log and log.val_J.notna().any() for log in runs.values())
    with _styled():
        fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 2.9))
        ends = {left: [], right: []}

        def line(ax: Axes, log: pd.DataFrame, column: str, colour: str, label: str | None = None, **look) -> None:
            known = log.dropna(subset=[column]) if column in log else log[:0]
            if len(known):
                ax.plot(known.step, known[column], color=colour, **look)
                if label:
                    ends[ax].append((known.step.iloc[-1], known[column].iloc[-1], label, colour))

        for i, (name, log) in enumerate(runs.items()):
            colour = SERIES[i % len(SERIES)]
            line(left, log, "loss", colour, name or "training")
            if validated and name:  # several runs: one name each, on the line that counts
                line(right, log, "J", colour, alpha=0.4, linewidth=0.9)
                line(right, log, "val_J", colour, name, marker="o", markersize=3)
            else:
                line(right, log, "J", colour, name or "training")
                line(right, log, "val_J", ORANGE, "validation", marker="o", markersize=3)
        if validated and "" not in runs:
            right.set_title("dots: validation, thin: training", fontsize=8)
        left.set_ylabel(loss)
        left.set_ylim(bottom=0)
        right.set_ylabel("Jaccard index J (0 to 1)")
        right.set_ylim(0, 1)
        for ax in (left, right):
            ax.set_xlabel("optimisation step")
            ax.set_xlim(left=0)
            _label_ends(ax, ends[ax])
        fig.suptitle(title)
        return fig


def bars(
    table: pd.DataFrame,
    paper: pd.DataFrame | None = None,
    value: str = "J",
    by: str = "group",
    series: str = "system",
    title: str | None = None,
) -> Figure:
    """Ours as bars, the papers' printed figures as diamonds, group by group in the table's order.

    table  columns `by` and `value` (in [0, 1]), `series` where there are several of ours, `sd` for error bars
    paper  columns `by`, `value` (in [0, 1], not percent) and `series`; groups that are not in the table are left out.
           A system that is one of ours by name has its diamonds on its own bars, others over the middle of the group
    value  "J" or "P", or another column, which then names the axis
    Raises ValueError for figures above 1: percent, most likely.
    """
    unit = {"J": "Jaccard index J (0 to 1)", "P": "precision P, share of pixels (0 to 1)"}.get(value, value)
    for what, given in (("table", table), ("paper", paper)):
        if given is not None and value in ("J", "P") and given[value].max() > 1:
            raise ValueError(f"{what}: {value} above 1; give shares, not percent")
    ours = table.assign(**{series: "ours"}) if series not in table else table
    groups, systems = list(dict.fromkeys(ours[by])), list(dict.fromkeys(ours[series]))
    with _styled():
        fig, ax = plt.subplots(figsize=(max(3.6, 1.3 + 0.28 * len(groups) * (1 + len(systems))), 3.1))
        width = 0.8 / len(systems)
        offset = {system: (k - (len(systems) - 1) / 2) * width for k, system in enumerate(systems)}
        for k, system in enumerate(systems):
            rows = ours[ours[series] == system].set_index(by).reindex(groups)
            colour, ink = ((BLUE, "white"), ("#56B4E9", "black"), ("#009E73", "white"), ("#CC79A7", "black"))[k % 4]
            drawn = ax.bar(
                np.arange(len(groups)) + offset[system],
                rows[value],
                width * 0.92,
                color=colour,
                label=str(system),
                yerr=rows.get("sd"),
                error_kw={"elinewidth": 1, "ecolor": "#333333"},
            )
            for group, patch, v in zip(groups, drawn, rows[value], strict=True):
                if group == "all":
                    patch.set(edgecolor="black", linewidth=1.2)
                if v == v and value in ("J", "P"):  # at the foot, where no diamond hides it
                    at = (patch.get_x() + patch.get_width() / 2, 0.02)
                    ax.text(*at, f"{v:.2f}", color=ink, fontsize=7, ha="center", rotation=90 if len(systems) > 1 else 0)
        if paper is not None:
            printed = paper.assign(**{series: "paper"}) if series not in paper else paper
            for k, system in enumerate(dict.fromkeys(printed[series])):
                rows = printed[(printed[series] == system) & printed[by].isin(groups)]
                ax.plot(
                    [groups.index(g) + offset.get(system, 0) for g in rows[by]],
                    rows[value],
                    "Dos^v"[k % 5],
                    color=ORANGE,
                    markeredgecolor="black",
                    markersize=5.5,
                    linestyle="none",
                    label=f"{system}, as printed" if system in offset else str(system),
                )
        ax.set_ylabel(unit)
        ax.set_xlabel(by)
        if value in ("J", "P"):
            ax.set_ylim(0, 1.05)
        long = max(len(str(g)) for g in groups) > 6 * len(systems)
        ax.set_xticks(range(len(groups)), groups, rotation=35 if long else 0, ha="right" if long else "center")
        ax.tick_params(axis="x", length=0)
        if len(systems) > 1 or paper is not None:
            handles, labels = ax.get_legend_handles_labels()
            order = sorted(range(len(handles)), key=lambda i: isinstance(handles[i], Line2D))  # bars first
            fig.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside upper right", ncols=4)
        if title:
            ax.set_title(title)
        return fig


def _apart(texts: Sequence, rounds: int = 100) -> None:
    """Push labels that cover each other apart, up and down; those of `annotate` in offset points."""
    figure = texts[0].figure
    figure.canvas.draw()
    boxes = np.array([text.get_window_extent().extents for text in texts])  # x0, y0, x1, y1 in pixels
    centres, half = (boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 3] - boxes[:, 1]) / 2
    start = centres.copy()
    beside = (boxes[:, None, 0] < boxes[None, :, 2]) & (boxes[None, :, 0] < boxes[:, None, 2])
    for _ in range(rounds):
        gap = centres[:, None] - centres[None]
        cover = np.where(beside & ~np.eye(len(texts), dtype=bool), half[:, None] + half[None] - np.abs(gap), 0).clip(0)
        if not cover.any():
            break
        above = np.where(gap == 0, np.sign(np.arange(len(texts))[:, None] - np.arange(len(texts))), np.sign(gap))
        centres += 0.5 * (cover * above).sum(axis=1)
    for text, moved in zip(texts, (centres - start) * 72 / figure.dpi, strict=True):
        text.xyann = text.xyann[0], text.xyann[1] + moved


def show_points(
    panels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    title: str,
    axes: str = "first and second direction (no unit)",
    labels: bool = True,
    hollow: Sequence[bool] | None = None,
    columns: int | None = None,
) -> Figure:
    """Points in the plane, a colour and a shape for every class, the same in all panels.

    panels  {title: (n, 2)}; classes: n names
    axes    what both axes are, and their unit; written once, below all panels, which have no ticks
    labels  names written at the classes in every panel, for few and large ones; False: small ones and a legend
    hollow  (n,) points that are drawn as outlines: unseen classes, say
    Raises ValueError where the numbers differ.
    """
    names = list(dict.fromkeys(map(str, classes)))
    classes = np.asarray(classes, str)
    hollow = np.zeros(len(classes), bool) if hollow is None else np.asarray(hollow, bool)
    for panel, points in panels.items():
        if np.shape(points) != (len(classes), 2) or len(hollow) != len(classes):
            raise ValueError(f"{panel}: points of {np.shape(points)} for {len(classes)} classes, {len(hollow)} hollow")
    look = {n: (c, "osD^vPX"[i % 7]) for i, (n, c) in enumerate(zip(names, class_colours(len(names)), strict=True))}
    columns = min(len(panels), columns or (2 if labels else 4))
    rows, side = -(-len(panels) // columns), 3.9 if labels else 2.0
    with _styled():
        size = columns * side, rows * (side + 0.1) + 0.4 + (0 if labels else 0.25 * -(-len(names) // 6))
        fig, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
        for ax in grid.flat[len(panels) :]:
            ax.set_axis_off()
        for ax, (panel, points) in zip(grid.flat, panels.items(), strict=False):
            for name, (colour, marker) in look.items():
                for empty in (False, True):
                    some = np.asarray(points)[(classes == name) & (hollow == empty)]
                    face = "none" if empty else colour
                    edge = colour if empty else "white"
                    ax.scatter(*some.T, s=34 if labels else 14, c=face, edgecolors=edge, linewidths=0.5, marker=marker)
            if labels:
                for name in names:
                    own = np.asarray(points)[classes == name]
                    middle = own[np.abs(own - np.median(own, axis=0)).sum(axis=1).argmin()]  # a point, not a void
                    text = ax.annotate(
                        name, middle, (0, 5), textcoords="offset points", ha="center", fontsize=8, zorder=5
                    )
                    text.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground="white", alpha=0.9)])
            ax.set_title(panel, fontsize=9 if labels else 8)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        if not labels:
            dots = [
                Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=5, label=name)
                for name, (colour, marker) in look.items()
            ]
            fig.legend(handles=dots, loc="outside lower center", ncols=min(6, len(names)), title=axes, title_fontsize=9)
        else:
            fig.supxlabel(axes, fontsize=9)
        fig.suptitle(title)
        for ax in fig.axes if labels else ():
            if ax.texts:
                _apart(ax.texts)
        return fig


def show_channels(table: pd.DataFrame, title: str, unit: str, limits: tuple[float, float] | None = None) -> Figure:
    """A heat map of classes (rows) by channels (columns), both reordered so that like ones stand side by side.

    table   K rows by class, columns by channel; clustered by average linkage of Euclidean distances, trees at the sides
    unit    of the values, written beside the bar; limits: of the colour scale
    Raises ValueError for fewer than two rows or columns.
    """
    import seaborn  # not at the top: it takes a second, and nothing else needs it

    if min(table.shape) < 2:
        raise ValueError(f"table of {table.shape}: two rows and two columns at least")
    low, high = limits or (float(table.min(axis=None)), float(table.max(axis=None)))
    with _styled(), plt.rc_context({"figure.constrained_layout.use": False, "axes.grid": False}):
        width, height = max(5.0, 2.6 + 0.17 * table.shape[1]), 2.0 + 0.24 * len(table)
        drawn = seaborn.clustermap(
            table,
            cmap=VALUES,
            vmin=low,
            vmax=high,
            figsize=(width, height),
            dendrogram_ratio=(0.08, 0.16),
            cbar_kws={"label": unit},
            xticklabels=True,
            yticklabels=True,
        )
        drawn.ax_heatmap.set(xlabel="channel", ylabel="class")
        drawn.ax_heatmap.tick_params(axis="x", labelsize=6, rotation=90)
        drawn.ax_heatmap.tick_params(axis="y", rotation=0)
        names = 0.5 + 0.075 * max(len(str(name)) for name in table.index)  # inches at the right
        drawn.figure.subplots_adjust(
            left=0.85 / width, right=1 - names / width, bottom=0.6 / height, top=1 - 0.35 / height
        )
        drawn.ax_cbar.set_position((0.6 / width, 0.25, 0.1 / width, 0.5))
        drawn.ax_cbar.yaxis.set_ticks_position("left")
        drawn.ax_cbar.yaxis.set_label_position("left")
        drawn.figure.suptitle(title, x=0.1 / width, ha="left")
        return drawn.figure


def stacks(panels: Mapping[str, pd.DataFrame], title: str, unit: str) -> Figure:
    """Shares that sum to 1, as bars cut in parts: a bar a row, a colour a column, the same in all panels.

    panels  {what the rows are: table}, of the same columns; the rows' names stand at the bars. The first column, what
            is as it should be, is grey
    unit    of the shares: "share of the photographs (0 to 1)"
    Raises ValueError for panels of different columns, or rows that do not sum to 1.
    """
    columns = list(next(iter(panels.values())).columns)
    for name, table in panels.items():
        if list(table.columns) != columns or not np.allclose(table.sum(axis=1), 1):
            raise ValueError(f"{name}: rows of {columns} that sum to 1 are asked for")
    colours = dict(zip(columns, ["#d0d0d0", *class_colours(len(columns) - 1)], strict=True))
    across = min(len(panels), 2)
    down = -(-len(panels) // across)
    with _styled():
        most = max(len(table) for table in panels.values())
        size = (7.6 if across == 1 else 8.6, down * (0.75 + 0.28 * most) + 0.75)
        fig, grid = plt.subplots(down, across, figsize=size, squeeze=False)
        for ax in grid.flat[len(panels) :]:
            ax.set_axis_off()
        for ax, (name, table) in zip(grid.flat, panels.items(), strict=False):
            left = np.zeros(len(table))
            for column in columns:
                drawn = ax.barh(range(len(table)), table[column], 0.8, left, color=colours[column], edgecolor="white")
                for bar, share in zip(drawn, table[column], strict=True):
                    if share >= 0.07:
                        at = bar.get_x() + share / 2, bar.get_y() + bar.get_height() / 2
                        dark = np.dot(matplotlib.colors.to_rgb(colours[column]), (0.299, 0.587, 0.114)) < 0.5
                        ink = "white" if dark else "black"
                        ax.text(*at, f"{share:.2f}", color=ink, fontsize=7, ha="center", va="center")
                left += table[column]
            ax.set_yticks(range(len(table)), [str(row) for row in table.index])
            ax.tick_params(axis="y", length=0)
            ax.set_xlim(0, 1)
            ax.set_ylim(most - 0.5, -0.5)  # bars of one thickness in all panels
            ax.spines.left.set_visible(False)
            ax.set_ylabel(name)
            ax.grid(False)
            if ax.get_subplotspec().is_last_row() or name in list(panels)[-across:]:
                ax.set_xlabel(unit)
        parts = [Patch(facecolor=colour, label=column) for column, colour in colours.items()]
        fig.legend(handles=parts, loc="outside lower center", ncols=len(parts) if len(parts) < 6 else 4)
        fig.suptitle(title)
        return fig


def intervals(panels: Mapping[str, pd.DataFrame], title: str, value: str = "J", columns: int = 3) -> Figure:
    """Means with their intervals, bin by bin: a dot, a line from low to high, and how many it is the mean of.

    panels  {what the bins are of, with its unit: table of columns bin, masks, `value`, low, high}, as
            `coseglib.analysis.failures.binned` makes them; without low and high a dot is hollow. Dashed: the mean of the panel
    """
    unit = {"J": "Jaccard index J (0 to 1)"}.get(value, value)
    across = min(len(panels), columns)
    down = -(-len(panels) // across)
    with _styled():
        fig, grid = plt.subplots(
            down, across, figsize=(0.4 + 2.7 * across, 0.4 + 2.5 * down), squeeze=False, sharey=True
        )
        for ax in grid.flat[len(panels) :]:
            ax.set_axis_off()
        for ax, (name, table) in zip(grid.flat, panels.items(), strict=False):
            places = np.arange(len(table))
            known = table.low.notna().to_numpy()
            mean = np.average(table[value], weights=table.masks)
            ax.axhline(mean, color="0.5", linestyle="dashed", linewidth=1)
            ax.vlines(places[known], table.low[known], table.high[known], color=BLUE, linewidth=2)
            ax.plot(places[known], table[value][known], "o", color=BLUE, markersize=6)
            ax.plot(places[~known], table[value][~known], "o", color=BLUE, markersize=6, markerfacecolor="white")
            for place, count in zip(places, table.masks, strict=True):
                ax.text(place, 0.02, f"n {count}", fontsize=7, ha="center", color="0.3")
            ax.set_ylim(0, 1)
            ax.set_xlim(-0.6, len(table) - 0.4)
            long = max(len(str(b)) for b in table.bin) * len(table) > 32
            ax.set_xticks(places, table.bin, rotation=25 if long else 0, ha="right" if long else "center", fontsize=7)
            ax.set_xlabel(name)
        for row in grid:
            row[0].set_ylabel(unit)
        fig.suptitle(title)
        return fig


def dots(
    table: pd.DataFrame,
    mark: str = "partner",
    value: str = "J",
    by: str = "system",
    paper: pd.DataFrame | None = None,
    lines: Mapping[str, float] | None = None,
    unit: str = "",
    limits: tuple[float, float] | None = (0, 1),
    title: str | None = None,
) -> Figure:
    """A row a system, a dot for each `mark`; the papers' figures apart, below, as open diamonds; floors as lines.

    table  columns `by`, `mark` and `value`; where "sd <value>" is known, as bars at both sides of the dot
    paper  columns `by` and `value`, a row each
    lines  {name: value}, over the whole height
    unit   of the axis; "": J's. limits: of the axis, None: what the values need
    Raises ValueError for a table without rows.
    """
    if table.empty:
        raise ValueError("no rows to show")
    systems, marks = list(dict.fromkeys(table[by])), list(dict.fromkeys(table[mark]))
    printed = [] if paper is None else list(paper[by])
    places = [*range(len(systems)), *(len(systems) + 0.5 + i for i in range(len(printed)))]
    with _styled():
        height = 0.3 * max(1.0, len(marks) / 4) * len(systems) + 0.25 * len(printed) + 1.0 + 0.2 * -(-len(marks) // 3)
        fig, ax = plt.subplots(figsize=(7.4, height))
        for k, name in enumerate(marks):
            some = table[table[mark] == name]
            y = [systems.index(s) + (k - (len(marks) - 1) / 2) * 0.7 / len(marks) for s in some[by]]
            look = {"color": SERIES[k % len(SERIES)], "markersize": 5, "elinewidth": 1, "label": str(name)}
            ax.errorbar(some[value], y, xerr=some.get(f"sd {value}"), fmt="osD^vPX*"[k % 8], **look)
        if printed:
            look = {"markeredgecolor": "black", "markerfacecolor": "white", "linestyle": "none", "markersize": 6}
            ax.plot(paper[value], places[len(systems) :], "D", label="as printed in the papers", **look)
            ax.axhline(len(systems) - 0.25, color="black", linewidth=0.6)
        for k, (name, at) in enumerate((lines or {}).items()):
            style = ("dotted", "dashed", "dashdot", (0, (6, 2)))[k % 4]
            ax.axvline(at, color="0.35", linewidth=1.1, linestyle=style, label=name, zorder=1)
        ax.set_yticks(places, [*map(str, systems), *map(str, printed)])
        ax.set_ylim(places[-1] + 0.6, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        ax.grid(True, axis="x")
        ax.set_xlabel(unit or "Jaccard index J (0 to 1)")
        ax.set_ylabel(by)
        if limits:
            ax.set_xlim(*limits)
        fig.legend(loc="outside lower center", ncols=3)
        if title:
            fig.suptitle(title)
        return fig


VERDICTS = {"confirmed": (BLUE, "o"), "contradicted": ("#D55E00", "X"), "within noise": ("0.45", "o")}


def forest(table: pd.DataFrame, title: str, unit: str = "points of J, first less second") -> Figure:
    """A row a claim: its effect with the interval, the paper's figure as an open diamond, the verdict in words.

    table  of `coseglib.claims.verdicts.verdicts`: columns claim, system, effect, low, high, paper, verdict; rows without
           an effect are left out. A filled dot is a verdict, a hollow one none; a paper's figure that lies far outside
           is an arrow with its number at the edge
    unit   of the effects, which the axis names
    Raises ValueError for a table in which nothing was measured.
    """
    shown = table[table.effect.notna()].reset_index(drop=True)
    if shown.empty:
        raise ValueError("no effects to show")
    new_system = (shown.system != shown.system.shift()).cumsum() - 1
    y = np.arange(len(shown)) + 0.6 * new_system.to_numpy()
    ends = shown[["effect", "low", "high"]].to_numpy().ravel()
    reach = 1.15 * max(1.0, float(np.nanmax(np.abs(ends))))
    with _styled():
        fig, ax = plt.subplots(figsize=(8.2, 1.1 + 0.27 * (y[-1] + 1)))
        ax.axvline(0, color="black", linewidth=0.8, zorder=1)
        for at, row in zip(y, shown.itertuples(), strict=True):
            colour, marker = VERDICTS.get(row.verdict, ("0.45", "o"))
            face = colour if row.verdict in ("confirmed", "contradicted") else "white"
            if row.low == row.low:
                ax.hlines(at, row.low, row.high, color=colour, linewidth=2)
            ax.plot(row.effect, at, marker, color=colour, markerfacecolor=face, markersize=7)
            if row.paper == row.paper and abs(row.paper) <= reach:
                ax.plot(row.paper, at, "D", color="black", markerfacecolor="white", markersize=5, zorder=4)
            elif row.paper == row.paper:
                side = float(np.sign(row.paper))
                ax.plot(0.97 * side * reach, at, ">" if side > 0 else "<", color="black", markersize=5)
                away = -9 * side, 0
                place = "right" if side > 0 else "left"
                text = f"{row.paper:+.0f}"
                ax.annotate(text, (0.97 * side * reach, at), away, textcoords="offset points", ha=place, va="center")
            ax.text(1.01, at, row.verdict, color=colour, fontsize=8, va="center", transform=ax.get_yaxis_transform())
        ax.set_xlim(-reach, reach)
        ax.set_ylim(y[-1] + 0.7, -0.7)
        ax.set_yticks(y, shown.claim)
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        ax.grid(True, axis="x")
        ax.set_xlabel(unit)
        ax.set_ylabel("claim")
        look = {"linestyle": "none", "markersize": 6}
        handles = [
            Line2D([], [], color="0.3", marker="o", markerfacecolor="white", label="ours, 95 % interval", **look),
            Line2D([], [], color="black", marker="D", markerfacecolor="white", label="as printed in the paper", **look),
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
        fig.suptitle(title)
        return fig


def trade_off(table: pd.DataFrame, title: str) -> Figure:
    """What hard and empty pairs cost, J, and what they buy: partner swap, refusal. Bars: one sd over seeds.

    table  columns share (0 to 1), "J seen", "J unseen", swap (points), AUROC, and "sd …" of each, of
           `coseglib.claims.verdicts.by_share`
    """
    panels = {
        "J under protocol common": {"J seen": "seen classes", "J unseen": "unseen classes"},
        "partner swap (points)": {"swap": ""},
        "AUROC of refusal": {"AUROC": ""},
    }
    with _styled():
        fig, axes = plt.subplots(1, len(panels), figsize=(9.6, 3.1))
        for ax, (unit, lines) in zip(axes, panels.items(), strict=True):
            for (name, label), colour, marker in zip(lines.items(), SERIES, ("o", "s"), strict=False):
                x, y, sd = 100 * table["share"], table[name], table[f"sd {name}"].fillna(0)
                ax.errorbar(x, y, sd, color=colour, marker=marker, markersize=5, capsize=3)
                if label:
                    ax.annotate(label, (x.iloc[0], (y + sd).max()), (0, 4), textcoords="offset points")
            ax.set_ylabel(unit)
            ax.set_xlabel("hard and empty pairs (%)")
            ax.margins(y=0.2)
        fig.suptitle(title)
        return fig


def save(fig: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write `path`.png (200 dpi) and `path`.svg, each whole or not at all; a suffix .png or .svg of `path` is dropped.

    The folder is made where it is missing. Raises CosegError where it cannot be written.
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    written = []
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for kind, metadata in (("png", {}), ("svg", {"Date": None})):
            target = stem.with_name(f"{stem.name}.{kind}")
            part = stem.with_name(f".{stem.name}.{os.getpid()}.part")
            try:
                with plt.rc_context(STYLE):
                    fig.savefig(part, format=kind, dpi=200, metadata=metadata)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
            written.append(target)
    except OSError as error:
        raise CosegError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    return tuple(written)
