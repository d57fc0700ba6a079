"""Sets with one binary mask a photograph, of the one thing that its folder is named for. Layouts: data/README.md.

iCoseg (Batra et al., CVPR 2010)   38 groups, 643 photographs. The papers name eight of them, `EIGHT` is our reading:
the test set. The thirty others, 489 photographs, show kinds that never train, and choose models: all 38 test nothing.
PASCAL (Faktor and Irani, ICCV 2013)   1037 files of VOC 2010 in 20 classes, 924 photographs: 101 stand in two folders
and 6 in three, byte for byte, with a mask each.
Internet / Object Discovery (Rubinstein et al., CVPR 2013)   aeroplanes, cars and horses; photographs without the object
have an empty mask (of the hundreds 18, 11 and 7). Of the full set 561, 1306 and 879 photographs have masks, the others
are left out. They lie in one of `HOMES`, the third is as published.
The user's own   DIR/images/<group>/* with DIR/ground_truth/<group>/<stem>.png, without ground_truth no masks either; or
DIR/<group>/*. Without <group> it is one group. Hidden files and files that are no pictures by their suffix are passed
over, folders in groups are not entered.

Loaders raise CosegError where a folder is missing or empty, too.
"""

import os
from pathlib import Path

from coseglib.core.errors import CosegError
from coseglib.data.folders import IMAGES, TRUTH, dataset_folder, folders_in, pictures_in
from coseglib.data.images import photo_of
from coseglib.data.record import Group

EIGHT = {  # name in the papers -> how the folder's name begins
    "bear2": "002 Alaskan Brown Bear", "brownbear": "brown_bear", "cheetah": "028 Cheetah",
    "elephant": "021 Elephants", "helicopter": "025 Airshows-helicopter", "hotballoon": "041 Hot Balloons",
    "panda1": "023 Pandas", "panda2": "029 Pandas",
}  # fmt: skip
HOMES = ("Internet100", "Internet", "ObjectDiscovery-data/Data", ".")
TARGETS = {"Airplane": "airplane", "Car": "car", "Horse": "horse"}


def _group(dataset: str, name: str, images: Path, masks: Path | None = None) -> Group:
    """A folder of photographs as a group whose target is its name. masks: where only some have one; None: all have."""
    home = masks or images.parents[1] / "ground_truth" / images.name
    files = [(path, home / f"{path.stem}.png") for path in pictures_in(images)]
    files = [(path, mask) for path, mask in files if not masks or mask.is_file()]
    if not files:
        raise CosegError(f"{images}: holds no photographs (with a mask in {home}); unpack the data set again")
    photos = (photo_of(dataset, f"{images.name}/{path.stem}", (name,), path, mask) for path, mask in files)
    return Group(dataset, name, tuple(photos), (name,))


def load_icoseg(root: Path) -> list[Group]:
    """All 38 groups by name of their folder."""
    home = dataset_folder(root, "iCoseg", "images", get="get iCoseg")
    return [_group("icoseg", p.name, p) for p in folders_in(home)]


def load_thirty(root: Path) -> list[Group]:
    """The groups that are none of the papers' eight, by name of their folder: what chooses models on unseen kinds."""
    home, eight = dataset_folder(root, "iCoseg", "images", get="get iCoseg"), tuple(EIGHT.values())
    return [_group("icoseg30", p.name, p) for p in folders_in(home) if not p.name.startswith(eight)]


def load_eight(root: Path) -> list[Group]:
    """The papers' eight groups under the papers' names."""
    home = dataset_folder(root, "iCoseg", "images", get="get iCoseg")
    groups = []
    for name, start in EIGHT.items():
        found = next((p for p in folders_in(home) if p.name.startswith(start)), None)
        if not found:
            raise CosegError(f"{home}: no folder {start}… (group {name}); unpack iCoseg again")
        groups.append(_group("icoseg8", name, found))
    return groups


def load_pascal(root: Path) -> list[Group]:
    """A group for every class."""
    home = dataset_folder(root, "PASCAL_coseg", "images", get="get the PASCAL co-segmentation set")
    return [_group("pascal", p.name, p) for p in folders_in(home)]


def load_internet(root: Path, dataset: str) -> list[Group]:
    """Three groups: "internet", of 100 photographs each, or "internet-full"."""
    names = {name + ("100" if dataset == "internet" else ""): target for name, target in TARGETS.items()}
    for home in (root / h for h in HOMES):
        if all((home / name).is_dir() for name in names):
            return [_group(dataset, of, home / name, home / name / "GroundTruth") for name, of in names.items()]
    raise CosegError(f"{root}: the folders {', '.join(names)} are not there; get the Internet set, see data/README.md")


def _written(name: str) -> str:
    """A file's name as every table and terminal takes it: bytes that are no UTF-8 as \\xff."""
    return os.fsencode(name).decode(errors="backslashreplace")


def homes_of(folder: Path) -> tuple[Path, Path | None]:
    """Where the photographs of a user's folder lie, in its groups, and their masks, if there are any."""
    home = folder / IMAGES if (folder / IMAGES).is_dir() else folder
    return home, folder / TRUTH if home != folder and (folder / TRUTH).is_dir() else None


def load_folder(folder: str | Path) -> list[Group]:
    """The groups of a user's folder, by name; loose photographs come last, under the folder's own name."""
    folder, groups, lacking = Path(folder), [], []
    home, masks = homes_of(folder)
    parts = [(path.name, f"{path.name}/", path) for path in folders_in(home)]
    for name, prefix, images in [*parts, (folder.resolve().name, "", home)]:
        name, photos = _written(name), []
        for path in pictures_in(images):
            mask = masks / prefix / f"{path.stem}.png" if masks else None
            if mask and not mask.is_file():
                lacking.append(f"{mask}: no mask for {path.name}")
            photos.append(photo_of("folder", _written(f"{prefix}{path.name}"), (name,), path, mask))
        if photos:
            groups.append(Group("folder", name, tuple(photos), (name,) if masks else ()))
    if lacking:
        others = f", nor for {len(lacking) - 1} others" if len(lacking) > 1 else ""
        raise CosegError(f"{lacking[0]}{others}; add what is missing, or take ground_truth away to segment only")
    if not groups:
        raise CosegError(f"{folder}: no photographs in it (.jpg, .png, …), nor in its folders; check the name")
    return groups
