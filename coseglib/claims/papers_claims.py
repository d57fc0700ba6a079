"""What the papers claim of their own parts, and the trainings that test it.

A `Variant` is a system with one part changed, a `Claim` sets variants against each other. Variants of one system have
one budget (`profiles/ablations/`), one seed is one order of batches for all of them, and a variant that stands in
several claims is trained once. Both stand in papers_claims.yaml; the multi-class thesis' variants, which learn on the
groups themselves, are `coseglib.evaluation.tables.ABLATIONS`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from coseglib.core.config import Config, Count, Natural, read_yaml
from coseglib.core.errors import CosegError
from coseglib.evaluation.kept import digest_of
from coseglib.evaluation.systems import SEEDS
from coseglib.evaluation.tables import ABLATIONS
from coseglib.models import METHODS
from coseglib.training.configuration import PROFILES, TrainConfig, load_profile
from coseglib.unsupervised.configuration import OnlineConfig, load_online

SEEN = "validation"  # classes that train, photographs that do not
UNSEEN = "icoseg8"  # classes that do not train: a test set, by which nothing is chosen here
STRANGER = "validation, a stranger in each group"
TWO = "groups of two classes"  # on which the multi-class system learns


def set_in_words(where: str, profile: str) -> str:
    """A set's name for a reader: the smoke profile has no photographs, and scenes stand where photographs would."""
    return f"drawn scenes in place of {where}" if profile == "smoke" and where != TWO else where


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


_TOLD = read_yaml(Path(__file__).with_suffix(".yaml"))


def _variant(told: Mapping) -> Variant:
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in told.get("options", {}).items()}
    return Variant(**{**told, "options": options})


VARIANTS = {told["name"]: _variant(told) for told in _TOLD["variants"]}
VARIANTS |= {name: Variant("multi-class", name, "multiclass", parts) for name, parts in ABLATIONS.items()}

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

# And another one: what does a seed do to the workbook's variants, trained by its profile? One budget for all.
WORKBOOK = "workbook"
_WHOLE = {name.split()[0]: VARIANTS[name].method for name in WHOLE}
IN_WORKBOOK = {name: Variant(f"{name}, workbook", f"{name}, workbook", method) for name, method in _WHOLE.items()}
QUESTIONS = {SHARES: tuple(BY_SHARE.values()), WORKBOOK: tuple(IN_WORKBOOK.values())}


def _claim(told: Mapping) -> Claim:
    """Of an entry of the file, whose arms are names or [name, how]."""
    first, *second = (Arm(*([arm] if isinstance(arm, str) else arm)) for arm in (told["first"], *told["second"]))
    system = VARIANTS[first.variant].system
    return Claim(**{"system": system, "where": SEEN, **told, "first": first, "second": tuple(second)})


CLAIMS = {told["name"]: _claim(told) for told in _TOLD["claims"]}


def chosen_claims(only: Iterable[str] = ()) -> list[Claim]:
    """Claims by name, or all of a system's or of a method's; none: all. QUESTIONS are no claims, see `asked_besides`.

    Raises CosegError for a name that fits nothing.
    """
    wanted = set(only)
    names = {c.name: {c.name, c.system, VARIANTS[c.first.variant].method} for c in CLAIMS.values()}
    for name in sorted(wanted.difference(QUESTIONS, *names.values())):
        systems = dict.fromkeys(c.system for c in CLAIMS.values())
        raise CosegError(f"{name}: no such claim or system; one of {', '.join([*CLAIMS, *systems, *QUESTIONS])}")
    return [c for c in CLAIMS.values() if not wanted or wanted & names[c.name]]


def asked_besides(only: Iterable[str] = ()) -> list[Variant]:
    """The variants of QUESTIONS that are trained besides: of those that are named, or of all where nothing is."""
    wanted = set(only)
    return [v for name, variants in QUESTIONS.items() if not wanted or name in wanted for v in variants]


# Budgets --------------------------------------------------------------------------------------------------------------


class Budget(Config):
    """What a profile gives besides its training configuration (`profiles/ablations/`, for "paper" the papers' own).

    photos, unseen  photographs a group of SEEN and of UNSEEN; 0: all
    groups, each    groups of several classes that the multi-class system learns on, and photographs of each
    online          fields over `coseglib.unsupervised`'s profile of the same name. The learning rate is fixed: chosen
                    by the loss, it would be another one for every variant
    workbook        of IN_WORKBOOK, fields over the profile `workbook`; None: this profile's training, as all others
    """

    photos: Natural
    unseen: Natural
    groups: Count
    each: Count
    online: dict[str, str]
    workbook: dict[str, int | float] | None


_CPU = {"epochs": "10", "input_size": "224", "extractor_size": "320", "learning_rate": "3e-4"}
_SHORT = {"steps": 200, "input_size": 160, "cache_side": 192, "warmup": 20, "average": 0.98}
BUDGETS = {
    "smoke": Budget(photos=4, unseen=4, groups=2, each=4, online={"epochs": "1"}, workbook=None),
    "cpu": Budget(photos=12, unseen=12, groups=10, each=24, online=_CPU, workbook=_SHORT),
    "paper": Budget(photos=0, unseen=0, groups=14, each=80, online={"learning_rate": "1e-5"}, workbook={}),
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
    if variant in IN_WORKBOOK.values():
        fields = BUDGETS[profile].workbook
        if fields is not None:
            return load_profile("workbook", variant.method, {**fields, "seed": seed})
        variant = replace(variant, fields={"variant": "workbook"})
    file = PROFILES / "ablations" / f"{profile}.yaml"
    known = load_profile(str(file) if file.is_file() else profile, variant.method, {"seed": seed})
    options = {**known.options, **variant.options}
    if options.get("kernels"):
        options["kernels"] = tuple(fitted_kernel(k, known.input_size) for k in options["kernels"])
    return known.replaced(options=options, **variant.fields)


def recipe(config: TrainConfig | OnlineConfig) -> str:
    """12 digits of a SHA-256 of all fields that decide a result but the seed: what two trainings share."""
    fields = config.deciding() if isinstance(config, TrainConfig) else config.fields()
    return digest_of({name: value for name, value in fields.items() if name != "seed"}, sort_keys=True)


class Training(NamedTuple):
    """A variant and a seed."""

    variant: Variant
    seed: int

    def __str__(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"


def plan(claims: Iterable[Claim], seeds: int = SEEDS, besides: Iterable[Variant] = ()) -> list[Training]:
    """The trainings that some claims need, and those of variants `besides`, each once; first all of seed 0, so that a
    part of the queue is of use."""
    names = dict.fromkeys(arm.variant for c in claims for arm in (c.first, *c.second))
    variants = [*(VARIANTS[name] for name in names), *besides]
    return [Training(variant, seed) for seed in range(seeds) for variant in variants]
