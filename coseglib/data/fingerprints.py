"""Is this photograph one of the test sets'? 384 bits a photograph tell, without the photographs.

The grey 16 × 16 thumbnail, less its mean, is projected on 384 fixed directions of ±1; the bits are the signs. For two
thumbnails of correlation r the share of differing bits is arccos(r) / π. Measured: the 1037 photographs of PASCAL,
scaled to 320 pixels and saved anew, differ from themselves in at most 24 bits; 3826 photographs of VOC and MSRC differ
from the 1750 test photographs and their mirror images in at least 31. `NEAR` lies between, at a correlation of .974.
`data/lists/fingerprints.csv` holds those of the test photographs and of the lists that train and choose models.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from coseglib.core import paths
from coseglib.core.errors import CosegError
from coseglib.core.tables import read_table, write_table
from coseglib.data.images import read_image
from coseglib.data.record import Group, Photo
from coseglib.data.remembered import remembered, stamps

BITS = 384
SIDE = 16
NEAR = 28  # bits


@lru_cache(maxsize=1)
def _directions() -> np.ndarray:
    """(256, 384) of ±1, the same everywhere: a SHAKE-256 stream."""
    stream = hashlib.shake_256(b"coseg fingerprint").digest(SIDE * SIDE * BITS // 8)
    return np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(SIDE * SIDE, BITS).astype(np.int64) * 2 - 1


def thumbnail(image) -> np.ndarray:
    """uint8 RGB (3, H, W) -> grey int64 (16, 16), 0 … 255: the means of its 256 parts."""
    picture = Image.fromarray(np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0)))
    return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.int64)


def fingerprint(image, flipped: bool = False) -> bytes:
    """48 bytes of an image, uint8 RGB (3, H, W); flipped: of its mirror image, left to right."""
    grey = thumbnail(image)
    grey = grey[:, ::-1] if flipped else grey
    return np.packbits((grey.size * grey - grey.sum()).ravel() @ _directions() > 0).tobytes()  # whole numbers: exact


@dataclass(frozen=True)
class Fingerprints:
    """names (n) of "<data set>/<photograph>"; splits (n): "test", "train", "val"; bits (n, 48) uint8.

    flipped  (n, 48) of the mirror images; of test photographs only in the file, zeros for the others
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    bits: np.ndarray
    flipped: np.ndarray

    def _at(self, kept: np.ndarray) -> "Fingerprints":
        """Those where `kept` (n,) bool is true."""
        names, splits = (tuple(np.array(of, object)[kept]) for of in (self.names, self.splits))
        return Fingerprints(names, splits, self.bits[kept], self.flipped[kept])

    def only(self, *splits: str) -> "Fingerprints":
        """Those of the named splits."""
        return self._at(np.isin(self.splits, splits))

    def without_near_duplicates(self) -> "Fingerprints":
        """Those of the test photographs, and of the others that are near none of them."""
        return self._at(np.isin(self.splits, "test") | (nearest(self.bits, self.only("test")) > NEAR))


def _signs(packed: np.ndarray) -> np.ndarray:
    """(n, 384) of ±1: their products sum to whole numbers."""
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def nearest(bits: np.ndarray, known: Fingerprints) -> np.ndarray:
    """How many bits each of (m, 48) uint8 differs from the nearest known photograph or mirror image of one, (m,) int.

    Where nothing is known, all of them.
    """
    table = np.concatenate([known.bits, known.flipped])
    if not len(bits) or not len(table):
        return np.full(len(bits), BITS)
    return ((BITS - _signs(bits) @ _signs(table).T) / 2).min(axis=1).astype(int)


def fingerprints_of(photos: Sequence[Photo], splits: Sequence[str]) -> Fingerprints:
    """Reads every photograph. Raises CosegError where one cannot be read."""
    rows = []
    for photo in photos:
        image = read_image(photo.path, at_most=256)
        rows.append((fingerprint(image), fingerprint(image, flipped=True)))
    table = np.frombuffer(b"".join(a + b for a, b in rows), np.uint8).reshape(len(rows), 2, BITS // 8)
    return Fingerprints(tuple(f"{p.dataset}/{p.name}" for p in photos), tuple(splits), table[:, 0], table[:, 1])


def write_fingerprints(known: Fingerprints, file: Path) -> None:
    """As a CSV of photograph, split, bits, flipped (base64); whole or not at all."""
    bits, flipped = ([base64.b64encode(row.tobytes()).decode() for row in of] for of in (known.bits, known.flipped))
    flipped = [text if split == "test" else "" for text, split in zip(flipped, known.splits, strict=True)]
    write_table(pd.DataFrame({"photo": known.names, "split": known.splits, "bits": bits, "flipped": flipped}), file)


@lru_cache(maxsize=2)
def read_fingerprints(file: Path) -> Fingerprints:
    """What `write_fingerprints` wrote. Raises CosegError where it is missing or damaged."""
    mend = "`git checkout data/lists` brings it back"
    rows = read_table(file, dict.fromkeys(("photo", "split", "bits", "flipped"), str), mend)
    try:
        none = bytes(BITS // 8)
        table = b"".join(
            base64.b64decode(b) + (base64.b64decode(f) or none) for b, f in zip(rows.bits, rows.flipped, strict=True)
        )
        bits = np.frombuffer(table, np.uint8).reshape(len(rows), 2, BITS // 8)
    except ValueError as fault:
        raise CosegError(f"{file}: damaged ({fault}); {mend}") from fault
    return Fingerprints(tuple(rows.photo), tuple(rows.split), bits[:, 0], bits[:, 1])


def _near(photos: Sequence[Photo], known: Fingerprints) -> set[str]:
    """The names of those that are near a test photograph: read and compared once, then remembered."""

    def compare() -> np.ndarray:
        return nearest(fingerprints_of(photos, [""] * len(photos)).bits, known.only("test")) <= NEAR

    near = remembered("near", [NEAR, known.names, stamps(photos)], compare)
    return {f"{p.dataset}/{p.name}" for p, is_near in zip(photos, near, strict=True) if is_near}


def without_test_photos(photos: Sequence[Photo], lists: Path | None = None) -> list[Photo]:
    """The photographs that are none of the test sets', nor near duplicates of one.

    Those that our own lists clear were compared when the lists were written. Others (the whole of VOC 2012 holds many
    that are in the PASCAL co-segmentation set) are read and compared once.
    lists  the folder of fingerprints.csv; None: `paths.LISTS`
    Raises CosegError where the fingerprints are missing or an unknown photograph cannot be read.
    """
    known = read_fingerprints((lists or paths.LISTS) / "fingerprints.csv")
    cleared = {name for name, split in zip(known.names, known.splits, strict=True) if split != "test"}
    unknown = [p for p in photos if f"{p.dataset}/{p.name}" not in cleared]
    near = _near(unknown, known) if unknown else set()
    return [p for p in photos if f"{p.dataset}/{p.name}" not in near]


def groups_without_test_photos(groups: Sequence[Group], least: int, lists: Path | None = None) -> list[Group]:
    """The groups less such photographs; groups of which fewer than `least` stay are left out. Raises as above."""
    kept = {(p.dataset, p.name) for p in without_test_photos([p for g in groups for p in g.photos], lists)}
    result = []
    for group in groups:
        photos = tuple(p for p in group.photos if (p.dataset, p.name) in kept)
        if len(photos) >= least:
            result.append(Group(group.dataset, group.name, photos, group.targets))
    return result
