"""One training loop for all methods, on Lightning Fabric (device, precision, several processes and nodes).

A batch is a pure function of the seed and the step (`coseglib.data.sampler`), dropout's generator is seeded anew at
every step, and the state (weights, their moving average, the optimiser, the step) is one file, replaced atomically. So
a run that is killed anywhere and resumed ends with the very weights of an undisturbed one.

A run's folder holds  state.safetensors  the newest training state, for --resume
                      model.safetensors  what is used: the moving average at the best validation so far, or the last
                      log.csv            one row every `log_every` steps, and validations
                      config.yaml        every field of the configuration
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from coseglib.core.devices import device_name, launch, precision_of
from coseglib.core.errors import CosegError
from coseglib.core.files import clear_parts, write_text
from coseglib.core.progress import Progress
from coseglib.data import SET_APART, training_photos, unseen_groups, validation_groups
from coseglib.data.by_class import PRESENT
from coseglib.data.cache import TrainingSet, training_set
from coseglib.data.sampler import Batch, GroupSampler
from coseglib.data.synthetic import load_synthetic, synthetic_photos
from coseglib.models import METHODS, build_model
from coseglib.models.backbones import fill
from coseglib.models.checkpoints import load_model, save_model
from coseglib.models.losses import batch_jaccard, boundary_cross_entropy
from coseglib.scoring.metrics import aggregate, auroc
from coseglib.scoring.rows import evaluate, partner_swap, refusal
from coseglib.training.configuration import TrainConfig
from coseglib.training.memory import kept_memory
from coseglib.training.state import MODEL, Log, Progressed, Saved, find_state, note_stop, restore, save_state
from coseglib.training.tuning import OwnFolder, own_folder

SPOILT = 1e3  # a loss like this (ln 2 at chance) is of weights that no lower rate will mend: they are not kept


@kept_memory()
def train(
    config: TrainConfig,
    output: str | Path,
    resume: bool = False,
    devices: int | str = "auto",
    num_nodes: int = 1,
    accelerator: str = "auto",
    quiet: bool = False,
    anyway: bool = False,
) -> Path:
    """Train a model; returns the path of model.safetensors.

    resume  go on from `output`/state.safetensors where there is one. Without it a folder that holds a run is refused.
    anyway  resume with other photographs or another number of processes too; the model says since when
    devices, num_nodes, accelerator  Fabric's; on CPUs several processes talk over gloo. torchrun works as well.
    Raises CosegError for a folder in use, a state of another configuration, or data and weights that are not found;
    what a run that is not resumed has left stays as it is.
    """
    output = Path(output)
    saved = find_state(output, config, resume)  # every process looks before any can have written: they meet in launch
    precision = precision_of(config.precision, accelerator)
    fabric = launch(devices, num_nodes, accelerator, precision, some_unused=config.stem_every > 1)
    parts = f"accumulate × {fabric.world_size} processes"
    if (config.groups // config.accumulate) % fabric.world_size:
        raise CosegError(f"groups = {config.groups}: must be a multiple of {parts}; set groups")
    # Inputs of one size: cuDNN tries its kernels once and keeps the fastest.
    torch.backends.cudnn.benchmark = fabric.device.type == "cuda" and len(config.sides) < 2
    first = fabric.is_global_zero
    silent = quiet or not first
    say = (lambda text: None) if silent else partial(print, flush=True)
    say("\n".join(f"  {name}: {value}" for name, value in config.fields().items()))
    with fabric.rank_zero_first():  # one process decodes, the others find the cache
        own = own_folder(config.folder) if config.folder else None
        photos = cached_photographs(config, silent, own)
    sampler = build_batches(config, photos, fabric.world_size, fabric.global_rank)
    fabric.seed_everything(config.seed, verbose=False)
    model = _initial_model(config, len(photos.classes)).to(memory_format=torch.channels_last)
    run = begin(fabric, model, build_optimiser(model, config), config, output, saved, own)
    now = {"photographs": len(photos), "content": photos.content, "processes": fabric.world_size}
    run.at.go_on_with(now, anyway, output)
    score = build_validation(config, own) if config.validate_every and first else None
    output.mkdir(parents=True, exist_ok=True)
    if first:
        clear_parts(output)
        write_text(output / "config.yaml", yaml.safe_dump(config.fields(), sort_keys=False))
    if saved:
        say(f"resumed at step {run.at.step} of {config.steps}")
    say(
        f"{config.method} on {config.backbone}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M weights, "
        f"{len(photos)} photographs, {fabric.world_size} × {fabric.device.type}, {precision}, "
        f"steps {run.at.step} to {config.steps}"
    )
    left = range(run.at.step * config.accumulate, len(sampler))
    batches = DataLoader(sampler, batch_size=None, sampler=left, num_workers=config.workers)
    with Progress("training", config.steps, "steps", silent, done=run.at.step) as progress:
        _steps(run, iter(batches), score, progress)
    fabric.barrier()
    if own and run.at.best >= 0:
        say(own.verdict(config.start, run.at.before, run.at.best))
    return output / MODEL


def _steps(run: "Run", batches: Iterator[Batch], score: Callable | None, progress: Progress) -> None:
    """The loop: the gradients of a step's parts, the step, and what is due after it."""
    config, at, first = run.config, run.at, run.fabric.is_global_zero
    log = Log(run.output / "log.csv", at.step) if first else None
    began, seen, since, note, due = time.perf_counter() - at.seconds, torch.zeros(4), time.perf_counter(), "", False

    def keep(**values) -> None:
        log.row(step=at.step, seconds=round(at.seconds, 1), **values)

    if run.own and config.start and score and at.step == 0:
        keep(val_J=round(run.keep_model(score)["val_J"], 4))
    run.learn()
    while at.step < config.steps:
        run.seed_dropout()
        run.model.backbone.stem_learns = at.step % config.stem_every == 0
        buffers = run.buffers() if due else {}
        now = sum(run.backward(next(batches), part) for part in range(config.accumulate))
        if due and now[0] < SPOILT * config.accumulate:  # what the weights before this step are worth is known now
            save_state(run, buffers)
        seen += now
        rate = run.optimiser.param_groups[-1]["lr"]
        run.step()
        at.seconds = time.perf_counter() - began
        last = at.step == config.steps
        if first and (at.step % config.log_every == 0 or last):
            (loss, jaccard), speed = (seen[:2] / seen[2]).tolist(), float(seen[3]) / (time.perf_counter() - since)
            row = {"loss": round(loss, 5), "J": round(jaccard, 4), "images_per_s": round(speed, 1)}
            keep(**row, learning_rate=f"{rate:.3g}")
            note = f"loss {loss:.4f}, J {jaccard:.3f}, {speed:.1f} images/s"
            seen, since = torch.zeros(4), time.perf_counter()
        validate = bool(config.validate_every) and (at.step % config.validate_every == 0 or last)
        if first and (validate or (last and not config.validate_every)):
            if marks := run.keep_model(score if validate else None):
                keep(**{k: round(v, 4) for k, v in marks.items()})
                note = ", ".join([note, *(f"{k} {v:.4f}" for k, v in marks.items())])
            since = time.perf_counter()
        due = first and not last and (at.step % config.save_every == 0 or validate)
        if first and last:
            save_state(run, {})
        progress.add(note=note)


