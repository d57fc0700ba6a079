"""Training groups: what a batch asks, drawn as a pure function of the seed and the step.

Three kinds of group, with shares to set: `GroupSampler`'s `plain`, `hard` and `empty`.
The papers train on plain pairs alone. Photographs of two classes are few and mostly alike (a person and a dog), so a
share of the second classes is pasted in from other photographs (`pasting.paste`). Groups whose common thing is *made*
can stand in the place of plain ones (`of_made`).

A class is *present* in a photograph where it covers `least` of it, `by_class.PRESENT`: it can be asked for. A
photograph *holds* a class as soon as anything is known of it, a speck or a crowd: what must not be common is not even
held. No photograph stands twice in a group but as a twin.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from coseglib.core.errors import CosegError
from coseglib.data.by_class import PRESENT
from coseglib.data.cache import TrainingSet
from coseglib.data.pasting import Piece, cut_out, make_thing, paste, stick
from coseglib.data.record import relabelled, resize_labels

KINDS_OF_GROUP = ("plain", "hard", "empty")
TRIES = 20  # before another kind of group is drawn instead
MADE, DISTRACTOR = 254, 253  # labels of made things: the one that is asked for, and another
NOTHING_COMMON = 0.25  # share of the made groups whose halves have a thing each
SCALE, TURN = (0.6, 1.3), 30.0  # how a made thing differs from photograph to photograph: size, degrees


@dataclass
class Batch:
    """A step's groups."""

    images: Tensor  # uint8 (B, N, 3, S, S)
    targets: Tensor  # uint8 (B, N, S, S), 1 asked for, 255 void
    weights: Tensor  # float (B, N, N), the partners'
    classes: Tensor  # float (B, L), 1 for the class that a group has in common
    kinds: tuple[str, ...]  # of KINDS_OF_GROUP, or "made"
    marks: Tensor | None = None  # uint8 (B, N, S, S), 1 where a photograph is an example to the others; None: nowhere


class Thing(NamedTuple):
    """What a made thing is made of, see `pasting.make_thing`. label: of the donor's outline; 0: it is drawn."""

    donor: int
    label: int
    texture: int
    seed: int


@dataclass(frozen=True)
class GroupPlan:
    """A group before its pixels are read: photographs, the class asked of each (0: none), partners' weights (N, N)."""

    kind: str
    photos: tuple[int, ...]
    targets: tuple[int, ...]
    weights: Tensor
    pastes: tuple[tuple[int, int, int], ...] = ()  # (which of the photographs, donor, label)
    marks: tuple[int, ...] = ()  # the class that is marked in each photograph, where the group is asked by example
    things: tuple[tuple[int, Thing, int], ...] = ()  # (which of the photographs, thing, label), the lowest first


