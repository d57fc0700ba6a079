"""Photographs that a browser hands over."""

import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from coseglib.answering.reading import picture_of
from coseglib.core.errors import CosegError
from coseglib.data.images import read_image
from coseglib.data.record import Photo


def file_name(name: str) -> str:
    """What a browser calls a file, as a name that any folder takes: no path, no control characters, not too long."""
    plain = re.sub(r"[\x00-\x1f\x7f]", "", re.split(r"[/\\]", name)[-1]).strip(" .") or "photo"
    stem, dot, ending = plain.rpartition(".")
    return f"{stem[:50]}{dot}{ending[:8]}" if stem else plain[:50]


class Uploads:
    """Photographs that a browser hands over, in their order, in a folder of their own that goes when this does."""

    def __init__(self):
        self.photos: tuple[Photo, ...] = ()
        self._folder = tempfile.TemporaryDirectory(prefix="coseg-")

    def add(self, files: Sequence[dict]) -> list[str]:
        """Add files, each with a name and its content; a line for each that is no photograph or here already."""
        faults = []
        for file in files:
            name, content = file_name(file["name"]), bytes(file["content"])
            if any(p.path.name == name and p.path.read_bytes() == content for p in self.photos):
                faults.append(f"{name}: is here already")
                continue
            path = Path(tempfile.mkdtemp(dir=self._folder.name), name)
            path.write_bytes(content)
            photo = Photo("folder", name, ("uploads",), partial(read_image, path), None, path)
            try:
                picture_of(photo)
            except CosegError as fault:
                faults.append(str(fault).replace(str(path), name))
            else:
                self.photos += (photo,)
        return faults
