"""Curves have a name for every line, axes with units, and the tables' own values."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import logs, row

from coseglib.analysis.loss_shapes import (
    LOSSES,
    loss_by_area,
    loss_by_overlap,
)
from coseglib.figures import (
    show_costs,
    show_curves,
    show_logs,
    show_loss_shapes,
    show_race,
)
from coseglib.training.costs import training_costs
from coseglib.training.runs import (
    TrainingRun,
    read_run,
)


def log(steps: int = 5, validated: bool = True) -> pd.DataFrame:
    table = pd.DataFrame({"step": np.arange(1, steps + 1) * 10, "loss": np.linspace(0.8, 0.2, steps), "J": 0.5})
    checks = pd.DataFrame({"step": [20, 50], "val_J": [0.3, 0.4]})
    return pd.concat([table, checks]) if validated else table


def test_curves_name_their_axes_with_units_and_every_line_at_its_end():
    fig = show_logs(log())
    assert [ax.get_xlabel() for ax in fig.axes] == ["optimisation step"] * 2
    assert [ax.get_ylabel() for ax in fig.axes] == ["cross-entropy (nats a pixel)", "Jaccard index J (0 to 1)"]
    assert [t.get_text() for t in fig.axes[1].texts] == ["validation", "training"]
    assert fig.axes[1].lines[1].get_xydata().tolist() == [[20, 0.3], [50, 0.4]]


def test_curves_of_several_runs_name_each_once_and_labels_do_not_overlap():
    fig = show_logs({"CA": log(), "FCA": log(), "CSA": log()})
    for ax in fig.axes:
        heights = sorted(t.xy[1] for t in ax.texts)
        assert sorted(t.get_text() for t in ax.texts) == ["CA", "CSA", "FCA"]
        assert min(np.diff(heights)) >= 0.079 * np.ptp(ax.get_ylim())
        assert ax.get_ylim()[0] <= heights[0] and heights[-1] <= ax.get_ylim()[1]


def test_curves_without_validation_show_training_alone():
    fig = show_logs(log(validated=False))
    assert [t.get_text() for t in fig.axes[1].texts] == ["training"]
    with pytest.raises(ValueError, match="lacks J, loss"):
        show_logs(pd.DataFrame({"step": [1]}))


def test_what_guessing_reaches_is_a_named_line_beside_the_curve_of_the_same_quantity():
    chance = {"loss": ("the same p everywhere", 1.3), "J": {"everything marked": 0.1, "nothing marked": 0.25}}

    def levels(ax) -> dict[str, float]:  # a name stands at the height of its line
        lines = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]
        named = {t.get_text().replace("\n", " "): t.get_position()[1] for t in ax.texts}
        low, high = ax.get_ylim()
        assert all(low <= level <= high for level in lines)
        return {name: level for name, level in named.items() if level in lines}

    loss, J = show_logs(log(), chance=chance).axes
    assert levels(loss) == {"the same p everywhere": 1.3} and levels(J) == chance["J"]
    fig = show_curves(logs(a=[0.1, 0.5], b=[0.2, 0.3]), "All", chance={"a": chance, "b": {"J": chance["J"]}})
    assert list(map(levels, fig.axes)) == [{"the same p everywhere": 1.3}, {}, chance["J"], chance["J"]]  # losses above
    assert fig.get_supxlabel().replace("\n", " ").endswith("dashed: what guessing reaches")
    assert "dashed" not in show_curves(logs(a=[0.1, 0.5]), "One").get_supxlabel()


def test_each_system_has_its_loss_above_and_its_j_below_with_the_others_in_grey():
    table = logs(a=[0.1, 0.5], b=[0.2, 0.3], c=[0.0, 0.9])
    table.loc[1, "val_J"] = 0.4
    fig = show_curves(table, "All", {"b": "dice"}, x="seconds", columns=2)
    drawn = [ax for ax in fig.axes if ax.lines]
    assert len(fig.axes) == 8 and len(drawn) == 6
    above = [ax for ax in drawn if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in above] == ["a", "b\ndice", "c"]
    assert above[1].lines[0].get_xdata().tolist() == [1, 2] and above[1].lines[0].get_ydata().tolist() == [0.8, 0.7]
    below = [ax for ax in drawn if ax not in above]
    assert all(ax.get_ylim() == (0, 1) and len(ax.lines) == 4 for ax in below)
    assert below[0].lines[2].get_ydata().tolist() == [0.1, 0.5]
    assert below[0].lines[3].get_ydata().tolist() == [0.4]
    assert [ax.xaxis.get_tick_params()["labelbottom"] for ax in below] == [False, True, True]  # b has none below it
    assert "dots: in validation" in fig.get_supxlabel()


def test_the_race_has_a_ring_at_the_share_and_names_in_the_order_of_the_final_j():
    fig = show_race(logs(a=[0.1, 0.5, 0.5], b=[0.2, 0.3, 0.9], c=[0, 0, 0]), "Race")
    images, seconds = fig.axes
    rings = [line for line in seconds.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in rings] == [[2], [3], []]
    assert [line.get_ydata().tolist() for line in images.lines[:2]] == [[0.1, 0.5, 0.5], [0.5]]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["b  0.90", "a  0.50", "c  0.00"]


def test_bars_of_cost_have_a_dash_for_what_is_not_known(made_run, tmp_path):
    folder = made_run(tmp_path / "a", [row(4, 3.0, 0.5)])
    cost = training_costs(
        {"a": read_run(folder, "a"), "b": TrainingRun("b", *_parts(folder, {"before": 3e8, "peak": 7e8}))}
    )
    rates, memory, times = show_costs(cost, "Cost").axes
    assert [bar.get_width() for bar in rates.patches] == [40, 40]
    assert [bar.get_width() for bar in memory.patches] == [0, 700, 0, 300]
    assert [t.get_text() for t in memory.texts] == ["–", "700"]
    assert times.get_xlabel() == "seconds to 90% of final J"


def _parts(folder: Path, memory: dict) -> tuple:
    run = read_run(folder)
    return folder, run.config, run.log, memory


def test_the_figure_draws_each_loss_against_area_and_both_areas_against_overlap():
    table = loss_by_area((0.01, 0.125, 0.5))
    overlaps = {a: loss_by_overlap(a, steps=5, losses=("cross-entropy", "dice")) for a in (0.02, 0.25)}
    worth, whose, overlap = show_loss_shapes(table, overlaps, "Losses").axes
    assert len(worth.lines) == len(whose.lines) == len(LOSSES) and len(overlap.lines) == 4
    assert worth.get_xscale() == worth.get_yscale() == "log"
    assert worth.lines[0].get_ydata() == pytest.approx(table[table.loss == "cross-entropy"].gain)
    assert [line.get_linestyle() for line in overlap.lines] == ["-", "-", ":", ":"]
    assert "of 2% (line), 25% (dotted)" in overlap.get_title(loc="left")
