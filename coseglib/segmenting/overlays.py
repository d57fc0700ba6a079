"""Masks over their photographs, as files and pages show them; without matplotlib, which takes seconds to import.

Colours are told apart by colour-blind readers too (Okabe and Ito): a foreground has the one of `MARKS` that differs
most from what is under and around it, labels have a colour each (`coseglib.segmenting.labels`) and their names below
the photograph. Blue is left to true outlines.
"""

import io
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageColor import getrgb

from coseglib.segmenting.labels import cielab

DARK = 20  # grey level of the line around a mask
LEGEND_FROM = 160  # pixels of width: below, no names are written
MARKS = ("#E69F00", "#F0E442", "#009E73", "#CC79A7", "#D55E00")  # orange, yellow, green, pink, vermilion: far from blue


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


def outline(mask: np.ndarray, line: int) -> np.ndarray:
    """The part of a mask (H, W) that is within `line` pixels of what is beside it, in a square. bool (H, W)."""
    inside = np.asarray(mask) != 0
    return _grown(~inside, line) & inside


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
        inner = outline(region, line)
        for channel, colour in zip(result, getrgb(name), strict=True):
            tinted = np.round(np.arange(256) * 0.5 + colour * 0.5).astype(np.uint8)
            np.copyto(channel, tinted.take(channel), where=region)
            np.copyto(channel, np.uint8(colour), where=inner)
    np.copyto(result, np.uint8(DARK), where=around)
    return result if isinstance(image, np.ndarray) else torch.from_numpy(result).as_subclass(type(image))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib; that itself is not imported."""
    fonts = Path(find_spec("matplotlib").origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)


def with_legend(image, signs: Sequence[tuple[str, str]]):
    """A picture uint8 (3, H, W) with its legend in a white strip below: (3, H + h, W), of the image's own type.

    signs  (colour, text) each, from left to right, on as many lines as they need; a text that is wider than the picture
           is cut, letters that DejaVu Sans lacks (Chinese, say) are boxes. As it was without signs, and below
           LEGEND_FROM pixels of width
    """
    width = image.shape[-1]
    if not signs or width < LEGEND_FROM:
        return image
    size = max(12, min(28, width // 40))  # of the letters
    font, step, gap = _font(size), round(1.6 * size), size // 2
    places, x, y = [], gap, 0
    for colour, text in signs:
        room = width - 3 * gap - size
        while font.getlength(text) > room:
            text = text.removesuffix("…")[:-1] + "…"
        needed = size + gap + int(font.getlength(text)) + 1
        if x > gap and x + needed + gap > width:
            x, y = gap, y + step
        places.append((x, y, colour, text))
        x += needed + 2 * gap
    strip = Image.new("RGB", (width, y + step + gap), "white")
    draw = ImageDraw.Draw(strip)
    for x, y, colour, text in places:
        middle = y + gap // 2 + step // 2
        draw.rectangle((x, middle - size // 2, x + size, middle + size // 2), fill=colour, outline=(DARK,) * 3)
        draw.text((x + size + gap, middle), text, font=font, fill=(DARK,) * 3, anchor="lm")
    result = np.concatenate([np.asarray(image), np.asarray(strip).transpose(2, 0, 1)], axis=1)
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
