"""What cards say: of shipped checkpoints (`data/checkpoints`), of models measured and not shipped (`data/measured`).

A card may say of itself
  withdrawn  why its figures are not those of the system that it names: this stands in their place, everywhere
  engine     how its figures were answered, where that is not how models answer now; EARLIER marks its checksum
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from coseglib.core.files import read_json
from coseglib.core.paths import CHECKPOINTS, MEASURED
from coseglib.data.sets import msrc
from coseglib.training.configuration import MAY_CHANGE, TrainConfig, load_profile
from coseglib.training.runs import CURVE_COLUMNS, read_log

SMALL = "mobilenet_v2"  # the backbone of all that is shipped


class Aim(NamedTuple):
    """What the workbook set out for: the best model on a backbone, on a set, protocol `common`, in one of FIGURES."""

    backbone: str
    set: str
    figure: str
    wanted: float


NEVER_TRAINED = "icoseg30"  # kinds of `unseen_groups`: J of `choosing`, which asks about a part of it
AIMS = (
    Aim(SMALL, "msrc7", "group", 0.91),
    Aim(SMALL, "icoseg8", "group", 0.89),
    Aim(SMALL, "pascal", "group", 0.64),
    Aim(SMALL, NEVER_TRAINED, "group", 0.76),
    Aim(SMALL, "icoseg8", "other", 0.25),
    Aim(SMALL, "pascal", "swap", 40.0),
    Aim(SMALL, "pascal", "AUROC", 0.88),
    Aim("resnet50", "msrc7", "group", 0.93),
    Aim("resnet50", "icoseg8", "group", 0.93),
    Aim("resnet50", "pascal", "group", 0.72),
)
LESS = ("other",)  # figures of which less is better
ANSWERED = ["sha256", "looks", "post"]  # whose figures they are
EARLIER = " †"
ONE_WAY = "2026-11-29"  # since this date models answer as they do now; what a run before it found is EARLIER
FOOTNOTE = "† answered as models did until November 2026: partners were drawn by the number of the question."
FIGURES = ["group", "self", "other", "swap", "AUROC"]


def cards(folder: Path = CHECKPOINTS) -> list[dict]:
    """The cards of the shipped checkpoints, by name; of MEASURED: of models that were measured and are not shipped.

    A file with a dot before its name is a measurement in progress.
    """
    return [read_json(file, "it is no card: move it away") for file in sorted(folder.glob("[!.]*.json"))]


def others() -> list[dict]:
    """The cards of MEASURED, but for those of a shipped checkpoint's very weights, asked without the CRF."""
    shipped = {card["sha256"] for card in cards()}
    return [card for card in cards(MEASURED) if card["sha256"] not in shipped]


def runs_of(card: Mapping | None) -> Iterator[Mapping]:
    """A training run and those it started from, the last one first."""
    while card:
        yield card
        card = card.get("started_from")


def pairs_of(card: Mapping) -> str:
    """What a model was trained on last: "plain" pairs, as the papers, or "hard, empty" ones beside them."""
    _, *asking = card["training"][-1]["shares"]
    return "hard, empty" if any(asking) else "plain"


def beyond(card: Mapping) -> list[str]:
    """What a card's answers owe to no network: "two looks", "CRF", or neither."""
    there = {"two looks": card.get("looks") == 2, "CRF": card.get("post") == "crf"}
    return [name for name, yes in there.items() if yes]


def trained_on_field(trainings: Sequence[Mapping], kept_apart: Sequence[str] = ()) -> list[str]:
    """The photographs of `msrc7-field` that a model of these trainings learned from: what its training list held.

    trainings   its configurations, as cards have them     kept_apart  the sets that its card says it was kept from
    """
    real = any(one.get("data", "real") == "real" for one in trainings)
    return msrc.field_photos("train") if real and "msrc7-field" not in kept_apart else []


def field_note(seen: Mapping[str, Sequence[str]]) -> str:
    """What is to be said of figures on `msrc7-field`. seen: {model: of `trained_on_field`}; "" where none learned."""
    some = {name: photos for name, photos in seen.items() if photos}
    if not some:
        return ""
    photos = list(dict.fromkeys(photo for names in some.values() for photo in names))
    whole = sum(map(len, msrc.FIELD.values()))
    which = "each of these models" if len(seen) == len(some) > 3 else ", ".join(some)
    trained = f"{len(photos)} of its {whole} photographs trained it ({', '.join(photos)})"
    return f"msrc7-field is no test of {which}: {trained}."


