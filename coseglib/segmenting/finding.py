"""Which photographs are meant, and what their masks are called."""

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from coseglib.data.images import SUFFIXES

WRITTEN = ("masks", "overlays")  # the folders of results


def is_output(folder: Path) -> bool:
    """Has `coseg segment`, or a session of the explorer, written its results to this folder, or begun to?"""
    if (folder / ".coseg").is_dir() or (folder / "session.json").is_file():
        return True
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads((folder / "result.json").read_text(encoding="utf-8")).keys() >= {"checkpoint", "photos"}
    return False


def find_photos(
    named: Sequence[str | Path], leave_out: Path | None = None
) -> tuple[list[Path], list[tuple[str, str]], int]:
    """Photographs (each once), folders without any (folder, why), and the number of files ignored.

    named      files, taken whatever their names are, and folders: the images in them and below, links too, each folder
               once, sorted by path. Hidden ones and results of an earlier run (`is_output`) are left out; other files
               in a folder are ignored and counted
    leave_out  the folder that masks are written to: neither it nor its masks and overlays are looked into
    """
    photos: dict[str, Path] = {}
    empty: list[tuple[str, str]] = []
    ignored = 0
    closed = {os.path.realpath(leave_out / f) for f in ("", *WRITTEN)} if leave_out else set()
    for path in [Path(named)] if isinstance(named, str | Path) else map(Path, named):
        if not path.is_dir():
            photos.setdefault(os.path.abspath(path), path)
            continue
        found, entered = [], {os.path.realpath(path)} | closed
        for folder, folders, files in os.walk(path, followlinks=True):
            results = WRITTEN if is_output(Path(folder)) else ()
            below = [f for f in sorted(folders, reverse=True) if f[0] != "." and f not in results]
            inside = {os.path.realpath(Path(folder, f)): f for f in below}  # of two links to one, the first
            folders[:] = [f for real, f in inside.items() if real not in entered]
            entered |= inside.keys()
            seen = [Path(folder, f) for f in files if f[0] != "."]
            images = [f for f in seen if f.suffix.lower() in SUFFIXES]
            found += images
            ignored += len(seen) - len(images)
        for photo in sorted(found):
            photos.setdefault(os.path.abspath(photo), photo)
        if not found:
            empty.append((str(path), "no photographs in this folder"))
    return list(photos.values()), empty, ignored


def output_names(photos: Sequence[Path]) -> list[str]:
    """A file name, without ending, for each photograph's mask: its stem, or more where names would collide.

    Those whose stems are equal keep their extension (cat.jpg, cat.png); those that are still equal put the folders
    above them in front, one after the other, until they differ (dogs__cat.jpg, cats__cat.jpg); what then remains is
    numbered (cat.jpg-2). Upper and lower case are equal, as on many file systems. Names beyond 200 bytes are cut, and
    eight digits of their SHA-256 appended: file systems end at 255. The names depend on the photographs and their
    order alone.
    """
    parts = [Path(os.path.abspath(p)).parts for p in photos]
    level = [0] * len(photos)  # 0: stem, 1: file name, 2 …: with so many parts of the path

    def name(i: int) -> str:
        full = Path(parts[i][-1]).stem if level[i] == 0 else "__".join(parts[i][1:][-level[i] :])
        data = os.fsencode(full)
        cut = f"{data[:180].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"
        return full if len(data) <= 200 else cut

    while True:
        places = defaultdict(list)
        for i in range(len(photos)):
            places[name(i).casefold()].append(i)
        clashes, raised = [clash for clash in places.values() if len(clash) > 1], []
        for clash in clashes:
            lowest = min(level[i] for i in clash)
            raised += [i for i in clash if level[i] == lowest < len(parts[i]) - 1]
        if not raised:
            break
        for i in raised:
            level[i] += 1
    names = [name(i) for i in range(len(photos))]
    taken = {key for key, clash in places.items() if len(clash) == 1}
    for i in sorted(chain(*clashes)):
        numbered = chain([names[i]], (f"{names[i]}-{k}" for k in count(2)))
        names[i] = next(candidate for candidate in numbered if candidate.casefold() not in taken)
        taken.add(names[i].casefold())
    return names
