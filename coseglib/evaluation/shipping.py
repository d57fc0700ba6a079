"""From a training run to a checkpoint that is shipped: half precision, its figures measured anew, a card beside it."""

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from coseglib.answering.crf import post_of
from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.paths import CHECKPOINTS, REPOSITORY
from coseglib.data import load
from coseglib.evaluation.tables import SOURCES
from coseglib.models import METHODS
from coseglib.models.checkpoints import find, load_model, save_model, sha256
from coseglib.scoring import metrics
from coseglib.scoring.evaluation import PARTNERS, evaluate, partner_swap, refusal

# By what a model was trained on: sets for P and J, and sets for partner swap and refusal.
TEST_SETS = {
    "real": (("msrc7", "icoseg8", "pascal"), ("pascal", "voc-val")),
    "synthetic": (("synthetic",), ("synthetic",)),
}
TRAINED_ON = {
    "real": "VOC 2012 train list and MSRC v2 training part (data/lists/training.csv), from ImageNet weights",
    "synthetic": "procedural scenes of the training split, from ImageNet weights",
}
LARGEST = 8 * 2**20  # bytes
TELLING = 0.6  # balanced accuracy, where .5 is chance


def figures(model, data_root=None, say=print) -> dict:
    """What a card states, all under protocol `common` at the photographs' own size.

    J and P on the test sets, attended by the group, by the photograph itself, by a wrong group; partner swap in points
    and refusal's AUROC (for models of photographs also on the validation part of VOC).
    """
    found: dict = {}
    averaged, asked = TEST_SETS[model.card["training"]["data"]]
    for name in averaged:
        rows = evaluate(model, load(name, data_root), "common", PARTNERS)
        for partner, some in rows.groupby("partner", sort=False):
            table = metrics.aggregate(some, "common")
            by_group = {row.group: round(float(row.J), 4) for row in table.itertuples() if row.group != "all"}
            last = table.iloc[-1]
            entry = {"P": round(float(last.P), 4), "J": round(float(last.J), 4)}
            if partner == "group":
                entry["by_group"] = by_group
            found.setdefault(name, {})[partner] = entry
            say(f"{name} {partner}: P {entry['P']:.3f} J {entry['J']:.3f}")
    for name in asked:
        groups = load(name, data_root)
        sources = load(SOURCES[name], data_root) if name in SOURCES else None
        swap = partner_swap(model, groups, sources=sources)
        unsure = refusal(model, groups)
        found.setdefault(name, {})["partner_swap"] = {
            "questions": len(swap),
            "J_asked": round(float(swap.J_asked.mean()), 4),
            "J_other": round(float(swap.J_other.mean()), 4),
            "points": round(100 * float(swap.score.mean()), 2),
        }
        found[name]["refusal_auroc"] = round(metrics.auroc(unsure.score, unsure.common), 4)
        score, right = metrics.best_threshold(unsure.score, unsure.common)
        found[name]["refusal_from"] = {"score": round(score, 4), "right": round(right, 4)}
        say(f"{name}: swap {found[name]['partner_swap']['points']}, refusal {found[name]['refusal_auroc']}")
    return found


def common_from(found: dict) -> dict | None:
    """From which score on `coseg segment` believes that something is common: of validation images, else of scenes.

    found  what `figures` gives. -> score, on (the set's name), right (share of its pairs answered right); or None where
           that share is below TELLING: such a model cannot tell, and a warning would be noise
    """
    for name in ("voc-val", "synthetic"):
        if about := found.get(name, {}).get("refusal_from"):
            return {**about, "on": name} if about["right"] >= TELLING else None
    return None


def _runs(about: dict) -> list[dict]:
    """A run and those it started from, the first one first."""
    earlier = about.get("started_from")
    return [*(_runs(earlier) if earlier else []), about]


def _file_of(run: str | Path) -> Path:
    return Path(run) / "model.safetensors" if Path(run).is_dir() else find(run)