def precision_note(some: Sequence[Mapping]) -> str:
    """Which cards' figures were measured in 16 bits, and are those of such a processor; "" where none was."""
    names = [card["name"] for card in some if card.get("measured", {}).get("precision") == "bf16-mixed"]
    return f"Measured in 16 bits, all others in 32, which moves J by up to .004: {', '.join(names)}." if names else ""


def digits(card: Mapping) -> str:
    """The first 8 digits of a card's checksum, marked EARLIER where FOOTNOTE holds."""
    return card["sha256"][:8] + (EARLIER if "engine" in card else "")


def earlier(date: str) -> str:
    """EARLIER for what was answered before ONE_WAY, else ""."""
    return EARLIER if date < ONE_WAY else ""


def made_again(card: Mapping) -> list[str]:
    """The commands that train a card's model again, one a run, each from what the one before left; where its weights
    are a mean of runs, the one that ships it, too.

    The profile nearest to the run's fields, the others by --set; those of MAY_CHANGE, which decide no weight, are left.
    """
    lines, start, folders = [], "", {}
    for number, run in enumerate(card["training"], 1):
        wanted = TrainConfig(**run).replaced(start=start).fields()
        known = {p: load_profile(p, run["method"]).fields() for p in ("cpu", "workbook", "late", "gpu", "paper")}
        other = {p: [k for k, v in wanted.items() if v != of[k] and k not in MAY_CHANGE] for p, of in known.items()}
        profile = min(other, key=lambda p: len(other[p]))
        text = [v if isinstance(v := wanted[k], str) else json.dumps(v, separators=(",", ":")) for k in other[profile]]
        sets = [word for pair in zip(other[profile], text, strict=True) for word in ("--set", "=".join(pair))]
        folder = f"runs/{card['name']}" + (f"-{number}" if number < len(card["training"]) else "")
        folders[run["steps"]] = folder
        begin = ["coseg", "train", "--method", run["method"], "--profile", profile]
        lines, start = [*lines, shlex.join([*begin, *sets, "--output", folder])], f"{folder}/model.safetensors"

    def folder_at(step: int) -> str:  # a run's last step is its folder's; of a step before it nothing is kept
        return folders.get(step, f"step {step} of these runs")

    if "averaged" in card:
        others = [word for part in card["averaged"][1:] for word in ("--average", folder_at(part["step"]))]
        how = ["--looks", str(card["looks"]), "--post", card["post"]]
        first = folder_at(card["averaged"][0]["step"])
        lines.append(shlex.join(["coseg", "ship", first, card["name"], *others, *how]))
    return lines


def withdrawn(card: Mapping) -> str:
    """ "withdrawn: why", or "" of a card whose figures stand."""
    return f"withdrawn: {card['withdrawn']}" if "withdrawn" in card else ""


def stated(some: Sequence[Mapping]) -> pd.DataFrame:
    """What cards say of whole sets, protocol `common`; nothing is run. A row a card and set.

    Columns system, method, variant (with `beyond`), backbone, pairs, steps, minutes, set, group, self, other (J by
    partner), swap (points), AUROC (refusal), checkpoint (`digits`). NaN: not measured. A card that is withdrawn has one
    row, its reason in the place of a set.
    """
    rows = []
    for card in some:
        about = {"system": card["name"], "method": card["method"]}
        about |= {"variant": ", ".join([card["variant"], *beyond(card)]), "backbone": card["backbone"]}
        about |= {"pairs": pairs_of(card), "steps": card["steps"], "minutes": card["minutes"]}
        why = withdrawn(card)
        for name, found in ({why: {}} if why else card["figures"]).items():
            row = {partner: found.get(partner, {}).get("J") for partner in FIGURES[:3]}
            row |= {"swap": found.get("partner_swap", {}).get("points"), "AUROC": found.get("refusal_auroc")}
            rows.append({**about, "set": name, **row, "checkpoint": digits(card)})
    return pd.DataFrame(rows).astype(dict.fromkeys(FIGURES, float))


