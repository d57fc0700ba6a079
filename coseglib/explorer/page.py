"""A page for JupyterLab: photographs, their masks and heat maps, and what changes when one thing is changed.

    Explorer()                      the procedural scenes and the shipped checkpoint
    Explorer("photos/", photos=12)  a folder of your own, or a data set by its name

It is ipywidgets alone, so nothing has to be installed in JupyterLab. All that is computed is `coseglib.explorer.session`'s; here
are the controls, the drawing of a picture as bytes, and what is said when something cannot be done: one line at the
head of the page, and everything stays as it was. Without a browser (papermill, nbval) the page is made and waits for
nothing.

A picture that can be clicked: over each lies a grid of CELLS × CELLS transparent buttons, which is one widget of radio
buttons, dressed by a style sheet. A cell is as fine as a network of 224 pixels compares positions, at stride 16.
"""

import html
import io
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import ipywidgets as widgets
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from coseglib.answering.masks import post_of
from coseglib.core.errors import CosegError
from coseglib.core.paths import DEFAULT_CHECKPOINT
from coseglib.data import available, load
from coseglib.data.images import SUFFIXES, read_image
from coseglib.data.record import Group, Photo
from coseglib.evaluation.cards import cards
from coseglib.explorer.session import MOST, Heat, Session, opened
from coseglib.figures import shortened, show_group
from coseglib.figures.style import COLOUR_MAP
from coseglib.models import METHODS
from coseglib.models.checkpoints import load_model
from coseglib.segmenting.overlays import class_colours, overlay

CELLS = 14  # a side, of the grid that is clicked
OVERLAYS, MASKS, PROBABILITY, GRAD_CAM, MATCHES = "Overlays", "Masks", "Probability", "Grad-CAM", "Matches"
LOOKS = "Where it looks"
FOLDER, UPLOADS = " folder", " uploads"  # sources besides data sets, whose names begin with no blank
STYLE = Path(__file__).with_name("explorer.css")
COLOURS = (255 * matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3]).round().astype(np.uint8)  # (256, 3)
SOME = 3  # faults that are named one by one


# Pictures as bytes --------------------------------------------------------------------------------------------------


def encoded(pixels: np.ndarray) -> tuple[bytes, str]:
    """uint8 (H, W) as PNG, (3, H, W) as JPEG: (bytes, "png" or "jpeg"). Both take milliseconds at the page's size."""
    file = io.BytesIO()
    if pixels.ndim == 2:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue(), "png"
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "JPEG", quality=90, subsampling=0)
    return file.getvalue(), "jpeg"


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
    colours = COLOURS[np.rint(255 * np.asarray(large)).astype(int)]  # (H, W, 3)
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
    stops = ", ".join(matplotlib.colors.to_hex(COLOURS[i] / 255) for i in range(0, 256, 51))
    low, high = (f"{value:.3g}" for value in heat.limits)
    bar = f'<span class="coseg-bar" style="background: linear-gradient(to right, {stops})"></span>'
    return f"<div>{low} {bar} {high} &ensp;{html.escape(heat.unit)}</div>"


# Uploads ------------------------------------------------------------------------------------------------------------


def file_name(name: str) -> str:
    """What a browser calls a file, as a name that any folder takes: no path, no control characters, not too long."""
    plain = re.sub(r"[\x00-\x1f\x7f]", "", re.split(r"[/\\]", name)[-1]).strip(" .") or "photo"
    stem, dot, ending = plain.rpartition(".")
    return f"{stem[:50]}{dot}{ending[:8]}" if stem else plain[:50]


# The page -----------------------------------------------------------------------------------------------------------


