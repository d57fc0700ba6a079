"""Bars: figures of systems by group beside the papers', and shares that sum to 1."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from coseglib.figures.style import BLUE, GREEN, J_AXIS, ORANGE, PINK, SKY, grid_of, styled
from coseglib.segmenting.overlays import class_colours

SHARES = {"J": J_AXIS, "P": "precision P, share of pixels (0 to 1)"}


@styled()
def show_bars(
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
    for what, given in (("table", table), ("paper", paper)):
        if given is not None and value in SHARES and given[value].max() > 1:
            raise ValueError(f"{what}: {value} above 1; give shares, not percent")
    ours = table.assign(**{series: "ours"}) if series not in table else table
    groups, systems = list(dict.fromkeys(ours[by])), list(dict.fromkeys(ours[series]))
    fig, ax = plt.subplots(figsize=(max(3.6, 1.3 + 0.28 * len(groups) * (1 + len(systems))), 3.1))
    width = 0.8 / len(systems)
    offset = {system: (k - (len(systems) - 1) / 2) * width for k, system in enumerate(systems)}
    for k, system in enumerate(systems):
        rows = ours[ours[series] == system].set_index(by).reindex(groups)
        colour, ink = ((BLUE, "white"), (SKY, "black"), (GREEN, "white"), (PINK, "black"))[k % 4]
        look = {"color": colour, "label": str(system), "error_kw": {"elinewidth": 1, "ecolor": "#333333"}}
        places = np.arange(len(groups)) + offset[system]
        drawn = ax.bar(places, rows[value], width * 0.92, yerr=rows.get("sd"), **look)
        for group, patch, v in zip(groups, drawn, rows[value], strict=True):
            if group == "all":
                patch.set(edgecolor="black", linewidth=1.2)
            if v == v and value in SHARES:  # at the foot, where no diamond hides it
                at = patch.get_x() + patch.get_width() / 2, 0.02
                ax.text(*at, f"{v:.2f}", color=ink, fontsize=7, ha="center", rotation=90 if len(systems) > 1 else 0)
    if paper is not None:
        _diamonds(
            ax, paper.assign(**{series: "paper"}) if series not in paper else paper, groups, offset, value, by, series
        )
    ax.set(ylabel=SHARES.get(value, value), xlabel=by, ylim=(0, 1.05) if value in SHARES else None)
    long = max(len(str(g)) for g in groups) > 6 * len(systems)
    ax.set_xticks(range(len(groups)), groups, rotation=35 if long else 0, ha="right" if long else "center")
    ax.tick_params(axis="x", length=0)
    if len(systems) > 1 or paper is not None:
        pairs = zip(*ax.get_legend_handles_labels(), strict=True)
        handles, labels = zip(*sorted(pairs, key=lambda pair: isinstance(pair[0], Line2D)), strict=True)  # bars first
        fig.legend(handles, labels, loc="outside upper right", ncols=4)
    if title:
        ax.set_title(title)
    return fig


def _diamonds(ax: Axes, printed: pd.DataFrame, groups: list, offset: dict, value: str, by: str, series: str) -> None:
    """The papers' figures, over the bars of the same system or the middle of the group."""
    for k, system in enumerate(dict.fromkeys(printed[series])):
        rows = printed[(printed[series] == system) & printed[by].isin(groups)]
        places = [groups.index(g) + offset.get(system, 0) for g in rows[by]]
        label = f"{system}, as printed" if system in offset else str(system)
        look = {"color": ORANGE, "markeredgecolor": "black", "markersize": 5.5, "linestyle": "none", "label": label}
        ax.plot(places, rows[value], "Dos^v"[k % 5], **look)


@styled()
def show_stacks(panels: Mapping[str, pd.DataFrame], title: str, unit: str) -> Figure:
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
    across, most = min(len(panels), 2), max(len(table) for table in panels.values())
    size = 7.6 if across == 1 else 8.6, -(-len(panels) // across) * (0.75 + 0.28 * most) + 0.75
    fig, axes = grid_of(len(panels), across, size)
    for ax, (name, table) in zip(axes, panels.items(), strict=True):
        left = np.zeros(len(table))
        for column, colour in colours.items():
            drawn = ax.barh(range(len(table)), table[column], 0.8, left, color=colour, edgecolor="white")
            dark = np.dot(matplotlib.colors.to_rgb(colour), (0.299, 0.587, 0.114)) < 0.5
            texts = [f"{share:.2f}" if share >= 0.07 else "" for share in table[column]]
            ax.bar_label(drawn, texts, label_type="center", color="white" if dark else "black", fontsize=7)
            left += table[column]
        ax.set_yticks(range(len(table)), [str(row) for row in table.index])
        ax.tick_params(axis="y", length=0)
        ax.set(xlim=(0, 1), ylim=(most - 0.5, -0.5), ylabel=name)  # bars of one thickness in all panels
        ax.spines.left.set_visible(False)
        ax.grid(False)
        if name in list(panels)[-across:]:
            ax.set_xlabel(unit)
    parts = [Patch(facecolor=colour, label=column) for column, colour in colours.items()]
    fig.legend(handles=parts, loc="outside lower center", ncols=len(parts) if len(parts) < 6 else 4)
    fig.suptitle(title)
    return fig
