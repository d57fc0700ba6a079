"""A prior: what is salient in each picture, added to a system's own answer. In none of the five papers.

A group says what is *common*, a saliency network what is an *object*; together

    z' = z + w · ln(p / (1 − p))        z  the system's difference of logits    p  the prior's map    w  its weight

w = 1 takes both for independent witnesses. Nothing has chosen that; `coseg evaluate --choose-prior-weight` chooses one
on validation photographs. The maps are PNG files, or an ONNX network makes them (`coseglib.answering.saliency`):

    DIR        <group>/<stem>.png or <stem>.png, 0 to 255, of any size: the folder of the photograph's own name first,
               then DIR itself, then any other folder in DIR, where all that have the stem hold the same
    onnx:FILE  a network, on each picture by itself
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering.reading import Picture
from coseglib.answering.saliency import SaliencyNetwork, is_onnx, logit, read_network
from coseglib.core.errors import CosegError
from coseglib.data.folders import folders_in
from coseglib.data.images import read_grey
from coseglib.data.record import Photo

WEIGHT = 1.0  # w, where nobody says


@dataclass(frozen=True)
class Prior:
    """name: as it was given; weight: w."""

    name: str
    weight: float = WEIGHT

    @property
    def sha256(self) -> str:
        """Of the network's file, or of all maps and their names."""
        raise NotImplementedError

    def map_of(self, photo: Photo | Path | Tensor | Picture, picture: Picture) -> Tensor:
        """A photograph and what was read of it -> probabilities (h, w), float32 on the CPU."""
        raise NotImplementedError

    def check(self, photos: Iterable[Photo | Path | Tensor | Picture]) -> None:
        """Raises CosegError for a photograph that has no map, before any work."""

    def logits(self, photo: Photo | Path | Tensor | Picture, picture: Picture, size: tuple[int, int]) -> Tensor:
        """ln(p / (1 − p)) at the size (h, w) of a system's logits."""
        p = self.map_of(photo, picture)[None, None]
        return logit(F.interpolate(p, size=size, mode="bilinear", antialias=True)[0, 0])

    def add(self, logits: Tensor, prior: Tensor) -> Tensor:
        """logits (2, h, w) of a system, prior (h, w) of `logits` -> logits (2, h, w)."""
        half = self.weight * prior / 2
        return logits + torch.stack([-half, half])

    def weighing(self, weight: float) -> "Prior":
        """The same maps at another weight."""
        return replace(self, weight=weight)

    def about(self) -> dict[str, object]:
        """What results say of it: name, weight, sha256."""
        return {"name": self.name, "weight": self.weight, "sha256": self.sha256}


@dataclass(frozen=True)
class NetworkPrior(Prior):
    network: SaliencyNetwork | None = None

    @property
    def sha256(self) -> str:
        return self.network.sha256

    def map_of(self, photo, picture: Picture) -> Tensor:
        return self.network.map_of(picture.pixels)


@dataclass(frozen=True)
class FolderPrior(Prior):
    @cached_property
    def _files(self) -> dict[str, dict[str, Path]]:
        """stem -> {folder's name, "" for DIR itself: file}."""
        home, found = Path(self.name), {}
        for folder in (home, *folders_in(home)):
            for file in sorted(folder.glob("*.png")):
                found.setdefault(file.stem, {})["" if folder == home else folder.name] = file
        return found

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for stem, places in sorted(self._files.items()):
            for folder, file in sorted(places.items()):
                digest.update(f"{folder}/{stem}\n".encode(errors="surrogateescape"))
                digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()

    def check(self, photos) -> None:
        for photo in photos:
            self.file_of(photo)

    def file_of(self, photo: Photo | Path | Tensor | Picture) -> Path:
        """The map of a photograph. Raises CosegError where there is none, or several that differ."""
        known = photo.path or Path(photo.name) if isinstance(photo, Photo) else photo
        if not isinstance(known, Path):
            raise CosegError(f"{self.name}: a picture without a name has no map there; give a file")
        stem, folder = known.stem, known.absolute().parent.name
        places = self._files.get(stem, {})
        for wanted in (folder, ""):
            if wanted in places:
                return places[wanted]
        if not places:
            raise CosegError(f"{self.name}: no map {stem}.png of {known}, there or in {folder}/; add it")
        if len({file.read_bytes() for file in places.values()}) > 1:
            some = ", ".join(f"{name}/" for name in list(places)[:4])
            raise CosegError(
                f"{self.name}: {stem}.png stands in {some} and differs; which is meant? Put it in {folder}/"
            )
        return next(iter(places.values()))

    def map_of(self, photo, picture: Picture) -> Tensor:
        return read_grey(self.file_of(photo)).float() / 255


def read_prior(name: str, weight: float | None = None) -> Prior:
    """ "DIR" or "onnx:FILE" -> the prior. weight: w; None: WEIGHT.

    Raises CosegError as `read_network` does, for a folder without maps, and for a weight that is none.
    """
    weight = WEIGHT if weight is None else float(weight)
    if not 0 <= weight < float("inf"):
        raise CosegError(f"prior weight {weight}: a number from 0 on")
    if is_onnx(name):
        return NetworkPrior(name, weight, read_network(name))
    if not Path(name).expanduser().is_dir():
        raise CosegError(f"{name}: no folder of maps; name one, or onnx:FILE")
    prior = FolderPrior(str(Path(name).expanduser()), weight)
    if not prior._files:
        raise CosegError(f"{name}: holds no <stem>.png and no <group>/<stem>.png; name the folder of the maps")
    return prior
