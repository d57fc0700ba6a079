"""Does a part do what its paper says? The stated test of the claims, and the tables that it is read from.

The test. Two variants differ by d(s, g) = J of the first − J of the second, s a seed, g a group of photographs: J as
under protocol `common`, mean over the group's photographs; the same seeds, groups and photographs on both sides. A
claim about systems is to hold for other trainings and for other photographs, so both are samples. Photographs of a
group are alike, hence groups are counted, not photographs. With S seeds and G groups

    effect  mean of d                    se² = var_s(mean over g of d) / S + var_g(mean over s of d) / G

and the effect over se is compared with Student's t, its degrees of freedom by Welch and Satterthwaite. This is the
min F′ of Clark (1973), made for subjects × words. What is neither the seed's nor the group's own counts in both terms,
so that the interval is rather too wide than too narrow (`false_alarms`). Where seeds agree exactly it is the paired
t-test over groups, where groups do that over seeds. Several claims are tested at once: a verdict needs p < .05 after
Holm's correction over all that were measured. Intervals are 95 % each for itself: one may miss 0 where the verdict
still is "within noise".

    confirmed      the effect lies where the paper says, significantly
    contradicted   it lies on the other side, significantly
    within noise   neither: at this budget no difference of that kind can be told from chance

Where this differs from the papers: small backbone, small images, minutes of training, validation photographs. That a
claim does not show here does not say that it is wrong there; that it is contradicted says that it does not hold at
every budget. Figures of several budgets are never mixed: a table is of one profile.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from coseglib.claims import papers_claims as papers
from coseglib.claims.papers_claims import Arm, Claim
from coseglib.core.errors import CosegError
from coseglib.data.reported import reported
from coseglib.evaluation.causes import CHOSEN
from coseglib.evaluation.tables import ABLATIONS
from coseglib.models import METHODS

LEVEL = 0.05
POINTS = 100  # J and swap are shares; effects are told in points, hundredths
CONFIRMED, CONTRADICTED, NOISE = "confirmed", "contradicted", "within noise"
FEW = "too few seeds"
WITHDRAWN = "withdrawn"
# Methods whose trainings tell nothing of the paper's system where they do not say by which code they ran, and why.
MENDED = {"fca": "learned by another rule than eq. (5); `coseg ablate --only fca` trains anew"}


class Effect(NamedTuple):
    """A mean difference over seeds and groups, with its 95 % interval, p (two-sided) and degrees of freedom.

    NaN where it cannot be known: of one seed or one group there is no spread.
    """

    mean: float
    low: float
    high: float
    p: float
    df: float


def effect(differences: np.ndarray, margin: float = 0.0) -> Effect:
    """The stated test (head of this file) of differences (S, G) against `margin`, all in one unit.

    Where all differences are one number there is no spread: the interval is that number, p is 1 or 0.
    """
    d = np.asarray(differences, float)
    seeds, groups = d.shape
    mean = float(d.mean())
    if seeds < 2 or groups < 2:
        return Effect(mean, *(4 * (math.nan,)))
    terms = d.mean(axis=1).var(ddof=1) / seeds, d.mean(axis=0).var(ddof=1) / groups
    variance = sum(terms)
    if variance < 1e-24:  # what rounding leaves of none
        return Effect(mean, mean, mean, float(abs(mean - margin) < 1e-9), math.inf)
    df = variance**2 / (terms[0] ** 2 / (seeds - 1) + terms[1] ** 2 / (groups - 1))
    se = math.sqrt(variance)
    half = se * stats.t.ppf(1 - LEVEL / 2, df)
    return Effect(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean - margin) / se, df)), float(df))


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's p of several tests, in their order; NaN stays NaN and counts for none."""
    p = np.asarray(p, float)
    adjusted, known = np.full(p.shape, math.nan), ~np.isnan(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted


def false_alarms(seed_sd: float, group_sd: float, photo_sd: float, worlds: int = 1000) -> dict[str, float]:
    """How often three tests see a difference, p < .05, in made worlds where there is none: {test: share of worlds}.

    A world has 3 seeds and 15 groups of 8 photographs. A photograph's difference is normal: a part of its training's, a
    part of its group's, a part of its own; standard deviations in any one unit. Tests: of all masks ("masks"), of
    groups, seeds averaged ("groups"), and `effect`.
    """
    rng, seen = np.random.default_rng(0), {"masks": 0, "groups": 0, "seeds and groups": 0}
    for _ in range(worlds):
        d = seed_sd * rng.normal(size=(3, 1, 1)) + group_sd * rng.normal(size=(1, 15, 1))
        d = d + photo_sd * rng.normal(size=(3, 15, 8))
        by_group = d.mean(axis=2)
        seen["masks"] += stats.ttest_1samp(d.ravel(), 0).pvalue < LEVEL
        seen["groups"] += stats.ttest_1samp(by_group.mean(axis=0), 0).pvalue < LEVEL
        seen["seeds and groups"] += effect(by_group).p < LEVEL
    return {name: float(count) / worlds for name, count in seen.items()}


def _away(table: pd.DataFrame) -> pd.Series:
    """Which rows are withdrawn: of a method that was mended, by code from before tables said by which."""
    methods = table.variant.map({name: v.method for name, v in papers.VARIANTS.items()})
    return methods.isin(MENDED) & (table["code"] == "" if "code" in table else False)


def differences(table: pd.DataFrame, claim: Claim) -> np.ndarray:
    """J of the first less that of the second, in points (S, G), for the seeds and groups that all arms of a claim have.

    table  of one profile. Raises CosegError where one arm was trained by two recipes: their rows are not to be mixed.
    """

    def j(arm: Arm) -> pd.DataFrame:
        rows = table[(table.variant == arm.variant) & (table["set"] == claim.where) & (table.how == arm.how)]
        if rows.recipe.nunique() > 1:
            count = rows.recipe.nunique()
            raise CosegError(f"{arm.variant}: rows of {count} recipes in one table; choose one by `recipe`")
        return rows[rows.group != "all"].pivot(index="seed", columns=["dataset", "group"], values="J")

    first, second = j(claim.first), [j(arm) for arm in claim.second]
    seeds = sorted(set(first.index).intersection(*(side.index for side in second)))
    d = first.loc[seeds] - sum(side.loc[seeds] for side in second) / len(second)
    return POINTS * d.dropna(how="any", axis=1).to_numpy()


def paper_points(claim: Claim) -> float:
    """What the paper prints for a claim's difference in J, in points; NaN where it prints no figure."""
    if claim.gain:
        paper = _paper(claim.first.variant)
        rows = reported(paper=paper, method=claim.gain, metric="J gain", dataset="thesis-two-class")
        return POINTS * float(rows.value.iloc[0])
    number = claim.source.removeprefix("table ")
    if number == claim.source:
        return math.nan
    first, *second = (_printed(arm.variant, number) for arm in (claim.first, *claim.second))
    return POINTS * (first - sum(second) / len(second))


def _paper(variant: str) -> str:
    return METHODS[papers.VARIANTS[variant].method].paper.key


def _printed(variant: str, table: str) -> float:
    """J of a variant in a table of its paper, a share."""
    method = papers.VARIANTS[variant].printed[table]
    (value,) = reported(paper=_paper(variant), table=table, method=method, metric="J", group="all").value
    return float(value)


def verdicts(table: pd.DataFrame, claims: Iterable[Claim] | None = None, profile: str = "") -> pd.DataFrame:
    """A row a claim: what the paper says, what came out, the verdict by the stated test (head of this file).

    table   rows of one profile, of `read_ablations` or `ablate`. claims: None: all. profile: sets are named by it
    Columns claim, system, says, source, set, first, second, paper (points), effect, low, high, p, "p Holm", seeds,
    groups, verdict, words. The verdict may be "not measured", "withdrawn" where trainings do not stand (MENDED), or
    "too few seeds", fewer than SEEDS; Holm's correction counts the others.
    """
    rows = []
    away = set(table.variant[_away(table)]) if len(table) else set()
    for claim in papers.CLAIMS.values() if claims is None else claims:
        why = [MENDED[papers.VARIANTS[a.variant].method] for a in (claim.first, *claim.second) if a.variant in away]
        d = differences(table, claim) if len(table) and not why else np.empty((0, 0))
        found = effect(d, claim.margin) if d.size else Effect(*(5 * (math.nan,)))
        row = {"claim": claim.name, "system": claim.system, "says": claim.says}
        row["set"] = papers.set_in_words(claim.where, profile)
        row |= {"source": f"{_paper(claim.first.variant)}, {claim.source}", "paper": paper_points(claim)}
        row |= {"first": _side((claim.first,), claim), "second": _side(claim.second, claim)}
        row |= {"effect": found.mean, "low": found.low, "high": found.high, "p": found.p}
        row |= dict(zip(("seeds", "groups"), d.shape if d.size else (0, 0), strict=True))
        rows.append(row | {"margin": claim.margin, "more": claim.more, "why": why[0] if why else ""})
    found = pd.DataFrame(rows)
    found["p Holm"] = holm(found.p.where(found.seeds >= papers.SEEDS))
    found["verdict"] = found.apply(_verdict, axis=1)
    found["words"] = found.apply(_words, axis=1)
    columns = ["claim", "system", "says", "source", "set", "first", "second", "paper", "effect", "low", "high", "p"]
    return found[[*columns, "p Holm", "seeds", "groups", "verdict", "words"]]


def verdicts_of_the_variant(causes: pd.DataFrame) -> pd.DataFrame:
    """`verdicts` on the thesis' claims where the workbook's variant learns; causes: rows of `read_causes`.

    Its groups are four whole ones of VOC, of 41 to 80 photographs.
    """
    named = {CHOSEN: "SA+MA"} | {name: name for name in ABLATIONS}
    rows = causes[causes.cause.isin(named)]
    told = {"set": papers.TWO, "dataset": "voc-multiclass", "recipe": "workbook", "code": "said in the table"}
    table = rows.assign(variant=rows.cause.map(named), how=rows.post, **told)
    online = [c for c in papers.CLAIMS.values() if METHODS[papers.VARIANTS[c.first.variant].method].online]
    return verdicts(table, online)


def _side(arms: Sequence[Arm], claim: Claim) -> str:
    """ "CA, min", "MA, crf"; how it answers is said where there is a choice. Several: their mean."""
    told = claim.where in (papers.STRANGER, papers.TWO)
    names = [f"{a.variant}, {a.how}" if told else a.variant for a in arms]
    return names[0] if len(names) == 1 else f"mean of {' and '.join((', '.join(names[:-1]), names[-1]))}"


def _verdict(row: pd.Series) -> str:
    if not row.seeds:
        return WITHDRAWN if row.why else "not measured"
    if row.seeds < papers.SEEDS or math.isnan(row.p):
        return FEW if row.seeds < papers.SEEDS else "too few groups"
    if not row["p Holm"] < LEVEL:
        return NOISE
    return CONFIRMED if (row.effect > row.margin) == row.more else CONTRADICTED


def _words(row: pd.Series) -> str:
    """The verdict as a sentence: "DCNet +SCCM is 1.2 points (-0.4 to 2.8) above DCNet +MCFD; …"."""
    if not row.seeds:
        return f"{row['first']} against {row['second']}: {', '.join(filter(None, (row.verdict, row.why)))}."
    sign = "above" if row.effect >= 0 else "below"
    between = f" ({row.low:+.1f} to {row.high:+.1f})" if row.low == row.low else ""
    text = f"{row['first']} is {abs(row.effect):.1f} points{between} {sign} {row['second']} on {row['set']}"
    text += f"; the paper {'prints no figure' if row.paper != row.paper else f'says {row.paper:+.1f}'}"
    if row.paper == row.paper and row.low == row.low:
        text += f", {'inside' if row.low <= row.paper <= row.high else 'outside'} this interval"
    return f"{text}: {row.verdict}."


# Tables over seeds, of a table of one profile; empty where nothing was measured ---------------------------------------


def _whole(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows of all groups of a set that stand, partner swap in points."""
    own = table[(table["set"] == where) & (table.group == "all") & ~_away(table)]
    return own.assign(swap=POINTS * own.swap)


def _asked(table: pd.DataFrame, variant: str, where: str) -> pd.DataFrame:
    """Of these a variant's, a row a seed: by the mean of attention where there is a choice."""
    own = _whole(table, where)
    return own[(own.variant == variant) & (own.how == papers.MEAN)]


def _mean_sd(figures: Mapping[str, pd.Series]) -> dict[str, float]:
    return {k: v for name, own in figures.items() for k, v in {name: own.mean(), f"sd {name}": own.std()}.items()}


def _made_of(own: pd.DataFrame) -> dict[str, str]:
    """The recipes and checkpoints of rows, the latter by 8 digits each."""
    sums = [c[:8] for c in own.checkpoint if isinstance(c, str) and c]
    return {"recipe": ", ".join(own.recipe.unique()), "checkpoints": ", ".join(sums)}


def by_seed(table: pd.DataFrame, profile: str = "") -> pd.DataFrame:
    """What a seed does: a row a system and set at the queue's small budgets, mean and sd over seeds; `WHOLE` ones as
    their papers have them, then `IN_WORKBOOK`.

    Columns system, set, seeds, J, P, swap (points), AUROC, each with its "sd …"; steps, recipe, checkpoints.
    """
    rows = []
    names = [*papers.WHOLE, *(variant.name for variant in papers.IN_WORKBOOK.values())]
    for name, where in product(names, (papers.SEEN, papers.UNSEEN)):
        own = _asked(table, name, where)
        if len(own):
            row = {"system": name, "set": papers.set_in_words(where, profile), "seeds": own.seed.nunique()}
            row |= _mean_sd(own[["J", "P", "swap", "AUROC"]])
            rows.append({**row, "steps": own.steps.max(), **_made_of(own)})
    return pd.DataFrame(rows)


def by_share(table: pd.DataFrame) -> pd.DataFrame:
    """A row a share of hard and empty pairs that was trained with: what it costs and what it buys, over seeds.

    Columns share, seeds, J on SEEN and on UNSEEN, swap (points) and AUROC on SEEN, each with its "sd …"; steps, recipe,
    checkpoints.
    """
    rows = []
    for share, variant in papers.BY_SHARE.items():
        seen, unseen = (_asked(table, variant.name, where) for where in (papers.SEEN, papers.UNSEEN))
        if len(seen):
            figures = {"J seen": seen.J, "J unseen": unseen.J, "swap": seen.swap, "AUROC": seen.AUROC}
            row = {"share": share, "seeds": seen.seed.nunique(), **_mean_sd(figures)}
            rows.append({**row, "steps": seen.steps.max(), **_made_of(seen)})
    return pd.DataFrame(rows)


def by_variant(table: pd.DataFrame, system: str, where: str = papers.SEEN) -> pd.DataFrame:
    """A row a variant and way of answering of one system: J, P, swap (points) and AUROC on a set, over seeds.

    Columns variant, how, seeds, J, "sd J", P, swap, "sd swap", AUROC, steps, "s a training", "the paper" (J as printed:
    "table IV: 0.790"), recipe, checkpoints.
    """
    rows, whole = [], _whole(table, where)
    for variant in (v for v in papers.VARIANTS.values() if v.system == system):
        printed = [f"table {number}: {_printed(variant.name, number):.3f}" for number in variant.printed]
        for how, own in whole[whole.variant == variant.name].groupby("how"):
            row = {"variant": variant.name, "how": how, "seeds": own.seed.nunique()}
            row |= _mean_sd(own[["J", "swap"]]) | {"P": own.P.mean(), "AUROC": own.AUROC.mean()}
            row |= {"steps": own.steps.max(), "s a training": own.seconds.mean(), "the paper": "; ".join(printed)}
            rows.append(row | _made_of(own))
    return pd.DataFrame(rows)
