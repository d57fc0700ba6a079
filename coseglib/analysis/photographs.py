"""What a photograph and its truth show: objects, their size and place, contrast, what the border cuts off.

An object is a connected part of the truth (diagonals connect), specks left out (`SPECK`). Void pixels, 255 in a truth,
are neither marked nor object nor background.
"""

from functools import cached_property

import numpy as np
from scipy import ndimage
from torch import Tensor

from coseglib.data.record import VOID
from coseglib.segmenting.labels import cielab

SPECK = 0.1  # parts of a truth below this share of its largest part's area are specks
FRAME = 0.03  # of a photograph's shorter side: VOC and MSRC have void along the border, which hides what is cut there
RING = 0.25  # width of the surroundings that contrast is measured against, in sides of the object


class Truth:
    """A photograph's mask, looked at once for all systems.

    inside   bool (H, W), the objects; counted: not void; side: √(pixels of the objects), the unit of lengths
    objects  int (H, W): 1 … of the connected parts that are no specks, 0 elsewhere
    away     float (H, W): distance of the pixels' centres to the outline, in pixels. Void is on neither side of it: the
             outline is somewhere in there. inf where there is none
    """

    def __init__(self, mask: Tensor):
        self.mask = mask
        labels = np.asarray(mask)
        self.counted = labels != VOID
        self.inside = self.counted & (labels != 0)
        self.pixels = int(self.inside.sum())
        self.side = float(np.sqrt(self.pixels))

    @cached_property
    def objects(self) -> np.ndarray:
        parts, _ = connected_parts(self.inside)
        sizes = np.bincount(parts[self.inside], minlength=2)
        kept = sizes >= max(1, SPECK * sizes.max())
        return (np.cumsum(kept) * kept)[parts]

    @cached_property
    def away(self) -> np.ndarray:
        return np.where(self.inside, _depth(self.inside), _depth(self.counted & ~self.inside)) - 0.5


def connected_parts(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of each pixel's part, 0 outside, and how many parts there are."""
    return ndimage.label(mask, structure=np.ones((3, 3)))


def _depth(region: np.ndarray) -> np.ndarray:
    """Distance of each of the region's pixels to the nearest one that is not in it; inf where that is none."""
    return np.full(region.shape, np.inf) if region.all() else ndimage.distance_transform_edt(region)


def mean_colour(image: Tensor, where: np.ndarray) -> np.ndarray:
    """Mean CIELAB (3,) of some pixels; NaN where there are none."""
    chosen = np.asarray(image)[:, where]
    return cielab(chosen).mean(axis=1) if chosen.size else np.full(3, np.nan)


def cut_by_border(inside: np.ndarray, counted: np.ndarray) -> float:
    """How far the photograph's border cuts through an object: its pixels there, over its side. 0 for nothing.

    A void pixel on the border is what the nearest counted one is, up to `FRAME` away.
    """
    border = np.ones(inside.shape, bool)
    border[1:-1, 1:-1] = False
    there = inside
    if counted.any() and not counted.all():
        away, (row, column) = ndimage.distance_transform_edt(~counted, return_indices=True)
        there = inside[row, column] & (away <= FRAME * min(inside.shape))
    return float((there & border).sum() / np.sqrt(max(1, inside.sum())))


def describe_photograph(image: Tensor, truth: Truth) -> dict[str, float]:
    """What a photograph asks of a system; image uint8 (3, H, W).

    area      the objects' share of the counted pixels, 0 … 1
    objects   how many
    contrast  distance of the mean colours of the objects and of the ring around them (`RING`), in CIELAB
    position  distance of the objects' centre of mass from the photograph's, 0 in the middle, 1 in a corner
    cut       pixels of the objects on the photograph's border, in sides of the object
    NaN for what a photograph without objects, or without surroundings, does not have.
    """
    contrast = position = float("nan")
    if truth.pixels:
        ring = truth.counted & ~truth.inside & (ndimage.distance_transform_edt(~truth.inside) <= 1 + RING * truth.side)
        contrast = float(np.linalg.norm(mean_colour(image, truth.inside) - mean_colour(image, ring)))
        middle = np.array(truth.inside.shape) / 2
        centre = (np.argwhere(truth.inside) + 0.5).mean(axis=0)
        position = float(np.hypot(*(centre - middle)) / np.hypot(*middle))
    found = {"area": truth.pixels / max(1, int(truth.counted.sum())), "objects": int(truth.objects.max())}
    return found | {"contrast": contrast, "position": position, "cut": cut_by_border(truth.inside, truth.counted)}
