"""Benchmark tables: systems, and what needs no training, on one data set, beside the figures that the papers print.

    some = systems(("ca-mobilenet_v2",))              checkpoints, and floors
    rows = measured(some, load("msrc7"), kept)        a row a photograph; what the file `kept` holds is not run again
    table = scored(rows, some)                        a row a system, protocol, partner and group
    text = markdown(table, printed("msrc7"))

How far does a protocol alone move J? Two of its five fields, `average` and `empty`, are other sums over the same
counts. The other three, `context`, `size` and `threshold`, decide what is counted: protocols that agree in them share
one evaluation, so that all of `PROTOCOLS` take five. `CHANGES` are steps from `common`, one field each.

Floors are asked less. `everything` and `ellipse` look at no photograph, so one question answers for every partner.
`features` sees all partners anew for every photograph of a wrong group, minutes a group: without `patient` it is asked
under `common` only, by its group and by itself.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from coseglib.answering.floors import FLOORS, Floor, build_floor, is_floor
from coseglib.answering.masks import post_of
from coseglib.core.errors import CosegError
from coseglib.data import NAMES, load
from coseglib.data.record import Group
from coseglib.data.reported import REPORTED, SHARES, reported
from coseglib.evaluation.cards import beyond, cards, digits, runs_of, withdrawn
from coseglib.evaluation.kept import resumable_rows
from coseglib.evaluation.shipping import TRAINED_ON
from coseglib.evaluation.tables import SOURCES
from coseglib.models import METHODS
from coseglib.models.checkpoints import load_model
from coseglib.scoring import metrics
from coseglib.scoring.metrics import PROTOCOLS, Protocol
from coseglib.scoring.questions import partner_swap, refusal
from coseglib.scoring.rows import PARTNERS, evaluate

SEEDS = 3  # trainings that differ in their seed alone and become one row, mean ± sd, from so many on
BLIND = ("everything", "ellipse")  # floors that look at no photograph: their answers do not depend on partners
NUMBERS = dict.fromkeys(("J_asked", "J_other", "common", "score"), float)  # of `questioned`
COUNTS = ["right", "counted", "intersection", "union"]
FACTS = ("system", "method", "variant", "backbone", "trained on", "seeds", "checkpoint")
SHOWN = ("system", "variant", "backbone", "trained on", "seeds", "protocol", "partner", "images", "P", "J")
SHOWN += ("s an image", "checkpoint")
NONE = "–"
MEASURED = "measured here"  # the source of our rows, beside the papers'
ALL = tuple(PROTOCOLS.values())

_COMMON = PROTOCOLS["common"]
_NETWORK = dataclasses.replace(_COMMON, name="at the network's size", size="network")
CHANGES = (
    _COMMON,
    dataclasses.replace(_COMMON, name="a pair for the group", context="pair"),
    _NETWORK,
    dataclasses.replace(_NETWORK, name="at the network's size, mean + sd for p > 0.5", threshold="mean+std"),
    dataclasses.replace(_COMMON, name="two empty masks score 0", empty="zero"),
    dataclasses.replace(_COMMON, name="total counts in a group", average="class"),
    dataclasses.replace(_COMMON, name="mean over all images", average="pooled"),
    dataclasses.replace(_COMMON, name="total counts of all images", average="total"),
)

# What the papers say of their own systems: backbone, trained on.
_PAPERS = {
    "chen2018": ("VGG16", "pairs of VOC 2012"),
    "zhang2020": ("", "COCO-SEG"),
    "li2021dcnet": ("ResNet-50", "13,200 pairs of VOC 2012 and MSRC"),
}
_PROTOCOL_OF = {"zhang2020": "ssnm", "li2021dcnet": "dcnet", "chen2023": "pfcc", "multiclass-thesis": "multiclass"}


# Systems --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class System:
    """A checkpoint or a floor by its name, its model in evaluation mode."""

    name: str
    model: nn.Module

    @property
    def floor(self) -> bool:
        return isinstance(self.model, Floor)

    @property
    def blind(self) -> bool:
        return self.name in BLIND

    @property
    def sha256(self) -> str:
        """Of the file; a floor's own, see `Floor.card`."""
        return self.model.card["sha256"]

    def _trainings(self) -> list[dict]:
        return [run["training"] for run in runs_of(self.model.card) if "training" in run]

    @property
    def recipe(self) -> str:
        """What two trainings share that differ in nothing but their seed; a floor's is its checksum."""
        if self.floor:
            return self.sha256
        known = [{k: v for k, v in t.items() if k not in ("seed", "start")} for t in self._trainings()]
        card = self.model.card
        about = [card[key] for key in ("method", "variant", "backbone", "input_size")]
        about += [
            card.get("options"),
            self.model.looks,
            post_of(self.model),
            len(card.get("averaged", ())),
            known or self.sha256,
        ]
        return json.dumps(about, sort_keys=True, default=str)

    def facts(self) -> dict[str, str]:
        """FACTS: what a doubter asks for. The checksum by its first 8 digits, seeds of all runs."""
        card, trainings = self.model.card, self._trainings()
        if self.floor:
            backbone = self.model.name.partition(":")[2]
            trained = "nothing; ImageNet features" if backbone else "nothing"
            known = (self.name, "floor", NONE, backbone or NONE, trained, NONE)
        else:
            trained = TRAINED_ON.get(trainings[0].get("data", ""), "not said") if trainings else "not said"
            seeds = ", ".join(dict.fromkeys(str(t.get("seed", "?")) for t in trainings)) or "not said"
            variant = ", ".join(filter(None, [card["variant"], *beyond(card), withdrawn(card)]))
            known = (self.name, card["method"], variant, card["backbone"], trained.split(" (")[0], seeds)
        return dict(zip(FACTS, (*known, self.sha256[:8]), strict=True))


