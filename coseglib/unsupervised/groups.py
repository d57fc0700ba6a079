"""Groups to learn on: a user's files and folders, or by name."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from coseglib.answering.reading import picture_of
from coseglib.core.errors import CosegError
from coseglib.data import load
from coseglib.data.images import read_image
from coseglib.data.record import Group, Photo
from coseglib.segmenting.finding import find_photos


def group_of_files(
    named: Sequence[str | Path], leave_out: Path | None = None, say: Callable[[str], None] | None = None
) -> Group:
    """The photographs of files and folders as a group without masks.

    named, leave_out  as for `segmenting.finding.find_photos`     say  called with a line for each that cannot be read
    Raises CosegError where none is left.
    """
    files, empty, _ = find_photos(named, leave_out)
    faults = [f"{folder}: {why}" for folder, why in empty]
    photos = []
    for file in files:
        try:
            picture_of(file)
            photos.append(Photo("files", str(file), (), partial(read_image, file), None, file))
        except CosegError as fault:
            faults.append(str(fault))
    if not photos:
        raise CosegError(f"{faults[0] if faults else 'no photographs were named'}; no photograph is left to learn on")
    for fault in faults if say else ():
        say(f"{fault}; left out")
    return Group("files", photos[0].path.resolve().parent.name, tuple(photos))


def named_group(name: str, data_root: str | Path | None = None) -> Group:
    """A group of two or three classes by its name: procedural ("star+ring"), else of VOC 2012 ("dog+person").

    Raises CosegError where there is none of that name, or no VOC 2012.
    """
    scenes = {group.name: group for group in load("synthetic-multiclass")}
    return scenes.get(name) or named_groups(load("voc-multiclass", data_root), [name])[0]


def named_groups(groups: Sequence[Group], names: Sequence[str] | None) -> list[Group]:
    """The groups of these names; without names all. Raises CosegError for one that is not there."""
    if not names:
        return list(groups)
    known = {group.name: group for group in groups}
    for name in names:
        if name not in known:
            raise CosegError(f"{name}: no such group; one of {', '.join(known) or 'none: this data set has no groups'}")
    return [known[name] for name in names]
