"""References: the object marked in one picture, or in a few, says which object is meant. In none of the five papers.

A group alone often cannot say it: insects and the plants that they sit on are both common to it. What a reference adds
is a linear classifier of positions, learned from the inside and the outside of what is marked and added to the system's
own answer, for systems of every kind:

    z' = clip(z) + t · (w · x + b)        z  the system's difference of logits     x  a position's features

x are the frozen maps of the system's backbone at strides 8, 16 and 32, each of unit length, less their mean over the
references. w and b minimise the logistic loss of clip(z) + w · x + b on the references, inside and outside weighing
the same, + |w|² / 2C. So the system's answer counts as known: where it marks the reference right, nothing is learned
and nothing can be spoilt; what is learned is what it missed. t is TRUSTED where it marks the references as they are
marked, DOUBTED where it marks nothing of it, and in between by its J on them. One reference costs a tenth of a second,
and a photograph what its features cost, which are there already.

A context model that was trained to be asked by example (`example_share`; its card says by_example) answers by the
references' attention over what is marked, in the place of the group's; the classifier learns beside that answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering.answers import Engine, Question
from coseglib.answering.kinds import COMPARED, Pool, example_pool
from coseglib.answering.reading import Picture, picture_of
from coseglib.core.errors import CosegError
from coseglib.data.record import VOID, Photo, resize_labels

# Chosen on iCoseg's groups, which therefore do not test references (`reports/trials.md`, 18).
CLIP = 1.5  # of z: a system that is sure and wrong can still be told so
TRUSTED, DOUBTED = 0.4, 1.2  # t: one picture says less of the others than of itself, unless the system knows nothing
C = 1.0  # the loss's weight beside |w|² / 2
ENOUGH = 20  # positions that one that is marked counts for at the most
LEVELS = (2, 3, 4)  # of the backbone's five maps: strides 8, 16, 32
CLEAR = 0.3, 0.6  # a position's share of what is marked below which it is outside, above which inside; between: nothing


@dataclass(frozen=True, eq=False)
class Reference:
    """photo: an image uint8 (3, H, W), a record, a file or a picture that was read. marks, one of the first three:

    mask    uint8 (H, W), the photograph's size as displayed: 1 this, 0 not this, 255 not said
    box     (x0, y0, x1, y1) in pixels, upper bounds exclusive: it holds the object
    points  (x, y) in pixels, on the object
    not_points  (x, y) that are not on it: with points, with a box, or alone beside other references
    Raises CosegError for marks that are outside the photograph, empty or full, or for none.
    """

    photo: Tensor | Photo | Path | Picture
    mask: Tensor | None = None
    box: tuple[int, int, int, int] | None = None
    points: tuple[tuple[int, int], ...] = ()
    not_points: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        file = self.photo.path if isinstance(self.photo, Photo) else self.photo
        return str(file) if isinstance(file, Path) else "reference"

    def check(self, size: tuple[int, int]) -> None:
        """size (H, W), the photograph's own as displayed."""
        height, width = size
        given = sum((self.mask is not None, self.box is not None, bool(self.points)))
        if given != 1 and not (given == 0 and self.not_points):
            raise CosegError(f"{self.name}: a reference takes a mask, a box or points; give one of them")
        if self.mask is not None:
            if tuple(self.mask.shape) != size:
                h, w = self.mask.shape
                raise CosegError(
                    f"{self.name}: its mask is {w} × {h}, the photograph {width} × {height}; mend the mask"
                )
            for value, what in ((1, "marks nothing"), (0, "marks everything")):
                if not (self.mask == value).any():
                    raise CosegError(f"{self.name}: its mask {what}; mark the object, and leave the rest out")
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                raise CosegError(f"{self.name}: box {x0},{y0},{x1},{y1} is not within 0,0,{width},{height}; mend it")
            if (x1 - x0) * (y1 - y0) == width * height:
                raise CosegError(
                    f"{self.name}: its box is the whole photograph, which says nothing; draw a smaller one"
                )
        for x, y in (*self.points, *self.not_points):
            if not (0 <= x < width and 0 <= y < height):
                raise CosegError(f"{self.name}: point {x},{y} is outside the photograph's {width} × {height}; mend it")

    def about(self) -> dict:
        """What result.json says of it: file, and box, points and not_points where they are given."""
        given = {name: getattr(self, name) for name in ("box", "points", "not_points")}
        return {"file": self.name} | {name: value for name, value in given.items() if value}

    def key(self) -> str:
        """What its photograph and its marks are, whatever the files are called."""
        import joblib

        content = joblib.hash([picture_of(self.photo).pixels.numpy(), None if self.mask is None else self.mask.numpy()])
        return f"{content} {self.box} {self.points} {self.not_points}"


