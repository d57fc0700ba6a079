import math

import pytest
import torch

from coseglib.models.losses import (
    BAND,
    batch_jaccard,
    boundary_cross_entropy,
    cross_entropy,
    foreground_dice,
    segmentation_loss,
)


@pytest.fixture
def case():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2, 3, 4, dtype=torch.float64), torch.randint(0, 2, (2, 3, 4), dtype=torch.uint8)
    labels[0, 0, :2] = 255
    return logits, labels


def _pixels(logits, labels):
    """(image, probability of the foreground, label) of every pixel that is not void, by loops."""
    for n in range(labels.shape[0]):
        for i in range(labels.shape[1]):
            for j in range(labels.shape[2]):
                if labels[n, i, j] != 255:
                    a, b = math.exp(logits[n, 0, i, j]), math.exp(logits[n, 1, i, j])
                    yield n, b / (a + b), int(labels[n, i, j])


def test_cross_entropy_equals_a_loop_that_skips_void(case):
    terms = [-math.log(p if t else 1 - p) for _, p, t in _pixels(*case)]
    assert cross_entropy(*case).item() == pytest.approx(sum(terms) / len(terms))


def test_dice_equals_a_loop_that_skips_void(case):
    losses = []
    for n in (0, 1):
        pixels = [(p, t) for m, p, t in _pixels(*case) if m == n]
        overlap, total = sum(p * t for p, t in pixels), sum(p + t for p, t in pixels)
        losses.append(1 - (2 * overlap + 1) / (total + 1))
    assert foreground_dice(*case).item() == pytest.approx(sum(losses) / 2)
    both = cross_entropy(*case) + 0.5 * foreground_dice(*case)
    torch.testing.assert_close(segmentation_loss(*case, dice=0.5), both)


def test_an_image_of_void_alone_loses_nothing_and_has_a_gradient():
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 2, 2), 255, dtype=torch.uint8), dice=0.5)
    loss.backward()
    assert loss.item() == 0 and logits.grad.isfinite().all()


def test_batch_jaccard_counts_empty_against_empty_as_one():
    logits = torch.zeros(2, 2, 1, 2)
    logits[:, 0] = 1  # all background
    logits[1, 1, 0, 0] = 2  # but one pixel of the second image
    labels = torch.tensor([[[0, 255]], [[1, 1]]], dtype=torch.uint8)
    assert batch_jaccard(logits, labels).item() == pytest.approx((1 + 0.5) / 2)


def test_the_boundarys_cross_entropy_is_a_loop_over_the_pixels_near_a_contour():
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 2, 24, 20, dtype=torch.float64), torch.zeros(2, 24, 20, dtype=torch.uint8)
    labels[0, 6:19, 9:], labels[0, 3, 3] = 1, 255
    losses = []
    for i in range(24):
        for j in range(20):
            around = labels[0, max(i - BAND, 0) : i + BAND + 1, max(j - BAND, 0) : j + BAND + 1] == 1
            if around.any() and not around.all() and labels[0, i, j] != 255:
                losses.append(-math.log(logits[0, :, i, j].softmax(0)[int(labels[0, i, j])]))
    assert 20 < len(losses) < 250
    assert boundary_cross_entropy(logits, labels).item() == pytest.approx(sum(losses) / len(losses))
    assert boundary_cross_entropy(logits[1:], labels[1:]).item() == 0
    assert boundary_cross_entropy(logits[None], labels[None]).item() == pytest.approx(sum(losses) / len(losses))
