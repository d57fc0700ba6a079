"""The papers' claims as a queue of trainings, and the test that decides them."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from coseglib import ablations, cli, plots
from coseglib.ablations import (
    BY_SHARE,
    CLAIMS,
    COLUMNS,
    CONFIRMED,
    CONTRADICTED,
    FEW,
    MEAN,
    MIN,
    NOISE,
    SEEN,
    SHARES,
    STRANGER,
    TABLE,
    TWO,
    UNSEEN,
    VARIANTS,
    WHOLE,
    ablate,
    asks_for_shares,
    by_seed,
    by_share,
    by_variant,
    chosen_claims,
    config_of,
    differences,
    effect,
    few,
    holm,
    paper_points,
    plan,
    read,
    recipe,
    remaining,
    scored,
    several_classes,
    verdicts,
    with_stranger,
)
from coseglib.data.record import Group, Photo
from coseglib.data.synthetic import load_synthetic
from coseglib.errors import CosegError
from coseglib.evaluation import answers, evaluate, swap_questions
from coseglib.inference import masks_from_logits
from coseglib.metrics import jaccard
from coseglib.models import METHODS, build_model


def quiet(text: str) -> None:
    pass


# The registry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, v in VARIANTS.items() if not METHODS[v.method].online])
def test_every_variant_is_a_model_and_no_two_are_the_same(name):
    config = config_of(VARIANTS[name], "smoke")
    built = build_model(config.method, config.backbone, config.variant, 64, None, options=config.options)
    assert built.options == config.options
    alike = [n for n, v in VARIANTS.items() if recipe(config_of(v, "cpu")) == recipe(config_of(VARIANTS[name], "cpu"))]
    assert alike == [name]


def test_variants_of_one_system_differ_in_nothing_but_their_method_or_options():
    for profile in ("cpu", "paper"):
        for system in ("SSNM", "PFCC", "DCNet", "CA, FCA, CSA"):
            configs = [config_of(v, profile) for v in VARIANTS.values() if v.system == system]
            plain = {repr(dataclasses.replace(c, method="ca", options={})) for c in configs}
            assert len(plain) == 1, (system, profile)


def test_kernels_keep_their_share_of_the_map():
    sets = {name: config_of(VARIANTS[f"PFCC {name}"], "cpu").options["kernels"] for name in ("11+15+19", "11+15", "19")}
    assert sets == {"11+15+19": (5, 7, 9), "11+15": (5, 7), "19": (9,)}  # of 14² maps
    assert config_of(VARIANTS["PFCC 11+15+19"], "paper").options["kernels"] == (11, 15, 19)
    assert config_of(VARIANTS["PFCC no correlation"], "cpu").options["kernels"] == ()


def test_a_recipe_is_all_but_the_seed():
    assert recipe(config_of(VARIANTS["CA"], "cpu", 0)) == recipe(config_of(VARIANTS["CA"], "cpu", 5))
    assert recipe(config_of(VARIANTS["CA"], "cpu")) != recipe(config_of(VARIANTS["CA"], "smoke"))
    assert recipe(config_of(VARIANTS["SA"], "cpu")) != recipe(config_of(VARIANTS["MA"], "cpu"))


def test_what_stands_in_several_claims_is_trained_once_and_seed_0_comes_first():
    runs = plan(CLAIMS.values(), 3)
    assert len(runs) == len(set(runs)) == 3 * len(VARIANTS)
    assert [r.seed for r in runs] == sorted(r.seed for r in runs)
    shared = plan([CLAIMS["dcnet-dccm"], CLAIMS["dcnet-dice"], CLAIMS["dcnet-two-loops"]], 2)
    assert [str(r) for r in shared[:4]] == [
        f"{n}, seed 0" for n in ("DCNet", "DCNet +SCCM", "DCNet cross-entropy", "DCNet K = 1")
    ]
    assert len(shared) == 8


def test_the_shares_of_pairs_are_trained_where_they_are_asked_for():
    asked = plan(chosen_claims([SHARES]), 2, asks_for_shares([SHARES]))
    assert [run.variant for run in asked] == 2 * list(BY_SHARE.values())
    assert asks_for_shares() and not asks_for_shares(["ssnm"])
    for share, variant in BY_SHARE.items():
        config = config_of(variant, "cpu")
        plain, hard, empty = config.shares
        assert sum(config.shares) == pytest.approx(1) and hard + empty == pytest.approx(share) and plain == 1 - share
        assert (config.variant, config.steps) == ("workbook", config_of(VARIANTS["CA"], "cpu").steps)
    assert len({recipe(config_of(v, "cpu")) for v in BY_SHARE.values()}) == len(BY_SHARE)


def test_what_pairs_cost_and_buy_is_a_mean_over_seeds():
    first, second = list(BY_SHARE.values())[:2]
    rows = [
        {"variant": v.name, "seed": s, "set": where, "how": MEAN, "group": group, "J": j + s / 10, "swap": swap}
        | {"AUROC": 0.5, "steps": 4, "checkpoint": "0123456789"}
        for v, j, swap in ((first, 0.5, 0.1), (second, 0.4, 0.3))
        for where, s, group in ((SEEN, 0, "all"), (SEEN, 1, "all"), (UNSEEN, 0, "all"), (SEEN, 0, "cow"))
    ]
    table = by_share(pd.DataFrame(rows))
    assert table.share.tolist() == [0.0, 0.1] and table.seeds.tolist() == [2, 2]
    assert table["J seen"].tolist() == pytest.approx([0.55, 0.45]) and table["J unseen"].tolist() == [0.5, 0.4]
    assert table.swap.tolist() == [10, 30] and table["sd J seen"].tolist() == pytest.approx(2 * [0.1 / 2**0.5])
    panels = plots.trade_off(table, "made").axes
    assert [ax.get_ylabel() for ax in panels] == [
        "J under protocol common",
        "partner swap (points)",
        "AUROC of refusal",
    ]
    assert panels[1].lines[0].get_ydata().tolist() == [10, 30]
    assert by_share(pd.DataFrame(rows)[lambda t: t.variant == "CA"]).empty


def test_what_a_seed_does_is_said_of_each_whole_system():
    assert {VARIANTS[name].method for name in WHOLE} == {m for m in METHODS if not METHODS[m].online}
    rows = [
        {"variant": name, "seed": s, "set": where, "how": how, "group": group, "J": j + s / 10, "P": 0.5, "swap": 0.1}
        | {"AUROC": 0.5, "steps": 4, "checkpoint": f"{s}123456789", "recipe": "r"}
        for name, j in (("DCNet", 0.5), ("CA", 0.4), ("DCNet K = 1", 0.9))
        for s in range(3)
        for where, how, group in ((SEEN, MEAN, "all"), (SEEN, MIN, "all"), (UNSEEN, MEAN, "cow"))
    ]
    table = by_seed(pd.DataFrame(rows))
    assert table.system.tolist() == ["CA", "DCNet"] and table.seeds.tolist() == [3, 3]
    assert table.J.tolist() == pytest.approx([0.5, 0.6]) and table["sd J"].tolist() == pytest.approx([0.1, 0.1])
    assert table.swap.tolist() == pytest.approx([10, 10]) and table.checkpoints[0] == "01234567, 11234567, 21234567"
    assert by_seed(pd.DataFrame(rows)[lambda t: t.variant == "x"]).empty


def test_claims_are_chosen_by_name_by_system_and_by_method():
    assert [c.name for c in chosen_claims(["ssnm-spa"])] == ["ssnm-spa"]
    assert {c.system for c in chosen_claims(["dcnet"])} == {"DCNet"}
    assert chosen_claims(["PFCC"]) == chosen_claims(["pfcc"]) and len(chosen_claims()) == len(CLAIMS)
    with pytest.raises(CosegError, match="best-of-all: no such claim or system"):
        chosen_claims(["best-of-all"])


def test_every_claim_s_arms_are_asked_and_the_paper_s_figures_are_those_of_the_table():
    for claim in CLAIMS.values():
        context = VARIANTS[claim.first.variant].method in ("ca", "fca", "csa")
        known = {SEEN: (MEAN, MIN), STRANGER: (MEAN, MIN)} if context else {SEEN: (MEAN,)}
        known |= {UNSEEN: (MEAN,), TWO: ("argmax", "crf")}
        for arm in (claim.first, *claim.second):
            assert arm.how in known[claim.where], claim.name
            assert VARIANTS[arm.variant].system == claim.system
    points = {name: paper_points(claim) for name, claim in CLAIMS.items()}
    assert points["ssnm-sem"] == pytest.approx(33) and points["dcnet-dccm"] == pytest.approx(1)
    assert points["csa-seen"] == pytest.approx(1.21) and points["thesis-sa-ma"] == pytest.approx(15.14)
    assert points["fca-unseen"] == pytest.approx(86.0 - (85.2 + 84.0) / 2) and math.isnan(points["pfcc-l2"])


# Photographs ----------------------------------------------------------------------------------------------------------


def test_few_photographs_keep_those_of_two_classes_together():
    groups = load_synthetic(groups=4, photos=12, size=16)
    cut = few(groups, 6)
    assert [len(g) for g in cut] == [6] * 4 and few(groups, 0) == groups
    assert len(swap_questions(cut)) == 4 * 3
    for g in cut:
        assert [p.name for p in g.photos] == [p.name for p in next(o for o in groups if o.name == g.name).photos
                                              if p in g.photos]  # fmt: skip
    places = [p.name for g in groups for p in g.photos]
    kept = [p.name for g in cut for p in g.photos]
    assert all(kept.count(name) == places.count(name) for name in kept)


def _plain(name: str, colour: int) -> Photo:
    labels = torch.zeros(32, 32, dtype=torch.uint8)
    labels[8:20, 8:20] = 1
    image = torch.full((3, 32, 32), colour, dtype=torch.uint8)
    return Photo("made", name, ("thing",), lambda: image, lambda: labels)


def test_the_stranger_is_a_partner_of_every_photograph_and_lacks_the_class(tiny):
    groups = load_synthetic(groups=3, photos=4, size=64)
    model = tiny("ca")
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    for how in (MEAN, MIN):
        rows = with_stranger(model, groups, how)
        assert len(rows) == 12
        for g, group in enumerate(groups):
            names = {p.name for p in group.photos}
            away = groups[(g + 1) % 3].photos + groups[(g + 2) % 3].photos
            stranger = next(p for p in away if p.name not in names and not (p.mask(group.targets) == 1).any())
            photos = [*group.photos, stranger]
            found = [
                jaccard(masks_from_logits(logits, size), group.mask(i))
                for i, (logits, size) in enumerate(answers(model, photos, [(i, range(5)) for i in range(4)], how))
            ]
            assert rows[rows.group == group.name].J.tolist() == pytest.approx(found)
    everywhere = Group("made", "thing", (_plain("a", 10), _plain("b", 90)), ("thing",))
    with pytest.raises(CosegError, match="no photograph lacks"):
        with_stranger(model, [everywhere, dataclasses.replace(everywhere, name="again")])


def test_what_is_asked_of_a_model_stands_in_tidy_rows(tiny):
    sets = {SEEN: load_synthetic(groups=3, photos=4, size=64), UNSEEN: load_synthetic(groups=2, photos=3, size=64)}
    model = tiny("ca")
    rows = scored(model, sets)
    assert rows.groupby(["set", "how"]).size().to_dict() == {
        (SEEN, MEAN): 4,
        (SEEN, MIN): 4,
        (UNSEEN, MEAN): 3,
        (STRANGER, MEAN): 4,
        (STRANGER, MIN): 4,
    }
    alone = evaluate(model, sets[SEEN], how=MIN).groupby("group", sort=False).J.mean()
    ours = rows[(rows["set"] == SEEN) & (rows.how == MIN) & (rows.group != "all")]
    assert ours.J.tolist() == pytest.approx(alone.tolist())
    assert rows.swap.notna().sum() == rows.AUROC.notna().sum() == 1
    assert set(scored(tiny("dcnet"), sets).how) == {MEAN}


# The queue ------------------------------------------------------------------------------------------------------------


def test_the_queue_runs_each_once_names_what_fails_and_goes_on(tmp_path, monkeypatch):
    ran: list[str] = []
    train, broken = ablations.train, {"DCNet"}

    def spy(config, folder, **more):
        name = "DCNet" if not config.options else f"DCNet {config.options}"
        ran.append(name)
        if name in broken:
            raise CosegError("the loss is not finite")
        return train(config, folder, **more)

    monkeypatch.setattr(ablations, "train", spy)
    said: list[str] = []
    claims = ("dcnet-dice", "dcnet-two-loops")
    first = ablate(tmp_path, "smoke", claims, 1, said.append)
    assert list(first.failed) == ["DCNet, seed 0"] and "the loss is not finite" in said[-1] and len(ran) == 3
    assert set(first.table.variant) == {"DCNet cross-entropy", "DCNet K = 1"}
    assert "the loss is not finite" in next(tmp_path.glob("dcnet-*/error.txt")).read_text()
    broken.clear()
    second = ablate(tmp_path, "smoke", claims, 1, said.append)
    assert ran[3:] == ["DCNet"] and not second.failed
    third = ablate(tmp_path, "smoke", claims, 1, said.append)
    assert len(ran) == 4 and said[-1].startswith("3 trainings, 3 done before, 0 to run")
    pd.testing.assert_frame_equal(third.table, read(tmp_path / TABLE))
    table = third.table
    assert list(table.columns) == list(COLUMNS) and len(table) == 3 * (4 + 4)
    assert set(table.checkpoint) == {ablations.sha256(f) for f in tmp_path.glob("*/model.safetensors")}
    assert not list(tmp_path.glob("*/state.safetensors"))


def test_a_killed_queue_goes_on_with_the_training_it_was_at(tmp_path, monkeypatch):
    train, calls = ablations.train, []

    def killed(config, folder, **more):
        calls.append(folder.name)
        if len(calls) == 2:
            train(dataclasses.replace(config), folder, **more)
            raise KeyboardInterrupt
        return train(config, folder, **more)

    monkeypatch.setattr(ablations, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet)
    assert len(read(tmp_path / TABLE)) == 8 and len(list(tmp_path.glob("*/state.safetensors"))) == 1
    monkeypatch.setattr(ablations, "train", train)
    assert len(ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet).table) == 16
    assert len(list(tmp_path.glob("dcnet-*"))) == 2


def test_two_queues_do_not_share_a_folder_and_foreign_tables_are_refused(tmp_path):
    with ablations._alone(tmp_path), pytest.raises(CosegError, match="another queue is at work"):
        ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet)
    (tmp_path / TABLE).write_text("a,b\n1,2\n")
    with pytest.raises(CosegError, match="not a table of `coseg ablate`"):
        ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet)
    with pytest.raises(CosegError, match="huge: no such profile"):
        ablate(tmp_path / "new", "huge", say=quiet)
    assert read(tmp_path / "none.csv").empty


def test_the_multi_class_rows_are_those_of_its_own_table(tmp_path, monkeypatch):
    groups = [dataclasses.replace(g, photos=g.photos[:2]) for g in several_classes("smoke")]
    monkeypatch.setattr(ablations, "several_classes", lambda profile, root=None: groups)
    table = ablate(tmp_path, "smoke", ["thesis-crf"], 1, quiet).table
    own = pd.read_csv(next(tmp_path.glob("multiclass-*/groups.csv")))
    for how in ("argmax", "crf"):
        ours, theirs = table[table.how == how], own[own.system == f"SA+MA, {how}"]
        assert ours.group.tolist() == [*(g.name for g in groups), "all"]
        assert ours.J.tolist() == pytest.approx(theirs.J.tolist(), abs=1e-6)
    assert set(table["set"]) == {TWO} and set(table.checkpoint) == {""}


def test_the_time_to_come_is_each_system_s_own_or_the_mean_of_all():
    runs = plan([CLAIMS["ssnm-spa"], CLAIMS["dcnet-dice"]], 1)
    assert remaining(runs, {"SSNM": [2.0, 4.0]}) == 4 * 3
    assert remaining(runs, {"SSNM": [2.0], "DCNet": [10.0, 20.0]}) == 2 * 2 + 2 * 15
    assert remaining(runs, {}) == 0


# The test -------------------------------------------------------------------------------------------------------------


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


def test_many_claims_at_once_are_corrected_and_what_was_not_measured_is_said():
    table = pd.concat([_rows("DCNet +SCCM", 0.512, 0.02), _rows("DCNet +MCFD", 0.50, 0.02)])
    found = verdicts(table).set_index("claim")
    assert (found.drop("dcnet-sccm").verdict == "not measured").all() and len(found) == len(CLAIMS)
    assert found["p Holm"]["dcnet-sccm"] == found.p["dcnet-sccm"] == effect(differences(table, CLAIMS["dcnet-sccm"])).p
    assert (verdicts(pd.DataFrame(columns=list(COLUMNS))).verdict == "not measured").all()


def test_a_table_by_variant_has_the_paper_s_figure_and_the_spread_over_seeds():
    table = pd.concat([_rows("DCNet +SCCM", 0.5, 0.02), _rows("DCNet K = 1", 0.4, 0.02)])
    rows = by_variant(table, "DCNet").set_index("variant")
    assert list(rows.index) == ["DCNet +SCCM", "DCNet K = 1"]
    whole = table[(table.group == "all") & (table.variant == "DCNet +SCCM")].J
    assert rows.J["DCNet +SCCM"] == pytest.approx(whole.mean()) and rows["sd J"].iloc[0] == pytest.approx(whole.std())
    assert rows["the paper"].tolist() == ["table IV: 0.800; table V: 0.890", ""]
    assert by_variant(table, "SSNM").empty


def test_the_forest_shows_every_claim_that_was_measured_and_its_verdict():
    table = pd.concat([_rows("SSNM", 0.5, 0.02), _rows("SSNM -f_sem", 0.4, 0.02), _rows("SSNM -both", 0.4, 0.02)])
    found = verdicts(table)
    fig = plots.forest(found, "Claims")
    (ax,) = fig.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["ssnm-sem", "ssnm-both", "ssnm-spa-alone"]
    words = [t.get_text() for t in ax.texts]
    assert all(found.set_index("claim").verdict[c] in words for c in ("ssnm-sem", "ssnm-both", "ssnm-spa-alone"))
    assert {"+33", "+44"} <= set(words)  # far outside: told at the edge
    with pytest.raises(ValueError, match="no effects"):
        plots.forest(verdicts(pd.DataFrame(columns=list(COLUMNS))), "none")


# What the notebook and the command line ask ---------------------------------------------------------------------------


def test_the_notebook_trains_what_is_missing_or_reads_what_was_kept(tmp_path):
    kept, queue = tmp_path / "kept.csv", tmp_path / "queue"
    with pytest.raises(CosegError, match=r"kept\.csv: no rows; run coseg ablate --profile smoke"):
        ablations.results("smoke", kept, None)
    table = ablations.results("smoke", kept, queue, ["dcnet-dice"], 1, quiet)
    assert set(table.variant) == {"DCNet", "DCNet cross-entropy"} and not list(queue.glob("*/model.safetensors"))
    pd.testing.assert_frame_equal(ablations.results("smoke", kept), table)
    with pytest.raises(CosegError, match="no rows"):
        ablations.results("cpu", kept)
    plan = ablations.planned(chosen_claims(["dcnet"]), "smoke", 2, table).set_index("system")
    assert plan.trainings["DCNet"] == plan.trainings["all"] == 14 and plan.done["DCNet"] == 2
    assert plan.minutes["DCNet"] == pytest.approx(table.drop_duplicates("variant").seconds.mean() * 14 / 60)
    assert ablations.planned(chosen_claims(["thesis-ma"]), "smoke", 1).minutes.isna().iloc[0]


def test_masks_counted_one_by_one_see_what_is_not_there_and_the_stated_test_does_not():
    rates = ablations.false_alarms(1, 1, 3, worlds=200)
    assert rates["masks"] > 0.4 and rates["groups"] > 0.2 and rates["seeds and groups"] < 0.12
    calm = ablations.false_alarms(0, 0, 3, worlds=200)
    assert calm["masks"] < 0.12 and calm["seeds and groups"] < 0.07


@pytest.mark.parametrize("failed", [{}, {"CA, seed 0": "broken"}])
def test_the_command_passes_its_options_on_and_says_by_its_exit_code_that_a_training_failed(monkeypatch, failed):
    asked = []

    def spy(*given):
        asked.extend(given)
        return ablations.Outcome(pd.DataFrame(), failed)

    monkeypatch.setattr(ablations, "ablate", spy)
    assert cli.main(["ablate", "-o", "runs/x", "--profile", "smoke", "--only", "CA", "--seeds", "2"]) == bool(failed)
    assert [str(asked[0]), *asked[1:4]] == ["runs/x", "smoke", ["CA"], 2]
