"""Training photographs decoded and resized once: two uint8 arrays on disk, mapped into memory."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tvf

from coseglib.core.paths import CACHE
from coseglib.data.record import VOID, Photo
from coseglib.data.sets.msrc import SURROUNDINGS

# One vocabulary for training: names that two data sets give the same thing. What surrounds objects is background, as in
# VOC: asked for as a class, MSRC's buildings were found behind every row of parked cars and aeroplanes.
SAME = {
    "aeroplane": "aeroplane", "plane": "aeroplane", "face": "person", "body": "person",
    "dining table": "diningtable", "potted plant": "pottedplant", "tv": "tvmonitor",
}  # fmt: skip


@dataclass(frozen=True)
class TrainingSet:
    """images uint8 (n, 3, S, S), labels uint8 (n, S, S): k is classes[k − 1], 255 void; areas (n, K) in [0, 1]."""

    images: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def photo(self, i: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """Image (3, S, S) and label map (S, S), copies that may be written to."""
        image, labels = torch.from_numpy(self.images[i].copy()), torch.from_numpy(self.labels[i].copy())
        return tv_tensors.Image(image), tv_tensors.Mask(labels)


def vocabulary(photos: list[Photo]) -> tuple[str, ...]:
    """The objects that the photographs' label maps can name, each once, in alphabetical order."""
    return tuple(sorted({SAME.get(c, c) for p in photos for c in p.classes} - SURROUNDINGS))


def _relabel(photo: Photo, classes: tuple[str, ...]) -> torch.Tensor:
    lookup = torch.zeros(256, dtype=torch.uint8)
    lookup[VOID] = VOID
    for k, name in enumerate(photo.classes, start=1):
        name = SAME.get(name, name)
        if name in classes:
            lookup[k] = classes.index(name) + 1
    return lookup


def training_set(photos: list[Photo], side: int, folder: Path = CACHE, progress=None) -> TrainingSet:
    """The photographs as squares of `side` pixels: read from `folder` if they are there, else decoded and written.

    Images are resized bilinearly with antialiasing, label maps by nearest neighbour; the aspect ratio is not kept
    (as in Chen et al. 2018, section 3.5). progress: called with (done, total).
    """
    classes = vocabulary(photos)
    names = tuple(f"{p.dataset}/{p.name}" for p in photos)
    # A file that was changed since has another size or date: it belongs to another cache.
    stamps = [(p.path.stat().st_size, p.path.stat().st_mtime_ns) if p.path else 0 for p in photos]
    key = hashlib.sha256(json.dumps([names, classes, side, stamps]).encode()).hexdigest()[:16]
    home = folder / f"{side}-{key}"
    if not home.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{home.name}.{os.getpid()}.part"
        part.mkdir()
        try:
            _write(photos, classes, side, part, progress)
            os.replace(part, home)
        except OSError:
            if not home.is_dir():  # another process may have been first
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    arrays = {n: np.load(home / f"{n}.npy", mmap_mode="r") for n in ("images", "labels", "areas")}
    return TrainingSet(**arrays, classes=classes, names=names)


def _write(photos: list[Photo], classes: tuple[str, ...], side: int, home: Path, progress) -> None:
    n = len(photos)
    images = np.lib.format.open_memmap(home / "images.npy", "w+", np.uint8, (n, 3, side, side))
    labels = np.lib.format.open_memmap(home / "labels.npy", "w+", np.uint8, (n, side, side))
    areas = np.zeros((n, len(classes)), np.float32)
    for i, photo in enumerate(photos):
        images[i] = tvf.resize(photo.image(), [side, side], antialias=True).numpy()
        label = tvf.resize(photo.labels(), [side, side])
        labels[i] = _relabel(photo, classes)[label.long()].numpy()
        areas[i] = np.bincount(labels[i].ravel(), minlength=256)[1 : len(classes) + 1] / side**2
        if progress and (i % 100 == 99 or i + 1 == n):
            progress(i + 1, n)
    images.flush(), labels.flush()
    np.save(home / "areas.npy", areas)
