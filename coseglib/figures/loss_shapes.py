"""What the losses say of the same mistakes: value and gradient against the object's area and against the overlap.

Symbols   a  the object's share of the image, 0 … 1
          m  the margin: the logit of the side that is predicted, less that of the other side
          p  the foreground's probability, σ(m) where it is predicted, σ(−m) elsewhere

No loss here knows where a pixel lies: each is a sum over pixels, or a ratio of two such sums. So an image is a row of
pixels, the object the first n of them, and areas and overlaps are exact.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from coseglib.core.errors import CosegError
from coseglib.figures.plots import SERIES, STYLE
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
SIDE = 64  # of the image: 4,096 pixels
AREAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
MARGIN = 6.0  # p = .998


def image(area: float) -> Tensor:
    """Labels uint8 (1, SIDE, SIDE): 1 on the first round(area · SIDE²) pixels. CosegError outside of 0 < area < 1."""
    count = round(area * SIDE**2)
    if not 0 < count < SIDE**2:
        raise CosegError(f"area = {area}: must leave a pixel of {SIDE**2} to the object and one to the background")
    return (torch.arange(SIDE**2) < count).to(torch.uint8).reshape(1, SIDE, SIDE)


def answer(mask: Tensor, margin: float = MARGIN) -> Tensor:
    """Logits (1, 2, H, W), float64, of a prediction: ±margin/2. mask (1, H, W), 0 and 1."""
    foreground = margin * (mask.double() - 0.5)
    return torch.stack([-foreground, foreground], dim=1)


def _chosen(losses: Sequence[str] | None) -> dict[str, Loss]:
    for name in losses or ():
        if name not in LOSSES:
            raise CosegError(f"{name}: no such loss; one of {', '.join(LOSSES)}")
    return {name: LOSSES[name] for name in losses or LOSSES}


def gradient(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """|∂ loss / ∂ (the two logits' difference)|, pixel by pixel, (1, H, W)."""
    logits = logits.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(logits, labels), logits)
    return slope[:, 1].abs()  # the soft-max reads the difference alone: the two slopes are opposite


def by_area(
    areas: Sequence[float] = AREAS, margin: float = MARGIN, losses: Sequence[str] | None = None
) -> pd.DataFrame:
    """A row a loss and area. Columns loss, area, missed, found, gain, share, pull.

    missed  value where nothing is marked, found: where the object is, to the pixel; both with the margin
    gain    missed − found: what the object is worth to the loss
    share   of the gradient's absolute sum that falls on the object's pixels, where nothing is known yet (p = ½)
    pull    that sum: how hard the loss pulls in all
    Raises CosegError for unknown losses, and areas that no image has.
    """
    rows = []
    for name, loss in _chosen(losses).items():
        for area in areas:
            labels = image(area)
            slope = gradient(loss, answer(labels, 0.0), labels)
            missed = float(loss(answer(torch.zeros_like(labels), margin), labels))
            found, pull = float(loss(answer(labels, margin), labels)), float(slope.sum())
            share = float(slope[labels == 1].sum()) / pull
            row = {"loss": name, "area": area, "missed": missed, "found": found, "gain": missed - found}
            rows.append(row | {"share": share, "pull": pull})
    return pd.DataFrame(rows)


def by_overlap(
    area: float = 0.05, margin: float = MARGIN, steps: int = 21, losses: Sequence[str] | None = None
) -> pd.DataFrame:
    """Columns loss, J, value: a mask as large as the object that is shifted off it, step by step.

    Raises CosegError for unknown losses, and for an area above one half, where the mask cannot leave the object.
    """
    labels = image(area)
    count = int(labels.sum())
    if 2 * count > SIDE**2:
        raise CosegError(f"area = {area}: a mask as large as the object must fit beside it; at most .5")
    rows, place = [], torch.arange(SIDE**2).reshape(1, SIDE, SIDE)
    for name, loss in _chosen(losses).items():
        for shift in np.unique(np.linspace(0, count, steps).round().astype(int)):
            mask = (place >= int(shift)) & (place < int(shift) + count)
            J = (count - shift) / (count + shift)
            rows.append({"loss": name, "J": float(J), "value": float(loss(answer(mask, margin), labels))})
    return pd.DataFrame(rows)


def show(areas: pd.DataFrame, overlaps: Mapping[float, pd.DataFrame], title: str) -> Figure:
    """Three panels: what an object is worth by its area, whose the gradient is, and the value by the overlap.

    areas     `by_area`'s
    overlaps  {area: `by_overlap`'s} of some of these losses: the first area as lines, the others dotted
    """
    names = list(dict.fromkeys(areas.loss))
    look = {
        n: (SERIES[i % len(SERIES)], ("-", "--", "-.", (0, (5, 1)), (0, (1, 1)))[i % 5]) for i, n in enumerate(names)
    }
    with plt.rc_context(STYLE):
        fig, (worth, whose, overlap) = plt.subplots(1, 3, figsize=(9.4, 3.4))
        for name in names:
            some, (colour, dashes) = areas[areas.loss == name], look[name]
            line = {"color": colour, "linestyle": dashes, "marker": "o", "markersize": 3}
            worth.plot(some.area, some.gain, label=name, **line)
            whose.plot(some.area, some.share, **line)
        for i, table in enumerate(overlaps.values()):
            for name, known in table.groupby("loss", sort=False):
                overlap.plot(known.J, known.value, color=look[name][0], linestyle="dotted" if i else "solid")
        for ax in (worth, whose):
            ax.set_xscale("log")
            ax.set_xlabel("the object's share of the image")
        worth.set_yscale("log")
        worth.set_ylabel("loss (nats, or 1 − dice)")
        worth.set_title("what finding the object gains,\nmissed less found")
        whose.set_ylim(0, 1)
        whose.set_ylabel("share of the gradient (0 to 1)")
        whose.set_title("what falls on the object,\nwhere p = ½ everywhere")
        overlap.set_ylim(bottom=0)
        overlap.set_xlabel("Jaccard index J (0 to 1)")
        overlap.set_ylabel("loss (nats, or 1 − dice)")
        drawn = [f"{area:.0%} ({'dotted' if i else 'line'})" for i, area in enumerate(overlaps)]
        overlap.set_title(f"a mask shifted off an object\nof {', '.join(drawn)}")
        fig.legend(loc="outside lower center", ncols=len(names))
        fig.suptitle(title)
        plt.close(fig)
        return fig
