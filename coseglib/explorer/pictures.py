"""Pictures of the page: photographs and maps as bytes."""

import html
import io

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from coseglib.explorer.session import Heat
from coseglib.figures.style import COLOUR_MAP

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
