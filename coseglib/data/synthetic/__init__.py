"""Procedural scenes: the data set that needs no download.

A scene shows one to three named shapes (`CATEGORIES`) with textures and shading, before a textured background with
clutter, sometimes partly hidden. It is a pure function of the split, the seed, its categories and its number; the label
map holds every category's *visible* pixels, so a scene of two categories asks what its partners want.

Every draw comes from one stream of uniform numbers (PCG64), every colour from elementwise float64 arithmetic: the same
bytes on any machine. A category leans towards a hue of its own, as kinds of real things do, but only its shape is sure.

Layout     unit square, x to the right, y down; a shape fits the disc of radius 1 around its own origin
Drawing    (`scenes`) signed distances d(x, y), negative inside; a pixel belongs to a shape where d < 0 at its centre
"""

from collections.abc import Sequence
from functools import lru_cache, partial

import torch

from coseglib.core.errors import CosegError
from coseglib.data.record import Group, Photo
from coseglib.data.synthetic.scenes import CATEGORIES, Array, Dice, draw, scene

SPLITS = {"train": 1, "val": 2, "test": 3}


@lru_cache(maxsize=256)  # more than a test split; 64 kB each at 128 pixels
def _rendered(categories: tuple[str, ...], key: tuple[int, ...], size: int) -> tuple[Array, Array]:
    return draw(scene(categories, *key), size)


def _read(which: int, categories: tuple[str, ...], key: tuple[int, ...], size: int) -> torch.Tensor:
    return torch.from_numpy(_rendered(categories, key, size)[which].copy())


def _photo(split: str, categories: tuple[str, ...], number: int, size: int, seed: int, stream: int) -> Photo:
    key = (seed, SPLITS[split], stream, number)
    name = f"{split}-{seed}/{'+'.join(categories)}/{'gm'[stream]}{number:04d}"
    image, labels = (partial(_read, which, categories, key, size) for which in (0, 1))
    return Photo("synthetic", name, CATEGORIES, image, labels)


def _check(split: str, size: int, seed: int) -> None:
    if split not in SPLITS:
        raise CosegError(f"synthetic: no split {split}; one of {', '.join(SPLITS)}")
    if size < 8 or seed < 0:
        raise CosegError(f"synthetic: size = {size}, seed = {seed}; give 8 pixels or more, and a seed of 0 or more")


def synthetic_photos(split: str = "train", count: int = 240, size: int = 128, seed: int = 0) -> list[Photo]:
    """`count` photographs, categories in turn; half of them hold a second category, a tenth of these a third.

    size  pixels of a side. Raises CosegError for an unknown split, a size below 8 or a negative seed.
    """
    _check(split, size, seed)
    photos = []
    for i in range(count):
        dice = Dice(seed, SPLITS[split], 2, i)
        categories = [CATEGORIES[i % len(CATEGORIES)]]
        while len(categories) < 3 and dice.chance((0.5, 0.1)[len(categories) - 1]):
            categories.append(dice.pick([c for c in CATEGORIES if c not in categories]))
        photos.append(_photo(split, tuple(categories), i, size, seed, stream=1))
    return photos


def load_synthetic(split="test", groups: int | Sequence[str] = 8, photos=12, size=128, seed=0) -> list[Group]:
    """One group a category, `photos` photographs each; a group's target is its category.

    groups  how many (the first so many of `CATEGORIES`), or their names
    Of a group's photographs a quarter stand in the next group as well and a quarter in the one before (rounded down;
    the last group's next is the first): they hold both categories, under one name. Half of the others hold a category
    that no group asks for, as long as there is one.
    Raises CosegError for an unknown split or category, too many groups, no photographs, a size below 8, a seed below 0.
    """
    _check(split, size, seed)
    names = CATEGORIES[:groups] if isinstance(groups, int) else tuple(groups)
    wanted = groups if isinstance(groups, int) else len(set(names))
    if not names or wanted != len(names) or not set(names) <= {*CATEGORIES}:
        raise CosegError(f"synthetic: groups = {groups}; 1 to {len(CATEGORIES)}, or names from {', '.join(CATEGORIES)}")
    if photos < 1:
        raise CosegError(f"synthetic: photos = {photos}; a group needs one or more")
    spare = [c for c in CATEGORIES if c not in names]
    shared = photos // 4 if len(names) > 1 else 0

    make = partial(_photo, split, size=size, seed=seed, stream=0)
    both = [[make((c, names[(g + 1) % len(names)]), i) for i in range(shared)] for g, c in enumerate(names)]
    result = []
    for g, category in enumerate(names):
        own = []
        for i in range(photos - 2 * shared):
            distractor = (spare[(i // 2 * 5 + 3 * g) % len(spare)],) if spare and i % 2 else ()
            own.append(make((category, *distractor), shared + i if distractor else i))
        queues = [own, both[g], both[g - 1]] if shared else [own]
        # Dealt in turn by share: the first few photographs of a group are as mixed as all of them.
        ranked = [((i + 0.5) / len(q), n, photo) for n, q in enumerate(queues) for i, photo in enumerate(q)]
        members = tuple(photo for _, _, photo in sorted(ranked, key=lambda r: r[:2]))
        result.append(Group("synthetic", category, members, (category,)))
    return result
