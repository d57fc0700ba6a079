"""COCO-SEG (Wang et al., AAAI 2019): groups of photographs by class, made from COCO 2017's instances.

Zhang et al. 2020 train on it: 200,000 images in 78 groups. By which rule 78 of COCO's 80 classes were taken, and which
images, we could not find in any public source. Ours, until somebody knows better: the two classes with the fewest
instances (hair drier, toaster) are left out, and an image stands in the group of every class whose instances cover at
least 1 % of it (overlaps count twice, crowds not); a class's mask is the union of its instances, its crowd regions are
void. An image may stand in several groups, with another mask in each. An image with a record that is damaged is left
out, and a line on stderr names it: an object without its outline would be taught as background.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from coseglib.core.errors import CosegError
from coseglib.data.by_class import PRESENT
from coseglib.data.folders import dataset_folder
from coseglib.data.images import photo_of
from coseglib.data.record import NAMED, VOID, Group, Photo

LEFT_OUT = frozenset({"hair drier", "toaster"})


class _Instance(NamedTuple):
    """COCO's annotation: polygons, or run lengths {"counts": …} of plain numbers or packed as a string."""

    name: str
    shape: list | dict
    crowd: bool
    area: float

    def check(self, height: int, width: int) -> None:
        """Raises ValueError and others where it is damaged; only packed runs are decoded."""
        if isinstance(self.shape, dict):
            runs = self.shape["counts"]
            if isinstance(runs, str) or min(runs) < 0 or sum(runs) != height * width:
                self.mask(height, width)
        elif not self.shape or not all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in self.shape):
            raise ValueError("no outline")

    def mask(self, height: int, width: int) -> np.ndarray:
        """bool (height, width), as COCO's own tools draw it. Raises ValueError and others where it is damaged."""
        from pycocotools import mask as coco

        runs = self.shape["counts"] if isinstance(self.shape, dict) else None
        if isinstance(runs, list) and sum(runs) != height * width:
            raise ValueError(f"runs of {sum(runs)} pixels for a mask of {width} × {height}")
        packed = {"size": [height, width], "counts": runs}
        packed = packed if isinstance(runs, str) else coco.frPyObjects(self.shape, height, width)
        mask = coco.decode(packed if runs else coco.merge(packed))
        if mask.max(initial=0) > 1:  # runs that end too early leave memory as it was
            raise ValueError(f"runs of too few pixels for a mask of {width} × {height}")
        return mask.astype(bool)


def _instance(record: dict, names: dict[int, str], size: tuple[int, int]) -> _Instance:
    """Raises ValueError and others for a record that is damaged."""
    shape = record["segmentation"]  # numbers in arrays: the whole of COCO has fifty million
    shape = shape if isinstance(shape, dict) else [np.asarray(polygon, np.float32) for polygon in shape]
    made = _Instance(names[record["category_id"]], shape, bool(record["iscrowd"]), float(record["area"]))
    made.check(*size)
    return made


def _read_labels(instances: Sequence[_Instance], classes, size: tuple[int, int], image: str, listed: Path) -> Tensor:
    """What is outlined counts, even in a crowd; where outlines of two classes overlap, nobody knows: void."""
    labels, outlined = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for instance in sorted(instances, key=lambda i: not i.crowd):
        try:
            mask = instance.mask(*size)
        except Exception as fault:  # pycocotools raises bare exceptions too
            raise CosegError(f"{listed}: {image}: damaged instance ({fault}); get the annotations anew") from fault
        if instance.crowd:
            labels[mask] = VOID
            continue
        label = classes.index(instance.name) + 1
        contested = mask & (outlined > 0) & (outlined != label)
        labels[mask], outlined[mask] = label, label
        labels[contested], outlined[contested] = VOID, VOID
    return torch.from_numpy(labels)


def _annotations(root: Path, split: str) -> tuple[Path, Path]:
    """The folder of the photographs and the file of annotations."""
    home = dataset_folder(root, "coco", get="get COCO 2017")
    listed = home / "annotations" / f"instances_{split}.json"
    if not listed.is_file():
        raise CosegError(f"{listed}: no such file; get COCO 2017's instance annotations, see data/README.md")
    return dataset_folder(home, split, get="get COCO 2017"), listed


