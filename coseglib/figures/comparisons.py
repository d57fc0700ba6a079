"""Systems, groups, bins and claims beside each other: bars, shares that sum to 1, dots with their intervals."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from coseglib.figures import style
from coseglib.figures.style import BAR_INKS, BLUE, J_AXIS, ORANGE, SERIES, VERMILION, finish, grid_of, styled
from coseglib.segmenting.labels import class_colours

SHARES = {"J": J_AXIS, "P": "precision P, share of pixels (0 to 1)"}
PRINTED = {"color": "black", "markerfacecolor": "white", "linestyle": "none"}  # a paper's figure
VERDICTS = {"confirmed": (BLUE, "o"), "contradicted": (VERMILION, "X")}  # others: hollow and grey


@styled()
def show_bars(
    table: pd.DataFrame, paper=None, value="J", by="group", series="system", title: str | None = None
) -> Figure:
    """Ours as bars, the papers' printed figures as diamonds, group by group in the table's order.

    table  columns `by` and `value`, `series` where there are several of ours, `sd` for error bars
    paper  None, or columns `by`, `value` and `series`; groups that are not in the table are left out. A system that is
           one of ours by name has its diamonds on its own bars, others over the middle of the group
    value  "J" or "P", in [0, 1], or another column, which then names the axis
    Raises ValueError for J or P above 1: percent, most likely.
    """
    for what, given in (("table", table), ("paper", paper)):
        if given is not None and value in SHARES and given[value].max() > 1:
            raise ValueError(f"{what}: {value} above 1; give shares, not percent")
    ours = table if series in table else table.assign(**{series: "ours"})
    groups, systems = list(dict.fromkeys(ours[by])), list(dict.fromkeys(ours[series]))
    fig, ax = plt.subplots(figsize=(max(3.6, 1.3 + 0.28 * len(groups) * (1 + len(systems))), 3.1))
    width = 0.8 / len(systems)
    offset = {system: (k - (len(systems) - 1) / 2) * width for k, system in enumerate(systems)}
    for k, system in enumerate(systems):
        rows = ours[ours[series] == system].set_index(by).reindex(groups)
        colour, ink = BAR_INKS[k % 4]
        look = {"color": colour, "label": str(system), "error_kw": {"elinewidth": 1, "ecolor": "#333333"}}
        places = np.arange(len(groups)) + offset[system]
        drawn = ax.bar(places, rows[value], width * 0.92, yerr=rows.get("sd"), **look)
        for group, patch, v in zip(groups, drawn, rows[value], strict=True):
            if group == "all":
                patch.set(edgecolor="black", linewidth=1.2)
            if v == v and value in SHARES:  # at the foot, where no diamond hides it; above a bar that is too low for it
                low, at = v < 0.14, patch.get_x() + patch.get_width() / 2
                look = {"color": "black" if low else ink, "fontsize": 7, "rotation": 90 * (len(systems) > 1)}
                ax.text(at, 0.02 + low * v, f"{v:.2f}", ha="center", **look)
    if paper is not None:
        printed = paper if series in paper else paper.assign(**{series: "paper"})
        for k, (system, rows) in enumerate(printed[printed[by].isin(groups)].groupby(series, sort=False)):
            places = [groups.index(g) + offset.get(system, 0) for g in rows[by]]
            label = f"{system}, as printed" if system in offset else str(system)
            look = {"color": ORANGE, "markeredgecolor": "black", "markersize": 5.5, "linestyle": "none"}
            ax.plot(places, rows[value], "Dos^v"[k % 5], label=label, **look)
    ax.set(ylabel=SHARES.get(value, value), xlabel=by, ylim=(0, 1.05) if value in SHARES else None)
    style.name_columns(ax, groups, 0.9 * (fig.get_figwidth() - 0.8) / len(groups))
    ax.tick_params(axis="x", length=0)
    signs = ax.get_legend_handles_labels()[0] if len(systems) > 1 or paper is not None else []
    return finish(fig, title, sorted(signs, key=lambda sign: isinstance(sign, Line2D)))  # bars first


@styled()
def show_stacks(panels: Mapping[str, pd.DataFrame], title: str, unit: str) -> Figure:
    """Shares that sum to 1, as bars cut in parts: a bar a row, a colour a column, the same in all panels.

    panels  {what the rows are: table}, of the same columns; the first one, what is as it should be, is grey
    unit    of the shares: "share of the photographs (0 to 1)"
    Raises ValueError for panels of different columns, or rows that do not sum to 1.
    """
    columns = list(next(iter(panels.values())).columns)
    for name, table in panels.items():
        if list(table.columns) != columns or not np.allclose(table.sum(axis=1), 1):
            raise ValueError(f"{name}: rows of {columns} that sum to 1 are asked for")
    colours = dict(zip(columns, ["#d0d0d0", *class_colours(len(columns) - 1)], strict=True))
    most = max(len(table) for table in panels.values())
    width, room = (7.6, 0.07) if len(panels) == 1 else (4.8, 0.12)  # room: the least share that its number fits into
    fig, axes = grid_of(len(panels), 2, (width, 0.75 + 0.28 * most), (0, 0.75))
    for ax, (name, table) in zip(axes, panels.items(), strict=True):
        left = np.zeros(len(table))
        for column, colour in colours.items():
            drawn = ax.barh(range(len(table)), table[column], 0.8, left, color=colour, edgecolor="white")
            dark = np.dot(matplotlib.colors.to_rgb(colour), (0.299, 0.587, 0.114)) < 0.5
            texts = [f"{share:.2f}" if share >= room else "" for share in table[column]]
            ax.bar_label(drawn, texts, label_type="center", color="white" if dark else "black", fontsize=7)
            left += table[column]
        style.name_rows(ax, range(len(table)), table.index)
        ax.set(xlim=(0, 1), ylim=(most - 0.5, -0.5))  # bars of one thickness in all panels
        ax.set_ylabel(style.wrapped(name, 0.25 + 0.28 * most, 9))
        ax.spines.left.set_visible(False)
        ax.grid(False)
    for ax in axes[-2:]:
        ax.set_xlabel(unit)
    parts = [Patch(facecolor=colour, label=column) for column, colour in colours.items()]
    return finish(fig, title, parts)


@styled()
def show_intervals(panels: Mapping[str, pd.DataFrame], title: str, columns: int = 3) -> Figure:
    """Mean J with its interval, bin by bin: a dot, a line from low to high, and how many it is the mean of, n.

    panels  {what the bins are of, with its unit: table of `analysis.gaps.mean_by_bin`}; without low and high a dot is
            hollow. Dashed: the mean over the panel's masks
    """
    most = max(len(table) for table in panels.values())
    fig, axes = grid_of(len(panels), columns, (max(2.7, 0.5 + 0.27 * most), 2.5), (0.4, 0.7), sharey=True)
    for ax, (name, table) in zip(axes, panels.items(), strict=True):
        slot = (fig.get_figwidth() / min(columns, len(panels)) - 0.5) / len(table)
        places, known = np.arange(len(table)), table.low.notna().to_numpy()
        mean = ax.axhline(np.average(table.J, weights=table.masks), color="0.5", linestyle="dashed", linewidth=1)
        ax.vlines(places[known], table.low[known], table.high[known], color=BLUE, linewidth=2)
        for some, face in ((known, BLUE), (~known, "white")):
            ax.plot(places[some], table.J[some], "o", color=BLUE, markersize=6, markerfacecolor=face)
        ax.set(ylim=(0, 1), xlim=(-0.6, len(table) - 0.4), xlabel=style.wrapped(name, slot * len(table) - 0.5, 9))
        style.name_columns(ax, [f"{name} (n {n})" for name, n in zip(table.bin, table.masks, strict=True)], slot, 7)
    for ax in axes[::columns]:
        ax.set_ylabel(J_AXIS)
    mean.set_label("mean over all masks of the panel")
    return finish(fig, title, [mean])


@styled()
def show_dots(
    table: pd.DataFrame,
    mark: str = "partner",
    value: str = "J",
    paper: pd.DataFrame | None = None,
    lines: Mapping[str, float] | None = None,
    unit: str = J_AXIS,
    limits: tuple[float, float] | None = (0, 1),
    title: str | None = None,
) -> Figure:
    """A row a system, a dot for each `mark`; the papers' figures apart, below, as open diamonds; floors as lines.

    table  columns system, `mark` and `value`; where "sd <value>" is known, as bars at both sides of the dot
    paper  columns system and `value`, a row each
    lines  {name: value}, over the whole height; unit: of the axis; limits: of it, None: what the values need
    Raises ValueError for a table without rows.
    """
    if table.empty:
        raise ValueError("no rows to show")
    systems, marks = list(dict.fromkeys(table.system)), list(dict.fromkeys(table[mark]))
    printed = [] if paper is None else list(paper.system)
    places = [*range(len(systems)), *(len(systems) + 0.5 + i for i in range(len(printed)))]
    height = 0.3 * max(1.0, len(marks) / 4) * len(systems) + 0.25 * len(printed) + 1.2
    fig, ax = plt.subplots(figsize=(7.4, height))
    for k, name in enumerate(marks):
        some = table[table[mark] == name]
        y = [systems.index(s) + (k - (len(marks) - 1) / 2) * 0.7 / len(marks) for s in some.system]
        look = {"color": SERIES[k % len(SERIES)], "markersize": 5, "elinewidth": 1, "label": str(name)}
        ax.errorbar(some[value], y, xerr=some.get(f"sd {value}"), fmt="osD^vPX*"[k % 8], **look)
    if printed:
        ax.plot(paper[value], places[len(systems) :], "D", label="as printed in the papers", markersize=6, **PRINTED)
        ax.axhline(len(systems) - 0.25, color="black", linewidth=0.6)
    for k, (name, at) in enumerate((lines or {}).items()):
        dashes = ("dotted", "dashed", "dashdot", (0, (6, 2)))[k % 4]
        ax.axvline(at, color="0.35", linewidth=1.1, linestyle=dashes, label=name, zorder=1)
    style.name_rows(ax, places, [*systems, *printed])
    ax.set(ylim=(places[-1] + 0.6, -0.6), xlabel=unit, ylabel="system", xlim=limits)
    return finish(fig, title, ax.get_legend_handles_labels()[0])


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
def show_forest(table: pd.DataFrame, title: str) -> Figure:
    """A row a claim: its effect with the interval, the paper's figure as an open diamond, the verdict in words.

    table  of `claims.verdicts.verdicts`; rows without an effect are left out. A filled dot is a verdict, a hollow one
           none; a paper's figure that lies far outside is an arrow with its number at the edge
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
    style.name_rows(ax, y, shown.claim)
    ax.set(xlim=(-reach, reach), ylim=(y[-1] + 0.7, -0.7), xlabel="points of J, first less second", ylabel="claim")
    ours = Line2D([], [], marker="o", markersize=6, label="ours, 95 % interval", **PRINTED | {"color": "0.3"})
    theirs = Line2D([], [], marker="D", markersize=6, label="as printed in the paper", **PRINTED)
    return finish(fig, title, [ours, theirs])


