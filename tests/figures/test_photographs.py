"""Photographs with masks and heat: names, legends, one colour scale."""

import pytest
import torch
from matplotlib.colors import to_rgb

from coseglib.data.synthetic import load_synthetic
from coseglib.figures import (
    BLUE,
    shortened,
    show_group,
    show_heat,
)
from coseglib.segmenting.labels import class_colours
from coseglib.segmenting.overlays import mark_colour


@pytest.fixture(scope="module")
def group():
    (ring,) = load_synthetic(groups=["ring"], photos=3, size=32)
    return [p.image() for p in ring.photos], [ring.mask(i) for i in range(3)]


def panels(fig):
    return [ax for ax in fig.axes if ax.images]


def texts(fig) -> set[str]:
    return {t.get_text() for legend in fig.legends for t in legend.get_texts()}


def test_a_group_shows_every_image_its_masks_its_name_and_its_jaccard_index(group):
    images, truths = group
    masks = [truths[0], 1 - truths[1], torch.zeros_like(truths[2])]
    fig = show_group(images, masks, truths, names=["a", "b", "c"], title="rings")
    assert [ax.get_title(loc="left") for ax in panels(fig)] == ["a  J 1.00", "b  J 0.00", "c  J 0.00"]
    assert texts(fig) == {"prediction", "truth"}
    assert fig.get_suptitle() == "rings"


def test_a_group_may_be_shown_without_masks_or_truths_and_with_images_of_several_sizes():
    images = [torch.zeros(3, 8, 12, dtype=torch.uint8), torch.zeros(3, 20, 5, dtype=torch.uint8)]
    assert len(panels(show_group(images))) == 2 and not texts(show_group(images))
    masks = [torch.ones(8, 12, dtype=torch.uint8), torch.zeros(20, 5, dtype=torch.uint8)]
    assert texts(show_group(images, masks)) == {"prediction"}


def test_all_masks_of_a_figure_have_the_colour_that_overlays_on_disk_would_have_for_the_group(group):
    images, truths = group
    fig = show_group(images, truths, truths)
    colour = to_rgb(mark_colour(images, truths))
    assert {
        tuple(ax.images[1].get_array()[truth != 0][0, :3]) for ax, truth in zip(panels(fig), truths, strict=True)
    } == {colour}
    lines = [contour for ax in panels(fig) for contour in ax.collections]
    assert {to_rgb(line.get_edgecolor()[0]) for line in lines} == {colour, to_rgb(BLUE)}


def test_labels_of_two_lines_lose_neither_the_system_nor_the_kind(group):
    images, truths = group
    for kind, before_j in (("missed", "  "), ("under-segmentation", "\n")):
        names = [f"{system}\n{kind}" for system in ("ca-mobilenet_v2", "ca-mobilenet_v2-paper")]
        for given, score in ((None, ""), (truths[:2], f"{before_j}J 1.00")):
            fig = show_group(images[:2], truths[:2], given, names, 2, "The most disagreed on")
            assert [ax.get_title(loc="left") for ax in panels(fig)] == [name + score for name in names]


def test_a_group_wider_than_the_grid_goes_on_in_the_next_row(group):
    fig = show_group(group[0] * 3, columns=4)
    assert len(fig.axes) == 12 and len(panels(fig)) == 9


def test_as_many_masks_as_images_are_asked_for(group):
    images, truths = group
    with pytest.raises(ValueError, match="3 images and 2 masks"):
        show_group(images, truths[:2])
    with pytest.raises(ValueError, match="3 images and 1 maps"):
        show_heat(images, [truths[0]], "attention", "0 to 1")
    with pytest.raises(ValueError, match="no images"):
        show_group([])


def test_names_that_would_run_into_the_next_panel_lose_their_middle(group):
    images, truths = group
    names = [f"{i}_of_a_camera_that_counts_{i:04}" for i in range(len(images))]
    for fig in (show_group(images, truths, truths, names), show_heat(images, truths, "t", "u", names)):
        titles = [ax.get_title(loc="left") for ax in panels(fig)]
        assert [t[:4] for t in titles] == ["0_of", "1_of", "2_of"] and all(
            len(line) <= 26 for t in titles for line in t.split("\n")
        )
        assert all(f"s_{i:04}" in t for i, t in enumerate(titles))
    assert shortened("short") == "short"


def test_heat_maps_share_one_colour_scale_whose_bar_names_the_unit(group):
    images, _ = group
    maps = [torch.full((4, 4), v) for v in (0.1, 0.5, 0.9)]
    fig = show_heat(images, maps, "Spatial attention", "attention (0 to 1)")
    heat = [ax.images[1] for ax in panels(fig) if len(ax.images) == 2]
    assert len(heat) == 3
    assert all(m.get_clim() == pytest.approx((0.1, 0.9)) for m in heat)
    assert {m.get_cmap().name for m in heat} == {"cividis"}
    assert "attention (0 to 1)" in [ax.get_ylabel() for ax in fig.axes]
    limits = show_heat(images, maps, "Spatial attention", "attention (0 to 1)", limits=(0, 1))
    assert panels(limits)[0].images[1].get_clim() == (0, 1)


def test_heat_maps_lie_exactly_over_their_images(group):
    images, _ = group
    fig = show_heat(images, [torch.rand(3, 5)] * 3, "m", "u")
    for ax in panels(fig)[:3]:
        assert ax.images[0].get_extent() == pytest.approx(ax.images[1].get_extent())


def test_label_maps_have_their_labels_colours_and_a_legend_that_names_them(group):
    images, truths = group
    maps = [truth + torch.roll(truth, 5, 1) for truth in truths]  # 0, 1 and 2
    fig = show_group(images, maps, classes=["ring", "both"])
    assert texts(fig) == {"ring", "both"}
    for ax, labels in zip(panels(fig), maps, strict=True):
        tint = ax.images[1].get_array()
        for label, colour in enumerate(class_colours(2), start=1):
            assert {tuple(c) for c in tint[labels == label][:, :3]} <= {to_rgb(colour)}
        assert not tint[labels == 0].any() and {1, 2} <= set(labels.unique().tolist())
        lines = {to_rgb(line.get_edgecolor()[0]) for line in ax.collections}
        assert lines == {to_rgb(colour) for colour in class_colours(2)}
        assert all(line.get_linestyle()[0][1] is None for line in ax.collections)  # dashes are the truth's, blue or not
