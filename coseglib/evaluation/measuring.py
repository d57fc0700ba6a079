"""The figures of a card: what a checkpoint scores on whole data sets, under protocol `common`."""

import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from coseglib.core.files import write_text
from coseglib.data import load
from coseglib.evaluation.kept import code_hash
from coseglib.evaluation.tables import SOURCES
from coseglib.scoring import metrics
from coseglib.scoring.questions import partner_swap, refusal
from coseglib.scoring.rows import PARTNERS, evaluate

# By what a model was trained on: sets for P and J, and sets for partner swap and refusal.
TEST_SETS = {
    "real": (("msrc7", "icoseg8", "pascal"), ("pascal", "voc-val")),
    "synthetic": (("synthetic",), ("synthetic",)),
}
TELLING = 0.6  # balanced accuracy, where .5 is chance


def _by_partner(model: nn.Module, name: str, data_root=None) -> dict:
    """P and J of a set, attended by the group, by the photograph itself, by a wrong group."""
    found = {}
    rows = evaluate(model, load(name, data_root), "common", PARTNERS)
    for partner, some in rows.groupby("partner", sort=False):
        table = metrics.aggregate(some, "common")
        last = table.iloc[-1]
        found[partner] = {"P": round(float(last.P), 4), "J": round(float(last.J), 4)}
        if partner == "group":
            groups = table[table.group != "all"]
            found[partner]["by_group"] = dict(zip(groups.group, groups.J.astype(float).round(4), strict=True))
    return found


def _asked(model: nn.Module, name: str, data_root=None) -> dict:
    """Partner swap in points and refusal's AUROC, and from which score on most pairs are told apart."""
    groups = load(name, data_root)
    swap = partner_swap(model, groups, sources=load(SOURCES[name], data_root) if name in SOURCES else None)
    unsure = refusal(model, groups)
    j = {side: round(float(swap[side].mean()), 4) for side in ("J_asked", "J_other")}
    score, right = metrics.best_threshold(unsure.score, unsure.common)
    return {
        "partner_swap": {"questions": len(swap), **j, "points": round(100 * float(swap.score.mean()), 2)},
        "refusal_auroc": round(metrics.auroc(unsure.score, unsure.common), 4),
        "refusal_from": {"score": round(score, 4), "right": round(right, 4)},
    }


def measure(
    model: nn.Module, kept: str | Path | None = None, data_root=None, say: Callable[[str], None] = print
) -> dict:
    """What a card states, {set: figures}: J and P by partner, partner swap and refusal, on the sets of TEST_SETS.

    model  with its card: `training` says what it was trained on
    kept   a JSON file that grows set by set; what stands there of the same file, answering in the same way by the same
           code, is not measured again, so that a run that was killed goes on. None: nothing is kept
    """
    card, kept = model.card, Path(kept) if kept else None
    of = [card["sha256"], card["looks"], card.get("post", "argmax"), code_hash()]
    known = json.loads(kept.read_text(encoding="utf-8")) if kept and kept.is_file() else {}
    parts = known["parts"] if known.get("of") == of else {}
    averaged, asked = TEST_SETS[card["training"]["data"]]
    jobs = {f"{name}: P and J": (name, _by_partner) for name in averaged}
    jobs |= {f"{name}: partner swap and refusal": (name, _asked) for name in asked}
    found: dict = {}
    for what, (name, job) in jobs.items():
        if what in parts:
            say(f"{what}: done before")
        else:
            parts[what] = job(model, name, data_root)
            say(f"{what}: {_told(parts[what])}")
            if kept:
                write_text(kept, json.dumps({"of": of, "parts": parts}, allow_nan=False))
        found.setdefault(name, {}).update(parts[what])
    return found


def _told(part: Mapping) -> str:
    if "refusal_auroc" in part:
        return f"{part['partner_swap']['points']} points, AUROC {part['refusal_auroc']}"
    return ", ".join(f"J {figures['J']:.3f} by {partner}" for partner, figures in part.items())


def provenance() -> dict:
    """When, by which torch and on what a card's figures are measured."""
    machine = platform.machine() + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")
    return {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "machine": machine}


def common_from(found: Mapping) -> dict | None:
    """From which score on `coseg segment` believes that something is common: of validation images, else of scenes.

    found  what `measure` gives. -> score, on (the set's name), right (share of its pairs answered right); or None where
           that share is below TELLING: such a model cannot tell, and a warning would be noise
    """
    for name in ("voc-val", "synthetic"):
        if about := found.get(name, {}).get("refusal_from"):
            return {**about, "on": name} if about["right"] >= TELLING else None
    return None