@dataclass(eq=False)
class GroupSampler(Dataset):
    """Batch number `step` of training, for a map-style loader: any process, any order, the same batch.

    side: of the network's input, pixels; or several, of which each batch draws one (the number of groups is then scaled
    so that every batch has about as many pixels). Classes are drawn by the square root of their number of photographs.
    """

    photographs: TrainingSet
    size: int = 2  # N, photographs a group (2: pairs)
    groups: int = 8  # B, groups a batch
    side: int | tuple[int, ...] = 224
    shares: tuple[float, float, float] = (1.0, 0.0, 0.0)  # of plain, hard and empty groups; normalised to sum 1
    pasted: float = 0.5  # share of hard groups whose second class is pasted in
    twins: float = 0.0  # share of plain groups that are crops of one photograph: what looks the same is common
    made: float = 0.0  # share of plain groups in whose place groups with made things stand
    crop: tuple[float, float] = (0.4, 1.0)
    steps: int = 1000
    seed: int = 0
    rank: int = 0
    by_set: bool = False  # a class's photographs of two data sets are two classes: the small set is not drowned
    examples: float = 0.0  # share of the groups that are asked by example: the partners come with their masks
    least: float = PRESENT  # share of a photograph that a class covers where it can be asked for

    def __post_init__(self):
        if self.size < 2:
            raise CosegError(f"groups of {self.size}: a photograph needs a partner; set group_size to 2 or more")
        self.sides = (self.side,) if isinstance(self.side, int) else tuple(self.side)
        self.shares = np.asarray(self.shares, float) / sum(self.shares)
        self.present = np.asarray(self.photographs.areas) >= self.least  # (n, K)
        self.holds = np.asarray(self.photographs.holds)  # (n, K')
        self.usable = np.flatnonzero(self.present.sum(0) >= self.size)
        if len(self.usable) < (2 if self.shares[1:].any() else 1):
            few = f"no class (or one alone) has {self.size} photographs"
            raise CosegError(f"training set: {few}; give more data or no hard pairs")
        self.holding = {int(c): np.flatnonzero(self.present[:, c]) for c in self.usable}
        sets = np.array([name.split("/")[0] for name in self.photographs.names])
        self.pools = [  # that groups are drawn from: a class, and photographs that stand for it
            (c, pool)
            for c, found in self.holding.items()
            for pool in ([found[sets[found] == own] for own in np.unique(sets)] if self.by_set else [found])
            if len(pool) >= self.size
        ]
        if not self.pools:
            raise CosegError(f"training set: no data set has {self.size} photographs of one class; leave out by_set")
        weights = np.sqrt([len(pool) for _, pool in self.pools])
        self.chances = weights / weights.sum()

    def __len__(self) -> int:
        return self.steps

    def _pool(self, rng) -> tuple[int, np.ndarray]:
        """A class and the photographs that stand for it."""
        return self.pools[int(rng.choice(len(self.pools), p=self.chances))]

    def _some(self, rng, pool: np.ndarray, count: int, but: list[int] | None = None) -> list[int] | None:
        """`count` different photographs of the pool, none of `but`; None where there are not so many."""
        pool = np.setdiff1d(pool, but) if but else pool
        return rng.choice(pool, count, replace=False).tolist() if len(pool) >= count else None

    def _asking(self, kind: str, photos: list[int], label: int, pastes=()) -> GroupPlan:
        """One class asked of all; every photograph's partners are all others alike."""
        n = self.size
        return GroupPlan(kind, tuple(photos), (label,) * n, (torch.ones(n, n) - torch.eye(n)) / (n - 1), pastes)

    def plain(self, rng) -> GroupPlan:
        """N photographs of one class, which is asked for; drawn again while a second one is common to all."""
        for _ in range(TRIES):
            c, pool = self._pool(rng)
            photos = self._some(rng, pool, self.size)
            if rng.random() < self.twins:
                photos = photos[:1] * self.size
            if self.present[photos].all(0).sum() == 1:
                break
        return self._asking("plain", photos, c + 1)

    def hard(self, rng) -> GroupPlan:
        """Half of the photographs (the first, rounded down) hold d beside c, the others c and not d: c is asked for."""
        distracted = self.size // 2
        for _ in range(TRIES):
            c, d = self._pool(rng)[0], self._pool(rng)[0]
            if c == d:
                continue
            rest = self._some(rng, np.flatnonzero(self.present[:, c] & ~self.holds[:, d]), self.size - distracted)
            if rest is None:
                continue
            if rng.random() >= self.pasted:
                firsts = self._some(rng, np.flatnonzero(self.present[:, c] & self.present[:, d]), distracted)
                pastes = ()
            else:  # both classes are pasted as often as they are the ground: a pasted look must not tell the answer
                ground, guest = (c, d) if rng.random() < 0.5 else (d, c)
                grounds = np.flatnonzero(self.present[:, ground] & ~self.holds[:, guest])
                firsts = self._some(rng, grounds, distracted, but=rest)
                donors = self._some(rng, self.holding[guest], distracted, but=rest)
                pastes = tuple((i, donor, guest + 1) for i, donor in enumerate(donors or ()))
                firsts = firsts if donors else None
            if firsts is not None and not np.delete(self.present[firsts + rest].all(0), c).any():
                return self._asking("hard", firsts + rest, c + 1, pastes)
        return self.plain(rng)

    def empty(self, rng) -> GroupPlan:
        """Two halves with no class in common, each the partners of the other: nothing is asked for, masks are empty."""
        half = self.size // 2
        for _ in range(TRIES):
            first = self._some(rng, self._pool(rng)[1], half)
            alien = ~self.holds[:, self.holds[first].any(0)].any(1)  # photographs with none of the first's classes
            _, pool = self._pool(rng)
            second = self._some(rng, pool[alien[pool]], self.size - half)
            if second is not None:
                break
        else:
            return self.plain(rng)
        return self._of_halves(first + second)

    def _of_halves(self, photos: list[int], things=()) -> GroupPlan:
        """Nothing is asked for, and each half is the partners of the other."""
        half, weights = self.size // 2, torch.zeros(self.size, self.size)
        weights[:half, half:], weights[half:, :half] = 1 / (self.size - half), 1 / half
        return GroupPlan("empty", tuple(photos), (0,) * self.size, weights, things=things)

    def of_made(self, rng) -> GroupPlan:
        """Photographs of which no two share a class, and a made thing pasted into all; another one into half of them.

        NOTHING_COMMON of these groups have one thing in the first half, another in the rest, and nothing is asked for.
        """
        photos = self._unlike(rng)
        if photos is None:
            return self.plain(rng)
        half, (one, other) = self.size // 2, (self._thing(rng) for _ in range(2))
        if rng.random() < NOTHING_COMMON:
            things = ((n, one if n < half else other, MADE) for n in range(self.size))
            return self._of_halves(photos, tuple(things))
        distracting = tuple((n, other, DISTRACTOR) for n in range(half))
        plan = self._asking("made", photos, MADE)
        return replace(plan, things=distracting + tuple((n, one, MADE) for n in range(self.size)))

    def _unlike(self, rng) -> list[int] | None:
        """N photographs of which no two hold the same class."""
        for _ in range(TRIES):
            photos: list[int] = []
            for _ in range(4 * self.size):
                photo = int(rng.choice(self._pool(rng)[1]))
                if not (self.holds[photos].any(0) & self.holds[photo]).any():
                    photos.append(photo)
                if len(photos) == self.size:
                    return photos
        return None

    def _thing(self, rng) -> Thing:
        c, pool = self._pool(rng)
        label = c + 1 if rng.random() < 0.5 else 0
        return Thing(int(rng.choice(pool)), label, int(rng.integers(len(self.photographs))), int(rng.integers(2**32)))

    def piece(self, thing: Thing) -> Piece:
        """The made thing's pixels, the same ones every time."""
        outline = cut_out(*self.photographs.photo(thing.donor), thing.label) if thing.label else None
        return make_thing(outline, self.photographs.photo(thing.texture)[0], np.random.default_rng(thing.seed))

    def plan(self, rng) -> GroupPlan:
        """A group of a kind drawn by the shares; a share of them asked by example."""
        by_example = self.examples > 0 and rng.random() < self.examples
        kind = KINDS_OF_GROUP[rng.choice(3, p=self.shares)]
        if kind == "plain" and self.made and rng.random() < self.made:
            kind = "of_made"
        if not by_example:
            return getattr(self, kind)(rng)
        plan = self.either(rng) if kind == "hard" and rng.random() < 0.5 else getattr(self, kind)(rng)
        if plan.things:  # of these nothing else is worth showing
            return replace(plan, marks=(MADE,) * self.size)
        some = [np.flatnonzero(self.present[i]) + 1 for i in plan.photos]  # where nothing is common, each shows its own
        marks = [label or int(rng.choice(own)) for label, own in zip(plan.targets, some, strict=True)]
        return replace(plan, marks=tuple(marks))

    def either(self, rng) -> GroupPlan:
        """All photographs hold c and d, and c is asked for: only marks can tell. A hard group where there are none."""
        for _ in range(TRIES):
            c, pool = self._pool(rng)
            d = self._pool(rng)[0]
            photos = self._some(rng, pool[self.present[pool, d]], self.size) if c != d else None
            if photos is not None:
                return self._asking("hard", photos, c + 1)
        return self.hard(rng)

    def _augmented(self, image: Tensor, target: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Crops that lose most of what is asked for are drawn again: a question's answer must be in the picture."""
        transform = augmentation(side, self.crop)
        asked = (target == 1).float().mean()
        for _ in range(4):
            x, t = transform(image, target)
            if asked == 0 or (t == 1).float().mean() >= 0.5 * asked:
                break
        return x, t

    def _pixels(self, plan: GroupPlan, n: int, side: int, rng) -> tuple[Tensor, Tensor]:
        """Of a plan's photograph n image (3, side, side) and target (side, side); of what it marks, in an example."""
        image, labels = self.photographs.photo(plan.photos[n])
        for which, donor, guest in plan.pastes:
            if which == n:
                image, labels = self._pasted(image, labels, donor, guest, plan.targets[n], rng)
        for which, thing, label in plan.things:
            if which == n:
                image, labels = stick(image, labels, self.piece(thing), label, rng, SCALE, TURN)
        return self._augmented(image, target_of(labels, (plan.marks or plan.targets)[n]), side)

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        # The side is the same in every process, the photographs are each process's own.
        side = self.sides[np.random.default_rng((self.seed, step)).integers(len(self.sides))]
        groups = max(1, round(self.groups * (max(self.sides) / side) ** 2)) if len(self.sides) > 1 else self.groups
        rng = np.random.default_rng((self.seed, step, self.rank, 1))
        plans = [self.plan(rng) for _ in range(groups)]
        images = torch.empty(groups, self.size, 3, side, side, dtype=torch.uint8)
        targets = torch.empty(groups, self.size, side, side, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
            torch.manual_seed(int(rng.integers(2**62)))
            for b, plan in enumerate(plans):
                for n in range(self.size):
                    images[b, n], targets[b, n] = self._pixels(plan, n, side, rng)
        classes = torch.zeros(groups, len(self.photographs.classes) + 1)  # label 0: nothing in common
        named = [[0 if plan.kind == "made" else plan.targets[0]] for plan in plans]
        classes.scatter_(1, torch.tensor(named), 1.0)
        weights, kinds = torch.stack([plan.weights for plan in plans]), tuple(plan.kind for plan in plans)
        marks = self._marks(plans, targets) if self.examples else None
        return Batch(images, targets, weights, classes[:, 1:], kinds, marks)

    def _marks(self, plans: list[GroupPlan], targets: Tensor) -> Tensor:
        """What is marked, (B, N, S, S); it is taken out of the targets of those for whom it is not asked."""
        marks = (targets == 1).to(torch.uint8)
        for b, plan in enumerate(plans):
            if not plan.marks:
                marks[b] = 0
            elif plan.kind == "empty":
                targets[b].masked_fill_(marks[b] == 1, 0)
        return marks

    def _pasted(self, image, labels, donor: int, guest: int, asked: int, rng) -> tuple[Tensor, Tensor]:
        """Paste where at least half of what is asked for stays visible; after four tries leave it as it is."""
        before = (labels == asked).sum()
        for _ in range(4):
            x, t = paste(image, labels, *self.photographs.photo(donor), guest, rng)
            if asked == guest or (t == asked).sum() >= 0.5 * before:
                return type(image)(x), type(labels)(t)
        return image, labels


class _AlignedCrop(v2.RandomResizedCrop):
    """torchvision's crop, box and image; the mask is cut from the same box and resized by `resize_labels`."""

    def transform(self, inpt, params):
        if not isinstance(inpt, tv_tensors.Mask):
            return super().transform(inpt, params)
        return tv_tensors.Mask(resize_labels(tvf.crop(inpt, **params), self.size))


def augmentation(side: int, scale: tuple[float, float] = (0.4, 1.0), colour: float = 0.3) -> v2.Transform:
    """Random crop to `side`² of a share `scale` of the area, flip, brightness, contrast, saturation."""
    crop = _AlignedCrop(side, scale=scale, ratio=(0.8, 1.25), antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.ColorJitter(colour, colour, colour)])


def target_of(labels: Tensor, label: int) -> tv_tensors.Mask:
    """The binary mask of one class: 1 there, 0 elsewhere, 255 void. label = 0: nothing is asked for."""
    return tv_tensors.Mask(relabelled(labels, {label: 1} if label else {}))
