"""One training loop for all methods, on Lightning Fabric (device, precision, several processes and nodes).

A batch is a pure function of the seed and the step (`coseglib.data.sampler`), dropout's generator is seeded anew at
every step, and the state (weights, their moving average, the optimiser, the step) is one file, replaced atomically. So
a run that is killed anywhere and resumed ends with the very weights of an undisturbed one.

A run's folder holds  state.safetensors  the newest training state, for --resume
                      model.safetensors  what is used: the moving average at the best validation so far, or the last
                      log.csv            one row every `log_every` steps, and validations
                      config.yaml        every field of the configuration
"""

import csv
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader

from coseglib.core.errors import CosegError
from coseglib.core.precision import precision_of
from coseglib.core.processes import clock, device_name, launch
from coseglib.data.cache import TrainingSet, training_set
from coseglib.data.sampler import GroupSampler
from coseglib.models import METHODS, build_model
from coseglib.models.checkpoints import FORMAT, load_model, read_tensors, save_model, write_tensors
from coseglib.models.losses import batch_jaccard
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


def _optimiser(model, config: TrainConfig) -> torch.optim.Optimizer:
    backbone = {id(p) for p in model.backbone.parameters()}
    rest = [p for p in model.parameters() if id(p) not in backbone]
    sets = [
        {"params": list(model.backbone.parameters()), "lr": config.backbone_learning_rate},
        {"params": rest, "lr": config.learning_rate},
    ]
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(sets, weight_decay=config.weight_decay)


def _initial_model(config: TrainConfig, categories: int, weights_root) -> torch.nn.Module:
    """categories: L, the classes of the training photographs, for methods that also learn to name them."""
    built, options = (config.method, config.backbone, config.variant, config.input_size), dict(config.options)
    if "categories" in METHODS[config.method].options:
        options.setdefault("categories", categories)
    if not config.start:
        return build_model(*built, "imagenet" if config.pretrained else None, weights_root, options=options)
    trained = load_model(config.start, config.method)
    for name in ("backbone", "variant"):
        if trained.card[name] != getattr(config, name):
            raise CosegError(
                f"{config.start}: its {name} is {trained.card[name]}, not {getattr(config, name)}; set {name}"
            )
    model = build_model(*built, weights=None, origin=trained.card["origin"], options=options)
    model.load_state_dict(trained.state_dict())
    keys = ("sha256", "training", "step", "seconds", "precision", "device", "started_from")
    model.started_from = {key: trained.card[key] for key in keys if key in trained.card}
    return model


@dataclass
class _State:
    """What a run carries from step to step besides the model and its optimiser."""

    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    average: dict[str, torch.Tensor] = field(default_factory=dict)


def _save_state(path: Path, model, optimiser, state: _State, config: TrainConfig) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.items()}
    for i, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{k}": torch.as_tensor(v) for k, v in entry.items()}
    header = {
        "format": FORMAT,
        "kind": "state",
        "step": state.step,
        "seconds": state.seconds,
        "best": state.best,
        "config": config.fields(),
    }
    write_tensors(path, tensors, header)


def _load_state(path: Path, model, optimiser, config: TrainConfig) -> _State:
    tensors, header = read_tensors(path)
    if header.get("kind") != "state":
        raise CosegError(f"{path}: a model, not a training state; leave out --resume or name the run's folder")
    changed = config.changed_from(header["config"])
    if changed:
        was, now = header["config"].get(changed), config.fields()[changed]
        raise CosegError(
            f"{path}: was trained with {changed} = {was}, not {now}; resume with the same or use another folder"
        )

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(part("model."))
    entries: dict[int, dict] = {}
    for key, value in part("optimiser.").items():
        i, name = key.split(".", 1)
        entries.setdefault(int(i), {})[name] = value
    optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
    device = next(model.parameters()).device
    average = {k: v.to(device) for k, v in part("average.").items()}
    return _State(header["step"], header["seconds"], header["best"], average)


class Log:
    """log.csv, appended row by row, and progress: one line that is rewritten in a terminal, plain lines elsewhere."""

    COLUMNS = ("step", "seconds", "loss", "J", "images_per_s", "learning_rate", "val_J", "val_swap", "val_refusal")

    def __init__(self, path: Path, step: int, quiet: bool = False):
        self.path, self.quiet, self.shown = path, quiet, 0.0
        rows = []
        if step and path.is_file():  # rows that the interrupted run wrote after its last state will be written again
            with open(path, newline="") as file:
                rows = [r for r in csv.DictReader(file) if r["step"] and int(r["step"]) <= step]
        part = path.with_name(f".{path.name}.part")
        with open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, path)

    def row(self, **values) -> None:
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.COLUMNS).writerow(values)

    def progress(self, text: str, last: bool = False) -> None:
        if self.quiet:
            return
        terminal = sys.stdout.isatty()
        now = time.monotonic()
        if not terminal and not last and now - self.shown < 15:
            return
        self.shown = now
        print(f"\r{text}\033[K" if terminal else text, end="\n" if last or not terminal else "", flush=True)


