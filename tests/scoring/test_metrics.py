"""Metrics against plain loops, torchmetrics and numbers worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import binary_accuracy, binary_jaccard_index

from coseglib.core.errors import CosegError
from coseglib.data.record import VOID
from coseglib.scoring.metrics import (
    PROTOCOLS,
    Protocol,
    aggregate,
    auroc,
    best_threshold,
    counts,
    jaccard,
    precision,
    ssnm_threshold,
)


def masks(seed: int, void: float = 0.1, size=(9, 7)):
    rng = np.random.default_rng(seed)
    pred = (rng.random(size) < rng.random()).astype(np.uint8)
    truth = (rng.random(size) < rng.random()).astype(np.uint8)
    truth[rng.random(size) < void] = VOID
    return torch.from_numpy(pred), torch.from_numpy(truth)


def by_loop(pred, truth):
    right = counted = intersection = union = 0
    for p, t in zip(pred.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if t == 255:
            continue
        counted += 1
        if p == t:
            right += 1
        if p == 1 and t == 1:
            intersection += 1
        if p == 1 or t == 1:
            union += 1
    return right, counted, intersection, union


@pytest.mark.parametrize("seed", range(10))
def test_counts_precision_and_jaccard_equal_a_loop_over_pixels(seed):
    pred, truth = masks(seed)
    expected = by_loop(pred, truth)
    assert counts(pred, truth) == expected
    right, counted, intersection, union = expected
    assert precision(pred, truth) == right / counted
    assert jaccard(pred, truth) == intersection / union


@pytest.mark.parametrize("seed", range(5))
def test_torchmetrics_agrees_where_neither_mask_is_empty(seed):
    pred, truth = masks(seed)
    p, t = pred.long(), truth.long()
    assert jaccard(pred, truth) == pytest.approx(float(binary_jaccard_index(p, t, ignore_index=VOID)))
    assert precision(pred, truth) == pytest.approx(float(binary_accuracy(p, t, ignore_index=VOID)))


def test_void_pixels_change_nothing_whatever_is_predicted_there():
    pred, truth = masks(3, void=0.5)
    other = torch.where(truth == VOID, 1 - pred, pred)
    assert counts(pred, truth) == counts(other, truth)


def test_precision_and_jaccard_do_not_change_when_prediction_and_truth_are_swapped():
    a, b = masks(1, void=0)
    assert counts(a, b) == counts(b, a)


def test_precision_does_not_change_when_foreground_and_background_are_swapped():
    a, b = masks(2, void=0)
    assert precision(a, b) == precision(1 - a, 1 - b)
    assert jaccard(a, b) != jaccard(1 - a, 1 - b)


def test_a_perfect_mask_scores_one_and_its_complement_zero():
    _, truth = masks(4, void=0)
    assert precision(truth, truth) == jaccard(truth, truth) == 1
    assert precision(1 - truth, truth) == jaccard(1 - truth, truth) == 0


def test_a_mask_of_255_counts_as_foreground_in_a_prediction():
    pred, truth = masks(5)
    assert counts(pred * 255, truth) == counts(pred, truth)


def test_two_empty_masks_score_what_the_rule_says():
    nothing = torch.zeros(4, 5, dtype=torch.uint8)
    assert jaccard(nothing, nothing) == jaccard(nothing, nothing, "one") == 1
    assert jaccard(nothing, nothing, "zero") == 0
    assert math.isnan(jaccard(nothing, nothing, "skip"))
    assert precision(nothing, nothing) == 1


@pytest.mark.parametrize("empty", ["one", "zero", "skip"])
def test_one_empty_mask_scores_zero_under_every_rule(empty):
    nothing, something = torch.zeros(4, 5, dtype=torch.uint8), torch.ones(4, 5, dtype=torch.uint8)
    assert jaccard(nothing, something, empty) == jaccard(something, nothing, empty) == 0


def test_an_image_that_is_all_void_counts_as_empty():
    void = torch.full((3, 3), VOID, dtype=torch.uint8)
    pred = torch.ones(3, 3, dtype=torch.uint8)
    assert counts(pred, void) == (0, 0, 0, 0)
    assert precision(pred, void) == jaccard(pred, void) == 1


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="not of one size"):
        counts(torch.zeros(3, 4, dtype=torch.uint8), torch.zeros(4, 3, dtype=torch.uint8))


def test_ssnm_threshold_is_mean_plus_deviation_capped_at_eight_tenths():
    p = np.random.default_rng(0).random((6, 7)).astype(np.float32) ** 4
    assert ssnm_threshold(torch.from_numpy(p)) == pytest.approx(p.mean() + p.std(), rel=1e-5)
    assert ssnm_threshold(torch.tensor([[0.9, 0.95], [0.99, 0.1]])) == 0.8


def test_auroc_equals_counting_the_pairs_in_order():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 8, 40) / 8, rng.integers(0, 2, 40)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    assert auroc(scores, labels) == pytest.approx(np.mean(pairs))
    assert math.isnan(auroc([0.1, 0.2], [1, 1]))


def test_no_other_threshold_answers_more_of_both_labels_right():
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, labels = rng.integers(0, 12, 30) / 12, rng.integers(0, 2, 30)
        threshold, right = best_threshold(scores, labels)

        def share(t, scores=scores, labels=labels):
            return ((scores[labels == 1] >= t).mean() + (scores[labels == 0] < t).mean()) / 2

        assert right == pytest.approx(share(threshold))
        assert right == pytest.approx(max(share(t) for t in np.linspace(-0.01, 1.01, 500)))
        assert threshold not in scores or right == 0.5
    assert best_threshold([0.2, 0.8], [0, 1]) == (0.5, 1)
    with pytest.raises(ValueError, match="both sorts"):
        best_threshold([0.2, 0.8], [1, 1])


# right, counted, intersection, union of three photographs in two groups
ROWS = pd.DataFrame(
    [
        ("toys", "ball", "a", 9, 10, 1, 2),
        ("toys", "ball", "b", 60, 100, 30, 40),
        ("toys", "kite", "c", 5, 10, 0, 4),
    ],
    columns=["dataset", "group", "name", "right", "counted", "intersection", "union"],
).assign(P=lambda t: t.right / t.counted, J=lambda t: t.intersection / t.union)


@pytest.mark.parametrize(
    ("average", "ball", "everything"),
    [
        ("image", (0.75, 0.625), ((0.75 + 0.5) / 2, 0.3125)),
        ("pooled", (0.75, 0.625), (2 / 3, 1.25 / 3)),
        ("class", (69 / 110, 31 / 42), ((69 / 110 + 0.5) / 2, 31 / 84)),
        ("total", (69 / 110, 31 / 42), (74 / 120, 31 / 46)),
    ],
)
def test_aggregate_equals_numbers_worked_out_by_hand(average, ball, everything):
    table = aggregate(ROWS, Protocol("mine", average=average))
    assert table.columns.tolist() == ["dataset", "group", "images", "P", "J", "protocol"]
    assert table.group.tolist() == ["ball", "kite", "all"]
    assert table.images.tolist() == [2, 1, 3]
    assert table.loc[0, ["P", "J"]].tolist() == pytest.approx(ball)
    assert table.loc[1, ["P", "J"]].tolist() == pytest.approx((0.5, 0))
    assert table.loc[2, ["P", "J"]].tolist() == pytest.approx(everything)
    assert set(table.protocol) == {"mine"} and set(table.dataset) == {"toys"}


def test_all_averages_agree_on_groups_of_one_photograph_of_one_size():
    rows = ROWS[ROWS.name != "b"].assign(union=4, J=[0.25, 0])
    tables = [aggregate(rows, Protocol("mine", average=a)) for a in ("image", "pooled", "class", "total")]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_skipped_photographs_count_for_precision_alone():
    rows = ROWS.copy()
    rows.loc[0, "J"] = float("nan")
    table = aggregate(rows, "multiclass")
    assert table.loc[0, "J"] == 0.75 and table.loc[0, "P"] == 0.75


@pytest.mark.parametrize(("empty", "expected"), [("one", 1.0), ("zero", 0.0), ("skip", float("nan"))])
def test_a_group_without_foreground_follows_the_empty_rule_in_total_counts_too(empty, expected):
    rows = ROWS.assign(intersection=0, union=[2, 2, 0])
    table = aggregate(rows, Protocol("mine", average="class", empty=empty))
    assert table.J.iloc[1] == pytest.approx(expected, nan_ok=True)
    assert table.J.iloc[2] == pytest.approx(0 if empty != "one" else 0.5)


def test_aggregate_gives_mean_seconds_where_they_were_measured():
    table = aggregate(ROWS.assign(seconds=[1.0, 3.0, 5.0]))
    assert table.seconds.tolist() == [2, 5, 3]


def test_aggregate_refuses_an_unknown_protocol_and_an_empty_table():
    with pytest.raises(CosegError, match="no such protocol; one of common"):
        aggregate(ROWS, "uncommon")
    with pytest.raises(CosegError, match="no photographs"):
        aggregate(ROWS[:0])


def test_ssnm_table_three_averages_are_means_over_images_and_not_over_groups():
    """The J of the paper's eight iCoseg groups, weighed by the groups' sizes, give its printed averages."""
    sizes = (19, 5, 33, 15, 12, 24, 25, 21)
    for printed, mean in (
        ((87.4, 90.3, 84.9, 90.6, 76.6, 94.1, 90.6, 87.5), 88.0),
        ((91.1, 89.6, 88.6, 90.9, 76.4, 94.2, 90.4, 87.5), 89.2),
    ):
        rows = pd.DataFrame(
            [
                ("icoseg8", str(g), 1.0, j)
                for g, (n, j) in enumerate(zip(sizes, printed, strict=True))
                for _ in range(n)
            ],
            columns=["dataset", "group", "P", "J"],
        )
        assert aggregate(rows, "ssnm").J.iloc[-1] == pytest.approx(mean, abs=0.05)
        assert aggregate(rows, "common").J.iloc[-1] != pytest.approx(mean, abs=0.2)


def test_every_protocol_says_what_it_is_and_impossible_ones_are_refused():
    assert PROTOCOLS["common"] == Protocol("common", about=PROTOCOLS["common"].about)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and len(protocol.about) > 40
    with pytest.raises(ValueError, match="average"):
        Protocol("mine", average="median")


def test_where_no_threshold_helps_the_best_one_is_finite_and_answers_nothing():
    score, right = best_threshold([0.2, 0.9], [1, 0])
    assert 0.9 < score < 0.91 and right == 0.5
