"""Training photographs decoded and resized once: uint8 arrays on disk, mapped into memory."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torchvision import tv_tensors

from coseglib.core.errors import CosegError
from coseglib.core.files import clear_parts
from coseglib.core.paths import CACHE
from coseglib.core.progress import Progress
from coseglib.data.by_class import areas_of
from coseglib.data.record import Photo, check_masks, digest, file_versions, relabelled, resize_image, resize_labels
from coseglib.data.sets.msrc import SCENERY, SURROUNDINGS

CACHE_FORMAT = 3  # since 2 label maps are sampled about pixel centres; since 3 a checksum of all is kept

# One vocabulary for training: names that two data sets give the same thing. What surrounds objects is background, as in
# VOC: asked for as a class, MSRC's buildings were found behind every row of parked cars and aeroplanes. With `scenery`
# they are a class where a photograph holds no object: then it is a photograph of them.
SAME = {
    "aeroplane": "aeroplane", "plane": "aeroplane", "face": "person", "body": "person",
    "dining table": "diningtable", "potted plant": "pottedplant", "tv": "tvmonitor",
}  # fmt: skip


@dataclass(frozen=True)
class TrainingSet:
    """n photographs of one size, and what of K classes is in them.

    holds: what is known to be in a photograph, however small or hidden. The first K of K' are the classes; the others
    have a name in some data set, but nobody asks for them.
    """

    images: np.ndarray  # uint8 (n, 3, S, S)
    labels: np.ndarray  # uint8 (n, S, S): k is classes[k − 1], 255 void
    areas: np.ndarray  # (n, K) in [0, 1]
    holds: np.ndarray  # bool (n, K')
    classes: tuple[str, ...]
    names: tuple[str, ...]
    content: str = ""  # SHA-256 of names, pixels and labels, wherever the files lie

    def __len__(self) -> int:
        return len(self.names)

    def photo(self, i: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """Image (3, S, S) and label map (S, S), copies that may be written to."""
        image, labels = torch.from_numpy(self.images[i].copy()), torch.from_numpy(self.labels[i].copy())
        return tv_tensors.Image(image), tv_tensors.Mask(labels)


def _shared(names: Iterable[str]) -> list[str]:
    return [SAME.get(name, name) for name in names]


def vocabulary(photos: list[Photo], scenery: bool = False) -> tuple[str, ...]:
    """The objects that the photographs' label maps can name, each once, in alphabetical order; then the scenery."""
    named = {c for p in photos for c in _shared(p.classes)}
    return (*sorted(named - SURROUNDINGS), *(c for c in SCENERY if scenery and c in named))


def training_set(
    photos: list[Photo], side: int, folder: Path = CACHE, quiet: bool = True, *, scenery: bool = False
) -> TrainingSet:
    """The photographs as squares of `side` pixels: read from `folder` if they are there, else decoded and written.

    The aspect ratio is not kept (as in Chen et al. 2018, section 3.5). Files that have changed belong to another cache.
    quiet: False says on stderr how far it is     scenery: True: buildings are a class, too, see above
    Raises CosegError for what cannot be read, and where the folder is full
    or cannot be written.
    """
    classes = vocabulary(photos, scenery)
    key = [CACHE_FORMAT, classes, side, file_versions(photos), [p.holds for p in photos]]
    home = folder / f"{side}-{digest(key)}"
    try:
        if not home.is_dir():
            check_masks(photos)
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):  # one process decodes, the others wait for it
                for left in folder.glob("*.part/"):  # by a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
                clear_parts(folder)
                if not home.is_dir():
                    part = home.with_name(f"{home.name}.part")
                    part.mkdir()
                    try:
                        _write(photos, classes, side, part, quiet)
                        os.replace(part, home)
                    finally:
                        shutil.rmtree(part, ignore_errors=True)
    except OSError as fault:
        why = f"{fault.strerror or fault}; {len(photos) * 4 * side**2 / 2**30:.1f} GB are needed"
        mend = "make room, set a smaller cache_side, or name another folder in COSEG_CACHE"
        raise CosegError(f"{folder}: {why}: {mend}") from fault
    try:
        arrays = {n: np.load(home / f"{n}.npy", mmap_mode="r") for n in ("images", "labels", "areas", "holds")}
        content = (home / "content.txt").read_text(encoding="ascii")
    except (OSError, ValueError, EOFError) as fault:  # of a file that is cut short, closed or gone
        raise CosegError(f"{home}: cannot be read ({fault}); remove this folder, it is made anew") from fault
    return TrainingSet(**arrays, classes=classes, names=tuple(p.key for p in photos), content=content)


def _write(photos: list[Photo], classes: tuple[str, ...], side: int, home: Path, quiet: bool) -> None:
    """Row by row: a full disk is an OSError here, where a mapped file would end the process."""
    n = len(photos)
    known = [*classes, *sorted({c for p in photos for c in _shared(p.holds)} - {*classes} - SURROUNDINGS)]
    objects = np.array([c not in SCENERY for c in classes])
    areas, holds = np.zeros((n, len(classes)), np.float32), np.zeros((n, len(known)), bool)
    progress, content = Progress("decoded", n, quiet=quiet), hashlib.sha256()
    with (home / "images.npy").open("wb") as images, (home / "labels.npy").open("wb") as maps:
        for file, shape in ((images, (n, 3, side, side)), (maps, (n, side, side))):
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for i, photo in enumerate(photos):
            pixels = resize_image(photo.image(), (side, side)).numpy().tobytes()
            images.write(pixels)
            new = {k: classes.index(c) + 1 for k, c in enumerate(_shared(photo.classes), 1) if c in classes}
            labels = relabelled(photo.labels(), new)
            holds[i, : len(classes)] = areas_of(labels.numpy(), len(classes)) > 0
            if not objects.all() and holds[i, : len(classes)][objects].any():  # of these it is; the scenery is known
                labels = relabelled(labels, {k: k for k, of_use in enumerate(objects, 1) if of_use})
            holds[i, [known.index(c) for c in _shared(photo.holds) if c in known]] = True
            labels = resize_labels(labels, (side, side)).numpy()
            areas[i] = areas_of(labels, len(classes))
            maps.write(labels.tobytes())
            for part in (photo.key.encode(), pixels, labels.tobytes()):
                content.update(part)
            progress.add()
    np.save(home / "areas.npy", areas), np.save(home / "holds.npy", holds)
    (home / "content.txt").write_text(content.hexdigest(), encoding="ascii")