def shipped() -> list[str]:
    """The names of the shipped checkpoints that are trained with masks, of any method, but for those withdrawn."""
    return [card["name"] for card in cards() if not METHODS[card["method"]].online and not withdrawn(card)]


def systems(names: Sequence[str] = (), floors: Sequence[str] = FLOORS) -> list[System]:
    """Checkpoints (names or files; none: all that are shipped), then floors, loaded, on the GPU where there is one.

    Raises CosegError for names that do not exist, and where `features` finds no ImageNet weights.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for name in (*(names or shipped()), *floors):
        model = build_floor(name) if is_floor(name) else load_model(name)
        found.append(System(str(name) if is_floor(name) else model.card["name"], model.to(device)))
    return found


def _families(some: Sequence[System]) -> list[list[System]]:
    """Systems of one recipe together, where they are SEEDS or more; all others alone. In order of appearance."""
    alike: dict[str, list[System]] = {}
    for system in some:
        alike.setdefault(system.recipe, []).append(system)
    families = []
    for members in alike.values():
        families += [members] if len(members) >= SEEDS else [[system] for system in members]
    return families


def _as_one(members: Sequence[System]) -> dict[str, str]:
    """The facts of a family: what its members' names begin with, their seeds and checksums in a row."""
    facts = [system.facts() for system in members]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*(f["system"] for f in facts), strict=False))
    name = re.sub(r"[-_.](s|seed)?[-_.]?$", "", "".join(letters[0] for letters in alike))
    joined = {key: ", ".join(dict.fromkeys(f[key] for f in facts)) for key in ("seeds", "checkpoint")}
    return facts[0] | {"system": name or facts[0]["system"]} | joined


def _over_seeds(tables: Sequence[pd.DataFrame], members: Sequence[System], figures: Sequence[str]) -> pd.DataFrame:
    """One table of a family: `figures` are means over its members, "sd …" their sample standard deviations.

    tables  of one shape, a member each; of one member: as it is, sd NaN
    """
    means, sds = {}, {}
    for figure in figures:
        of_all = pd.concat([table[figure].reset_index(drop=True) for table in tables], axis=1)
        means[figure] = of_all.mean(axis=1)
        if figure != "seconds":
            sds[f"sd {figure}"] = of_all.std(axis=1)
    facts = _as_one(members) if len(members) > 1 else members[0].facts()
    return tables[0].reset_index(drop=True).assign(**means, **sds, **facts)


