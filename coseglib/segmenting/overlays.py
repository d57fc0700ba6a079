"""Masks over their photographs, as files and pages show them; without matplotlib, which takes seconds to import.

Colours are told apart by colour-blind readers too (Okabe and Ito): a foreground is orange, labels have a colour each.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL.ImageColor import getrgb
from scipy import ndimage

OKABE_ITO = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
CIVIDIS = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838")


def class_colours(count: int) -> list[str]:
    """A colour for each of `count` classes: Okabe and Ito's seven, then steps of cividis, from dark to light."""
    first = list(OKABE_ITO[:count])
    known, steps = np.array([getrgb(colour) for colour in CIVIDIS]), np.linspace(0, 1, count - len(first))
    mixed = [np.interp(steps, np.linspace(0, 1, len(known)), channel).round().astype(int) for channel in known.T]
    return first + ["#{:02x}{:02x}{:02x}".format(*colour) for colour in zip(*mixed, strict=True)]


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """The mask and all within `radius` pixels of it, in a square. bool (H, W)."""
    return ndimage.maximum_filter(mask.view(np.uint8), 2 * radius + 1, mode="constant").view(bool)


def overlay(image, mask, colours: Sequence[str] | None = None):
    """The mask over its photograph: orange tint, orange outline inside the mask, a thin dark one around it.

    image uint8 (3, H, W), mask uint8 (H, W), 0 background -> uint8 (3, H, W), new, of the image's own type (tensor or
    array). The outline is 1/200 of the longer side. Memory beside the result: a few masks, for huge photographs' sake.
    colours  of the labels 1, 2, … of a label map, in the place of orange for all that is not 0
    Raises ValueError for two sizes.
    """
    if tuple(image.shape[-2:]) != tuple(mask.shape):
        raise ValueError(f"image {tuple(image.shape)} and mask {tuple(mask.shape)} are not of one size")
    labels = np.asarray(mask) if colours else np.asarray(mask) != 0
    line = max(1, round(max(mask.shape) / 200))
    result = np.array(image, copy=True)
    around = _grown(labels != 0, -(-line // 2)) & (labels == 0)
    for label, name in enumerate(colours or OKABE_ITO[:1], start=1):
        region = labels == label
        if not region.any():
            continue
        inner = _grown(~region, line) & region
        for channel, colour in zip(result, getrgb(name), strict=True):
            tinted = np.round(np.arange(256) * 0.5 + colour * 0.5).astype(np.uint8)
            np.copyto(channel, tinted[channel], where=region)
            channel[inner] = colour
    result[:, around] = 20
    return result if isinstance(image, np.ndarray) else torch.from_numpy(result).as_subclass(type(image))
