"""One record type for all data sets: `Photo`, and `Group`, photographs that share something; what is known of them.

A label map is uint8 (H, W): 0 background, k the class `classes[k - 1]`, 255 void (ignored in losses and metrics).
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from coseglib.core import paths
from coseglib.core.errors import CosegError
from coseglib.core.files import atomic

VOID = 255
NAMED = 5  # faults of a set that an error names; it counts the others


def relabelled(labels: torch.Tensor, new: Mapping[int, int]) -> torch.Tensor:
    """A label map uint8 (H, W) with other labels: k becomes `new[k]`, others 0; void stays void."""
    lookup = torch.zeros(256, dtype=torch.uint8)
    lookup[VOID] = VOID
    for k, label in new.items():
        lookup[k] = label
    return lookup[labels.long()]


def resize_labels(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A mask or label map uint8 (…, H, W) at another size (H', W'), each pixel the one under its centre.

    torchvision samples masks from the pixels' corners, half a pixel of the result too low and too far to the right.
    """
    flat = labels.reshape(-1, 1, *labels.shape[-2:]).to(torch.uint8)
    return F.interpolate(flat, size=tuple(size), mode="nearest-exact").reshape(*labels.shape[:-2], *size)


def resize_image(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A picture uint8 (3, H, W) at another size (H', W'): bilinear with antialiasing, as torchvision's v2 `resize`."""
    return F.interpolate(pixels[None], size=tuple(size), mode="bilinear", antialias=True)[0]


@dataclass(frozen=True)
class Photo:
    """One photograph and, where there is one, its label map; both are read only when asked for.

    read_image   () -> uint8 RGB (3, H, W); of a file (at_most=None), as `images.read_image`
    read_labels  () -> uint8 (H, W) as above, or None where the photograph has no mask
    """

    dataset: str  # "voc", "msrc", …
    name: str  # unique within the data set ("2007_000032", "Bird/img_1001")
    classes: tuple[str, ...]  # the vocabulary of its label map: label k is `classes[k - 1]`
    read_image: Callable[..., torch.Tensor] = field(repr=False, compare=False)
    read_labels: Callable[[], torch.Tensor] | None = field(default=None, repr=False, compare=False)
    path: Path | None = None  # None for procedural scenes
    mask_path: Path | None = None  # that its label map is read from
    holds: tuple[str, ...] = ()  # classes that its record names, seen in the label map or not: crowds, specks
    check_size: Callable[[], None] | None = field(default=None, repr=False, compare=False)  # of the mask, by headers

    @property
    def key(self) -> str:
        """Its name among all data sets, "voc/2007_000032"."""
        return f"{self.dataset}/{self.name}"

    def image(self) -> torch.Tensor:
        """uint8 RGB (3, H, W), upright. Raises CosegError when the file cannot be read."""
        return self.read_image()

    def labels(self) -> torch.Tensor:
        """uint8 (H, W), values 0 … len(classes), 255 void. Raises CosegError where there is no mask."""
        if self.read_labels is None:
            raise CosegError(f"{self.path or self.name}: has no mask; give a ground_truth folder to score it")
        return self.read_labels()

    def content(self) -> str:
        """What makes two photographs the same one: the file's SHA-256, whatever its name; without a file the name."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest() if self.path else self.name

    def mask(self, targets: tuple[str, ...]) -> torch.Tensor:
        """The label map of `targets` alone: k where the k-th target is, 0 elsewhere, 255 void. uint8 (H, W)."""
        new = {self.classes.index(target) + 1: k for k, target in enumerate(targets, 1) if target in self.classes}
        return relabelled(self.labels(), new)


@dataclass(frozen=True)
class Group:
    """Photographs and what is asked of them: one target, several for multi-class; none where there are no masks."""

    dataset: str
    name: str
    photos: tuple[Photo, ...]
    targets: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.photos)

    def mask(self, index: int) -> torch.Tensor:
        """Photo `index`'s label map, 0 … len(targets), 255 void. uint8 (H, W)."""
        return self.photos[index].mask(self.targets)

    def content(self, masks: bool = False) -> str:
        """SHA-256 of the photographs' names and contents, and of their masks: a file may change under its name."""
        digest = hashlib.sha256()
        for number, photo in enumerate(self.photos):
            digest.update(f"{photo.name}\n{photo.content()}\n".encode())
            if masks:
                digest.update(self.mask(number).numpy().tobytes())
        return digest.hexdigest()


def check_masks(photos: Iterable[Photo]) -> None:
    """Raises CosegError where masks are missing or of another size than their photographs: of all, the first `NAMED`.

    Headers alone are read, so that hours of work need not end at the last mask.
    """
    photos, faults = list(photos), []
    for photo in dict.fromkeys(photos):
        try:
            if photo.read_labels is None:
                photo.labels()  # which says what is missing
            elif photo.check_size:
                photo.check_size()
        except CosegError as fault:
            faults.append(str(fault))
    if len(faults) > 1:
        named, mend = "; ".join(fault.rpartition("; ")[0] for fault in faults[:NAMED]), faults[0].rpartition("; ")[2]
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        what = f"{len(faults)} of {len(photos)} photographs do not fit their masks, or cannot be read"
        raise CosegError(f"{what}: {named}{more}; {mend}")
    if faults:
        raise CosegError(faults[0])


def _size_and_date(path: Path | None) -> tuple[int, int] | None:
    try:
        return (path.stat().st_size, path.stat().st_mtime_ns) if path else None
    except OSError as fault:
        raise CosegError(f"{path}: no such file, but a list names it; unpack the data set again") from fault


def file_versions(photos: Sequence[Photo]) -> list:
    """Of each photograph names, classes, and size and date of its files. Raises CosegError where one is missing."""
    return [(p.dataset, p.name, p.classes, _size_and_date(p.path), _size_and_date(p.mask_path)) for p in photos]


def digest(key: object) -> str:
    """16 letters that stand for `key`, anything that JSON can hold."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def remembered(kind: str, key: object, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """`compute()`, once for every `key`. A folder that cannot be written costs the computing next time, no more."""
    home = paths.CACHE / f"{kind}-{digest(key)}.npy"
    if home.is_file():
        return np.load(home)
    found = compute()
    with contextlib.suppress(OSError):
        home.parent.mkdir(parents=True, exist_ok=True)
        with atomic(home) as part, part.open("wb") as file:
            np.save(file, found)
    return found