@dataclass
class Run:
    """A training under way. model: bare, wrapped: as Fabric runs it on its device."""

    fabric: Fabric
    config: TrainConfig
    output: Path
    model: nn.Module
    wrapped: nn.Module
    optimiser: Optimizer
    schedule: LambdaLR
    average: AveragedModel | None
    at: Progressed
    own: OwnFolder | None = None  # what it trains on, where that is a folder of one's own

    def learn(self) -> None:
        """The model learns from here on: its batch norms by the batch, unless they are frozen."""
        self.model.train()
        for module in self.model.modules() if self.config.frozen_norms else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def seed_dropout(self) -> None:
        """Dropout draws from this generator alone: the step decides it, not the steps that this process has seen."""
        place = (self.config.seed, self.at.step, self.fabric.global_rank, 2)
        torch.manual_seed(int(np.random.default_rng(place).integers(2**62)))

    def buffers(self) -> dict[str, Tensor]:
        """Running means and counters as they are now; a forward pass moves them on."""
        weights = dict(self.model.named_parameters())
        return {k: v.clone() for k, v in self.model.state_dict().items() if k not in weights}

    def backward(self, batch: Batch, part: int) -> Tensor:
        """Add the gradients of a part of a step. -> its loss and J, 1 part, and its images (in all processes)."""
        config, device = self.config, self.fabric.device
        x = batch.images.to(device, non_blocking=True).float().div_(255)
        y, w = batch.targets.to(device, non_blocking=True), batch.weights.to(device)
        marks = () if batch.marks is None else (batch.marks.to(device),)
        with self.fabric.no_backward_sync(self.wrapped, enabled=part < config.accumulate - 1):
            answer = self.wrapped(x, w, *marks)
            loss = sum(self.model.loss(answer, y, batch.classes.to(device), config.dice).values())
            loss = loss + config.boundary * boundary_cross_entropy(answer.logits, y) if config.boundary else loss
            if not torch.isfinite(loss):
                self.stop("the loss is")
            self.fabric.backward(loss / config.accumulate)
        images = x.shape[0] * x.shape[1] * self.fabric.world_size
        return torch.tensor([loss.item(), batch_jaccard(answer.logits, y).item(), 1, images])

    def stop(self, what: str) -> NoReturn:
        """Raises CosegError, and leaves word that other rates may be tried."""
        note_stop(self.output, self.at.step, self.config)
        why = f"{what} not finite at step {self.at.step}"
        raise CosegError(f"{self.output}: {why}; lower learning_rate and --resume")

    def step(self) -> None:
        """Move the weights, their average and the rates on by one."""
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.at.step += 1

    def keep_model(self, score: Callable | None) -> dict[str, float]:
        """Write the model that is used, unless it scores below an earlier one, or no better than what a tuning starts
        from. -> the scores; {} without `score`."""
        used = (self.model if self.average is None else self.average.module).eval()
        if not all(value.isfinite().all() for value in used.state_dict().values()):
            self.stop("weights are")  # of the last step no loss would tell it
        marks = score(used) if score else {}
        best, now = self.at.best, marks.get("val_J", self.at.best)
        if not self.at.step:
            self.at.before = now
        if now > best or (now == best and (not marks or best != self.at.before)):
            self.at.best = now
            save_model(self.output / MODEL, used, self._about())
        self.learn()
        return marks

    def _about(self) -> dict:
        config, at, fabric = self.config, self.at, self.fabric
        about = {"method": config.method, "backbone": config.backbone, "training": config.fields(), "step": at.step}
        about |= {"seconds": round(at.seconds, 1), "precision": precision_of(config.precision, fabric.device)}
        about["device"] = device_name(fabric.device, fabric.world_size)
        about |= {"earlier_rates": at.earlier_rates} if at.earlier_rates else {}
        about["trained_with"] = at.trained_with
        about |= {"by_example": True} if config.example_share else {}
        if config.data == "real" and (not config.start or self.model.started_from.get("kept_apart")):
            about["kept_apart"] = list(SET_APART)
        if self.own:
            about["data_folder"] = self.own.about() | {"J_before": at.before, "J": at.best}
        # the run before this one, and the one before that
        return about | ({"started_from": self.model.started_from} if config.start else {})


