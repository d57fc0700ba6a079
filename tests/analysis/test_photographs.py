"""What photographs show: objects, colours, contrast, what is cut off."""

import numpy as np
import pytest
import torch
from hand_made import OBJECT, TWO, box

from coseglib.analysis.failures import class_measures
from coseglib.analysis.photographs import Truth, cielab, describe_photograph
from coseglib.data.record import VOID


def test_specks_of_the_truth_are_no_objects_and_diagonals_connect():
    assert Truth(box(OBJECT, (0, 1, 0, 1))).objects.max() == 1
    assert Truth(box((0, 5, 0, 5), (5, 10, 5, 10))).objects.max() == 1
    truth = Truth(box(*TWO))
    assert truth.objects.max() == 2 and sorted(np.unique(truth.objects)) == [0, 1, 2]


def test_colours_of_cielab_are_those_of_the_tables():
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 128, 0], [10, 10, 10]]).T
    want = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [46.23, -51.70, 49.90], [2.74, 0, 0]]
    np.testing.assert_allclose(cielab(colours).T, want, atol=0.02)


def test_a_photograph_is_described_by_size_number_contrast_place_and_what_is_cut_off():
    image = torch.full((3, 40, 60), 255, dtype=torch.uint8)
    image[:, 10:30, 10:30] = 0
    image[:, :2] = 0  # beyond the ring
    found = describe_photograph(image, Truth(box(OBJECT)))
    assert found["area"] == 400 / 2400 and found["objects"] == 1 and found["cut"] == 0
    assert found["contrast"] == pytest.approx(100, abs=0.01)
    assert found["position"] == pytest.approx(10 / np.hypot(20, 30))
    corner = box((0, 10, 0, 10))
    assert describe_photograph(image, Truth(corner))["cut"] == 1.9
    corner[:, 30:] = VOID
    assert describe_photograph(image, Truth(corner))["area"] == 100 / 1200


def test_void_along_the_border_does_not_hide_what_the_border_cuts():
    image, whole = torch.zeros(3, 100, 100, dtype=torch.uint8), box((0, 30, 20, 50), size=(100, 100))
    framed = whole.clone()
    framed[:3] = framed[:, :3] = VOID
    far = whole.clone()
    far[:6] = VOID
    cut = [describe_photograph(image, Truth(mask))["cut"] for mask in (whole, framed, far)]
    assert cut == pytest.approx([1, 30 / np.sqrt(27 * 30), 0])
    assert class_measures(0 * framed, framed, 1)["cut"] == cut[1]


def test_a_photograph_without_objects_or_surroundings_has_no_contrast():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    empty = describe_photograph(image, Truth(box()))
    assert empty["area"] == empty["objects"] == empty["cut"] == 0 and np.isnan(empty["contrast"] + empty["position"])
    full = describe_photograph(image, Truth(box((0, 40, 0, 60))))
    assert full["position"] == 0 and np.isnan(full["contrast"])
