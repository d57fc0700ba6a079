"""Data sets by name, or a folder of photographs: `load(name)` gives groups; what trains and what chooses models."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from coseglib.data.record import VOID, Group, Photo
from coseglib.errors import CosegError
from coseglib.paths import data_root

__all__ = ["NAMES", "VOID", "Group", "Photo", "load", "training_photos", "validation_groups"]

# name -> module, its function, and what the function is given after the root
_LOADERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "icoseg8": ("icoseg", "load_eight", ()),
    "icoseg": ("icoseg", "load", ()),
    "msrc7": ("msrc", "load_seven", ()),
    "msrc-train": ("msrc", "load", ("train",)),
    "msrc-val": ("msrc", "load", ("val",)),
    "pascal": ("pascal_coseg", "load", ()),
    "voc-train": ("voc", "load", ("train",)),
    "voc-val": ("voc", "load", ("val",)),
}
NAMES = (*_LOADERS, "synthetic")


def _loader(name: str, root: Path) -> Callable[[], list[Group]]:
    module, function, arguments = _LOADERS[name]
    return lambda: getattr(import_module(f"coseglib.data.{module}"), function)(root, *arguments)


def load(name: str | Path, root: str | Path | None = None) -> list[Group]:
    """The groups of a data set (one of `NAMES`).

    root  the folder of the data sets; None: COSEG_DATA, else data/ (`coseglib.paths.data_root`).
    Raises CosegError for an unknown name, a missing set, or one that cannot be read.
    """
    if str(name) == "synthetic":
        from coseglib.data.synthetic import load_synthetic

        return load_synthetic()
    if str(name) in _LOADERS:
        return _loader(str(name), data_root(root))()
    raise CosegError(f"{name}: neither a data set ({', '.join(NAMES)}) nor a folder; check the name")


def training_photos(root: str | Path | None = None) -> list[Photo]:
    """What trains: the training list of VOC and the training part of MSRC, with label maps; no picture is read."""
    from coseglib.data import msrc, voc

    folder = data_root(root)
    return voc.photos(folder, "train") + msrc.photos(folder, "train")


def validation_groups(root: str | Path | None = None) -> list[Group]:
    """What models are chosen by: the groups of voc-val and of msrc-val."""
    return load("voc-val", root) + load("msrc-val", root)
