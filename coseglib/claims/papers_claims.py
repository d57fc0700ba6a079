"""What the papers claim of their own parts, and the trainings that test it.

A `Variant` is a system with one part changed, a `Claim` sets variants against each other. Variants of one system have
one budget (`profiles/ablations/`), one seed is one order of batches for all of them, and a variant that stands in
several claims is trained once. The multi-class thesis learns on the groups themselves (`coseglib.evaluation.tables`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from coseglib.core.config import Config, Count, Natural
from coseglib.core.errors import CosegError
from coseglib.evaluation.kept import digest_of
from coseglib.evaluation.systems import SEEDS
from coseglib.evaluation.tables import ABLATIONS
from coseglib.models import METHODS
from coseglib.training.configuration import MAY_CHANGE, PROFILES, TrainConfig, load_profile
from coseglib.unsupervised.configuration import OnlineConfig, load_online

SEEN = "validation"  # classes that train, photographs that do not
UNSEEN = "icoseg8"  # classes that do not train: a test set, by which nothing is chosen here
STRANGER = "validation, a stranger in each group"
TWO = "groups of two classes"  # on which the multi-class system learns
# How a group's attention is pooled; all kinds of model but context models know the mean alone.
MEAN, MIN = "mean", "min"


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
    source  where the paper says it; of a table both sides are printed there
    gain    the method's name where the paper prints the difference itself
    """

    name: str
    system: str
    says: str
    where: str
    first: Arm
    second: tuple[Arm, ...]
    source: str
    gain: str = ""
    margin: float = 0.0
    more: bool = True


_DCCM = "+DCCM (DCNet)"  # the whole system, in tables IV and V
_KERNELS = (11, 15, 19)
_ONE_SIZE = {f"PFCC {k}": (k,) for k in _KERNELS}
_TWO_SIZES = {"PFCC 11+15": (11, 15), "PFCC 11+19": (11, 19), "PFCC 15+19": (15, 19)}
_THREE_SIZES = "PFCC 11+15+19"

VARIANTS = {
    v.name: v
    for v in (
        *(Variant("CA, FCA, CSA", n, n.lower(), printed={"1": n, "3": n}) for n in ("CA", "FCA", "CSA")),
        Variant("SSNM", "SSNM", "ssnm", printed={"5": "SSNM full"}),
        Variant("SSNM", "SSNM -f_spa", "ssnm", {"spatial": False}, printed={"5": "SSNM -f_spa"}),
        Variant("SSNM", "SSNM -f_sem", "ssnm", {"semantic": False}, printed={"5": "SSNM -f_sem"}),
        Variant("SSNM", "SSNM -both", "ssnm", {"spatial": False, "semantic": False},
                printed={"5": "SSNM -f_spa -f_sem"}),
        Variant("SSNM", "SSNM balance as printed", "ssnm", {"balance": "paper"}),
        *(Variant("PFCC", name, "pfcc", {"kernels": kernels}) for name, kernels in
          {_THREE_SIZES: _KERNELS, **_ONE_SIZE, **_TWO_SIZES, "PFCC no correlation": ()}.items()),
        Variant("PFCC", "PFCC without L2", "pfcc", {"kernels": _KERNELS, "normalise": False}),
        Variant("DCNet", "DCNet baseline", "dcnet", {"correlation": "nonlocal", "multiscale": False},
                printed={"IV": "baseline (CRM, single scale)"}),
        Variant("DCNet", "DCNet +MCFD", "dcnet", {"correlation": "nonlocal"}, printed={"IV": "+MCFD"}),
        Variant("DCNet", "DCNet +SCCM", "dcnet", {"correlation": "spatial"}, printed={"IV": "+SCCM", "V": "+SCCM"}),
        Variant("DCNet", "DCNet", "dcnet", printed={"IV": _DCCM, "V": _DCCM}),
        Variant("DCNet", "DCNet K = 1", "dcnet", {"loops": 1}),
        Variant("DCNet", "DCNet K = 3", "dcnet", {"loops": 3}),
        Variant("DCNet", "DCNet cross-entropy", "dcnet", {"objective": "cross_entropy"}),
        *(Variant("multi-class", name, "multiclass", parts) for name, parts in ABLATIONS.items()),
    )
}  # fmt: skip

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
    several = (second,) if isinstance(second, str | Arm) else second
    first, *others = (arm if isinstance(arm, Arm) else Arm(arm) for arm in (first, *several))
    return Claim(name, VARIANTS[first.variant].system, says, where, first, tuple(others), source, **more)


