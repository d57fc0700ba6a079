"""What the papers claim of their own parts, each claim tested by short trainings that differ in that part alone.

    coseg ablate --profile cpu --output runs/ablations        the queue: one training after the other, resumable
    table = read("runs/ablations/ablations.csv")              a row a training, set, kind of answer and group
    verdicts(table)                                           a row a claim, the paper's figure beside ours

A `Variant` is a system with one part changed, a `Claim` sets variants against each other. Variants of one system have
one budget (`profiles/ablations/`), one seed is one order of batches for all of them, and a variant that stands in
several claims is trained once. The multi-class thesis learns on the groups themselves: its rows are those of
`coseglib.multiclass_tables`.

The test. Two variants differ by d(s, g) = J of the first − J of the second, s a seed, g a group of photographs: J as
under protocol `common`, mean over the group's photographs; the same seeds, groups and photographs on both sides. A
claim about systems is to hold for other trainings and for other photographs, so both are samples. Photographs of a
group are alike, hence groups are counted, not photographs. With S seeds and G groups

    effect  mean of d                    se² = var_s(mean over g of d) / S + var_g(mean over s of d) / G

and the effect over se is compared with Student's t, its degrees of freedom by Welch and Satterthwaite. This is the
min F′ of Clark (1973), made for subjects × words. What is neither the seed's nor the group's own counts in both terms,
so that the interval is rather too wide than too narrow (`false_alarms`); with three seeds that differ much it is wide
indeed, and that is as it should be. Where seeds agree exactly it is the paired t-test over groups, where groups do that
over seeds. Several claims are tested at once: a verdict needs p < .05 after Holm's correction over all claims that were
measured. Intervals are 95 % each for itself, so that one may miss 0 where the verdict still is "within noise".

    confirmed      the effect lies where the paper says, significantly
    contradicted   it lies on the other side, significantly
    within noise   neither: at this budget no difference of that kind can be told from chance

Where this differs from the papers: small backbone, small images, minutes of training, validation photographs. That a
claim does not show here does not say that it is wrong there; that it is contradicted says that it does not hold at
every budget. Figures of several budgets are never mixed: a table is of one profile.
"""

import dataclasses
import fcntl
import hashlib
import json
import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from coseglib import metrics, multiclass_tables
from coseglib.checkpoints import load_model, sha256
from coseglib.crf import POSTS
from coseglib.data import load, validation_groups
from coseglib.data.multiclass import chosen, scenes
from coseglib.data.record import Group, Photo
from coseglib.data.synthetic import load_synthetic
from coseglib.errors import CosegError
from coseglib.evaluation import answers, evaluate, own_mask, partner_swap, refusal
from coseglib.models import METHODS
from coseglib.online import OnlineConfig
from coseglib.online import load_config as load_online
from coseglib.processes import clock
from coseglib.reported import reported
from coseglib.tables import write_table
from coseglib.training import MAY_CHANGE, PROFILES, TrainConfig, load_profile, precision_of, train

TABLE = "ablations.csv"  # in the queue's folder
SEEDS = 3  # a verdict needs so many
LEVEL = 0.05
LEAST = 4  # photographs a group, as for validation
POINTS = 100  # J and swap are shares; effects are told in points, hundredths

SEEN = "validation"  # classes that train, photographs that do not
UNSEEN = "icoseg8"  # classes that do not train: a test set, by which nothing is chosen here
STRANGER = "validation, a stranger in each group"
TWO = "groups of two classes"  # on which the multi-class system learns
MEAN, MIN = (
    "mean",
    "min",
)  # how a group's attention is pooled; all kinds of model but context models know the mean alone
CONFIRMED, CONTRADICTED, NOISE = "confirmed", "contradicted", "within noise"
FEW = "too few seeds"

COLUMNS = (
    "system", "variant", "profile", "seed", "set", "how", "dataset", "group", "images", "P", "J", "swap", "AUROC",
    "steps", "seconds", "date", "recipe", "checkpoint", "key",
)  # fmt: skip


# Claims ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A system with a part changed.

    options  what its model's constructor takes besides, see `coseglib.models`; a multi-class system's: fields of its
             configuration. PFCC's kernels are the letter's, for its maps of 33²: `config_of` fits them to the input
    fields   of its training's configuration, where it is the training that differs
    printed  its row in `data/reported.csv`, table by table: {table: method there}
    """

    system: str
    name: str
    method: str
    options: Mapping = field(default_factory=dict, hash=False)
    fields: Mapping = field(default_factory=dict, hash=False)
    printed: Mapping[str, str] = field(default_factory=dict, hash=False)


class Arm(NamedTuple):
    """One side of a claim: a variant's name, and how it answers."""

    variant: str
    how: str = MEAN


@dataclass(frozen=True)
class Claim:
    """first is better than second by more than `margin`, in points of J; or, where `more` is False, by less.

    second  one arm, or several whose mean is taken
    where   the set on which it is tested: SEEN, UNSEEN, STRANGER, TWO
    table   of the paper, where both sides are printed
    gain    the method's name where the paper prints the difference itself
    """

    name: str
    system: str
    says: str
    where: str
    first: Arm
    second: tuple[Arm, ...]
    source: str
    table: str = ""
    gain: str = ""
    margin: float = 0.0
    more: bool = True


def _pfcc(*kernels: int) -> Variant:
    name = "+".join(map(str, kernels)) or "no correlation"
    return Variant("PFCC", f"PFCC {name}", "pfcc", {"kernels": kernels})


