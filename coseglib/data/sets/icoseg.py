"""iCoseg (Batra et al., CVPR 2010): 38 groups, 643 photographs with binary masks.

Layout  iCoseg/images/<group>/*.jpg   iCoseg/ground_truth/<group>/<stem>.png
The eight groups of the papers are named by them only; `EIGHT` is our reading of the names.
"""

from pathlib import Path

from coseglib.core.errors import CosegError
from coseglib.data.images import dataset_folder, folders_in, photo_of, pictures_in
from coseglib.data.record import Group

EIGHT = {  # name in the papers -> how the folder's name begins
    "bear2": "002 Alaskan Brown Bear",
    "brownbear": "brown_bear",
    "cheetah": "028 Cheetah",
    "elephant": "021 Elephants",
    "helicopter": "025 Airshows-helicopter",
    "hotballoon": "041 Hot Balloons",
    "panda1": "023 Pandas",
    "panda2": "029 Pandas",
}


def binary_group(dataset: str, name: str, images: Path, masks: Path) -> Group:
    """A folder of photographs and the folder of their masks, <stem>.png each, as a group whose target is its name."""
    photos = tuple(
        photo_of(dataset, f"{images.name}/{path.stem}", (name,), path, masks / f"{path.stem}.png")
        for path in pictures_in(images)
    )
    if not photos:
        raise CosegError(f"{images}: holds no photographs; unpack the data set again")
    return Group(dataset, name, photos, (name,))


def _folder(root: Path) -> Path:
    return dataset_folder(root, "iCoseg", "images", get="get iCoseg")


def load(root: Path) -> list[Group]:
    """All groups by name of their folder. Raises CosegError where the set is missing or a folder is empty."""
    home = _folder(root)
    return [binary_group("icoseg", p.name, p, home.parent / "ground_truth" / p.name) for p in folders_in(home)]


def load_eight(root: Path) -> list[Group]:
    """The papers' eight groups under the papers' names. Raises CosegError where a folder is missing."""
    home = _folder(root)
    groups = []
    for name, start in EIGHT.items():
        found = sorted(p for p in home.glob(f"{start}*") if p.is_dir())
        if not found:
            raise CosegError(f"{home}: no folder {start}… (group {name}); unpack iCoseg again")
        groups.append(binary_group("icoseg8", name, found[0], home.parent / "ground_truth" / found[0].name))
    return groups
