"""Trainings as they go: losses and J against steps, images and time, what they cost, and what losses ask for."""

import textwrap
from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.isotonic import IsotonicRegression

from coseglib.core.errors import CosegError
from coseglib.figures.style import J_AXIS, ORANGE, colours_of, name_rows, styled
from coseglib.training.costs import CURVES, time_to

CURVE_AXES = {"step": "optimisation step", "images": "images seen", "seconds": "seconds of training"}


def _label_ends(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names beside the lines' last points (x, y, name, colour), in their order, moved apart just as far as needed."""
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


@styled()
def show_logs(
    logs: pd.DataFrame | Mapping[str, pd.DataFrame], title: str = "", loss: str = "cross-entropy (nats a pixel)"
) -> Figure:
    """Loss, and J in training and in validation, against the step; every line is named at its end.

    logs  a run's log.csv as a table (columns step, loss, J and, where validated, val_J), or {name: table} of several
    loss  what was minimised and its unit
    Raises ValueError for a table without these columns.
    """
    runs = {"": logs} if isinstance(logs, pd.DataFrame) else dict(logs)
    for name, log in runs.items():
        if missing := {"step", "loss", "J"} - set(log.columns):
            raise ValueError(f"log {name or 'table'}: lacks {', '.join(sorted(missing))}")
    validated = any("val_J" in log and log.val_J.notna().any() for log in runs.values())
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 2.9))
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
            ax.plot(known.step, known[column], color=ink, **look)
            if label and len(known):
                ends[ax].append((*known.iloc[-1], label, ink))
    if validated and "" not in runs:
        right.set_title("dots: validation, thin: training", fontsize=8)
    left.set(ylabel=loss, ylim=(0, None))
    right.set(ylabel=J_AXIS, ylim=(0, 1))
    for ax in (left, right):
        ax.set(xlabel=CURVE_AXES["step"], xlim=(0, None))
        _label_ends(ax, ends[ax])
    fig.suptitle(title)
    return fig


@styled()
def show_curves(
    table: pd.DataFrame, title: str, losses: Mapping[str, str] | None = None, x: str = "images", columns: int = 6
) -> Figure:
    """All systems on one page: above each one's loss on an axis of its own, below its J, with the others' in grey.

    table    `training.costs.tidy_logs`'           x  "step", "images" or "seconds", else CosegError
    losses   {system: what it minimises}, written below its name: values of two losses do not compare
    """
    if x not in CURVE_AXES:
        raise CosegError(f"{x}: no such axis; one of {', '.join(CURVE_AXES)}")
    logs = {name: log.sort_values("step") for name, log in table.groupby("system", sort=False)}
    colours, across = colours_of(logs), min(columns, len(logs))
    down = -(-len(logs) // across)
    size = (0.9 + 1.75 * across, 0.5 + 3.3 * down)
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
        above.set_title("\n".join([name, *textwrap.wrap((losses or {}).get(name, ""), 22)]), fontsize=8)
        above.tick_params(labelbottom=False)
        below.tick_params(labelbottom=place + across >= len(logs))  # the lowest one of its column
        below.locator_params(axis="x", nbins=4)
    for above, below in pairs[::across]:
        above.set_ylabel("its loss")
        below.set_ylabel("J (0 to 1)")
    dots = ", dots: in validation" if table.val_J.notna().any() else ""
    grey = "; grey: the other systems" if len(logs) > 1 else ""
    fig.supxlabel(textwrap.fill(f"{CURVE_AXES[x]}; line: J in training{dots}{grey}", round(14 * size[0])), fontsize=8)
    fig.suptitle(textwrap.fill(title, round(10 * size[0])))
    return fig


@styled()
def show_race(table: pd.DataFrame, title: str, share: float = 0.9) -> Figure:
    """J of all systems against images seen and against time; a ring where a system is at `share` of its final J.

    Names stand at the right, in the order of the final J.
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
    heading = f"final J, {used}\nring: {share:.0%} of it"
    fig.legend(handles=ranked, loc="outside right center", title=heading, title_fontsize=8)
    fig.suptitle(title)
    return fig


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
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 0.9 + 0.3 * len(cost)), sharey=True)
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
        ax.set_xlabel(unit, fontsize=8)
        name_rows(ax, places, cost.index)
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_ylim(len(cost) - 0.5, -0.5)
    fig.suptitle(title)
    return fig


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
    fig.legend(loc="outside lower center", ncols=len(colours))
    fig.suptitle(title)
    return fig