# Data sets ------------------------------------------------------------------------------------------------------------


def cut(groups: Sequence[Group], most: int = 0) -> list[Group]:
    """The first `most` photographs of each group; 0: all."""
    return [dataclasses.replace(g, photos=g.photos[: most or None]) for g in groups]


def found(
    names: Sequence[str], limit: Mapping[str, int] | None = None, say: Callable[[str], None] = print, data_root=None
) -> dict[str, list[Group]]:
    """The groups of those data sets that are here; of each other one a line says what is missing.

    limit  {data set: photographs a group}. Raises CosegError for a name that is no data set's, and where none is here.
    """
    sets = {}
    for name in names:
        if name not in NAMES:
            raise CosegError(f"{name}: no such data set; one of {', '.join(NAMES)}")
        try:
            sets[name] = cut(load(name, data_root), (limit or {}).get(name, 0))
        except CosegError as missing:
            say(f"{name}: not here ({missing})")
    if not sets:
        raise CosegError(f"none of {', '.join(names)} is here; data/README.md says how to get them")
    return sets


def _answering(system: System) -> str:
    """What masks depend on besides photographs and questions."""
    return f"{system.sha256[:16]} {system.model.looks} {post_of(system.model)}"


def _key(groups: Sequence[Group], *more: object) -> str:
    """What rows depend on besides the checkpoint: photographs, masks, and more."""
    known = [[g.dataset, g.name, g.content(masks=True)] for g in groups]
    return hashlib.sha256(json.dumps([known, *more], default=str).encode()).hexdigest()[:16]


# P and J --------------------------------------------------------------------------------------------------------------


def evaluation_of(protocol: Protocol) -> str:
    """The fields of a protocol that decide what is counted: "group, own, argmax"."""
    return f"{protocol.context}, {protocol.size}, {protocol.threshold}"


def evaluations(protocols: Sequence[Protocol] = ALL) -> dict[str, str]:
    """What has to be evaluated for some protocols: {`evaluation_of` them: a protocol of the registry that is of it}.

    Raises CosegError for a combination that no registered protocol has.
    """
    registered: dict[str, str] = {}
    for name, protocol in PROTOCOLS.items():
        registered.setdefault(evaluation_of(protocol), name)
    wanted = {}
    for protocol in protocols:
        which = evaluation_of(protocol)
        if which not in registered:
            raise CosegError(f"{protocol.name}: no protocol of metrics.PROTOCOLS is {which}; register one")
        wanted[which] = registered[which]
    return wanted


def _asked(system: System, which: str, partners: Sequence[str], patient: bool) -> tuple[str, ...]:
    """Whose attention counts in an evaluation: all partners in that of `common`, the group's in the others."""
    common = which == evaluation_of(_COMMON)
    asked = tuple(partners) if common else tuple(p for p in partners if p == "group")
    if system.floor and not system.blind and not patient:
        return tuple(p for p in asked if p != "other") if common else ()
    return asked