def cached_photographs(config: TrainConfig, quiet: bool = True, own: OwnFolder | None = None) -> TrainingSet:
    """Decoded and resized once, kept on disk. quiet: False says on stderr how far it is; own: where it is read already.

    Raises CosegError for a folder of one's own that cannot train.
    """
    if config.folder:
        own = own or own_folder(config.folder)
        found = training_set(list(own.training), config.cache_side, quiet=quiet)
        own.check_enough(found, config.group_size)
        return replace(found, content=own.content)  # of what is kept aside, too
    if config.data == "synthetic":
        photos = synthetic_photos("train", config.synthetic_photos, size=config.cache_side)
    else:
        photos = training_photos(dataset="coco-seg" if config.data == "coco-seg" else "voc+msrc")
    return training_set(photos, config.cache_side, quiet=quiet, scenery=config.scenery)


def build_batches(config: TrainConfig, photos: TrainingSet, processes: int = 1, rank: int = 0) -> GroupSampler:
    """The batches of one process of several, each a part of a step."""
    same = {name: getattr(config, name) for name in ("shares", "pasted", "twins", "made", "crop", "seed", "by_set")}
    if config.folder and len(photos.classes) == 1:  # nothing to tell it from
        same["shares"] = (1.0, 0.0, 0.0)
    groups, steps = config.groups // config.accumulate // processes, config.steps * config.accumulate
    side = config.sides or config.input_size
    same |= {"examples": config.example_share, "least": 1e-9 if config.folder else PRESENT}  # own marks are meant
    return GroupSampler(photos, config.group_size, groups, side, steps=steps, rank=rank, **same)


