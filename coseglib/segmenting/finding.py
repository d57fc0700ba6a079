"""Which photographs are meant, what their masks are called, and that nothing of the user's is in their way."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path, PurePosixPath

from coseglib.core.errors import CosegError
from coseglib.core.files import writable
from coseglib.data.folders import (
    EXPORTS,
    PICTURES,
    RECORDS,
    WRITTEN,
    is_hidden,
    is_ours,
    is_output,
    is_results,
    is_signed,
)

TEXTS = (*RECORDS, *chain(*EXPORTS.values()))  # what stands beside the folders of results
LINKED = "a link that leads nowhere; mend it, or take it away"
OURS = "what `coseg segment` or the explorer wrote is no photograph; name the photographs"


def find_photos(
    named: Sequence[str | Path], leave_out: Path | None = None
) -> tuple[list[Path], list[tuple[str, str]], int]:
    """Photographs (each once); what was left out and should not be so without a word (path, why); the number ignored.

    named      files, taken whatever their names are, and folders: the images in them and below, links too, each folder
               once, sorted by path. Hidden ones (`is_hidden`) and what we wrote ourselves, wherever it lies, are left
               out; other files in a folder are ignored and counted. Folders that are empty or cannot be looked into,
               and links to nowhere, are named
    leave_out  the folder that masks are written to: its masks and overlays are not looked into
    """
    photos: dict[str, Path] = {}
    left: list[tuple[str, str]] = []
    ignored = 0
    closed = (
        {os.path.realpath(leave_out / f) for f in WRITTEN if not _holds_theirs(leave_out / f)} if leave_out else set()
    )
    for path in [Path(named)] if isinstance(named, str | Path) else map(Path, named):
        if os.path.isdir(path):
            found, faults, others = _below(path, closed)
            left += faults
            ignored += others
            for photo in found:
                photos.setdefault(os.path.abspath(photo), photo)
            if not found and not faults:
                left.append((str(path), "no photographs in this folder"))
        elif is_ours(path):
            left.append((str(path), OURS))
        else:
            photos.setdefault(os.path.abspath(path), path)
    return list(photos.values()), left, ignored


def _below(top: Path, closed: set[str]) -> tuple[list[Path], list[tuple[str, str]], int]:
    """`find_photos` of one folder."""
    found, left, ignored, entered = [], [], 0, {os.path.realpath(top)} | closed
    if os.path.realpath(top) in closed or _ours_alone(top):
        return [], [(str(top), OURS)], 0
    if is_hidden(top.name) and top.name[0] != ".":
        return [], [(str(top), "thumbnails or rubbish of a system, by its name; name the photographs")], 0

    def closed_to_us(fault: OSError) -> None:
        left.append((str(fault.filename), f"cannot be looked into ({fault.strerror}); mend its permissions"))

    for folder, folders, files in os.walk(top, onerror=closed_to_us, followlinks=True):
        below = [f for f in sorted(folders, reverse=True) if not is_hidden(f) and not _ours_alone(Path(folder, f))]
        inside = {os.path.realpath(Path(folder, f)): f for f in below}  # of two links to one, the first
        folders[:] = [f for real, f in inside.items() if real not in entered]
        entered |= inside.keys()
        ours = TEXTS if is_output(Path(folder)) else ()
        for file in (Path(folder, f) for f in sorted(files) if not is_hidden(f) and f not in ours):
            if file.suffix.lower() in PICTURES and not is_ours(file):
                found.append(file)
            elif os.path.islink(file) and not os.path.exists(file):
                left.append((str(file), LINKED))
            else:
                ignored += 1
    return sorted(found), left, ignored


def _holds_theirs(folder: Path) -> bool:
    """A folder by the name of our cutouts that holds pictures, and none of ours: it was the user's before."""
    if folder.name != WRITTEN[2] or not folder.is_dir():
        return False
    with suppress(OSError):
        pictures = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not is_hidden(p.name)]
        return bool(pictures) and not any(map(is_ours, pictures))
    return False


