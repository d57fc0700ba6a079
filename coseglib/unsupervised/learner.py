"""Online optimisation: a generator learns on the very photographs that it is to segment; no masks, only K.

    from coseglib.unsupervised.learner import co_segment
    found = co_segment(photos, classes=2, config=load_online("cpu"), progress=print)
    found.labels()                     # a label map for each photograph, 0 … K, at its own size

Where this differs from the thesis (see also `coseglib.models.multiclass`)
  * The learning rate's exponent is lost: a short list is tried, and the loss alone chooses. Adam, weight decay 5e-4,
    mini-batches of three and ten epochs are as printed; the early stop by the loss, and keeping the weights of the
    epoch of the lowest, are ours. The last mini-batch of an epoch is filled up from its first images.
  * The generator's batch normalisation (VGG16 has none) keeps ImageNet's averages: three images are too few.
  * Label maps are made in chunks of `together` images that attend each other, overlapping at the end.
  * The cpu profile is not the paper's: small backbone and input, larger mini-batches, `masking="features"`, `balance`,
    `border`, and a faster γ. Its figures are the workbook's, and its table's rows name the profile.

`coseg train` and `coseg segment` with `--method multiclass` are `train` and `learn` below; `coseg evaluate` is
`coseglib.evaluation.multiclass_tables`.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import yaml
from torch import Tensor, nn

from coseglib.answering.crf import CRF, labels_of
from coseglib.answering.reading import picture_of, resize_to_input
from coseglib.core.errors import CosegError
from coseglib.core.precision import precision_of
from coseglib.core.processes import clock
from coseglib.core.tables import write_table
from coseglib.data import load
from coseglib.data.record import Group, Photo
from coseglib.models.backbones import build_backbone
from coseglib.models.checkpoints import load_model, save_model
from coseglib.models.multiclass import (
    FeatureExtractor,
    MultiClass,
    terms,
)
from coseglib.segmenting.finding import find_photos
from coseglib.unsupervised.configuration import OnlineConfig

CHUNK = 8  # images that the frozen extractor describes at once
QUIET = 10  # seconds between two lines of progress within an epoch
CHANCE = math.log(2)  # the loss where nothing tells a class from the rest


# Preparing ------------------------------------------------------------------------------------------------------------


def _picture(photo: Tensor | Photo) -> Tensor:
    return photo.image() if isinstance(photo, Photo) else photo


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def check_classes(classes: int) -> None:
    """Raises CosegError for a K that is none."""
    if not 1 <= classes <= 254:
        raise CosegError(f"classes = {classes}: K is 1 to 254, as a label map has 8 bits, 0 background and 255 void")


@contextmanager
def _seeded(seed: int):
    """torch's global generator seeded within, and as it was afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def normalise_on(backbone: nn.Module, images: Tensor) -> None:
    """Batch normalisation's averages of a network with random weights, measured on the images themselves.

    The untrained averages (0 and 1) let all that such a network says fade to nearly nothing.
    """
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    backbone.train()
    for some in images.split(CHUNK):
        backbone.embed(backbone(some)[-1])
    backbone.eval()


