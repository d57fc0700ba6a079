"""Dots with their intervals: systems, bins, claims, and what hard and empty pairs cost."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coseglib.figures.style import BLUE, J_AXIS, SERIES, VERMILION, grid_of, rows_down, styled

PRINTED = {"color": "black", "markerfacecolor": "white", "linestyle": "none"}  # a paper's figure
VERDICTS = {"confirmed": (BLUE, "o"), "contradicted": (VERMILION, "X")}  # others: hollow and grey


@styled()
def show_intervals(panels: Mapping[str, pd.DataFrame], title: str, value: str = "J", columns: int = 3) -> Figure:
    """Means with their intervals, bin by bin: a dot, a line from low to high, and how many it is the mean of.

    panels  {what the bins are of, with its unit: table of columns bin, masks, `value`, low, high}, as
            `analysis.gaps.mean_by_bin` makes them; without low and high a dot is hollow. Dashed: the mean of the panel
    """
    across = min(len(panels), columns)
    size = 0.4 + 2.7 * across, 0.4 + 2.5 * -(-len(panels) // across)
    fig, axes = grid_of(len(panels), across, size, sharey=True)
    for ax, (name, table) in zip(axes, panels.items(), strict=True):
        places, known = np.arange(len(table)), table.low.notna().to_numpy()
        ax.axhline(np.average(table[value], weights=table.masks), color="0.5", linestyle="dashed", linewidth=1)
        ax.vlines(places[known], table.low[known], table.high[known], color=BLUE, linewidth=2)
        ax.plot(places[known], table[value][known], "o", color=BLUE, markersize=6)
        ax.plot(places[~known], table[value][~known], "o", color=BLUE, markersize=6, markerfacecolor="white")
        for place, count in zip(places, table.masks, strict=True):
            ax.text(place, 0.02, f"n {count}", fontsize=7, ha="center", color="0.3")
        ax.set(ylim=(0, 1), xlim=(-0.6, len(table) - 0.4), xlabel=name)
        long = max(len(str(b)) for b in table.bin) * len(table) > 32
        ax.set_xticks(places, table.bin, rotation=25 if long else 0, ha="right" if long else "center", fontsize=7)
    for ax in axes[::across]:
        ax.set_ylabel(J_AXIS if value == "J" else value)
    fig.suptitle(title)
    return fig


@styled()
def show_dots(
    table: pd.DataFrame,
    mark: str = "partner",
    value: str = "J",
    by: str = "system",
    paper: pd.DataFrame | None = None,
    lines: Mapping[str, float] | None = None,
    unit: str = J_AXIS,
    limits: tuple[float, float] | None = (0, 1),
    title: str | None = None,
) -> Figure:
    """A row a system, a dot for each `mark`; the papers' figures apart, below, as open diamonds; floors as lines.

    table  columns `by`, `mark` and `value`; where "sd <value>" is known, as bars at both sides of the dot
    paper  columns `by` and `value`, a row each
    lines  {name: value}, over the whole height
    unit   of the axis. limits: of the axis, None: what the values need
    Raises ValueError for a table without rows.
    """
    if table.empty:
        raise ValueError("no rows to show")
    systems, marks = list(dict.fromkeys(table[by])), list(dict.fromkeys(table[mark]))
    printed = [] if paper is None else list(paper[by])
    places = [*range(len(systems)), *(len(systems) + 0.5 + i for i in range(len(printed)))]
    height = 0.3 * max(1.0, len(marks) / 4) * len(systems) + 0.25 * len(printed) + 1.0 + 0.2 * -(-len(marks) // 3)
    fig, ax = plt.subplots(figsize=(7.4, height))
    for k, name in enumerate(marks):
        some = table[table[mark] == name]
        y = [systems.index(s) + (k - (len(marks) - 1) / 2) * 0.7 / len(marks) for s in some[by]]
        look = {"color": SERIES[k % len(SERIES)], "markersize": 5, "elinewidth": 1, "label": str(name)}
        ax.errorbar(some[value], y, xerr=some.get(f"sd {value}"), fmt="osD^vPX*"[k % 8], **look)
    if printed:
        ax.plot(paper[value], places[len(systems) :], "D", label="as printed in the papers", markersize=6, **PRINTED)
        ax.axhline(len(systems) - 0.25, color="black", linewidth=0.6)
    for k, (name, at) in enumerate((lines or {}).items()):
        style = ("dotted", "dashed", "dashdot", (0, (6, 2)))[k % 4]
        ax.axvline(at, color="0.35", linewidth=1.1, linestyle=style, label=name, zorder=1)
    ax.set_yticks(places, [*map(str, systems), *map(str, printed)])
    ax.set(ylim=(places[-1] + 0.6, -0.6), xlabel=unit, ylabel=by, xlim=limits)
    rows_down(ax)
    fig.legend(loc="outside lower center", ncols=3)
    if title:
        fig.suptitle(title)
    return fig


def _claim(ax: Axes, at: float, row, reach: float) -> None:
    """One row of `show_forest`, at height `at`; the axis ends at ±reach."""
    colour, marker = VERDICTS.get(row.verdict, ("0.45", "o"))
    if row.low == row.low:
        ax.hlines(at, row.low, row.high, color=colour, linewidth=2)
    face = colour if row.verdict in VERDICTS else "white"
    ax.plot(row.effect, at, marker, color=colour, markerfacecolor=face, markersize=7)
    if row.paper == row.paper and abs(row.paper) <= reach:
        ax.plot(row.paper, at, "D", markersize=5, zorder=4, **PRINTED)
    elif row.paper == row.paper:
        side = float(np.sign(row.paper))
        ax.plot(0.97 * side * reach, at, ">" if side > 0 else "<", color="black", markersize=5)
        look = {"textcoords": "offset points", "ha": "right" if side > 0 else "left", "va": "center"}
        ax.annotate(f"{row.paper:+.0f}", (0.97 * side * reach, at), (-9 * side, 0), **look)
    ax.text(1.01, at, row.verdict, color=colour, fontsize=8, va="center", transform=ax.get_yaxis_transform())


@styled()
def show_forest(table: pd.DataFrame, title: str, unit: str = "points of J, first less second") -> Figure:
    """A row a claim: its effect with the interval, the paper's figure as an open diamond, the verdict in words.

    table  of `claims.verdicts.verdicts`: columns claim, system, effect, low, high, paper, verdict; rows without an
           effect are left out. A filled dot is a verdict, a hollow one none; a paper's figure that lies far outside
           is an arrow with its number at the edge
    unit   of the effects, which the axis names
    Raises ValueError for a table in which nothing was measured.
    """
    shown = table[table.effect.notna()].reset_index(drop=True)
    if shown.empty:
        raise ValueError("no effects to show")
    new_system = (shown.system != shown.system.shift()).cumsum() - 1
    y = np.arange(len(shown)) + 0.6 * new_system.to_numpy()
    reach = 1.15 * max(1.0, float(np.nanmax(np.abs(shown[["effect", "low", "high"]].to_numpy()))))
    fig, ax = plt.subplots(figsize=(8.2, 1.1 + 0.27 * (y[-1] + 1)))
    ax.axvline(0, color="black", linewidth=0.8, zorder=1)
    for at, row in zip(y, shown.itertuples(), strict=True):
        _claim(ax, at, row, reach)
    ax.set_yticks(y, shown.claim)
    ax.set(xlim=(-reach, reach), ylim=(y[-1] + 0.7, -0.7), xlabel=unit, ylabel="claim")
    rows_down(ax)
    ours = Line2D([], [], marker="o", markersize=6, label="ours, 95 % interval", **PRINTED | {"color": "0.3"})
    theirs = Line2D([], [], marker="D", markersize=6, label="as printed in the paper", **PRINTED)
    fig.legend(handles=[ours, theirs], loc="outside lower center", ncols=2)
    fig.suptitle(title)
    return fig


@styled()
def show_trade_off(table: pd.DataFrame, title: str) -> Figure:
    """What hard and empty pairs cost, J, and what they buy: partner swap, refusal. Bars: one sd over seeds.

    table  columns share (0 to 1), "J seen", "J unseen", swap (points), AUROC, and "sd …" of each, of
           `claims.verdicts.by_share`
    """
    panels = {
        "J under protocol common": {"J seen": "seen classes", "J unseen": "unseen classes"},
        "partner swap (points)": {"swap": ""},
        "AUROC of refusal": {"AUROC": ""},
    }
    fig, axes = plt.subplots(1, len(panels), figsize=(9.6, 3.1))
    for ax, (unit, lines) in zip(axes, panels.items(), strict=True):
        for (name, label), colour, marker in zip(lines.items(), SERIES, ("o", "s"), strict=False):
            x, y, sd = 100 * table["share"], table[name], table[f"sd {name}"].fillna(0)
            ax.errorbar(x, y, sd, color=colour, marker=marker, markersize=5, capsize=3)
            ax.annotate(label, (x.iloc[0], (y + sd).max()), (0, 4), textcoords="offset points")
        ax.set(ylabel=unit, xlabel="hard and empty pairs (%)")
        ax.margins(y=0.2)
    fig.suptitle(title)
    return fig