def _ours_alone(folder: Path) -> bool:
    return is_results(folder) and not _holds_theirs(folder)


def _theirs(file: Path) -> bool:
    """Is there something to lose that does not bear our mark?"""
    if is_ours(file) or is_hidden(file.name) or not os.path.lexists(file):
        return False
    return not file.is_file() or file.stat().st_size > 0


def _in_the_way(out: Path, names: Sequence[str], record: str, exports: Sequence[str]) -> Iterator[Path]:
    """What is not ours, where masks, overlays and exports of these names and the record of them are to be written."""
    ours = is_output(out)
    for place in (out / name for name in WRITTEN if name not in EXPORTS or name in exports):
        if not place.is_dir():
            yield from [place] * os.path.lexists(place)
        elif not ours and any(map(_theirs, place.iterdir())):
            yield place
    if ours:
        yield from filter(_theirs, (out / file for name in names for file in result_files(name)))
    yield from (out / r for r in RECORDS if (r != record or not ours) and os.path.lexists(out / r))
    yield from theirs_of_exports(out, [result_files(name)[0] for name in names], exports)


def theirs_of_exports(out: Path, masks: Iterable[str], exports: Sequence[str]) -> list[Path]:
    """What these exports of the masks, which are below `out`, would write over and is not ours, or edited since."""
    pictures = [out / cutout_file(mask) for mask in masks] if "cutouts" in exports else []
    homes = {picture.parent for picture in pictures}
    of_classes = {home: [folder for folder in home.glob("[0-9]*") if folder.name.isdecimal()] for home in homes}
    pictures += [folder / picture.name for picture in pictures for folder in of_classes[picture.parent]]
    texts = (out / name for kind in exports for name in EXPORTS[kind])
    edited = (text for text in texts if os.path.lexists(text) and not is_signed(text))
    return [*filter(_theirs, pictures), *edited]


def check_output(out: Path, names: Sequence[str], record: str = RECORDS[0], exports: Sequence[str] = ()) -> None:
    """Before any work: raises CosegError where something that is not ours would be written over, or mixed with ours.

    exports  of `EXPORTS`, what else is to be written
    Ours is what bears our mark: masks that were mended by hand in other software are the user's.
    """
    refuse_theirs(list(_in_the_way(out, names, record, exports)))
    for name in ("", *WRITTEN):
        if name not in EXPORTS or name in exports:
            writable(out / name, folder=True)
    for name in (record, *chain(*(EXPORTS[kind] for kind in exports))):
        writable(out / name, folder=False)


def refuse_theirs(own: Sequence[Path]) -> None:
    """Raises CosegError that names the first of the user's own files, if there are any."""
    if own:
        more = f" (and {len(own) - 1} more)" if len(own) > 1 else ""
        raise CosegError(f"{own[0]}: is there already, and not from here{more}; give another folder, or move it away")


def result_files(name: str) -> tuple[str, str]:
    """Where the mask and the overlay of this name are, in the folder of results."""
    return f"{WRITTEN[0]}/{name}.png", f"{WRITTEN[1]}/{name}.jpg"


def cutout_file(mask: str) -> str:
    """Where the cutout is whose mask is there: "dogs/masks/1.png" -> "dogs/cutouts/1.png"."""
    return str(PurePosixPath(mask).parents[1] / WRITTEN[2] / PurePosixPath(mask).name)


def class_cutout_file(mask: str, label: int) -> str:
    """Where the cutout of one class is: "dogs/masks/1.png" -> "dogs/cutouts/2/1.png" of label 2."""
    whole = PurePosixPath(cutout_file(mask))
    return str(whole.parent / str(label) / whole.name)


def stamp_of(photo: Path) -> tuple[str, int, int]:
    """Where it is, its size in bytes and its date: what tells whether it is the one of an earlier run."""
    try:
        stat = photo.stat()
    except OSError:
        return os.path.abspath(photo), -1, -1
    return os.path.abspath(photo), stat.st_size, stat.st_mtime_ns


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
