"""Groups of several kinds that are made of photographs, with masks that are known because they were drawn.

What learns without masks is to be chosen without them. So the middles of photographs of two kinds, cut out by drawn
blobs, are pasted side by side into other photographs: the blobs are the masks, and no mask of a photograph is read. The
kinds are PASCAL's folders, by their names; every second group stands before photographs of any other kinds, the rest
before MSRC's scenes of one kind. A blob holds some of what surrounds its object, so J here is no figure of photographs.
"""

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch

from coseglib.core.errors import CosegError
from coseglib.data.record import Group, Photo, resize_image
from coseglib.data.sets import binary, msrc

GROUPS, PHOTOS, KINDS = 8, 30, 2
SIDE = 320  # pixels of a picture's longer side, as VOC's photographs here
TAKEN = 0.6, 0.8  # of a donor's shorter side: what its middle is
LARGE = 0.4, 0.6  # of the picture's shorter side: a blob's
ROUGH = 5, 0.35  # waves of an outline, and how far it leaves the circle


def load(root: Path) -> list[Group]:
    """GROUPS of PHOTOS pictures each, the same ones every time. Raises CosegError where PASCAL or MSRC is missing."""
    kinds = {group.name: [photo.read_image for photo in group.photos] for group in binary.load_pascal(root)}
    kinds = {name: photos for name, photos in sorted(kinds.items()) if len(photos) >= PHOTOS}
    if len(kinds) < KINDS:
        raise CosegError(f"{root}: {KINDS} kinds of PASCAL with {PHOTOS} photographs each are needed; unpack all of it")
    scenes: dict[str, list] = {}
    for photo in msrc.photos(root, "train"):
        scenes.setdefault(photo.name.split("_")[0], []).append(photo.read_image)
    return [_group(number, kinds, list(scenes.values())) for number in range(GROUPS)]


def _group(number: int, kinds: dict[str, list], scenes: list[list]) -> Group:
    rng = np.random.default_rng((24, number))
    chosen = tuple(sorted(rng.choice(sorted(kinds), KINDS, replace=False).tolist()))
    donors = [rng.permutation(len(kinds[kind]))[:PHOTOS].tolist() for kind in chosen]
    others = [read for kind in kinds if kind not in chosen for read in kinds[kind]]
    ground = others if number % 2 == 0 else scenes[int(rng.integers(len(scenes)))]
    grounds = rng.choice(len(ground), PHOTOS, replace=len(ground) < PHOTOS).tolist()
    photos = []
    for i in range(PHOTOS):
        sources = [ground[grounds[i]], *(kinds[kind][of[i]] for kind, of in zip(chosen, donors, strict=True))]
        make = partial(_make, sources, (24, number, i))
        name = f"{number}/{i:02d}"
        photos.append(
            Photo("made", name, chosen, lambda at_most=None, make=make: make()[0], lambda make=make: make()[1])
        )
    return Group("made-multiclass", f"{number} {'+'.join(chosen)}", tuple(photos), chosen)


def _make(sources: list, key: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """(read the ground, read a donor a kind) -> the picture uint8 (3, H, W) and its label map uint8 (H, W)."""
    rng, (ground, *donors) = np.random.default_rng(key), (read() for read in sources)
    height, width = ground.shape[-2:]
    size = [max(48, round(side * SIDE / max(height, width))) for side in (height, width)]
    picture, labels = resize_image(ground, size).clone(), torch.zeros(size, dtype=torch.uint8)
    places = rng.permutation(len(donors))  # side by side, in any order
    for k, donor in enumerate(donors):
        inside = blob(round(min(size) * rng.uniform(*LARGE)), rng)
        piece = resize_image(_middle(donor, rng.uniform(*TAKEN)), inside.shape)
        h, w = inside.shape
        x = (places[k] + rng.uniform(0.35, 0.65)) / len(donors) * size[1]
        y = rng.uniform(0.35, 0.65) * size[0]
        top, left = (int(np.clip(c - s / 2, 0, m - s)) for c, s, m in ((y, h, size[0]), (x, w, size[1])))
        where = slice(top, top + h), slice(left, left + w)
        picture[(slice(None), *where)] = torch.where(inside, piece, picture[(slice(None), *where)])
        labels[where] = torch.where(inside, torch.tensor(k + 1, dtype=torch.uint8), labels[where])
    return picture, labels


def _middle(image: torch.Tensor, share: float) -> torch.Tensor:
    h, w = image.shape[-2:]
    side = max(1, round(share * min(h, w)))
    return image[:, (h - side) // 2 : (h - side) // 2 + side, (w - side) // 2 : (w - side) // 2 + side]


def blob(side: int, rng: np.random.Generator) -> torch.Tensor:
    """A drawn shape in a square of some pixels, bool (side, side): a circle whose radius swings with the angle."""
    waves, swing = ROUGH
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    angle, radius = torch.atan2(y, x), torch.ones(side, side)
    for k in range(2, waves + 1):
        radius += swing / k * rng.normal() * torch.cos(k * angle + rng.uniform(0, 2 * math.pi))
    return (x**2 + y**2).sqrt() < radius / max(1.0, float(radius.max()))