def photographs(config: TrainConfig, data_root=None, progress=None) -> TrainingSet:
    """The training photographs of a configuration, decoded and resized once."""
    if config.data == "synthetic":
        from coseglib.data.synthetic import synthetic_photos

        photos = synthetic_photos("train", config.synthetic_photos, size=config.cache_side)
    else:
        from coseglib.data import training_photos

        photos = training_photos(data_root, dataset="coco-seg" if config.data == "coco-seg" else "voc+msrc")
    return training_set(photos, config.cache_side, progress=progress)


def validation(config: TrainConfig, data_root=None):
    """A function model -> {val_J, val_swap, val_refusal} on validation photographs (never a test set)."""
    from coseglib.scoring import metrics
    from coseglib.scoring.questions import partner_swap, refusal
    from coseglib.scoring.rows import evaluate

    if config.data == "synthetic":
        from coseglib.data.synthetic import load_synthetic

        groups = load_synthetic("val")
    else:
        from coseglib.data import validation_groups

        groups = validation_groups(data_root)

    def score(model) -> dict[str, float]:
        table = metrics.aggregate(evaluate(model, groups, "common", limit=config.validate_photos), "common")
        unsure = refusal(model, groups)
        return {
            "val_J": float(table.J.iloc[-1]),
            "val_swap": 100 * float(partner_swap(model, groups).score.mean()),
            "val_refusal": metrics.auroc(unsure.score, unsure.common),
        }

    return score


