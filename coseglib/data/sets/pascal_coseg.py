"""The co-segmentation benchmark from PASCAL VOC 2010 (Faktor and Irani, ICCV 2013): 1037 photographs, 20 classes.

Layout  PASCAL_coseg/images/<Class>/*.jpg   PASCAL_coseg/ground_truth/<Class>/<stem>.png
A mask shows the folder's class alone. 113 photographs stand in two folders, byte for byte, with a mask each.
"""

from pathlib import Path

from coseglib.data.images import dataset_folder, folders_in
from coseglib.data.record import Group
from coseglib.data.sets.icoseg import binary_group


def load(root: Path) -> list[Group]:
    """A group for every class. Raises CosegError where the set is missing or a folder is empty."""
    home = dataset_folder(root, "PASCAL_coseg", "images", get="get the PASCAL co-segmentation set")
    return [binary_group("pascal", p.name, p, home.parent / "ground_truth" / p.name) for p in folders_in(home)]
