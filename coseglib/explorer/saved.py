"""A session on disk: masks, overlays, and session.json, which says what made them and all that a user said.

    OUT/masks/<name>.png, OUT/overlays/<name>.jpg  as of `coseg segment`, marked as ours
    OUT/session.json  {checkpoint, sha256, group, looks, post, threshold, references, partners, said, photos}

photos is as in `coseg segment`'s result.json, an entry a photograph: {file, mask, overlay, width, height,
foreground_share, score} with the last two files relative to OUT, so what reads the one reads the other; of a
multi-class model with class_shares and class_scores for score, and on top with classes and names, null. corrected: true
where the mask was mended by hand. said: {photo, kind, at}
each, photo the place of an entry. Of references a corrected mask is named by its file alone.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coseglib.answering.masks import foreground_score
from coseglib.core.errors import CosegError
from coseglib.core.files import read_json, write_text
from coseglib.data import NAMES, load
from coseglib.data.folders import AS_OURS, RECORDS
from coseglib.data.images import photo_of, read_mask, write_jpg, write_png
from coseglib.data.record import Photo, resize_labels
from coseglib.explorer.said import BOX, MASK, NOT_POINT, POINT, Corrected, references_of
from coseglib.segmenting.finding import check_output, result_files
from coseglib.segmenting.labels import class_colours, label_palette, legend_of, scores_of, shares_of
from coseglib.segmenting.overlays import overlay, with_legend

SETTINGS = RECORDS[1]
NUMBERS = {POINT: 2, NOT_POINT: 2, BOX: 4, MASK: 0}


class _Entry(BaseModel):
    file: str
    mask: str
    corrected: bool = False


class _Saying(BaseModel):
    photo: int = Field(ge=0)
    kind: Literal[POINT, NOT_POINT, BOX, MASK]
    at: tuple[int, ...]


class Settings(BaseModel):
    """What of session.json a session is opened from. folder: where it lies."""

    model_config = ConfigDict(extra="ignore")
    folder: Path
    checkpoint: str | None
    sha256: str | None
    group: str
    post: str
    threshold: float | None = Field(gt=0, lt=1)
    partners: tuple[int, ...]
    said: tuple[_Saying, ...]
    photos: tuple[_Entry, ...] = Field(min_length=1)


def lasting_name(photo: Photo) -> str:
    """What session.json calls a photograph: its file, or its key where it has none."""
    return os.path.abspath(photo.path) if photo.path else photo.key


def write(session, folder: str | Path, threshold: float = 0.5, post: str = "argmax") -> list[Path]:
    """Write a session's masks at the photographs' own sizes, their overlays, and what made them. Returns the masks.

    Masks are 0 and 255, or the labels 0 … K of several classes. Each file is there whole or not at all.
    Raises CosegError where the folder cannot be written, or holds what no session has saved: it may be yours.
    """
    folder = Path(folder).expanduser()
    settings, names, model = folder / SETTINGS, session.names, session.model
    if (own := folder / "masks").exists() and not settings.exists():
        raise CosegError(f"{own}: is there already, and not from here; name another folder")
    check_output(folder, names, SETTINGS)
    masks, logits = session.masks(threshold, post, own=True), session.logits(post)
    files = [lasting_name(o.photo) for o in session.photos]
    made = {"checkpoint": model.card.get("name"), "sha256": model.card.get("sha256"), "group": session.how}
    made |= {"looks": model.looks, "post": post, "threshold": None if model.online else threshold}
    made["references"] = [reference.about() for reference in references_of(session.marks, [Path(f) for f in files])]
    made |= {"partners": session.partners, "said": [said._asdict() for said in session.said]}
    made |= {"classes": model.classes, "names": None, "photos": []} if model.online else {"photos": []}
    for i, (file, name, mask) in enumerate(zip(files, names, masks, strict=True)):
        entry = {"file": file, **dict(zip(("mask", "overlay"), result_files(name), strict=True))}
        entry |= {"width": mask.shape[1], "height": mask.shape[0]}
        entry["foreground_share"] = round(int(mask.count_nonzero()) / mask.numel(), 6)
        if model.online:
            entry |= {"class_shares": shares_of(mask, model.classes), "class_scores": scores_of(logits[i], mask)}
        else:
            entry["score"] = round(foreground_score(logits[i]), 4)
        made["photos"].append(entry | ({"corrected": True} if i in session.marks.corrected else {}))
    try:
        for entry in made["photos"]:
            for kind in ("mask", "overlay"):
                (folder / entry[kind]).parent.mkdir(parents=True, exist_ok=True)
        write_text(settings, json.dumps(made, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise CosegError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error
    classes, palette = (model.classes, label_palette()) if model.online else (0, None)
    for entry, mask, opened in zip(made["photos"], masks, session.photos, strict=True):
        write_png(folder / entry["mask"], mask if model.online else 255 * mask, palette=palette, **AS_OURS["PNG"])
        pixels = opened.picture.pixels
        drawn = overlay(pixels, resize_labels(mask, tuple(pixels.shape[-2:])), class_colours(classes) or None)
        write_jpg(folder / entry["overlay"], with_legend(drawn, legend_of(mask, classes)), **AS_OURS["JPEG"])
    return [folder / entry["mask"] for entry in made["photos"]]


def read(folder: str | Path) -> Settings:
    """What is in a folder's session.json. Raises CosegError where there is none, or it is not one of ours."""
    folder = Path(folder).expanduser()
    file, mend = folder / SETTINGS, "name a folder that the explorer saved into"
    try:
        found = Settings(**{**read_json(file, mend), "folder": folder})
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise CosegError(f"{file}: {where}: {fault['msg']}; {mend}") from error
    places = [*found.partners, *(said.photo for said in found.said)]
    if any(not 0 <= place < len(found.photos) for place in places):
        raise CosegError(f"{file}: names a photograph that it does not list; {mend}")
    if any(len(said.at) != NUMBERS[said.kind] for said in found.said):
        raise CosegError(f"{file}: a point has 2 numbers, a box 4, a mask none; {mend}")
    return found


