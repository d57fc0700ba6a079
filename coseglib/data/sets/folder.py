"""A folder of the user's own photographs.

    DIR/images/<group>/*  with  DIR/ground_truth/<group>/<stem>.png     groups with masks, to be scored
    DIR/images/*          with  DIR/ground_truth/<stem>.png             one group with masks
    DIR/<group>/*                                                       groups without masks
    DIR/*                                                               one group without masks

Without a folder ground_truth, images/ has no masks either. Hidden files, and files that are no pictures by their
suffix, are passed over; folders in groups are not entered.
"""

from pathlib import Path

from coseglib.core.errors import CosegError
from coseglib.data.images import SUFFIXES, folders_in, photo_of, pictures_in
from coseglib.data.record import Group


def _group(name: str, prefix: str, images: Path, masks: Path | None) -> Group | None:
    photos = []
    for path in pictures_in(images):
        mask = masks / f"{path.stem}.png" if masks else None
        if mask and not mask.is_file():
            raise CosegError(f"{mask}: no mask for {path.name}; add it, or take ground_truth away to segment only")
        photos.append(photo_of("folder", f"{prefix}{path.name}", (name,), path, mask))
    return Group("folder", name, tuple(photos), (name,) if masks else ()) if photos else None


def load_folder(folder: str | Path) -> list[Group]:
    """The groups of a folder that is there, by name; loose photographs come last, under the folder's own name.

    Raises CosegError for a folder without photographs, and for a photograph whose mask is missing.
    """
    folder = Path(folder)
    home, masks = folder, None
    if (folder / "images").is_dir():
        home = folder / "images"
        masks = folder / "ground_truth" if (folder / "ground_truth").is_dir() else None
    groups = [_group(p.name, f"{p.name}/", p, masks / p.name if masks else None) for p in folders_in(home)]
    groups = [g for g in [*groups, _group(folder.resolve().name, "", home, masks)] if g]
    if not groups:
        kinds = " ".join(sorted(SUFFIXES))
        raise CosegError(f"{folder}: no photographs in it ({kinds}), nor in its folders; check the name")
    return groups
