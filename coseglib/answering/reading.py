"""Photographs as every question reads them: one picture of each, from a record or from a file; and what is kept."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from coseglib.data.images import image_size, read_image
from coseglib.data.record import Photo, resize_image

LONGEST = 1600  # pixels: what has longer sides is reduced when it is read
MOST_BYTES = 320 * 2**20  # that a memory holds: pictures and features of a hundred photographs


@dataclass(frozen=True)
class Picture:
    """pixels  uint8 (3, h, w), at most LONGEST a side: network, second look, dense CRF and overlay all see these
    size       (H, W), the photograph's own, which its mask has
    """

    pixels: Tensor
    size: tuple[int, int]


def picture_of(photo: Tensor | Photo | Path | Picture) -> Picture:
    """Read a photograph: an image uint8 (3, H, W), a record, a file, or what was read already.

    Raises CosegError where it cannot be read.
    """
    if isinstance(photo, Picture):
        return photo
    file = photo.path if isinstance(photo, Photo) else photo if isinstance(photo, Path) else None
    if file is not None:
        read = photo.read_image if isinstance(photo, Photo) else partial(read_image, file)
        (width, height), image = image_size(file), read(at_most=2 * LONGEST)  # reduced by whole numbers: not too far
        size = height, width
    else:
        image = photo.read_image() if isinstance(photo, Photo) else photo
        size = tuple(image.shape[-2:])
    scale = LONGEST / max(size)
    if scale < 1:
        image = resize_image(image, [max(1, round(side * scale)) for side in size])
    return Picture(torch.as_tensor(image), size)


def resize_to_input(image: Tensor, size: int) -> Tensor:
    """uint8 (3, H, W) -> float (3, size, size) in [0, 1]: bilinear with antialiasing, the aspect ratio is not kept."""
    return resize_image(image, (size, size)).float() / 255


class Photographs:
    """What is asked about, read anew whenever it is needed.

    A subclass may leave out what cannot be read, take a share of the passes, and keep what the first one has pooled.
    """

    def __init__(self, photos: Sequence[Tensor | Photo | Path]):
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, place: int) -> Picture | None:
        """The photograph at a place; None: left out."""
        return picture_of(self.photos[place])

    def first_pass(self, batches: list[Sequence[int]]) -> Iterable[Sequence[int]]:
        """Which of these places' batches are pooled here."""
        return batches

    def pooled(self, groups: list[Sequence[int]], compute: Callable[[], dict]) -> dict:
        """The pools of groups; `compute` goes through `first_pass`."""
        return compute()

    def last_pass(self, batches: list[Sequence[int]]) -> Iterable[Sequence[int]]:
        """Which of these places' batches are answered here."""
        return batches


def _bytes(value) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if hasattr(value, "pixels"):
        return value.pixels.nbytes
    return sum(_bytes(part) for part in value) if isinstance(value, Iterable) else 0


class Memory:
    """Pictures, features and answers by key, `most` bytes of them; what was not used for longest goes first."""

    def __init__(self, most: int = MOST_BYTES):
        self.most, self.size = most, 0
        self._values: OrderedDict[Hashable, object] = OrderedDict()

    def get(self, key: Hashable):
        """What is kept by this key, or None."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def keep(self, key: Hashable, value) -> None:
        """Tensors are to be their own: a view would hold the whole of what it is a part of."""
        if key in self._values or _bytes(value) > self.most:
            return
        self._values[key] = value
        self.size += _bytes(value)
        while self.size > self.most:
            self.size -= _bytes(self._values.popitem(last=False)[1])

    def recall(self, key: Hashable, compute: Callable[[], object]):
        """What is kept by this key, or what `compute` gives, which is kept then unless it is None."""
        value = self.get(key)
        if value is None and (value := compute()) is not None:
            self.keep(key, value)
        return value
