"""Data sets by name, or a folder of photographs: `load(name)` gives groups; what trains and what chooses models.

record        `Photo`, `Group` and their label maps; results of reading many files, remembered
folders       what in a folder is a photograph      images     pictures, masks and label maps from disk and back
sets/         a loader a set              synthetic/  scenes that are drawn
by_class      groups and pairs from label maps            fingerprints  near duplicates of test photographs
lists         who is in which: writes data/lists          reported      what the papers report
cache         training photographs, decoded once          sampler       training's batches: groups, crop, flip
pasting       objects and made things put into training photographs
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from coseglib.core.errors import CosegError
from coseglib.core.paths import data_root
from coseglib.data.record import VOID, Group, Photo

__all__ = ["CHOOSING", "NAMES", "SET_APART", "VOID", "Group", "Photo", "available", "load", "remark"]
__all__ += ["training_photos", "unseen_groups", "validation_groups"]

_LOADERS = {  # name -> where its loader is, and what that is given after the root; the drawn ones are given nothing
    "icoseg8": "sets.binary.load_eight", "icoseg30": "sets.binary.load_thirty",
    "icoseg": "sets.binary.load_icoseg", "msrc7": "sets.msrc.load_seven", "msrc7-field": "sets.msrc.load_field",
    "msrc-train": "sets.msrc.load train", "msrc-val": "sets.msrc.load val", "pascal": "sets.binary.load_pascal",
    "voc-train": "sets.voc.load train", "voc-val": "sets.voc.load val", "voc-multiclass": "sets.multiclass.load",
    "internet": "sets.binary.load_internet internet", "internet-full": "sets.binary.load_internet internet-full",
    "coco-seg": "sets.coco_seg.load train2017", "coco-seg-val": "sets.coco_seg.load val2017",
    "made-multiclass": "sets.made.load", "synthetic": "synthetic.load_synthetic",
    "synthetic-multiclass": "sets.multiclass.drawn_groups",
}  # fmt: skip
NAMES = tuple(_LOADERS)
CHOOSING = ("voc-val", "msrc-val", "icoseg30")  # what chooses: models, weights, thresholds; none of it is a test
SET_APART = ("msrc7-field",)  # test lists younger than some checkpoints: a card says kept_apart of what it kept from
REMARKS = {
    "icoseg": "no test set: 30 of its 38 groups choose models (icoseg30); icoseg8, the papers' eight, is one",
    "made-multiclass": "no test set: what learns without masks was chosen on it",
    **dict.fromkeys(CHOOSING, "no test set: models are chosen by it"),
}


def load(name: str | Path, root: str | Path | None = None) -> list[Group]:
    """The groups of a data set (one of `NAMES`), or of a folder of photographs (`coseglib.data.sets.binary`).

    root  the folder of the data sets; None: COSEG_DATA, else data/ (`coseglib.core.paths.data_root`)
    Raises CosegError for an unknown name, a missing set, an empty folder, or a set that cannot be read.
    """
    if str(name) in _LOADERS:
        where, *arguments = _LOADERS[str(name)].split()
        module, _, function = where.rpartition(".")
        given = () if str(name).startswith("synthetic") else (data_root(root), *arguments)
        return getattr(import_module(f"coseglib.data.{module}"), function)(*given)
    if Path(name).is_dir():
        from coseglib.data.sets.binary import load_folder

        return load_folder(name)
    raise CosegError(f"{name}: neither a data set ({', '.join(NAMES)}) nor a folder; check the name")


def remark(name: str | Path) -> str:
    """Why figures on this data set are no test's, "icoseg: no test set: …"; "" for one that tests, or of one's own."""
    return f"{name}: {REMARKS[str(name)]}" if str(name) in REMARKS else ""


def training_photos(root: str | Path | None = None, lists: Path | None = None, dataset="voc+msrc") -> list[Photo]:
    """What trains: each photograph once, with a label map of all its classes.

    dataset  "voc+msrc", the training list of VOC and the training part of MSRC, or "coco-seg"
    Test photographs, those of `icoseg30` and near duplicates of either are left out (`without_test_photos`).
    Raises CosegError where a set or the fingerprints are missing.
    """
    from coseglib.data.fingerprints import KEPT_APART, without_test_photos
    from coseglib.data.sets import coco_seg, msrc, voc

    folder = data_root(root)
    if dataset == "coco-seg":
        return without_test_photos(coco_seg.photos(folder), lists, KEPT_APART)
    return without_test_photos(voc.photos(folder, "train") + msrc.photos(folder, "train"), lists, KEPT_APART)


def validation_groups(root: str | Path | None = None, lists: Path | None = None) -> list[Group]:
    """Kinds that train, by which models are chosen: the groups of voc-val and of msrc-val, of four photographs or more.

    Without test photographs, as above. Raises CosegError where a set or the fingerprints are missing.
    """
    from coseglib.data.fingerprints import without_test_photos

    groups = load("voc-val", root) + load("msrc-val", root)
    kept = {p.key for p in without_test_photos([p for group in groups for p in group.photos], lists)}
    groups = [replace(group, photos=tuple(p for p in group.photos if p.key in kept)) for group in groups]
    return [group for group in groups if len(group) >= 4]


def unseen_groups(root: str | Path | None = None, lists: Path | None = None) -> list[Group]:
    """Kinds that never train, by which models are chosen as well: the groups of icoseg30.

    Without near duplicates of test photographs. Raises CosegError where iCoseg or the fingerprints are missing.
    """
    from coseglib.data.fingerprints import without_test_photos

    groups = load("icoseg30", root)
    kept = {p.key for p in without_test_photos([p for group in groups for p in group.photos], lists)}
    return [replace(group, photos=tuple(p for p in group.photos if p.key in kept)) for group in groups]


def available(root: str | Path | None = None) -> dict[str, str | CosegError]:
    """For every data set what is there ("8 groups, 154 photographs"; drawn scenes are called that), or what is missing.

    No picture is read: of VOC and COCO the lists are counted. Raises CosegError where `root` is no folder.
    """
    from coseglib.data.sets import coco_seg, voc

    folder = data_root(root)
    found: dict[str, str | CosegError] = {}
    for name in NAMES:
        try:
            if name == "voc-multiclass":
                of = f"{len(voc.photos(folder, 'train')):,} photographs"
                found[name] = f"groups of two and three classes, out of {of}"
            elif name.startswith("voc-"):
                found[name] = f"{len(voc.photos(folder, name.removeprefix('voc-'))):,} photographs"
            elif name.startswith("coco-seg"):
                found[name] = f"{coco_seg.count(folder, _LOADERS[name].split()[1]):,} photographs"
            else:
                groups = load(name, folder)
                what = "drawn scenes" if name.startswith("synthetic") else "photographs"
                found[name] = f"{len(groups)} groups, {sum(map(len, groups)):,} {what}"
        except CosegError as fault:
            found[name] = fault
    return found
