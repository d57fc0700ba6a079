"""Training groups: what a batch asks, drawn as a pure function of the seed and the step.

Three kinds of group, with shares to set:
  plain   all photographs hold one class, and no other class is common to all of them: that class is asked for
  hard    as plain, but half of the photographs hold a second class as well; the partners say which one is meant
  empty   the partners of a photograph hold none of its classes: nothing is asked for, the masks are empty
The papers train on plain pairs alone. Photographs of two classes are few and mostly of the same kinds (a person and a
dog), so a share of the second classes is pasted in from other photographs (`transforms.paste`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from coseglib.core.errors import CosegError
from coseglib.data.cache import TrainingSet
from coseglib.data.transforms import augmentation, paste, target_of

PLAIN, HARD, EMPTY = KINDS = ("plain", "hard", "empty")
PRESENT = 0.01  # a class is in a photograph when it covers this share of it


@dataclass
class Batch:
    """A step's groups.

    images   uint8 (B, N, 3, S, S)            targets  uint8 (B, N, S, S), 1 asked for, 255 void
    weights  float (B, N, N), the partners'   classes  float (B, L), 1 for the class that a group has in common
    """

    images: Tensor
    targets: Tensor
    weights: Tensor
    classes: Tensor
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A group before its pixels are read: photographs, the class asked of each (0: none), partners' weights (N, N)."""

    kind: str
    photos: tuple[int, ...]
    targets: tuple[int, ...]
    weights: Tensor
    pastes: tuple[tuple[int, int, int], ...] = ()  # (which of the photographs, donor, label)


