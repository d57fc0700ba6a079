"""Figures say what they show: axes with units, legends, one colour scale; overlays touch nothing but the mask."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from coseglib.core.errors import CosegError
from coseglib.data.synthetic import load_synthetic
from coseglib.figures import plots


@pytest.fixture(scope="module")
def group():
    (ring,) = load_synthetic(groups=["ring"], photos=3, size=32)
    return [p.image() for p in ring.photos], [ring.mask(i) for i in range(3)]


def panels(fig):
    return [ax for ax in fig.axes if ax.images]


def texts(fig) -> set[str]:
    return {t.get_text() for legend in fig.legends for t in legend.get_texts()}


def log(steps: int = 5, validated: bool = True) -> pd.DataFrame:
    table = pd.DataFrame({"step": np.arange(1, steps + 1) * 10, "loss": np.linspace(0.8, 0.2, steps), "J": 0.5})
    checks = pd.DataFrame({"step": [20, 50], "val_J": [0.3, 0.4]})
    return pd.concat([table, checks]) if validated else table


def test_a_group_shows_every_image_its_masks_its_name_and_its_jaccard_index(group):
    images, truths = group
    masks = [truths[0], 1 - truths[1], torch.zeros_like(truths[2])]
    fig = plots.show_group(images, masks, truths, names=["a", "b", "c"], title="rings")
    assert [ax.get_title(loc="left") for ax in panels(fig)] == ["a  J 1.00", "b  J 0.00", "c  J 0.00"]
    assert texts(fig) == {"prediction", "truth"}
    assert fig.get_suptitle() == "rings"


def test_a_group_may_be_shown_without_masks_or_truths_and_with_images_of_several_sizes():
    images = [torch.zeros(3, 8, 12, dtype=torch.uint8), torch.zeros(3, 20, 5, dtype=torch.uint8)]
    assert len(panels(plots.show_group(images))) == 2 and not texts(plots.show_group(images))
    masks = [torch.ones(8, 12, dtype=torch.uint8), torch.zeros(20, 5, dtype=torch.uint8)]
    assert texts(plots.show_group(images, masks)) == {"prediction"}


def test_a_group_wider_than_the_grid_goes_on_in_the_next_row(group):
    fig = plots.show_group(group[0] * 3, columns=4)
    assert len(fig.axes) == 12 and len(panels(fig)) == 9


def test_as_many_masks_as_images_are_asked_for(group):
    images, truths = group
    with pytest.raises(ValueError, match="3 images and 2 masks"):
        plots.show_group(images, truths[:2])
    with pytest.raises(ValueError, match="3 images, 1 maps"):
        plots.show_heat(images, [truths[0]], "attention", "0 to 1")
    with pytest.raises(ValueError, match="no images"):
        plots.show_group([])


def test_names_that_would_run_into_the_next_panel_lose_their_middle(group):
    images, truths = group
    names = [f"{i}_of_a_camera_that_counts_{i:04}" for i in range(len(images))]
    for fig in (plots.show_group(images, truths, truths, names), plots.show_heat(images, truths, "t", "u", names)):
        titles = [ax.get_title(loc="left") for ax in panels(fig)]
        assert [t[:4] for t in titles] == ["0_of", "1_of", "2_of"] and all(len(t) <= 26 for t in titles)
        assert all(f"s_{i:04}" in t for i, t in enumerate(titles))
    assert plots.shortened("short") == "short"


def test_labels_of_classes_that_lie_together_do_not_cover_each_other():
    rng = np.random.default_rng(0)
    classes = np.repeat([f"class {i}" for i in range(12)], 5)
    fig = plots.show_points({"near": 0.01 * rng.normal(size=(60, 2)), "far": rng.normal(size=(60, 2))}, classes, "t")
    fig.canvas.draw()
    for ax in fig.axes:
        boxes = [text.get_window_extent() for text in ax.texts]
        assert len(boxes) == 12
        for i, one in enumerate(boxes):
            for other in boxes[:i]:
                shared = min(one.y1, other.y1) - max(one.y0, other.y0)
                assert min(one.x1, other.x1) <= max(one.x0, other.x0) or shared < 0.15 * one.height


def test_heat_maps_share_one_colour_scale_whose_bar_names_the_unit(group):
    images, _ = group
    maps = [torch.full((4, 4), v) for v in (0.1, 0.5, 0.9)]
    fig = plots.show_heat(images, maps, "Spatial attention", "attention (0 to 1)")
    heat = [ax.images[1] for ax in panels(fig) if len(ax.images) == 2]
    assert len(heat) == 3
    assert all(m.get_clim() == pytest.approx((0.1, 0.9)) for m in heat)
    assert {m.get_cmap().name for m in heat} == {"cividis"}
    assert "attention (0 to 1)" in [ax.get_ylabel() for ax in fig.axes]
    limits = plots.show_heat(images, maps, "Spatial attention", "attention (0 to 1)", limits=(0, 1))
    assert panels(limits)[0].images[1].get_clim() == (0, 1)


def test_heat_maps_lie_exactly_over_their_images(group):
    images, _ = group
    fig = plots.show_heat(images, [torch.rand(3, 5)] * 3, "m", "u")
    for ax in panels(fig)[:3]:
        assert ax.images[0].get_extent() == pytest.approx(ax.images[1].get_extent())


def test_curves_name_their_axes_with_units_and_every_line_at_its_end():
    fig = plots.curves(log())
    assert [ax.get_xlabel() for ax in fig.axes] == ["optimisation step"] * 2
    assert [ax.get_ylabel() for ax in fig.axes] == ["cross-entropy (nats a pixel)", "Jaccard index J (0 to 1)"]
    assert [t.get_text() for t in fig.axes[1].texts] == ["validation", "training"]
    assert fig.axes[1].lines[1].get_xydata().tolist() == [[20, 0.3], [50, 0.4]]


def test_curves_of_several_runs_name_each_once_and_labels_do_not_overlap():
    fig = plots.curves({"CA": log(), "FCA": log(), "CSA": log()})
    for ax in fig.axes:
        heights = sorted(t.xy[1] for t in ax.texts)
        assert sorted(t.get_text() for t in ax.texts) == ["CA", "CSA", "FCA"]
        assert min(np.diff(heights)) >= 0.079 * np.ptp(ax.get_ylim())
        assert ax.get_ylim()[0] <= heights[0] and heights[-1] <= ax.get_ylim()[1]


def test_curves_without_validation_show_training_alone():
    fig = plots.curves(log(validated=False))
    assert [t.get_text() for t in fig.axes[1].texts] == ["training"]
    with pytest.raises(ValueError, match="lacks J, loss"):
        plots.curves(pd.DataFrame({"step": [1]}))


def table(**more) -> pd.DataFrame:
    return pd.DataFrame({"group": ["bear", "panda", "all"], "J": [0.5, 0.7, 0.6], **more})


def test_bars_have_the_heights_of_the_table_and_diamonds_the_papers_figures():
    paper = pd.DataFrame({"group": ["all", "bear", "goose"], "J": [0.8, 0.9, 0.1], "system": "Chen et al. 2018"})
    fig = plots.bars(table(), paper)
    (ax,) = fig.axes
    assert [p.get_height() for p in ax.patches] == [0.5, 0.7, 0.6]
    (diamonds,) = (line for line in ax.lines if line.get_marker() == "D")
    assert diamonds.get_xydata().tolist() == [[2, 0.8], [0, 0.9]]
    assert ax.get_ylabel() == "Jaccard index J (0 to 1)" and ax.get_xlabel() == "group"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["bear", "panda", "all"]
    assert texts(fig) == {"ours", "Chen et al. 2018"}


def test_a_paper_figure_of_a_system_of_ours_stands_on_that_systems_bar():
    both = pd.concat([table(system="CA"), table(system="FCA", sd=[0.1, 0.2, 0.1])])
    fig = plots.bars(both, table(system="FCA"))
    (ax,) = fig.axes
    fca = [p.get_x() + p.get_width() / 2 for p in ax.patches[3:6]]
    (diamonds,) = (line for line in ax.lines if line.get_marker() == "D")
    np.testing.assert_allclose(diamonds.get_xdata(), fca)
    assert texts(fig) == {"CA", "FCA", "FCA, as printed"}


def test_bars_in_percent_are_refused():
    with pytest.raises(ValueError, match="paper: J above 1"):
        plots.bars(table(), table().assign(J=[50, 70, 60]))


def test_figures_are_closed_and_leave_the_callers_style_and_figures_alone(group):
    mine = plt.figure()
    size = plt.rcParams["font.size"]
    try:
        with plt.rc_context({"font.size": 17}):
            plots.show_group(group[0])
            assert plt.get_fignums() == [mine.number] and plt.rcParams["font.size"] == 17
    finally:
        plt.close(mine)
    assert plt.rcParams["font.size"] == size


def test_saving_writes_a_png_of_200_dpi_and_an_svg_and_nothing_else(tmp_path):
    fig = plots.curves(log())
    png, svg = plots.save(fig, tmp_path / "new" / "loss.v1")
    assert (png.name, svg.name) == ("loss.v1.png", "loss.v1.svg")
    assert sorted(p.name for p in png.parent.iterdir()) == ["loss.v1.png", "loss.v1.svg"]
    with Image.open(png) as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
    assert "optimisation step" in svg.read_text()


def test_saving_the_same_figure_twice_writes_the_same_bytes(tmp_path):
    first, second = (plots.save(plots.curves(log()), tmp_path / f"{n}.png") for n in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CosegError, match=r"loss: cannot be written .*; choose another folder"):
        plots.save(plots.curves(log()), tmp_path / "file" / "loss")


def test_points_have_a_colour_and_a_shape_for_every_class_the_same_in_all_panels():
    classes = ["cat"] * 3 + ["cow"] * 2
    points = np.arange(10.0).reshape(5, 2)
    fig = plots.show_points({"t-SNE": points, "PCA": -points}, classes, "alpha", hollow=[False] * 4 + [True])
    looks = [[(c.get_edgecolor().tolist(), len(c.get_offsets())) for c in ax.collections] for ax in fig.axes]
    assert looks[0] == looks[1] and sum(n for _, n in looks[0]) == 5
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["t-SNE", "PCA"]
    assert [[t.get_text() for t in ax.texts] for ax in fig.axes] == [["cat", "cow"]] * 2
    assert "no unit" in fig.get_supxlabel() and fig.get_suptitle() == "alpha"
    for text, own in zip(fig.axes[0].texts, (points[:3], points[3:]), strict=True):
        assert any(np.array_equal(text.xy, p) for p in own)
    small = plots.show_points({str(k): points for k in range(5)}, classes, "many", labels=False)
    assert texts(small) == {"cat", "cow"} and not any(ax.texts for ax in small.axes)
    assert "no unit" in small.legends[0].get_title().get_text()
    with pytest.raises(ValueError, match=r"b: points of \(5, 3\) for 5 classes"):
        plots.show_points({"b": np.zeros((5, 3))}, classes, "three dimensions")


def test_a_clustered_heat_map_puts_like_classes_and_like_channels_side_by_side():
    table = pd.DataFrame(np.eye(2)[[0, 1, 0, 1]][:, [0, 1, 0]], index=["cat", "bus", "dog", "car"], columns=[5, 7, 9])
    fig = plots.show_channels(table, "alpha by class", "alpha (0 to 1)", limits=(0, 1))
    heat = next(ax for ax in fig.axes if ax.get_xlabel() == "channel")
    rows, columns = ([t.get_text() for t in labels] for labels in (heat.get_yticklabels(), heat.get_xticklabels()))
    assert {frozenset(rows[:2]), frozenset(rows[2:])} == {frozenset({"cat", "dog"}), frozenset({"bus", "car"})}
    assert columns in (["5", "9", "7"], ["9", "5", "7"], ["7", "5", "9"], ["7", "9", "5"])
    assert heat.collections[0].get_clim() == (0, 1) and heat.collections[0].get_cmap().name == "cividis"
    assert "alpha (0 to 1)" in [ax.get_ylabel() for ax in fig.axes] and heat.get_ylabel() == "class"
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="two rows and two columns"):
        plots.show_channels(table[:1], "one class", "alpha")
