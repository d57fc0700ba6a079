"""Benchmark rows and tables: systems, and what needs no training, on one data set, beside what the papers print.

How far does a protocol alone move J? Two of its five fields, `average` and `empty`, are other sums over the same
counts. The other three, `context`, `size` and `threshold`, decide what is counted: protocols that agree in them share
one evaluation, so that all of `PROTOCOLS` take five. `CHANGES` are steps from `common`, one field each.

Floors are asked less. `everything` and `ellipse` look at no photograph, and a saliency network (`onnx:FILE`) at no
other one, so one question answers for every partner.
`features` sees all partners anew for every photograph of a wrong group, minutes a group: without `patient` it is asked
under `common` only, by its group and by itself.
"""

import math
import re
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from joblib import cpu_count

from coseglib.core.errors import CosegError
from coseglib.data import NAMES, load
from coseglib.data.record import Group
from coseglib.data.reported import SHARES, anchors, reported
from coseglib.evaluation.cards import beyond, cards, digits, field_note, withdrawn
from coseglib.evaluation.kept import Part, Say, digest_of, resumable_rows
from coseglib.evaluation.systems import FACTS, NONE, System, families, over_seeds
from coseglib.evaluation.tables import SOURCES, cuts
from coseglib.models import METHODS
from coseglib.models.contract import Paper
from coseglib.scoring import metrics
from coseglib.scoring.metrics import PROTOCOLS, Protocol
from coseglib.scoring.rows import PARTNERS, evaluate, partner_swap, refusal

COUNTS = ["right", "counted", "intersection", "union"]
ALL = tuple(PROTOCOLS.values())
ASKED_OF = 20  # partners of a partner swap

_COMMON = PROTOCOLS["common"]
_NETWORK = replace(_COMMON, name="at the network's size", size="network")
CHANGES = (
    _COMMON,
    replace(_COMMON, name="a pair for the group", context="pair"),
    _NETWORK,
    replace(_NETWORK, name="at the network's size, mean + sd for p > 0.5", threshold="mean+std"),
    replace(_COMMON, name="two empty masks score 0", empty="zero"),
    replace(_COMMON, name="total counts in a group", average="class"),
    replace(_COMMON, name="mean over all images", average="pooled"),
    replace(_COMMON, name="total counts of all images", average="total"),
)


def available_sets(names: Sequence[str], say: Say = print) -> dict[str, list[Group]]:
    """The groups of those data sets that are here; a line says what is missing.

    Raises CosegError for a name that is no data set's, and where none is here.
    """
    sets = {}
    for name in names:
        if name not in NAMES:
            raise CosegError(f"{name}: no such data set; one of {', '.join(NAMES)}")
        try:
            sets[name] = load(name)
        except CosegError as missing:
            say(f"{name}: not here ({missing})")
    if not sets:
        raise CosegError(f"none of {', '.join(names)} is here; data/README.md says how to get them")
    return sets


def scored_part(groups: Sequence[Group], limit: int | None = None) -> str:
    """ "70 images", or of groups that `limit` cuts "60 of 1037 images, the first 3 of each group"."""
    every, few = sum(map(len, groups)), sum(len(group.photos[:limit]) for group in groups)
    return f"{every} images" if few == every else f"{few} of {every} images, the first {limit} of each group"


def _answering(system: System) -> str:
    """What masks depend on besides photographs and questions."""
    return f"{system.sha256[:16]} {system.model.looks} {system.model.post}"


def _key(groups: Sequence[Group], *more: object) -> str:
    """What rows depend on besides the checkpoint: photographs, masks, and more."""
    return digest_of([[[g.dataset, g.name, g.content(masks=True)] for g in groups], *more], digits=16)


def evaluation_of(protocol: Protocol) -> str:
    """The fields of a protocol that decide what is counted: "group, own, argmax"."""
    return f"{protocol.context}, {protocol.size}, {protocol.threshold}"


