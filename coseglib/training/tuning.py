"""Training on a folder of one's own photographs and masks: what trains, what is kept aside, what a start decides.

    coseg train --data-folder DIR --start ca-mobilenet_v2 -o runs/mine

DIR is laid out as a set of one's own with masks (data/README.md); every group is a class, and asked for wherever
anything of it is marked. A share of each group is kept aside and never trains: it chooses the model, among them the one
that the training starts from. A photograph is kept aside by the hash of its name, so that those that join the folder
move no other from one side to the other, but in groups too small for their share. A copy of one that is kept aside, in
whichever group, does not train either; near duplicates (bursts, frames of a video) are not noticed.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from coseglib.core.errors import CosegError, one_line
from coseglib.data import Group, Photo
from coseglib.data.cache import TrainingSet
from coseglib.data.record import NAMED
from coseglib.data.sets.binary import homes_of, load_folder
from coseglib.models.checkpoints import load_model
from coseglib.scoring.metrics import aggregate
from coseglib.scoring.rows import evaluate
from coseglib.segmenting.check import check_folder
from coseglib.training.configuration import TrainConfig, load_profile

KEPT_ASIDE = 0.2  # of a group's photographs; one at least where there are three
TRAINING = 2  # photographs of a group that train at least: a question takes two


@dataclass(frozen=True)
class OwnFolder:
    """A folder of one's own, checked. groups: those kept aside first, so many of each as `aside` says."""

    folder: Path
    groups: tuple[Group, ...]
    aside: tuple[int, ...]
    training: tuple[Photo, ...]  # the others, each with its group as its class
    content: str  # SHA-256 of names, photographs and masks

    def about(self) -> dict:
        """What a model's card says of it."""
        counts = {"groups": len(self.groups), "photographs": sum(map(len, self.groups)), "kept_aside": sum(self.aside)}
        return counts | {"content": self.content}

    def check_enough(self, photos: TrainingSet, group_size: int) -> None:
        """Raises CosegError for a group in which too few photographs of the training part show what is marked."""
        marked = (photos.areas > 0).sum(axis=0)
        for name, count in zip(photos.classes, marked.tolist(), strict=True):
            if count < group_size:
                has = f"{count} of its photographs train and have something marked, group_size is {group_size}"
                mend = f"add some, or --set group_size={count}" if count >= TRAINING else "add some, or take it away"
                raise CosegError(f"{self.folder}: group {name.partition('/')[2]}: {has}; {mend}")

    def jaccard_aside(self, model, most: int) -> float:
        """Mean J over the groups of what is kept aside, each with its whole group, protocol `common`; at most `most`
        photographs of a group."""
        asked = [(group, min(count, most)) for group, count in zip(self.groups, self.aside, strict=True) if count]
        rows = pd.concat([evaluate(model, [group], "common", limit=limit) for group, limit in asked])
        return float(aggregate(rows, "common").J.iloc[-1])

    def verdict(self, start: str, before: float, best: float) -> str:
        """What came of a training, in one line."""
        of = f"{sum(self.aside)} photographs kept aside"
        if before < 0:
            return f"J {best:.3f} on {of}"
        if best > before:
            return f"J on {of}: {before:.3f} as {start}, {best:.3f} tuned"
        return f"no better than {start} on {of} (J {before:.3f}): the model kept is {start} as it was"


def _rank(photo: Photo) -> float:
    """In [0, 1), by the photograph's name."""
    return int.from_bytes(hashlib.sha256(photo.name.encode()).digest()[:8], "big") / 2**64


def kept_aside(photos: Sequence[Photo]) -> list[Photo]:
    """Of the photographs of a group those that do not train: of lowest rank, below KEPT_ASIDE.

    One at least where TRAINING others are left, and never so many that fewer are.
    """
    ranked = sorted(photos, key=_rank)
    below = sum(_rank(photo) < KEPT_ASIDE for photo in ranked)
    return ranked[: max(0, min(max(1, below), len(ranked) - TRAINING))]


def own_folder(folder: str | Path) -> OwnFolder:
    """A folder of groups with masks. Every photograph and mask is read first.

    Raises CosegError in one line for faults (all are counted, the first `NAMED` told), for no masks, a group of a
    single photograph, and where no group has three, so that none could be kept aside.
    """
    folder = Path(folder)
    faults = [str(remark)[5:] for remark in check_folder(folder, quiet=True).remarks if remark.grave]
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        told = f"{len(faults)} faults: {'; '.join(faults[:NAMED])}{more}" if len(faults) > 1 else faults[0]
        raise CosegError(one_line(f"{folder}: {told}; `coseg doctor {folder}` lists all", 2000))
    if homes_of(folder)[1] is None:
        raise CosegError(f"{folder}: no masks to train on; they go into {folder}/ground_truth, see data/README.md")
    groups = load_folder(folder)
    if lone := [group.name for group in groups if len(group) < TRAINING]:
        raise CosegError(f"{folder}: group {lone[0]}: one photograph has no partner; add another, or take it away")
    contents = {photo: photo.content() for group in groups for photo in group.photos}
    aside = {contents[photo] for group in groups for photo in kept_aside(group.photos)}
    if not aside:
        raise CosegError(f"{folder}: no group has three photographs, so none can be kept aside to choose by; add some")
    holds = defaultdict(list)  # by content: a file that stands in two groups holds both
    for group in groups:
        for photo in group.photos:
            holds[contents[photo]].append(_class_of(group))
    training, parted = [], []
    for group in groups:
        first = [photo for photo in group.photos if contents[photo] in aside]
        rest = [photo for photo in group.photos if contents[photo] not in aside]
        training += [replace(p, classes=(_class_of(group),), holds=tuple(holds[contents[p]])) for p in rest]
        parted.append((replace(group, photos=(*first, *rest)), len(first)))
    return OwnFolder(folder, *zip(*parted, strict=True), tuple(training), _content(contents))


def _class_of(group: Group) -> str:
    """A name of its own: what sets of photographs call so may be another thing, or what surrounds objects."""
    return f"own/{group.name}"


def _content(contents: dict[Photo, str]) -> str:
    digest = hashlib.sha256()
    for photo in sorted(contents, key=lambda photo: photo.name):
        mask = hashlib.sha256(photo.mask_path.read_bytes()).hexdigest()
        digest.update(f"{photo.name}\n{contents[photo]}\n{mask}\n".encode())
    return digest.hexdigest()


def tuned_config(
    profile: str,
    method: str | None = None,
    start: str | None = None,
    folder: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """`load_profile` of a training that goes on from a checkpoint, or trains on a folder of one's own, or both.

    start   decides method, backbone, variant, options and side, unless `overrides` do. Classes that a method learns to
            name are those of its photographs: their number is not the checkpoint's
    Raises CosegError for another `method` than the checkpoint's, and as `load_model` and `load_profile` do.
    """
    given = {"data": "folder", "folder": str(folder)} if folder else {}
    if start:
        card = load_model(start, method).card
        same = {name: card[name] for name in ("method", "backbone", "variant", "input_size")}
        options = {name: value for name, value in card["options"].items() if name != "categories"}
        given |= {"start": start, **same, "options": options}
    return load_profile(profile, method, given | dict(overrides or {}))
