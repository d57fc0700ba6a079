"""The stated test against plain loops and made worlds, and the tables that it is read from."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from coseglib.claims.papers_claims import BY_SHARE, CLAIMS, MEAN, MIN, SEEN, UNSEEN, VARIANTS, WHOLE
from coseglib.claims.queue import COLUMNS
from coseglib.claims.verdicts import (
    CONFIRMED,
    CONTRADICTED,
    FEW,
    NOISE,
    by_seed,
    by_share,
    by_variant,
    differences,
    effect,
    false_alarms,
    holm,
    verdicts,
    verdicts_of_the_variant,
)
from coseglib.core.errors import CosegError
from coseglib.figures import show_forest, show_trade_off
from coseglib.models import METHODS


def test_where_seeds_agree_it_is_the_paired_t_test_over_groups_and_the_other_way_round():
    rng = np.random.default_rng(0)
    of_groups, of_seeds = rng.normal(1, 2, 12), rng.normal(1, 2, 5)
    for d, alone in ((np.tile(of_groups, (4, 1)), of_groups), (np.tile(of_seeds[:, None], (1, 9)), of_seeds)):
        for margin in (0.0, 1.5):
            found, scipy = effect(d, margin), stats.ttest_1samp(alone, margin)
            low, high = scipy.confidence_interval(0.95)
            assert found.p == pytest.approx(scipy.pvalue) and found.df == pytest.approx(len(alone) - 1)
            assert (found.low, found.high) == pytest.approx((low, high))


def test_the_standard_error_is_that_of_both_samples_by_plain_loops():
    d = np.array([[1.0, 4.0, 2.0], [3.0, 5.0, 9.0]])
    seeds = [sum(row) / 3 for row in d]
    groups = [sum(d[s][g] for s in range(2)) / 2 for g in range(3)]

    def squared_error(values):
        mean = sum(values) / len(values)
        return sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)

    a, b = squared_error(seeds), squared_error(groups)
    df = (a + b) ** 2 / (a**2 / 1 + b**2 / 2)
    found = effect(d)
    assert found.df == pytest.approx(df)
    assert found.high - found.mean == pytest.approx(math.sqrt(a + b) * stats.t.ppf(0.975, df))


@pytest.mark.parametrize(("of_seed", "of_group", "rest"), [(1, 0, 1), (0, 1, 1), (1, 1, 1), (0, 0, 1)])
def test_its_interval_holds_the_truth_at_least_as_often_as_it_says(of_seed, of_group, rest):
    rng, held = np.random.default_rng(7), 0
    for _ in range(600):
        d = (
            2.0
            + of_seed * rng.normal(size=(3, 1))
            + of_group * rng.normal(size=(1, 15))
            + rest * rng.normal(size=(3, 15))
        )
        found = effect(d)
        held += found.low <= 2.0 <= found.high
    assert held / 600 > 0.93


def test_without_any_spread_nothing_is_left_to_chance():
    assert effect(np.full((3, 4), 2.0)).p == 0 and effect(np.zeros((3, 4))).p == 1
    assert effect(np.full((3, 4), 1.0), margin=1.0).p == 1
    for shape in ((1, 5), (5, 1)):
        assert effect(np.ones(shape)).mean == 1 and math.isnan(effect(np.ones(shape)).p)


def test_masks_counted_one_by_one_see_what_is_not_there_and_the_stated_test_does_not():
    rates = false_alarms(1, 1, 3, worlds=200)
    assert rates["masks"] > 0.4 and rates["groups"] > 0.2 and rates["seeds and groups"] < 0.12
    calm = false_alarms(0, 0, 3, worlds=200)
    assert calm["masks"] < 0.12 and calm["seeds and groups"] < 0.07


def test_holm_by_its_definition():
    p = [0.01, math.nan, 0.04, 0.03, 0.005]
    assert holm(p)[[0, 2, 3, 4]].tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02]) and math.isnan(holm(p)[1])
    assert holm([0.9, 0.8]).tolist() == [1, 1] and holm([]).tolist() == []


def _rows(
    variant: str, means, spread: float = 0.0, where: str = SEEN, how: str = MEAN, seeds: int = 3, groups: int = 8
):
    """Made rows: J of `means` (a number, or one a group) and noise."""
    rng = np.random.default_rng(len(variant))
    j = np.broadcast_to(means, (seeds, groups)) + spread * rng.normal(size=(seeds, groups))
    rows = [
        {"variant": variant, "seed": s, "group": f"g{g}", "J": j[s, g]} for s in range(seeds) for g in range(groups)
    ] + [{"variant": variant, "seed": s, "group": "all", "J": j[s].mean()} for s in range(seeds)]
    about = {"set": where, "how": how, "dataset": "made", "profile": "cpu", "system": VARIANTS[variant].system}
    about |= {"recipe": "r" + variant, "checkpoint": "abcdef0123", "P": 0.9, "steps": 5, "seconds": 2.0}
    return pd.DataFrame(rows).assign(**about).reindex(columns=list(COLUMNS))


def _verdict(claim: str, first: float, second: float, spread: float = 0.02, **more) -> pd.Series:
    arms = CLAIMS[claim]
    table = pd.concat([_rows(arms.first.variant, first, spread, **more), _rows(arms.second[0].variant, second, spread,
                                                                               **more)])  # fmt: skip
    return verdicts(table, [arms]).iloc[0]


def test_the_three_verdicts_on_made_figures():
    better = _verdict("dcnet-sccm", 0.60, 0.50)
    assert better.verdict == CONFIRMED and better.effect == pytest.approx(10, abs=2) and better.seeds == 3
    assert better.words.startswith(f"DCNet +SCCM is {better.effect:.1f} points ({better.low:+.1f} to ")
    assert better.paper == pytest.approx(1) and "outside this interval" in better.words
    assert _verdict("dcnet-sccm", 0.50, 0.60).verdict == CONTRADICTED
    assert _verdict("dcnet-sccm", 0.50, 0.50, 0.05).verdict == NOISE
    assert _verdict("dcnet-sccm", 0.60, 0.50, seeds=2).verdict == FEW
    assert _verdict("dcnet-sccm", 0.60, 0.50, groups=1).verdict == "too few groups"


def test_a_claim_of_no_gain_is_confirmed_below_its_margin_and_contradicted_above():
    assert _verdict("dcnet-three-loops", 0.500, 0.500, 0.001).verdict == CONFIRMED
    assert _verdict("dcnet-three-loops", 0.600, 0.500, 0.001).verdict == CONTRADICTED
    assert _verdict("dcnet-three-loops", 0.505, 0.500, 0.05).verdict == NOISE


def test_pairs_are_of_one_seed_and_group_and_several_seconds_are_their_mean():
    hard = np.linspace(0.1, 0.9, 8)  # groups differ by far more than variants do
    table = pd.concat([_rows("PFCC 11+15+19", hard + 0.03), *(_rows(f"PFCC {k}", hard + d) for k, d in
                                                              ((11, 0.0), (15, 0.01), (19, 0.02)))])  # fmt: skip
    d = differences(table.sample(frac=1, random_state=0), CLAIMS["pfcc-sizes"])
    assert d.shape == (3, 8) and d == pytest.approx(np.full((3, 8), 2.0))
    assert verdicts(table, [CLAIMS["pfcc-sizes"]]).verdict[0] == CONFIRMED
    less = table[~((table.variant == "PFCC 15") & ((table.seed == 2) | (table.group == "g3")))]
    assert differences(less, CLAIMS["pfcc-sizes"]).shape == (2, 7)
    mixed = pd.concat([table, _rows("PFCC 11", hard).assign(recipe="another", seed=7)])
    with pytest.raises(CosegError, match="PFCC 11: rows of 2 recipes"):
        differences(mixed, CLAIMS["pfcc-sizes"])


def test_drawn_scenes_of_the_smoke_profile_are_not_called_by_the_photographs_name():
    claim = next(claim for claim in CLAIMS.values() if claim.where == UNSEEN)
    table = pd.concat([_rows(a.variant, 0.5, 0.02, where=UNSEEN) for a in (claim.first, *claim.second)])
    told = {profile: verdicts(table, [claim], profile).iloc[0] for profile in ("smoke", "cpu")}
    assert told["smoke"]["set"] == "drawn scenes in place of icoseg8" and told["smoke"]["set"] in told["smoke"].words
    assert told["cpu"]["set"] == UNSEEN and "scenes" not in told["cpu"].words
    assert by_seed(_rows("CA", 0.5, where=UNSEEN), "smoke")["set"].tolist() == [told["smoke"]["set"]]


def test_many_claims_at_once_are_corrected_and_what_was_not_measured_is_said():
    table = pd.concat([_rows("DCNet +SCCM", 0.512, 0.02), _rows("DCNet +MCFD", 0.50, 0.02)])
    found = verdicts(table).set_index("claim")
    assert (found.drop("dcnet-sccm").verdict == "not measured").all() and len(found) == len(CLAIMS)
    assert found["p Holm"]["dcnet-sccm"] == found.p["dcnet-sccm"] == effect(differences(table, CLAIMS["dcnet-sccm"])).p
    assert (verdicts(pd.DataFrame(columns=list(COLUMNS))).verdict == "not measured").all()


def test_the_thesis_claims_of_the_variant_are_read_from_the_rows_of_causes():
    j = {("w/o ATT", "crf"): 0.5, ("MA", "crf"): 0.4, ("SA", "crf"): 0.5, ("as chosen", "crf"): 0.6}
    j |= {("as chosen", "argmax"): 0.6, ("random start", "argmax"): 0.1, ("w/o ATT", "argmax"): 0.1}
    wobble = {(seed, group): 0.01 * (seed + 2 * g) for seed in range(3) for g, group in enumerate("abcd")}
    causes = pd.DataFrame(
        {"group": group, "cause": cause, "post": post, "seed": float(seed), "J": mean + (more if cause == "MA" else 0)}
        for (cause, post), mean in j.items()
        for (seed, group), more in wobble.items()
    )
    found = verdicts_of_the_variant(causes).set_index("claim")
    assert list(found.index) == ["thesis-ma", "thesis-sa", "thesis-sa-ma", "thesis-crf"]
    assert found.effect.tolist() == pytest.approx([-6, 0, 10, 0]) and set(found.seeds) == {3}
    assert found.verdict.tolist() == [CONTRADICTED, NOISE, CONFIRMED, NOISE]
    d = 100 * (np.array([[wobble[s, g] for g in "abcd"] for s in range(3)]) - 0.1)
    assert found.p["thesis-ma"] == pytest.approx(effect(d).p) and set(found.groups) == {4}


def test_a_table_by_variant_has_the_paper_s_figure_and_the_spread_over_seeds():
    table = pd.concat([_rows("DCNet +SCCM", 0.5, 0.02), _rows("DCNet K = 1", 0.4, 0.02)])
    rows = by_variant(table, "DCNet").set_index("variant")
    assert list(rows.index) == ["DCNet +SCCM", "DCNet K = 1"]
    whole = table[(table.group == "all") & (table.variant == "DCNet +SCCM")].J
    assert rows.J["DCNet +SCCM"] == pytest.approx(whole.mean()) and rows["sd J"].iloc[0] == pytest.approx(whole.std())
    assert rows["the paper"].tolist() == ["table IV: 0.800; table V: 0.890", ""]
    assert by_variant(table, "SSNM").empty


def test_what_a_seed_does_is_said_of_each_whole_system():
    assert {VARIANTS[name].method for name in WHOLE} == {m for m in METHODS if not METHODS[m].online}
    rows = [
        {"variant": name, "seed": s, "set": where, "how": how, "group": group, "J": j + s / 10, "P": 0.5, "swap": 0.1}
        | {"AUROC": 0.5, "steps": 4, "checkpoint": f"{s}123456789", "recipe": "r"}
        for name, j in (("CA, workbook", 0.6), ("DCNet", 0.5), ("CA", 0.4), ("DCNet K = 1", 0.9))
        for s in range(3)
        for where, how, group in ((SEEN, MEAN, "all"), (SEEN, MIN, "all"), (UNSEEN, MEAN, "cow"))
    ]
    table = by_seed(pd.DataFrame(rows))
    assert table.system.tolist() == ["CA", "DCNet", "CA, workbook"] and table.seeds.tolist() == 3 * [3]
    assert table.J.tolist() == pytest.approx([0.5, 0.6, 0.7]) and table["sd J"].tolist() == pytest.approx(3 * [0.1])
    assert table.swap.tolist() == pytest.approx(3 * [10]) and table.checkpoints[0] == "01234567, 11234567, 21234567"
    assert by_seed(pd.DataFrame(rows)[lambda t: t.variant == "x"]).empty


def test_what_pairs_cost_and_buy_is_a_mean_over_seeds():
    first, second = list(BY_SHARE.values())[:2]
    rows = [
        {"variant": v.name, "seed": s, "set": where, "how": MEAN, "group": group, "J": j + s / 10, "swap": swap}
        | {"AUROC": 0.5, "steps": 4, "checkpoint": "0123456789", "recipe": "r"}
        for v, j, swap in ((first, 0.5, 0.1), (second, 0.4, 0.3))
        for where, s, group in ((SEEN, 0, "all"), (SEEN, 1, "all"), (UNSEEN, 0, "all"), (SEEN, 0, "cow"))
    ]
    rows += [{**row, "how": MIN, "J": 0.1, "swap": math.nan} for row in rows if row["set"] == SEEN]
    table = by_share(pd.DataFrame(rows))
    assert table.share.tolist() == [0.0, 0.1] and table.seeds.tolist() == [2, 2]
    assert table["J seen"].tolist() == pytest.approx([0.55, 0.45]) and table["J unseen"].tolist() == [0.5, 0.4]
    assert table.swap.tolist() == [10, 30] and table["sd J seen"].tolist() == pytest.approx(2 * [0.1 / 2**0.5])
    panels = show_trade_off(table, "made").axes
    assert [ax.get_ylabel() for ax in panels] == [
        "J under protocol common",
        "partner swap (points)",
        "AUROC of refusal",
    ]
    assert panels[1].lines[0].get_ydata().tolist() == [10, 30]
    assert by_share(pd.DataFrame(rows)[lambda t: t.variant == "CA"]).empty


def test_the_forest_shows_every_claim_that_was_measured_and_its_verdict():
    table = pd.concat([_rows("SSNM", 0.5, 0.02), _rows("SSNM -f_sem", 0.4, 0.02), _rows("SSNM -both", 0.4, 0.02)])
    found = verdicts(table)
    fig = show_forest(found, "Claims")
    (ax,) = fig.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["ssnm-sem", "ssnm-both", "ssnm-spa-alone"]
    words = [t.get_text() for t in ax.texts]
    assert all(found.set_index("claim").verdict[c] in words for c in ("ssnm-sem", "ssnm-both", "ssnm-spa-alone"))
    assert {"+33", "+44"} <= set(words)  # far outside: told at the edge
    with pytest.raises(ValueError, match="no effects"):
        show_forest(verdicts(pd.DataFrame(columns=list(COLUMNS))), "none")


def test_claims_about_trainings_that_do_not_stand_are_withdrawn_with_the_reason():
    table = pd.concat([_rows("CA", 0.5), _rows("CSA", 0.6), _rows("FCA", 0.9)], ignore_index=True)
    old = table.assign(code="")
    found = verdicts(old).set_index("claim")
    assert found.verdict[["fca-seen", "csa-seen"]].tolist() == ["withdrawn", found.verdict["csa-seen"]]
    assert found.verdict["csa-seen"] != "withdrawn" and math.isnan(found.effect["fca-seen"])
    assert "withdrawn, learned by another rule than eq. (5)" in found.words["fca-seen"]
    assert set(by_seed(old).system) == {"CA", "CSA"} and "FCA" not in set(by_variant(old, "CA, FCA, CSA").variant)
    anew = table.assign(code=["" if v != "FCA" else "0123" for v in table.variant])
    assert verdicts(anew).set_index("claim").verdict["fca-seen"] != "withdrawn" and "FCA" in set(by_seed(anew).system)
