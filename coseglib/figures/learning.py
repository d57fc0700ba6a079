"""Trainings as they go: losses and J against steps, images and time, what they cost, and what losses ask for."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from sklearn.isotonic import IsotonicRegression

from coseglib.core.errors import CosegError
from coseglib.figures.style import J_AXIS, ORANGE, colours_of, finish, name_rows, styled, text_width, wrapped
from coseglib.training.costs import CURVES, time_to

CURVE_AXES = {"step": "optimisation step", "images": "images seen", "seconds": "seconds of training"}
CHANCE = {"color": "0.4", "linestyle": "dashed", "linewidth": 1, "zorder": 1}
Levels = Mapping[str, tuple[str, float] | Mapping[str, float]]  # {"loss" or "J": (name, value), or several by name}


def _draw_chance(ax: Axes, levels: tuple[str, float] | Mapping[str, float], width: float) -> None:
    """A dashed line for each level, named at its right end in at most `width` inches. After the curves and limits."""
    for name, level in [levels] if isinstance(levels, tuple) else levels.items():
        ax.axhline(level, **CHANCE)
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, level), max(high, level))
        look = {"va": "bottom" if 2 * level < low + high else "top", "ha": "right", "fontsize": 7, "linespacing": 1}
        look["path_effects"] = [patheffects.withStroke(linewidth=2, foreground="white", alpha=0.8)]
        ax.text(0.99, level, wrapped(name, width, 7), transform=ax.get_yaxis_transform(), **look)


def _label_ends(ax: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Names right of the axes, at the height of the lines' last points (y, name, colour), moved apart as needed."""
    if not ends:
        return
    ordered = sorted(ends, key=lambda e: e[0])
    low, high = ax.get_ylim()
    gaps = min(0.08, 0.9 / len(ordered)) * (high - low) * np.arange(len(ordered))
    # y_i + gap <= y_{i+1}: without the gaps, the nearest increasing sequence.
    places = IsotonicRegression().fit_transform(gaps, [y for y, _, _ in ordered] - gaps) + gaps
    places = places - max(0.0, places[-1] - high) + max(0.0, low - places[0])
    look = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "va": "center", "fontsize": 8}
    for (_, name, colour), y in zip(ordered, places, strict=True):
        ax.annotate(name, (1, y), (5, 0), color=colour, **look)


@styled()
def show_logs(
    logs: pd.DataFrame | Mapping[str, pd.DataFrame],
    title: str = "",
    loss: str = "cross-entropy (nats a pixel)",
    chance: Levels | None = None,
) -> Figure:
    """Loss, and J in training and in validation, against the step; every line is named at its end.

    logs  a run's log.csv as a table (columns step, loss, J and, where validated, val_J), or {name: table} of several
    loss  what was minimised and its unit
    chance  what guessing reaches, as `training.costs.guessing` has it: dashed lines
    Raises ValueError for a table without these columns.
    """
    runs = {"": logs} if isinstance(logs, pd.DataFrame) else dict(logs)
    for name, log in runs.items():
        if missing := {"step", "loss", "J"} - set(log.columns):
            raise ValueError(f"log {name or 'table'}: lacks {', '.join(sorted(missing))}")
    validated = any("val_J" in log and log.val_J.notna().any() for log in runs.values())
    room = max(text_width(str(name)) for name in (*runs, "validation"))  # beside the lines, for their names
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.7 + 2 * room, 2.9 * max(1, len(runs) / 10)))
    ends = {left: [], right: []}
    thin, dotted = {"alpha": 0.4, "linewidth": 0.9}, {"marker": "o", "markersize": 3}
    for name, colour in colours_of(runs).items():
        several = validated and name  # one name each, on the line that counts
        drawn = [
            (left, "loss", colour, name or "training", {}),
            (right, "J", colour, "" if several else name or "training", thin if several else {}),
            (right, "val_J", colour if several else ORANGE, name or "validation", dotted),
        ]
        for ax, column, ink, label, look in drawn:
            known = runs[name].reindex(columns=["step", column]).dropna()
            ax.plot(known.step, known[column], color=ink, clip_on=known.empty, **look)  # the last dot is at the edge
            if label and len(known):
                ends[ax].append((known[column].iloc[-1], label, ink))
    if validated and "" not in runs:
        right.set_title("dots: validation, thin: training", fontsize=8)
    for ax, what, unit, most in ((left, "loss", wrapped(loss, 2.2, 9), None), (right, "J", J_AXIS, 1)):
        ax.set(xlabel=CURVE_AXES["step"], xlim=(0, None), ylabel=unit, ylim=(0, most))
        _draw_chance(ax, (chance or {}).get(what, {}), 2.5)
        _label_ends(ax, ends[ax])
    return finish(fig, title)


