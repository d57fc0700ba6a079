"""From a training run to a checkpoint that is shipped: half precision, its figures measured, a card beside it.

`ship`   a run -> a checkpoint and its card
`again`  a card's figures anew, the weights as they are: after the way of answering has changed
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from coseglib.answering.masks import post_of
from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.paths import CHECKPOINTS, MEASURED, REPOSITORY
from coseglib.evaluation.cards import cards, runs_of
from coseglib.evaluation.measuring import common_from, measure, provenance
from coseglib.models import METHODS
from coseglib.models.checkpoints import find, load_model, save_model, sha256

TRAINED_ON = {
    "real": "VOC 2012 train list and MSRC v2 training part (data/lists/training.csv), from ImageNet weights",
    "synthetic": "procedural scenes of the training split, from ImageNet weights",
}
LARGEST = 8 * 2**20  # bytes
# What a shipped file says of its training, as the run's own does.
FROM_RUN = ("method", "backbone", "training", "step", "seconds", "precision", "device", "started_from")
FROM_RUN += ("averaged", "earlier_rates")


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


def _measured(file: Path, name: str, looks: int | None, post: str | None, data_root, say) -> dict:
    """The part of a card that is measured; figures are kept beside it until the card is written."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = measure(load_model(file, looks=looks, post=post).to(device), _kept(file, name), data_root, say)
    return {"figures": found, "common_from": common_from(found), "measured": provenance()}


def _kept(file: Path, name: str) -> Path:
    return file.parent / f".{name}.figures.json"


def _write_card(file: Path, card: dict, kept: Path) -> None:
    write_text(file, json.dumps(card, indent=1, allow_nan=False) + "\n")
    kept.unlink(missing_ok=True)


def _say_written(file: Path, card: dict, say: Callable[[str], None]) -> Path:
    say(f"{file.relative_to(REPOSITORY) if file.is_relative_to(REPOSITORY) else file}: {card['sha256'][:8]}")
    return file


def ship(
    run: str | Path,
    name: str,
    folder: Path = CHECKPOINTS,
    data_root=None,
    say: Callable[[str], None] = print,
    average: Sequence[str | Path] = (),
    looks: int | None = None,
    post: str | None = None,
    card_only: bool = False,
) -> Path:
    """Write `folder`/`name`.safetensors (matrices in fp16) and its card `name`.json from a run's model.safetensors.

    Where the run's log.csv lies beside it, it becomes `name`.log.csv: the curves of the (last) training.

    average  runs whose weights are averaged with the run's, see `average_in`
    looks    how often the shipped model looks at a photograph, 1 or 2 (`coseglib.answering.second_look`)
    post     how its maps become masks, "argmax" or "crf" (`coseglib.answering.crf`); None: both as the run's file says
    card_only  measure, and leave the card and the log alone: for what is too large to hand on, or only compared with
    The card's figures are measured on the file as shipped; killed meanwhile, the same command goes on set by set.
    Returns its path, or the card's. Raises CosegError where the file would pass 8 MiB.
    """
    source = _file_of(run)
    model = load_model(source, looks=looks, post=post)
    if METHODS[model.card["method"]].online:
        raise CosegError(f"{source}: knows its own group of photographs only; ship a model that was trained with masks")
    about = {key: model.card[key] for key in FROM_RUN if key in model.card}
    if averaged := average_in(model, average):
        about["averaged"] = [{"step": about["step"], "sha256": model.card["sha256"]}, *averaged]
    part = folder / f".{name}.safetensors"
    try:
        save_model(part, model, about, torch.float16)
        size = part.stat().st_size
        if size > LARGEST and not card_only:
            raise CosegError(f"{name}: {size / 2**20:.1f} MiB in half precision, the limit is 8; --card-only measures")
        card = _facts(name, part, model, about) | _measured(part, name, None, None, data_root, say)
        final = folder / f"{name}.{'json' if card_only else 'safetensors'}"
        if not card_only:
            os.replace(part, final)
        _write_card(folder / f"{name}.json", card, _kept(part, name))
        log, own_log = source.parent / "log.csv", folder / f"{name}.log.csv"
        if log.is_file():
            write_text(own_log, log.read_text(encoding="utf-8"))
        else:  # of another run
            own_log.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)
    return _say_written(final, card, say)


def _facts(name: str, file: Path, model, about: dict) -> dict:
    """The part of a card that is known before anything is measured."""
    runs = list(runs_of(about))[::-1]  # the first one first
    return {
        **{"name": name, "sha256": sha256(file), "bytes": file.stat().st_size},
        **{"method": about["method"], "backbone": about["backbone"], "variant": model.variant},
        **{"input_size": model.input_size, "looks": model.card["looks"], "post": post_of(model)},
        "trained_on": TRAINED_ON[about["training"]["data"]],
        "steps": sum(r["step"] for r in runs),
        "minutes": round(sum(r["seconds"] for r in runs) / 60, 1),
        "device": f"{about['device']}, {about['precision']}",
        "seeds": [r["training"]["seed"] for r in runs],
        "training": [r["training"] for r in runs],
        **{key: about[key] for key in ("averaged", "earlier_rates") if key in about},
    }


def again(
    name: str,
    data_root=None,
    say: Callable[[str], None] = print,
    checkpoints: Path = CHECKPOINTS,
    measured: Path = MEASURED,
) -> Path:
    """Measure a card's figures anew, set by set as `ship`, and write them there; the weights stay as they are.

    name  of a card in `checkpoints`, or of one in `measured` whose weights a shipped checkpoint has. It answers as the
          card says, `looks` and `post`
    Returns the card's path. Raises CosegError where there is no such card, or no weights for it.
    """
    file = next((f for folder in (checkpoints, measured) if (f := folder / f"{name}.json").is_file()), None)
    if file is None:
        known = ", ".join(card["name"] for card in (*cards(checkpoints), *cards(measured)))
        raise CosegError(f"{name}: no such card; one of {known}")
    card = json.loads(file.read_text(encoding="utf-8"))
    weights = {shipped["sha256"]: shipped["name"] for shipped in cards(checkpoints)}.get(card["sha256"])
    if weights is None:
        raise CosegError(f"{name}: its weights are not in the repository; train it anew and ship it with --card-only")
    card |= _measured(checkpoints / f"{weights}.safetensors", name, card["looks"], card["post"], data_root, say)
    card.pop("engine", None)  # it answers as models do now
    _write_card(file, card, _kept(checkpoints / name, name))
    return _say_written(file, card, say)
