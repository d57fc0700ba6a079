"""One group in memory while a generator learns on it: batches, loss, epochs, maps."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor, nn

from coseglib.answering.reading import resize_to_input
from coseglib.core.devices import precision_of
from coseglib.core.errors import CosegError
from coseglib.core.progress import clock
from coseglib.data.record import Photo
from coseglib.models.backbones import build_backbone
from coseglib.models.multiclass import FeatureExtractor, MultiClass, terms
from coseglib.unsupervised.configuration import OnlineConfig

CHUNK = 8  # images that the frozen extractor describes at once
QUIET = 10  # seconds between two lines of progress within an epoch
CHANCE = math.log(2)  # the loss where nothing tells a class from the rest


def pixels_of(photo: Tensor | Photo) -> Tensor:
    return photo.image() if isinstance(photo, Photo) else photo


def device_of(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def check_classes(classes: int) -> None:
    """Raises CosegError for a K that is none."""
    if not 1 <= classes <= 254:
        raise CosegError(f"classes = {classes}: K is 1 to 254, as a label map has 8 bits, 0 background and 255 void")


@contextmanager
def seeded(seed: int):
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


class LearningJob:
    """One group in memory: its inputs, the frozen extractor, and what the extractor says where that is constant."""

    def __init__(self, photos: Sequence[Tensor | Photo], classes: int, config: OnlineConfig, weights_root=None):
        if not photos:
            raise CosegError("no photographs: a group needs at least one")
        check_classes(classes)
        self.config, self.classes, self.weights_root = config, classes, weights_root
        self.device = device_of(config.device)
        inputs = [resize_to_input(pixels_of(photo), config.input_size) for photo in photos]
        self.images = torch.stack(inputs).contiguous(memory_format=torch.channels_last).to(self.device)
        self.bfloat16 = precision_of(config.precision, device_of(config.device)).startswith("bf16")
        with seeded(config.seed):
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
            some = torch.stack([resize_to_input(pixels_of(p), size) for p in photos[start : start + CHUNK]])
            with self.autocast():
                found.append(self.extractor.describe(some.to(self.device, memory_format=torch.channels_last)))
        return torch.cat(found)

    def generator(self) -> MultiClass:
        """A new one, the same every time. Its backbone's normalisation stays as it is where weights are ImageNet's."""
        config = self.config
        with seeded(config.seed):
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
        with seeded(config.seed):
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