@torch.no_grad()
def average_in(model, runs: Sequence[str | Path]) -> list[dict]:
    """Make the weights of a model the mean of its own and those of runs that went on from it, or that it went on from.

    Along one path of training a network may win what it sees often and lose what it sees seldom; whether the mean keeps
    more of both is for validation to say (`reports/trials.md`, 5). Returns step and SHA-256 of each run's file. Raises
    CosegError for another model.
    """
    models = [load_model(_file_of(run), model.card["method"]) for run in runs]
    own = model.state_dict()
    for other in models:
        theirs = other.state_dict()
        if any(key not in theirs or theirs[key].shape != value.shape for key, value in own.items()):
            raise CosegError(f"{other.card['file']}: is another model than {model.card['file']}; average runs of one")
    for key, value in own.items():
        if value.is_floating_point():
            value.copy_(torch.stack([value, *(other.state_dict()[key] for other in models)]).mean(dim=0))
    return [{"step": other.card["step"], "sha256": other.card["sha256"]} for other in models]


def ship(
    run: str | Path,
    name: str,
    folder: Path = CHECKPOINTS,
    data_root=None,
    say=print,
    average: Sequence[str | Path] = (),
    looks: int | None = None,
    post: str | None = None,
    card_only: bool = False,
) -> Path:
    """Write `folder`/`name`.safetensors (matrices in fp16) and its card `name`.json from a run's model.safetensors.

    Where the run's log.csv lies beside it, it becomes `name`.log.csv: the curves of the (last) training.

    average  runs whose weights are averaged with the run's, see `average_in`
    looks    how often the shipped model looks at a photograph, 1 or 2 (`coseglib.answering.second_look`)
    post     how its maps become masks, "argmax" or "crf" (`coseglib.answering.crf`); of both, None: as the run's file says
    card_only  measure, and leave the card and the log alone: for what is too large to hand on, or only compared with
    The card's figures are measured on the file as shipped. Returns its path, or the card's. Raises CosegError where the
    file would pass 8 MiB.
    """
    source = _file_of(run)
    model = load_model(source, looks=looks, post=post)
    if METHODS[model.card["method"]].online:
        raise CosegError(f"{source}: knows its own group of photographs only; ship a model that was trained with masks")
    keys = ("method", "backbone", "training", "step", "seconds", "precision", "device", "started_from", "averaged")
    about = {key: model.card[key] for key in keys if key in model.card}
    runs = _runs(about)
    averaged = average_in(model, average)
    if averaged:
        about["averaged"] = [{"step": about["step"], "sha256": model.card["sha256"]}, *averaged]
    part = folder / f".{name}.safetensors"
    try:
        save_model(part, model, about, torch.float16)
        if part.stat().st_size > LARGEST and not card_only:
            raise CosegError(
                f"{name}: {part.stat().st_size / 2**20:.1f} MiB in half precision, the limit is 8; --card-only measures"
            )
        graphics = torch.cuda.is_available()
        shipped = load_model(part).to("cuda" if graphics else "cpu")
        machine = platform.machine() + (f", {torch.cuda.get_device_name()}" if graphics else "")
        card = {
            "name": name,
            "sha256": sha256(part),
            "bytes": part.stat().st_size,
            "method": about["method"],
            "backbone": about["backbone"],
            "variant": model.variant,
            "input_size": model.input_size,
            "looks": shipped.card["looks"],
            "post": post_of(shipped),
            "trained_on": TRAINED_ON[about["training"]["data"]],
            "steps": sum(r["step"] for r in runs),
            "minutes": round(sum(r["seconds"] for r in runs) / 60, 1),
            "device": f"{about['device']}, {about['precision']}",
            "seeds": [r["training"]["seed"] for r in runs],
            "training": [r["training"] for r in runs],
            **({"averaged": about["averaged"]} if "averaged" in about else {}),
            "figures": (found := figures(shipped, data_root, say)),
            "common_from": common_from(found),
            "measured": {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "machine": machine},
        }
        final = folder / f"{name}.{'json' if card_only else 'safetensors'}"
        if not card_only:
            os.replace(part, final)
        write_text(folder / f"{name}.json", json.dumps(card, indent=1) + "\n")
        log, kept = source.parent / "log.csv", folder / f"{name}.log.csv"
        if log.is_file():
            write_text(kept, log.read_text(encoding="utf-8"))
        else:  # of another run
            kept.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)
    say(f"{final.relative_to(REPOSITORY) if final.is_relative_to(REPOSITORY) else final}: {card['sha256'][:8]}")
    return final