@styled()
def show_curves(
    table: pd.DataFrame,
    title: str,
    losses: Mapping[str, str] | None = None,
    x: str = "images",
    columns: int = 6,
    chance: Mapping[str, Levels] | None = None,
) -> Figure:
    """All systems on one page: above each one's loss on an axis of its own, below its J, with the others' in grey.

    table    `training.costs.tidy_logs`'           x  "step", "images" or "seconds", else CosegError
    losses   {system: what it minimises}, written below its name: values of two losses do not compare
    chance   {system: what guessing reaches}, see `show_logs`: dashed lines, each named in its panel
    """
    if x not in CURVE_AXES:
        raise CosegError(f"{x}: no such axis; one of {', '.join(CURVE_AXES)}")
    logs = {name: log.sort_values("step") for name, log in table.groupby("system", sort=False)}
    colours, across, chance = colours_of(logs), min(columns, len(logs)), chance or {}
    down = -(-len(logs) // across)
    names = {name: wrapped("\n".join(filter(None, (name, (losses or {}).get(name)))), 1.5) for name in logs}
    lines = max(text.count("\n") for text in names.values())
    size = (max(3.6, 0.9 + 1.75 * across), 0.7 + (3.2 + 0.14 * lines) * down)
    fig, grid = plt.subplots(2 * down, across, figsize=size, squeeze=False, sharex=True)
    pairs = grid.reshape(down, 2, across).swapaxes(1, 2).reshape(-1, 2)  # (above, below) of each system
    for ax in pairs[len(logs) :].flat:
        ax.set_axis_off()
    for place, ((name, log), (above, below)) in enumerate(zip(logs.items(), pairs, strict=False)):
        for other, known in logs.items():
            if other != name:
                below.plot(known[x], known.J, color="0.82", linewidth=0.9, zorder=1)
        above.plot(log[x], log.loss, color=colours[name])
        below.plot(log[x], log.J, color=colours[name], linewidth=1.1)
        checked = log.dropna(subset=["val_J"])
        below.plot(checked[x], checked.val_J, "o", color=colours[name], markersize=4, markeredgecolor="black")
        below.set_ylim(0, 1)
        for ax, what in ((above, "loss"), (below, "J")):
            _draw_chance(ax, chance.get(name, {}).get(what, {}), 1.3)
        above.set_title(names[name], fontsize=8)
        above.tick_params(labelbottom=False)
        below.tick_params(labelbottom=place + across >= len(logs))  # the lowest one of its column
        below.locator_params(axis="x", nbins=3)
        below.xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k: three of them stand side by side
    for above, below in pairs[::across]:
        above.set_ylabel("its loss")
        below.set_ylabel("J (0 to 1)")
    dots = ", dots: in validation" if table.val_J.notna().any() else ""
    grey = "; grey: the other systems" if len(logs) > 1 else ""
    dashed = "; dashed: what guessing reaches" if chance else ""
    fig.supxlabel(wrapped(f"{CURVE_AXES[x]}; line: J in training{dots}{grey}{dashed}", size[0] - 0.2), fontsize=8)
    return finish(fig, title)


@styled()
def show_race(table: pd.DataFrame, title: str, share: float = 0.9) -> Figure:
    """J of all systems against images seen and against time; a ring where a system is at `share` of its final J.

    Names stand below, in the order of the final J.
    """
    when = time_to(table, share)
    colours = colours_of(when.index)
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.1), sharey=True)
    for ax, x in zip(axes, ("images", "seconds"), strict=True):
        for i, (name, log) in enumerate(table.groupby("system", sort=False)):
            reached = when.loc[name]
            known = log.dropna(subset=[reached.curve]).sort_values("step")
            look = {"linestyle": ("-", "--", "-.")[i // 7 % 3], "label": f"{name}  {reached.final:.2f}"}
            ax.plot(known[x], known[reached.curve], color=colours[name], linewidth=1.3, **look)
            at = known[known.step == reached.step]
            ax.plot(at[x], at[reached.curve], "o", color=colours[name], markerfacecolor="white", markersize=6)
        ax.set(xlabel=CURVE_AXES[x], xlim=(0, None), ylim=(0, 1))
    axes[0].set_ylabel(J_AXIS)
    handles, _ = axes[1].get_legend_handles_labels()
    ranked = [handles[i] for i in np.argsort(-when.final.to_numpy(), kind="stable")]
    used = " / ".join(CURVES[c].removeprefix("J in ") for c in dict.fromkeys(when.curve))
    return finish(fig, title, ranked, f"final J, {used}; ring: {share:.0%} of it")


@styled()
def show_costs(cost: pd.DataFrame, title: str) -> Figure:
    """Bars, a row a system: images a second, memory (of it before training: grey), seconds to a share of the final J.

    cost  `training.costs.training_costs`'. What is not known has no bar and a dash.
    """
    timed = next(name for name in cost if name.startswith("s to "))
    panels = {
        "images/s": "images a second",
        "memory (MB)": "peak memory (MB), grey: before training",
        timed: f"seconds to {timed[5:]} of final J",
    }
    colours, places = list(colours_of(cost.index).values()), np.arange(len(cost))
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 1.1 + 0.3 * len(cost)), sharey=True)
    for ax, (column, unit) in zip(axes, panels.items(), strict=True):
        values = cost[column].to_numpy(float)
        ax.barh(places, np.nan_to_num(values), 0.75, color=colours)
        if column == "memory (MB)":
            ax.barh(places, cost["before (MB)"].fillna(0), 0.75, color="#d0d0d0")
        most = np.nanmax(values) if np.isfinite(values).any() else 1.0
        for place, value in zip(places, values, strict=True):
            text = "–" if np.isnan(value) else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
            look = {"textcoords": "offset points", "va": "center", "fontsize": 7}
            ax.annotate(text, (np.nan_to_num(value), place), (3, 0), **look)
        ax.set_xlim(0, 1.2 * most)
        ax.set_xlabel(wrapped(unit, 1.9), fontsize=8)
        name_rows(ax, places, cost.index)
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_ylim(len(cost) - 0.5, -0.5)
    return finish(fig, title)