class _Job:
    """One group in memory: its inputs, the frozen extractor, and what the extractor says where that is constant."""

    def __init__(self, photos: Sequence[Tensor | Photo], classes: int, config: OnlineConfig, weights_root=None):
        if not photos:
            raise CosegError("no photographs: a group needs at least one")
        check_classes(classes)
        self.config, self.classes, self.weights_root = config, classes, weights_root
        self.device = _device(config.device)
        inputs = [resize_to_input(_picture(photo), config.input_size) for photo in photos]
        self.images = torch.stack(inputs).contiguous(memory_format=torch.channels_last).to(self.device)
        self.bfloat16 = precision_of(config.precision, _device(config.device)).startswith("bf16")
        with _seeded(config.seed):
            network = self._network(config.extractor)
        self.extractor = FeatureExtractor(network, config.masking, config.fill)
        self.described = self._described(photos) if config.masking == "features" else None

    def _network(self, name: str) -> nn.Module:
        network = build_backbone(name, "imagenet" if self.config.pretrained else None, self.weights_root)
        network = network.to(self.device, memory_format=torch.channels_last)
        if not self.config.pretrained:
            normalise_on(network, self.images)
        return network

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    @torch.no_grad()
    def _described(self, photos: Sequence[Tensor | Photo]) -> Tensor:
        """What the extractor says of each whole photograph, once for all epochs."""
        size, found = self.config.extractor_size or self.config.input_size, []
        for start in range(0, len(photos), CHUNK):
            some = torch.stack([resize_to_input(_picture(p), size) for p in photos[start : start + CHUNK]])
            with self.autocast():
                found.append(self.extractor.describe(some.to(self.device, memory_format=torch.channels_last)))
        return torch.cat(found)

    def generator(self) -> MultiClass:
        """A new one, the same every time. Its backbone's normalisation stays as it is where weights are ImageNet's."""
        config = self.config
        with _seeded(config.seed):
            network = self._network(config.backbone)
            model = MultiClass(
                network,
                config.variant,
                config.input_size,
                classes=self.classes,
                self_attention=config.self_attention,
                mutual_attention=config.mutual_attention,
            )
        model.options = {
            "classes": self.classes,
            "self_attention": config.self_attention,
            "mutual_attention": config.mutual_attention,
        }  # what a checkpoint's header holds
        return model.to(self.device, memory_format=torch.channels_last)

    def batches(self, epoch: int) -> list[list[int]]:
        """Every image once, shuffled by seed and epoch; the last batch is filled up from the first."""
        n = len(self.images)
        size = min(self.config.batch, n)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1000 * self.config.seed + epoch)).tolist()
        return [[order[(start + i) % n] for i in range(size)] for start in range(0, n, size)]

    def loss(self, model: MultiClass, numbers: list[int]) -> Tensor:
        """The loss of one batch, summed over pairs and classes as printed."""
        images, described = self.images[numbers][None], None
        if self.described is not None:
            described = self.described[numbers][None]
        with self.autocast():
            weights = self.config.balance, self.config.border
            losses = model.loss(model(images), images, self.extractor, *weights, described)
        return sum(losses.values())

    def optimise(self, model: MultiClass, rate: float, epochs: int, say: Callable[[str], None]) -> pd.DataFrame:
        """Adam on the co-attention loss. -> a row an epoch: epoch, loss (mean over steps, pairs and classes), seconds.

        The model ends with the weights of the epoch of the lowest loss. It stops early as the configuration says, and
        at a loss that is not finite, which is then the last row's.
        """
        config, began, shown = self.config, time.perf_counter(), time.perf_counter()
        gammas = [p for name, p in model.named_parameters() if name == "gamma"]
        others = [p for name, p in model.named_parameters() if name != "gamma"]
        sets = [{"params": others, "lr": rate}, {"params": gammas, "lr": config.gamma_rate * rate}]
        optimiser = torch.optim.Adam(sets, weight_decay=config.weight_decay)
        rows, best, kept, stale = [], math.inf, None, 0
        model.train()
        if config.pretrained:
            model.backbone.eval()  # batches of three are too small for averages of their own
        with _seeded(config.seed):
            for epoch in range(epochs):
                batches, total = self.batches(epoch), 0.0
                for step, numbers in enumerate(batches, start=1):
                    loss = self.loss(model, numbers)
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                    total += loss.item() / terms(len(numbers), self.classes)
                    if not math.isfinite(total):
                        rows.append({"epoch": epoch + 1, "loss": math.nan, "seconds": time.perf_counter() - began})
                        return pd.DataFrame(rows)
                    now = time.perf_counter()
                    if now - shown > QUIET or step == len(batches):
                        shown, share = now, (epoch * len(batches) + step) / (epochs * len(batches))
                        left = clock((now - began) / share * (1 - share))
                        at = f"epoch {epoch + 1} of {epochs}, step {step} of {len(batches)}"
                        say(f"{at}: loss {total / step:.4f} (chance {CHANCE:.3f}), {left} left")
                rows.append({"epoch": epoch + 1, "loss": total / len(batches), "seconds": time.perf_counter() - began})
                if rows[-1]["loss"] < best - config.tolerance:
                    best, stale = rows[-1]["loss"], 0
                    kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
                else:
                    stale += 1
                    if stale >= config.patience and epoch + 1 < epochs:
                        say(f"no improvement in {stale} epochs: stopped after {epoch + 1}")
                        break
        if kept is not None:
            model.load_state_dict(kept)
        return pd.DataFrame(rows)

    @torch.no_grad()
    def maps(self, model: MultiClass) -> Tensor:
        """Soft-max maps of all images, attending each other in overlapping chunks. -> (n, K+1, S, S) float32, CPU."""
        model.eval()
        n = len(self.images)
        size = min(self.config.together, n)
        found: list[Tensor] = []
        while len(found) < n:
            start = min(len(found), n - size)
            with self.autocast():
                logits = model(self.images[start : start + size][None]).logits[0]
            found += list(logits.softmax(dim=1).cpu()[len(found) - start :])
        return torch.stack(found)


