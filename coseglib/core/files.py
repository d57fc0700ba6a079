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
    except OSError as fault:  # a full disk does not say which file it has no room for
        fault.filename = fault.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """What Python writes is whole or an OSError; Pillow's own writing takes a disk that fills up for a success."""
    with atomic(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """A file of UTF-8."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
