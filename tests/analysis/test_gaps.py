"""Bins, gaps and slopes with intervals against definitions written another way."""

import numpy as np
import pandas as pd
import pytest
from hand_made import rows_of_j

from coseglib.analysis.gaps import Gap, bootstrap_gap, fit_together, gap_in_words, gap_of_ends, mean_by_bin


def test_bins_hold_the_means_and_an_interval_that_draws_whole_groups():
    rows = rows_of_j(area=np.random.default_rng(1).random(80))
    found = mean_by_bin(rows, "area")
    assert found.masks.tolist() == [20] * 4 and (found.low < found.J).all() and (found.high > found.J).all()
    quarter = rows.area <= rows.area.quantile(0.25)
    assert found.J[0] == pytest.approx(rows.J[quarter].mean())
    rng, means = np.random.default_rng(5), []  # the same, group by group
    parts = {name: some for name, some in rows.assign(chosen=quarter).groupby("group")}
    for _ in range(2000):
        drawn = pd.concat([parts[name] for name in rng.choice(list(parts), len(parts))])
        means.append(drawn.J[drawn.chosen].mean())
    np.testing.assert_allclose([found.low[0], found.high[0]], np.nanquantile(means, [0.025, 0.975]), atol=0.02)
    pd.testing.assert_frame_equal(found, mean_by_bin(rows, "area"))


def test_intervals_are_wider_where_the_photographs_of_a_group_are_alike():
    level = np.repeat(np.random.default_rng(2).random(8), 10)
    alike, apart = (
        rows_of_j(J=level[order], all=0) for order in (np.arange(80), np.random.default_rng(3).permutation(80))
    )
    width = [float((b.high - b.low).iloc[0]) for b in (mean_by_bin(t, "all") for t in (alike, apart))]
    assert width[0] > 2 * width[1]


def test_text_truth_values_and_few_numbers_are_a_bin_each():
    rows = rows_of_j(objects=np.tile([1, 2], 40), seen=np.tile([True, False], 40), none=np.nan)
    assert mean_by_bin(rows, "objects").bin.tolist() == ["1", "2"] and mean_by_bin(rows, "seen").bin.tolist() == [
        "False",
        "True",
    ]
    assert mean_by_bin(rows, "group").masks.tolist() == [10] * 8 and mean_by_bin(rows, "group").low.isna().all()
    with pytest.raises(ValueError, match="none: no row has a value"):
        mean_by_bin(rows, "none")
    assert mean_by_bin(rows_of_j(wide=np.linspace(0.0314, 126, 80)), "wide", 2).bin.tolist() == [
        "0.031 to 63",
        "63 to 130",
    ]
    one_value = rows_of_j(cut=np.r_[np.zeros(60), np.random.default_rng(0).random(20)])
    assert mean_by_bin(one_value, "cut").masks.tolist() == [60, 20]


def test_a_gap_is_the_difference_of_means_and_is_told_as_what_it_is():
    rows = rows_of_j(photos=20)
    first = np.tile([True, False], 80)
    rows["J"] = np.where(first, 0.3, 0.7) + 0.1 * rows.J
    found = bootstrap_gap(rows, first, ~first)
    assert found.difference == pytest.approx(rows.J[first].mean() - rows.J[~first].mean())
    assert found.low < found.difference < found.high < -0.3 and (found.first, found.second) == (80, 80)
    assert "J of small ones is 0.4" in gap_in_words("small ones", "large ones", found) and "lower" in gap_in_words(
        "a", "b", found
    )
    rows["J"] = rows_of_j(photos=20).J
    assert "no difference" in gap_in_words("a", "b", bootstrap_gap(rows, first, ~first))
    alone = bootstrap_gap(rows, rows.group == "g0", rows.group != "g0")
    assert np.isnan(alone.low) and "too few groups" in gap_in_words("a", "b", alone)
    with pytest.raises(ValueError, match="0 and 160 rows"):
        bootstrap_gap(rows, rows.J > 2, rows.J < 2)
    assert isinstance(found, Gap)


def test_the_ends_of_a_column_are_its_lowest_and_highest_rows():
    rows = rows_of_j(area=np.tile(np.arange(10.0), 8))
    found = gap_of_ends(rows, "area", 0.2)
    assert found.difference == pytest.approx(rows.J[rows.area <= 1].mean() - rows.J[rows.area >= 8].mean())
    assert (found.first, found.second) == (16, 16)


def test_columns_taken_together_are_a_least_squares_fit_that_parts_what_goes_together():
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    b = a + 0.5 * rng.normal(size=400)  # goes with a, and has no effect of its own
    rows = rows_of_j(photos=50, a=a, b=b, same=1.0)
    rows["J"] = 0.5 + 0.1 * a + 0.02 * rng.normal(size=400)
    found = fit_together(rows, ["a", "b", "same"]).set_index("column")
    assert list(found.index) == ["a", "b"]
    x = np.column_stack([np.ones(400), *((v - v.mean()) / v.std() for v in (a, b))])
    np.testing.assert_allclose(found.slope, np.linalg.lstsq(x, rows.J, rcond=None)[0][1:], atol=1e-9)
    assert np.corrcoef(b, rows.J)[0, 1] > 0.8
    assert 0.08 < found.low["a"] < found.high["a"] < 0.12 and -0.02 < found.low["b"] < found.high["b"] < 0.02
    assert fit_together(rows[:100], ["a", "b"]).low.isna().all()  # two groups for three numbers