def check_references(model, references: Sequence[Reference]) -> None:
    """Raises CosegError for marks that are wrong, photographs that cannot be read, or a system that takes none."""
    if references and (model.online or model.backbone is None):
        raise CosegError(f"{type(model).__name__}: has no use for a reference; give a trained system of one class")
    if references and model.prior is not None:
        raise CosegError(
            f"{model.prior.name}: references learn beside a system's own answer alone; leave one of both out"
        )
    for reference in references:
        reference.check(picture_of(reference.photo).size)
    if references and all(r.mask is None and r.box is None and not r.points for r in references):
        raise CosegError(f"{references[0].name}: says only what is not meant; mark the object in it or in another one")


@dataclass(frozen=True)
class Evidence:
    """What references say: mean (D,), w (D,), b and t of the file's head; pool: attention to answer by, or None."""

    mean: Tensor
    weight: Tensor
    bias: float
    strength: float
    pool: Pool | None = None

    def add(self, logits: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """logits (B, 2, h, w) of a system, `model.encode`'s maps of the same images -> logits (B, 2, h, w), on the CPU.

        The background's logit is 0.
        """
        x = positions(maps).cpu()  # (B, D, h', w')
        score = torch.einsum("bdhw,d->bhw", x - self.mean[:, None, None], self.weight) + self.bias
        score = F.interpolate(score[:, None], size=logits.shape[-2:], mode="bilinear")[:, 0]
        z = (logits[:, 1] - logits[:, 0]).float().clamp(-CLIP, CLIP) + self.strength * score
        return torch.stack([torch.zeros_like(z), z], dim=1)


def positions(maps: Sequence[Tensor]) -> Tensor:
    """maps, from `model.encode` -> x (B, D, h, w) at stride 8: three strides' features, each of unit length."""
    some = [F.normalize(maps[level].float(), dim=1) for level in LEVELS]
    size = some[0].shape[-2:]
    return torch.cat([some[0], *(F.interpolate(f, size=size, mode="bilinear") for f in some[1:])], dim=1)


def fit(x: Tensor, inside: Tensor, offset: Tensor) -> tuple[Tensor, float]:
    """w (D,) and b that minimise C · Σ v · log(1 + exp(∓(offset + w · x + b))) + |w|² / 2, by L-BFGS.

    x (M, D), inside (M,) bool, offset (M,): clip(z). v is such that inside and outside weigh M/2 each, or
    ENOUGH/2 times the smaller one's positions, if that is less: a click is not to outweigh what is known of the rest.
    """
    from scipy.optimize import minimize  # half a second, which only a reference has to wait for

    x, offset, sign = x.double(), offset.double(), 2 * inside.double() - 1
    within, out = int(inside.sum()), int((~inside).sum())
    weighs = min(len(x), ENOUGH * min(within, out)) / 2
    v = C * torch.where(inside, weighs / max(1, within), weighs / max(1, out)).double()

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = torch.from_numpy(values[:-1]), values[-1]
        z = sign * (offset + x @ w + b)
        slope = -v * sign * torch.sigmoid(-z)
        total = (v * F.softplus(-z)).sum() + w.square().sum() / 2
        return float(total), np.concatenate([(x.mT @ slope + w).numpy(), [float(slope.sum())]])

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 100})
    return torch.from_numpy(found.x[:-1]).float(), float(found.x[-1])


