"""Which places of a set of photographs show a class best, and pictures of them.

A place is the largest part of a class in a photograph, in the box around it. Best is what is large and sure: the
class's share of the photograph times the model's score of it there (`class_scores` in result.json; 1 where it is not
known).
"""

import heapq
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from coseglib.core.errors import CosegError
from coseglib.data.images import read_image, read_labels
from coseglib.data.record import resize_image, resize_labels
from coseglib.segmenting.labels import shares_of

MOST, AT_LEAST, TOGETHER = 6, 2, 240  # crops of a class; of many classes fewer, and of all of them about so many
LOOKED_AT = 256  # pixels of the longer side of the copy in which parts are found
MARGIN, LEAST = 0.08, 16  # around a part: a share of its longer side, and pixels at the least


class Place(NamedTuple):
    """A part of a class in the photograph of `entry`, the `number`-th."""

    worth: float
    number: int
    entry: dict
    shape: tuple[int, int]  # (H, W) of the photograph
    box: tuple[int, int, int, int]  # top, bottom, left, right, in pixels of the photograph, upper bounds exclusive


class Exemplars:
    """Label maps go in by `add`, one after the other; of each class the best places are kept, by group if asked.

    found  {(group, label): places, the best first}, after all label maps were added
    seen   {(group, label): (photographs that show it, its mean share of all photographs of the group)}
    """

    def __init__(self, classes: int, by_group: bool):
        self.classes, self.by_group = classes, by_group
        self._heaps: dict[tuple[str, int], list] = {}
        self._shares: dict[str, list[list[float]]] = {}

    def add(self, number: int, entry: dict, labels: np.ndarray) -> None:
        """The label map uint8 (H, W) of an entry of result.json."""
        group, shares = (entry.get("group") or "") if self.by_group else "", shares_of(labels, self.classes)
        self._shares.setdefault(group, []).append(shares)
        scores = entry.get("class_scores") or [None] * self.classes
        for label, (share, score) in enumerate(zip(shares, scores, strict=True), start=1):
            heap, worth = self._heaps.setdefault((group, label), []), share * (1 if score is None else score)
            if not share or (len(heap) == MOST and worth <= heap[0][0]):
                continue
            if box := _largest_part(labels == label):
                place = Place(worth, number, entry, labels.shape, box)
                (heapq.heappush if len(heap) < MOST else heapq.heappushpop)(heap, (worth, -number, place))

    @property
    def found(self) -> dict[tuple[str, int], list[Place]]:
        most = max(AT_LEAST, min(MOST, TOGETHER // max(1, len(self._heaps))))
        return {key: [place for *_, place in sorted(heap, reverse=True)[:most]] for key, heap in self._heaps.items()}

    @property
    def seen(self) -> dict[tuple[str, int], tuple[int, float]]:
        return {
            (group, label): (sum(row[label - 1] > 0 for row in rows), float(np.mean([row[label - 1] for row in rows])))
            for group, rows in self._shares.items()
            for label in range(1, self.classes + 1)
        }


def _largest_part(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The box of the largest connected part of a mask (H, W), with a margin, in the mask; None for an empty one."""
    from scipy import ndimage  # takes a while to import, and only pages need it

    step = max(1, max(mask.shape) // LOOKED_AT)
    small = mask[::step, ::step]
    small = small if small.any() else mask
    parts, count = ndimage.label(small, np.ones((3, 3)))
    if not count:
        return None
    largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
    box = []
    factor = step if small is not mask else 1
    sides = [(s.start * factor, s.stop * factor) for s in ndimage.find_objects(parts)[largest - 1]]
    margin = max(math.ceil(MARGIN * max(stop - start for start, stop in sides)), LEAST // 2)
    for (start, stop), side in zip(sides, mask.shape, strict=True):
        box += [max(0, start - margin), min(side, stop + margin)]
    return tuple(box)


def shown_of(out: Path, entry: dict, shape: tuple[int, int], at_most: int) -> tuple[np.ndarray, bool] | None:
    """A photograph of results as it can still be shown: uint8 (3, h, w), and whether it is plain; None: not at all.

    Of one that is gone it is the overlay, without its legend.     shape  (H, W) of the photograph
    at_most  as of `read_image`
    """
    for file, plain in ((Path(entry["file"]), True), (out / entry.get("overlay", "."), False)):
        try:
            pixels = read_image(file, at_most=at_most).numpy()
        except CosegError:
            continue
        return (pixels if plain else pixels[:, : max(1, round(pixels.shape[2] * shape[0] / shape[1]))]), plain
    return None


def crop_of(out: Path, place: Place, label: int, side: int) -> tuple[np.ndarray, np.ndarray | None] | None:
    """A place's picture uint8 (3, h, w), the longer side `side` pixels or less, and its mask uint8 (h, w), 0 and 1.

    No mask where the picture is an overlay's, which shows it; None where the photograph is not there any more.
    """
    top, bottom, left, right = place.box
    longest = max(bottom - top, right - left)
    shown = shown_of(out, place.entry, place.shape, max(2 * side, math.ceil(2 * side * max(place.shape) / longest)))
    if shown is None:
        return None
    pixels, plain = shown
    rows, columns = (n / full for n, full in zip(pixels.shape[1:], place.shape, strict=True))
    cut = pixels[:, int(top * rows) : math.ceil(bottom * rows), int(left * columns) : math.ceil(right * columns)]
    scale = min(1.0, side / max(cut.shape[1:]))
    size = tuple(max(1, round(n * scale)) for n in cut.shape[1:])
    picture = resize_image(torch.from_numpy(np.ascontiguousarray(cut)), size).numpy()
    if not plain:
        return picture, None
    labels = read_labels(out / place.entry["mask"])[top:bottom, left:right]
    return picture, (resize_labels(labels, size).numpy() == label).astype(np.uint8)