@styled()
def show_trade_off(table: pd.DataFrame, title: str) -> Figure:
    """What hard and empty pairs cost, J, and what they buy, by `claims.verdicts.by_share`. Bars: one sd over seeds."""
    panels = {
        "J under protocol common": {"J seen": "seen classes", "J unseen": "unseen classes"},
        "partner swap (points)": {"swap": ""},
        "AUROC of refusal": {"AUROC": ""},
    }
    fig, axes = plt.subplots(1, len(panels), figsize=(9.6, 3.1))
    for ax, (unit, lines) in zip(axes, panels.items(), strict=True):
        for (name, label), colour, marker in zip(lines.items(), SERIES, "os", strict=False):
            x, y, sd = 100 * table["share"], table[name], table[f"sd {name}"].fillna(0)
            ax.errorbar(x, y, sd, color=colour, marker=marker, markersize=5, capsize=3, label=label)
        if len(lines) > 1:
            ax.legend()
        ax.set(ylabel=unit, xlabel="hard and empty pairs (%)")
        ax.margins(y=0.2)
    return finish(fig, title)


@styled()
def show_changes(table: pd.DataFrame, title: str | None = None) -> Figure:
    """What one change each makes of J, as lying bars, the worst at the top.

    table  columns cause and change, in J; a row each
    """
    rows = table.sort_values("change", ascending=False)
    fig, ax = plt.subplots(figsize=(6.4, 0.9 + 0.26 * len(rows)))
    bars = ax.barh(rows.cause, rows.change, color=BAR_INKS[0][0])
    ax.bar_label(bars, [f"{change:+.3f}" for change in rows.change], padding=3, fontsize=7)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.margins(x=0.18)
    ax.set(xlabel="change of J")
    return finish(fig, title)
