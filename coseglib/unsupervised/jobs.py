"""One group in memory while a generator learns on it: the thesis' job, and what any job is asked for.

`coseglib.unsupervised.learner` says where the optimisation differs from the thesis; the workbook's is `clustered`.
"""

import math
import time
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from coseglib.answering.reading import picture_of, resize_to_input
from coseglib.core.devices import precision_of
from coseglib.core.errors import CosegError
from coseglib.core.progress import clock
from coseglib.data.record import Photo
from coseglib.models import build_model
from coseglib.models.backbones import build_backbone
from coseglib.models.contract import Terms
from coseglib.models.multiclass import FeatureExtractor, MultiClass, terms
from coseglib.unsupervised.configuration import OnlineConfig, check_classes

CHUNK = 8  # images that the frozen extractor describes at once
QUIET = 10  # seconds between two lines of progress within an epoch
CHANCE = math.log(2)  # the pairs' term of the loss, eq. (4), where nothing tells a class from the rest

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Progress for nobody."""


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


def inputs_of(photos: Sequence[Tensor | Photo], size: int) -> Tensor:
    """(n, 3, size, size) in [0, 1], as the engine asks of them later."""
    inputs = [resize_to_input(picture_of(photo).pixels, size) for photo in photos]
    return torch.stack(inputs).contiguous(memory_format=torch.channels_last)


class LearningJob:
    """One group in memory: its inputs, the frozen extractor, and what the extractor says where that is constant."""

    def __init__(self, photos: Sequence[Tensor | Photo], classes: int, config: OnlineConfig):
        if not photos:
            raise CosegError("no photographs: a group needs at least one")
        check_classes(classes)
        self.config, self.classes = config, classes
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(best if config.device == "auto" else config.device)
        self.bfloat16 = precision_of(config.precision, self.device) == "bf16-mixed"
        self.images = inputs_of(photos, config.input_size).to(self.device)
        self.count = len(photos)
        self.weights = "imagenet" if config.pretrained else None
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = self._ready(build_backbone(config.extractor, self.weights))
        self.extractor = FeatureExtractor(network, config.masking, config.fill)
        self.described = self._described(photos) if config.masking == "features" else None

    def _ready(self, backbone: nn.Module) -> nn.Module:
        backbone = backbone.to(self.device, memory_format=torch.channels_last)
        if not self.config.pretrained:
            normalise_on(backbone, self.images)
        return backbone

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    @torch.no_grad()
    def _described(self, photos: Sequence[Tensor | Photo]) -> Tensor:
        """What the extractor says of each whole photograph, once for all epochs."""
        size = self.config.extractor_size or self.config.input_size
        parts = [photos[start : start + CHUNK] for start in range(0, len(photos), CHUNK)]
        with self.autocast():
            return torch.cat([self.extractor.describe(inputs_of(part, size).to(self.device)) for part in parts])

    def generator(self) -> MultiClass:
        """A new one, the same every time. Its backbone's normalisation stays as it is where weights are ImageNet's."""
        config = self.config
        parts = {"self_attention": config.self_attention, "mutual_attention": config.mutual_attention}
        made = config.backbone, config.variant, config.input_size, self.weights
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            model = build_model("multiclass", *made, options={"classes": self.classes, **parts})
        self._ready(model.backbone)
        model.post = config.post
        return model.to(self.device, memory_format=torch.channels_last)

    def batches(self, epoch: int) -> list[list[int]]:
        """Every image once, shuffled by seed and epoch; the last batch is filled up from the first."""
        n = self.count
        size = min(self.config.batch, n)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1000 * self.config.seed + epoch)).tolist()
        return [[order[(start + i) % n] for i in range(size)] for start in range(0, n, size)]

    def losses(self, model: MultiClass, numbers: list[int]) -> Terms:
        """The terms of one batch's loss, summed over pairs and classes as printed: see `MultiClass.loss`."""
        images, config = self.images[numbers][None], self.config
        described = None if self.described is None else self.described[numbers][None]
        with self.autocast():
            return model.loss(model(images), images, self.extractor, config.balance, config.border, described)

    @torch.no_grad()
    def answers(self, model: MultiClass) -> Tensor:
        """Logits of all photographs, (n, K+1, h, w) float32 on the CPU, set by set in their order; at any size."""
        model.eval()
        with self.autocast():
            sets = torch.arange(self.count).split(model.group_size)
            return torch.cat([self.logits(model, some.tolist())[0].float().cpu() for some in sets])

    def maps(self, model: MultiClass) -> Tensor:
        """The soft-max of `answers`."""
        return self.answers(model).softmax(dim=1)

    def logits(self, model: MultiClass, numbers: list[int]) -> Tensor:
        """Of some photographs as one set, (1, N, K+1, h, w)."""
        return model(self.images[numbers][None]).logits

    def optimise(self, model: MultiClass, rate: float, epochs: int, say: Say) -> pd.DataFrame:
        """Adam on the co-attention loss. -> a row an epoch: epoch, loss, pairs, seconds.

        loss, pairs  means over steps, pairs and classes: of all terms, and of the co-attention term alone (`CHANCE`)

        The model ends with the weights of the last epoch that lowered the loss by `tolerance`. It stops early as the
        configuration says, and at a loss that is not finite, which is then the last row's (NaN).
        """
        config, began = self.config, time.perf_counter()
        gammas = [p for name, p in model.named_parameters() if name == "gamma"]
        others = [p for name, p in model.named_parameters() if name != "gamma" and p.requires_grad]
        sets = [{"params": others, "lr": rate}, {"params": gammas, "lr": config.gamma_rate * rate}]
        optimiser = torch.optim.Adam(sets, weight_decay=config.weight_decay)
        rows, best, kept, stale = [], math.inf, model.state_dict(), 0
        model.train()
        if config.pretrained or config.variant == "workbook":
            model.backbone.eval()  # batches of three are too small for averages of their own
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            for epoch in range(epochs):
                loss, pairs = self._epoch(model, optimiser, epoch, epochs, began, say)
                rows.append({"epoch": epoch + 1, "loss": loss, "pairs": pairs, "seconds": time.perf_counter() - began})
                if loss < best - config.tolerance:
                    best, stale = loss, 0
                    kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
                    continue
                stale += 1
                if math.isnan(loss):
                    break
                if stale >= config.patience and epoch + 1 < epochs:
                    say(f"no improvement in {stale} epochs: stopped after {epoch + 1}")
                    break
        model.load_state_dict(kept)
        return pd.DataFrame(rows)

    def _epoch(self, model, optimiser, epoch: int, epochs: int, began: float, say: Say) -> tuple[float, float]:
        """A step a batch. -> the mean loss of a pair and class, and of it the pairs' term; NaN where not finite."""
        batches, total, pairs, shown = self.batches(epoch), 0.0, 0.0, time.perf_counter()
        for step, numbers in enumerate(batches, start=1):
            losses = self.losses(model, numbers)
            loss = sum(losses.values())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.item() / terms(len(numbers), self.classes)
            pairs += losses["co_attention"].item() / terms(len(numbers), self.classes)
            if not math.isfinite(total):
                return math.nan, math.nan
            now = time.perf_counter()
            if now - shown > QUIET or step == len(batches):
                shown, share = now, (epoch * len(batches) + step) / (epochs * len(batches))
                left = clock((now - began) / share * (1 - share))
                at = f"epoch {epoch + 1} of {epochs}, step {step} of {len(batches)}"
                said = f"loss {total / step:.4f}, of it pairs {pairs / step:.4f} (chance {CHANCE:.3f})"
                say(f"{at}: {said}, {left} left")
        return total / len(batches), pairs / len(batches)

    def choose_learning_rate(self, say: Say = silent) -> tuple[float, pd.DataFrame]:
        """The rate of `config.learning_rates` whose loss is lowest after `config.trial_epochs`; no mask is looked at.

        -> the rate, and a row for each that was tried: learning_rate, epochs, loss (NaN where it was not finite).
        Raises CosegError where none stays finite.
        """
        rows, rates, epochs = [], self.config.learning_rates, self.config.trial_epochs
        for rate in rates:
            log = self.optimise(self.generator(), rate, epochs, lambda text, rate=rate: say(f"trying {rate:g}: {text}"))
            rows.append({"learning_rate": rate, "epochs": len(log), "loss": log.loss.iloc[-1]})
        trials = pd.DataFrame(rows)
        if trials.loss.isna().all():
            tried = ", ".join(f"{r:g}" for r in rates)
            raise CosegError(f"learning rates {tried}: the loss is not finite at any of them; give smaller ones")
        rate = float(trials.learning_rate[trials.loss.idxmin()])
        say(f"learning rate {rate:g}: the lowest loss after {epochs} epochs")
        return rate, trials
