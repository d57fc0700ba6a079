"""A folder whose folders hold photographs is so many groups: which they are, and the job over all of them.

How photographs are read, by `find_groups`:
  * One folder is named: each folder directly in it is a group, with all that lies below it at whatever depth. Loose
    photographs beside such folders are one more group, the last, by the named folder's own name.
  * What is in `images` counts as if it lay beside it: DIR/images/cats is the group cats, of a set of one's own.
  * Several files or folders are named: they are one group. So is everything where `together` is asked for.
A group by itself, such as a folder with one folder in it, is written as `segment_photos` writes it.

`segment_groups` writes each group into a folder of its own below the results, out/<name>, as `segment_photos` does, and
out/result.json over all of them: a group's, with `groups`: {name: {folder, photos, done, skipped, score, note, …}},
score the mean of its photographs'. Each entry of `photos` has its `group` besides; its mask and overlay are relative to
out. What is not the same in all groups stands in `groups`, and on top null (what a multi-class model learned) or joined
(lists of photographs).
"""

import json
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coseglib.core.devices import sharing
from coseglib.core.errors import CosegError
from coseglib.core.files import read_json, write_text
from coseglib.data.folders import EXPORTS, IMAGES, RECORDS, WRITTEN, folders_in, is_output
from coseglib.models.contract import Model
from coseglib.segmenting.exports import export, made_before
from coseglib.segmenting.finding import check_output, find_photos, output_names
from coseglib.segmenting.job import Summary, segment_photos
from coseglib.segmenting.look_first import look_first

RESERVED = {*WRITTEN, *RECORDS, *chain(*EXPORTS.values())}  # what else lies in a folder of results
UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')  # for one file system or another, or for UTF-8
SHOWN = 8  # groups, or folders, that a line names


class FoundGroup(NamedTuple):
    """A group's name, which is its folder's below the results; where it lies; its photographs, as found."""

    name: str
    folder: Path
    photos: list[Path]


class Found(NamedTuple):
    groups: list[FoundGroup]
    left: list[tuple[str, str]]  # (path, why) of what was left out, see `find_photos`
    empty: list[Path]  # folders that would be groups, and hold no photographs
    ignored: int
    note: str  # how the photographs were read, where they lie in several folders, else ""


# Which groups ---------------------------------------------------------------------------------------------------------


def find_groups(named: Sequence[str | Path], out: Path | None = None, together: bool = False) -> Found:
    """The groups of what was named, files and folders, as the head of this file says; by name, loose ones last.

    out  the folder of results, which is no group wherever it lies     together  everything is one group
    """
    (photos, left, ignored), top = find_photos(named, leave_out=out), Path(named[0])
    split = len(named) == 1 and top.is_dir() and not together
    places: dict[Path, list[Path]] = {}
    for photo in photos:
        places.setdefault(_place(photo, top) if split else top, []).append(photo)
    folders = sorted(places, key=lambda folder: (folder == top, folder.name))
    names = _folder_names([folder.name if folder != top else top.resolve().name for folder in folders])
    groups = [FoundGroup(name, folder, places[folder]) for name, folder in zip(names, folders, strict=True)]
    if len(groups) < 2:
        return Found(groups, left, [], ignored, _as_one(named, photos, together))
    of_each = [f"{group.name} {len(group.photos)}" for group in groups]
    note = f"{len(groups)} groups, a folder each ({_some(of_each)}); --together makes one of them"
    told = {place for path, _ in left for place in (Path(path), _place(Path(path), top))}
    return Found(groups, left, _empty(top, out, {*places, *told}), ignored, note)


def _place(path: Path, top: Path) -> Path:
    """The folder directly in `top`, or in its `images`, that a path below `top` lies in; else `top`."""
    parts = path.relative_to(top).parts
    depth = 2 if parts[:1] == (IMAGES,) else 1
    return top.joinpath(*parts[:depth]) if len(parts) > depth else top


def _empty(top: Path, out: Path | None, others: set[Path]) -> list[Path]:
    """The folders that would be groups, and are neither among the others nor results of ours."""
    homes = [home for home in (top, top / IMAGES) if home.is_dir() and home not in others - {top}]
    folders = (folder for home in homes for folder in folders_in(home) if folder not in others | {top / IMAGES})
    here = out and out.resolve()
    return [f for f in folders if f.resolve() != here and not is_output(f) and not any(map(is_output, folders_in(f)))]


def _as_one(named: Sequence[str | Path], photos: Sequence[Path], together: bool) -> str:
    """What is worth saying of one group whose photographs lie in several folders."""
    folders = [str(folder) for folder in dict.fromkeys(photo.parent for photo in photos)]
    if len(folders) < 2:
        return ""
    below = f"all below {_place(photos[0], Path(named[0]))}"
    why = "--together" if together else "named one by one" if len(named) > 1 else below
    return f"one group, {why}: {len(photos)} photographs in {len(folders)} folders ({_some(folders)})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _folder_names(wanted: Sequence[str]) -> list[str]:
    """A name for each that any file system takes, none twice (upper and lower case are equal), none of `RESERVED`."""
    taken, names = set(RESERVED), []
    for text in wanted:
        safe = os.fsencode(UNSAFE.sub("_", text).strip(" ."))[:180].decode(errors="ignore") or "photographs"
        options = chain([safe], (f"{safe}-{k}" for k in count(2)))
        name, key = next((n, k) for n in options if (k := unicodedata.normalize("NFC", n).casefold()) not in taken)
        taken.add(key)
        names.append(name)
    return names


