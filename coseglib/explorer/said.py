"""What a user says of photographs, and mends in their masks: marks, strokes of a brush, and the references they are.

Everything is in the photograph's own pixels as displayed, x to the right and y down, whatever the size it is shown at.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from coseglib.answering.reference import Reference
from coseglib.core.errors import CosegError

UNDONE = 200  # changes that can be taken back
POINT, NOT_POINT, BOX, MASK = "point", "not_point", "box", "mask"


class Said(NamedTuple):
    """photo: its place; kind: POINT, NOT_POINT, BOX, or MASK, its corrected mask as it is; at: (x, y), of a box
    (x0, y0, x1, y1) with upper bounds exclusive, of a mask ()."""

    photo: int
    kind: str
    at: tuple[int, ...] = ()


class Stroke(NamedTuple):
    """Of a brush: all within `radius` pixels of the line through `path`, (x, y) each, becomes object, or is erased."""

    path: tuple[tuple[float, float], ...]
    radius: float
    erase: bool = False


@dataclass(frozen=True, eq=False)
class Corrected:
    """A mask that is corrected by hand: what it was, uint8 (H, W), 0 and 1, and the strokes since."""

    base: Tensor
    strokes: tuple[Stroke, ...] = ()

    @property
    def mask(self) -> Tensor:
        """uint8 (H, W), 0 and 1. Painted anew each time: masks of huge photographs are not kept for every stroke."""
        mask = self.base.clone()
        for stroke in self.strokes:
            painted(mask, stroke)
        return mask


class Marks(NamedTuple):
    """All that was said and corrected; never changed, so that undoing is taking the one before."""

    said: tuple[Said, ...] = ()
    corrected: Mapping[int, Corrected] = {}

    @property
    def key(self) -> tuple:
        """What the references depend on; () for none: what is not meant counts as soon as something is."""
        if all(s.kind == NOT_POINT for s in self.said):
            return ()
        return tuple((s, self.corrected.get(s.photo) if s.kind == MASK else None) for s in self.said)


def painted(mask: Tensor, stroke: Stroke) -> bool:
    """Paint a stroke into a mask uint8 (H, W), in its place. Did it meet a single pixel?"""
    path, r = np.asarray(stroke.path, float).reshape(-1, 2), stroke.radius
    left, top = (max(0, math.floor(low - r)) for low in path.min(axis=0))
    right, bottom = (
        min(most, math.ceil(high + r) + 1) for high, most in zip(path.max(axis=0), mask.T.shape, strict=True)
    )
    if left >= right or top >= bottom:
        return False
    image = Image.new("1", (right - left, bottom - top))
    pen = ImageDraw.Draw(image)
    places = [(float(x - left), float(y - top)) for x, y in path]
    pen.line(places, fill=1, width=max(1, round(2 * r)))
    for x, y in places:
        pen.ellipse((x - r, y - r, x + r, y + r), fill=1)
    met = torch.from_numpy(np.array(image))
    mask[top:bottom, left:right][met] = 0 if stroke.erase else 1
    return bool(met.any())


def references_of(marks: Marks, photos: Sequence) -> Iterator[Reference]:
    """What `coseglib.answering.reference` is told, a photograph after the other; photos[i]: what a `Reference` takes.

    All points of a photograph are one reference, its box another, which takes what is not meant where there are no
    points; so is its corrected mask.
    """
    for place in sorted({s.photo for s in marks.said}) if marks.key else ():
        at = {
            kind: tuple(s.at for s in marks.said if s.photo == place and s.kind == kind)
            for kind in (POINT, NOT_POINT, BOX)
        }
        photo, without = photos[place], at[NOT_POINT]
        if at[POINT] or (without and not at[BOX]):
            yield Reference(photo, points=at[POINT], not_points=without)
        for box in at[BOX]:
            yield Reference(photo, box=box, not_points=() if at[POINT] else without)
        if Said(place, MASK) in marks.said:
            yield Reference(photo, marks.corrected[place].mask)


class Told:
    """Photographs, and what a user says of them; of `coseglib.explorer.session.Session`, which answers by it.

    photos  what was opened     model  the system that is asked     marks  what was said and corrected
    """

    def _forget_marks(self, marks: Marks = Marks()) -> None:
        self.marks, self._before = marks, ()

    @property
    def said(self) -> tuple[Said, ...]:
        """In the order in which it was said. What is not meant counts as soon as something is."""
        return self.marks.said

    def _mark(self, marks: Marks) -> None:
        self._before, self.marks = (*self._before, self.marks)[-UNDONE:], marks

    def _file(self, photo: int) -> Path:
        """A photograph's name in errors, by its place. Raises ValueError for a place that there is not."""
        if not 0 <= photo < len(self.photos):
            raise ValueError(f"photograph {photo}: places from 0 to {len(self.photos) - 1}")
        return Path(self.photos[photo].photo.path or self.photos[photo].photo.name)

    def say(self, photo: int, *, point=None, not_point=None, box=None, mask: bool = False) -> None:
        """Of a photograph, by its place, one thing, in its own pixels as displayed; the masks of all follow.

        point  (x, y) on the object     not_point  (x, y) that is not     box  (x0, y0, x1, y1), upper bounds exclusive:
        it holds the object; another one in this photograph gives way     mask  its corrected mask is right
        Raises CosegError for what is outside the photograph, and for a mask that is not corrected, empty or full.
        """
        marks = {POINT: point, NOT_POINT: not_point, BOX: box, MASK: () if mask else None}
        given = [Said(photo, kind, tuple(at)) for kind, at in marks.items() if at is not None]
        if len(given) != 1:
            raise ValueError(f"{len(given)} marks: one at a time of {', '.join(marks)}")
        (new,), file = given, self._file(photo)
        if mask and photo not in self.marks.corrected:
            raise CosegError(f"{file}: its mask is not corrected; paint in it first")
        whole = self.marks.corrected[photo].mask if mask else None
        points, not_points = ((new.at,) if new.kind == kind else () for kind in (POINT, NOT_POINT))
        Reference(file, whole, box and new.at, points, not_points).check(self.photos[photo].picture.size)
        others = (s for s in self.said if s != new and not (s.photo == photo and s.kind == BOX == new.kind))
        self._mark(self.marks._replace(said=(*others, new)))

    def unsay(self, number: int = -1) -> None:
        """Take back one thing that was said, the last one or `said[number]`. CosegError where there is none."""
        said = list(self.said)
        if not -len(said) <= number < len(said):
            raise CosegError("nothing was said; there is nothing to take back")
        del said[number]
        self._mark(self.marks._replace(said=tuple(said)))

    def correct(self, photo: int, stroke: Stroke, threshold: float = 0.5, post: str = "argmax") -> None:
        """Paint in a photograph's mask, in its own pixels; at first in the one that `threshold` and `post` give.

        The mask then stays as painted, whatever else changes. CosegError for a stroke that meets no pixel of it, or
        where masks are label maps of several classes.
        """
        file, corrected = self._file(photo), self.marks.corrected.get(photo)
        if self.model.online:
            raise CosegError(f"{file}: label maps of several classes are not painted in; choose a system of one class")
        corrected = corrected or Corrected(self._answered(threshold, post, own=True)[photo])
        if not painted(corrected.base.clone(), stroke):
            raise CosegError(f"{file}: the stroke is outside the photograph; paint in it")
        new = Corrected(corrected.base, (*corrected.strokes, stroke))
        self._mark(self.marks._replace(corrected={**self.marks.corrected, photo: new}))

    def uncorrect(self, photo: int) -> None:
        """The system's own mask of a photograph again. Nothing where it was not corrected."""
        corrected = {i: c for i, c in self.marks.corrected.items() if i != photo}
        said = tuple(s for s in self.said if s != Said(photo, MASK))
        self._mark(Marks(said, corrected))

    def clear(self) -> None:
        """Nothing said, nothing corrected; `undo` brings it back."""
        self._mark(Marks())

    def undo(self) -> None:
        """Take back the last thing that was said, taken back, cleared or painted. CosegError where there is none."""
        if not self._before:
            raise CosegError("nothing to undo")
        *self._before, self.marks = self._before
        self._before = tuple(self._before)
