"""The backbone for drawn scenes learns to name what they show, as the papers' learned to name ImageNet.

    python -m coseglib.training.classifier [--out FOLDER]     eight minutes of one core

Without this a network that starts from random weights learns to mark what stands out and stays there: that a partner
matters can only be learned by features that tell kinds of things apart. Multi-label: a scene shows up to three kinds,
clutter apart. p = σ(W GAP(f_32) + b), binary cross-entropy; W and b are not kept. A share of the scenes is held out,
and what the largest p names is counted on them. Written: `resnet10.safetensors`, matrices in fp16, with the facts.
"""

import argparse
import json
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from coseglib.core.devices import precision_of
from coseglib.core.files import atomic, writable
from coseglib.core.paths import NAMING
from coseglib.core.progress import Progress
from coseglib.data.by_class import PRESENT
from coseglib.data.cache import TrainingSet
from coseglib.data.sampler import augmentation
from coseglib.models.backbones import Backbone, build_backbone
from coseglib.models.checkpoints import in_half
from coseglib.training.configuration import TrainConfig, load_profile
from coseglib.training.loop import cached_photographs

NAME = "resnet10"
STEPS, BATCH, RATE, DECAY = 4000, 40, 2e-3, 1e-4
HELD_OUT = 400  # scenes, the last ones


def named(photos: TrainingSet, numbers: torch.Tensor, transform) -> tuple[torch.Tensor, torch.Tensor]:
    """Some scenes, transformed: images (B, 3, S, S) in [0, 1], and which classes are in them, (B, K) of 0 and 1."""
    pairs = [transform(*photos.photo(int(i))) for i in numbers]
    kinds = torch.arange(1, len(photos.classes) + 1)
    shares = [(labels[None] == kinds[:, None, None]).float().mean(dim=(1, 2)) for _, labels in pairs]
    return torch.stack([image for image, _ in pairs]).float() / 255, (torch.stack(shares) >= PRESENT).float()


def train_classifier(
    photos: TrainingSet, config: TrainConfig, steps: int = STEPS, quiet: bool = False
) -> tuple[Backbone, float]:
    """A backbone that names the scenes, and the share of those held out whose likeliest class is in the picture."""
    torch.manual_seed(config.seed)
    backbone = build_backbone(NAME, None).to(memory_format=torch.channels_last)
    head = nn.Linear(backbone.channels[-1], len(photos.classes))
    optimiser = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.05)
    transform, known = augmentation(config.input_size, config.crop), len(photos) - HELD_OUT
    autocast = {"dtype": torch.bfloat16, "enabled": precision_of("auto", torch.device("cpu")) == "bf16-mixed"}
    progress = Progress("naming", steps, "steps", quiet)
    for _ in range(steps):
        images, present = named(photos, torch.randint(known, (BATCH,)), transform)
        with torch.autocast("cpu", **autocast):
            top = backbone(images.contiguous(memory_format=torch.channels_last))[-1]
        loss = F.binary_cross_entropy_with_logits(head(top.float().mean(dim=(2, 3))), present)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress.add(note=f"loss {loss.item():.3f}")
    backbone.eval()
    images, present = named(photos, torch.arange(known, len(photos)), lambda image, labels: (image, labels))
    with torch.no_grad():
        images = F.interpolate(images, size=(config.input_size,) * 2, mode="bilinear", antialias=True)
        likeliest = torch.cat([head(backbone(part)[-1].mean(dim=(2, 3))) for part in images.split(BATCH)]).argmax(dim=1)
    return backbone, float(present.gather(1, likeliest[:, None]).mean())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the backbone of drawn scenes to name what they show.")
    parser.add_argument("--out", type=Path, default=NAMING, help="folder of the weights")
    out = writable(parser.parse_args(arguments).out, folder=True)
    config = load_profile("scenes")
    backbone, right = train_classifier(cached_photographs(config, quiet=False), config)
    facts = {"steps": STEPS, "batch": BATCH, "seed": config.seed, "side": config.input_size, "torch": torch.__version__}
    facts |= {"scenes": config.synthetic_photos, "held out": HELD_OUT, "likeliest class is in the picture": right}
    tensors = in_half(backbone.state_dict())
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / f"{NAME}.safetensors") as part:
        about = {"origin": backbone.origin, "made": json.dumps(facts)}
        part.write_bytes(safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()}, about))
    print(f"{out / NAME}.safetensors: of {HELD_OUT} scenes held out {right:.3f} named")
    return 0


if __name__ == "__main__":
    sys.exit(main())