_PRINTED = {"+MCFD": {"IV": "+MCFD"}, "+SCCM": {"IV": "+SCCM", "V": "+SCCM"}}
_DCCM = {"IV": "+DCCM (DCNet)", "V": "+DCCM (DCNet)"}
_ALL_KERNELS = (11, 15, 19)

VARIANTS = {
    v.name: v
    for v in (
        Variant("CA, FCA, CSA", "CA", "ca", printed={"1": "CA", "3": "CA"}),
        Variant("CA, FCA, CSA", "FCA", "fca", printed={"1": "FCA", "3": "FCA"}),
        Variant("CA, FCA, CSA", "CSA", "csa", printed={"1": "CSA", "3": "CSA"}),
        Variant("SSNM", "SSNM", "ssnm", printed={"5": "SSNM full"}),
        Variant("SSNM", "SSNM -f_spa", "ssnm", {"spatial": False}, printed={"5": "SSNM -f_spa"}),
        Variant("SSNM", "SSNM -f_sem", "ssnm", {"semantic": False}, printed={"5": "SSNM -f_sem"}),
        Variant(
            "SSNM", "SSNM -both", "ssnm", {"spatial": False, "semantic": False}, printed={"5": "SSNM -f_spa -f_sem"}
        ),
        Variant("SSNM", "SSNM balance as printed", "ssnm", {"balance": "paper"}),
        _pfcc(*_ALL_KERNELS),
        *(_pfcc(k) for k in _ALL_KERNELS),
        _pfcc(11, 15),
        _pfcc(11, 19),
        _pfcc(15, 19),
        _pfcc(),
        Variant("PFCC", "PFCC without L2", "pfcc", {"kernels": _ALL_KERNELS, "normalise": False}),
        Variant(
            "DCNet",
            "DCNet baseline",
            "dcnet",
            {"correlation": "nonlocal", "multiscale": False},
            printed={"IV": "baseline (CRM, single scale)"},
        ),
        Variant("DCNet", "DCNet +MCFD", "dcnet", {"correlation": "nonlocal"}, printed=_PRINTED["+MCFD"]),
        Variant("DCNet", "DCNet +SCCM", "dcnet", {"correlation": "spatial"}, printed=_PRINTED["+SCCM"]),
        Variant("DCNet", "DCNet", "dcnet", printed=_DCCM),
        Variant("DCNet", "DCNet K = 1", "dcnet", {"loops": 1}),
        Variant("DCNet", "DCNet K = 3", "dcnet", {"loops": 3}),
        Variant("DCNet", "DCNet cross-entropy", "dcnet", {"objective": "cross_entropy"}),
        *(Variant("multi-class", name, "multiclass", parts) for name, parts in multiclass_tables.ABLATIONS.items()),
    )
}

# The systems as their papers have them, SSNM's balance excepted.
WHOLE = ("CA", "FCA", "CSA", "SSNM", "PFCC 11+15+19", "DCNet")

# No claim of a paper's but a question of ours: what do pairs cost that make a system listen to its partners?
SHARES = "shares"
BY_SHARE = {
    share: Variant(
        "CA by share",
        f"CA, {share:.0%} hard or empty",
        "ca",
        fields={"variant": "workbook", "dice": 0.5, "shares": (1 - share, 0.6 * share, 0.4 * share)},
    )
    for share in (0.0, 0.1, 0.2, 0.35, 0.5, 0.7)
}


def _claim(name: str, says: str, first, second, source: str, where: str = SEEN, **more) -> Claim:
    """Arms may be given by their variants' names."""
    first = first if isinstance(first, Arm) else Arm(first)
    second = (second,) if isinstance(second, str | Arm) else second
    arms = tuple(s if isinstance(s, Arm) else Arm(s) for s in second)
    return Claim(name, VARIANTS[first.variant].system, says, where, first, arms, source, **more)


_ONE_SIZE = tuple(f"PFCC {k}" for k in _ALL_KERNELS)
_TWO_SIZES = ("PFCC 11+15", "PFCC 11+19", "PFCC 15+19")
_THREE_SIZES = "PFCC 11+15+19"
_CRF = "crf"