def saved_photos(found: Settings, present: Sequence[Photo]) -> list[Photo]:
    """A saved session's photographs: of those at hand, else by their files, else of the data set that is drawn.

    Of a file that is gone, one at hand of the same name is taken: uploads lie elsewhere every time.
    Raises CosegError for a photograph that is nowhere.
    """
    by_name = {lasting_name(photo): photo for photo in present}
    by_file = {photo.path.name: photo for photo in present if photo.path}
    drawn: dict[str, dict[str, Photo]] = {}

    def one(name: str) -> Photo:
        path, source = Path(name), name.partition("/")[0]
        if name in by_name:
            return by_name[name]
        if path.is_file():
            return photo_of("folder", path.name, ("object",), path)
        if path.name in by_file:
            return by_file[path.name]
        if source in NAMES and source not in drawn:
            drawn[source] = {photo.key: photo for group in load(source) for photo in group.photos}
        if name in drawn.get(source, {}):
            return drawn[source][name]
        raise CosegError(f"{name}: no such file; put it back, or upload it again before the session is opened")

    return [one(entry.file) for entry in found.photos]


def corrections(found: Settings, sizes: Sequence[tuple[int, int]]) -> dict[int, Corrected]:
    """The corrected masks, of photographs of these sizes (H, W). Raises CosegError for one of another size."""
    corrected = {}
    for place, (entry, (height, width)) in enumerate(zip(found.photos, sizes, strict=True)):
        if entry.corrected:
            mask = read_mask(file := found.folder / entry.mask)
            if tuple(mask.shape) != (height, width):
                raise CosegError(
                    f"{file}: {mask.shape[1]} × {mask.shape[0]}, its photograph {width} × {height}; mend it"
                )
            corrected[place] = Corrected(mask)
    return corrected