_CRF = "crf"
CLAIMS = {
    c.name: c
    for c in (
        _claim("csa-seen", "on classes seen in training, spatial attention helps", "CSA", "CA", "table 1"),
        _claim("fca-seen", "on classes seen in training, fused attention helps", "FCA", "CA", "table 1"),
        _claim("fca-unseen", "on unseen classes, fused attention is the best", "FCA", ("CA", "CSA"), "table 3", UNSEEN),
        _claim("mean-or-minimum", "the mean keeps what most images show, the minimum drops what one image lacks",
               "CA", Arm("CA", MIN), "section 4.5, figure 5", STRANGER),
        _claim("ssnm-spa", "the spatial modulator helps", "SSNM", "SSNM -f_spa", "table 5"),
        _claim("ssnm-sem", "the semantic modulator helps most", "SSNM", "SSNM -f_sem", "table 5"),
        _claim("ssnm-both", "both modulators help", "SSNM", "SSNM -both", "table 5"),
        _claim("ssnm-spa-alone", "so does the spatial one alone", "SSNM -f_sem", "SSNM -both", "table 5"),
        _claim("ssnm-balance", "weights as printed balance the two sides: better than the exchanged ones",
               "SSNM balance as printed", "SSNM", "equation 13"),
        _claim("pfcc-correlation", "the correlation helps", _THREE_SIZES, "PFCC no correlation", "conclusion"),
        _claim("pfcc-sizes", "three sizes are better than one", _THREE_SIZES, _ONE_SIZE, "conclusion"),
        _claim("pfcc-pairs", "three sizes are better than two", _THREE_SIZES, _TWO_SIZES, "conclusion"),
        _claim("pfcc-l2", "normalising the kernels helps", _THREE_SIZES, "PFCC without L2", "equation 2"),
        _claim("dcnet-mcfd", "correlation at three scales helps", "DCNet +MCFD", "DCNet baseline", "table IV"),
        _claim("dcnet-sccm", "rows and columns instead of all positions help", "DCNet +SCCM", "DCNet +MCFD",
               "table IV"),
        _claim("dcnet-dccm", "the channels' correlation helps", "DCNet", "DCNet +SCCM", "table IV"),
        _claim("dcnet-dccm-unseen", "the channels' correlation helps on unseen classes", "DCNet", "DCNet +SCCM",
               "table V", UNSEEN),
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
    wanted = set(only)
    names = {c.name: {c.name, c.system, VARIANTS[c.first.variant].method} for c in CLAIMS.values()}
    for name in sorted(wanted.difference([SHARES], *names.values())):
        systems = dict.fromkeys(c.system for c in CLAIMS.values())
        raise CosegError(f"{name}: no such claim or system; one of {', '.join([*CLAIMS, *systems, SHARES])}")
    return [c for c in CLAIMS.values() if not wanted or wanted & names[c.name]]


def asks_for_shares(only: Iterable[str] = ()) -> bool:
    """Whether `BY_SHARE` is trained as well: where it is named, or where nothing is."""
    wanted = list(only)
    return not wanted or SHARES in wanted


# Budgets --------------------------------------------------------------------------------------------------------------


class Budget(Config):
    """What a profile gives besides its training configuration (`profiles/ablations/`, for "paper" the papers' own).

    photos, unseen  photographs a group of SEEN and of UNSEEN; 0: all
    groups, each    groups of several classes that the multi-class system learns on, and photographs of each
    online          fields over `coseglib.unsupervised`'s profile of the same name. The learning rate is fixed: chosen
                    by the loss, it would be another one for every variant
    """

    photos: Natural
    unseen: Natural
    groups: Count
    each: Count
    online: dict[str, str]


_CPU = {"epochs": "10", "input_size": "224", "extractor_size": "320", "learning_rate": "3e-4"}
BUDGETS = {
    "smoke": Budget(photos=4, unseen=4, groups=2, each=4, online={"epochs": "1"}),
    "cpu": Budget(photos=12, unseen=12, groups=10, each=24, online=_CPU),
    "paper": Budget(photos=0, unseen=0, groups=14, each=80, online={"learning_rate": "1e-5"}),
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
    return known.replaced(options=options, **variant.fields)


def recipe(config: TrainConfig | OnlineConfig) -> str:
    """12 digits of a SHA-256 of all fields that decide a result but the seed: what two trainings share."""
    fields = {k: v for k, v in config.fields().items() if k != "seed" and k not in MAY_CHANGE}
    return digest_of(fields, sort_keys=True)


class Training(NamedTuple):
    """A variant and a seed."""

    variant: Variant
    seed: int

    def __str__(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"


def plan(claims: Iterable[Claim], seeds: int = SEEDS, shares: bool = False) -> list[Training]:
    """The trainings that some claims need, each once; first all of seed 0, so that a part of the queue is of use.

    shares  those of `BY_SHARE` as well
    """
    names = dict.fromkeys(arm.variant for c in claims for arm in (c.first, *c.second))
    variants = [*(VARIANTS[name] for name in names), *(BY_SHARE.values() if shares else ())]
    return [Training(variant, seed) for seed in range(seeds) for variant in variants]
