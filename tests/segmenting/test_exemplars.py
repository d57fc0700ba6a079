"""The crops that show a class best: large and sure ones, cut out around their largest part."""

import numpy as np
import pytest
from PIL import Image

from coseglib.data.images import write_png
from coseglib.segmenting.exemplars import AT_LEAST, MOST, TOGETHER, Exemplars, crop_of


def added(maps, classes=2, by_group=False, **more) -> Exemplars:
    found = Exemplars(classes, by_group)
    for number, labels in enumerate(maps, start=1):
        found.add(number, {"file": f"{number}.png", **{key: of[number - 1] for key, of in more.items()}}, labels)
    return found


def squares(*sides: int, label: int = 1, size: int = 100) -> list[np.ndarray]:
    maps = [np.zeros((size, size), np.uint8) for _ in sides]
    for labels, side in zip(maps, sides, strict=True):
        labels[:side, :side] = label
    return maps


def test_the_largest_come_first_and_no_more_than_some():
    sides = [10, 50, 30, 5, 40, 20, 60, 0, 15]
    found = added(squares(*sides))
    numbers = [place.number for place in found.found[("", 1)]]
    assert numbers == list(np.argsort(sides)[::-1][:MOST] + 1)
    assert found.seen[("", 1)] == (8, pytest.approx(sum(s * s for s in sides) / 9e4, abs=1e-5))
    assert found.found[("", 2)] == [] and found.seen[("", 2)] == (0, 0.0)
    many = added([np.full((4, 4), 1, np.uint8)] * 9, classes=254)
    assert AT_LEAST <= len(many.found[("", 1)]) < MOST and len(many.found) * AT_LEAST < 3 * TOGETHER


def test_a_sure_one_comes_before_a_larger_one_of_which_little_is_sure():
    found = added(squares(50, 40), class_scores=[[0.3, None], [0.9, None]])
    assert [place.number for place in found.found[("", 1)]] == [2, 1]


def test_groups_that_learned_apart_have_crops_of_their_own():
    found = added(squares(50, 40, 30), by_group=True, group=["a", "b", "a"])
    assert {key: [place.number for place in places] for key, places in found.found.items()} == {
        ("a", 1): [1, 3],
        ("a", 2): [],
        ("b", 1): [2],
        ("b", 2): [],
    }
    assert found.seen[("a", 1)] == (2, pytest.approx(0.17))


@pytest.mark.parametrize("scale", [1, 20])  # of large photographs parts are looked for in a copy
def test_the_box_is_that_of_the_largest_part_and_a_margin(scale):
    labels = np.zeros((100, 80), np.uint8)
    labels[0:10, 0:10], labels[40:70, 30:50], labels[90:, 70:] = 1, 1, 2
    large = np.kron(labels, np.ones((scale, scale), np.uint8))
    top, bottom, left, right = (edge / scale for edge in added([large]).found[("", 1)][0].box)
    assert 31 <= top < 40 and 70 < bottom <= 79 and 21 <= left < 30 and 50 < right <= 59
    corner = added([large]).found[("", 2)][0].box
    assert corner[1] == 100 * scale and corner[3] == 80 * scale  # not beyond the photograph


def test_a_class_of_a_single_pixel_is_found_in_a_large_photograph():
    labels = np.zeros((1100, 1101), np.uint8)
    labels[701, 333] = 1
    top, bottom, left, right = added([labels]).found[("", 1)][0].box
    assert top <= 701 < bottom and left <= 333 < right


@pytest.fixture
def scene(tmp_path):
    """A photograph with a red rectangle that is class 2, its label map and its overlay; what was found in it."""
    labels = np.zeros((300, 200), np.uint8)
    labels[100:200, 50:150] = 2
    picture = np.full((3, 300, 200), 90, np.uint8)
    picture[:, labels == 2] = np.array([[220], [20], [20]], np.uint8)
    write_png(tmp_path / "a.png", picture)
    write_png(tmp_path / "mask.png", labels)
    with_strip = np.concatenate([255 - picture, np.full((3, 40, 200), 255, np.uint8)], axis=1)
    write_png(tmp_path / "overlay.png", with_strip)
    found = Exemplars(2, False)
    found.add(1, {"file": str(tmp_path / "a.png"), "mask": "mask.png", "overlay": "overlay.png"}, labels)
    return tmp_path, found.found[("", 2)][0]


def test_a_crop_shows_the_part_and_its_mask(scene):
    out, place = scene
    picture, mask = crop_of(out, place, 2, 58)
    assert picture.shape == (3, 58, 58) and mask.shape == (58, 58)
    assert set(np.unique(mask)) == {0, 1} and mask.mean() == pytest.approx((100 / 116) ** 2, abs=0.03)
    inside = np.pad(mask, 0)[3:-3, 3:-3] != 0
    assert abs(picture[0, 3:-3, 3:-3][inside].mean() - 220) < 8 and picture[:, 0, 0].tolist() == [90, 90, 90]
    assert max(crop_of(out, place, 2, 500)[0].shape) == 116  # not enlarged


def test_of_a_photograph_that_is_gone_the_overlay_is_cut_and_of_one_without_either_nothing(scene):
    out, place = scene
    (out / "a.png").unlink()
    picture, mask = crop_of(out, place, 2, 58)
    assert mask is None and picture.shape == (3, 58, 58)  # its legend does not move the place
    assert picture[:, 29, 29].tolist() == [35, 235, 235] and picture[:, 0, 0].tolist() == [165] * 3
    (out / "overlay.png").unlink()
    assert crop_of(out, place, 2, 58) is None


def test_a_turned_photograph_is_cut_as_it_is_displayed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((40, 100, 3), np.uint8)
    stored[:, :30] = 200  # the left becomes the top
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    labels = np.zeros((100, 40), np.uint8)
    labels[:30] = 1
    write_png(tmp_path / "mask.png", labels)
    found = Exemplars(1, False)
    found.add(1, {"file": str(tmp_path / "a.jpg"), "mask": "mask.png"}, labels)
    picture, mask = crop_of(tmp_path, found.found[("", 1)][0], 1, 99)
    assert picture.shape == (3, 38, 40) and picture[0, :28].min() > 150 and picture[0, 33:].max() < 60
    assert mask[:30].all() and not mask[30:].any()
