"""Kinds of failure on masks made by hand; measures against definitions written another way."""

import numpy as np
import pytest
import torch
from hand_made import OBJECT, TWO, box

from coseglib.analysis.failures import FAILURE_KINDS, Thresholds, failure_kind, mask_measures
from coseglib.analysis.photographs import Truth
from coseglib.data.record import VOID


def kind_of(pred: torch.Tensor, truth: torch.Tensor, **thresholds) -> str:
    return failure_kind(mask_measures(pred, Truth(truth)), Thresholds(**thresholds))


@pytest.mark.parametrize(
    ("want", "pred", "truth"),
    [
        ("good", box(OBJECT), box(OBJECT)),
        ("good", box((10, 30, 10, 28)), box(OBJECT)),
        ("good", box(), box()),  # nothing asked for, nothing found
        ("boundary-only", box((8, 32, 8, 32)), box(OBJECT)),  # J .69, all wrong pixels within two of the outline
        ("boundary-only", box((12, 28, 12, 28)), box(OBJECT)),
        ("over-segmentation", box((5, 39, 5, 45)), box(OBJECT)),
        ("over-segmentation", box((10, 30, 10, 50)), box(OBJECT)),
        ("under-segmentation", box((10, 30, 10, 20)), box(OBJECT)),
        ("fragmented", box((10, 30, 10, 16), (10, 30, 24, 30)), box(OBJECT)),
        ("missed object", box(), box(OBJECT)),
        ("missed object", box((10, 15, 10, 15)), box(OBJECT)),
        ("missed object", box(OBJECT), box(*TWO)),  # one of two
        ("missed object", box((0, 4, 0, 4)), box(OBJECT)),  # a speck elsewhere is no other object
        ("wrong object", box((10, 30, 38, 58)), box(OBJECT)),
        ("wrong object", box((10, 30, 22, 58)), box(OBJECT)),
        ("wrong object", box((0, 1, 0, 1)), box()),  # nothing was asked for
    ],
)
def test_a_mask_made_by_hand_has_its_kind(want, pred, truth):
    assert kind_of(pred, truth) == want


def test_an_object_in_two_pieces_is_not_fragmented_when_the_truth_is_in_two():
    pieces = box((12, 28, 12, 27), (12, 28, 40, 56))
    assert kind_of(pieces, box(*TWO), outline=0.01) == "under-segmentation"
    assert kind_of(pieces, box((10, 30, 10, 58)), outline=0.01) == "fragmented"


def test_pieces_of_the_mask_beside_the_object_do_not_make_it_fragmented():
    assert kind_of(box((10, 30, 10, 22), (2, 8, 40, 46)), box(OBJECT)) == "under-segmentation"


def random_masks(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.choice([0, 1, VOID], (9, 11), p=[0.5, 0.4, 0.1]).astype(np.uint8))
    truth[rng.integers(9) :] = int(rng.choice([0, 1]))
    pred = torch.from_numpy((rng.random((9, 11)) < rng.choice([0, 0.1, 0.5, 0.9, 1])).astype(np.uint8))
    return pred, truth


@pytest.mark.parametrize("seed", range(40))
def test_every_mask_has_exactly_one_kind_and_void_pixels_do_not_count(seed):
    pred, truth = random_masks(seed)
    turned = torch.where(truth == VOID, 1 - pred, pred)
    found, again = (mask_measures(p, Truth(truth)) for p in (pred, turned))
    assert found == again
    assert failure_kind(found) in FAILURE_KINDS
    assert all(np.isfinite(v) or (k in ("size", "reach") and v == np.inf) for k, v in found.items())


def test_a_photograph_that_is_all_void_or_all_object_has_a_kind():
    everything, void = torch.ones(6, 6, dtype=torch.uint8), torch.full((6, 6), VOID, dtype=torch.uint8)
    assert kind_of(everything, void) == "good"
    assert kind_of(everything, everything) == "good"
    assert kind_of(0 * everything, everything) == "missed object"
    half = everything.clone()
    half[:3] = 0
    assert (
        kind_of(half, everything) == "under-segmentation" and mask_measures(half, Truth(everything))["reach"] == np.inf
    )


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="not of one size"):
        mask_measures(box(size=(4, 4)), Truth(box()))


def test_measures_are_shares_of_pixels_and_lengths_in_sides_of_the_object():
    found = mask_measures(box((10, 30, 10, 24), (10, 20, 40, 44)), Truth(box(OBJECT)))
    assert found["recall"] == 280 / 400 and found["precision"] == 280 / 320 and found["size"] == 320 / 400
    assert found["J"] == 280 / 440 and found["least"] == 0.7 and found["second"] == 0
    assert found["excess"] == 40 / 2400 and found["lack"] == 120 / 2400
    cut = box((10, 30, 10, 16), (10, 30, 22, 30))
    assert mask_measures(cut, Truth(box(OBJECT)))["second"] == 0.3
    grown = mask_measures(box((8, 32, 8, 32)), Truth(box(OBJECT)))
    assert grown["reach"] == pytest.approx(1.5 / 20)  # the second ring's centres lie 1.5 pixels outside


def test_neither_the_photographs_size_nor_the_objects_changes_the_kind():
    truth, preds = box(OBJECT), [box((8, 32, 8, 32)), box((10, 30, 10, 20)), box((10, 30, 10, 16), (10, 30, 24, 30))]
    for pred in preds:
        large = [m.repeat_interleave(4, 0).repeat_interleave(4, 1) for m in (pred, truth)]
        wider = [torch.nn.functional.pad(m, (0, 50, 0, 70)) for m in (pred, truth)]
        assert kind_of(*large) == kind_of(*wider) == kind_of(pred, truth)


def test_the_outline_of_a_void_seam_lies_in_it():
    truth = box(OBJECT)
    truth[8:10, 8:32] = truth[30:32, 8:32] = VOID
    truth[8:32, 8:10] = truth[8:32, 30:32] = VOID
    assert mask_measures(box((5, 35, 5, 35)), Truth(truth))["reach"] == pytest.approx(2.5 / 20)
