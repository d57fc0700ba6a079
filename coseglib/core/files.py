"""Files that are there whole or not at all: written beside their place, moved there at the end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A name beside `path` to write to; it becomes `path` where the block ends well, and is gone where it does not.

    Whoever looks meanwhile sees the old file. The new one has the mode that the umask gives.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """A file of UTF-8."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
