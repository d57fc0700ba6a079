"""Masks over their photographs, as files and pages show them; without matplotlib, which takes seconds to import.

Colours are told apart by colour-blind readers too (Okabe and Ito): a foreground has the one of `MARKS` that differs
most from what is under and around it, labels have a colour each. Blue is left to true outlines.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from PIL.ImageColor import getrgb

OKABE_ITO = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
DARK = 20  # grey level of the line around a mask
MARKS = ("#E69F00", "#F0E442", "#009E73", "#CC79A7", "#D55E00")  # orange, yellow, green, pink, vermilion: far from blue
CIVIDIS = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838")

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def cielab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0 … 255 (3, …) -> CIELAB (3, …), D65: L* in 0 … 100; a distance of 2.3 can just be seen."""
    share = np.asarray(rgb, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = np.tensordot(TO_XYZ / TO_XYZ.sum(axis=1, keepdims=True), linear, axes=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def mark_colour(images: Sequence, masks: Sequence) -> str:
    """The one of `MARKS` whose worst contrast with a group's photographs, uint8 (3, H, W), is best. masks (h, w).

    Contrast: the CIELAB distance that nine in ten of the pixels under the mask, or 1/50 of a side around it, exceed.
    """
    inks = cielab(np.array([getrgb(name) for name in MARKS]).T)
    worst = np.full(len(MARKS), np.inf)
    for image, mask in zip(images, masks, strict=True):
        step = max(1, max(image.shape[-2:]) // 100)  # a photograph of 100 pixels says as much about its colours
        pixels = np.asarray(image[:, ::step, ::step])
        y, x = (np.arange(n) * old // n for n, old in zip(pixels.shape[-2:], mask.shape, strict=True))
        near = _grown(np.asarray(mask)[y][:, x] != 0, max(1, max(pixels.shape) // 50))
        if near.any():
            apart = np.linalg.norm(inks[:, :, None] - cielab(pixels[:, near])[:, None], axis=0)
            worst = np.minimum(worst, np.quantile(apart, 0.1, axis=1))
    return MARKS[int(worst.argmax())]


def class_colours(count: int) -> list[str]:
    """A colour for each of `count` classes: Okabe and Ito's seven, then steps of cividis, from dark to light."""
    first = list(OKABE_ITO[:count])
    known, steps = np.array([getrgb(colour) for colour in CIVIDIS]), np.linspace(0, 1, count - len(first))
    mixed = [np.interp(steps, np.linspace(0, 1, len(known)), channel).round().astype(int) for channel in known.T]
    return first + ["#{:02x}{:02x}{:02x}".format(*colour) for colour in zip(*mixed, strict=True)]


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """The mask and all within `radius` pixels of it, in a square. bool (H, W)."""
    for _ in range(2):  # along the columns, then along the rows
        grown, reach = mask.copy(), 0
        while reach < radius:  # what has grown by `reach` and is moved by `step` has grown by both
            step = min(reach + 1, radius - reach)
            before = grown.copy()
            grown[step:] |= before[:-step]
            grown[:-step] |= before[step:]
            reach += step
        mask = grown.T
    return mask


def overlay(image, mask, colours: Sequence[str] | None = None):
    """The mask over its photograph: tinted, an outline of the same colour inside the mask, a thin dark one around it.

    image uint8 (3, H, W), mask uint8 (H, W), 0 background -> uint8 (3, H, W), new, of the image's own type (tensor or
    array). The outline is 1/200 of the longer side. Memory beside the result: a few masks, for huge photographs' sake.
    colours  of the labels 1, 2, … of a label map; None: all that is not 0 has the photograph's own `mark_colour`
    Raises ValueError for two sizes.
    """
    if tuple(image.shape[-2:]) != tuple(mask.shape):
        raise ValueError(f"image {tuple(image.shape)} and mask {tuple(mask.shape)} are not of one size")
    labels = np.asarray(mask) if colours else np.asarray(mask) != 0
    line = max(1, round(max(mask.shape) / 200))
    result = np.array(image, copy=True)
    around = _grown(labels != 0, -(-line // 2)) & (labels == 0)
    for label, name in enumerate(colours or [mark_colour([image], [mask])], start=1):
        region = labels == label
        if not region.any():
            continue
        inner = _grown(~region, line) & region
        for channel, colour in zip(result, getrgb(name), strict=True):
            tinted = np.round(np.arange(256) * 0.5 + colour * 0.5).astype(np.uint8)
            np.copyto(channel, tinted.take(channel), where=region)
            np.copyto(channel, np.uint8(colour), where=inner)
    np.copyto(result, np.uint8(DARK), where=around)
    return result if isinstance(image, np.ndarray) else torch.from_numpy(result).as_subclass(type(image))


def veil(labels: np.ndarray, colours: Sequence[str]) -> bytes:
    """A mask to be laid over its photograph by others: a PNG, see-through but for tints and a thin dark line around.

    labels uint8 (H, W), 0 nothing, k in the k-th of at most 254 colours
    """
    picture = labels.astype(np.uint8)
    picture[_grown(labels != 0, 1) & (labels == 0)] = 255
    made, palette = Image.fromarray(picture, "P"), np.full((256, 3), DARK, np.uint8)
    palette[1 : len(colours) + 1] = [getrgb(name) for name in colours]
    made.putpalette(palette.tobytes())
    made.save(content := io.BytesIO(), "PNG", optimize=True, transparency=bytes([0] + [150] * 254 + [255]))
    return content.getvalue()