# What is offered ------------------------------------------------------------------------------------------------------


@dataclass
class CoSegmentation:
    """A group, co-segmented.

    generator      trained on the group, in evaluation mode
    maps           its soft-max maps (n, K+1, S, S) in [0, 1], channel 0 the background
    log            a row an epoch: epoch, loss (mean over pairs and classes), seconds
    learning_rate  that was used
    trials         learning_rate, epochs, loss of each that was tried; empty where the rate was given
    """

    photos: Sequence[Tensor | Photo]
    config: OnlineConfig
    generator: MultiClass
    maps: Tensor
    log: pd.DataFrame
    learning_rate: float
    trials: pd.DataFrame
    seconds: float

    def labels(self, post: str | None = None, crf: CRF | None = None) -> list[Tensor]:
        """A label map for each photograph, uint8 (H, W), 0 … K, at its own size.

        post  "crf" or "argmax"; None: the configuration's. crf: its parameters, None: the configuration's
        """
        post, crf = post or self.config.post, crf or self.config.crf
        return [labels_of(_picture(p), maps, post, crf) for p, maps in zip(self.photos, self.maps, strict=True)]


def _silent(text: str) -> None:
    pass


def _chosen_rate(job: _Job, say: Callable[[str], None]) -> tuple[float, pd.DataFrame]:
    rows = []
    for rate in job.config.learning_rates:
        log = job.optimise(
            job.generator(), rate, job.config.trial_epochs, lambda text, rate=rate: say(f"trying {rate:g}: {text}")
        )
        rows.append({"learning_rate": rate, "epochs": len(log), "loss": log.loss.iloc[-1]})
    trials = pd.DataFrame(rows)
    if not trials.loss.notna().any():
        tried = ", ".join(f"{r:g}" for r in job.config.learning_rates)
        raise CosegError(f"learning rates {tried}: the loss is not finite at any of them; give smaller ones")
    rate = float(trials.learning_rate[trials.loss.idxmin()])
    say(f"learning rate {rate:g}: the lowest loss after {job.config.trial_epochs} epochs")
    return rate, trials


