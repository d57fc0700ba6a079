"""From a training run to a checkpoint that is shipped: half precision, its figures measured, a card beside it.

The figures are what a checkpoint scores on whole data sets, under protocol `common`. After the way of answering has
changed, `again` measures them anew, the weights as they are.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from coseglib.answering.masks import post_of
from coseglib.core.errors import CosegError
from coseglib.core.files import read_json, writable, write_text
from coseglib.core.paths import CHECKPOINTS, MEASURED, REPOSITORY, SCENES
from coseglib.data import load
from coseglib.evaluation.cards import cards, runs_of
from coseglib.evaluation.kept import PRECISION, Say, code_hash
from coseglib.evaluation.self_test import answers
from coseglib.evaluation.tables import SOURCES
from coseglib.models import METHODS
from coseglib.models.checkpoints import find, load_model, save_model, sha256
from coseglib.scoring import metrics
from coseglib.scoring.rows import PARTNERS, evaluate, partner_swap, refusal

TRAINED_ON = {
    "real": "VOC 2012 train list and MSRC v2 training part (data/lists/training.csv), from ImageNet weights",
    "synthetic": "drawn scenes of the training split (`coseglib.data.synthetic`)",
}
LARGEST = 8 * 2**20  # bytes
# What a shipped file says of its training, as the run's own does.
FROM_RUN = ("method", "backbone", "training", "step", "seconds", "precision", "device", "started_from")
FROM_RUN += ("by_example", "averaged", "earlier_rates", "trained_with", "kept_apart")

# By what a model was trained on: sets for P and J, and sets for partner swap and refusal.
TEST_SETS = {
    "real": (("msrc7", "icoseg8", "pascal"), ("pascal", "voc-val")),
    "synthetic": (("synthetic",), ("synthetic",)),
}
TELLING = 0.6  # balanced accuracy, where .5 is chance


def _file_of(run: str | Path) -> Path:
    return Path(run) / "model.safetensors" if Path(run).is_dir() else find(run)


@torch.no_grad()
def average_in(model, runs: Sequence[str | Path]) -> list[dict]:
    """Make the weights of a model the mean of its own and those of runs that went on from it, or that it went on from.

    Whether the mean is better is for validation to say (`reports/trials.md`, 5). Returns step and SHA-256 of each run's
    file. Raises CosegError for another model.
    """
    models = [load_model(_file_of(run), model.card["method"], folded=False) for run in runs]
    own = model.state_dict()
    for other in models:
        theirs = other.state_dict()
        if any(key not in theirs or theirs[key].shape != value.shape for key, value in own.items()):
            raise CosegError(f"{other.card['file']}: is another model than {model.card['file']}; average runs of one")
    for key, value in own.items():
        if value.is_floating_point():
            value.copy_(torch.stack([value, *(other.state_dict()[key] for other in models)]).mean(dim=0))
    return [{"step": other.card["step"], "sha256": other.card["sha256"]} for other in models]


def _handed_over(source: Path, looks: int | None, post: str | None, average: Sequence[str | Path] = ()) -> tuple:
    """-> what a run's file becomes, see `ship`, and what the shipped file says of its training."""
    model = load_model(source, looks=looks, post=post, folded=False)
    if METHODS[model.card["method"]].online:
        raise CosegError(f"{source}: knows its own group of photographs only; ship a model that was trained with masks")
    about = {key: model.card[key] for key in FROM_RUN if key in model.card}
    if any(run["training"]["data"] == "folder" for run in runs_of(about)):
        why = "which may hold test photographs, so that its figures would say nothing; hand on the file itself"
        raise CosegError(f"{source}: was trained on a folder of one's own, {why}")
    if averaged := average_in(model, average):
        about["averaged"] = [{"step": about["step"], "sha256": model.card["sha256"]}, *averaged]
    return model, about


def as_shipped(
    run: str | Path, looks: int | None = None, post: str | None = None, average: Sequence[str | Path] = ()
) -> nn.Module:
    """The model that `ship` would hand on of a run, matrices in half precision, or did: it is left as it is then.

    It answers in PRECISION, as for a card's figures.

    looks, post, average  as for `ship`. Nothing is written; the card's SHA-256 is that of the file as it would be.
    """
    source, how = _file_of(run), {"looks": looks, "post": post}
    if not average and source.with_suffix(".json").is_file():  # a card: it was handed on
        return load_model(source, **how, precision=PRECISION)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_model(file, *_handed_over(source, **how, average=average), half=True)
        return load_model(file, **how, precision=PRECISION)


