"""Bars, diamonds, dots and lines stand where their tables say."""

import numpy as np
import pandas as pd
import pytest
from hand_made import rows_of_j

from coseglib.analysis.gaps import mean_by_bin
from coseglib.figures import show_bars, show_intervals, show_stacks


def texts(fig) -> set[str]:
    return {t.get_text() for legend in fig.legends for t in legend.get_texts()}


def table(**more) -> pd.DataFrame:
    return pd.DataFrame({"group": ["bear", "panda", "all"], "J": [0.5, 0.7, 0.6], **more})


def test_bars_have_the_heights_of_the_table_and_diamonds_the_papers_figures():
    paper = pd.DataFrame({"group": ["all", "bear", "goose"], "J": [0.8, 0.9, 0.1], "system": "Chen et al. 2018"})
    fig = show_bars(table(), paper)
    (ax,) = fig.axes
    assert [p.get_height() for p in ax.patches] == [0.5, 0.7, 0.6]
    (diamonds,) = (line for line in ax.lines if line.get_marker() == "D")
    assert diamonds.get_xydata().tolist() == [[2, 0.8], [0, 0.9]]
    assert ax.get_ylabel() == "Jaccard index J (0 to 1)" and ax.get_xlabel() == "group"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["bear", "panda", "all"]
    assert texts(fig) == {"ours", "Chen et al. 2018"}


def test_a_paper_figure_of_a_system_of_ours_stands_on_that_systems_bar():
    both = pd.concat([table(system="CA"), table(system="FCA", sd=[0.1, 0.2, 0.1])])
    fig = show_bars(both, table(system="FCA"))
    (ax,) = fig.axes
    fca = [p.get_x() + p.get_width() / 2 for p in ax.patches[3:6]]
    (diamonds,) = (line for line in ax.lines if line.get_marker() == "D")
    np.testing.assert_allclose(diamonds.get_xdata(), fca)
    assert texts(fig) == {"CA", "FCA", "FCA, as printed"}


def test_bars_in_percent_are_refused():
    with pytest.raises(ValueError, match="paper: J above 1"):
        show_bars(table(), table().assign(J=[50, 70, 60]))


def test_stacks_have_a_bar_a_row_and_name_every_kind_once():
    kinds = ["good", "missed object", "wrong object"]
    shares = pd.DataFrame([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], index=["one", "two"], columns=kinds)
    fig = show_stacks({"system": shares}, "Kinds", "share of the masks (0 to 1)")
    (ax,) = fig.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["one", "two"]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == kinds
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(2)
    assert ax.get_xlabel() == "share of the masks (0 to 1)" and ax.get_ylabel() == "system"
    with pytest.raises(ValueError, match="sum to 1"):
        show_stacks({"system": 2 * shares}, "Kinds", "share")


def test_intervals_show_low_and_high_and_hollow_dots_where_there_are_none():
    rows = rows_of_j(area=np.random.default_rng(1).random(80))
    fig = show_intervals(
        {"area (share)": mean_by_bin(rows, "area"), "group": mean_by_bin(rows, "group")}, "J by what is shown"
    )
    left, right = fig.axes
    assert left.get_xlabel() == "area (share)" and left.get_ylabel() == "Jaccard index J (0 to 1)"
    lines = [p.vertices[:, 1].tolist() for p in left.collections[0].get_paths()]
    np.testing.assert_allclose(lines, mean_by_bin(rows, "area")[["low", "high"]])
    assert not right.collections[0].get_paths() and len(right.lines[-1].get_xdata()) == 8
    dashed = [line for line in left.lines if line.get_linestyle() == "--"]
    assert dashed[0].get_ydata()[0] == pytest.approx(rows.J.mean()) and texts(fig) == {
        "mean over all masks of the panel"
    }
