"""A label's colour is its own, told apart by all; names are what can be shown; shares and scores are counted."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ImageColor import getrgb

from coseglib.core.errors import CosegError
from coseglib.data.images import read_labels, write_png
from coseglib.segmenting.labels import (
    LONGEST,
    as_seen,
    check_names,
    cielab,
    class_colours,
    class_names,
    label_palette,
    legend_of,
    names_in,
    scores_of,
    shares_of,
)

# Vienot, Brettel and Mollon (1999), in linear RGB: another account of sight without long and without middle waves.
WITHOUT_RED = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
WITHOUT_GREEN = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])


def nearest(seen: np.ndarray) -> float:
    """The least distance between two of n colours (3, n)."""
    apart = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=0)
    return apart[np.triu_indices(len(apart), 1)].min()


def pixels(colours) -> np.ndarray:
    return np.array([getrgb(colour) for colour in colours], float).T


@pytest.mark.parametrize("count", [0, 1, 2, 6, 7, 8, 12, 253, 254])
def test_a_labels_colour_is_the_same_however_many_there_are(count):
    colours = class_colours(count)
    assert colours == class_colours(254)[:count] and len({getrgb(c) for c in colours}) == count


def test_the_first_labels_are_told_apart_by_every_sight_and_from_the_background():
    first = pixels([*class_colours(8), "black", "white"])
    for seen in as_seen(first):
        assert nearest(seen) > 15
    assert nearest(cielab(first)) > 25
    linear = np.where(first / 255 <= 0.04045, first / 255 / 12.92, ((first / 255 + 0.055) / 1.055) ** 2.4)
    for sight in (WITHOUT_RED, WITHOUT_GREEN):
        lost = np.clip(sight @ linear, 0, 1)
        coded = np.where(lost <= 0.0031308, 12.92 * lost, 1.055 * lost ** (1 / 2.4) - 0.055)
        assert nearest(cielab(255 * coded)[:, :6]) > 12


def test_grey_is_grey_to_every_sight():
    for seen in as_seen(pixels(["#202020", "#808080", "#e0e0e0"])):
        assert np.abs(seen[1:]).max() < 1


def test_a_label_map_on_disk_keeps_its_numbers_and_shows_its_labels_colours(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_png(tmp_path / "a.png", labels, palette=label_palette())
    assert np.array_equal(read_labels(tmp_path / "a.png"), labels)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
        shown = np.array(picture.convert("RGB")).reshape(-1, 3)
    assert [tuple(colour) for colour in shown[1:255]] == [getrgb(c) for c in class_colours(254)]
    assert shown[0].tolist() == [0, 0, 0] and shown[255].tolist() == [255] * 3
    assert (shown[1:].max(axis=1) > 0).all()  # what takes it for a mask finds every class


def test_names_are_taken_as_they_are_typed():
    assert names_in(" dog ,person") == ("dog", "person")
    assert names_in('<b>"x"</b> & co,犬,Ёж') == ('<b>"x"</b> & co', "犬", "Ёж")
    check_names((), 3)
    check_names(["a" * LONGEST], 1)
    assert class_names(2) == ["class 1", "class 2"] and class_names(2, ["a", "b"]) == ["a", "b"] and not class_names(0)


@pytest.mark.parametrize(
    ("names", "classes", "told"),
    [
        ("dog", 2, "names dog: 1 for 2 classes; give one each"),
        ("dog,cat", 1, "names dog, cat: 2 for 1 class; give one each"),
        ("", None, "the name of class 1 is empty"),
        ("dog,,cat", None, "the name of class 2 is empty"),
        ("dog, ", None, "the name of class 2 is empty"),
        ("dog,cat,Dog", None, "Dog is there twice"),
        ("ﬁsh,fish", None, "fish is there twice"),  # a ligature
        ("a\nb", None, r"'a\\nb', of class 1, has letters that cannot be shown"),
        ("a,b\x1b[2J", None, "of class 2, has letters that cannot be shown"),
        ("a,\u202eb", None, "of class 2, has letters that cannot be shown"),  # turns what follows around
        ("a\udcff", None, "of class 1, has letters that cannot be shown"),
        ("a" * (LONGEST + 1), None, "has 61 letters; 60 at most"),
    ],
)
def test_names_that_cannot_be_are_one_line(names, classes, told):
    with pytest.raises(CosegError, match=told) as fault:
        check_names(names_in(names), classes)
    assert "\n" not in str(fault.value) and str(fault.value).isprintable()


def test_a_legend_names_the_classes_that_are_there_after_their_labels():
    labels = np.array([[0, 3], [1, 3]], np.uint8)
    orange, _, green = class_colours(3)
    assert legend_of(labels, 3) == [(orange, "class 1"), (green, "class 3")]
    assert legend_of(torch.from_numpy(labels), 3, ["a", "b", "c"]) == [(orange, "1 a"), (green, "3 c")]


def test_shares_count_pixels_and_scores_are_means_of_probabilities():
    labels = torch.tensor([[0, 1, 1, 1], [2, 2, 0, 0]], dtype=torch.uint8)
    assert shares_of(labels, 3) == [0.375, 0.25, 0.0]
    p = torch.rand(4, 2, 4, generator=torch.Generator().manual_seed(0))
    p /= p.sum(dim=0)
    ones, twos, none = scores_of(p.log(), labels)
    assert ones == pytest.approx(float(p[1, 0, 1:].mean()), abs=1e-4)
    assert twos == pytest.approx(float(p[2, 1, :2].mean()), abs=1e-4) and none is None
    large = labels.repeat_interleave(10, 0).repeat_interleave(10, 1)
    assert scores_of(p.log(), large) == [ones, twos, None]