def of_card(run: str | Path, name: str, homes: Sequence[Path] = (MEASURED, CHECKPOINTS)) -> nn.Module:
    """The very model that the card `name` is of, made again from its run, which is not in the repository.

    Raises CosegError where there is no such card, or the run is another one's.
    """
    card = next((read_json(f, "fetch it again") for folder in homes if (f := folder / f"{name}.json").is_file()), None)
    if card is None:
        raise CosegError(f"{name}: no such card in {homes[0]}; coseg ship --card-only writes it")
    model = as_shipped(run, card["looks"], card["post"])
    if model.card["sha256"] != card["sha256"]:
        raise CosegError(f"{run}: is not the run that the card {name} is of; name that, or ship this one anew")
    return model


def _measured(file: Path, kept: Path, say: Say, **how) -> dict:
    """The part of a card that is measured; the figures are `kept` until the card is written."""
    device, model = "cuda" if torch.cuda.is_available() else "cpu", load_model(file, **how, precision=PRECISION)
    pinned, found = answers(model), measure(model.to(device), kept, say)
    return {"figures": found, "common_from": common_from(found), "self_test": pinned, "measured": provenance()}


def _handed_on(final: Path, file: Path, card: dict, kept: Path, say: Say) -> Path:
    """The card is written, what was measured for it is kept no longer, and `final`, its checkpoint or itself, named."""
    write_text(file, json.dumps(card, indent=1, allow_nan=False) + "\n")
    kept.unlink(missing_ok=True)
    say(f"{final.relative_to(REPOSITORY) if final.is_relative_to(REPOSITORY) else final}: {card['sha256'][:8]}")
    return final


def ship(
    run: str | Path,
    name: str,
    folder: Path | None = None,
    say: Say = print,
    average: Sequence[str | Path] = (),
    looks: int | None = None,
    post: str | None = None,
    card_only: bool = False,
) -> Path:
    """Write `folder`/`name`.safetensors (matrices in fp16) and its card `name`.json from a run's model.safetensors.

    Where the run's log.csv lies beside it, it becomes `name`.log.csv: the curves of the (last) training.

    folder   None: `data/scenes` of what was trained on scenes, else `data/checkpoints`, or of a card alone
             `data/measured`
    average  runs whose weights are averaged with the run's, see `average_in`
    looks    how often the shipped model looks at a photograph, 1 or 2 (`coseglib.answering.second_look`)
    post     how its maps become masks, "argmax" or "crf" (`coseglib.answering.crf`); None: both as the run's file says
    card_only  measure, and leave the card and the log alone: for what is too large to hand on, or only compared with
    The card's figures are measured on the file as shipped; killed meanwhile, the same command goes on set by set.
    Returns its path, or the card's. Raises CosegError where the file would pass 8 MiB.
    """
    source = _file_of(run)
    model, about = _handed_over(source, looks, post, average)
    if folder is None:
        folder = SCENES if about["training"]["data"] == "synthetic" else MEASURED if card_only else CHECKPOINTS
    part, kept = folder / f".{name}.safetensors", folder / f".{name}.figures.json"
    try:
        save_model(part, model, about, half=True)
        size = part.stat().st_size
        if size > LARGEST and not card_only:
            raise CosegError(f"{name}: {size / 2**20:.1f} MiB in half precision, the limit is 8; --card-only measures")
        card = _facts(name, part, model, about) | _measured(part, kept, say)
        final = folder / f"{name}.{'json' if card_only else 'safetensors'}"
        if not card_only:
            os.replace(part, final)
        log, own_log = source.parent / "log.csv", folder / f"{name}.log.csv"
        if log.is_file():
            write_text(own_log, log.read_text(encoding="utf-8"))
        else:  # of another run
            own_log.unlink(missing_ok=True)
        return _handed_on(final, folder / f"{name}.json", card, kept, say)
    finally:
        part.unlink(missing_ok=True)


def _facts(name: str, file: Path, model, about: dict) -> dict:
    """The part of a card that is known before anything is measured."""
    runs = list(runs_of(about))[::-1]  # the first one first
    card = {"name": name, "sha256": sha256(file), "bytes": file.stat().st_size, "method": about["method"]}
    card |= {"backbone": about["backbone"], "variant": model.variant, "input_size": model.input_size}
    card |= {"looks": model.card["looks"], "post": post_of(model), "trained_on": TRAINED_ON[about["training"]["data"]]}
    card |= {"steps": sum(r["step"] for r in runs), "minutes": round(sum(r["seconds"] for r in runs) / 60, 1)}
    card |= {"device": f"{about['device']}, {about['precision']}", "seeds": [r["training"]["seed"] for r in runs]}
    card["training"] = [r["training"] for r in runs]
    changed = {"trained_with": about["trained_with"]} if len(about.get("trained_with", ())) > 1 else {}
    return card | {key: about[key] for key in ("averaged", "earlier_rates", "kept_apart") if key in about} | changed


