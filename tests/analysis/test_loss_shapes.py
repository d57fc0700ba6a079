"""Losses on images of known areas and overlaps, against closed forms worked out by hand."""

import math

import pytest
import torch

from coseglib.analysis.loss_shapes import (
    IMAGE_SIDE,
    LOSSES,
    OBJECT_AREAS,
    loss_by_area,
    loss_by_overlap,
    masked_logits,
    object_labels,
    pixel_gradient,
)
from coseglib.core.errors import CosegError

PIXELS = IMAGE_SIDE**2


def one(table, loss: str, area: float):
    (row,) = table[(table.loss == loss) & (table.area == area)].to_dict("records")
    return row


@pytest.fixture(scope="module")
def table():
    return loss_by_area((0.01, 0.125, 0.5))


@pytest.mark.parametrize("area", [0.125, 0.5])
def test_an_object_is_worth_its_area_to_cross_entropy(table, area):
    assert one(table, "cross-entropy", area)["gain"] == pytest.approx(6 * area, rel=1e-6)  # m a: each pixel m nats


@pytest.mark.parametrize("area", [0.125, 0.5])
def test_the_printed_balance_squares_the_area_and_the_inverse_one_does_not(table, area):
    assert one(table, "balanced, as printed", area)["gain"] == pytest.approx(6 * area**2, rel=1e-5)
    assert one(table, "balanced, inverse", area)["gain"] == pytest.approx(6 * area * (1 - area), rel=1e-5)


def test_dice_is_worth_nearly_one_for_an_object_of_any_area(table):
    missed = 1 / (1 + math.exp(6))
    for area in (0.01, 0.125, 0.5):
        n = round(area * PIXELS)
        want = 1 - (2 * n * missed + 1) / (PIXELS * missed + n + 1)
        assert one(table, "dice", area)["missed"] == pytest.approx(want, rel=1e-5)
        assert one(table, "dice", area)["gain"] > 0.8


@pytest.mark.parametrize("area", [0.125, 0.5])
def test_whose_the_gradient_is_at_the_start(table, area):
    """Each from the loss's derivative at p = ½: what an object pixel and a background pixel weigh, by their numbers."""
    n = round(area * PIXELS)
    of_object, of_background = n * (PIXELS + n + 1), (PIXELS - n) * (n + 1)
    want = {
        "cross-entropy": area,
        "dice": of_object / (of_object + of_background),
        "balanced, as printed": area**2 / (area**2 + (1 - area) ** 2),
        "balanced, inverse": 0.5,
    }
    for loss, share in want.items():
        assert one(table, loss, area)["share"] == pytest.approx(share, rel=1e-4), loss


def test_the_gradient_is_that_of_finite_differences():
    labels = object_labels(0.01)
    logits, step = masked_logits(labels, 1.0), 1e-4
    for name, loss in LOSSES.items():
        slope = pixel_gradient(loss, logits, labels)
        for y, x in ((0, 3), (30, 7)):
            up, down = logits.clone(), logits.clone()
            up[0, 1, y, x] += step
            down[0, 1, y, x] -= step
            want = abs(float(loss(up, labels) - loss(down, labels))) / (2 * step)
            # balanced_cross_entropy computes in float32: a difference of two values near 1 has few digits
            assert float(slope[0, y, x]) == pytest.approx(want, rel=1e-3, abs=1e-3), name


def test_a_mask_is_shifted_from_all_of_the_object_to_none_of_it():
    some = loss_by_overlap(0.25, steps=5, losses=("cross-entropy", "dice"))
    entropy = some[some.loss == "cross-entropy"]
    assert entropy.J.tolist() == pytest.approx([1, 3 / 5, 1 / 3, 1 / 7, 0])
    # Of a shift by a quarter of the object as many pixels are missing as are wrongly marked: each costs m nats more.
    assert (entropy.value.diff().dropna()).tolist() == pytest.approx([6 * 2 * 0.25 / 4] * 4, rel=1e-6)
    assert set(some.loss) == {"cross-entropy", "dice"}
    assert some.groupby("loss").value.apply(lambda v: v.is_monotonic_increasing).all()


def test_no_loss_knows_where_a_pixel_lies():
    order = torch.randperm(PIXELS, generator=torch.Generator().manual_seed(0))
    labels = object_labels(0.125)
    logits = (
        masked_logits(labels, 2.0)
        + torch.rand(1, 2, IMAGE_SIDE, IMAGE_SIDE, generator=torch.Generator().manual_seed(1)).double()
    )
    moved = labels.flatten()[order].reshape(labels.shape)
    for name, loss in LOSSES.items():
        again = loss(logits.flatten(2)[..., order].reshape(logits.shape), moved)
        assert float(again) == pytest.approx(float(loss(logits, labels)), rel=1e-5), name


@pytest.mark.parametrize("area", [0, 1, 1e-6, -0.5])
def test_an_area_that_no_image_has_is_refused(area):
    with pytest.raises(CosegError, match="area"):
        object_labels(area)


def test_unknown_losses_and_masks_that_cannot_leave_the_object_are_refused():
    with pytest.raises(CosegError, match=r"hinge: no such loss; one of cross-entropy, dice"):
        loss_by_area((0.5,), losses=("hinge",))
    with pytest.raises(CosegError, match=r"hinge: no such loss"):
        loss_by_overlap(0.25, losses=("dice", "hinge"))
    with pytest.raises(CosegError, match=r"at most \.5"):
        loss_by_overlap(0.75)


def test_the_default_areas_are_areas():
    assert all(0 < object_labels(area).sum() < PIXELS for area in OBJECT_AREAS)