CLAIMS = {
    c.name: c
    for c in (
        _claim("csa-seen", "on classes seen in training, spatial attention helps", "CSA", "CA", "table 1", table="1"),
        _claim("fca-seen", "on classes seen in training, fused attention helps", "FCA", "CA", "table 1", table="1"),
        _claim(
            "fca-unseen", "on unseen classes, fused attention is the best", "FCA", ("CA", "CSA"), "table 3", UNSEEN,
            table="3",
        ),
        _claim(
            "mean-or-minimum", "the mean keeps what most images show, the minimum drops what one image lacks",
            Arm("CA"), Arm("CA", MIN), "section 4.5, figure 5", STRANGER,
        ),
        _claim("ssnm-spa", "the spatial modulator helps", "SSNM", "SSNM -f_spa", "table 5", table="5"),
        _claim("ssnm-sem", "the semantic modulator helps most", "SSNM", "SSNM -f_sem", "table 5", table="5"),
        _claim("ssnm-both", "both modulators help", "SSNM", "SSNM -both", "table 5", table="5"),
        _claim("ssnm-spa-alone", "so does the spatial one alone", "SSNM -f_sem", "SSNM -both", "table 5", table="5"),
        _claim(
            "ssnm-balance", "weights as printed balance the two sides: better than the exchanged ones",
            "SSNM balance as printed", "SSNM", "equation 13",
        ),
        _claim("pfcc-correlation", "the correlation helps", _THREE_SIZES, "PFCC no correlation", "conclusion"),
        _claim("pfcc-sizes", "three sizes are better than one", _THREE_SIZES, _ONE_SIZE, "conclusion"),
        _claim("pfcc-pairs", "three sizes are better than two", _THREE_SIZES, _TWO_SIZES, "conclusion"),
        _claim("pfcc-l2", "normalising the kernels helps", _THREE_SIZES, "PFCC without L2", "equation 2"),
        _claim("dcnet-mcfd", "correlation at three scales helps", "DCNet +MCFD", "DCNet baseline", "table IV",
               table="IV"),
        _claim("dcnet-sccm", "rows and columns instead of all positions help", "DCNet +SCCM", "DCNet +MCFD", "table IV",
               table="IV"),
        _claim("dcnet-dccm", "the channels' correlation helps", "DCNet", "DCNet +SCCM", "table IV", table="IV"),
        _claim("dcnet-dccm-unseen", "the channels' correlation helps on unseen classes", "DCNet", "DCNet +SCCM",
               "table V", UNSEEN, table="V"),
        _claim("dcnet-two-loops", "two loops are better than one", "DCNet", "DCNet K = 1", "section III-B"),
        _claim("dcnet-three-loops", "two loops are enough: a third gains less than a point", "DCNet K = 3", "DCNet",
               "section III", margin=1.0, more=False),
        _claim("dcnet-dice", "dice is better than cross-entropy", "DCNet", "DCNet cross-entropy", "section III-D"),
        _claim("thesis-ma", "mutual attention helps", Arm("MA", _CRF), Arm("w/o ATT", _CRF), "section 4.3", TWO,
               gain="MA over w/o ATT"),
        _claim("thesis-sa", "self-attention alone harms", Arm("w/o ATT", _CRF), Arm("SA", _CRF), "section 4.3", TWO),
        _claim("thesis-sa-ma", "both together help most", Arm("SA+MA", _CRF), Arm("w/o ATT", _CRF), "section 4.3", TWO,
               gain="SA+MA over w/o ATT"),
        _claim("thesis-crf", "a dense CRF is better than argmax", Arm("SA+MA", _CRF), Arm("SA+MA", "argmax"),
               "section 4.4", TWO),
    )
}  # fmt: skip


def chosen_claims(only: Iterable[str] = ()) -> list[Claim]:
    """Claims by name, or all of a system's or of a method's; none: all. SHARES names no claim, see `asks_for_shares`.

    Raises CosegError for a name that fits nothing.
    """
    wanted = list(only)
    for name in wanted:
        if name != SHARES and not any(name in _names(c) for c in CLAIMS.values()):
            systems = dict.fromkeys(c.system for c in CLAIMS.values())
            raise CosegError(f"{name}: no such claim or system; one of {', '.join([*CLAIMS, *systems, SHARES])}")
    return [c for c in CLAIMS.values() if not wanted or set(wanted) & _names(c)]


def asks_for_shares(only: Iterable[str] = ()) -> bool:
    """Whether `BY_SHARE` is trained as well: where it is named, or where nothing is."""
    wanted = list(only)
    return not wanted or SHARES in wanted


def _names(claim: Claim) -> set[str]:
    return {claim.name, claim.system, VARIANTS[claim.first.variant].method}


# Budgets --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """What a profile gives besides its training configuration (`profiles/ablations/`, for "paper" the papers' own).

    photos, unseen  photographs a group of SEEN and of UNSEEN; 0: all
    groups, each    groups of several classes that the multi-class system learns on, and photographs of each
    online          fields over `coseglib.online`'s profile of the same name. The learning rate is fixed: chosen by the
                    loss, it would be another one for every variant
    """

    photos: int
    unseen: int
    groups: int
    each: int
    online: Mapping[str, str]


BUDGETS = {
    "smoke": Budget(4, 4, 2, 4, {"epochs": "1"}),
    "cpu": Budget(
        12, 12, 10, 24, {"epochs": "10", "input_size": "224", "extractor_size": "320", "learning_rate": "3e-4"}
    ),
    "paper": Budget(0, 0, 14, 80, {"learning_rate": "1e-5"}),
}


def fitted_kernel(kernel: int, side: int) -> int:
    """PFCC's kernel for maps of 33², scaled to the stride-16 map of images of `side` pixels: the nearest odd number."""
    scaled = kernel * side / 16 / 33
    return max(1, 2 * math.floor(scaled / 2) + 1)


def config_of(variant: Variant, profile: str = "cpu", seed: int = 0) -> TrainConfig | OnlineConfig:
    """The configuration of one training. PFCC's kernels keep their share of the map, 11, 15 and 19 of 33.

    Raises CosegError for an unknown profile.
    """
    if profile not in BUDGETS:
        raise CosegError(f"{profile}: no such profile; one of {', '.join(BUDGETS)}")
    if METHODS[variant.method].online:
        fields = BUDGETS[profile].online | {k: str(v).lower() for k, v in variant.options.items()}
        return load_online(profile, fields | {"seed": str(seed)})
    file = PROFILES / "ablations" / f"{profile}.yaml"
    known = load_profile(str(file) if file.is_file() else profile, variant.method, {"seed": seed})
    options = {**known.options, **variant.options}
    if options.get("kernels"):
        options["kernels"] = tuple(fitted_kernel(k, known.input_size) for k in options["kernels"])
    return dataclasses.replace(known, options=options, **variant.fields)