class GroupSampler(Dataset):
    """Batch number `step` of training, for a map-style loader: any process, any order, the same batch.

    photographs  the cache
    size         N, photographs a group (2: pairs)
    groups       B, groups a batch
    side         of the network's input, pixels; or several, of which each batch draws one (the number of groups is
                 then scaled so that every batch has about as many pixels)
    shares       of plain, hard and empty groups; any non-negative numbers, normalised to sum 1
    pasted       share of hard groups whose second class is pasted in
    twins        share of plain groups that are crops of one photograph: what looks the same is common, whatever it is
    by_set       a class's photographs of two data sets are drawn as two classes, so that the small set is not drowned
    Classes are drawn by the square root of their number of photographs.
    """

    def __init__(
        self,
        photographs: TrainingSet,
        size: int = 2,
        groups: int = 8,
        side: int | tuple[int, ...] = 224,
        shares: tuple[float, float, float] = (1.0, 0.0, 0.0),
        pasted: float = 0.5,
        twins: float = 0.0,
        crop: tuple[float, float] = (0.4, 1.0),
        steps: int = 1000,
        seed: int = 0,
        rank: int = 0,
        by_set: bool = False,
    ):
        if size < 2:
            raise CosegError(f"groups of {size}: a photograph needs a partner; set group_size to 2 or more")
        self.photographs, self.size, self.groups = photographs, size, groups
        self.sides = (side,) if isinstance(side, int) else tuple(side)
        self.shares = np.asarray(shares, float) / sum(shares)
        self.pasted, self.twins, self.crop = pasted, twins, crop
        self.steps, self.seed, self.rank = steps, seed, rank
        self.present = np.asarray(photographs.areas) >= PRESENT  # (n, K)
        counts = self.present.sum(0)
        self.usable = np.flatnonzero(counts >= size)
        if len(self.usable) == 0 or (self.shares[1:].any() and len(self.usable) < 2):
            raise CosegError(
                f"training set: no class (or one alone) has {size} photographs; give more data or no hard pairs"
            )
        self.holding = {int(c): np.flatnonzero(self.present[:, c]) for c in self.usable}
        sets = np.array([name.split("/")[0] for name in photographs.names])
        self.pools = [  # (class, photographs that stand for it)
            (c, pool)
            for c, found in self.holding.items()
            for pool in ([found[sets[found] == own] for own in np.unique(sets)] if by_set else [found])
            if len(pool) >= size or not by_set
        ]
        if not self.pools:
            raise CosegError(f"training set: no data set has {size} photographs of one class; leave out by_set")
        weights = np.sqrt([len(pool) for _, pool in self.pools])
        self.chances = weights / weights.sum()

    def __len__(self) -> int:
        return self.steps

    def _pool(self, rng) -> tuple[int, np.ndarray]:
        """A class and the photographs that stand for it."""
        return self.pools[int(rng.choice(len(self.pools), p=self.chances))]

    def _draw(self, rng, pool: np.ndarray, count: int) -> list[int]:
        return [int(i) for i in rng.choice(pool, count, replace=len(pool) < count)]

    def _others(self) -> Tensor:
        n = self.size
        return (torch.ones(n, n) - torch.eye(n)) / (n - 1)

    def plain(self, rng) -> Question:
        """N photographs of one class; drawn again while a second class is common to all, which would be asked too."""
        for _ in range(20):
            c, pool = self._pool(rng)
            photos = self._draw(rng, pool, self.size)
            if rng.random() < self.twins:
                photos = photos[:1] * self.size
            if self.present[photos].all(0).sum() == 1:
                break
        return Question(PLAIN, tuple(photos), (c + 1,) * self.size, self._others())

    def hard(self, rng) -> Question:
        """Half of the photographs (rounded down, the first ones) hold class d beside c; the others hold c and not d."""
        distracted = self.size // 2
        for _ in range(20):
            c, d = self._pool(rng)[0], self._pool(rng)[0]
            if c == d:
                continue
            alone = np.flatnonzero(self.present[:, c] & ~self.present[:, d])
            if len(alone) < self.size - distracted:
                continue
            rest = self._draw(rng, alone, self.size - distracted)
            both = np.flatnonzero(self.present[:, c] & self.present[:, d])
            if rng.random() >= self.pasted:
                if len(both) == 0:
                    continue
                photos = self._draw(rng, both, distracted) + rest
                return Question(HARD, tuple(photos), (c + 1,) * self.size, self._others())
            # Both classes are pasted as often as they are the ground: a pasted look must not give the answer away.
            ground, guest = (c, d) if rng.random() < 0.5 else (d, c)
            grounds = np.flatnonzero(self.present[:, ground] & ~self.present[:, guest])
            if len(grounds) == 0:
                continue
            firsts = self._draw(rng, grounds, distracted)
            donors = self._draw(rng, self.holding[guest], distracted)
            pastes = tuple((i, donor, guest + 1) for i, donor in enumerate(donors))
            return Question(HARD, tuple(firsts + rest), (c + 1,) * self.size, self._others(), pastes)
        return self.plain(rng)

    def empty(self, rng) -> Question:
        """The first half holds c, the second half d; a photograph's partners are the other half, alien to it."""
        half = self.size // 2
        for _ in range(20):
            first = self._draw(rng, self._pool(rng)[1], half)
            free = ~self.present[:, self.present[first].any(0)].any(1)  # photographs with none of the first's classes
            _, pool = self._pool(rng)
            pool = pool[free[pool]]
            if len(pool):
                break
        else:
            return self.plain(rng)
        photos = first + self._draw(rng, pool, self.size - half)
        weights = torch.zeros(self.size, self.size)
        weights[:half, half:], weights[half:, :half] = 1 / (self.size - half), 1 / half
        return Question(EMPTY, tuple(photos), (0,) * self.size, weights)

    def question(self, rng) -> Question:
        return getattr(self, KINDS[rng.choice(3, p=self.shares)])(rng)

    def _augmented(self, image: Tensor, target: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Crops that lose most of what is asked for are drawn again: a question's answer must be in the picture."""
        transform = augmentation(side, self.crop)
        asked = (target == 1).float().mean()
        for _ in range(4):
            x, t = transform(image, target)
            if asked == 0 or (t == 1).float().mean() >= 0.5 * asked:
                break
        return x, t

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        side = self.sides[
            np.random.default_rng((self.seed, step)).integers(len(self.sides))
        ]  # the same in every process
        groups = max(1, round(self.groups * (max(self.sides) / side) ** 2)) if len(self.sides) > 1 else self.groups
        rng = np.random.default_rng((self.seed, step, self.rank, 1))
        questions = [self.question(rng) for _ in range(groups)]
        images = torch.empty(groups, self.size, 3, side, side, dtype=torch.uint8)
        targets = torch.empty(groups, self.size, side, side, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
            torch.manual_seed(int(rng.integers(2**62)))
            for b, q in enumerate(questions):
                guests = {i: (donor, label) for i, donor, label in q.pastes}
                for n, (index, label) in enumerate(zip(q.photos, q.targets, strict=True)):
                    image, labels = self.photographs.photo(index)
                    if n in guests:
                        donor, guest = guests[n]
                        image, labels = self._pasted(image, labels, donor, guest, label, rng)
                    images[b, n], targets[b, n] = self._augmented(image, target_of(labels, label), side)
        classes = torch.zeros(groups, len(self.photographs.classes) + 1)  # label 0: nothing in common
        classes.scatter_(1, torch.tensor([q.targets[:1] for q in questions]), 1.0)
        weights, kinds = torch.stack([q.weights for q in questions]), tuple(q.kind for q in questions)
        return Batch(images, targets, weights, classes[:, 1:], kinds)

    def _pasted(self, image, labels, donor: int, guest: int, asked: int, rng) -> tuple[Tensor, Tensor]:
        """Paste where at least half of what is asked for stays visible; after four tries leave it as it is."""
        before = (labels == asked).sum()
        for _ in range(4):
            x, t = paste(image, labels, *self.photographs.photo(donor), guest, rng)
            if asked == guest or (t == asked).sum() >= 0.5 * before:
                return type(image)(x), type(labels)(t)
        return image, labels