def both_ways(some: Sequence[Mapping]) -> pd.DataFrame:
    """Plain pairs against hard and empty ones beside them, the rest alike: of NAME-plain and NAME-asking, a row a set.

    Columns method, set, and of each of the two ("J: plain"): J, "J, wrong group", swap (points), AUROC, steps. Both by
    argmax after one look. Without what is withdrawn.
    """
    table = stated([card for card in some if not withdrawn(card)])
    names = {"group": "J", "other": "J, wrong group", "swap": "swap", "AUROC": "AUROC", "steps": "steps"}
    figures = table.rename(columns=names).set_index(["method", "set"])[list(names.values())]
    plain, asking = (figures[table.system.str.endswith(f"-{side}").to_numpy()] for side in ("plain", "asking"))
    both = plain.join(asking, how="inner", lsuffix=": plain", rsuffix=": asking")
    return both[[f"{name}: {side}" for name in figures for side in ("plain", "asking")]].reset_index()


def reached(some: Sequence[Mapping], choices: pd.DataFrame | None = None) -> pd.DataFrame:
    """The workbook's aims and how near the best model of each kind came: a row an aim of which a figure is known.

    choices  of `coseglib.evaluation.choosing`: J on kinds that never train, of models that are among `some`
    Columns aim, backbone, wanted, best, short (what is missing; 0: reached), system. Nothing is chosen by this best.
    """
    table, rows = stated(some), []
    if choices is not None:
        own = pd.DataFrame([{"system": c["name"], **{key: c.get(key) for key in ANSWERED}} for c in some])
        own = own.merge(choices[[*ANSWERED, "unseen"]]).merge(table[["system", "backbone"]].drop_duplicates())
        table = pd.concat([table, own.rename(columns={"unseen": "group"}).assign(set=NEVER_TRAINED)])
    words = {"group": "J", "other": "J by a wrong group", "swap": "partner swap, points", "AUROC": "refusal, AUROC"}
    for aim in AIMS:
        own = table[(table.backbone == aim.backbone) & (table["set"] == aim.set)].dropna(subset=[aim.figure])
        if len(own):
            own, sign = own.reset_index(drop=True), -1 if aim.figure in LESS else 1
            best = own.loc[(sign * own[aim.figure]).idxmax()]
            row = {"aim": f"{aim.set}, {words[aim.figure]}", "backbone": aim.backbone, "wanted": aim.wanted}
            row |= {"best": best[aim.figure], "short": max(0.0, sign * (aim.wanted - best[aim.figure]))}
            rows.append(row | {"system": best.system})
    return pd.DataFrame(rows)


def shipped_costs(folder: Path = CHECKPOINTS) -> pd.DataFrame:
    """By checkpoint that is shipped: what its card says of its cost, and J on two test sets. No log is needed.

    runs       trainings, one after the other, each from the weights of the one before
    images/s   over the whole time, validations among it. NaN, as `images`, where the runs' steps differ in images: the
               card has the steps' sum alone
    minutes    on the card's device; MB: of the file
    """
    rows = {}
    for card in cards(folder):
        a_step = {t["groups"] * t["group_size"] for t in card["training"]}
        images = card["steps"] * a_step.pop() if len(a_step) == 1 else np.nan
        row = {name: card[name] for name in ("method", "variant", "backbone")}
        row |= {"runs": len(card["training"]), "steps": card["steps"], "images": images, "minutes": card["minutes"]}
        row |= {"images/s": images / card["minutes"] / 60, "device": card["device"], "MB": card["bytes"] / 1e6}
        for name in ("msrc7", "icoseg8"):
            figures = {} if withdrawn(card) else card["figures"]
            row[f"J {name}"] = figures.get(name, {}).get("group", {}).get("J", np.nan)
        rows[card["name"]] = {**row, "checkpoint": card["sha256"][:8]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def shipped_logs(folder: Path = CHECKPOINTS) -> pd.DataFrame:
    """`tidy_logs`'s columns, by checkpoint that is shipped with the log of its (last) training; empty where none is."""
    logs = [pd.DataFrame(columns=list(CURVE_COLUMNS))]
    for card in cards(folder):
        if (file := folder / f"{card['name']}.log.csv").is_file():
            logs.append(read_log(file, card["training"][-1]).assign(system=card["name"]))
    return pd.concat(logs[1:] or logs, ignore_index=True)[list(CURVE_COLUMNS)]
