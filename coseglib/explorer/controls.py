"""The page's widgets and where they stand; what they do is in `page`."""

import html
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from coseglib.data.images import SUFFIXES
from coseglib.explorer.pictures import encoded
from coseglib.explorer.session import MOST
from coseglib.figures import shortened
from coseglib.models import METHODS

OVERLAYS, MASKS, PROBABILITY, GRAD_CAM, MATCHES = "Overlays", "Masks", "Probability", "Grad-CAM", "Matches"
LOOKS = "Where it looks"
CELLS = 14  # a side, of the grid that is clicked: as fine as a network of 224 pixels compares positions, at stride 16
STYLE_SHEET = Path(__file__).with_name("explorer.css")
FAULTS = 3  # faults that are named one by one
WIDE = {"layout": {"width": "auto"}, "style": {"description_width": "90px"}}


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
        accept = ",".join(["image/*", *sorted(SUFFIXES)])
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
