"""What the losses say of the same mistakes: value and gradient against the object's area and against the overlap.

Symbols   a  the object's share of the image, 0 … 1
          m  the margin: the logit of the side that is predicted, less that of the other side
          p  the foreground's probability, σ(m) where it is predicted, σ(−m) elsewhere

No loss here knows where a pixel lies: each is a sum over pixels, or a ratio of two such sums. So an image is a row of
pixels, the object the first n of them, and areas and overlaps are exact.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coseglib.core.errors import CosegError
from coseglib.models.losses import cross_entropy, foreground_dice, two_sided_dice
from coseglib.models.spatial_semantic import balanced_cross_entropy

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "dice": foreground_dice,
    "dice of both sides": two_sided_dice,
    "balanced, as printed": partial(balanced_cross_entropy, balance="paper"),
    "balanced, inverse": partial(balanced_cross_entropy, balance="inverse"),
}
IMAGE_SIDE = 64
PIXELS = IMAGE_SIDE**2
OBJECT_AREAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
LOGIT_MARGIN = 6.0  # p = .998


def object_labels(area: float) -> Tensor:
    """Labels uint8 (1, H, W): 1 on the first round(area · H · W) pixels. CosegError outside of 0 < area < 1."""
    count = round(area * PIXELS)
    if not 0 < count < PIXELS:
        raise CosegError(f"area = {area}: must leave a pixel of {PIXELS} to the object and one to the background")
    return (torch.arange(PIXELS) < count).to(torch.uint8).reshape(1, IMAGE_SIDE, IMAGE_SIDE)


def masked_logits(mask: Tensor, margin: float = LOGIT_MARGIN) -> Tensor:
    """Logits (1, 2, H, W), float64, of a prediction: ±margin/2. mask (1, H, W), 0 and 1."""
    foreground = margin * (mask.double() - 0.5)
    return torch.stack([-foreground, foreground], dim=1)


def _chosen(losses: Sequence[str] | None) -> dict[str, Loss]:
    for name in losses or ():
        if name not in LOSSES:
            raise CosegError(f"{name}: no such loss; one of {', '.join(LOSSES)}")
    return {name: LOSSES[name] for name in losses or LOSSES}


def pixel_gradient(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """|∂ loss / ∂ (the two logits' difference)|, pixel by pixel, (1, H, W)."""
    logits = logits.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(logits, labels), logits)
    return slope[:, 1].abs()  # the soft-max reads the difference alone: the two slopes are opposite


def loss_by_area(areas: Sequence[float] = OBJECT_AREAS, losses: Sequence[str] | None = None) -> pd.DataFrame:
    """A row a loss and area. Columns loss, area, missed, found, gain, share, pull.

    missed  value where nothing is marked, found: where the object is, to the pixel; both with the margin m = 6
    gain    missed − found: what the object is worth to the loss
    share   of the gradient's absolute sum that falls on the object's pixels, where nothing is known yet (p = ½)
    pull    that sum: how hard the loss pulls in all
    Raises CosegError for unknown losses, and areas that no image has.
    """
    rows = []
    for name, loss in _chosen(losses).items():
        for area in areas:
            labels = object_labels(area)
            slope = pixel_gradient(loss, masked_logits(labels, 0.0), labels)
            missed = float(loss(masked_logits(torch.zeros_like(labels)), labels))
            found, pull = float(loss(masked_logits(labels), labels)), float(slope.sum())
            share = float(slope[labels == 1].sum()) / pull
            rows.append((name, area, missed, found, missed - found, share, pull))
    return pd.DataFrame(rows, columns=["loss", "area", "missed", "found", "gain", "share", "pull"])


def loss_by_overlap(area: float = 0.05, steps: int = 21, losses: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns loss, J, value: a mask as large as the object that is shifted off it, step by step.

    Raises CosegError for unknown losses, and for an area above one half, where the mask cannot leave the object.
    """
    labels = object_labels(area)
    count = int(labels.sum())
    if 2 * count > PIXELS:
        raise CosegError(f"area = {area}: a mask as large as the object must fit beside it; at most .5")
    rows, place = [], torch.arange(PIXELS).reshape(1, IMAGE_SIDE, IMAGE_SIDE)
    for name, loss in _chosen(losses).items():
        for shift in np.unique(np.linspace(0, count, steps).round().astype(int)):
            mask = (place >= int(shift)) & (place < int(shift) + count)
            rows.append((name, (count - shift) / (count + shift), float(loss(masked_logits(mask), labels))))
    return pd.DataFrame(rows, columns=["loss", "J", "value"])
