"""What is wrong with a folder of one's own, all of it, before anything runs: `coseg doctor DIR`."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from coseglib.core.errors import CosegError, one_line
from coseglib.core.paths import DEFAULT_CHECKPOINT
from coseglib.core.progress import Progress
from coseglib.data.folders import IMAGES, RECORDS, TRUTH, folders_in, is_hidden, is_output
from coseglib.data.images import colours_of_mask, image_size, photo_of, read_grey, read_image
from coseglib.data.sets.binary import homes_of
from coseglib.segmenting.finding import find_photos
from coseglib.segmenting.groups import Found, find_groups

SMALL = 32  # pixels: a side that shows little
NOISE = 0.05  # of what counts as object may be nearly black; more is what a JPEG puts around a mask
GREYS = 16  # up to so many are classes, or a soft edge


class Remark(NamedTuple):
    """One thing about one file or folder; grave: something would be left out, refused or scored wrongly."""

    path: Path
    text: str
    grave: bool = True

    def __str__(self) -> str:
        told = one_line(f"{self.path}: {self.text.removeprefix(f'{self.path}: ')}", 1000)
        return f"{'FAIL' if self.grave else '--':4} {told}"


class Checked(NamedTuple):
    remarks: list[Remark]
    advice: list[str]  # what the folder holds, and what can be done with it, a line each

    @property
    def good(self) -> bool:
        return not any(remark.grave for remark in self.remarks)


def check_folder(folder: Path, quiet: bool = False) -> Checked:
    """Read every photograph and mask of a folder (layouts: data/README.md). Raises CosegError where it is none."""
    if not folder.is_dir():
        raise CosegError(f"{folder}: no such folder; check the name")
    (home, masks), remarks = homes_of(folder), []
    files, left, ignored = find_photos([home])
    remarks += [Remark(Path(path), why) for path, why in left]
    if home == folder and (folder / TRUTH).is_dir():
        remarks.append(Remark(folder / TRUTH, "masks, and no folder images beside it; move the photographs there"))
    outputs = {p for name in RECORDS for record in home.rglob(name) if is_output(p := record.parent)}
    remarks += [  # those of groups are told by the folder above them
        Remark(p, "holds results of an earlier run, which are passed by", False)
        for p in outputs
        if p.parent not in outputs
    ]
    found = find_groups([folder])
    remarks += [Remark(p, "no photographs of its own, so no group", False) for p in found.empty]
    remarks += [
        Remark(group.folder, f"lies beside {home.name}: a group for `segment`, and passed by in `evaluate`", False)
        for group in found.groups
        if not group.photos[0].is_relative_to(home)
    ]
    if ignored:
        remarks.append(Remark(home, f"files that are no photographs, passed by: {ignored}", False))
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        groups[file.parent].append(file)
    scored, expected, unread = {home, *folders_in(home)}, set(), set()
    with Progress("read", len(files), quiet=quiet) as progress:
        for place, photos in groups.items():
            truth = masks / place.relative_to(home) if masks and place in scored else None
            if truth and not truth.is_dir():
                remarks.append(
                    Remark(truth, f"no such folder, so that what is in {place} ({len(photos)}) has no masks")
                )
                truth = None
            remarks += _of_group(place, photos, truth, deep=place not in scored)
            for photo in photos:
                faults = list(_of_photo(photo))
                unread |= {fault.path for fault in faults if fault.grave}
                remarks += faults
                if truth:
                    expected.add(truth / f"{photo.stem}.png")
                    remarks += _of_mask(truth / f"{photo.stem}.png", photo)
                progress.add(1)
    if masks:
        spare = [p for p in masks.rglob("*") if p not in expected and not p.is_dir() and not is_hidden(p.name)]
        remarks += [Remark(p, "no photograph in images has this name; passed by", False) for p in sorted(spare)]
    remarks = sorted(dict.fromkeys(remarks), key=lambda remark: (not remark.grave, str(remark.path)))
    masks_there = sum(mask.is_file() for mask in expected)
    return Checked(remarks, list(_advice(folder, groups, unread, masks_there, remarks, found)))


def _of_group(place: Path, photos: Sequence[Path], truth: Path | None, deep: bool) -> Iterator[Remark]:
    if deep:
        yield Remark(place, "lies below a group: `segment` looks into it, `evaluate` does not", False)
    if len(photos) == 1:
        yield Remark(place, "one photograph only: nothing to have something in common with", False)
    if place.name == "all":
        yield Remark(place, "its row in a table is called as the last one, all; name it otherwise", False)
    stems = Counter(photo.stem.casefold() for photo in photos)
    for name in (photo for photo in photos if stems[photo.stem.casefold()] > 1):
        what = f"share the mask {truth / name.stem}.png" if truth else "their masks keep the photographs' suffixes"
        yield Remark(name, f"another photograph here has this name too: {what}", bool(truth))


def _of_photo(photo: Path) -> Iterator[Remark]:
    try:
        read_image(photo, at_most=SMALL)
        if min(size := image_size(photo)) < SMALL:
            yield Remark(photo, f"{size[0]} × {size[1]} pixels, too few to show much", False)
    except CosegError as fault:
        yield Remark(photo, str(fault))


def _of_mask(mask: Path, photo: Path) -> Iterator[Remark]:
    if not mask.is_file():
        like = [p.name for p in mask.parent.glob("*") if p.stem.casefold().startswith(photo.stem.casefold())]
        this = f"; is it {like[0]}? Save that as PNG by this name, in black and white" if like else ""
        yield Remark(photo, f"has no mask {mask}{this}")
        return
    try:
        share = float(photo_of("folder", photo.name, ("object",), photo, mask).labels().float().mean())
        if share in (0, 1):
            yield Remark(mask, f"{'all' if share else 'nothing'} of it is object", False)
        elif (colours := colours_of_mask(mask)) > 1:
            if colours > GREYS and (dark := _nearly_black(mask)) > NOISE:
                why = "the noise of a JPEG? Save it in black and white, cut at mid-grey"
                yield Remark(mask, f"{dark:.0%} of what counts as object is nearly black ({colours} greys): {why}")
            else:
                yield Remark(mask, f"{colours} colours besides black: all of them are taken as one object", False)
    except CosegError as fault:
        if not str(fault).startswith(f"{photo}: "):  # told already
            yield Remark(mask, str(fault))


def _nearly_black(mask: Path) -> float:
    """The share of the pixels above black that are all but black, in a mask that is white elsewhere; else 0."""
    grey = read_grey(mask)
    return float((grey[grey > 0] < 64).float().mean()) if grey.max() > 200 else 0.0


def _advice(
    folder: Path, groups: dict[Path, list[Path]], unread: set[Path], masks: int, remarks: list[Remark], found: Found
) -> Iterator[str]:
    photos, grave = sum(map(len, groups.values())), sum(remark.grave for remark in remarks)
    named = ", ".join(f"{place.name} {len(some)}" for place, some in list(groups.items())[:8])
    of = f" ({named}{', …' if len(groups) > 8 else ''})" if len(groups) > 1 else ""
    yield f"{folder}: photographs {photos}{of}, masks {masks}, faults {grave}, remarks {len(remarks) - grave}"
    able = {place: len(set(some) - unread) for place, some in groups.items()}
    if not any(able.values()):
        yield "segment, evaluate, train: not before there are photographs that can be read"
        return
    largest = shlex.quote(str(max(able, key=able.__getitem__)))
    yield f"segment   coseg segment {shlex.quote(str(folder))} -o out" + (f"  # {found.note}" if found.note else "")
    if not masks:
        yield f"evaluate  not without masks: {IMAGES}/<group>/* with {TRUTH}/<group>/<stem>.png"
    elif grave:
        yield "evaluate  not before what is marked FAIL is mended"
    else:
        yield f"evaluate  coseg evaluate --dataset {shlex.quote(str(folder))} -o table.csv"
        yield f"train     coseg train --data-folder {shlex.quote(str(folder))} --start {DEFAULT_CHECKPOINT} -o run"
    yield f"train     coseg train --method multiclass --photos {largest} --classes K -o run  # one group, no masks"
