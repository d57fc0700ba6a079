"""What the page shows of a session's photographs: masks, overlays and heat maps as pixels and as bytes."""

import html
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from coseglib.explorer.session import Heat, Session
from coseglib.figures.style import COLOUR_MAP
from coseglib.segmenting.labels import class_colours, class_names, label_palette
from coseglib.segmenting.overlays import mark_colour, overlay

OVERLAYS, MASKS, PROBABILITY, GRAD_CAM, MATCHES = "Overlays", "Masks", "Probability", "Grad-CAM", "Matches"
LOOKS = "Where it looks"
CELLS = 14  # a side, of the grid of places that are matched: as fine as a network of 224 pixels compares at stride 16
HEAT_COLOURS = (255 * matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3]).round().astype(np.uint8)  # (256, 3)


def encoded(pixels: np.ndarray) -> tuple[bytes, str]:
    """uint8 (H, W) as PNG, (3, H, W) as JPEG: (bytes, "png" or "jpeg"). Both take milliseconds at the page's size."""
    file, kind = io.BytesIO(), "png" if pixels.ndim == 2 else "jpeg"
    image = Image.fromarray(pixels if kind == "png" else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.save(file, kind, quality=90, subsampling=0)  # of JPEG alone
    return file.getvalue(), kind


def heated(picture: Tensor, map_: Tensor | None, limits: tuple[float, float], peak: bool = False) -> np.ndarray:
    """A heat map over its photograph in grey, as `figures.show_heat` draws it. uint8 (3, H, W); no map: grey alone.

    picture  uint8 (3, H, W)     map_  (h, w), of any size     limits  the ends of the colour scale
    peak     a ring around the largest value
    """
    grey = np.tensordot((0.299, 0.587, 0.114), np.asarray(picture, np.float32), axes=1)  # (H, W)
    if map_ is None:
        return np.repeat((0.5 * grey + 60).astype(np.uint8)[None], 3, axis=0)
    height, width = grey.shape
    low, high = limits
    level = np.clip((np.asarray(map_, np.float32) - low) / (high - low), 0, 1)
    large = Image.fromarray(level).resize((width, height), Image.Resampling.BILINEAR)
    colours = HEAT_COLOURS[np.rint(255 * np.asarray(large)).astype(int)]  # (H, W, 3)
    result = np.rint(0.65 * colours.transpose(2, 0, 1) + 0.35 * grey).astype(np.uint8)
    if peak:
        row, column = np.unravel_index(int(np.argmax(map_)), map_.shape)
        y, x = (row + 0.5) * height / map_.shape[0], (column + 0.5) * width / map_.shape[1]
        away = np.hypot(np.arange(height)[:, None] + 0.5 - y, np.arange(width) + 0.5 - x)
        radius = max(height, width) / 32
        result[:, np.abs(away - radius) < 2.5] = 0
        result[:, np.abs(away - radius) < 1.2] = 255
    return result


def scale_bar(heat: Heat) -> str:
    """The colour scale of all pictures of a view, as HTML."""
    stops = ", ".join(matplotlib.colors.to_hex(HEAT_COLOURS[i] / 255) for i in range(0, 256, 51))
    low, high = (f"{value:.3g}" for value in heat.limits)
    bar = f'<span class="coseg-bar" style="background: linear-gradient(to right, {stops})"></span>'
    return f"<div>{low} {bar} {high} &ensp;{html.escape(heat.unit)}</div>"


def cell_of(place: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box (x0, y0, x1, y1) of a cell of the grid, 0 … CELLS² − 1 by rows, in pixels of a photograph (H, W)."""
    (row, column), (height, width) = divmod(place, CELLS), size
    return tuple(
        k * side / CELLS for k, side in ((column, width), (row, height), (column + 1, width), (row + 1, height))
    )


def heat_of(session: Session, view: str, post: str, clicked: tuple[int, int]) -> Heat:
    """The maps of a view that has some. clicked: a photograph and one of its cells."""
    i, place = clicked
    if view == PROBABILITY:
        return session.probability(post)
    if view == GRAD_CAM:
        return session.grad_cam(i)
    if view == LOOKS:
        return session.spatial_maps()
    return session.matches(i, *((k + 0.5) / CELLS for k in divmod(place, CELLS)))


def legend(classes: int) -> str:
    """The colours of the classes, as HTML."""
    signs = zip(class_colours(classes), class_names(classes), strict=True)
    swatch = '<span class="coseg-swatch" style="background: {}"></span> {}'
    return f"<div>{' &ensp;'.join(swatch.format(colour, html.escape(name)) for colour, name in signs)}</div>"


def drawn(
    session: Session, view: str, masks: Sequence[Tensor], post: str, clicked: tuple[int, int]
) -> tuple[list[np.ndarray], str, Heat | None]:
    """The pictures, uint8 (H, W) or (3, H, W), what their colours mean, as HTML, and the maps that they show."""
    shown, model = [o.shown for o in session.photos], session.model
    if view == MASKS and model.online:
        palette = np.frombuffer(label_palette(), np.uint8).reshape(256, 3)
        return [palette[np.asarray(m)].transpose(2, 0, 1) for m in masks], legend(model.classes), None
    if view == MASKS:
        return [np.asarray(m) * 255 for m in masks], "<div>white: foreground</div>", None
    if view == OVERLAYS:
        colours = class_colours(model.classes) if model.online else [mark_colour(shown, masks)]  # of the whole group
        pictures = [overlay(picture.numpy(), m, colours) for picture, m in zip(shown, masks, strict=True)]
        return pictures, legend(model.classes) if model.online else "<div>in colour: foreground</div>", None
    heat = heat_of(session, view, post, clicked)
    peaks = [view == MATCHES and i != clicked[0] for i in range(len(shown))]
    maps = zip(shown, heat.maps, peaks, strict=True)
    return [heated(picture, m, heat.limits, peak) for picture, m, peak in maps], scale_bar(heat), heat
