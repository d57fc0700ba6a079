"""The table of failures is the protocol's, and its tables of kinds sum up."""

import numpy as np
import pytest
import torch
from tiny_models import TinyContext, TinyPartner

from coseglib.analysis.failures import (
    FAILURE_KINDS,
    THRESHOLD_GRID,
    PackedMasks,
    Thresholds,
    by_kind,
    disagreement,
    failure_kind,
    failure_table,
    kind_shares,
    mask_measures,
    sweep_thresholds,
)
from coseglib.analysis.photographs import Truth
from coseglib.core.errors import CosegError
from coseglib.data.synthetic import load_synthetic
from coseglib.scoring.rows import evaluate


@pytest.fixture(scope="module")
def scored():
    groups = load_synthetic(groups=3, photos=4, size=32)
    models = {"one": TinyContext(), "two": TinyPartner()}
    return groups, models, *failure_table(models, groups, {"one": {"synthetic/star"}})


def test_the_table_has_the_figures_of_the_common_protocol_and_its_own_masks(scored):
    groups, models, rows, masks = scored
    assert len(rows) == len(masks) == 24 and set(rows.kind) <= set(FAILURE_KINDS)
    for name, model in models.items():
        own = rows[rows.system == name]
        expected = evaluate(model, groups, "common")
        assert own.J.tolist() == expected.J.tolist() and own.name.tolist() == expected.name.tolist()
        assert own.seen.tolist() == [name == "one" and g.name == "star" for g in groups for _ in g.photos]
    truths = {(g.name, p.name): Truth(g.mask(i)) for g in groups for i, p in enumerate(g.photos)}
    for row in rows.to_dict("records"):
        mask = masks[row["system"], row["dataset"], row["group"], row["name"]]
        assert mask_measures(mask, truths[row["group"], row["name"]])["J"] == row["J"] and mask.dtype == torch.uint8
        assert failure_kind(row) == row["kind"]


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
    kept, mask = PackedMasks(), (torch.rand(13, 7) < 0.5).to(torch.uint8)
    kept["a", "b"] = mask
    assert torch.equal(kept["a", "b"], mask) and len(kept) == 1


def test_shares_of_kinds_sum_to_1_and_what_is_lost_is_shared_out(scored):
    rows = scored[2]
    table = by_kind(rows)
    assert list(table.index) == list(FAILURE_KINDS) and table.photographs.sum() == len(rows)
    assert table.share.sum() == pytest.approx(1) and table["share of lost J"].sum() == pytest.approx(1)
    by_system = kind_shares(rows)
    assert list(by_system.index) == ["one", "two"] and np.allclose(by_system.sum(axis=1), 1)


def test_a_sweep_moves_one_threshold_at_a_time(scored):
    rows = scored[2]
    found = sweep_thresholds(rows)
    assert len(found) == sum(map(len, THRESHOLD_GRID.values())) and np.allclose(
        found[list(FAILURE_KINDS)].sum(axis=1), 1
    )
    good = found[found.threshold == "good"].set_index("value").good
    assert good.is_monotonic_decreasing and good[0.7] == (rows.J >= 0.7).mean()
    for name, values in THRESHOLD_GRID.items():
        assert getattr(Thresholds(), name) in values
        usual = found[(found.threshold == name) & (found.value == getattr(Thresholds(), name))].iloc[0]
        assert {k: usual[k] for k in FAILURE_KINDS} == pytest.approx(by_kind(rows).share.to_dict())
