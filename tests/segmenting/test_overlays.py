"""Overlays touch nothing but the mask and its outline; each class has a colour of its own."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from torchvision import tv_tensors

from coseglib.segmenting.labels import OKABE_ITO, cielab, class_colours
from coseglib.segmenting.overlays import (
    LEGEND_FROM,
    MARKS,
    _grown,
    mark_colour,
    outline,
    overlay,
    veil,
    with_legend,
)

ORANGE, BLUE = OKABE_ITO[:2]


def rgb(colour) -> np.ndarray:
    return np.round(255 * np.array(to_rgb(colour)))


def plain(colour, height: int = 40, width: int = 50) -> np.ndarray:
    return np.broadcast_to(rgb(colour).astype(np.uint8)[:, None, None], (3, height, width)).copy()


def test_overlays_are_made_without_matplotlib():
    code = "import sys; from coseglib.segmenting import overlays; sys.exit('matplotlib' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", code]).returncode


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray, lambda a: tv_tensors.Image(torch.from_numpy(a))])
def test_an_overlay_tints_the_mask_outlines_it_and_leaves_the_rest(kind):
    image = np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8)
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 0:20] = 1
    before = image.copy()
    result = overlay(kind(image), kind(mask) if kind is np.asarray else torch.from_numpy(mask))
    assert type(result) is type(kind(image)) and result.shape == (3, 40, 50)
    after = np.asarray(result)
    assert after.dtype == np.uint8 and (image == before).all()
    colour = rgb(mark_colour([image], [mask]))
    inner, outer, far = np.zeros_like(mask, bool), np.zeros_like(mask, bool), np.ones_like(mask, bool)
    for y in range(40):
        for x in range(50):
            near = mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            inner[y, x] = mask[y, x] and not near.all()
            outer[y, x] = not mask[y, x] and near.any()
            far[y, x] = not near.any()
    assert (after[:, far] == before[:, far]).all()
    assert (after[:, inner] == colour[:, None]).all() and (after[:, outer] == 20).all()
    tint = (mask > 0) & ~inner
    np.testing.assert_allclose(after[:, tint], (before[:, tint] + colour[:, None]) / 2, atol=1)


def test_an_overlay_of_an_empty_mask_is_the_photograph_and_of_a_full_one_has_no_outline():
    image = torch.randint(0, 256, (3, 9, 9), dtype=torch.uint8)
    assert torch.equal(overlay(image, torch.zeros(9, 9, dtype=torch.uint8)), image)
    full = overlay(image, torch.ones(9, 9, dtype=torch.uint8))
    assert ((full.double() - image.double() / 2).std(dim=(1, 2)) < 0.5).all()


def test_a_mask_of_0_and_255_is_laid_over_like_one_of_0_and_1():
    image, mask = torch.zeros(3, 9, 9, dtype=torch.uint8), torch.eye(9, dtype=torch.uint8)
    assert torch.equal(overlay(image, mask), overlay(image, 255 * mask))


def test_labels_have_a_colour_each_and_their_borders_are_outlined():
    labels = np.zeros((60, 80), np.uint8)
    labels[10:30, 10:40], labels[10:30, 40:70] = 1, 2
    image = torch.full((3, 60, 80), 100, dtype=torch.uint8)
    result = overlay(image, torch.from_numpy(labels), class_colours(2))
    for label, colour, inside, edge in ((1, ORANGE, 20, 39), (2, BLUE, 50, 40)):
        full = [round(255 * c) for c in to_rgb(colour)]
        assert result[:, 20, edge].tolist() == full, label
        assert result[:, 20, inside].tolist() == pytest.approx([50 + c / 2 for c in full], abs=1)
    assert result[:, 50, 50].tolist() == [100, 100, 100] and result[:, 20, 9].tolist() == [20, 20, 20]
    one = torch.from_numpy((labels == 1).astype(np.uint8))
    assert torch.equal(overlay(image, one, [mark_colour([image], [one])]), overlay(image, one))


@pytest.mark.parametrize("ground", [*MARKS, *OKABE_ITO, "white", "#c02020", "#20a020"])
def test_a_mask_is_seen_on_objects_of_every_colour_and_never_has_the_truths(ground):
    image, mask = plain(ground), np.pad(np.ones((10, 10), np.uint8), ((15, 15), (20, 20)))
    ink = rgb(mark_colour([image], [mask]))
    apart = {c: np.linalg.norm(cielab(rgb(c)) - cielab(rgb(ground))) for c in MARKS}
    assert (
        np.linalg.norm(cielab(ink) - cielab(rgb(ground))) == pytest.approx(max(apart.values())) and apart[MARKS[0]] >= 0
    )
    assert max(apart.values()) > 45
    assert all(np.linalg.norm(cielab(rgb(c)) - cielab(rgb(BLUE))) > 45 for c in MARKS)


def test_a_group_has_the_one_colour_whose_worst_contrast_is_best():
    mask = np.ones((40, 50), np.uint8)
    grounds = [plain(MARKS[2]), plain(MARKS[3])]
    chosen = mark_colour(grounds, [mask, mask])
    least = {c: min(np.linalg.norm(cielab(rgb(c)) - cielab(g[:, 0, 0])) for g in grounds) for c in MARKS}
    assert chosen == max(least, key=least.get) == mark_colour(grounds[::-1], [mask, mask])
    assert mark_colour([*grounds, plain(chosen)], [mask, mask, 0 * mask]) == chosen  # nothing is marked there
    assert mark_colour([torch.from_numpy(grounds[0])], [0 * mask]) == MARKS[0]


def test_only_what_is_under_and_near_the_mask_counts_for_its_colour():
    image, mask = plain("white", 100, 100), np.zeros((100, 100), np.uint8)
    image[:, 40:60, 40:60], mask[45:55, 45:55] = plain(MARKS[0], 20, 20), 1
    assert mark_colour([image], [mask]) == mark_colour([plain(MARKS[0])], [mask])


def test_an_overlay_of_one_pixel_and_of_another_size():
    one = torch.zeros(3, 1, 1, dtype=torch.uint8)
    assert overlay(one, torch.ones(1, 1, dtype=torch.uint8)).shape == (3, 1, 1)
    with pytest.raises(ValueError, match="not of one size"):
        overlay(one, torch.ones(2, 1, dtype=torch.uint8))


@pytest.mark.parametrize("radius", [1, 2, 3, 5, 8])
def test_growing_a_mask_equals_looking_around_every_pixel(radius):
    mask = np.random.default_rng(radius).random((14, 11)) < 0.03
    around = [
        [mask[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1].any() for x in range(11)]
        for y in range(14)
    ]
    np.testing.assert_array_equal(_grown(mask, radius), around)


def test_a_veil_is_see_through_but_for_the_tints_and_a_dark_line_around():
    labels = np.zeros((20, 30), np.uint8)
    labels[5:10, 5:10], labels[5:10, 18:25] = 1, 2
    made = np.array(Image.open(io.BytesIO(veil(labels, [ORANGE, BLUE]))).convert("RGBA"))
    for label, colour in ((1, ORANGE), (2, BLUE)):
        assert (made[labels == label][:, :3] == rgb(colour)).all() and (made[labels == label][:, 3] == 150).all()
    around = _grown(labels != 0, 1) & (labels == 0)
    assert (made[around] == [20, 20, 20, 255]).all() and not made[~around & (labels == 0), 3].any()
    assert not np.array(Image.open(io.BytesIO(veil(0 * labels, [ORANGE]))).convert("RGBA"))[..., 3].any()


# Legends


def test_a_legend_stands_below_the_picture_and_shows_colours_and_names():
    picture = np.random.default_rng(0).integers(0, 256, (3, 100, 400), dtype=np.uint8)
    made = with_legend(picture, [(ORANGE, "1 dog"), (BLUE, "2 person")])
    strip = made[:, 100:].transpose(1, 2, 0).reshape(-1, 3)
    assert (made[:, :100] == picture).all() and made.shape[2] == 400 and 10 < made.shape[1] - 100 < 50
    for colour in (ORANGE, BLUE):
        assert (strip == rgb(colour)).all(axis=1).sum() > 50  # a square
    assert (strip == 255).all(axis=1).mean() > 0.5 and (strip.max(axis=1) < 60).sum() > 50  # dark letters on white
    other = with_legend(picture, [(ORANGE, "1 cat"), (BLUE, "2 person")])
    assert other.shape == made.shape and (other != made).any()


def test_a_legend_takes_as_many_lines_as_it_needs_and_none_where_there_is_nothing_to_say():
    picture = torch.zeros(3, 50, LEGEND_FROM, dtype=torch.uint8)
    assert with_legend(picture, []) is picture
    assert with_legend(picture[..., 1:], [(ORANGE, "dog")]).shape == (3, 50, LEGEND_FROM - 1)
    one, four = (with_legend(picture, [(ORANGE, "a longish name")] * n).shape[1] for n in (1, 4))
    assert four > one + 2 * (one - 50) - 20
    wide = with_legend(picture, [(ORANGE, "W" * 60)])  # cut, not wider
    assert tuple(wide.shape[1:]) == (one, LEGEND_FROM) and isinstance(wide, torch.Tensor)
    assert (wide[:, 50:, -6:] == 255).all()


def test_an_outline_is_what_of_a_mask_is_near_its_edge():
    mask = np.zeros((12, 12), np.uint8)
    mask[2:10, 2:10] = 3
    expected = mask != 0
    expected[4:8, 4:8] = False
    np.testing.assert_array_equal(outline(mask, 2), expected)
