"""Kinds of failure on masks made by hand; measures and intervals against definitions written another way."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import TinyContext, TinyPartner

from coseglib.analysis.failures import (
    CLASS_GRID,
    CLASS_KINDS,
    GRID,
    KINDS,
    ClassThresholds,
    Gap,
    Masks,
    Thresholds,
    Truth,
    binned,
    by_kind,
    cielab,
    class_kind,
    class_measures,
    class_table,
    describe,
    disagreement,
    ends,
    failure_table,
    gap,
    kind,
    measures,
    named,
    shares,
    sweep,
    together,
    told,
)
from coseglib.analysis.maps import seen
from coseglib.core.errors import CosegError
from coseglib.data.record import VOID, Group, Photo
from coseglib.data.synthetic import load_synthetic
from coseglib.figures import plots
from coseglib.scoring.evaluation import evaluate


def box(*places: tuple[int, int, int, int], size=(40, 60)) -> torch.Tensor:
    """A mask of boxes (top, bottom, left, right)."""
    mask = torch.zeros(size, dtype=torch.uint8)
    for top, bottom, left, right in places:
        mask[top:bottom, left:right] = 1
    return mask


OBJECT = (10, 30, 10, 30)  # 20 × 20
TWO = (OBJECT, (10, 30, 38, 58))


def kind_of(pred: torch.Tensor, truth: torch.Tensor, **thresholds) -> str:
    return kind(measures(pred, Truth(truth)), Thresholds(**thresholds))


# Kinds ----------------------------------------------------------------------------------------------------------------


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


def test_specks_of_the_truth_are_no_objects_and_diagonals_connect():
    assert Truth(box(OBJECT, (0, 1, 0, 1))).objects.max() == 1
    assert Truth(box((0, 5, 0, 5), (5, 10, 5, 10))).objects.max() == 1
    truth = Truth(box(*TWO))
    assert truth.objects.max() == 2 and sorted(np.unique(truth.objects)) == [0, 1, 2]


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
    found, again = (measures(p, Truth(truth)) for p in (pred, turned))
    assert found == again
    assert kind(found) in KINDS
    assert all(np.isfinite(v) or (k in ("size", "reach") and v == np.inf) for k, v in found.items())


def test_a_photograph_that_is_all_void_or_all_object_has_a_kind():
    everything, void = torch.ones(6, 6, dtype=torch.uint8), torch.full((6, 6), VOID, dtype=torch.uint8)
    assert kind_of(everything, void) == "good"
    assert kind_of(everything, everything) == "good"
    assert kind_of(0 * everything, everything) == "missed object"
    half = everything.clone()
    half[:3] = 0
    assert kind_of(half, everything) == "under-segmentation" and measures(half, Truth(everything))["reach"] == np.inf


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="not of one size"):
        measures(box(size=(4, 4)), Truth(box()))


def test_measures_are_shares_of_pixels_and_lengths_in_sides_of_the_object():
    found = measures(box((10, 30, 10, 24), (10, 20, 40, 44)), Truth(box(OBJECT)))
    assert found["recall"] == 280 / 400 and found["precision"] == 280 / 320 and found["size"] == 320 / 400
    assert found["J"] == 280 / 440 and found["least"] == 0.7 and found["second"] == 0
    assert found["excess"] == 40 / 2400 and found["lack"] == 120 / 2400
    cut = box((10, 30, 10, 16), (10, 30, 22, 30))
    assert measures(cut, Truth(box(OBJECT)))["second"] == 0.3
    grown = measures(box((8, 32, 8, 32)), Truth(box(OBJECT)))
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
    assert measures(box((5, 35, 5, 35)), Truth(truth))["reach"] == pytest.approx(2.5 / 20)


# What photographs show ------------------------------------------------------------------------------------------------


def test_colours_of_cielab_are_those_of_the_tables():
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 128, 0], [10, 10, 10]]).T
    want = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [46.23, -51.70, 49.90], [2.74, 0, 0]]
    np.testing.assert_allclose(cielab(colours).T, want, atol=0.02)


def test_a_photograph_is_described_by_size_number_contrast_place_and_what_is_cut_off():
    image = torch.full((3, 40, 60), 255, dtype=torch.uint8)
    image[:, 10:30, 10:30] = 0
    image[:, :2] = 0  # beyond the ring
    found = describe(image, Truth(box(OBJECT)))
    assert found["area"] == 400 / 2400 and found["objects"] == 1 and found["cut"] == 0
    assert found["contrast"] == pytest.approx(100, abs=0.01)
    assert found["position"] == pytest.approx(10 / np.hypot(20, 30))
    corner = box((0, 10, 0, 10))
    assert describe(image, Truth(corner))["cut"] == 1.9
    corner[:, 30:] = VOID
    assert describe(image, Truth(corner))["area"] == 100 / 1200


def test_void_along_the_border_does_not_hide_what_the_border_cuts():
    image, whole = torch.zeros(3, 100, 100, dtype=torch.uint8), box((0, 30, 20, 50), size=(100, 100))
    framed = whole.clone()
    framed[:3] = framed[:, :3] = VOID
    far = whole.clone()
    far[:6] = VOID
    cut = [describe(image, Truth(mask))["cut"] for mask in (whole, framed, far)]
    assert cut == pytest.approx([1, 30 / np.sqrt(27 * 30), 0])
    assert class_measures(0 * framed, framed, 1)["cut"] == cut[1]


def test_a_photograph_without_objects_or_surroundings_has_no_contrast():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    empty = describe(image, Truth(box()))
    assert empty["area"] == empty["objects"] == empty["cut"] == 0 and np.isnan(empty["contrast"] + empty["position"])
    full = describe(image, Truth(box((0, 40, 0, 60))))
    assert full["position"] == 0 and np.isnan(full["contrast"])


def test_seen_is_by_the_names_of_training_and_drawn_classes_are_their_own():
    for name in ("Aero", "plane", "airplane", "aeroplane"):
        assert seen(Group("pascal", name, (), (name,)), {"aeroplane"})
    assert not seen(Group("icoseg8", "panda1", (), ("panda1",)), {"aeroplane"})
    flower = Group("synthetic", "flower", (), ("flower",))
    assert seen(flower, {"synthetic/flower"}) and not seen(flower, {"flower"})


# The table ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored():
    groups = load_synthetic(groups=3, photos=4, size=32)
    models = {"one": TinyContext(), "two": TinyPartner()}
    return groups, models, *failure_table(models, groups, {"one": {"synthetic/star"}})


def test_the_table_has_the_figures_of_the_common_protocol_and_its_own_masks(scored):
    groups, models, rows, masks = scored
    assert len(rows) == len(masks) == 24 and set(rows.kind) <= set(KINDS)
    for name, model in models.items():
        own = rows[rows.system == name]
        expected = evaluate(model, groups, "common")
        assert own.J.tolist() == expected.J.tolist() and own.name.tolist() == expected.name.tolist()
        assert own.seen.tolist() == [name == "one" and g.name == "star" for g in groups for _ in g.photos]
    truths = {(g.name, p.name): Truth(g.mask(i)) for g in groups for i, p in enumerate(g.photos)}
    for row in rows.to_dict("records"):
        mask = masks[row["system"], row["dataset"], row["group"], row["name"]]
        assert measures(mask, truths[row["group"], row["name"]])["J"] == row["J"] and mask.dtype == torch.uint8
        assert kind(row) == row["kind"]


def test_agreement_is_the_overlap_of_two_systems_masks_and_photographs_are_sorted_by_the_spread(scored):
    _, _, rows, masks = scored
    found = disagreement(rows)
    assert len(found) == 12 and found.spread.is_monotonic_decreasing
    for row in found.to_dict("records"):
        a, b = (masks[s, row["dataset"], row["group"], row["name"]] != 0 for s in ("one", "two"))
        union = int((a | b).sum())
        assert row["agreement"] == (int((a & b).sum()) / union if union else 1)
        own = rows[(rows.group == row["group"]) & (rows.name == row["name"])].set_index("system").J
        assert row["spread"] == pytest.approx(abs(own["one"] - own["two"])) and own[row["best"]] == own.max()


def test_one_system_agrees_with_nobody_and_without_photographs_there_is_no_table(scored):
    groups, models, _, _ = scored
    rows, _ = failure_table({"one": models["one"]}, groups[:1])
    assert rows.agreement.isna().all() and not rows.seen.any()
    with pytest.raises(CosegError, match="nothing to score"):
        failure_table(models, [])


def test_packed_masks_come_back():
    kept, mask = Masks(), (torch.rand(13, 7) < 0.5).to(torch.uint8)
    kept["a", "b"] = mask
    assert torch.equal(kept["a", "b"], mask) and len(kept) == 1


def test_shares_of_kinds_sum_to_1_and_what_is_lost_is_shared_out(scored):
    rows = scored[2]
    table = by_kind(rows)
    assert list(table.index) == list(KINDS) and table.photographs.sum() == len(rows)
    assert table.share.sum() == pytest.approx(1) and table["share of lost J"].sum() == pytest.approx(1)
    by_system = shares(rows)
    assert list(by_system.index) == ["one", "two"] and np.allclose(by_system.sum(axis=1), 1)


def test_a_sweep_moves_one_threshold_at_a_time(scored):
    rows = scored[2]
    found = sweep(rows)
    assert len(found) == sum(map(len, GRID.values())) and np.allclose(found[list(KINDS)].sum(axis=1), 1)
    good = found[found.threshold == "good"].set_index("value").good
    assert good.is_monotonic_decreasing and good[0.7] == (rows.J >= 0.7).mean()
    for name, values in GRID.items():
        assert getattr(Thresholds(), name) in values
        usual = found[(found.threshold == name) & (found.value == getattr(Thresholds(), name))].iloc[0]
        assert {k: usual[k] for k in KINDS} == pytest.approx(by_kind(rows).share.to_dict())


# Intervals ------------------------------------------------------------------------------------------------------------


def table(groups: int = 8, photos: int = 10, seed: int = 0, **columns) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = groups * photos
    given = {"dataset": "made", "group": np.repeat([f"g{i}" for i in range(groups)], photos), "J": rng.random(n)}
    return pd.DataFrame({**given, **columns})


def test_bins_hold_the_means_and_an_interval_that_draws_whole_groups():
    rows = table(area=np.random.default_rng(1).random(80))
    found = binned(rows, "area")
    assert found.masks.tolist() == [20] * 4 and (found.low < found.J).all() and (found.high > found.J).all()
    quarter = rows.area <= rows.area.quantile(0.25)
    assert found.J[0] == pytest.approx(rows.J[quarter].mean())
    rng, means = np.random.default_rng(5), []  # the same, group by group
    parts = {name: some for name, some in rows.assign(chosen=quarter).groupby("group")}
    for _ in range(2000):
        drawn = pd.concat([parts[name] for name in rng.choice(list(parts), len(parts))])
        means.append(drawn.J[drawn.chosen].mean())
    np.testing.assert_allclose([found.low[0], found.high[0]], np.nanquantile(means, [0.025, 0.975]), atol=0.02)
    pd.testing.assert_frame_equal(found, binned(rows, "area"))


def test_intervals_are_wider_where_the_photographs_of_a_group_are_alike():
    level = np.repeat(np.random.default_rng(2).random(8), 10)
    alike, apart = (table(J=level[order], all=0) for order in (np.arange(80), np.random.default_rng(3).permutation(80)))
    width = [float((b.high - b.low).iloc[0]) for b in (binned(t, "all") for t in (alike, apart))]
    assert width[0] > 2 * width[1]


def test_text_truth_values_and_few_numbers_are_a_bin_each():
    rows = table(objects=np.tile([1, 2], 40), seen=np.tile([True, False], 40), none=np.nan)
    assert binned(rows, "objects").bin.tolist() == ["1", "2"] and binned(rows, "seen").bin.tolist() == ["False", "True"]
    assert binned(rows, "group").masks.tolist() == [10] * 8 and binned(rows, "group").low.isna().all()
    with pytest.raises(ValueError, match="none: no row has a value"):
        binned(rows, "none")
    assert binned(table(wide=np.linspace(0.0314, 126, 80)), "wide", 2).bin.tolist() == ["0.031 to 63", "63 to 130"]
    one_value = table(cut=np.r_[np.zeros(60), np.random.default_rng(0).random(20)])
    assert binned(one_value, "cut").masks.tolist() == [60, 20]


def test_a_gap_is_the_difference_of_means_and_is_told_as_what_it_is():
    rows = table(photos=20)
    first = np.tile([True, False], 80)
    rows["J"] = np.where(first, 0.3, 0.7) + 0.1 * rows.J
    found = gap(rows, first, ~first)
    assert found.difference == pytest.approx(rows.J[first].mean() - rows.J[~first].mean())
    assert found.low < found.difference < found.high < -0.3 and (found.first, found.second) == (80, 80)
    assert "J of small ones is 0.4" in told("small ones", "large ones", found) and "lower" in told("a", "b", found)
    rows["J"] = table(photos=20).J
    assert "no difference" in told("a", "b", gap(rows, first, ~first))
    alone = gap(rows, rows.group == "g0", rows.group != "g0")
    assert np.isnan(alone.low) and "too few groups" in told("a", "b", alone)
    with pytest.raises(ValueError, match="0 and 160 rows"):
        gap(rows, rows.J > 2, rows.J < 2)
    assert isinstance(found, Gap)


def test_the_ends_of_a_column_are_its_lowest_and_highest_rows():
    rows = table(area=np.tile(np.arange(10.0), 8))
    found = ends(rows, "area", 0.2)
    assert found.difference == pytest.approx(rows.J[rows.area <= 1].mean() - rows.J[rows.area >= 8].mean())
    assert (found.first, found.second) == (16, 16)


def test_columns_taken_together_are_a_least_squares_fit_that_parts_what_goes_together():
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    b = a + 0.5 * rng.normal(size=400)  # goes with a, and has no effect of its own
    rows = table(photos=50, a=a, b=b, same=1.0)
    rows["J"] = 0.5 + 0.1 * a + 0.02 * rng.normal(size=400)
    found = together(rows, ["a", "b", "same"]).set_index("column")
    assert list(found.index) == ["a", "b"]
    x = np.column_stack([np.ones(400), *((v - v.mean()) / v.std() for v in (a, b))])
    np.testing.assert_allclose(found.slope, np.linalg.lstsq(x, rows.J, rcond=None)[0][1:], atol=1e-9)
    assert np.corrcoef(b, rows.J)[0, 1] > 0.8
    assert 0.08 < found.low["a"] < found.high["a"] < 0.12 and -0.02 < found.low["b"] < found.high["b"] < 0.02
    assert together(rows[:100], ["a", "b"]).low.isna().all()  # two groups for three numbers


# Several classes ------------------------------------------------------------------------------------------------------


def labels(*boxes: tuple[int, int, int, int, int], size=(40, 60)) -> torch.Tensor:
    """A label map of boxes (label, top, bottom, left, right)."""
    found = torch.zeros(size, dtype=torch.uint8)
    for label, top, bottom, left, right in boxes:
        found[top:bottom, left:right] = label
    return found


@pytest.mark.parametrize(
    ("want", "pred", "truth"),
    [
        ("good", labels((1, *OBJECT)), labels((1, *OBJECT))),
        ("overextended", labels((1, 0, 40, 5, 45)), labels((1, *OBJECT))),
        ("overextended", labels((1, *OBJECT)), labels()),
        ("confused", labels((1, 10, 30, 10, 58)), labels((1, *OBJECT), (2, 10, 30, 30, 58))),
        ("confused", labels((2, *OBJECT)), labels((1, *OBJECT))),
        ("lost", labels((1, 10, 14, 10, 14)), labels((1, *OBJECT))),
        ("incomplete", labels((1, 10, 14, 0, 4)), labels((1, 10, 30, 0, 20))),
    ],
)
def test_a_class_map_made_by_hand_has_its_kind(want, pred, truth):
    found = class_measures(pred, truth, 1)
    assert class_kind(found) == want
    assert sum(found[k] for k in ("background", "others", "lost")) == pytest.approx(0 if found["J"] == 1 else 1)


@pytest.mark.parametrize("seed", range(20))
def test_every_class_map_has_one_kind_and_void_does_not_count(seed):
    rng = np.random.default_rng(seed)
    pred = torch.from_numpy(rng.integers(0, 3, (9, 11)).astype(np.uint8))
    truth = torch.from_numpy(rng.choice([0, 1, 2, VOID], (9, 11)).astype(np.uint8))
    found = class_measures(pred, truth, 1)
    assert found == class_measures(torch.where(truth == VOID, 2 - pred, pred), truth, 1)
    assert class_kind(found) in CLASS_KINDS


def test_a_class_table_names_the_clusters_and_leaves_out_what_is_nowhere():
    truths = [labels((1, *OBJECT), (2, 10, 30, 38, 58)), labels((1, *OBJECT))]
    images = [torch.zeros(3, 40, 60, dtype=torch.uint8) for _ in truths]
    images[0][0, 10:30, 38:58] = 255  # the second class is red
    photos = [
        Photo("made", f"p{i}", ("cat", "dog"), lambda x=x: x, lambda t=t: t)
        for i, (x, t) in enumerate(zip(images, truths, strict=True))
    ]
    group = Group("made", "cat+dog", tuple(photos), ("cat", "dog"))
    swapped = [torch.tensor([0, 2, 1], dtype=torch.uint8)[t.long()] for t in truths]
    maps = named(group, swapped, 3)
    assert all(torch.equal(m, t) for m, t in zip(maps, truths, strict=True))
    found = class_table(group, maps)
    assert found["class"].tolist() == ["cat", "dog", "cat"] and (found.J == 1).all() and (found.kind == "good").all()
    red = np.linalg.norm(cielab(np.array([255, 0, 0])) - cielab(np.array([0, 0, 0])))
    np.testing.assert_allclose(found.alike, [red, red, np.nan])
    moved = sweep(found, CLASS_GRID, ClassThresholds(), class_kind, CLASS_KINDS)
    assert (moved.good == 1).all() and by_kind(found, CLASS_KINDS).photographs["good"] == 3


def test_a_higher_threshold_of_cut_makes_incomplete_objects_lost_ones():
    found = class_measures(labels((1, 10, 14, 0, 4)), labels((1, 10, 30, 0, 20)), 1)
    assert found["cut"] == 1
    assert class_kind(found, replace(ClassThresholds(), cut=1.5)) == "lost"


# Figures --------------------------------------------------------------------------------------------------------------


def test_stacks_have_a_bar_a_row_and_name_every_kind_once(scored):
    rows = scored[2]
    fig = plots.stacks({"system": shares(rows)}, "Kinds", "share of the masks (0 to 1)")
    (ax,) = fig.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["one", "two"]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == list(KINDS)
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(2)
    assert ax.get_xlabel() == "share of the masks (0 to 1)" and ax.get_ylabel() == "system"
    with pytest.raises(ValueError, match="sum to 1"):
        plots.stacks({"system": 2 * shares(rows)}, "Kinds", "share")


def test_intervals_show_low_and_high_and_hollow_dots_where_there_are_none():
    rows = table(area=np.random.default_rng(1).random(80))
    fig = plots.intervals({"area (share)": binned(rows, "area"), "group": binned(rows, "group")}, "J by what is shown")
    left, right = fig.axes
    assert left.get_xlabel() == "area (share)" and left.get_ylabel() == "Jaccard index J (0 to 1)"
    lines = [p.vertices[:, 1].tolist() for p in left.collections[0].get_paths()]
    np.testing.assert_allclose(lines, binned(rows, "area")[["low", "high"]])
    assert not right.collections[0].get_paths() and len(right.lines[-1].get_xdata()) == 8
