"""Masks as COCO's instance JSON, twice: coco.json with polygons, coco_rle.json with the very masks.

Both open in pycocotools, with the same images, annotations and numbers, all from 1. Labelling tools want polygons:
Label Studio takes nothing else, CVAT and FiftyOne read either and make masks of RLE. Training, scoring, and whoever
needs every pixel take the RLE (J of the polygons is .99 or more, `coseglib.segmenting.polygons`; a hole is cut in from
the outer ring, since COCO's polygons have no inner rings and tools fill each by itself).

file_name is the path below the photographs' common folder, which info.photographs names. A mask is one annotation,
whatever the number of its parts, with area (pixels), bbox [x, y, width, height] and score; an empty one none.
Categories: "object", or the group's name where there are groups. A label map is an annotation for each class that it
shows. Their categories are the classes, in the order of the labels: the names that somebody gave them, all groups'
classes or a group's own; else "class 1" …, after the group's name where there are groups, since each may have been
learned by itself.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from coseglib.data.folders import MARK
from coseglib.segmenting.polygons import polygons_of

LICENSES = [{"id": 0, "name": "", "url": ""}]  # CVAT refuses a file without this section


def box_of(mask: np.ndarray) -> list[int] | None:
    """[x, y, width, height] of what is not 0, in pixels; None for an empty mask. mask (H, W)"""
    rows, columns = (np.flatnonzero((mask != 0).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return [int(n) for n in (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])]


def home_of(files: Iterable[str]) -> Path:
    """The folder that all of these photographs lie in or below."""
    folders = {os.path.dirname(os.path.abspath(file)) for file in files}
    return Path(os.path.commonpath(folders)) if folders else Path()


def coco_datasets(
    found: Iterable[tuple[dict, np.ndarray]],
    files: Iterable[str],
    classes: int,
    names: Sequence[str] | None = None,
    names_of: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, dict]:
    """{"coco.json": …, "coco_rle.json": …}, as the head of this file says.

    found    entries of result.json, each with its labels uint8 (H, W), read one after the other
    files    all photographs
    classes  of a label map; 0: masks of one thing     names, names_of  that somebody gave them, and each group's own
    """
    from pycocotools import mask as rle

    home = home_of(files)
    categories: dict[str, int] = {}
    images, polygons, runs = [], [], []

    def category(group: str | None, label: int) -> int:
        own = (names_of or {}).get(group) or names
        parts = [own[label - 1]] if own else [group or ""] + [f"class {label}"] * bool(classes)
        return categories.setdefault(" ".join(filter(None, parts)) or "object", len(categories) + 1)

    for number, (entry, labels) in enumerate(found, start=1):
        name = Path(os.path.relpath(os.path.abspath(entry["file"]), home)).as_posix()
        images.append({"id": number, "file_name": name, "width": labels.shape[1], "height": labels.shape[0]})
        for label in range(1, max(classes, 1) + 1):
            kind, mask = category(entry.get("group"), label), labels == label
            if not mask.any():
                continue
            about = {"id": len(runs) + 1, "image_id": number, "category_id": kind}
            more = {"area": int(mask.sum()), "bbox": box_of(mask), "iscrowd": 0}
            score = (entry.get("class_scores") or [None] * classes)[label - 1] if classes else entry.get("score")
            more |= {} if score is None else {"score": score}
            encoded = rle.encode(np.asfortranarray(mask, np.uint8))  # columns first
            encoded["counts"] = encoded["counts"].decode()
            polygons.append(about | {"segmentation": polygons_of(mask)} | more)
            runs.append(about | {"segmentation": encoded} | more)
    head = {"info": {"description": MARK, "photographs": str(home)}, "licenses": LICENSES}
    kinds = [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()]
    return {
        name: head | {"images": images, "annotations": annotations, "categories": kinds}
        for name, annotations in (("coco.json", polygons), ("coco_rle.json", runs))
    }