def build_validation(config: TrainConfig, own: OwnFolder | None = None) -> Callable[..., dict[str, float]]:
    """A function model -> {val_J, val_seen, val_unseen, val_swap, val_refusal}; models are chosen by the first.

    val_J is the mean of J on kinds that train (seen) and on kinds that never do (unseen). Of drawn scenes there are no
    unseen ones, and of a folder of one's own there is val_J alone.
    """
    if own:
        return lambda model: {"val_J": own.jaccard_aside(model, config.validate_photos)}
    groups = load_synthetic("val") if config.data == "synthetic" else validation_groups()
    sets = {"val_seen": groups} | ({} if config.data == "synthetic" else {"val_unseen": unseen_groups()})

    def score(model) -> dict[str, float]:
        rows = {name: evaluate(model, some, "common", limit=config.validate_photos) for name, some in sets.items()}
        by_set = {name: float(aggregate(some, "common").J.iloc[-1]) for name, some in rows.items()}
        unsure = refusal(model, groups)
        return {
            "val_J": sum(by_set.values()) / len(by_set),
            **(by_set if len(by_set) > 1 else {}),
            "val_swap": 100 * float(partner_swap(model, groups).score.mean()),
            "val_refusal": auroc(unsure.score, unsure.common),
        }

    return score


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


def build_optimiser(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Adam or AdamW: the backbone's weights at a rate of their own, then all others."""
    backbone = list(model.backbone.parameters())
    of_backbone = {*map(id, backbone)}
    rest = [p for p in model.parameters() if id(p) not in of_backbone]
    sets = [{"params": backbone, "lr": config.backbone_learning_rate}, {"params": rest, "lr": config.learning_rate}]
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(sets, weight_decay=config.weight_decay)


def build_schedule(optimiser: Optimizer, config: TrainConfig, step: int = 0) -> LambdaLR:
    """The schedule at a step. The rates are a function of the step alone, so it has no state to save.

    Every group's rate is the configuration's before and the scheduled one afterwards.
    """
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]  # without it a schedule in mid-course would start from nothing
    return LambdaLR(optimiser, partial(learning_rate_factor, config), last_epoch=step - 1)


def build_average(model: nn.Module, decay: float, step: int = 0) -> AveragedModel | None:
    """The weights' moving average at a step: decay · average + (1 − decay) · weights, faster at first. 0: none.

    Counters are copied, running means are averaged as the weights are.
    """
    if not decay:
        return None

    def follow(average: list[Tensor], weights: list[Tensor], n: Tensor) -> None:
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, weights, 1 - min(decay, (1 + int(n)) / (10 + int(n))))
        else:
            for mean, value in zip(average, weights, strict=True):
                mean.copy_(value)

    averaged = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    averaged.n_averaged += step + 1  # the first weights count, so that the first step's do not replace them
    return averaged


def begin(
    fabric: Fabric, model, optimiser: Optimizer, config: TrainConfig, output: Path, saved: Saved | None, own=None
) -> Run:
    """Everything on its device, then brought to the saved state: in this order, or Adam meets two devices."""
    at = saved.progressed if saved else Progressed()
    average = build_average(model, config.average, at.step)
    wrapped, optimiser = fabric.setup(model, optimiser)
    if average is not None:
        average.to(fabric.device)
    if saved:
        restore(saved, model, optimiser, average)
    schedule = build_schedule(optimiser, config, at.step)
    return Run(fabric, config, output, model, wrapped, optimiser, schedule, average, at, own)


def _initial_model(config: TrainConfig, categories: int) -> nn.Module:
    """categories: L, the classes of the training photographs, for methods that also learn to name them."""
    built, options = (config.method, config.backbone, config.variant, config.input_size), dict(config.options)
    if "categories" in METHODS[config.method].options:
        options.setdefault("categories", categories)
    if not config.start:
        return build_model(*built, "imagenet" if config.pretrained else None, options=options)
    trained = load_model(config.start, config.method, folded=False)
    for name in ("backbone", "variant"):
        theirs, ours = trained.card[name], getattr(config, name)
        if theirs != ours:
            raise CosegError(f"{config.start}: its {name} is {theirs}, not {ours}; set {name}")
    model = build_model(*built, weights=None, origin=trained.card["origin"], options=options)
    theirs, ours = trained.state_dict(), model.state_dict()
    if "categories" in options:  # what names other classes begins anew
        named = options["categories"], trained.card["options"].get("categories")
        new = [k for k, v in theirs.items() if k in ours and (*ours[k].shape[:1], *v.shape[:1]) == named]
        theirs |= {k: ours[k] for k in new if ours[k].shape != theirs[k].shape}
    if wrong := fill(model, theirs):
        raise CosegError(f"{config.start}: its tensors do not fit {config.method} with these options (first: {wrong})")
    if config.folder:  # answers as what it starts from, in validation too
        model.looks, model.post = trained.looks, trained.post
    keys = ("name", "sha256", "training", "step", "seconds", "precision", "device", "earlier_rates", "trained_with")
    keys += ("kept_apart",)
    model.started_from = {key: trained.card[key] for key in (*keys, "started_from") if key in trained.card}
    return model