def count(root: Path, split: str) -> int:
    """How many photographs there are, without reading the annotations."""
    return sum(1 for p in _annotations(root, split)[0].iterdir() if p.suffix == ".jpg")


class _Image(NamedTuple):
    path: Path
    size: tuple[int, int]  # height, width
    instances: list[_Instance]  # of every class, those that are left out too

    def classes(self, names: Sequence[str], min_area: float) -> tuple[str, ...]:
        """Those of `names` whose annotated areas sum to `min_area` of the image, crowds left out."""
        areas: dict[str, float] = {}
        for instance in self.instances:
            areas[instance.name] = areas.get(instance.name, 0) + (0 if instance.crowd else instance.area)
        least = min_area * self.size[0] * self.size[1]
        return tuple(name for name in names if areas.get(name, -1) >= least)

    def photo(self, classes: tuple[str, ...], listed: Path) -> Photo:
        """With a label map of `classes` alone."""
        own = [i for i in self.instances if i.name in classes]
        read = partial(_read_labels, own, classes, self.size, self.path.name)
        holds = tuple(sorted({i.name for i in self.instances}))
        return photo_of("coco-seg", self.path.stem, classes, self.path, listed, read, holds, lambda _: self.size[::-1])


def _images(root: Path, split: str) -> tuple[list[_Image], tuple[str, ...], Path]:
    """The images by number, the names of the 78 classes, and the file of annotations; no picture is read."""
    home, listed = _annotations(root, split)
    try:
        content = json.loads(listed.read_bytes())
        names = {c["id"]: c["name"] for c in content["categories"]}
        records = [("image", record) for record in content["images"]]
        records += [("annotation", record) for record in content["annotations"]]
    except (ValueError, KeyError, TypeError) as fault:
        what = f"{type(fault).__name__}: {fault}"
        raise CosegError(f"{listed}: not COCO's instance annotations ({what}); get them anew") from fault
    images, spoilt, faults = {}, set(), []
    for kind, record in records:
        try:
            if kind == "image":
                size = int(record["height"]), int(record["width"])
                images[int(record["id"])] = _Image(home / record["file_name"], size, [])
            elif record["image_id"] not in spoilt:
                image = images[record["image_id"]]
                image.instances.append(_instance(record, names, image.size))
        except Exception as fault:  # pycocotools raises bare exceptions too
            known = record if isinstance(record, dict) else {}
            with suppress(TypeError):  # a number that is a list, or the like
                spoilt.add(known.get("image_id"))
            of = f"{kind} {known.get('id')} of {known.get('image_id', 'none')}"
            faults.append(f"{of} ({type(fault).__name__}: {fault})")
    if faults:
        more = f", … ({len(faults) - NAMED} more)" if len(faults) > NAMED else ""
        what = f"{len(faults)} of {len(records)} records are damaged, their photographs left out"
        print(f"coseg: {listed}: {what}: {', '.join(faults[:NAMED])}{more}", file=sys.stderr)
    kept = [image for number, image in sorted(images.items(), key=lambda i: i[0]) if number not in spoilt]
    return kept, tuple(name for name in names.values() if name not in LEFT_OUT), listed


def load(root: Path, split: str = "train2017") -> list[Group]:
    """A group for every class, images by number; no picture is read."""
    images, names, listed = _images(root, split)
    held: dict[str, list[Photo]] = {name: [] for name in names}
    for image in images:
        for name in image.classes(names, PRESENT):
            held[name].append(image.photo((name,), listed))
    groups = [Group("coco-seg", name, tuple(photos), (name,)) for name, photos in held.items() if photos]
    if not groups:
        raise CosegError(f"{listed}: no class covers {PRESENT:.0%} of any image; get the annotations anew")
    return groups


def photos(root: Path, split: str = "train2017") -> list[Photo]:
    """What trains: every image of `load`'s groups once, with a label map of all its classes."""
    images, names, listed = _images(root, split)
    return [image.photo(image.classes(names, 0), listed) for image in images if image.classes(names, PRESENT)]
