"""Internet / Object Discovery (Rubinstein et al., CVPR 2013): aeroplanes, cars and horses, some without the object.

Layout  {Airplane100,Car100,Horse100}/*.jpg  with  <group>/GroundTruth/<stem>.png    100 photographs a group
        {Airplane,Car,Horse}/*.jpg           likewise                                the full set
in `Internet100/` and `Internet/`, in the published `ObjectDiscovery-data/Data/`, or directly under the data folder.

A photograph without the object has an empty mask (of the hundreds 18, 11 and 7). Of the full set 561, 1306 and 879
photographs are labelled; those without a mask file are left out.
"""

from pathlib import Path

from coseglib.core.errors import CosegError
from coseglib.data.images import photo_of, pictures_in
from coseglib.data.record import Group

HOMES = ("Internet100", "Internet", "ObjectDiscovery-data/Data", ".")
TARGETS = {"Airplane": "airplane", "Car": "car", "Horse": "horse"}


def _group(dataset: str, home: Path, target: str) -> Group:
    files = [(path, home / "GroundTruth" / f"{path.stem}.png") for path in pictures_in(home)]
    photos = [photo_of(dataset, f"{home.name}/{p.stem}", (target,), p, mask) for p, mask in files if mask.is_file()]
    if not photos:
        raise CosegError(f"{home}: no photograph has a mask in GroundTruth; unpack the Internet set again")
    return Group(dataset, target, tuple(photos), (target,))


def load(root: Path, dataset: str = "internet") -> list[Group]:
    """Three groups: "internet", of 100 photographs each, or "internet-full".

    Raises CosegError where the folders are missing or hold no masks.
    """
    ending = "100" if dataset == "internet" else ""
    for home in (root / h for h in HOMES):
        folders = {target: home / f"{name}{ending}" for name, target in TARGETS.items()}
        if all(folder.is_dir() for folder in folders.values()):
            return [_group(dataset, folder, target) for target, folder in folders.items()]
    wanted = ", ".join(f"{name}{ending}" for name in TARGETS)
    raise CosegError(f"{root}: the folders {wanted} are not there; get the Internet set, see data/README.md")
