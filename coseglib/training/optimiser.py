"""What moves the weights: Adam in two groups, the schedule of their rates, the moving average that is used."""

import math
from functools import partial

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from coseglib.training.configuration import TrainConfig


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """What the learning rates are multiplied with: a linear warm-up, then 1, powers of ½, or half a cosine to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "halving":
        return 0.5 ** ((step - config.warmup) // config.halve_every)
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def build_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW: the backbone's weights at a rate of their own, then all others."""
    backbone = list(model.backbone.parameters())
    of_backbone = {*map(id, backbone)}
    rest = [p for p in model.parameters() if id(p) not in of_backbone]
    sets = [{"params": backbone, "lr": config.backbone_learning_rate}, {"params": rest, "lr": config.learning_rate}]
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(sets, weight_decay=config.weight_decay)


def build_schedule(optimiser: torch.optim.Optimizer, config: TrainConfig, step: int = 0) -> LambdaLR:
    """The schedule at a step. The rates are a function of the step alone, so it has no state to save.

    Every group's rate is the configuration's before and the scheduled one afterwards.
    """
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]  # without it a schedule in mid-course would start from nothing
    return LambdaLR(optimiser, partial(learning_rate_factor, config), last_epoch=step - 1)


def build_average(model: nn.Module, decay: float, step: int = 0) -> AveragedModel | None:
    """The weights' moving average at a step: decay · average + (1 − decay) · weights, faster at first. 0: none.

    Its module is the model to use. Counters are copied, running means are averaged as the weights are.
    """
    if not decay:
        return None

    def follow(average: list[torch.Tensor], weights: list[torch.Tensor], n: torch.Tensor) -> None:
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, weights, 1 - min(decay, (1 + int(n)) / (10 + int(n))))
        else:
            for mean, value in zip(average, weights, strict=True):
                mean.copy_(value)

    averaged = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    averaged.n_averaged += step + 1  # the first weights count, so that the first step's do not replace them
    return averaged
