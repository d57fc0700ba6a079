"""Dots and lines stand where their tables say."""

import numpy as np
from hand_made import rows_of_j

from coseglib.analysis.gaps import mean_by_bin
from coseglib.figures import show_intervals


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