def recipe(config: TrainConfig | OnlineConfig) -> str:
    """12 digits of a SHA-256 of all fields that decide a result but the seed: what two trainings share."""
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k != "seed" and k not in MAY_CHANGE}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Run:
    """One training: a variant and a seed."""

    variant: Variant
    seed: int

    def __str__(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"


def plan(claims: Iterable[Claim], seeds: int = SEEDS, shares: bool = False) -> list[Run]:
    """The trainings that some claims need, each once; first all of seed 0, so that a part of the queue is of use.

    shares  those of `BY_SHARE` as well
    """
    names = dict.fromkeys(arm.variant for c in claims for arm in (c.first, *c.second))
    variants = [*(VARIANTS[name] for name in names), *(BY_SHARE.values() if shares else ())]
    return [Run(variant, seed) for seed in range(seeds) for variant in variants]


# Photographs ----------------------------------------------------------------------------------------------------------


def few(groups: Sequence[Group], most: int) -> list[Group]:
    """At most `most` photographs a group, in their order; 0: all. Groups of which fewer than LEAST are left fall out.

    A photograph that stands in two groups stays in all of its groups or in none. Such ones are preferred for half of
    the places, of these the partner swap asks; small groups choose first, one photograph in turn.
    """
    if not most:
        return list(groups)
    content = [[p.content() for p in g.photos] for g in groups]
    places: dict[str, list[int]] = {}
    for g, names in enumerate(content):
        for name in names:
            places.setdefault(name, []).append(g)
    kept: list[set[str]] = [set() for _ in groups]
    shared = [[name for name in names if len(places[name]) > 1] for names in content]
    for _ in range(most // 2):
        for g in sorted(range(len(groups)), key=lambda g: len(groups[g])):
            for name in shared[g]:
                if name not in kept[g] and all(len(kept[h]) < max(1, most // 2) for h in places[name]):
                    for h in places[name]:
                        kept[h].add(name)
                    break
    for g, names in enumerate(content):
        alone = [name for name in names if len(places[name]) == 1]
        kept[g].update(alone[: most - len(kept[g])])
    found = [
        dataclasses.replace(g, photos=tuple(p for p, name in zip(g.photos, names, strict=True) if name in some))
        for g, names, some in zip(groups, content, kept, strict=True)
    ]
    return [g for g in found if len(g) >= min(LEAST, most)]


def _read_once(groups: Sequence[Group]) -> list[Group]:
    """The same photographs, decoded once and kept: they are asked of dozens of models."""
    known: dict[tuple[str, str], Photo] = {}

    def kept(photo: Photo) -> Photo:
        key = (photo.dataset, photo.name)
        if key not in known:
            readers = {"read_image": cache(photo.read_image), "read_labels": cache(photo.read_labels)}
            known[key] = dataclasses.replace(photo, **readers)
        return known[key]

    return [dataclasses.replace(g, photos=tuple(map(kept, g.photos))) for g in groups]


def photographs(profile: str, data_root=None) -> dict[str, list[Group]]:
    """SEEN and UNSEEN of a profile; smoke: scenes, other ones for each. Raises CosegError where a set is missing."""
    budget = BUDGETS[profile]
    if profile == "smoke":
        found = {
            SEEN: load_synthetic("val", groups=3, photos=budget.photos, size=64),
            UNSEEN: load_synthetic("test", groups=("leaf", "drop", "bolt"), photos=budget.unseen, size=64),
        }
    else:
        found = {SEEN: validation_groups(data_root), UNSEEN: load("icoseg8", data_root)}
    return {name: _read_once(few(found[name], most)) for name, most in ((SEEN, budget.photos), (UNSEEN, budget.unseen))}


def several_classes(profile: str, data_root=None) -> list[Group]:
    """The groups of two classes that the multi-class system learns on."""
    budget = BUDGETS[profile]
    if profile == "smoke":
        return scenes(budget.groups, budget.each, size=64)
    groups = [g for g in load("voc-multiclass", data_root) if len(g.targets) == 2][: budget.groups]
    return [dataclasses.replace(g, photos=chosen(g.photos, budget.each)) for g in groups]


# One training ---------------------------------------------------------------------------------------------------------


def with_stranger(model, groups: Sequence[Group], how: str = MEAN) -> pd.DataFrame:
    """J of a group's photographs when one that lacks its class is among their partners: rows as `evaluate`'s, in part.

    The stranger is a photograph of the group half the table away, or the next one that lacks the class. N + 1 images
    have nothing in common then, and all but one have. Columns dataset, group, name, P, J.
    """
    rows = []
    for g, group in enumerate(groups):
        own = {p.content() for p in group.photos}
        away = (groups[(g + max(1, len(groups) // 2) + k) % len(groups)] for k in range(len(groups) - 1))
        others = (p for other in away for p in other.photos if p.content() not in own)
        strangers = (p for p in others if not (p.mask(group.targets) == 1).any())
        stranger = next(strangers, None)
        if stranger is None:
            raise CosegError(f"{group.name}: no photograph lacks its class; give groups of several classes")
        photos = [*group.photos, stranger]
        questions = [(i, range(len(photos))) for i in range(len(group))]
        for i, (logits, size) in enumerate(answers(model, photos, questions, how)):
            mask, truth = own_mask(model, group.photos[i], logits, size), group.mask(i)
            scores = {"P": metrics.precision(mask, truth), "J": metrics.jaccard(mask, truth)}
            rows.append({"dataset": group.dataset, "group": group.name, "name": group.photos[i].name, **scores})
    return pd.DataFrame(rows)


def _groupwise(rows: pd.DataFrame, where: str, how: str = MEAN) -> pd.DataFrame:
    """A row a group and one of group "all". Groups of one name in two sets stay two, by the column dataset."""
    return metrics.aggregate(rows).assign(set=where, how=how)


def scored(model, sets: Mapping[str, list[Group]]) -> pd.DataFrame:
    """All that is asked of one model: J and P by set, kind of answer and group, swap and AUROC on SEEN, all groups."""
    seen = sets[SEEN]
    tables = [_groupwise(evaluate(model, some), where) for where, some in sets.items()]
    first = tables[0].group == "all"
    tables[0].loc[first, "swap"] = float(partner_swap(model, seen).score.mean())
    unsure = refusal(model, seen)
    tables[0].loc[first, "AUROC"] = metrics.auroc(unsure.score, unsure.common)
    if model.kind == "context":
        tables.append(_groupwise(evaluate(model, seen, how=MIN), SEEN, MIN))
        tables += [_groupwise(with_stranger(model, seen, how), STRANGER, how) for how in (MEAN, MIN)]
    return pd.concat(tables, ignore_index=True)


def _trained(run: Run, config: TrainConfig, folder: Path, sets, roots: Mapping) -> pd.DataFrame:
    """Train, or go on with a training that was killed, and score."""
    file = train(config, folder, resume=True, quiet=True, **roots)
    model = load_model(file, run.variant.method)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = precision_of(config.precision) == "bf16-mixed"  # as it was trained
    with torch.autocast(device, torch.bfloat16, enabled=fast):
        rows = scored(model.to(device, memory_format=torch.channels_last), sets)
    (folder / "state.safetensors").unlink()  # three times the model's size, and of no further use
    return rows.assign(steps=config.steps, checkpoint=sha256(file))


def _learned(run: Run, config: OnlineConfig, folder: Path, groups, weights_root=None) -> pd.DataFrame:
    """Learn on each group, see `coseglib.multiclass_tables`: rows by argmax and by CRF."""
    folder.mkdir(parents=True, exist_ok=True)
    name, out = run.variant.name, folder / "groups.csv"
    found = multiclass_tables.evaluate_groups(groups, config, out, (name,), None, weights_root)
    tables = [found[found.system == f"{name}, {post}"].assign(how=post) for post in POSTS]
    rows = pd.concat(tables, ignore_index=True)[["dataset", "group", "images", "P", "J", "how"]]
    return rows.assign(set=TWO, steps=config.epochs, checkpoint="")


# The queue ------------------------------------------------------------------------------------------------------------


def read(path: str | Path) -> pd.DataFrame:
    """The rows of a queue's table, `COLUMNS`; none of a file that is not there. Raises CosegError for another file."""
    path = Path(path)
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        table = pd.read_csv(path, dtype={"recipe": str, "key": str, "checkpoint": str, "group": str})
    except (OSError, ValueError) as error:
        raise CosegError(f"{path}: cannot be read ({' '.join(str(error).split())}); move it away") from error
    if set(COLUMNS) - set(table.columns):
        raise CosegError(f"{path}: not a table of `coseg ablate`; move it away, or choose another folder")
    return table


@contextmanager
def _alone(folder: Path):
    """One queue a folder. The lock goes with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise CosegError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CosegError(f"{folder}: another queue is at work there; wait, or choose another folder") from error
        yield


def _key(config: TrainConfig | OnlineConfig, groups: Iterable[Group]) -> str:
    """What a run's rows depend on: its recipe and seed, and the photographs that it is asked about."""
    known = [recipe(config), config.seed, *((g.dataset, g.name, g.content()) for g in groups)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]


class Outcome(NamedTuple):
    """table: all rows of the profile so far; failed: {run: why}."""

    table: pd.DataFrame
    failed: dict[str, str]


def ablate(
    output: str | Path,
    profile: str = "cpu",
    only: Iterable[str] = (),
    seeds: int = SEEDS,
    say: Callable[[str], None] = print,
    data_root=None,
    weights_root=None,
    keep: bool = True,
) -> Outcome:
    """Train and score what some claims need (see `chosen_claims`), one after the other; `output`/ablations.csv grows.

    What stands there of the same recipe, seed and photographs is not run again, and a training that was killed goes on
    where it was. A run that fails is named and the others go on. Models stay in `output`/<run>/, a failure's traceback
    in error.txt there; with keep = False models are removed once they are scored.
    Raises CosegError for unknown names, for data sets that are missing, and where another queue is at work.
    """
    only = list(only)
    output, runs = Path(output), plan(chosen_claims(only), seeds, asks_for_shares(only))
    configs = {run: config_of(run.variant, profile, run.seed) for run in runs}
    with _alone(output):
        masked = [run for run in runs if not METHODS[run.variant.method].online]
        sets = photographs(profile, data_root) if masked else {}
        several = several_classes(profile, data_root) if len(masked) < len(runs) else []
        asked = {False: [g for some in sets.values() for g in some], True: several}
        keys = {run: _key(configs[run], asked[METHODS[run.variant.method].online]) for run in runs}
        table = read(output / TABLE)
        missing = [run for run in runs if keys[run] not in set(table.key)]
        say(f"{len(runs)} trainings, {len(runs) - len(missing)} done before, {len(missing)} to run: {output}")
        spent: dict[str, list[float]] = {}
        failed: dict[str, str] = {}
        for number, run in enumerate(missing, start=1):
            config, began = configs[run], time.perf_counter()
            folder = output / f"{run.variant.method}-{keys[run]}"
            try:
                if METHODS[run.variant.method].online:
                    rows = _learned(run, config, folder, several, weights_root)
                else:
                    rows = _trained(run, config, folder, sets, {"data_root": data_root, "weights_root": weights_root})
            except Exception as error:  # whatever it is, the other runs are not to be lost
                failed[str(run)] = f"{type(error).__name__}: {' '.join(str(error).split())}"
                folder.mkdir(exist_ok=True)
                (folder / "error.txt").write_text(traceback.format_exc())
                say(f"{number}/{len(missing)} {run}: failed, {failed[str(run)]}; the others go on")
                continue
            seconds = time.perf_counter() - began
            about = {"system": run.variant.system, "variant": run.variant.name, "profile": profile, "seed": run.seed}
            about |= {"recipe": recipe(config), "key": keys[run], "date": date.today().isoformat()}
            rows = rows.assign(**about, seconds=seconds).reindex(columns=list(COLUMNS))
            table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
            write_table(table, output / TABLE)
            if not keep:
                shutil.rmtree(folder)
            spent.setdefault(run.variant.system, []).append(seconds)
            j = rows[(rows.group == "all")].J.iloc[0]
            eta = clock(remaining(missing[number:], spent))
            say(f"{number}/{len(missing)} {run}: J {j:.3f} on {rows['set'].iloc[0]}, {seconds:.0f} s; ETA {eta}")
        for name, why in failed.items():
            say(f"failed: {name}: {why}")
    return Outcome(table[table.profile == profile].reset_index(drop=True), failed)


def remaining(runs: Sequence[Run], spent: Mapping[str, list[float]]) -> float:
    """Seconds that some runs will take: each what its system's took so far, or the mean of all systems'."""
    everything = [seconds for of_system in spent.values() for seconds in of_system] or [0.0]
    return float(sum(np.mean(spent.get(run.variant.system, everything)) for run in runs))


def planned(
    claims: Iterable[Claim],
    profile: str,
    seeds: int = SEEDS,
    table: pd.DataFrame | None = None,
    shares: bool = False,
) -> pd.DataFrame:
    """What the queue has before it: a row a system, and one of all.

    Columns system, variants, trainings, done, "steps a training", "photographs a step", "side (pixels)", and minutes of
    all its trainings, by the mean of those that are done, NaN before the first. table: of `read`.
    """
    table = pd.DataFrame(columns=list(COLUMNS)) if table is None else table[table.profile == profile]
    runs, rows = plan(claims, seeds, shares), []
    for system in dict.fromkeys(run.variant.system for run in runs):
        own = [run for run in runs if run.variant.system == system]
        config = config_of(own[0].variant, profile)
        online = isinstance(config, OnlineConfig)
        once = table[table.system == system].drop_duplicates(["variant", "seed"])
        done = set(zip(once.variant, once.seed, strict=True)) & {(r.variant.name, r.seed) for r in own}
        rows.append(
            {
                "system": system,
                "variants": len({run.variant.name for run in own}),
                "trainings": len(own),
                "done": len(done),
                "steps a training": f"{config.epochs} epochs" if online else str(config.steps),
                "photographs a step": config.batch if online else config.groups * config.group_size,
                "side (pixels)": config.input_size,
                "minutes": once.seconds.mean() * len(own) / 60 if len(once) else math.nan,
            }
        )
    whole = {"system": "all", **{k: sum(row[k] for row in rows) for k in ("variants", "trainings", "done", "minutes")}}
    return pd.DataFrame([*rows, whole])


def results(
    profile: str,
    kept: str | Path,
    queue: str | Path | None = None,
    claims: Iterable[str] = (),
    seeds: int = SEEDS,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """A profile's rows for the notebook: those of the table `kept`, a copy of a queue's.

    queue  a folder: what some claims need and is missing there is trained first, and `kept` written anew; models are
           not kept. None: nothing is trained
    Raises CosegError where there is no row: `coseg ablate` makes the table.
    """
    if queue is not None:
        write_table(ablate(queue, profile, claims, seeds, say, keep=False).table, kept)
    table = read(kept)
    table = table[table.profile == profile].reset_index(drop=True)
    if table.empty:
        raise CosegError(f"{kept}: no rows; run coseg ablate --profile {profile} -o DIR and copy DIR/{TABLE} there")
    return table


# The test -------------------------------------------------------------------------------------------------------------


class Effect(NamedTuple):
    """A mean difference over seeds and groups, with its 95 % interval, p (two-sided) and degrees of freedom.

    NaN where it cannot be known: of one seed or one group there is no spread.
    """

    mean: float
    low: float
    high: float
    p: float
    df: float


def effect(differences: np.ndarray, margin: float = 0.0, level: float = LEVEL) -> Effect:
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
    half = se * stats.t.ppf(1 - level / 2, df)
    return Effect(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean - margin) / se, df)), float(df))


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's p of several tests, in their order; NaN stays NaN and counts for none."""
    p = np.asarray(p, float)
    adjusted, known = np.full(p.shape, math.nan), np.flatnonzero(~np.isnan(p))
    ordered = known[np.argsort(p[known], kind="stable")]
    factors = len(known) - np.arange(len(known))
    adjusted[ordered] = np.minimum(1, np.maximum.accumulate(p[ordered] * factors)) if len(known) else p[ordered]
    return adjusted


def false_alarms(
    seed_sd: float,
    group_sd: float,
    photo_sd: float,
    seeds: int = 3,
    groups: int = 15,
    photos: int = 8,
    worlds: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """How often three tests see a difference, p < .05, in made worlds where there is none.

    A photograph's difference is normal: a part of its training's, a part of its group's, a part of its own; standard
    deviations in any one unit. Tests: of all masks ("masks"), of groups, seeds averaged ("groups"), and `effect`.
    """
    rng, seen = np.random.default_rng(seed), {"masks": 0, "groups": 0, "seeds and groups": 0}
    for _ in range(worlds):
        d = seed_sd * rng.normal(size=(seeds, 1, 1)) + group_sd * rng.normal(size=(1, groups, 1))
        d = d + photo_sd * rng.normal(size=(seeds, groups, photos))
        by_group = d.mean(axis=2)
        seen["masks"] += stats.ttest_1samp(d.ravel(), 0).pvalue < LEVEL
        seen["groups"] += stats.ttest_1samp(by_group.mean(axis=0), 0).pvalue < LEVEL
        seen["seeds and groups"] += effect(by_group).p < LEVEL
    return {name: float(count) / worlds for name, count in seen.items()}


def differences(table: pd.DataFrame, claim: Claim) -> np.ndarray:
    """J of the first less that of the second, in points (S, G), for the seeds and groups that all arms of a claim have.

    table  of one profile. Raises CosegError where one arm was trained by two recipes: their rows are not to be mixed.
    """

    def j(arm: Arm) -> pd.DataFrame:
        rows = table[(table.variant == arm.variant) & (table["set"] == claim.where) & (table.how == arm.how)]
        if rows.recipe.nunique() > 1:
            raise CosegError(
                f"{arm.variant}: rows of {rows.recipe.nunique()} recipes in one table; choose one by `recipe`"
            )
        return rows[rows.group != "all"].pivot(index="seed", columns=["dataset", "group"], values="J")

    first, second = j(claim.first), [j(arm) for arm in claim.second]
    seeds = sorted(set(first.index).intersection(*(side.index for side in second)))
    d = first.loc[seeds] - sum(side.loc[seeds] for side in second) / len(second)
    return POINTS * d.dropna(how="any", axis=1).to_numpy()


def paper_points(claim: Claim) -> float:
    """What the paper prints for a claim's difference in J, in points; NaN where it prints no figure."""
    paper = METHODS[VARIANTS[claim.first.variant].method].paper
    if claim.gain:
        rows = reported(paper=paper, method=claim.gain, metric="J gain", dataset="thesis-two-class")
        return POINTS * float(rows.value.iloc[0])
    if not claim.table:
        return math.nan
    first, *second = (_printed(paper, claim.table, arm.variant) for arm in (claim.first, *claim.second))
    return POINTS * (first - sum(second) / len(second))


def _printed(paper: str, table: str, variant: str) -> float:
    """J of a variant in a table of its paper, a share."""
    method = VARIANTS[variant].printed[table]
    (value,) = reported(paper=paper, table=table, method=method, metric="J", group="all").value
    return float(value)


def verdicts(table: pd.DataFrame, claims: Iterable[Claim] | None = None) -> pd.DataFrame:
    """A row a claim: what the paper says, what came out, the verdict by the stated test (head of this file).

    table   rows of one profile, of `read` or `ablate`. claims: None: all
    Columns claim, system, says, source, set, first, second, paper (points), effect, low, high, p, "p Holm", seeds,
    groups, verdict, words. A claim of which nothing was measured has the verdict "not measured", one of fewer than
    SEEDS seeds "too few seeds"; Holm's correction counts those that have a verdict.
    """
    rows = []
    for claim in CLAIMS.values() if claims is None else claims:
        d = differences(table, claim) if len(table) else np.empty((0, 0))
        about = {
            "claim": claim.name,
            "system": claim.system,
            "says": claim.says,
            "source": f"{METHODS[VARIANTS[claim.first.variant].method].paper}, {claim.source}",
            "set": claim.where,
            "first": _side((claim.first,), claim),
            "second": _side(claim.second, claim),
            "paper": paper_points(claim),
        }
        found = effect(d, claim.margin) if d.size else Effect(*(5 * (math.nan,)))
        about |= {"effect": found.mean, "low": found.low, "high": found.high, "p": found.p}
        about |= {"seeds": d.shape[0] if d.size else 0, "groups": d.shape[1] if d.size else 0}
        rows.append(about | {"margin": claim.margin, "more": claim.more})
    found = pd.DataFrame(rows)
    counted = (found.seeds >= SEEDS) & found.p.notna()
    found["p Holm"] = holm(found.p.where(counted))
    found["verdict"] = [_verdict(row) for _, row in found.iterrows()]
    found["words"] = [_words(row) for _, row in found.iterrows()]
    columns = ["claim", "system", "says", "source", "set", "first", "second", "paper", "effect", "low", "high", "p"]
    return found[[*columns, "p Holm", "seeds", "groups", "verdict", "words"]]


def _side(arms: Sequence[Arm], claim: Claim) -> str:
    """ "CA, min", "MA, crf"; how it answers is said where there is a choice. Several: their mean."""
    told = claim.where in (STRANGER, TWO)
    names = [f"{a.variant}, {a.how}" if told else a.variant for a in arms]
    return names[0] if len(names) == 1 else f"mean of {' and '.join((', '.join(names[:-1]), names[-1]))}"


def _verdict(row: pd.Series) -> str:
    if not row.seeds:
        return "not measured"
    if row.seeds < SEEDS or math.isnan(row.p):
        return FEW if row.seeds < SEEDS else "too few groups"
    if not row["p Holm"] < LEVEL:
        return NOISE
    return CONFIRMED if (row.effect > row.margin) == row.more else CONTRADICTED


def _words(row: pd.Series) -> str:
    """The verdict as a sentence: "DCNet +SCCM is 1.2 points (-0.4 to 2.8) above DCNet +MCFD; …"."""
    if not row.seeds:
        return f"{row['first']} against {row['second']}: not measured."
    sign = "above" if row.effect >= 0 else "below"
    between = f" ({row.low:+.1f} to {row.high:+.1f})" if row.low == row.low else ""
    text = f"{row['first']} is {abs(row.effect):.1f} points{between} {sign} {row['second']}"
    text += f" on {row['set']}; the paper " + (
        "prints no figure" if row.paper != row.paper else f"says {row.paper:+.1f}"
    )
    if row.paper == row.paper and row.low == row.low:
        text += ", inside this interval" if row.low <= row.paper <= row.high else ", outside this interval"
    return f"{text}: {row.verdict}."


def _asked(table: pd.DataFrame, variant: str, where: str) -> pd.DataFrame:
    """A variant's rows of all groups of a set, a row a seed, attention's mean where there is a choice."""
    own = table[(table.variant == variant) & (table["set"] == where)]
    return own[(own.group == "all") & (own.how == MEAN)]


def by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """What a seed does: a row a system and set, `WHOLE` ones at the queue's small budget, mean and sd over seeds.

    Columns system, set, seeds, J, "sd J", P, "sd P", swap (points), "sd swap", AUROC, "sd AUROC", steps, recipe,
    checkpoints. table: of one profile. Empty where nothing was measured.
    """
    rows = []
    for name in WHOLE:
        for where in (SEEN, UNSEEN):
            own = _asked(table, name, where)
            if own.empty:
                continue
            row = {"system": name, "set": where, "seeds": own.seed.nunique()}
            for value, scale in {"J": 1, "P": 1, "swap": POINTS, "AUROC": 1}.items():
                row |= {value: scale * own[value].mean(), f"sd {value}": scale * own[value].std()}
            row |= {"steps": own.steps.max(), "recipe": ", ".join(own.recipe.unique())}
            rows.append({**row, "checkpoints": ", ".join(str(c)[:8] for c in own.checkpoint)})
    return pd.DataFrame(rows)


def by_share(table: pd.DataFrame) -> pd.DataFrame:
    """A row a share of hard and empty pairs that was trained with: what it costs and what it buys, over seeds.

    Columns share, seeds, and each with its "sd …": J on SEEN and on UNSEEN, swap (points) and AUROC on SEEN; steps,
    checkpoints. table: of one profile. Empty where nothing was measured.
    """
    rows = []
    for share, variant in BY_SHARE.items():
        seen, unseen = (_asked(table, variant.name, where) for where in (SEEN, UNSEEN))
        if seen.empty:
            continue
        row = {"share": share, "seeds": seen.seed.nunique()}
        values = {"J seen": seen.J, "J unseen": unseen.J, "swap": POINTS * seen.swap, "AUROC": seen.AUROC}
        for name, known in values.items():
            row |= {name: known.mean(), f"sd {name}": known.std()}
        rows.append({**row, "steps": seen.steps.max(), "checkpoints": ", ".join(str(c)[:8] for c in seen.checkpoint)})
    return pd.DataFrame(rows)


def by_variant(table: pd.DataFrame, system: str, where: str = SEEN) -> pd.DataFrame:
    """A row a variant and way of answering of one system: J, P, swap (points) and AUROC on a set, over seeds.

    Columns variant, how, seeds, J, "sd J", P, swap, "sd swap", AUROC, steps, "s a training", "the paper" (J as printed:
    "table IV: 0.790"), recipe, checkpoints (the first 8 digits of each). No rows for what was not measured.
    """
    rows = []
    whole = table[(table.system == system) & (table["set"] == where) & (table.group == "all")]
    order = [v.name for v in VARIANTS.values() if v.system == system]
    for (name, how), some in sorted(whole.groupby(["variant", "how"]), key=lambda item: order.index(item[0][0])):
        variant = VARIANTS[name]
        paper = METHODS[variant.method].paper
        printed = [f"table {number}: {_printed(paper, number, name):.3f}" for number in variant.printed]
        rows.append(
            {
                "variant": name,
                "how": how,
                "seeds": some.seed.nunique(),
                "J": some.J.mean(),
                "sd J": some.J.std(),
                "P": some.P.mean(),
                "swap": POINTS * some.swap.mean(),
                "sd swap": POINTS * some.swap.std(),
                "AUROC": some.AUROC.mean(),
                "steps": some.steps.max(),
                "s a training": some.seconds.mean(),
                "the paper": "; ".join(printed),
                "recipe": ", ".join(some.recipe.unique()),
                "checkpoints": ", ".join(str(c)[:8] for c in some.checkpoint if isinstance(c, str) and c),
            }
        )
    return pd.DataFrame(rows)
