"""Label maps: each label's colour and name, the same wherever it is shown, and how much of a photograph is of it.

Label 0 is the background, black in a palette; 1 … K are the classes. A label's colour depends on nothing but the label:
not on K, nor on what else a photograph shows. Readers whose sight differs (no red, no green, no blue cones) tell the
first six apart at a distance of 16 or more in CIELAB (Okabe and Ito); each further one is the colour that is farthest,
to the worst of four kinds of sight, from all before it, black and white. Of dozens no palette keeps all apart.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL.ImageColor import getrgb
from torch import Tensor

from coseglib.core.errors import CosegError
from coseglib.data.record import VOID, resize_labels

OKABE_ITO = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
FIRST_LABELS = OKABE_ITO[:-1]  # black is the background
LEVELS = 9  # a channel, of the colours that further labels are chosen from
LONGEST = 60  # letters of a name
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)
# Linear RGB as it looks with all cones, and without those for long, middle and short waves (Machado, Oliveira and
# Fernandes, 2009).
SIGHTS = np.array(
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)


# Colours --------------------------------------------------------------------------------------------------------------


def _linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0 … 255 (3, …) -> linear RGB in [0, 1]."""
    share = np.asarray(rgb, float) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    """Linear RGB (3, …) -> CIELAB (3, …), D65."""
    xyz = np.tensordot(TO_XYZ / TO_XYZ.sum(axis=1, keepdims=True), linear, axes=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def cielab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0 … 255 (3, …) -> CIELAB (3, …), D65: L* in 0 … 100; a distance of 2.3 can just be seen."""
    return _lab(_linear(rgb))


def as_seen(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0 … 255 (3, n) -> CIELAB (4, 3, n), as each of the four `SIGHTS` sees it."""
    return np.stack([_lab(np.clip(sight @ _linear(rgb), 0, 1)) for sight in SIGHTS])


@cache
def _all_colours() -> tuple[str, ...]:
    """Of the labels 1 … 254, as the head of this file says."""
    steps = np.linspace(0, 255, LEVELS).round()
    choice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij")).reshape(3, -1)
    seen = as_seen(choice)

    def distance(colour: str) -> np.ndarray:
        """Of each of the choice to this colour, to the worst sight."""
        return np.linalg.norm(seen - as_seen(np.array(getrgb(colour), float)[:, None]), axis=1).min(axis=0)

    colours = list(FIRST_LABELS)
    nearest = np.min([distance(colour) for colour in (*colours, "black", "white")], axis=0)
    while len(colours) < VOID - 1:
        colours.append("#{:02X}{:02X}{:02X}".format(*choice[:, nearest.argmax()].astype(int)))
        nearest = np.minimum(nearest, distance(colours[-1]))
    return tuple(colours)


def class_colours(count: int) -> list[str]:
    """The colours of the labels 1 … `count`, at most 254: those of fewer labels are their beginning."""
    return list(FIRST_LABELS[:count] if count <= len(FIRST_LABELS) else _all_colours()[:count])


@cache
def label_palette() -> bytes:
    """256 colours, red, green and blue each, for pictures whose pixels are labels: 0 black, 255 white."""
    return bytes([0, 0, 0, *(value for colour in _all_colours() for value in getrgb(colour)), 255, 255, 255])


# Names ----------------------------------------------------------------------------------------------------------------


def names_in(text: str) -> tuple[str, ...]:
    """The names between commas, without blanks around them. Raises CosegError as `check_names`."""
    names = tuple(name.strip() for name in text.split(","))
    check_names(names)
    return names


def check_names(names: Sequence[str], classes: int | None = None) -> None:
    """Raises CosegError for names that are empty, twice there, too long or hold what cannot be shown; for a number of
    names other than `classes`, where that is known. No names at all are in order."""
    called = f"names {', '.join(names)}"
    if names and classes is not None and len(names) != classes:
        of = f"{len(names)} for {classes} class{'es' if classes != 1 else ''}"
        raise CosegError(f"{called}: {of}; give one each, in the order of the labels")
    taken: set[str] = set()
    for place, name in enumerate(names, start=1):
        if not name:
            raise CosegError(f"{called}: the name of class {place} is empty; give one each, between commas")
        if not name.isprintable():
            raise CosegError(f"names: {name!a}, of class {place}, has letters that cannot be shown; leave them out")
        if len(name) > LONGEST:
            raise CosegError(f"names: that of class {place} has {len(name)} letters; {LONGEST} at most")
        key = unicodedata.normalize("NFKC", name).casefold()
        if key in taken:
            raise CosegError(f"{called}: {name} is there twice; give each class a name of its own")
        taken.add(key)


def class_names(classes: int, names: Sequence[str] | None = None) -> list[str]:
    """What the labels 1 … K are called: as somebody named them, else class 1 …"""
    return list(names) if names else [f"class {label}" for label in range(1, classes + 1)]


def legend_of(labels, classes: int, names: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """(colour, text) of the classes that a label map (H, W) shows, in their order; a given name after its label.
    Of a mask of one thing, classes 0, none."""
    if not classes:
        return []
    found = np.bincount(np.asarray(labels).ravel(), minlength=classes + 1)
    signs = zip(class_colours(classes), class_names(classes, names), strict=True)
    texts = [(colour, f"{label} {name}" if names else name) for label, (colour, name) in enumerate(signs, start=1)]
    return [sign for label, sign in enumerate(texts, start=1) if found[label]]


# How much -------------------------------------------------------------------------------------------------------------


def shares_of(labels, classes: int) -> list[float]:
    """Each class's share of a label map (H, W), in [0, 1]; of a mask of one thing, classes 0, none."""
    if not classes:
        return []
    labels = np.asarray(labels)
    counts = np.bincount(labels.ravel(), minlength=classes + 1)[1 : classes + 1]
    return [round(int(count) / labels.size, 6) for count in counts]


def scores_of(logits: Tensor, labels: Tensor) -> list[float | None]:
    """How sure the model is of each class where its label is: its mean probability there; None where it is nowhere.

    logits (K + 1, h, w), labels uint8 (H, W), 0 … K -> K numbers in [0, 1]. The labels are taken at the logits' size:
    a class that is too small to be seen there has None as well.
    """
    p = logits.detach().float().cpu().softmax(dim=0)
    small = resize_labels(torch.as_tensor(labels), tuple(p.shape[-2:]))
    inside = [p[label][small == label] for label in range(1, len(p))]
    return [round(float(values.mean()), 4) if len(values) else None for values in inside]
