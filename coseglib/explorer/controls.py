"""The page's widgets, where they stand, and their pictures as bytes; what they do is in `page`."""

import html
import io
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from coseglib.data.folders import PICTURES
from coseglib.explorer.session import MOST, Heat
from coseglib.figures import shortened
from coseglib.figures.style import COLOUR_MAP
from coseglib.models import METHODS

OVERLAYS, MASKS, PROBABILITY, GRAD_CAM, MATCHES = "Overlays", "Masks", "Probability", "Grad-CAM", "Matches"
LOOKS = "Where it looks"
CELLS = 14  # a side, of the grid that is clicked: as fine as a network of 224 pixels compares positions, at stride 16
STYLE_SHEET = Path(__file__).with_name("explorer.css")
FAULTS = 3  # faults that are named one by one
WIDE = {"layout": {"width": "auto"}, "style": {"description_width": "90px"}}
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


def _classed(name: str, widget: widgets.DOMWidget) -> widgets.DOMWidget:
    """The widget, known to the style sheet as coseg-`name`."""
    widget.add_class(f"coseg-{name}")
    return widget


class Card:
    """A photograph on the page: its picture, the grid over it, and whether it is a partner.

    Over the picture lie CELLS × CELLS transparent buttons, one widget of radio buttons, dressed by the style sheet.
    """

    def __init__(self, name: str, clicked: Callable, changed: Callable):
        self.image = widgets.Image(layout={"width": "100%"})
        places = [f"row {i // CELLS + 1}, column {i % CELLS + 1}" for i in range(CELLS**2)]
        # Labels that are their own places: the browser then makes the buttons once, and not at every change.
        options, style = [(str(i), i) for i in range(CELLS**2)], {"button_width": "auto"}
        cells = widgets.ToggleButtons(options=options, value=None, tooltips=places, style=style)
        self.cells = _classed("cells", cells)
        self.cells.observe(lambda change: clicked(change.new), "value")
        self.partner = widgets.Checkbox(True, description=shortened(name), indent=False, tooltip=f"{name}: a partner?")
        self.partner.observe(lambda change: changed(change.new), "value")
        self.values = widgets.HTML()
        stage = _classed("stage", widgets.Box([self.image, self.cells]))
        self.box = _classed("card", widgets.VBox([stage, self.partner, self.values]))

    def state(self) -> tuple:
        """What it shows, for `restore`."""
        return self.image.format, self.image.value, self.values.value, self.cells.value

    def restore(self, state: tuple) -> None:
        """Show again what it showed."""
        with self.image.hold_sync():
            self.image.format, self.image.value, self.values.value, self.cells.value = state

    def close(self) -> None:
        """Take it off the browser's and the kernel's lists."""
        for widget in (self.box, *self.box.children, *self.box.children[0].children):
            widget.close()

    def show(self, pixels: np.ndarray, values: str, place: int | None) -> None:
        """A new picture, the line below it, and the cell that is marked, or none."""
        data, kind = encoded(pixels)
        self.restore((kind, data, f'<div class="coseg-values">{html.escape(values)}</div>', place))


class Controls(widgets.VBox):
    """All widgets of the page; save_to: the folder that is proposed for masks, photos: how many are looked at."""

    def __init__(self, save_to: str | Path, photos: int):
        super().__init__()
        self.add_class("coseg-explorer")
        self.source = widgets.Dropdown(description="photographs", **WIDE)
        self.group = widgets.Dropdown(description="group", **WIDE)
        self.count = widgets.IntSlider(photos, 1, MOST, description="how many", continuous_update=False, **WIDE)
        path = {"continuous_update": False, **WIDE}
        self.folder = widgets.Text(description="or a folder", placeholder="its path, then Enter", **path)
        accept = ",".join(["image/*", *sorted(PICTURES)])
        self.upload = widgets.FileUpload(accept=accept, multiple=True, description="upload photographs")
        self.forget = widgets.Button(description="forget the uploads", layout={"display": "none"})

        self.system = widgets.Dropdown(options=list(METHODS), description="system", **WIDE)
        self.checkpoint = widgets.Dropdown(description="checkpoint", **WIDE)
        self.file = widgets.Text(description="or a file", placeholder="….safetensors, then Enter", **path)
        tips = ["the mean of the partners' attention", "in each channel the smallest"]
        style = {**WIDE["style"], "button_width": "70px"}
        pooling = widgets.ToggleButtons(options=["mean", "min"], description="pooling", style=style, tooltips=tips)
        self.pooling = _classed("pooling", pooling)

        threshold = widgets.FloatSlider(0.5, min=0.05, max=0.95, step=0.01, description="threshold", **WIDE)
        self.threshold = _classed("threshold", threshold)
        self.crf = widgets.Checkbox(description="contours by a dense CRF", indent=False, layout=WIDE["layout"])
        self.save_to = widgets.Text(str(save_to), description="save into", **WIDE)
        self.save = widgets.Button(description="save masks", icon="save")

        self.view = _classed("views", widgets.ToggleButtons(style={"button_width": "auto"}))
        self.trouble, self.status = widgets.HTML(), widgets.HTML()
        self.scale = _classed("scale", widgets.HTML())
        self.pictures = _classed("pictures", widgets.Box())
        sections = {
            "Photographs": [self.source, self.group, self.count, self.folder, self.upload, self.forget],
            "System": [self.system, self.checkpoint, self.file, self.pooling],
            "Masks": [self.threshold, self.crf, self.save_to, self.save],
        }
        boxes = [widgets.VBox([widgets.HTML(f"<b>{name}</b>"), *some]) for name, some in sections.items()]
        style = _classed("style", widgets.HTML(f"<style>{STYLE_SHEET.read_text(encoding='utf-8')}</style>"))
        controls = _classed("controls", widgets.Box(boxes))
        self.children = [style, controls, self.trouble, self.view, self.scale, self.status, self.pictures]

    def say(self, *lines: str) -> None:
        """Lines of trouble at the head of the page; none: it is over."""
        shown = [*lines[:FAULTS], *([f"and {len(lines) - FAULTS} more"] if len(lines) > FAULTS else [])]
        text = "".join(f"<div>{html.escape(' '.join(line.split()))}</div>" for line in shown)
        self.trouble.value = f'<div class="coseg-trouble" role="alert">{text}</div>' if text else ""

    def busy(self, what: str, role: str = "none") -> None:
        """What is being done, below the views, or with role "status" what is shown."""
        self.status.value = f'<div class="coseg-status" role="{role}">{html.escape(what)}</div>'
