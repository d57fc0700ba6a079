"""What took reading many files is kept in `paths.CACHE`, under a name that changes when one of the files does."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from coseglib.core import paths
from coseglib.core.errors import CosegError
from coseglib.core.files import atomic
from coseglib.data.record import Photo


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
