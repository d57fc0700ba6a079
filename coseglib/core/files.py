"""Files that are there whole or not at all: written beside their place, moved there at the end."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coseglib.core.errors import CosegError


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
        if fault.errno and not fault.filename:
            fault.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """What Python writes is whole or an OSError; Pillow's own writing takes a disk that fills up for a success."""
    with atomic(path) as part:
        part.write_bytes(content)


def clear_parts(folder: Path) -> None:
    """Remove what `atomic` began in a folder in processes of this machine that are gone."""
    for part in folder.glob(".*.part"):
        number = part.name.split(".")[-2]
        with suppress(PermissionError):  # another user's process, which is alive, or file
            try:
                os.kill(int(number) if number.isdigit() else os.getpid(), 0)
            except ProcessLookupError:
                part.unlink(missing_ok=True)


def writable(path: Path, folder: bool) -> Path:
    """`path`, if it can be written: hours of work are not to end in a file that cannot. Nothing is made yet."""
    if path.is_dir() != folder and path.exists():
        what = "is a file; name a folder" if folder else "is a folder; name a file in it"
        raise CosegError(f"{path}: {what} to write to")
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir() and there != path:
        raise CosegError(f"{path}: {there} is no folder; name another place")
    # a file is moved to its place, so the folder is written to; one that is closed itself is to stay as it is
    if not all(os.access(p, os.W_OK) for p in {there, there if there.is_dir() else there.absolute().parent}):
        raise CosegError(f"{path}: not to be written to; mend its rights or name another place")
    return path


def read_json(path: Path, mend: str) -> dict:
    """The mapping that a file of JSON holds. mend: what an error tells the reader to do."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # undecodable bytes are ValueErrors
        raise CosegError(f"{path}: cannot be read as JSON ({error}); {mend}") from error
    if not isinstance(found, dict):
        raise CosegError(f"{path}: holds no names with values; {mend}")
    return found


def write_text(path: str | Path, text: str) -> None:
    """A file of UTF-8."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
