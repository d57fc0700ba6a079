"""The papers' claims, and the trainings that they need."""

import math

import pytest

from coseglib.claims.papers_claims import (
    BY_SHARE,
    CLAIMS,
    IN_WORKBOOK,
    MEAN,
    MIN,
    SEEN,
    SHARES,
    STRANGER,
    TWO,
    UNSEEN,
    VARIANTS,
    WHOLE,
    WORKBOOK,
    asked_besides,
    chosen_claims,
    config_of,
    plan,
    recipe,
)
from coseglib.claims.verdicts import paper_points
from coseglib.core.errors import CosegError
from coseglib.models import METHODS, build_model
from coseglib.training.configuration import load_profile

PROFILES = ("cpu", "paper")


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
            plain = {repr(c.replaced(method="ca", options={})) for c in configs}
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
    asked = plan(chosen_claims([SHARES]), 2, asked_besides([SHARES]))
    assert [run.variant for run in asked] == 2 * list(BY_SHARE.values())
    assert asked_besides() == [*BY_SHARE.values(), *IN_WORKBOOK.values()] and not asked_besides(["ssnm"])
    for share, variant in BY_SHARE.items():
        config = config_of(variant, "cpu")
        plain, hard, empty = config.shares
        assert sum(config.shares) == pytest.approx(1) and hard + empty == pytest.approx(share) and plain == 1 - share
        assert (config.variant, config.steps) == ("workbook", config_of(VARIANTS["CA"], "cpu").steps)
    assert len({recipe(config_of(v, "cpu")) for v in BY_SHARE.values()}) == len(BY_SHARE)


def test_the_workbook_s_variants_have_its_profile_and_one_budget():
    assert asked_besides([WORKBOOK]) == list(IN_WORKBOOK.values()) and not chosen_claims([WORKBOOK])
    assert [v.method for v in IN_WORKBOOK.values()] == [VARIANTS[name].method for name in WHOLE]
    budget = {"steps", "input_size", "cache_side", "warmup", "average", "seed"}
    for variant in IN_WORKBOOK.values():
        profile, short, whole = load_profile("workbook", variant.method), *(config_of(variant, p, 1) for p in PROFILES)
        assert {k for k, v in short.fields().items() if v != profile.fields()[k]} == budget
        assert whole == profile.replaced(seed=1) and (short.steps, short.input_size) == (200, 160)
        tiny = config_of(variant, "smoke")
        assert (tiny.variant, tiny.data) == ("workbook", "synthetic") and tiny.steps <= 4


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