def evidence_of(engine: Engine, references: Sequence[Reference], group: Sequence[int], how: str = "mean") -> Evidence:
    """What some references say to a system that answers a group of `engine`'s photographs.

    What the network sees of a `Picture` is kept in the engine's memory: marks that change cost the fit alone.
    Raises CosegError as `check_references`, and for marks too small to be seen.
    """
    check_references(engine.model, references)
    pictures = [picture_of(reference.photo) for reference in references]
    recall, asked = engine.memory.recall, (tuple(group), how)
    each = [recall(("maps", p), lambda p=p: engine.encode([p])) for p in pictures]
    maps = [torch.cat(level) for level in zip(*each, strict=True)]
    x = positions(maps).cpu()  # (R, D, h, w)
    size = x.shape[-2:]

    def answered(pool: Pool | None = None) -> Tensor:
        own = partial(own_answer, engine, group=group, how=how, pool=pool)
        each = [own(p) if pool else recall(("own", p, *asked), lambda p=p: own(p)) for p in pictures]
        return F.adaptive_avg_pool2d(torch.stack(each), size).clamp(-CLIP, CLIP)  # (R, h, w)

    z, pool = answered(), None
    mean = x.mean(dim=(0, 2, 3))
    x = (x - mean[:, None, None]).movedim(1, -1)  # (R, h, w, D)
    marks = [_marked(*each) for each in zip(references, pictures, x, z, strict=True)]
    said = torch.stack([inside | outside for inside, outside in marks])
    inside = torch.stack([inside for inside, _ in marks])
    if not (inside.any() and (said & ~inside).any()):
        raise CosegError(f"{references[0].name}: what is marked is too small, or all but the whole; mark more clearly")
    if engine.model.card.get("by_example"):
        pool = example_pool(engine, maps, inside, how)
        z = answered(pool)
    right = float((inside & (z > 0)).sum() / (inside | said & (z > 0)).sum())  # J of the system's own answer
    return Evidence(mean, *fit(x[said], inside[said], z[said]), DOUBTED + (TRUSTED - DOUBTED) * right, pool)


def own_answer(engine: Engine, picture: Picture, group: Sequence[int], how: str, pool: Pool | None = None) -> Tensor:
    """What the system itself says of a reference that is asked with the group, or with examples' pool: z (h, w)."""
    if engine.model.kind == "context":
        own = Engine(engine.model, [picture.pixels])
        (answer,) = own.answers([Question(0, (0,))], context=pool or engine.context(group, how))
    else:
        some = engine.read(engine.references(group, max(engine.model.group_size - 1, COMPARED))).values()
        own = Engine(engine.model, [picture.pixels, *(p.pixels for p in some)])
        (answer,) = own.answers([Question(0, tuple(range(1, len(some) + 1)))])
    return answer.logits[1] - answer.logits[0]


def _marked(reference: Reference, picture: Picture, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Positions that are inside and that are outside, bool (h, w) each. x (h, w, D), z (h, w)."""
    if reference.mask is not None:
        mask = resize_labels(reference.mask, tuple(picture.pixels.shape[-2:]))
        said = F.adaptive_avg_pool2d((mask != VOID).float()[None], z.shape)[0]
        share = F.adaptive_avg_pool2d((mask == 1).float()[None], z.shape)[0]
        inside = share >= min(CLEAR[1], float(share.max()))  # an object smaller than a position has its largest share
        return inside, (share <= CLEAR[0]) & (said > 0.5) & ~inside
    scale = torch.tensor(z.shape) / torch.tensor(picture.size)  # positions a pixel, rows and columns

    def cells(points) -> Tensor:
        found = torch.zeros(z.shape, dtype=torch.bool)
        for px, py in points:
            found[int((py + 0.5) * scale[0]), int((px + 0.5) * scale[1])] = True
        return found

    this, not_this = cells(reference.points), cells(reference.not_points)
    if reference.box is not None:
        x0, y0, x1, y1 = reference.box
        rows, columns = torch.arange(z.shape[0]) + 0.5, torch.arange(z.shape[1]) + 0.5
        in_rows = (rows >= y0 * scale[0]) & (rows <= y1 * scale[0])
        inside = in_rows[:, None] & ((columns >= x0 * scale[1]) & (columns <= x1 * scale[1]))
        if not inside.any():
            inside[int((y0 + y1) / 2 * scale[0]), int((x0 + x1) / 2 * scale[1])] = True
        return _object_in(inside, z) & ~not_this, ~inside | not_this
    if not reference.points:
        return this, _around(not_this, z > 0)
    if (this & (z > 0)).any():  # the part of the system's own answer that is pointed at; other parts may be its like
        region = _around(this, (z > 0) & ~not_this)
        return region, ~region & ((z <= 0) | not_this.any() & _around(not_this, (z > 0) & ~this))
    like = x @ F.normalize(x[this].mean(dim=0), dim=0)  # (h, w)
    region = _around(this, (like > 0.6 * like[this].min()) & ~not_this)
    return region, ~region & ((like < like.median()) | not_this)


def _object_in(box: Tensor, z: Tensor) -> Tensor:
    """What of a box is its object: the system's own answer, or the whole box where that is hardly anything."""
    found = box & (z > 0)
    return found if found.sum() > 0.1 * box.sum() else box


def _around(points: Tensor, found: Tensor) -> Tensor:
    """The connected parts of `found` that hold one of the points, and the points. bool (h, w)"""
    from scipy.ndimage import label

    parts = torch.from_numpy(label((found | points).numpy())[0])
    return torch.isin(parts, parts[points].unique())
