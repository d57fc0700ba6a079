"""From label maps to groups: areas of classes, groups by class, groups of several classes, pairs.

A photograph belongs to the group of a class that covers at least `PRESENT` of it, void pixels counted in the whole.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np

from coseglib.data.record import Group, Photo, file_versions, remembered

PRESENT = 0.01


def areas_of(labels: np.ndarray, classes: int) -> np.ndarray:
    """Shares of the photograph that the classes 1 … `classes` cover: uint8 (H, W) -> float32 (classes,) in [0, 1]."""
    return (np.bincount(labels.ravel(), minlength=256)[1 : classes + 1] / labels.size).astype(np.float32)


def class_areas(photos: Sequence[Photo]) -> np.ndarray:
    """Shares of area (n, K) in [0, 1] of photographs of one vocabulary of K classes.

    Where all have masks in files, these are read once and the areas remembered until a file has another size or date.
    Raises CosegError where a label map is missing or cannot be read.
    """

    def read() -> np.ndarray:
        return np.stack([areas_of(p.read_labels().numpy(), len(p.classes)) for p in photos])

    if not photos:
        return np.zeros((0, 0), np.float32)
    return remembered("areas", file_versions(photos), read) if all(p.mask_path for p in photos) else read()


def _held(photos: Sequence[Photo], areas: np.ndarray | None, min_area: float) -> list[frozenset[str]]:
    areas = class_areas(photos) if areas is None else areas
    return [frozenset(np.array(p.classes)[a >= min_area].tolist()) for p, a in zip(photos, areas, strict=True)]


def _group(photos: Sequence[Photo], chosen: Sequence[bool], targets: tuple[str, ...], least: int) -> list[Group]:
    members = tuple(compress(photos, chosen))
    return [Group(members[0].dataset, "+".join(targets), members, targets)] if len(members) >= least else []


def groups_of(photos: Sequence[Photo], classes: Sequence[str], min_area=PRESENT, areas=None, least=1) -> list[Group]:
    """A group for every class: the photographs of which it covers `min_area` or more, where there are `least`, one or
    more. areas: (n, K) from `class_areas`; None: the label maps are read.
    """
    held = _held(photos, areas, min_area)
    return [g for name in classes for g in _group(photos, [name in h for h in held], (name,), least)]


def multiclass_groups(photos: Sequence[Photo], combos: Sequence, areas: np.ndarray | None = None) -> list[Group]:
    """A group for every combination (a tuple) of classes: photographs that hold these and no other of the vocabulary.

    Empty ones are left out; the name joins the classes by "+". areas: as for `groups_of`.
    """
    held = _held(photos, areas, PRESENT)
    return [g for combo in combos for g in _group(photos, [h == {*combo} for h in held], combo, 1)]


class Pair(NamedTuple):
    """Two photographs and the groups that both stand in."""

    first: Photo
    second: Photo
    groups: tuple[str, ...]


def _membership(groups: Sequence[Group]) -> tuple[list[Photo], np.ndarray]:
    """Each photograph once (by data set and name), and which groups (n, G) it stands in."""
    photos = {photo.key: photo for group in groups for photo in group.photos}
    keys = [{photo.key for photo in group.photos} for group in groups]
    member = np.array([[key in own for own in keys] for key in photos], bool)
    return list(photos.values()), member.reshape(len(photos), len(groups))


def count_pairs(groups: Sequence[Group]) -> tuple[int, int]:
    """How many pairs have a group in common, each counted once, and once for every group that it shares.

    With n_g photographs in group g the second is Σ_g n_g (n_g − 1) / 2; the first is smaller by what shares several.
    """
    member = _membership(groups)[1].astype(np.float32)
    upper = np.triu(member @ member.T, 1)
    return int((upper > 0).sum()), int(upper.sum(dtype=np.float64))


def pairs(groups: Sequence[Group]) -> Iterator[Pair]:
    """Every unordered pair of photographs with a group in common, once, in the order of the groups' photographs.

    The mask of such a pair is the union of the classes that it shares, as in the released code of Chen et al. 2018.
    """
    photos, member = _membership(groups)
    names = np.array([g.name for g in groups])
    for i, first in enumerate(photos):
        shared = member[i + 1 :] & member[i]
        for j in np.flatnonzero(shared.any(axis=1)):
            yield Pair(first, photos[i + 1 + j], tuple(names[shared[j]].tolist()))


def sample(found: Sequence, names: Sequence[str], count: int, seed: int = 0) -> list:
    """`count` of what is found, in its order: those with the lowest SHA-256 of seed and name. All, if fewer."""
    scores = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    lowest = set(sorted(scores)[:count])
    return list(compress(found, (score in lowest for score in scores)))


def sample_pairs(groups: Sequence[Group], count: int, seed: int = 0) -> list[Pair]:
    """`count` of `pairs(groups)`, the `sample` by both names."""
    found = list(pairs(groups))
    return sample(found, [f"{p.first.name} {p.second.name}" for p in found], count, seed)