def train(
    config: TrainConfig,
    output: str | Path,
    resume: bool = False,
    data_root=None,
    weights_root=None,
    devices: int | str = "auto",
    num_nodes: int = 1,
    accelerator: str = "auto",
    quiet: bool = False,
) -> Path:
    """Train a model; returns the path of model.safetensors.

    resume  go on from `output`/state.safetensors where there is one. Without it a folder that holds a state is refused.
    devices, num_nodes, accelerator  Fabric's; on CPUs several processes talk over gloo. torchrun works as well.
    Raises CosegError for a folder in use, a state of another configuration, or data and weights that are not found.
    """
    output = Path(output)
    state_file = output / "state.safetensors"
    if state_file.exists() and not resume:  # every process looks before any can have written one: they meet in between
        raise CosegError(f"{output}: already holds a run; add --resume to go on with it, or choose another folder")
    precision = precision_of(config.precision, accelerator)
    fabric = launch(devices, num_nodes, accelerator, precision, some_unused=config.stem_every > 1)
    if (config.groups // config.accumulate) % fabric.world_size:
        raise CosegError(
            f"groups = {config.groups}: must be a multiple of accumulate × {fabric.world_size} processes; set groups"
        )
    # Inputs of one size: cuDNN tries its kernels once and keeps the fastest.
    torch.backends.cudnn.benchmark = fabric.device.type == "cuda" and len(config.sides) < 2
    first = fabric.is_global_zero
    output.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        if first and not quiet:
            print(text, flush=True)

    if first:
        (output / "config.yaml").write_text(yaml.safe_dump(config.fields(), sort_keys=False))
        say(config.listing())
    with fabric.rank_zero_first():  # one process decodes, the others find the cache
        photos = photographs(config, data_root, lambda i, n: say(f"decoding photographs: {i} of {n}"))
    fabric.seed_everything(config.seed, verbose=False)
    model = _initial_model(config, len(photos.classes), weights_root).to(memory_format=torch.channels_last)
    optimiser = _optimiser(model, config)
    state = _State()
    if resume and state_file.exists():
        state = _load_state(state_file, model, optimiser, config)
        say(f"resumed at step {state.step} of {config.steps}")
    elif config.average:
        state.average = {k: v.clone() for k, v in model.state_dict().items()}
    bare = model
    model, optimiser = fabric.setup(model, optimiser)
    state.average = {k: v.to(fabric.device) for k, v in state.average.items()}
    parts = config.accumulate
    sampler = GroupSampler(
        photos,
        size=config.group_size,
        groups=config.groups // parts // fabric.world_size,
        side=config.sides or config.input_size,
        shares=config.shares,
        pasted=config.pasted,
        twins=config.twins,
        crop=config.crop,
        steps=config.steps * parts,
        seed=config.seed,
        rank=fabric.global_rank,
        by_set=config.by_set,
    )
    loader = DataLoader(
        sampler, batch_size=None, sampler=range(state.step * parts, config.steps * parts), num_workers=config.workers
    )
    score = validation(config, data_root) if config.validate_every and first else None
    log = Log(output / "log.csv", state.step, quiet) if first else None
    say(
        f"{config.method} on {config.backbone}: {sum(p.numel() for p in bare.parameters()) / 1e6:.2f} M weights, "
        f"{len(photos)} photographs, {fabric.world_size} × {fabric.device.type}, {precision}, "
        f"steps {state.step} to {config.steps}"
    )
    bare.train()
    started, before = time.perf_counter(), state.seconds
    sums, count, images, since = torch.zeros(2), 0, 0, time.perf_counter()
    batches = iter(loader)
    while state.step < config.steps:
        # Dropout draws from this generator alone: the step decides it, not the steps that this process has seen.
        torch.manual_seed(int(np.random.default_rng((config.seed, state.step, fabric.global_rank, 2)).integers(2**62)))
        bare.backbone.stem_learns = state.step % config.stem_every == 0
        factor = learning_rate_factor(config, state.step)
        rates = (config.backbone_learning_rate, config.learning_rate)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        for part in range(parts):
            batch = next(batches)
            x = batch.images.to(fabric.device, non_blocking=True).float().div_(255)
            y, w = batch.targets.to(fabric.device, non_blocking=True), batch.weights.to(fabric.device)
            classes = batch.classes.to(fabric.device)
            with fabric.no_backward_sync(model, enabled=part < parts - 1):
                answer = model(x, w)
                loss = sum(bare.loss(answer, y, classes, config.dice).values())
                if not torch.isfinite(loss):
                    raise CosegError(
                        f"{output}: the loss is not finite at step {state.step}; lower learning_rate and --resume"
                    )
                fabric.backward(loss / parts)
            sums += torch.stack([loss.detach(), batch_jaccard(answer.logits, y)]).cpu()
            count, images = count + 1, images + x.shape[0] * x.shape[1] * fabric.world_size
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        state.step += 1
        if state.average:
            _follow(state.average, bare, min(config.average, (1 + state.step) / (10 + state.step)))
        last = state.step == config.steps
        state.seconds = before + time.perf_counter() - started
        if first and (state.step % config.log_every == 0 or last):
            mean, rate = (sums / count).tolist(), images / (time.perf_counter() - since)
            log.row(
                step=state.step,
                seconds=round(state.seconds, 1),
                loss=round(mean[0], 5),
                J=round(mean[1], 4),
                images_per_s=round(rate, 1),
                learning_rate=f"{config.learning_rate * factor:.3g}",
            )
            speed = (state.seconds - before) / max(1, state.step - sampler_start(loader, parts))
            log.progress(
                f"step {state.step}/{config.steps}  loss {mean[0]:.4f}  J {mean[1]:.3f}  {rate:.1f} images/s  "
                f"ETA {clock(speed * (config.steps - state.step))}",
                last,
            )
            sums, count, images, since = torch.zeros(2), 0, 0, time.perf_counter()
        validate = bool(config.validate_every) and (state.step % config.validate_every == 0 or last)
        if first and (validate or (last and not config.validate_every)):
            with _averaged(bare, state.average):
                marks = score(bare) if validate else {}
                better = not validate or marks["val_J"] >= state.best
                if validate:
                    state.best = max(state.best, marks["val_J"])
                    log.row(
                        step=state.step, seconds=round(state.seconds, 1), **{k: round(v, 4) for k, v in marks.items()}
                    )
                    log.progress("  ".join(f"{k} {v:.4f}" for k, v in marks.items()), last=True)
                if better:
                    about = {
                        "method": config.method,
                        "backbone": config.backbone,
                        "training": config.fields(),
                    }
                    about |= {
                        "step": state.step,
                        "seconds": round(state.seconds, 1),
                        "precision": precision,
                        "device": device_name(fabric.device, fabric.world_size),
                    }
                    if config.start:
                        about["started_from"] = bare.started_from  # the run before this one, and the one before that
                    save_model(output / "model.safetensors", bare, about)
            bare.train()
            since = time.perf_counter()
        if first and (state.step % config.save_every == 0 or validate or last):
            _save_state(
                state_file, bare, optimiser.optimizer if hasattr(optimiser, "optimizer") else optimiser, state, config
            )
    fabric.barrier()
    return output / "model.safetensors"


def sampler_start(loader: DataLoader, parts: int) -> int:
    """The step at which this process began."""
    return loader.sampler.start // parts


@torch.no_grad()
def _follow(average: dict[str, torch.Tensor], model, decay: float) -> None:
    """average ← decay · average + (1 − decay) · weights; counters are copied."""
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            average[key].lerp_(value, 1 - decay)
        else:
            average[key].copy_(value)


class _averaged:
    """The model with its moving average, in evaluation mode; its own weights come back afterwards."""

    def __init__(self, model, average: dict[str, torch.Tensor]):
        self.model, self.average = model, average

    def __enter__(self):
        self.own = {k: v.clone() for k, v in self.model.state_dict().items()}
        if self.average:
            self.model.load_state_dict(self.average)
        self.model.eval()

    def __exit__(self, *_):
        self.model.load_state_dict(self.own)