def evaluations(protocols: Sequence[Protocol] = ALL) -> dict[str, str]:
    """What has to be evaluated for some protocols: {`evaluation_of` them: a protocol of the registry that is of it}.

    Raises CosegError for a combination that no registered protocol has.
    """
    registered = {evaluation_of(p): name for name, p in reversed(PROTOCOLS.items())}  # the first of each stays
    wanted = {}
    for protocol in protocols:
        which = evaluation_of(protocol)
        if which not in registered:
            raise CosegError(f"{protocol.name}: no protocol of metrics.PROTOCOLS is {which}; register one")
        wanted[which] = registered[which]
    return wanted


def _asked(system: System, which: str, partners: Sequence[str], patient: bool) -> tuple[str, ...]:
    """Whose attention counts in an evaluation: all partners in that of `common`, the group's in the others."""
    everything = patient or system.blind or not system.floor
    if which != evaluation_of(_COMMON):
        return tuple(p for p in partners if p == "group" and everything)
    return tuple(p for p in partners if p != "other" or everything)


def _all_rows(parts: dict[str, Part], kept: str | Path, say: Say, numbers: dict[str, type]) -> pd.DataFrame:
    """Of rows that grow part by part, all; none where there are no parts. Cores that torch leaves idle take parts."""
    workers = 1 if torch.cuda.is_available() else max(1, cpu_count() // torch.get_num_threads())
    return (deque(resumable_rows(parts, Path(kept), say, numbers, workers=workers), maxlen=1) or [pd.DataFrame()])[-1]


def photo_rows(
    some: Sequence[System],
    groups: Sequence[Group],
    kept: str | Path,
    protocols: Sequence[Protocol] = ALL,
    partners: Sequence[str] = PARTNERS,
    patient: bool = False,
    limit: int | None = None,
    seed: int = 0,
    say: Say = print,
    floors_kept: str | Path | None = None,
) -> pd.DataFrame:
    """A row a system, evaluation, partner and photograph: its four counts in pixels and seconds an answer.

    kept      CSV of these rows: what stands there of the same checkpoint, photographs, masks, partners, seed is not run
    floors_kept  another one for `features`, the slowest of all, which no training changes; None: `kept` as well
    partners  asked in the evaluation of `common`; the other evaluations ask for the group's
    patient   ask `features` all that the others are asked, too
    limit     rows of the first so many photographs of each group, asked with the whole group; None: all
    Columns checkpoint (SHA-256), evaluation, dataset, group, name, partner, `COUNTS`, seconds, key. Seconds: with
    reading and scoring, partners asked in one go; NaN where the limit cuts a group, see `cuts`. Raises CosegError as
    `evaluate` does.
    """

    def run(system: System, which: str, protocol: str, asked: Sequence[str], say: Say) -> pd.DataFrame:
        rows = evaluate(system.model, groups, protocol, "self" if system.blind else asked, limit=limit, seed=seed)
        if system.blind:
            rows = pd.concat([rows.assign(partner=partner) for partner in asked], ignore_index=True)
        say(f"{len(rows)} masks" + ("" if unknown else f", {rows.seconds.mean():.2f} s each"))
        rows = rows.assign(checkpoint=system.sha256, evaluation=which, **unknown)
        return rows[["checkpoint", "evaluation", "dataset", "group", "name", "partner", *COUNTS, "seconds"]]

    unknown = {"seconds": math.nan} if cuts(limit, groups) else {}
    slow, fast, content = {}, {}, _key(groups, seed, limit)
    for system in some:
        parts = slow if floors_kept and system.floor and not system.blind else fast
        for which, protocol in evaluations(protocols).items():
            if asked := _asked(system, which, partners, patient):
                key = f"{_answering(system)} {which} {'|'.join(asked)} {content}"
                part = Part(key, partial(run, system, which, protocol, asked))
                parts[f"{groups[0].dataset}, {system.name}: {which}"] = part
    numbers = {**dict.fromkeys(COUNTS, int), "seconds": float}
    tables = [_all_rows(parts, file, say, numbers) for parts, file in ((fast, kept), (slow, floors_kept)) if parts]
    # here again: what an earlier run kept may hold seconds
    return pd.concat(tables, ignore_index=True).assign(**unknown) if tables else pd.DataFrame()


def _by(rows: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Rows with P and J from their counts, two empty masks scored as the protocol does."""
    union, counted = rows["union"], rows["counted"]
    j = (rows["intersection"] / union.where(union > 0)).fillna(metrics.EMPTY[protocol.empty])
    return rows.assign(P=(rows["right"] / counted.where(counted > 0)).fillna(1.0), J=j)


def score_table(rows: pd.DataFrame, some: Sequence[System], protocols: Sequence[Protocol] = ALL) -> pd.DataFrame:
    """A row a system, protocol, partner and group; group "all" is the protocol's own average.

    Systems of one recipe (`System.recipe`), SEEDS or more of them, are one: means, and sd over seeds in "sd P", "sd J".
    Columns FACTS, dataset, protocol, partner, group, images, P, sd P, J, sd J, seconds. Rows that were not measured are
    not there. Raises CosegError where there is none.
    """
    tables = []
    for members in families(some):
        for protocol in protocols:
            own = rows[rows.evaluation == evaluation_of(protocol)]
            for partner in own[own.checkpoint == members[0].sha256].partner.unique():
                asked = _by(own[own.partner == partner], protocol)
                each = [metrics.aggregate(asked[asked.checkpoint == m.sha256], protocol) for m in members]
                tables.append(over_seeds(each, members, ("P", "J", "seconds")).assign(partner=partner))
    columns = ["dataset", "protocol", "partner", "group", "images", "P", "sd P", "J", "sd J", "seconds"]
    return _joined(tables, columns)


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    if not tables:
        raise CosegError("no rows of these systems; evaluate them first")
    return pd.concat(tables, ignore_index=True)[[*FACTS, *columns]]


def question_rows(
    some: Sequence[System],
    dataset: str,
    kept: str | Path,
    limit: int | None = None,
    patient: bool = False,
    seed: int = 0,
    say: Say = print,
) -> pd.DataFrame:
    """Partner swap and refusal (`coseglib.scoring.rows`): a row a question. Kept as `photo_rows` keeps them.

    limit    of refusal, the first so many photographs of each group; None: all. Partner swap asks about the whole set
    patient  ask `features`, too
    Columns checkpoint, question, group, name, J_asked, J_other (swap), common, score (refusal), key.
    """
    groups, sources = load(dataset), load(SOURCES[dataset]) if dataset in SOURCES else None

    def run(system: System, question: str, partners: int, say: Say) -> pd.DataFrame:
        if question == "partner-swap":
            rows = partner_swap(system.model, groups, partners, seed=seed, sources=sources)
            rows = rows.rename(columns={"asked": "group", "photo": "name"})[["group", "name", "J_asked", "J_other"]]
        else:
            rows = refusal(system.model, groups, seed, limit)[["group", "name", "common", "score"]]
        say(f"{len(rows)} questions")
        return rows.assign(checkpoint=system.sha256, question=question)

    parts = {}
    content = {"partner-swap": _key([*groups, *(sources or ())], seed), "refusal": _key(groups, seed, limit)}
    for system in (s for s in some if patient or s.blind or not s.floor):
        partners = 1 if system.blind else ASKED_OF
        for question, of in content.items():
            key = f"{_answering(system)} {question} {partners} {of}"
            parts[f"{dataset}, {system.name}: {question}"] = Part(key, partial(run, system, question, partners))
    numbers = dict.fromkeys(("J_asked", "J_other", "common", "score"), float)
    return _all_rows(parts, kept, say, numbers).assign(dataset=dataset)


def question_table(rows: pd.DataFrame, some: Sequence[System]) -> pd.DataFrame:
    """A row a system and data set, of the rows of `question_rows`, of several data sets if you like.

    Columns FACTS, dataset, questions, J_asked, J_other, swap = their difference, "se swap" (standard error over
    questions, as if these were independent), photographs, AUROC, sd over seeds as in `score_table`. J, swap: 0 to 1.
    """
    figures, tables = ("J_asked", "J_other", "swap", "AUROC"), []
    for members in families(some):
        for dataset, own in rows.groupby("dataset", sort=False):
            each = [_answered(own[own.checkpoint == member.sha256], dataset) for member in members]
            if all(map(len, each)):
                tables.append(over_seeds(each, members, figures))
    columns = ["dataset", "questions", "J_asked", "J_other", "swap", "sd swap", "se swap", "photographs", "AUROC"]
    return _joined(tables, [*columns, "sd AUROC"])


def _answered(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The row of one checkpoint and data set in `question_table`; none where it was not asked."""
    swap, unsure = (rows[rows.question == q] for q in ("partner-swap", "refusal"))
    score = swap.J_asked - swap.J_other
    about = {"dataset": dataset, "questions": len(swap), "photographs": len(unsure) // 2}
    about |= {"J_asked": swap.J_asked.mean(), "J_other": swap.J_other.mean(), "swap": score.mean()}
    about |= {"se swap": score.sem(), "AUROC": metrics.auroc(unsure.score, unsure.common)}
    return pd.DataFrame([about] if len(rows) else [])


# Beside the figures that the papers print -----------------------------------------------------------------------------

SHOWN = ("system", "variant", "backbone", "trained on", "seeds", "protocol", "partner", "images", "P", "J")
SHOWN += ("s an image", "checkpoint")
MEASURED_HERE = "measured here"  # the source of our rows, beside the papers'
ELSEWHERE = "Reported elsewhere, not measured here: other supervision, in part other photographs of the set"
PAPERS = {method.paper.key: method.paper for method in METHODS.values()}


def paper_rows(dataset: str) -> pd.DataFrame:
    """What the papers print of a data set: a row a table, system and group, P and J as shares, NaN where not printed.

    Columns source ("chen2018, table 3"), system, own (False: a rival that the paper quotes), ablation, backbone,
    trained on, protocol, group, P, J, note (errata, applied, and seconds for the whole set). No rows for a set of which
    no paper speaks.
    """
    table, rows = reported(), []
    by_group = table[table.dataset == dataset].groupby(["paper", "table", "method", "group"], sort=False)
    for (paper, number, system, group), some in by_group:
        figures = dict(zip(some.metric, some.value, strict=True))
        in_text, own = number.startswith("text"), not re.search(r"\d{4}", system)
        about = PAPERS[paper] if own else Paper(paper)
        special = "-pairs" if in_text else "-instant" if system.endswith("instant") else ""
        special = special if f"{about.protocol}{special}" in PROTOCOLS else ""
        protocol = about.protocol + special if own else "as quoted"
        network = re.search(r"VGG16|HRNet", system) if own else None  # SSNM's systems are named for theirs
        backbone = network[0] if network else about.backbone
        ablation = some.note.str.startswith("ablation").any()
        shares = (figures.get(share, float("nan")) for share in SHARES)
        notes = list(dict.fromkeys(some.note))
        notes += [f"{figures['seconds']:g} s for the whole set"] if "seconds" in figures else []
        note = "; ".join(filter(None, notes))
        source = f"{paper}, {number if in_text else f'table {number}'}"
        rows.append((source, system, own, ablation, backbone, about.trained_on, protocol, group, *shares, note))
    columns = ("source", "system", "own", "ablation", "backbone", "trained on", "protocol", "group", *SHARES, "note")
    return pd.DataFrame(rows, columns=columns)


def with_papers(table: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """One table for a CSV: the papers' rows first, then ours; the column `source` says whose they are."""
    theirs = paper.drop(columns=["own", "ablation"]).assign(dataset=table.dataset.iloc[0])
    ours = table.assign(source=MEASURED_HERE)
    return pd.concat([theirs, ours], ignore_index=True)[["source", *table.columns, "note"]] if len(paper) else ours


def group_table(table: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """J by group, the papers' systems above ours: index (source, system), columns the groups of `table`, "all" last.

    table  of `score_table`, one protocol; of it, what was attended by the group
    """
    ours = table[table.partner == "group"].assign(source=MEASURED_HERE)
    groups = list(dict.fromkeys(ours.group))
    theirs = paper[paper.group.isin(groups)]
    theirs = theirs[theirs.groupby(["source", "system"]).group.transform("size") > 1]
    both = pd.concat([theirs, ours]) if len(theirs) else ours
    index = list(dict.fromkeys(zip(both.source, both.system, strict=True)))
    wide = both.pivot(index=["source", "system"], columns="group", values="J")
    return wide.reindex(index=pd.MultiIndex.from_tuples(index, names=["source", "system"]), columns=groups)


def share(value: float, sd: float = float("nan")) -> str:
    """ "0.883", "0.883 ± 0.004", "–" for what is not known."""
    return NONE if value != value else f"{value:.3f}" if sd != sd else f"{value:.3f} ± {sd:.3f}"


def _text(table: pd.DataFrame) -> str:
    return table.replace("", NONE).to_markdown(index=False, disable_numparse=True) if len(table) else "None."


def _not_shown(systems: Collection[str]) -> pd.DataFrame:
    """A row a shipped checkpoint that is withdrawn and not among `systems`: why, in the place of its figures."""
    rows = []
    for card in cards():
        if withdrawn(card) and card["name"] not in systems:
            variant = ", ".join([card["variant"], *beyond(card)])
            about = {"system": card["name"], "variant": variant, "backbone": card["backbone"]}
            rows.append({**about, "P": withdrawn(card), "checkpoint": digits(card)})
    return pd.DataFrame(rows, columns=SHOWN).fillna(NONE)


def markdown(table: pd.DataFrame, paper: pd.DataFrame, some: Sequence[System] = ()) -> str:
    """The table of one data set, to be read: what the papers print, others report, and apart from it what was measured.

    table  of `score_table`; shown is protocol `common`: group "all" with all its facts, and J by group below
    some   the table's systems, where it is said which of them trained on photographs of `msrc7-field`
    """
    dataset = table.dataset.iloc[0]
    table = table[table.protocol == "common"]
    whole = table[table.group == "all"]
    text = {s: [share(*pair) for pair in zip(whole[s], whole[f"sd {s}"], strict=True)] for s in SHARES}
    text["s an image"] = [share(seconds) for seconds in whole.seconds]
    ours, floor = whole.assign(**text)[list(SHOWN)], whole.method == "floor"
    theirs = paper[paper.group == "all"] if (paper.group == "all").any() else paper
    theirs = theirs.assign(**{s: theirs[s].map(share) for s in SHARES}).drop(columns=["own", "ablation"])
    blocks = {
        "As the papers print it, under their own protocols": theirs,
        ELSEWHERE: _shared_out(anchors(dataset)),
        "Measured here": pd.concat([ours[~floor], _not_shown(set(whole.system))]),
        "Measured here: floors, which learned nothing about co-segmentation": ours[floor],
        "J by group; ours attended by the group": group_table(table, paper).map(share).reset_index(),
    }
    if blocks[ELSEWHERE].empty:
        del blocks[ELSEWHERE]
    parts = [f"**{title}**\n\n{_text(block)}" for title, block in blocks.items()]
    seen = {system.name: system.trained_on_field for system in some} if dataset == "msrc7-field" else {}
    return "\n\n".join([*parts, *filter(None, [field_note(seen)])]) + "\n"


def _shared_out(table: pd.DataFrame) -> pd.DataFrame:
    """`anchors`, its shares as text."""
    return table.drop(columns="dataset").assign(**{s: table[s].map(share) for s in SHARES})