class Explorer(widgets.VBox):
    """The page; `session` is what it shows.

    data        a data set (`coseglib.data.NAMES`) or a folder      group  one of its groups by name; "": the first
    photos      how many of them are looked at, at most             checkpoint  a shipped one, or a file
    save_to     the folder that the page proposes for masks         root   of the data sets, see `coseglib.data.load`
    Raises CosegError for what does not exist; later, in the page, the same errors are a line at its head.
    """

    def __init__(
        self,
        data: str | Path = "synthetic",
        group: str = "",
        photos: int = 6,
        checkpoint: str | Path = DEFAULT_CHECKPOINT,
        save_to: str | Path = "masks",
        root: str | Path | None = None,
    ):
        super().__init__()
        self.add_class("coseg-explorer")
        self._root, self._silent, self._uploaded = root, False, []
        self._folder = tempfile.TemporaryDirectory(prefix="coseg-")  # of uploads; goes when the page does
        self._wanted, self._cards = max(1, photos), []
        self.session = Session(load_model(checkpoint))
        self._build(save_to)
        self._of_model()
        self._look_at(data, group)
        self._listen()

    def __repr__(self) -> str:
        card = getattr(self.session.model, "card", {})
        return (
            f"Explorer: {len(self.session.photos)} photographs, {card.get('name', type(self.session.model).__name__)}"
        )

    # Its parts -------------------------------------------------------------------------------------------------------

    def _build(self, save_to: str | Path) -> None:
        wide, label = {"width": "auto"}, {"description_width": "90px"}
        found = {name: what for name, what in available(self._root).items() if isinstance(what, str)}
        found = dict(sorted(found.items(), key=lambda item: not item[0].startswith("synthetic")))  # everyone has these
        self._sources = [(f"{name}: {what}", name) for name, what in found.items()]
        self.source = widgets.Dropdown(options=self._sources, description="photographs", layout=wide, style=label)
        self.group = widgets.Dropdown(description="group", layout=wide, style=label)
        self.count = widgets.IntSlider(
            self._wanted, 1, MOST, description="how many", continuous_update=False, layout=wide, style=label
        )
        self.folder = widgets.Text(
            description="or a folder",
            placeholder="its path, then Enter",
            continuous_update=False,
            layout=wide,
            style=label,
        )
        self.upload = widgets.FileUpload(
            accept=",".join(["image/*", *sorted(SUFFIXES)]), multiple=True, description="upload photographs"
        )
        self.forget = widgets.Button(description="forget the uploads", layout={"display": "none"})
        self.system = widgets.Dropdown(options=list(METHODS), description="system", layout=wide, style=label)
        self.checkpoint = widgets.Dropdown(description="checkpoint", layout=wide, style=label)
        self.file = widgets.Text(
            description="or a file",
            placeholder="….safetensors, then Enter",
            continuous_update=False,
            layout=wide,
            style=label,
        )
        self.pooling = widgets.ToggleButtons(
            options=["mean", "min"], description="pooling", style={**label, "button_width": "70px"},
            tooltips=["the mean of the partners' attention", "in each channel the smallest"],
        )  # fmt: skip
        self.pooling.add_class("coseg-pooling")
        self.threshold = widgets.FloatSlider(
            0.5, min=0.05, max=0.95, step=0.01, description="threshold", layout=wide, style=label
        )
        self.threshold.add_class("coseg-threshold")
        self.crf = widgets.Checkbox(description="contours by a dense CRF", indent=False, layout=wide)
        self.save_to = widgets.Text(str(save_to), description="save into", layout=wide, style=label)
        self.save = widgets.Button(description="save masks", icon="save")
        self.view = widgets.ToggleButtons(style={"button_width": "auto"})
        self.view.add_class("coseg-views")
        self.trouble = widgets.HTML()
        self.status = widgets.HTML()
        self.scale = widgets.HTML()
        self.scale.add_class("coseg-scale")
        self.pictures = widgets.Box()
        self.pictures.add_class("coseg-pictures")
        parts = [
            ("Photographs", [self.source, self.group, self.count, self.folder, self.upload, self.forget]),
            ("System", [self.system, self.checkpoint, self.file, self.pooling]),
            ("Masks", [self.threshold, self.crf, self.save_to, self.save]),
        ]
        controls = widgets.Box([widgets.VBox([widgets.HTML(f"<b>{n}</b>"), *some]) for n, some in parts])
        controls.add_class("coseg-controls")
        style = widgets.HTML(f"<style>{STYLE.read_text(encoding='utf-8')}</style>")
        style.add_class("coseg-style")
        self.children = [style, controls, self.trouble, self.view, self.scale, self.status, self.pictures]

    def _listen(self) -> None:
        def on(widget: widgets.Widget, action: Callable, trait: str = "value") -> None:
            widget.observe(lambda change: self._act(action, change.new), trait)

        on(self.source, self._on_source)
        on(self.group, self._on_group)
        on(self.count, self._on_count)
        on(self.folder, self._on_folder)
        on(self.upload, self._on_upload)
        on(self.system, self._on_system)
        on(self.checkpoint, self._on_checkpoint)
        on(self.file, self._on_file)
        on(self.pooling, lambda how: (self.session.set_how(how), self._draw()))
        on(self.threshold, lambda _: self._draw())
        on(self.crf, lambda _: self._draw())
        on(self.view, lambda _: self._draw())
        self.forget.on_click(lambda _: self._act(self._on_forget, None))
        self.save.on_click(lambda _: self._act(self._on_save, None))

    @contextmanager
    def _quietly(self):
        """Controls are set without being heard."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    def _act(self, action: Callable, value) -> None:
        """One action of the user. What goes wrong is a line in the page, and the controls say again what is shown."""
        if self._silent:
            return
        self._say()
        try:
            action(value)
        except Exception as error:  # whatever it is, nobody reads a traceback behind a button
            known = isinstance(error, CosegError)
            self._say(str(error) if known else f"{type(error).__name__}: {error}; nothing was changed")
            self._agree()

    def _say(self, *lines: str) -> None:
        """Lines of trouble at the head of the page; none: it is over."""
        shown = [*lines[:SOME], *([f"and {len(lines) - SOME} more"] if len(lines) > SOME else [])]
        text = "".join(f"<div>{html.escape(' '.join(line.split()))}</div>" for line in shown)
        self.trouble.value = f'<div class="coseg-trouble" role="alert">{text}</div>' if text else ""

    def _agree(self) -> None:
        """The controls say what the session holds."""
        with self._quietly():
            self.source.options = [
                *self._sources,
                *([(f"folder {self._data}", FOLDER)] if self._source == FOLDER else []),
                *([(f"uploads: {len(self._uploaded)} photographs", UPLOADS)] if self._uploaded else []),
            ]
            self.source.value = self._source
            self.group.options = [(f"{g.name} ({len(g)})", i) for i, g in enumerate(self._groups)]
            self.group.value = self._place
            most = min(MOST, len(self._groups[self._place]))
            self.count.max, self.count.value = most, self._shown
            self.count.disabled = most < 2
            self.forget.layout.display = "" if self._uploaded else "none"
            model, card = self.session.model, getattr(self.session.model, "card", {})
            self.system.value = card["method"]
            names = _shipped(card["method"])
            self.checkpoint.options = [*names, *([] if card["name"] in names else [card["name"]])]
            self.checkpoint.value = card["name"]
            self.pooling.value, self.pooling.disabled = self.session.how, model.kind != "context"
            self.threshold.disabled = self.session.classes > 1
            views = [
                OVERLAYS,
                MASKS,
                PROBABILITY,
                GRAD_CAM,
                *([LOOKS] if self.session.looks_somewhere else []),
                MATCHES,
            ]
            view = self.view.value if self.view.value in views else OVERLAYS
            self.view.options, self.view.value = views, view
            for card_, i in zip(self._cards, range(len(self._cards)), strict=True):
                card_.partner.value = i in self.session.partners

    # What the user does ----------------------------------------------------------------------------------------------

    def _look_at(self, data: str | Path, group: str = "") -> None:
        """Groups of a data set or a folder, and one of them. Nothing is changed where they cannot be read."""
        self._busy(f"reading {data} …")
        groups = load(data, self._root)
        known = [g.name for g in groups]
        if group and group not in known:
            raise CosegError(f"{data}: no group {group}; one of {', '.join(known[:12])}")
        named = str(data) in dict(self._sources).values()
        self._set_photos(groups, known.index(group) if group else 0, str(data) if named else FOLDER, str(data))

    def _set_photos(self, groups: list[Group], place: int, source: str, data: str, wanted: int = 0) -> None:
        chosen = groups[place]
        count = min(wanted or self._wanted, MOST, len(chosen))
        faults = self.session.set_photos(chosen.photos[:count], chosen.targets)
        self._groups, self._place, self._source, self._data = groups, place, source, data
        before, self._shown = self._cards, count
        with self._quietly():
            self._cards = [
                _Card(name, partial(self._on_click, i), self._act_partner) for i, name in enumerate(self.session.names)
            ]
            self.pictures.children = [card.box for card in self._cards]
            for card in before:
                card.close()
        self._at = None
        self._agree()
        self._draw()
        if faults:
            self._say(*faults)

    def _on_source(self, source: str) -> None:
        if source == UPLOADS:
            self._show_uploads()
        elif source != FOLDER:
            self._look_at(source)

    def _on_group(self, place: int) -> None:
        self._busy("reading …")
        self._set_photos(self._groups, place, self._source, self._data)

    def _on_count(self, count: int) -> None:
        self._busy("reading …")
        self._set_photos(self._groups, self._place, self._source, self._data, count)
        self._wanted = count

    def _on_folder(self, path: str) -> None:
        if path.strip():
            folder = Path(path.strip()).expanduser()
            if not folder.is_dir():
                raise CosegError(f"{folder}: no such folder; check the path")
            self._look_at(folder)

    def _on_upload(self, files: Sequence[dict]) -> None:
        """Photographs are added to those that were uploaded before; what is none is named, and costs nothing else."""
        faults, before = [], len(self._uploaded)
        for file in files:
            name, content = file_name(file["name"]), bytes(file["content"])
            if any(p.path.name == name and p.path.read_bytes() == content for p in self._uploaded):
                faults.append(f"{name}: is here already")
                continue
            path = Path(tempfile.mkdtemp(dir=self._folder.name), name)
            path.write_bytes(content)
            photo = Photo("folder", name, ("uploads",), partial(read_image, path), None, path)
            try:
                opened(photo)
            except CosegError as fault:
                faults.append(str(fault).replace(str(path), name))
                continue
            self._uploaded.append(photo)
        with self._quietly():
            self.upload.value = ()  # its bytes are on disk; the same file can be chosen again
        if len(self._uploaded) > before:
            self._show_uploads()
        self._say(*faults, *([] if len(self._uploaded) <= MOST else [f"{MOST} photographs are shown, the first ones"]))

    def _show_uploads(self) -> None:
        group = Group("folder", "uploads", tuple(self._uploaded))
        self._set_photos([group], 0, UPLOADS, "uploads", min(MOST, len(group)))

    def _on_forget(self, _) -> None:
        shown, self._uploaded = self._source == UPLOADS, []
        if shown:
            self._look_at(self._sources[0][1])
        self._agree()

    def _on_system(self, method: str) -> None:
        names = _shipped(method)
        if not names:
            how = (
                "segment with it" if METHODS[method].online else f"coseg train --method {method} --output runs/{method}"
            )
            raise CosegError(f"{method}: no checkpoint of it is shipped; {how}, then name its model.safetensors below")
        self._on_checkpoint(DEFAULT_CHECKPOINT if DEFAULT_CHECKPOINT in names else names[0])

    def _on_checkpoint(self, name: str | Path) -> None:
        self._busy(f"loading {name} …")
        self.session.set_model(load_model(name))
        self._of_model()
        self._agree()
        self._draw()

    def _on_file(self, path: str) -> None:
        if path.strip():
            self._on_checkpoint(Path(path.strip()).expanduser())

    def _of_model(self) -> None:
        with self._quietly():
            self.crf.value = post_of(self.session.model) == "crf"

    def _act_partner(self, _) -> None:
        self._act(lambda _: self._on_partner(), None)

    def _on_partner(self) -> None:
        self.session.set_partners([i for i, card in enumerate(self._cards) if card.partner.value])
        self._draw()

    def _on_click(self, i: int, place: int | None) -> None:
        if place is None or self._silent:
            return
        self._at = i, place

        def look(_) -> None:
            with self._quietly():
                self.view.value = MATCHES
            self._draw()

        self._act(look, None)

    def _on_save(self, _) -> None:
        files = self.session.save(self.save_to.value or ".", self.threshold.value, self.post)
        self._status(f"{len(files)} masks saved in {files[0].parent.resolve()}")

    # What is drawn ---------------------------------------------------------------------------------------------------

    @property
    def post(self) -> str:
        """How logits become masks now."""
        return "crf" if self.crf.value else "argmax"

    def _busy(self, what: str) -> None:
        self.status.value = f'<div class="coseg-status">{html.escape(what)}</div>'

    def _status(self, what: str) -> None:
        card, partners = self.session.model.card, len(self.session.partners)
        group = f"{partners} of {len(self.session.photos)} photographs are partners"
        about = f"{card['name']} ({card['sha256'][:8]}); {group}; {what}"
        self.status.value = f'<div class="coseg-status" role="status">{html.escape(about)}</div>'

    @property
    def _asked(self) -> tuple[int, int]:
        """The photograph and the cell that were clicked; before that, where the first one's foreground is surest."""
        if self._at is not None:
            return self._at
        p = self.session.probability().maps[0]
        row, column = np.unravel_index(int(p.argmax()), p.shape)
        return 0, int(row * CELLS // p.shape[0] * CELLS + column * CELLS // p.shape[1])

    def _heat(self, view: str, post: str) -> Heat:
        i, place = self._asked
        if view == PROBABILITY:
            return self.session.probability(post)
        if view == GRAD_CAM:
            return self.session.grad_cam(i)
        if view == LOOKS:
            return self.session.spatial_maps()
        y, x = divmod(place, CELLS)
        return self.session.matches(i, (y + 0.5) / CELLS, (x + 0.5) / CELLS)

    def _drawn(self, view: str, masks: list[Tensor], post: str) -> tuple[list[np.ndarray], str, Heat | None]:
        """The pictures, uint8 (H, W) or (3, H, W), what their colours mean, as HTML, and the maps that they show."""
        shown = [o.shown for o in self.session.photos]
        if view == MASKS:
            of = "white: foreground" if self.session.classes == 1 else "black: background, a grey for each class"
            return [np.asarray(m) * (255 // self.session.classes) for m in masks], f"<div>{of}</div>", None
        if view == OVERLAYS:
            colours = class_colours(self.session.classes) if self.session.classes > 1 else None
            pictures = [overlay(picture.numpy(), m, colours) for picture, m in zip(shown, masks, strict=True)]
            return pictures, "<div>in colour: foreground. Click a place to see what it matches</div>", None
        heat, asked = self._heat(view, post), self._asked[0]
        ringed = [view == MATCHES and i != asked for i in range(len(shown))]
        maps = zip(shown, heat.maps, ringed, strict=True)
        return [heated(picture, m, heat.limits, ring) for picture, m, ring in maps], scale_bar(heat), heat

    def _draw(self) -> None:
        """All pictures of the view that is chosen; where the CRF is still to be computed, first as they are without."""
        self._busy("computing …")
        started = time.perf_counter()
        if self.crf.value and self.session.classes == 1 and not self.session.contours_known:
            self._paint("argmax")
            self._busy("drawing contours …")
        self._paint(self.post)
        self._status(f"drawn in {time.perf_counter() - started:.2f} s")

    def _paint(self, post: str) -> None:
        view = self.view.value
        masks, scores = (ask(self.threshold.value, post) for ask in (self.session.masks, self.session.scores))
        pictures, scale, heat = self._drawn(view, masks, post)
        asked, place = self._asked
        place = place if self._at is not None or view == MATCHES else None
        with self._quietly():
            for i, (card, pixels, mask, score) in enumerate(zip(self._cards, pictures, masks, scores, strict=True)):
                values = [f"{float((mask != 0).float().mean()):.0%} marked"]
                if score is not None:
                    values.append(f"J {score:.2f}")
                if view == MATCHES and i != asked and heat.maps[i] is not None:
                    values.append(f"best {float(heat.maps[i].max()):.2g}")
                card.show(pixels, ", ".join(values), place if i == asked else None)
        self.scale.value = scale

    # For notebooks ---------------------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """A row a photograph: its name, whether it is a partner, the share that is marked, and J where it is known."""
        masks = self.session.masks(self.threshold.value, self.post)
        rows = zip(self.session.names, masks, self.session.scores(self.threshold.value, self.post), strict=True)
        return pd.DataFrame(
            {"photo": n, "partner": i in self.session.partners, "marked": float((m != 0).float().mean()), "J": j}
            for i, (n, m, j) in enumerate(rows)
        )

    def figure(self) -> Figure:
        """The overlays of the present masks, for a report."""
        truths = [o.truth for o in self.session.photos]
        masks = self.session.masks(self.threshold.value, self.post, own=True)
        known = None if any(t is None for t in truths) or self.session.classes > 1 else truths
        title = (
            f"{self._groups[self._place].name}: {self.session.model.card['name']}, threshold {self.threshold.value:.2f}"
        )
        return show_group([o.photo.image() for o in self.session.photos], masks, known, self.session.names, title=title)


def _shipped(method: str) -> list[str]:
    """The names of a method's shipped checkpoints."""
    return [card["name"] for card in cards() if card["method"] == method]


class _Card:
    """A photograph on the page: its picture, the grid over it, and whether it is a partner."""

    def __init__(self, name: str, clicked: Callable[[int | None], None], changed: Callable):
        self.image = widgets.Image(layout={"width": "100%"})
        places = [f"row {i // CELLS + 1}, column {i % CELLS + 1}" for i in range(CELLS**2)]
        # Labels that are their own places: the browser then makes the buttons once, and not at every change.
        self.cells = widgets.ToggleButtons(
            options=[(str(i), i) for i in range(CELLS**2)], value=None, tooltips=places, style={"button_width": "auto"}
        )
        self.cells.add_class("coseg-cells")
        self.cells.observe(lambda change: clicked(change.new), "value")
        self.partner = widgets.Checkbox(True, description=shortened(name), indent=False, tooltip=f"{name}: a partner?")
        self.partner.observe(changed, "value")
        self.values = widgets.HTML()
        stage = widgets.Box([self.image, self.cells])
        stage.add_class("coseg-stage")
        self.box = widgets.VBox([stage, self.partner, self.values])
        self.box.add_class("coseg-card")

    def close(self) -> None:
        """Take it off the browser's and the kernel's lists."""
        for widget in (self.box, *self.box.children, *self.box.children[0].children):
            widget.close()

    def show(self, pixels: np.ndarray, values: str, place: int | None) -> None:
        """A new picture, the line below it, and the cell that is marked."""
        data, kind = encoded(pixels)
        with self.image.hold_sync():
            self.image.format, self.image.value = kind, data
        self.values.value = f'<div class="coseg-values">{html.escape(values)}</div>'
        if self.cells.value != place:
            self.cells.value = place
