"""Which photographs are meant, and what their masks are called."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
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
            inside = {
                os.path.realpath(Path(folder, f)): f for f in sorted(folders)[::-1] if f[0] != "." and f not in results
            }
            folders[:] = [f for real, f in inside.items() if real not in entered]  # of two links to one, the first
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
        return (
            full if len(data) <= 200 else f"{data[:180].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"
        )

    while True:
        places: dict[str, list[int]] = {}
        for i in range(len(photos)):
            places.setdefault(name(i).casefold(), []).append(i)
        raised = False
        for clash in places.values():
            lowest = min(level[i] for i in clash)
            for i in clash:
                if len(clash) > 1 and level[i] == lowest and level[i] < len(parts[i]) - 1:
                    level[i], raised = level[i] + 1, True
        if not raised:
            break
    names, taken = [], {key for key, clash in places.items() if len(clash) == 1}
    for i in range(len(photos)):
        candidate, k = name(i), 1
        while len(places[name(i).casefold()]) > 1 and candidate.casefold() in taken:
            k += 1
            candidate = f"{name(i)}-{k}"
        taken.add(candidate.casefold())
        names.append(candidate)
    return names
