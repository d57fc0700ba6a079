"""The page's widgets and where they stand; what they do is in `page`."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from coseglib.data.folders import EXPORTS, PICTURES
from coseglib.explorer.pictures import encoded
from coseglib.explorer.session import MOST
from coseglib.explorer.stage import Stage
from coseglib.figures import shortened
from coseglib.models import METHODS

THIS, NOT_THIS, MATCH, BRUSH, ERASER = "this", "not this", "what matches?", "brush", "eraser"
TOOLS = {  # what a click is for: how the browser draws it, and what it says beside the mouse
    THIS: ("this", "a click: on the object; a drawn box: it lies in here. With the shift key: not on the object"),
    NOT_THIS: ("not", "a click: not on the object. With the shift key: on it"),
    BRUSH: ("line", "paints in the mask. With the shift key: erases"),
    ERASER: ("line", "erases in the mask. With the shift key: paints"),
    MATCH: ("match", "a click: which places of the other photographs look like this one?"),
}
STYLE_SHEET = Path(__file__).with_name("explorer.css")
FAULTS = 3  # faults that are named one by one
WIDE = {"layout": {"width": "auto"}, "style": {"description_width": "90px"}}


def _classed(name: str, widget: widgets.DOMWidget) -> widgets.DOMWidget:
    """The widget, known to the style sheet as coseg-`name`."""
    widget.add_class(f"coseg-{name}")
    return widget


class Card:
    """A photograph on the page: its picture, which takes clicks and strokes, and whether it is a partner."""

    def __init__(self, name: str, size: tuple[int, int], moved: Callable, changed: Callable):
        """size: (H, W) of the photograph."""
        self.stage = Stage(moved, name=name, size=size[::-1], layout={"width": "100%"})
        self.partner = widgets.Checkbox(True, description=shortened(name), indent=False, tooltip=f"{name}: a partner?")
        self.partner.observe(lambda change: changed(change.new), "value")
        self.values = widgets.HTML()
        self.box = _classed("card", widgets.VBox([self.stage, self.partner, self.values]))

    def state(self) -> tuple:
        """What it shows, for `restore`."""
        return self.stage.kind, self.stage.value, self.values.value, self.stage.marks

    def restore(self, state: tuple) -> None:
        """Show again what it showed."""
        with self.stage.hold_sync():
            self.stage.kind, self.stage.value, self.values.value, self.stage.marks = state

    def close(self) -> None:
        """Take it off the browser's and the kernel's lists."""
        for widget in (self.box, *self.box.children):
            widget.close()

    def show(self, pixels: np.ndarray, values: str, marks: list[dict]) -> None:
        """A new picture, the line below it, and what is marked in it, as `Stage.marks`."""
        data, kind = encoded(pixels)
        self.restore((kind, data, f'<div class="coseg-values">{html.escape(values)}</div>', marks))


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
        tips = "beside the masks: cut-out objects, COCO annotations, a page; several with Ctrl or Cmd"
        kinds = {"options": list(EXPORTS), "rows": len(EXPORTS), "description": "and export", "tooltip": tips}
        self.exports = widgets.SelectMultiple(**kinds, **WIDE)
        self.save = widgets.Button(description="save", icon="save", tooltip="masks, overlays, and all that was said")
        self.reopen = widgets.Button(description="open", icon="folder-open", tooltip="go on with what was saved there")

        tips = [tip for _, tip in TOOLS.values()]
        tool = widgets.ToggleButtons(options=list(TOOLS), tooltips=tips, style={"button_width": "auto"})
        self.tool = _classed("tools", tool)
        self.radius = widgets.FloatSlider(3, min=0.5, max=15, step=0.5, description="brush, % of the longer side")
        self.radius.style.description_width = "auto"
        self.undo = widgets.Button(description="undo", icon="undo")
        self.clear = widgets.Button(description="clear", tooltip="take back all that was said and painted; undo helps")
        self.hand = _classed("hand", widgets.Box([self.tool, self.radius, self.undo, self.clear]))
        self.typed_in = widgets.Dropdown(description="typed, in", **WIDE)
        places = "x,y  or  x0,y0 x1,y1  in pixels, then Enter"
        self.typed = widgets.Text(description="at", placeholder=places, **path)
        self.example = widgets.Button(description="its corrected mask is right", tooltip="mark the object by it")
        self.said = _classed("said", widgets.VBox())

        self.view = _classed("views", widgets.ToggleButtons(style={"button_width": "auto"}))
        self.trouble, self.status = widgets.HTML(), widgets.HTML()
        self.scale = _classed("scale", widgets.HTML())
        self.pictures = _classed("pictures", widgets.Box())
        sections = {
            "Photographs": [self.source, self.group, self.count, self.folder, self.upload, self.forget],
            "System": [self.system, self.checkpoint, self.file, self.pooling],
            "Masks": [self.threshold, self.crf, self.save_to, self.exports, self.save, self.reopen],
            "What is meant": [self.typed_in, self.typed, self.example, self.said],
        }
        boxes = [widgets.VBox([widgets.HTML(f"<b>{name}</b>"), *some]) for name, some in sections.items()]
        style = _classed("style", widgets.HTML(f"<style>{STYLE_SHEET.read_text(encoding='utf-8')}</style>"))
        controls = _classed("controls", widgets.Box(boxes))
        self.children = [style, controls, self.trouble, self.view, self.hand, self.scale, self.status]
        self.children += (self.pictures,)

    def list_said(self, lines: Sequence[tuple[str, Callable]]) -> None:
        """What was said, a line each, and what to do where it is taken back."""
        before, rows = self.said.children, []
        if [html.escape(text) for text, _ in lines] == [row.children[0].value for row in before]:
            return
        for text, remove in lines:
            button = widgets.Button(icon="times", tooltip=f"take back: {text}")
            button.on_click(lambda _, remove=remove: remove())
            rows.append(widgets.HBox([widgets.HTML(html.escape(text)), button]))
        self.said.children = rows
        for widget in (w for row in before for w in (*row.children, row)):
            widget.close()

    def say(self, *lines: str) -> None:
        """Lines of trouble at the head of the page; none: it is over."""
        shown = [*lines[:FAULTS], *([f"and {len(lines) - FAULTS} more"] if len(lines) > FAULTS else [])]
        text = "".join(f"<div>{html.escape(' '.join(line.split()))}</div>" for line in shown)
        self.trouble.value = f'<div class="coseg-trouble" role="alert">{text}</div>' if text else ""

    def busy(self, what: str, role: str = "none") -> None:
        """What is being done, below the views, or with role "status" what is shown."""
        self.status.value = f'<div class="coseg-status" role="{role}">{html.escape(what)}</div>'