def again(name: str, say: Say = print, homes: Sequence[Path] = (CHECKPOINTS, SCENES, MEASURED)) -> Path:
    """Measure a card's figures anew, set by set as `ship`, and write them there; the weights stay as they are.

    name  of a card in `checkpoints`, or of one in `measured` whose weights a shipped checkpoint has. It answers as the
          card says, `looks` and `post`
    Returns the card's path. Raises CosegError where there is no such card, or no weights for it.
    """
    file = next((f for folder in homes if (f := folder / f"{name}.json").is_file()), None)
    if file is None:
        known = ", ".join(card["name"] for folder in homes for card in cards(folder))
        raise CosegError(f"{name}: no such card; one of {known}")
    card = read_json(writable(file, folder=False), "fetch it again")
    same = [
        folder / f"{c['name']}.safetensors" for folder in homes for c in cards(folder) if c["sha256"] == card["sha256"]
    ]
    weights = next((f for f in same if f.is_file()), None)
    if weights is None:
        raise CosegError(f"{name}: its weights are not in the repository; train it anew and ship it with --card-only")
    kept, how = weights.with_name(f".{name}.figures.json"), {"looks": card["looks"], "post": card["post"]}
    card |= _measured(weights, kept, say, **how)
    card.pop("engine", None)  # it answers as models do now
    return _handed_on(file, file, card, kept, say)


# The figures of a card ------------------------------------------------------------------------------------------------


def _by_partner(model: nn.Module, name: str) -> dict:
    """P and J of a set, attended by the group, by the photograph itself, by a wrong group."""
    found, rows = {}, evaluate(model, load(name), "common", PARTNERS)
    for partner, some in rows.groupby("partner", sort=False):
        table = metrics.aggregate(some, "common")
        found[partner] = {figure: round(float(table[figure].iloc[-1]), 4) for figure in ("P", "J")}
        if partner == "group":
            groups = table[table.group != "all"]
            found[partner]["by_group"] = dict(zip(groups.group, groups.J.astype(float).round(4), strict=True))
    return found


def _asked(model: nn.Module, name: str) -> dict:
    """Partner swap in points and refusal's AUROC, and from which score on most pairs are told apart."""
    groups = load(name)
    swap = partner_swap(model, groups, sources=load(SOURCES[name]) if name in SOURCES else None)
    unsure = refusal(model, groups)
    j = {side: round(float(swap[side].mean()), 4) for side in ("J_asked", "J_other")}
    score, right = metrics.best_threshold(unsure.score, unsure.common)
    return {
        "partner_swap": {"questions": len(swap), **j, "points": round(100 * float(swap.score.mean()), 2)},
        "refusal_auroc": round(metrics.auroc(unsure.score, unsure.common), 4),
        "refusal_from": {"score": round(score, 4), "right": round(right, 4)},
    }


def measure(model: nn.Module, kept: Path | None = None, say: Say = print) -> dict:
    """What a card states, {set: figures}: J and P by partner, partner swap and refusal, on the sets of TEST_SETS.

    model  with its card: `training` says what it was trained on
    kept   a JSON file that grows set by set; what stands there of the same file, answering in the same way by the same
           code, is not measured again, so that a run that was killed goes on. None: nothing is kept
    """
    card = model.card
    of = [card["sha256"], card["looks"], card.get("post", "argmax"), code_hash()]
    known = read_json(kept, "remove it") if kept and kept.is_file() else {}
    parts = known["parts"] if known.get("of") == of else {}
    averaged, asked = TEST_SETS[card["training"]["data"]]
    jobs = {f"{name}: P and J": (name, _by_partner) for name in averaged}
    jobs |= {f"{name}: partner swap and refusal": (name, _asked) for name in asked}
    found: dict = {}
    for what, (name, job) in jobs.items():
        if what in parts:
            say(f"{what}: done before")
        else:
            parts[what] = job(model, name)
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
    """When, by which torch, on what and in which precision a card's figures are measured."""
    machine = platform.machine() + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")
    return {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "machine": machine, "precision": PRECISION}


def common_from(found: Mapping) -> dict | None:
    """From which score on `coseg segment` believes that something is common: of validation images, else of scenes.

    found  what `measure` gives. -> score, on (the set's name), right (share of its pairs answered right); or None where
           that share is below TELLING: such a model cannot tell, and a warning would be noise
    """
    for name in ("voc-val", "synthetic"):
        if about := found.get(name, {}).get("refusal_from"):
            return {**about, "on": name} if about["right"] >= TELLING else None
    return None
