"""Several trainings in one tidy table: when each was how good, what it cost, which term of its loss pulls, what
guessing reaches."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from coseglib.core.errors import CosegError
from coseglib.models import build_model
from coseglib.models.checkpoints import load_model
from coseglib.models.contract import Output
from coseglib.models.losses import batch_jaccard
from coseglib.training.configuration import TrainConfig
from coseglib.training.loop import build_batches, cached_photographs
from coseglib.training.runs import CURVE_COLUMNS, TrainingRun

CURVES = {"J": "J in training", "val_J": "J in validation"}


def tidy_logs(runs: Mapping[str, TrainingRun]) -> pd.DataFrame:
    """CURVE_COLUMNS: a row a system and a logged step. seconds: of training so far, validations among it.

    J        mean over the training images since the row before, in train mode; what was asked there is the sampler's
    val_J    on validation photographs, protocol `common`; NaN but at validations
    Raises CosegError for no runs.
    """
    if not runs:
        raise CosegError("no trainings to show; name a method, or a folder that `coseg train` wrote")
    table = pd.concat([run.log.assign(system=name) for name, run in runs.items()], ignore_index=True)
    return table[list(CURVE_COLUMNS)]


def time_to(table: pd.DataFrame, share: float = 0.9, curve: str | None = None) -> pd.DataFrame:
    """By system: when J first was at `share` of its last value. Columns curve, final, step, images, seconds, between.

    table    `tidy_logs`'s     curve  "J", "val_J"; None: val_J where it is known twice or more, else J
    between  steps to the row before, that is, how exactly the time is known
    NaN where the final J is 0. Raises CosegError for another curve or share, and where the curve is not known.
    """
    if curve is not None and curve not in CURVES:
        raise CosegError(f"{curve}: no such curve; one of {', '.join(CURVES)}")
    if not 0 < share <= 1:
        raise CosegError(f"share = {share}: above 0, at most 1")
    rows = {}
    for system, log in table.groupby("system", sort=False):
        used = curve or ("val_J" if log.val_J.notna().sum() > 1 else "J")
        known = log.dropna(subset=[used]).sort_values("step")
        known = known.assign(between=known.step.diff().fillna(known.step))
        if known.empty:
            raise CosegError(f"{system}: has no {CURVES[used]}; set validate_every, or ask for another curve")
        final = known[used].iloc[-1]
        when = known.loc[known[used] >= share * final, ["step", "images", "seconds", "between"]].iloc[0]
        rows[system] = {"curve": used, "final": final, **(when if final > 0 else when * np.nan)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")


def training_costs(runs: Mapping[str, TrainingRun], share: float = 0.9) -> pd.DataFrame:
    """A row a system: what its training cost, and when it was at `share` of its final J (`time_to`).

    images/s  median over the log's rows, of training alone         parameters  millions
    memory    peak, and before the training, in MB; NaN: not measured
    device, checkpoint  of model.safetensors: where it was trained, first 8 digits of its SHA-256
    """
    when, rows = time_to(tidy_logs(runs), share), {}
    for name, run in runs.items():
        model = load_model(run.folder / "model.safetensors", run.config.method, folded=False)
        last, reached = run.log.dropna(subset=["loss"]).iloc[-1], when.loc[name]
        rows[name] = {
            "backbone": run.config.backbone,
            "variant": run.config.variant,
            "parameters (M)": sum(p.numel() for p in model.parameters()) / 1e6,
            "steps": int(last.step),
            "images": last.images,
            "seconds": last.seconds,
            "images/s": float(run.log.images_per_s.median()),
            "memory (MB)": run.memory.get("peak", np.nan) / 1e6,
            "before (MB)": run.memory.get("before", np.nan) / 1e6,
            "final J": reached.final,
            "of": CURVES[reached.curve].removeprefix("J in "),
            f"s to {share:.0%}": reached.seconds,
            f"steps to {share:.0%}": reached.step,
            "known to (steps)": reached["between"],
            "device": f"{model.card.get('device', '–')}, {model.card.get('precision', '–')}",
            "checkpoint": model.card["sha256"][:8],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")


def loss_terms(run: TrainingRun) -> pd.DataFrame:
    """The loss of a training, term by term, on the batch of its first step, with the weights that it ended with.

    value     of the term, weighted as it is minimised; their sum is the loss
    gradient  the norm of the term's gradient over all weights: how hard it pulls, whatever its value is
    """
    config = run.config
    batch = build_batches(config, cached_photographs(config))[0]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(run.folder / "model.safetensors", config.method, folded=False).train().to(device)
    weights = [p for p in model.parameters() if p.requires_grad]
    torch.manual_seed(config.seed)  # dropout
    rows = []
    with torch.enable_grad():
        output = model(batch.images.to(device).float() / 255, batch.weights.to(device))
        found = model.loss(output, batch.targets.to(device), batch.classes.to(device), config.dice)
        for name, value in found.items():
            gradients = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            pull = float(torch.stack([g.norm() for g in gradients if g is not None]).norm())
            row = {"system": run.name, "term": name.replace("_", " "), "value": float(value.detach())}
            rows.append(row | {"gradient": pull})
    return pd.DataFrame(rows)


def guessing(config: TrainConfig, batches: int = 12) -> dict[str, dict[str, float]]:
    """What is reached without looking at a picture, on a training's first batches: {"loss" or "J": {name: level}}.

    loss  the lowest of all answers that have one p at every pixel of every image: all that they know is how much
          foreground there is. Not known where the loss reads more than logits
    J     of everything marked; and of nothing marked, which is right where an image has nothing in common with others
    """
    sampler = build_batches(config, cached_photographs(config))
    asked = [sampler[step].targets for step in range(min(batches, len(sampler)))]
    model = build_model(config.method, config.backbone, config.variant, weights=None, options=config.options)

    def mean(measure, odds: float, step: int = 1) -> float:
        """Over the batches, of what is measured of an answer with these log-odds everywhere; of each step-th pixel."""
        few, one = [t[..., ::step, ::step] for t in asked], torch.tensor([0.0, odds])[:, None, None]
        return float(np.mean([float(measure(one.expand(*t.shape[:2], 2, *t.shape[2:]), t)) for t in few]))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return sum(model.loss(Output(logits), targets, dice=config.dice).values())

    levels = {name: mean(batch_jaccard, odds) for name, odds in (("everything", 1.0), ("nothing", -1.0))}
    found = {"J": {f"{name} marked": level for name, level in levels.items() if level}}
    with suppress(CosegError):  # such a loss asks for what an answer without a network has not
        near = min(range(-16, 17), key=lambda odds: mean(loss, float(odds), 4))  # of several valleys the deepest
        bounds = near - 1, near + 1
        found["loss"] = {
            "the same p everywhere": float(
                minimize_scalar(partial(mean, loss), bounds=bounds, options={"xatol": 0.02}).fun
            )
        }
    return found
