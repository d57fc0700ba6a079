"""From label maps to groups: areas of classes, groups by class, groups of several classes, pairs.

A photograph belongs to the group of a class that covers at least `PRESENT` of it, void pixels counted in the whole.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from coseglib.data.record import Group, Photo
from coseglib.paths import CACHE

PRESENT = 0.01


def areas_of(labels: np.ndarray, classes: int) -> np.ndarray:
    """Shares of the photograph that the classes 1 … `classes` cover: uint8 (H, W) -> float32 (classes,) in [0, 1]."""
    return (np.bincount(labels.ravel(), minlength=256)[1 : classes + 1] / labels.size).astype(np.float32)


def class_areas(photos: Sequence[Photo], masks: Sequence[Path] = (), folder: Path = CACHE) -> np.ndarray:
    """Shares of area (n, K) in [0, 1] of photographs of one vocabulary of K; read once, then remembered in `folder`.

    masks  the files that hold the label maps: when one has another size or date, all are read again.
    Raises CosegError where a label map cannot be read.
    """
    if not photos:
        return np.zeros((0, 0), np.float32)
    stamps = [(str(p), s.st_size, s.st_mtime_ns) for p in masks for s in [p.stat()]]
    key = json.dumps([[(p.dataset, p.name, str(p.path)) for p in photos], photos[0].classes, stamps])
    home = folder / f"areas-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if masks and home.is_file():
        return np.load(home)
    areas = np.stack([areas_of(p.read_labels().numpy(), len(p.classes)) for p in photos])
    if masks:
        part = home.with_name(f"{home.name}.{os.getpid()}.part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.save(file, areas)
            os.replace(part, home)
        except OSError:
            part.unlink(missing_ok=True)  # nothing is lost but time
    return areas


def groups_of(
    photos: Sequence[Photo],
    classes: Sequence[str],
    min_area: float = PRESENT,
    areas: np.ndarray | None = None,
    least: int = 1,
) -> list[Group]:
    """A group for every class: the photographs of which it covers `min_area` or more; classes with fewer than `least`
    such photographs are left out.

    areas  (n, K) from `class_areas`; None: the label maps are read.
    """
    areas = class_areas(photos) if areas is None else areas
    groups = []
    for name in classes:
        chosen = tuple(p for p, a in zip(photos, areas, strict=True) if a[p.classes.index(name)] >= min_area)
        if len(chosen) >= least:
            groups.append(Group(chosen[0].dataset, name, chosen, (name,)))
    return groups


def multiclass_groups(
    photos: Sequence[Photo],
    combos: Sequence[tuple[str, ...]],
    min_area: float = PRESENT,
    areas: np.ndarray | None = None,
) -> list[Group]:
    """A group for every combination of classes: photographs that hold them all, at `min_area` or more each, and none
    other of the vocabulary. Empty ones are left out; the name joins the classes by "+".
    """
    areas = class_areas(photos) if areas is None else areas
    held = [frozenset(np.array(p.classes)[a >= min_area]) for p, a in zip(photos, areas, strict=True)]
    groups = []
    for combo in combos:
        chosen = tuple(p for p, names in zip(photos, held, strict=True) if names == frozenset(combo))
        if chosen:
            groups.append(Group(chosen[0].dataset, "+".join(combo), chosen, tuple(combo)))
    return groups


def pairs(groups: Sequence[Group]) -> Iterator[tuple[Group, Photo, Photo]]:
    """Every unordered pair of every group, Σ_c n_c (n_c − 1) / 2 of them: what shares two classes comes twice."""
    for group in groups:
        for a, b in combinations(group.photos, 2):
            yield group, a, b
