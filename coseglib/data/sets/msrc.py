"""MSRC v2 (Shotton et al., ECCV 2006): 591 photographs <prefix>_<number>_s, 23 classes in colours, black is void.

Split, ours  MSRC-7 (test): images 1 to 10 of seven prefixes; the papers' own ten are not published. Of the others about
15 % are set aside to choose models by (their name's SHA-256 decides, whatever else is there), the rest trains.
`1_26_s` does neither: it is the photograph of the test image `9_10_s`.

The field's MSRC-7  Of the ten photographs a class that others score on, fifteen are known, `FIELD`: a project page
shows them. Since they were found they neither train nor choose; `drawn_split` is the split as it was before.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch

from coseglib.core.errors import CosegError
from coseglib.data.by_class import groups_of
from coseglib.data.folders import dataset_folder, pictures_in
from coseglib.data.images import photo_of, read_colours
from coseglib.data.record import VOID, Group, Photo

PALETTE = {
    "building": (128, 0, 0), "grass": (0, 128, 0), "tree": (128, 128, 0), "cow": (0, 0, 128), "horse": (128, 0, 128),
    "sheep": (0, 128, 128), "sky": (128, 128, 128), "mountain": (64, 0, 0), "aeroplane": (192, 0, 0),
    "water": (64, 128, 0), "face": (192, 128, 0), "car": (64, 0, 128), "bicycle": (192, 0, 128),
    "flower": (64, 128, 128), "sign": (192, 128, 128), "bird": (0, 64, 0), "book": (128, 64, 0), "chair": (0, 192, 0),
    "road": (128, 64, 128), "cat": (0, 192, 128), "dog": (128, 192, 128), "body": (64, 64, 0), "boat": (192, 64, 0),
}  # fmt: skip
CLASSES = tuple(PALETTE)
SURROUNDINGS = frozenset({"building", "grass", "tree", "sky", "mountain", "water", "road"})
SCENERY = ("building",)  # of these what a photograph can be of, where it holds no object
SEVEN = {  # group -> prefix, class
    "bird": (12, "bird"), "car": (7, "car"), "cat": (15, "cat"), "cow": (5, "cow"), "dog": (16, "dog"),
    "plane": (4, "aeroplane"), "sheep": (9, "sheep"),
}  # fmt: skip
NEVER = {"1_26_s"}
FIELD = {  # group of SEVEN -> photographs that Amir et al. 2022 show among their results
    "bird": ("12_10_s", "12_11_s"), "car": ("7_10_s", "7_11_s"), "cat": ("15_11_s", "15_13_s"),
    "cow": ("5_11_s", "5_14_s"), "dog": ("16_13_s", "16_14_s"), "plane": ("4_2_s", "4_11_s", "4_17_s"),
    "sheep": ("1_26_s", "1_27_s"),
}  # fmt: skip
SET_ASIDE, AT_LEAST = 15, 4  # of 100 photographs; photographs a group

_LABEL = np.full(1 << 24, 254, np.uint8)  # colour code -> label; 254: no colour of the table
_LABEL[0] = VOID
for _k, (_r, _g, _b) in enumerate(PALETTE.values(), start=1):
    _LABEL[_r << 16 | _g << 8 | _b] = _k


def read_painted(path: Path, person: bool = False) -> torch.Tensor:
    """uint8 (H, W): k the k-th of `CLASSES`, 255 void; CosegError for other colours. person: bodies count as faces."""
    rgb = read_colours(path).astype(np.uint32)
    labels = _LABEL[rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]]
    if (labels == 254).any():
        y, x = np.argwhere(labels == 254)[0]
        colour = tuple(int(c) for c in rgb[y, x])
        raise CosegError(f"{path}: colour {colour} at ({x}, {y}) is no MSRC class; use the masks unchanged, not JPEG")
    if person:
        labels[labels == CLASSES.index("body") + 1] = CLASSES.index("face") + 1
    return torch.from_numpy(labels)


def drawn_split(name: str) -> str:
    """ "test", "val", "train" or "never", from the photograph's name alone; blind to `FIELD`."""
    prefix, number = map(int, name.split("_")[:2])
    if name in NEVER:
        return "never"
    if number <= 10 and prefix in {prefix for prefix, _ in SEVEN.values()}:
        return "test"
    chance = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return "val" if chance < SET_ASIDE else "train"


def split_of(name: str) -> str:
    """As `drawn_split`, and "field" for those of `FIELD` that would train or choose."""
    drawn = drawn_split(name)
    return "field" if drawn in ("train", "val") and any(name in names for names in FIELD.values()) else drawn


def field_photos(drawn: str) -> list[str]:
    """The names in `FIELD` whose `drawn_split` is this."""
    return [name for names in FIELD.values() for name in names if drawn_split(name) == drawn]


def _files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    home = root / "MSRC_ObjCategImageDatabase_v2"
    folders = [dataset_folder(home, name, get="get MSRC v2") for name in ("Images", "GroundTruth")]
    images, masks = ({p.stem.removesuffix("_GT"): p for p in pictures_in(folder)} for folder in folders)
    for name, path in images.items():
        if len(name.split("_")) != 3 or not all(part.isdigit() for part in name.split("_")[:2]):
            raise CosegError(f"{path}: MSRC photographs are named <prefix>_<number>_s; take other files out")
        if name not in masks:
            raise CosegError(f"{path}: has no mask {name}_GT.png in {folders[1]}; unpack MSRC v2 again")
    return dict(sorted(images.items())), masks


def photos(root: Path, split: str, dataset: str = "msrc", person: bool = False) -> list[Photo]:
    """Those of one split of `split_of`, with all 23 classes. person: faces and bodies are one class."""
    images, masks = _files(root)
    read = partial(read_painted, person=person)
    classes = tuple("person" if person and c == "face" else c for c in CLASSES)
    chosen = [name for name in images if split_of(name) == split]
    return [photo_of(dataset, name, classes, images[name], masks[name], read) for name in chosen]


def load(root: Path, split: str) -> list[Group]:
    """Groups by class of object, of four photographs or more that hold 1 % of it; faces and bodies are persons."""
    members = photos(root, split, person=True)
    classes = [c for c in members[0].classes if c not in SURROUNDINGS and c != "body"] if members else []
    return groups_of(members, classes, least=AT_LEAST)


def load_seven(root: Path) -> list[Group]:
    """MSRC-7: ten photographs each of seven prefixes; the target is the kind of thing that the group is named for.

    Void is ignored in the measures: it hides the edges of things, and other things that nobody labelled.
    """
    tested, groups = photos(root, "test", "msrc7"), []
    for group, (prefix, target) in SEVEN.items():
        members = tuple(p for p in tested if p.name.startswith(f"{prefix}_"))
        if not members:
            raise CosegError(f"{root}: MSRC v2 has no photographs {prefix}_1_s to {prefix}_10_s; unpack it again")
        groups.append(Group("msrc7", group, members, (target,)))
    return groups


def load_field(root: Path) -> list[Group]:
    """The known photographs of the field's MSRC-7, two or three a group; void and targets as in MSRC-7."""
    every = {p.name: p for split in ("test", "never", "field") for p in photos(root, split, "msrc7-field")}
    groups = []
    for group, names in FIELD.items():
        if missing := [name for name in names if name not in every]:
            raise CosegError(f"{root}: MSRC v2 lacks {', '.join(missing)}; unpack it again, see data/README.md")
        groups.append(Group("msrc7-field", group, tuple(every[name] for name in names), (SEVEN[group][1],)))
    return groups
