"""Is this photograph one of the test sets'? 384 bits a photograph tell, without the photographs.

The grey 16 × 16 thumbnail, less its mean, is projected on 384 fixed directions of ±1; the bits are the signs. For two
thumbnails of correlation r the share of differing bits is arccos(r) / π. Measured: the 1037 photographs of PASCAL,
scaled to 320 pixels and saved anew, differ from themselves in at most 24 bits; 3826 photographs of VOC and MSRC differ
from the 1750 test photographs and their mirror images in at least 31. `NEAR` lies between, at a correlation of .974.
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
from coseglib.data.record import Photo, file_versions, remembered

BITS, SIDE = 384, 16
NEAR = 28  # bits
KEPT_APART = ("test", "unseen")  # splits of which nothing trains, nor a near duplicate of it


@lru_cache(maxsize=1)
def _directions() -> np.ndarray:
    """(256, 384) of ±1, the same everywhere: a SHAKE-256 stream."""
    stream = hashlib.shake_256(b"coseg fingerprint").digest(SIDE * SIDE * BITS // 8)
    return np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(SIDE * SIDE, BITS).astype(np.int64) * 2 - 1


def fingerprint(image, flipped: bool = False) -> bytes:
    """48 bytes of an image, uint8 RGB (3, H, W); flipped: of its mirror image, left to right."""
    picture = Image.fromarray(np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))).convert("L")
    grey = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.int64)  # the means of 256 parts
    grey = grey[:, ::-1] if flipped else grey
    return np.packbits((grey.size * grey - grey.sum()).ravel() @ _directions() > 0).tobytes()  # whole numbers: exact


@dataclass(frozen=True)
class Fingerprints:
    """Of n photographs."""

    names: tuple[str, ...]  # as `Photo.key`
    splits: tuple[str, ...]  # "test", "unseen" (kinds that never train, and choose), "train", "val"
    bits: np.ndarray  # (n, 48) uint8
    flipped: np.ndarray  # likewise, of the mirror images; from the file those of KEPT_APART alone, else zeros

    def only(self, *splits: str) -> "Fingerprints":
        """Those of the named splits."""
        return self._where(np.isin(self.splits, splits))

    def apart(self, split: str, *others: str) -> "Fingerprints":
        """Without those of one split that are near one of the others'."""
        return self._where((np.array(self.splits) != split) | (nearest(self.bits, self.only(*others)) > NEAR))

    def _where(self, kept: np.ndarray) -> "Fingerprints":
        names, kinds = (tuple(np.array(of, object)[kept]) for of in (self.names, self.splits))
        return Fingerprints(names, kinds, self.bits[kept], self.flipped[kept])


def nearest(bits: np.ndarray, known: Fingerprints) -> np.ndarray:
    """How many bits each of (m, 48) uint8 differs from the nearest known photograph or mirror image of one, (m,) int.

    Where nothing is known, all of them.
    """
    packed = bits, np.concatenate([known.bits, known.flipped])
    signs, table = (np.unpackbits(of, axis=1).astype(np.float32) * 2 - 1 for of in packed)  # ±1: whole products
    return ((BITS - signs @ table.T) / 2).min(axis=1, initial=BITS).astype(int)


def fingerprints_of(photos: Sequence[Photo], splits: Sequence[str]) -> Fingerprints:
    """Reads every photograph. Raises CosegError where one cannot be read."""
    images = (read_image(photo.path, at_most=256) for photo in photos)
    table = _table([(fingerprint(image), fingerprint(image, flipped=True)) for image in images])
    return Fingerprints(tuple(p.key for p in photos), tuple(splits), *table)


def _table(rows: Sequence[tuple[bytes, bytes]]) -> np.ndarray:
    """uint8 (2, n, 48): the photographs' bits and their mirror images'."""
    return np.frombuffer(b"".join(b + f for b, f in rows), np.uint8).reshape(len(rows), 2, BITS // 8).swapaxes(0, 1)


def write_fingerprints(known: Fingerprints, file: Path) -> None:
    """As a CSV of photograph, split, bits, flipped (base64); whole or not at all."""
    bits, flipped = ([base64.b64encode(row.tobytes()).decode() for row in of] for of in (known.bits, known.flipped))
    flipped = [text if split in KEPT_APART else "" for text, split in zip(flipped, known.splits, strict=True)]
    write_table(pd.DataFrame({"photo": known.names, "split": known.splits, "bits": bits, "flipped": flipped}), file)


@lru_cache(maxsize=2)
def read_fingerprints(file: Path) -> Fingerprints:
    """What `write_fingerprints` wrote. Raises CosegError where it is missing or damaged."""
    mend = "`git checkout data/lists` brings it back"
    rows = read_table(file, dict.fromkeys(("photo", "split", "bits", "flipped"), str), mend)
    try:
        bits, flipped = map(base64.b64decode, rows.bits), map(base64.b64decode, rows.flipped)
        table = _table([(b, f or bytes(BITS // 8)) for b, f in zip(bits, flipped, strict=True)])
    except ValueError as fault:
        raise CosegError(f"{file}: damaged ({fault}); {mend}") from fault
    return Fingerprints(tuple(rows.photo), tuple(rows.split), *table)


def without_test_photos(
    photos: Sequence[Photo], lists: Path | None = None, apart: Sequence[str] = KEPT_APART[:1]
) -> list[Photo]:
    """The photographs that are none of the test sets', nor near duplicates of one. apart: splits to compare with.

    Those that our lists clear (the folder `lists`; None: `paths.LISTS`) were compared when the lists were written.
    Others (the whole of VOC 2012 holds many of the PASCAL co-segmentation set) are read and compared once.
    Raises CosegError where the fingerprints are missing or an unknown photograph cannot be read.
    """
    known = read_fingerprints((lists or paths.LISTS) / "fingerprints.csv")
    cleared = {name for name, split in zip(known.names, known.splits, strict=True) if split != "test"}
    unknown = [p for p in photos if p.key not in cleared]

    def compare() -> np.ndarray:
        return nearest(fingerprints_of(unknown, [""] * len(unknown)).bits, known.only(*apart)) <= NEAR

    found = remembered("near", [NEAR, [*apart], known.names, file_versions(unknown)], compare) if unknown else []
    near = {p.key for p, is_near in zip(unknown, found, strict=True) if is_near}
    return [p for p in photos if p.key not in near]