@styled()
def show_loss_shapes(areas: pd.DataFrame, overlaps: Mapping[float, pd.DataFrame], title: str) -> Figure:
    """Three panels: what an object is worth by its area, whose the gradient is, and the value by the overlap.

    areas     `analysis.loss_shapes.loss_by_area`'s
    overlaps  {area: `loss_by_overlap`'s} of some of these losses: the first area as lines, the others dotted
    """
    colours = colours_of(areas.loss.unique())
    fig, (worth, whose, overlap) = plt.subplots(1, 3, figsize=(9.4, 3.4))
    dashed = cycle(("-", "--", "-.", (0, (5, 1)), (0, (1, 1))))
    for (name, some), dashes in zip(areas.groupby("loss", sort=False), dashed, strict=False):
        line = {"color": colours[name], "linestyle": dashes, "marker": "o", "markersize": 3}
        worth.plot(some.area, some.gain, label=name, **line)
        whose.plot(some.area, some.share, **line)
    for i, table in enumerate(overlaps.values()):
        for name, known in table.groupby("loss", sort=False):
            overlap.plot(known.J, known.value, color=colours[name], linestyle="dotted" if i else "solid")
    by_area = {"xscale": "log", "xlabel": "the object's share of the image"}
    value = "loss (nats, or 1 − dice)"
    worth.set(yscale="log", ylabel=value, title="what finding the object gains,\nmissed less found", **by_area)
    whose.set(ylim=(0, 1), ylabel="share of the gradient (0 to 1)", **by_area)
    whose.set_title("what falls on the object,\nwhere p = ½ everywhere")
    drawn = [f"{area:.0%} ({'dotted' if i else 'line'})" for i, area in enumerate(overlaps)]
    overlap.set(xlabel=J_AXIS, ylabel=value, ylim=(0, None))
    overlap.set_title(f"a mask shifted off an object\nof {', '.join(drawn)}")
    return finish(fig, title, worth.get_legend_handles_labels()[0])
