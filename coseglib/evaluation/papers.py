"""Benchmark tables beside the figures that the papers print, as CSV and to be read."""

import re
from collections.abc import Collection

import pandas as pd

from coseglib.data.reported import SHARES, reported
from coseglib.evaluation.cards import beyond, cards, digits, withdrawn
from coseglib.evaluation.systems import NONE
from coseglib.models import METHODS
from coseglib.models.contract import Paper
from coseglib.scoring.metrics import PROTOCOLS

SHOWN = ("system", "variant", "backbone", "trained on", "seeds", "protocol", "partner", "images", "P", "J")
SHOWN += ("s an image", "checkpoint")
MEASURED_HERE = "measured here"  # the source of our rows, beside the papers'
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


def markdown(table: pd.DataFrame, paper: pd.DataFrame) -> str:
    """The table of one data set, to be read: what the papers print, and apart from it what was measured here.

    table  of `score_table`; shown is protocol `common`: group "all" with all its facts, and J by group below
    """
    table = table[table.protocol == "common"]
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
        "J by group; ours attended by the group": group_table(table, paper).map(share).reset_index(),
    }
    return "\n\n".join(f"**{title}**\n\n{_text(block)}" for title, block in blocks.items()) + "\n"
