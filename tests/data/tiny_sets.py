"""Small data sets in the published layouts, for the tests."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from coseglib.data.sets import binary, msrc


def picture(seed: str, width: int = 48, height: int = 36) -> Image.Image:
    """A smooth colour pattern of its own for every seed: what is scaled or saved anew stays recognisable."""
    rng = np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16))
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image | np.ndarray, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def box(width: int = 48, height: int = 36, value: int = 255, rows: int = 10) -> np.ndarray:
    """uint8 (height, width): `value` in the first `rows` rows."""
    mask = np.zeros((height, width), np.uint8)
    mask[:rows] = value
    return mask


def binary_set(home: Path, groups: dict[str, list[str]]) -> None:
    for group, names in groups.items():
        for name in names:
            save(picture(f"{home.name}{group}{name}"), home / "images" / group / f"{name}.jpg", quality=95)
            save(box(), home / "ground_truth" / group / f"{name}.png")


def voc_set(root: Path, lists: dict[str, dict[str, np.ndarray]]) -> Path:
    """lists: split -> name -> label map, uint8 (36, 48)."""
    home = root / "VOCdevkit" / "VOC2012"
    for split, members in lists.items():
        for name, labels in members.items():
            save(picture(f"voc{name}"), home / "JPEGImages" / f"{name}.jpg", quality=95)
            palette = Image.fromarray(labels)
            palette.putpalette([i * 37 % 256 for i in range(768)])
            save(palette, home / "SegmentationClass" / f"{name}.png")
        listed = home / "ImageSets" / "Segmentation" / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(members) + "\n")
    return home


def msrc_set(root: Path, names: dict[str, str]) -> Path:
    """names: photograph -> the class that covers its first ten rows; grass below, the last row void."""
    home = root / "MSRC_ObjCategImageDatabase_v2"
    for name, kind in names.items():
        colours = np.zeros((36, 48, 3), np.uint8)
        colours[:10], colours[10:35] = msrc.PALETTE[kind], msrc.PALETTE["grass"]
        source = "9_10_s" if name == "1_26_s" else name
        save(picture(f"msrc{source}"), home / "Images" / f"{name}.jpg", quality=95)
        save(colours, home / "GroundTruth" / f"{name}_GT.png")
    return home


MSRC = {f"{prefix}_{n}_s": kind for prefix, kind in msrc.SEVEN.values() for n in (2, 10)}
MSRC |= {f"13_{n}_s": "book" for n in range(1, 31)} | {"1_26_s": "sheep"}
MSRC |= {name: msrc.SEVEN[group][1] for group, names in msrc.FIELD.items() for name in names}
DOG, PERSON, CAT = 12, 15, 8
VOC = {
    "train": {f"2007_{i:06d}": box(value=(DOG, PERSON, CAT)[i % 3]) for i in range(12)}
    | {f"2008_{i:06d}": box(value=DOG) + box(value=PERSON)[::-1] for i in range(3)},
    "val": {f"2009_{i:06d}": box(value=DOG) for i in range(5)} | {"2010_000001": box(value=CAT)},
}


def all_sets(root: Path) -> Path:
    """iCoseg (the eight groups and one more), PASCAL, MSRC and VOC, two photographs a group or more."""
    binary_set(root / "iCoseg", {name: ["a", "b"] for name in [*binary.EIGHT.values(), "048 Windmill"]})
    binary_set(root / "PASCAL_coseg", {"Bird": ["img_1001", "img_1002"], "Dog": ["img_1001", "img_1002", "img_1003"]})
    msrc_set(root, MSRC)
    voc_set(root, VOC)
    return root
