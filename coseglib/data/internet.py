"""Internet / Object Discovery (Rubinstein et al., CVPR 2013): aeroplanes, cars and horses, some without the object.

    Internet100/{Airplane100,Car100,Horse100}/*.jpg    with <group>/GroundTruth/<stem>.png
    Internet/{Airplane,Car,Horse}/*.jpg                likewise: 561, 1306 and 879 labelled photographs

Both also directly under the data folder, or in the published `ObjectDiscovery-data/Data`. A photograph without the
object has an empty mask; one without a mask file (the full set has such) is left out.
"""

from functools import partial
from pathlib import Path

from coseglib.data.images import SUFFIXES, read_image, read_mask
from coseglib.data.record import Group, Photo
from coseglib.errors import CosegError

HOMES = ("Internet100", "Internet", "ObjectDiscovery-data/Data", "")
TARGETS = {"Airplane": "airplane", "Car": "car", "Horse": "horse"}


def _group(dataset: str, home: Path, target: str) -> Group:
    photos = []
    for path in sorted(p for p in home.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")):
        mask = home / "GroundTruth" / f"{path.stem}.png"
        if mask.is_file():
            read = partial(read_image, path), partial(read_mask, mask)
            photos.append(Photo("internet", f"{home.name}/{path.stem}", (target,), *read, path))
    if not photos:
        raise CosegError(f"{home}: no photograph with a mask in GroundTruth; fetch the Internet set again")
    return Group(dataset, target, tuple(photos), (target,))


def _load(dataset: str, root: Path, ending: str) -> list[Group]:
    for home in (root / h for h in HOMES):
        folders = {target: home / f"{name}{ending}" for name, target in TARGETS.items()}
        if all(f.is_dir() for f in folders.values()):
            return [_group(dataset, folder, target) for target, folder in folders.items()]
    name = f"Airplane{ending}, Car{ending}, Horse{ending}"
    raise CosegError(f"{root}: the folders {name} are not there; data/README.md says how to get them")


def load_internet100(root: Path) -> list[Group]:
    """Three groups of 100 photographs (82, 89 and 93 of them with the object)."""
    return _load("internet", root, "100")


def load_internet_full(root: Path) -> list[Group]:
    """The full set's labelled photographs: 561 aeroplanes, 1306 cars, 879 horses."""
    return _load("internet-full", root, "")