def measured(
    some: Sequence[System],
    groups: Sequence[Group],
    kept: str | Path,
    protocols: Sequence[Protocol] = ALL,
    partners: Sequence[str] = PARTNERS,
    patient: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """A row a system, evaluation, partner and photograph: its four counts in pixels and seconds an answer.

    kept      CSV of these rows. What stands there of the same checkpoint, photographs, masks, partners and seed is not
              run again, so a run that was killed goes on with what is missing
    partners  asked in the evaluation of `common`; the other evaluations ask for the group's
    patient   ask `features` all that the others are asked, too
    Columns checkpoint (SHA-256), evaluation, dataset, group, name, partner, `COUNTS`, seconds, key. Seconds: with
    reading and scoring, partners asked in one go. Raises CosegError as `evaluate` does.
    """
    content = _key(groups, seed)
    parts = {}
    for system in some:
        for which, protocol in evaluations(protocols).items():
            if asked := _asked(system, which, partners, patient):
                parts[f"{groups[0].dataset}, {system.name}: {which}"] = (system, which, protocol, asked)

    def key(part) -> str:
        system, which, _, asked = part
        return f"{_answering(system)} {which} {'|'.join(asked)} {content}"

    def run(part, say) -> pd.DataFrame:
        system, which, protocol, asked = part
        rows = evaluate(system.model, groups, protocol, "self" if system.blind else asked, seed=seed)
        if system.blind:
            rows = pd.concat([rows.assign(partner=partner) for partner in asked], ignore_index=True)
        say(f"{len(rows)} masks, {rows.seconds.mean():.2f} s each")
        rows = rows.assign(checkpoint=system.sha256, evaluation=which)
        return rows[["checkpoint", "evaluation", "dataset", "group", "name", "partner", *COUNTS, "seconds"]]

    rows = pd.DataFrame()
    for rows in resumable_rows(parts, Path(kept), key, run, say, {**dict.fromkeys(COUNTS, int), "seconds": float}):  # noqa: B007 (the last has all)
        pass
    return rows


def _by(rows: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Rows with P and J from their counts, two empty masks scored as the protocol does."""
    union, counted = rows["union"], rows["counted"]
    j = (rows["intersection"] / union.where(union > 0)).fillna(metrics.EMPTY[protocol.empty])
    return rows.assign(P=(rows["right"] / counted.where(counted > 0)).fillna(1.0), J=j)


def scored(rows: pd.DataFrame, some: Sequence[System], protocols: Sequence[Protocol] = ALL) -> pd.DataFrame:
    """A row a system, protocol, partner and group; group "all" is the protocol's own average.

    Systems of one recipe (`System.recipe`), SEEDS or more of them, are one: means, and sd over seeds in "sd P", "sd J".
    Columns FACTS, dataset, protocol, partner, group, images, P, sd P, J, sd J, seconds. Rows that were not measured are
    not there. Raises CosegError where there is none.
    """
    tables = []
    for members in _families(some):
        for protocol in protocols:
            own = rows[rows.evaluation == evaluation_of(protocol)]
            for partner in own[own.checkpoint == members[0].sha256].partner.unique():
                asked = own[own.partner == partner]
                each = [
                    metrics.aggregate(_by(asked[asked.checkpoint == m.sha256], protocol), protocol) for m in members
                ]
                tables.append(_over_seeds(each, members, ("P", "J", "seconds")).assign(partner=partner))
    if not tables:
        raise CosegError("no rows of these systems; evaluate them first")
    columns = [*FACTS, "dataset", "protocol", "partner", "group", "images", "P", "sd P", "J", "sd J", "seconds"]
    return pd.concat(tables, ignore_index=True)[columns]


# The questions that no paper asks -------------------------------------------------------------------------------------


def questioned(
    some: Sequence[System],
    dataset: str,
    kept: str | Path,
    most: int = 0,
    patient: bool = False,
    partners: int = 20,
    seed: int = 0,
    say: Callable[[str], None] = print,
    data_root=None,
) -> pd.DataFrame:
    """Partner swap and refusal (`coseglib.scoring.questions`): a row a question. Kept and gone on with as `measured` does.

    most     of refusal, the first so many photographs of each group; 0: all. Partner swap takes the whole set
    patient  ask `features`, too
    Columns checkpoint, question, group, name, J_asked, J_other (swap), common, score (refusal), key.
    """
    groups = load(dataset, data_root)
    sources = load(SOURCES[dataset], data_root) if dataset in SOURCES else None
    few = cut(groups, most)
    content = {"partner-swap": _key([*groups, *(sources or ())], seed), "refusal": _key(few, seed)}
    parts = {
        f"{dataset}, {s.name}: {question}": (s, question)
        for s in some
        for question in content
        if patient or s.blind or not s.floor
    }

    def wanted(system: System) -> int:
        return 1 if system.blind else partners

    def key(part) -> str:
        system, question = part
        return f"{_answering(system)} {question} {wanted(system)} {content[question]}"

    def run(part, say) -> pd.DataFrame:
        system, question = part
        if question == "partner-swap":
            rows = partner_swap(system.model, groups, wanted(system), seed=seed, sources=sources)
            rows = rows.rename(columns={"asked": "group", "photo": "name"})[["group", "name", "J_asked", "J_other"]]
        else:
            rows = refusal(system.model, few, seed)[["group", "name", "common", "score"]]
        say(f"{len(rows)} questions")
        return rows.assign(checkpoint=system.sha256, question=question)

    rows = pd.DataFrame()
    for rows in resumable_rows(parts, Path(kept), key, run, say, NUMBERS):  # noqa: B007 (the last has all)
        pass
    return rows.assign(dataset=dataset)


def answered(rows: pd.DataFrame, some: Sequence[System]) -> pd.DataFrame:
    """A row a system and data set, of the rows of `questioned`, of several data sets if you like.

    Columns FACTS, dataset, questions, J_asked, J_other, swap = their difference, "se swap" (standard error over
    questions, as if these were independent), photographs, AUROC, and sd over seeds as in `scored`. J, swap: 0 to 1.
    """
    figures, tables = ("J_asked", "J_other", "swap", "AUROC"), []
    for members in _families(some):
        for dataset, own in rows.groupby("dataset", sort=False):
            each = []
            for member in members:
                mine = own[own.checkpoint == member.sha256]
                swap, unsure = (mine[mine.question == q] for q in ("partner-swap", "refusal"))
                if mine.empty:
                    continue
                score = swap.J_asked - swap.J_other
                about = {"dataset": dataset, "questions": len(swap), "photographs": len(unsure) // 2}
                about |= {"J_asked": swap.J_asked.mean(), "J_other": swap.J_other.mean(), "swap": score.mean()}
                about |= {"se swap": score.sem(), "AUROC": metrics.auroc(unsure.score, unsure.common)}
                each.append(pd.DataFrame([about]))
            if len(each) == len(members):
                tables.append(_over_seeds(each, members, figures))
    if not tables:
        raise CosegError("no rows of these systems; ask them first")
    columns = [
        *FACTS,
        "dataset",
        "questions",
        "J_asked",
        "J_other",
        "swap",
        "sd swap",
        "se swap",
        "photographs",
        "AUROC",
    ]
    return pd.concat(tables, ignore_index=True)[[*columns, "sd AUROC"]]


# Beside the papers ----------------------------------------------------------------------------------------------------


def printed(dataset: str, file: Path = REPORTED) -> pd.DataFrame:
    """What the papers print of a data set: a row a table, system and group, P and J as shares, NaN where not printed.

    Columns source ("chen2018, table 3"), system, own (False: a rival that the paper quotes), ablation, backbone,
    trained on, protocol, group, P, J, note (errata, applied, and seconds for the whole set). No rows for a set of which
    no paper speaks.
    """
    table = reported(file)
    table, rows = table[table.dataset == dataset], []
    for (paper, number, system, group), some in table.groupby(["paper", "table", "method", "group"], sort=False):
        figures = dict(zip(some.metric, some.value, strict=True))
        own = not re.search(r"\d{4}", system)
        backbone, trained = _PAPERS.get(paper, ("", "")) if own else ("", "")
        special = "-pairs" if number.startswith("text") else "-instant" if system.endswith("instant") else ""
        protocol = _PROTOCOL_OF.get(paper, paper + special)
        network = re.search(r"VGG16|HRNet", system) if own else None  # SSNM's systems are named for theirs
        notes = list(dict.fromkeys(some.note))
        notes += [f"{figures['seconds']:g} s for the whole set"] if "seconds" in figures else []
        rows.append(
            {
                "source": f"{paper}, {number if number.startswith('text') else f'table {number}'}",
                "system": system,
                "own": own,
                "ablation": some.note.str.startswith("ablation").any(),
                "backbone": network[0] if network else backbone,
                "trained on": trained,
                "protocol": protocol if own else "as quoted",
                "group": group,
                **{share: figures.get(share, float("nan")) for share in SHARES},
                "note": "; ".join(filter(None, notes)),
            }
        )
    columns = ("source", "system", "own", "ablation", "backbone", "trained on", "protocol", "group", *SHARES, "note")
    return pd.DataFrame(rows, columns=columns)


def beside(table: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """One table for a CSV: the papers' rows first, then ours; the column `source` says whose they are."""
    theirs = paper.drop(columns=["own", "ablation"]).assign(dataset=table.dataset.iloc[0])
    ours = table.assign(source=MEASURED)
    return pd.concat([theirs, ours], ignore_index=True)[["source", *table.columns, "note"]] if len(paper) else ours


def by_group(table: pd.DataFrame, paper: pd.DataFrame, partner: str = "group") -> pd.DataFrame:
    """J by group, the papers' systems above ours: index (source, system), columns the groups of `table`, "all" last.

    table  of `scored`, one protocol
    """
    ours = table[table.partner == partner].assign(source=MEASURED)
    groups = list(dict.fromkeys(ours.group))
    theirs = paper[paper.group.isin(groups)]
    theirs = theirs[theirs.groupby(["source", "system"]).group.transform("size") > 1]
    both = pd.concat([theirs, ours]) if len(theirs) else ours
    index = list(dict.fromkeys(zip(both.source, both.system, strict=True)))
    wide = both.pivot(index=["source", "system"], columns="group", values="J")
    return wide.reindex(index=pd.MultiIndex.from_tuples(index, names=["source", "system"]), columns=groups)


def share(value: float, sd: float = float("nan")) -> str:
    """ "0.883", "0.883 ± 0.004", "–" for what is not known."""
    if value != value:
        return NONE
    return f"{value:.3f}" if sd != sd else f"{value:.3f} ± {sd:.3f}"


def _text(table: pd.DataFrame) -> str:
    return table.replace("", NONE).to_markdown(index=False, disable_numparse=True) if len(table) else "None."


def _not_shown(systems: Collection[str]) -> pd.DataFrame:
    """A row a shipped checkpoint that is withdrawn and not among `systems`: why, in the place of its figures."""
    away = [card for card in cards() if withdrawn(card) and card["name"] not in systems]
    rows = [
        {"system": c["name"], "variant": ", ".join([c["variant"], *beyond(c)]), "backbone": c["backbone"]}
        | {"P": withdrawn(c), "checkpoint": digits(c)}
        for c in away
    ]
    return pd.DataFrame(rows, columns=SHOWN).fillna(NONE)


def markdown(table: pd.DataFrame, paper: pd.DataFrame, protocol: str = "common") -> str:
    """The table of one data set, to be read: what the papers print, and apart from it what was measured here.

    table  of `scored`; its rows of `protocol` are shown, those of group "all" with all their facts, J by group below
    paper  of `printed`
    """
    table = table[table.protocol == protocol]
    whole = table[table.group == "all"]
    text = {s: [share(*pair) for pair in zip(whole[s], whole[f"sd {s}"], strict=True)] for s in SHARES}
    text["s an image"] = [share(seconds) for seconds in whole.seconds]
    ours, floor = whole.assign(**text)[list(SHOWN)], whole.method == "floor"
    theirs = paper[paper.group == "all"] if (paper.group == "all").any() else paper
    theirs = theirs.assign(**{s: theirs[s].map(share) for s in SHARES}).drop(columns=["own", "ablation"])
    blocks = {
        "As the papers print it, under their own protocols": theirs,
        "Measured here": pd.concat([ours[~floor], _not_shown(set(whole.system))]),
        "Measured here: floors, which learned nothing about co-segmentation": ours[floor],
        "J by group; ours attended by the group": by_group(table, paper).map(share).reset_index(),
    }
    return "\n\n".join(f"**{title}**\n\n{_text(block)}" for title, block in blocks.items()) + "\n"
