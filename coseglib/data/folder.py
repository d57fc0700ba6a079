"""A folder of the user's own photographs.

    DIR/images/<group>/*  with  DIR/ground_truth/<group>/<stem>.png     groups with masks, to be scored
    DIR/<group>/*                                                       groups without masks
    DIR/*                                                               one group without masks

Hidden files and files that are no pictures by their suffix are passed over.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from coseglib.data.images import SUFFIXES, image_size, read_image, read_mask
from coseglib.data.record import Group, Photo
from coseglib.errors import CosegError


def _visible(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def pictures(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name."""
    return [p for p in _visible(folder) if p.is_file() and p.suffix.lower() in SUFFIXES]


def _checked_mask(image: Path, mask: Path) -> torch.Tensor:
    labels = read_mask(mask)
    width, height = image_size(image)
    if tuple(labels.shape) != (height, width):
        raise CosegError(
            f"{mask}: {labels.shape[1]} × {labels.shape[0]} pixels, its photograph {image.name} has {width} × {height}; "
            "give a mask of the photograph's size"
        )
    return labels


def _photo(path: Path, name: str, target: str, mask: Path | None) -> Photo:
    read_labels = partial(_checked_mask, path, mask) if mask else None
    return Photo("folder", name, (target,), partial(read_image, path), read_labels, path)


def load_folder(folder: Path) -> list[Group]:
    """The groups of a folder, see above. Raises CosegError for an empty folder, or a photograph whose mask is missing.

    A mask of another size than its photograph is an error when it is read, naming both sizes.
    """
    if not folder.is_dir():
        raise CosegError(f"{folder}: no such folder; check the name")
    scored = (folder / "images").is_dir()
    home = folder / "images" if scored else folder
    masks = folder / "ground_truth"
    groups = []
    for sub in [p for p in _visible(home) if p.is_dir() and (scored or p != masks)]:
        photos = []
        for path in pictures(sub):
            mask = masks / sub.name / f"{path.stem}.png" if scored and masks.is_dir() else None
            if mask and not mask.is_file():
                raise CosegError(f"{mask}: no mask for {path.name}; add it, or leave out ground_truth to segment only")
            photos.append(_photo(path, f"{sub.name}/{path.name}", sub.name, mask))
        if photos:
            groups.append(Group("folder", sub.name, tuple(photos), (sub.name,)))
    loose = pictures(home)
    if loose:
        photos = tuple(_photo(p, p.name, folder.name, None) for p in loose)
        groups.append(Group("folder", folder.resolve().name, photos, ()))
    if not groups:
        raise CosegError(
            f"{folder}: no photographs ({', '.join(sorted(SUFFIXES))}) in it or its folders; check the name"
        )
    return [g if g.photos[0].read_labels else replace(g, targets=()) for g in groups]