# The job --------------------------------------------------------------------------------------------------------------


def segment_groups(
    found: Found,
    out: str | Path,
    model_of: Callable[[Sequence[Path], Path], Model],
    how: str = "mean",
    where: Mapping[str, int | str] | None = None,
    say: Callable[[Summary, str], None] | None = None,
    exports: Sequence[str] = (),
    **options,
) -> Summary:
    """Segment each group by itself, as `segment_photos` would: the job behind `coseg segment` of a folder of groups.

    model_of  (a group's photographs, the folder of its results) -> its model: the same for all, or learned on the group
    where     devices, num_nodes, accelerator of `sharing`
    say       called with each group's summary and name when it is done, by the first process alone
    exports   of all groups in one, see `coseglib.segmenting.exports`
    options   batch, post, references, quiet of `segment_photos`; references are every group's

    The summary is of all groups. A run that was killed and is started again goes on with the groups and photographs
    that are not yet done. Raises CosegError as `segment_photos` does, and before any work where something of the user's
    is in the way of any group.
    """
    started, out = time.perf_counter(), Path(out)
    check_output(out, [], exports=exports)
    for group in found.groups:
        check_output(out / group.name, output_names(group.photos), exports=[k for k in exports if k == "cutouts"])
    fabric = sharing(**where or {})
    found = fabric.broadcast(found)
    summaries = {}
    for group in found.groups:
        home = out / group.name
        model = model_of(group.photos, home)
        if model.prior and not summaries:  # all maps are looked for now, not in the last group after hours
            model.prior.check([photo for each in found.groups for photo in each.photos])
        summaries[group.name] = segment_photos(group.photos, home, model, how, fabric=fabric, goes_on=True, **options)
        if say and fabric.global_rank == 0:
            say(summaries[group.name], group.name)
    if fabric.global_rank == 0:
        record = _record(found, out, summaries)
        try:
            write_text(out / RECORDS[0], json.dumps(record, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise CosegError(f"{out / RECORDS[0]}: {error.strerror or error}; mend it and start it again") from error
        export(out, [*exports, *made_before(out, record["photos"])], bool(options.get("quiet")))
    fabric.barrier()
    if fabric.local_rank == 0:
        for folder in (out, *(out / name for name in summaries)):
            shutil.rmtree(folder / ".coseg", ignore_errors=True)
    each = summaries.values()
    skipped = (*(fault for summary in each for fault in summary.skipped), *found.left)
    counts = (sum(getattr(summary, field) for summary in each) for field in ("photos", "done", "earlier"))
    return Summary(out, *counts, skipped, found.ignored, "", (), time.perf_counter() - started, fabric.global_rank)


def earlier_results(out: Path) -> set[str]:
    """The folders of masks below `out` that its record, of an earlier run, is of: of groups, or `masks` itself."""
    if not is_output(out) or not (out / RECORDS[0]).is_file():
        return set()
    record = read_json(out / RECORDS[0], "give another folder, or take it away")
    return {name for name in record.get("groups", WRITTEN[:1]) if (out / name).is_dir()}


def _record(found: Found, out: Path, summaries: Mapping[str, Summary]) -> dict:
    """out/result.json, from those of the groups."""
    records = {name: read_json(out / name / RECORDS[0], "start it again") for name in summaries}
    first, *others = records.values()
    own = ("ignored", "note", "look_first", "photos")
    about = {key: value for key, value in first.items() if key not in own}
    differ = {key for key, value in about.items() if any(other.get(key) != value for other in others)}
    groups, photos = {}, []
    for group in found.groups:
        record, summary = records[group.name], summaries[group.name]
        scores = [entry["score"] for entry in record["photos"] if "score" in entry]
        counts = {"photos": summary.photos, "done": summary.done, "skipped": len(summary.skipped)}
        score = round(float(np.mean(scores)), 4) if scores else None
        more = {key: record.get(key) for key in about if key in differ}
        groups[group.name] = {"folder": str(group.folder), **counts, "score": score, "note": record["note"], **more}
        for entry in record["photos"]:
            files = {key: f"{group.name}/{entry[key]}" for key in ("mask", "overlay") if key in entry}
            photos.append({"file": entry["file"], "group": group.name, **entry, **files})
    of_folder = {group.folder: group.name for group in found.groups}
    for path, why in found.left:
        names = [of_folder[folder] for folder in Path(path).parents if folder in of_folder]
        photos.append({"file": path, **({"group": names[0]} if names else {}), "skipped": why})
    notes = [f"{name}: {summary.note}" for name, summary in summaries.items() if summary.note]
    for key in differ:
        values = [record.get(key) for record in records.values()]
        about[key] = list(chain(*values)) if all(isinstance(value, list) for value in values) else None
    about |= {"ignored": found.ignored, "note": "; ".join(notes), "groups": groups}
    return about | {"look_first": look_first(photos), "photos": photos}
