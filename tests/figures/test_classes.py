"""Points and channels of classes; labels do not cover each other."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from coseglib.figures import (
    show_channels,
    show_points,
)


def texts(fig) -> set[str]:
    return {t.get_text() for legend in fig.legends for t in legend.get_texts()}


def test_labels_of_classes_that_lie_together_do_not_cover_each_other():
    rng = np.random.default_rng(0)
    classes = np.repeat([f"class {i}" for i in range(12)], 5)
    fig = show_points({"near": 0.01 * rng.normal(size=(60, 2)), "far": rng.normal(size=(60, 2))}, classes, "t")
    fig.canvas.draw()
    for ax in fig.axes:
        boxes = [text.get_window_extent() for text in ax.texts]
        assert len(boxes) == 12
        for i, one in enumerate(boxes):
            for other in boxes[:i]:
                shared = min(one.y1, other.y1) - max(one.y0, other.y0)
                assert min(one.x1, other.x1) <= max(one.x0, other.x0) or shared < 0.15 * one.height


def test_labels_stand_at_the_same_places_each_time_and_the_callers_random_numbers_go_on():
    classes, points = ["a"] * 3 + ["b"] * 3 + ["c"] * 3, 0.01 * np.random.default_rng(0).normal(size=(9, 2))
    places = []
    for seed in (1, 2):
        np.random.seed(seed)
        expected = np.random.RandomState(seed).random()
        fig = show_points({"p": points}, classes, "t")
        assert np.random.random() == expected
        places.append([text.xyann for text in fig.axes[0].texts])
    np.testing.assert_array_equal(*places)


def test_points_have_a_colour_and_a_shape_for_every_class_the_same_in_all_panels():
    classes = ["cat"] * 3 + ["cow"] * 2
    points = np.arange(10.0).reshape(5, 2)
    fig = show_points({"t-SNE": points, "PCA": -points}, classes, "alpha", hollow=[False] * 4 + [True])
    looks = [[(c.get_edgecolor().tolist(), len(c.get_offsets())) for c in ax.collections] for ax in fig.axes]
    assert looks[0] == looks[1] and sum(n for _, n in looks[0]) == 5
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["t-SNE", "PCA"]
    assert [[t.get_text() for t in ax.texts] for ax in fig.axes] == [["cat", "cow"]] * 2
    assert "no unit" in fig.get_supxlabel() and fig.get_suptitle() == "alpha"
    for text, own in zip(fig.axes[0].texts, (points[:3], points[3:]), strict=True):
        assert any(np.array_equal(text.xy, p) for p in own)
    small = show_points({str(k): points for k in range(5)}, classes, "many", labels=False)
    assert texts(small) == {"cat", "cow"} and not any(ax.texts for ax in small.axes)
    assert "no unit" in small.legends[0].get_title().get_text()
    with pytest.raises(ValueError, match=r"b: points of \(5, 3\) for 5 classes"):
        show_points({"b": np.zeros((5, 3))}, classes, "three dimensions")


def test_a_clustered_heat_map_puts_like_classes_and_like_channels_side_by_side():
    table = pd.DataFrame(np.eye(2)[[0, 1, 0, 1]][:, [0, 1, 0]], index=["cat", "bus", "dog", "car"], columns=[5, 7, 9])
    fig = show_channels(table, "alpha by class", "alpha (0 to 1)", limits=(0, 1))
    heat = next(ax for ax in fig.axes if ax.get_xlabel() == "channel")
    rows, columns = ([t.get_text() for t in labels] for labels in (heat.get_yticklabels(), heat.get_xticklabels()))
    assert {frozenset(rows[:2]), frozenset(rows[2:])} == {frozenset({"cat", "dog"}), frozenset({"bus", "car"})}
    assert columns in (["5", "9", "7"], ["9", "5", "7"], ["7", "5", "9"], ["7", "9", "5"])
    assert heat.collections[0].get_clim() == (0, 1) and heat.collections[0].get_cmap().name == "cividis"
    assert "alpha (0 to 1)" in [ax.get_ylabel() for ax in fig.axes] and heat.get_ylabel() == "class"
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="two rows and two columns"):
        show_channels(table[:1], "one class", "alpha")