def choose_learning_rate(
    photos: Sequence[Tensor | Photo],
    classes: int,
    config: OnlineConfig,
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> tuple[float, pd.DataFrame]:
    """The rate of `config.learning_rates` whose loss is lowest after `config.trial_epochs`; no mask is looked at.

    -> the rate, and a row for each that was tried: learning_rate, epochs, loss (NaN where it was not finite).
    Raises CosegError where none stays finite, and as `co_segment` does.
    """
    return _chosen_rate(_Job(photos, classes, config, weights_root), progress or _silent)


def co_segment(
    photos: Sequence[Tensor | Photo],
    classes: int = 2,
    config: OnlineConfig | None = None,
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> CoSegmentation:
    """Optimise a generator on the photographs themselves, and segment them with it.

    photos    uint8 RGB (3, H, W) each, of any sizes, or `Photo`s; one or more. Masks are never read
    classes   K, how many classes they have in common; it may be more than there are
    progress  called with lines of text: epoch, loss, time left
    The same photographs, configuration and machine give the same result; torch's generator is left as it was.
    Raises CosegError for no photographs, a K below 1, missing weights, or a loss that is not finite.
    """
    began, say, config = time.perf_counter(), progress or _silent, config or OnlineConfig()
    job = _Job(photos, classes, config, weights_root)
    rate, trials = config.learning_rate, pd.DataFrame(columns=["learning_rate", "epochs", "loss"])
    if rate is None:
        rate, trials = _chosen_rate(job, say)
    model = job.generator()
    log = job.optimise(model, rate, config.epochs, say)
    if not log.loss.notna().all():
        raise CosegError(f"learning rate {rate:g}: the loss is not finite in epoch {len(log)}; give a smaller one")
    maps = job.maps(model)
    return CoSegmentation(photos, config, model, maps, log, rate, trials, time.perf_counter() - began)


# Files ----------------------------------------------------------------------------------------------------------------


def _picture_of(file: Path) -> Tensor:
    return picture_of(file).pixels


def group_of_files(
    named: Sequence[str | Path], leave_out: Path | None = None, say: Callable[[str], None] | None = None
) -> Group:
    """The photographs of files and folders as a group without masks.

    named, leave_out  as for `segmenting.finding.find_photos`     say  called with a line for each that cannot be read
    Raises CosegError where none is left.
    """
    files, empty, _ = find_photos(named, leave_out)
    faults = [f"{folder}: {why}" for folder, why in empty]
    photos = []
    for file in files:
        try:
            _picture_of(file)
            photos.append(Photo("files", str(file), (), partial(_picture_of, file), None, file))
        except CosegError as fault:
            faults.append(str(fault))
    if not photos:
        raise CosegError(f"{faults[0] if faults else 'no photographs were named'}; no photograph is left to learn on")
    for fault in faults:
        (say or _silent)(f"{fault}; left out")
    return Group("files", photos[0].path.resolve().parent.name, tuple(photos))


def named_group(name: str, data_root: str | Path | None = None) -> Group:
    """A group of two or three classes by its name: procedural ("star+ring"), else of VOC 2012 ("dog+person").

    Raises CosegError where there is none of that name, or no VOC 2012.
    """
    scenes = load("synthetic-multiclass")
    return next((g for g in scenes if g.name == name), None) or only(load("voc-multiclass", data_root), [name])[0]


def only(groups: Sequence[Group], names: Sequence[str] | None) -> list[Group]:
    """The groups of these names; without names all. Raises CosegError for one that is not there."""
    known = {g.name: g for g in groups}
    for name in names or ():
        if name not in known:
            raise CosegError(f"{name}: no such group; one of {', '.join(known) or 'none: this data set has no groups'}")
    return [known[name] for name in names] if names else list(groups)


def _about(group: Group, found: "CoSegmentation") -> dict:
    """What a checkpoint's header says of a generator."""
    config = found.config
    return {
        "method": "multiclass",
        "backbone": config.backbone,
        "classes": found.generator.classes,
        "training": config.fields(),
        "group": {"name": group.name, "photos": [p.name for p in group.photos], "sha256": group.content()},
        "learning_rate": found.learning_rate,
        "epochs": len(found.log),
        "loss": float(found.log.loss.min()),
        "seconds": round(found.seconds, 1),
        "device": str(_device(config.device)),
        "precision": precision_of(config.precision, _device(config.device)),
    }


def learn(
    group: Group,
    classes: int,
    config: OnlineConfig,
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> MultiClass:
    """The generator of a group, in evaluation mode, with `card`: what a checkpoint's header says. See `co_segment`."""
    found = co_segment(group.photos, classes, config, progress, weights_root)
    found.generator.card, found.generator.post = _about(group, found), config.post
    return found.generator


def train(
    group: Group,
    classes: int,
    config: OnlineConfig,
    output: str | Path,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> Path:
    """Learn on a group, and leave model.safetensors, log.csv (a row an epoch) and config.yaml in the folder `output`.

    resume  keep the finished run that the folder holds. A run of minutes has no state in between: one that was killed
            starts anew
    Returns the path of model.safetensors. Raises CosegError for a folder in use, or a run that was another one.
    """
    check_classes(classes)
    output, say = Path(output), progress or _silent
    model = output / "model.safetensors"
    if (output / "state.safetensors").exists():
        raise CosegError(f"{output}: holds a run of another method; choose another folder")
    if model.exists() and not resume:
        raise CosegError(f"{output}: already holds a run; add --resume to keep it, or choose another folder")
    if model.exists():
        _check_same(model, group, classes, config)
        say(f"{model}: done before")
        return model
    output.mkdir(parents=True, exist_ok=True)
    fields = config.fields()
    about = {"method": "multiclass", "group": group.name, "photos": len(group), "classes": classes, **fields}
    (output / "config.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    say("".join(f"  {k}: {v}\n" for k, v in about.items()).rstrip())
    found = co_segment(group.photos, classes, config, say, weights_root)
    write_table(found.log, output / "log.csv")
    save_model(model, found.generator, _about(group, found))
    return model


def _check_same(model: Path, group: Group, classes: int, config: OnlineConfig) -> None:
    card = load_model(model, "multiclass").card
    ours = {"classes": classes, **config.fields()}
    theirs = {"classes": card["classes"], **card["training"]}
    for name, value in ours.items():
        if value != theirs.get(name):
            has = f"was trained with {name} = {theirs.get(name)}, not {value}"
            raise CosegError(f"{model}: {has}; resume with the same or use another folder")
    if card["group"]["sha256"] != group.content():
        raise CosegError(f"{model}: learned on other photographs ({card['group']['name']}); use another folder")
