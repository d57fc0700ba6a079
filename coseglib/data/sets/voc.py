"""PASCAL VOC 2012 segmentation: 20 classes, palette label maps, 255 void; the whole set or any part of it."""

from pathlib import Path

from coseglib.core.errors import CosegError
from coseglib.data.by_class import groups_of
from coseglib.data.folders import dataset_folder
from coseglib.data.images import photo_of, read_labels
from coseglib.data.record import Group, Photo

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def photos(root: Path, split: str) -> list[Photo]:
    """The photographs of ImageSets/Segmentation/`split`.txt, with label maps of all classes; no picture is read."""
    home = dataset_folder(root, "VOCdevkit", "VOC2012", get="run `coseg download voc`")
    listed = home / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listed.is_file():
        raise CosegError(f"{listed}: no such file; unpack VOC 2012 again")
    names = listed.read_text().split()
    files = [(home / "JPEGImages" / f"{name}.jpg", home / "SegmentationClass" / f"{name}.png") for name in names]
    return [photo_of("voc", name, CLASSES, *of, read_labels) for name, of in zip(names, files, strict=True)]


def load(root: Path, split: str) -> list[Group]:
    """Groups by class: every photograph of `split` of which the class covers at least 1 %, where there are four."""
    return groups_of(photos(root, split), CLASSES, least=4)


def download(root: Path) -> Path:
    """Fetch the whole of VOC 2012 (2 GB) into `root`; torchvision checks the archive's MD5. Returns the set's folder.

    Raises CosegError where it cannot be fetched or its checksum is wrong.
    """
    from torchvision.datasets import VOCSegmentation

    try:
        VOCSegmentation(str(root), year="2012", image_set="trainval", download=True)
    except (OSError, RuntimeError) as fault:
        why = " ".join(str(fault).split())
        raise CosegError(f"{root}: VOC 2012 was not fetched ({why}); try again, or see data/README.md") from fault
    return root / "VOCdevkit" / "VOC2012"
