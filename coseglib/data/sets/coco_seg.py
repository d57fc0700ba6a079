"""COCO-SEG (Wang et al., AAAI 2019): groups of photographs by class, made from COCO 2017's instances.

Layout  coco/{train2017,val2017}/<number>.jpg   coco/annotations/instances_{train2017,val2017}.json

Zhang et al. 2020 train on it: 200,000 images in 78 groups. By which rule 78 of COCO's 80 classes were taken, and which
images, we could not find in any public source. Ours, until somebody knows better: the two classes with the fewest
instances (hair drier, toaster) are left out, and an image stands in the group of every class whose instances cover at
least 1 % of it; a class's mask is the union of its instances, its crowd regions are void. An image may stand in several
groups, with another mask in each.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from coseglib.core.errors import CosegError
from coseglib.data.by_class import PRESENT
from coseglib.data.images import checked_size, dataset_folder, read_image
from coseglib.data.record import VOID, Group, Photo

LEFT_OUT = frozenset({"hair drier", "toaster"})


def counts_from_string(text: str) -> list[int]:
    """COCO's compressed run lengths: 5 bits a character from "0" on, the sixth says "more follows".

    From the fourth on, a run is written as its difference to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:  # negative: fill up with ones
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def decode_runs(counts: Sequence[int] | str, height: int, width: int) -> np.ndarray:
    """Run lengths of 0, 1, 0, … down the columns -> bool (height, width). Raises ValueError where they do not fit."""
    runs = counts_from_string(counts) if isinstance(counts, str) else counts
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise ValueError(f"runs of {sum(runs)} pixels for a mask of {width} × {height}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def draw_polygons(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Polygons (n, 2) of x, y, where pixel (0, 0) is the square from 0 to 1 -> their union, bool (height, width).

    A pixel is in a polygon when a ray from its centre to the right crosses an odd number of edges.
    """
    mask = np.zeros((height, width), bool)
    centre = np.arange(height)[:, None] + 0.5
    for start in polygons:
        end = np.roll(start, -1, axis=0)
        row, edge = np.nonzero((start[:, 1] <= centre) != (end[:, 1] <= centre))  # which edges meet which rows
        (ax, ay), (bx, by) = start[edge].T, end[edge].T
        x = ax + (centre[row, 0] - ay) * (bx - ax) / (by - ay)
        left = np.clip(np.ceil(x - 0.5), 0, width).astype(int)  # how many centres lie to the left of the crossing
        crossings = np.zeros((height, width + 1), int)
        np.add.at(crossings, (row, left), 1)
        mask |= crossings[:, :0:-1].cumsum(axis=1)[:, ::-1] % 2 == 1
    return mask


@dataclass(frozen=True)
class _Region:
    """One instance: polygons or run lengths."""

    shape: list[np.ndarray] | list[int] | str
    crowd: bool

    def mask(self, height: int, width: int) -> np.ndarray:
        if isinstance(self.shape, list) and self.shape and isinstance(self.shape[0], np.ndarray):
            return draw_polygons(self.shape, height, width)
        return decode_runs(self.shape, height, width)


def _read_labels(regions: Sequence[_Region], size: tuple[int, int], listed: Path, image: Path) -> torch.Tensor:
    labels = np.zeros(size, np.uint8)
    for region in sorted(regions, key=lambda r: not r.crowd):  # what is outlined counts, even in a crowd
        try:
            labels[region.mask(*size)] = VOID if region.crowd else 1
        except (ValueError, TypeError, IndexError) as fault:
            raise CosegError(f"{listed}: {image.name}: damaged instance ({fault}); get the annotations anew") from fault
    return checked_size(torch.from_numpy(labels), listed, image)


def _regions(annotation: dict) -> _Region:
    shape = annotation["segmentation"]
    if isinstance(shape, dict):
        return _Region(shape["counts"], bool(annotation["iscrowd"]))
    return _Region([np.asarray(p, np.float32).reshape(-1, 2) for p in shape], bool(annotation["iscrowd"]))


def _annotations(root: Path, split: str) -> tuple[Path, Path]:
    home = dataset_folder(root, "coco", get="get COCO 2017")
    return home, home / "annotations" / f"instances_{split}.json"


def count(root: Path, split: str = "train2017") -> int:
    """How many photographs there are, without reading the annotations. Raises CosegError where the set is missing."""
    home, listed = _annotations(root, split)
    photos = dataset_folder(home, split, get="get COCO 2017")
    if not listed.is_file():
        raise CosegError(f"{listed}: no such file; get COCO 2017's instance annotations, see data/README.md")
    return sum(1 for p in photos.iterdir() if p.suffix == ".jpg")


def load(root: Path, split: str = "train2017", min_area: float = PRESENT) -> list[Group]:
    """A group for every class, images by number. min_area: share of the image that the class's instances cover.

    The area is the sum of the annotated instances' (overlaps count twice), crowds left out; no picture is read.
    Raises CosegError where the set is missing or the annotations cannot be read.
    """
    home, listed = _annotations(root, split)
    try:
        content = json.loads(listed.read_bytes())
        names = {c["id"]: c["name"] for c in content["categories"] if c["name"] not in LEFT_OUT}
        images = {i["id"]: (i["file_name"], i["height"], i["width"]) for i in content["images"]}
        held: dict[int, dict[int, list[dict]]] = {category: defaultdict(list) for category in names}
        for annotation in content["annotations"]:
            if annotation["category_id"] in names:
                held[annotation["category_id"]][annotation["image_id"]].append(annotation)
        groups = []
        for category, name in names.items():
            photos = []
            for image, own in sorted(held[category].items()):
                file, height, width = images[image]
                if sum(a["area"] for a in own if not a["iscrowd"]) < min_area * height * width:
                    continue
                path, regions = home / split / file, [_regions(a) for a in own]
                read = partial(read_image, path), partial(_read_labels, regions, (height, width), listed, path)
                photos.append(Photo("coco-seg", path.stem, (name,), *read, path))
            if photos:
                groups.append(Group("coco-seg", name, tuple(photos), (name,)))
    except FileNotFoundError as fault:
        raise CosegError(f"{listed}: no such file; get COCO 2017's instance annotations, see data/README.md") from fault
    except (ValueError, KeyError, TypeError) as fault:
        what = f"{type(fault).__name__}: {fault}"
        raise CosegError(f"{listed}: not COCO's instance annotations ({what}); get them anew") from fault
    if not groups:
        raise CosegError(f"{listed}: no class covers {min_area:.0%} of any image; get the annotations anew")
    return groups
