"""A page for JupyterLab: photographs, their masks and heat maps, and what changes when one thing is changed.

    Explorer()                      the procedural scenes and the shipped checkpoint
    Explorer("photos/", photos=12)  a folder of your own, or a data set by its name

It is ipywidgets, and anywidget for pictures that say where they are clicked. Here is what the user's actions do. What
cannot be done is one line at the head of the page, and everything is as it was before the action. Without a browser
(papermill, nbval) the page is made and waits for nothing; what a hand does in a picture can be typed as well.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coseglib.answering.masks import post_of
from coseglib.core.errors import CosegError
from coseglib.core.paths import CHECKPOINTS, DEFAULT_CHECKPOINT, SCENES
from coseglib.data import available, load
from coseglib.data.record import Group
from coseglib.evaluation.cards import cards
from coseglib.explorer.controls import Card
from coseglib.explorer.hand import Hand
from coseglib.explorer.pictures import CELLS, GRAD_CAM, LOOKS, MASKS, MATCHES, OVERLAYS, PROBABILITY, cell_of, drawn
from coseglib.explorer.saved import read
from coseglib.explorer.session import MOST, Session
from coseglib.explorer.uploads import Uploads
from coseglib.figures import show_group
from coseglib.models import METHODS
from coseglib.models.checkpoints import load_model
from coseglib.segmenting.exports import export
from coseglib.segmenting.labels import class_names

FOLDER, UPLOADS = " folder", " uploads"  # sources besides data sets, whose names begin with no blank


class _Looked(NamedTuple):
    """Which of some groups is looked at, where they are from, and how many of its photographs."""

    groups: list[Group]
    place: int
    source: str
    data: str
    count: int


def _shipped(method: str) -> list[str]:
    """The names of a method's shipped checkpoints: those of photographs, then those of drawn scenes."""
    homes = ((folder, card) for folder in (CHECKPOINTS, SCENES) for card in cards(folder))
    named = [(folder, card["name"]) for folder, card in homes if card["method"] == method]
    return [name for folder, name in named if (folder / f"{name}.safetensors").is_file()]


class Explorer(Hand):
    """The page; `session` is what it shows.

    data     a data set (`coseglib.data.NAMES`) or a folder      group       one of its groups; "": the first
    photos   how many of them are looked at, at most             checkpoint  a shipped one, or a file
    save_to  the folder that the page proposes for masks         root        of the data sets, see `coseglib.data.load`
    Raises CosegError for what does not exist.
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
        self._wanted = max(1, photos)
        super().__init__(save_to, self._wanted)
        self._root, self._silent, self._uploads = root, False, Uploads()
        self._cards, self._at = [], None
        known = [(f"{name}: {what}", name) for name, what in available(root).items() if isinstance(what, str)]
        self._sources = sorted(known, key=lambda source: not source[1].startswith("synthetic"))  # everyone has these
        self.session = Session(load_model(checkpoint))
        self._of_model()
        self._look_at(data, group)
        self._settled = self._state()
        self._listen()

    def __repr__(self) -> str:
        return f"Explorer: {len(self.session.photos)} photographs, {self.session.model.card['name']}"

    # One action, wholly or not at all ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        actions = {
            self.source: self._on_source,
            self.group: self._on_group,
            self.count: self._on_count,
            self.folder: self._on_folder,
            self.upload: self._on_upload,
            self.system: self._on_system,
            self.checkpoint: self._on_checkpoint,
            self.file: self._on_file,
            self.typed: self._on_typed,
            self.pooling: lambda how: (self.session.set_how(how), self._draw()),
            **dict.fromkeys((self.threshold, self.crf, self.view), lambda _: self._draw()),
        }
        for widget, action in actions.items():
            widget.observe(lambda change, action=action: self._act(action, change.new), "value")
        buttons = {self.forget: self._on_forget, self.save: self._on_save, self.reopen: self._on_open}
        buttons |= self._hands_buttons()
        for button, action in buttons.items():
            button.on_click(lambda _, action=action: self._act(action, None))
        for widget in (self.tool, self.radius):
            widget.observe(lambda _: self._hand_tool(), "value")

    @contextmanager
    def _quietly(self):
        """Controls are set, and nobody acts on it."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    def _state(self) -> tuple:
        """All that an action may change: of the session, of the page, of its controls, of its pictures."""
        own = {name: getattr(self, name) for name in ("_wanted", "_cards", "_at", "_looked")}
        widgets = (self.threshold, self.crf, self.view, self.scale, self.status)
        shown = [card.state() for card in self._cards]
        return dict(vars(self.session)), own, self._uploads.photos, {w: w.value for w in widgets}, shown

    def _restore(self) -> None:
        """Everything as the last action that succeeded has left it."""
        session, own, self._uploads.photos, values, shown = self._settled
        made = self._cards
        vars(self.session).update(session)
        vars(self).update(own)
        self._agree()
        with self._quietly():
            for widget, value in values.items():
                widget.value = value
            self.pictures.children = [card.box for card in self._cards]
            for card, state in zip(self._cards, shown, strict=True):
                card.restore(state)
        self._settle(made)

    def _settle(self, before: list[Card]) -> None:
        """Cards that are no longer shown go, and the next action starts from here."""
        for card in before:
            if card not in self._cards:
                card.close()
        self._settled = self._state()

    def _act(self, action: Callable, value) -> None:
        """One action of the user. What goes wrong is a line in the page, which shows again what it did before."""
        if self._silent:
            return
        self.say()
        before = self._cards
        try:
            action(value)
        except Exception as error:  # whatever it is, nobody reads a traceback behind a button
            self._restore()
            known = isinstance(error, CosegError)
            self.say(str(error) if known else f"{type(error).__name__}: {error}; nothing was changed")
        else:
            self._settle(before)

    def _agree(self) -> None:
        """The controls say what the session holds."""
        with self._quietly():
            looked = self._looked
            folder = [(f"folder {looked.data}", FOLDER)] if looked.source == FOLDER else []
            uploads = [(f"uploads: {len(self._uploads.photos)} photographs", UPLOADS)] if self._uploads.photos else []
            self.source.options, self.source.value = [*self._sources, *folder, *uploads], looked.source
            self.group.options = [(f"{g.name} ({len(g)})", i) for i, g in enumerate(looked.groups)]
            self.group.value = looked.place
            self.count.max, self.count.value = min(MOST, len(looked.groups[looked.place])), looked.count
            self.count.disabled = self.count.max < 2
            self.forget.layout.display = "" if self._uploads.photos else "none"
            model, card = self.session.model, self.session.model.card
            self.system.value = card["method"]
            names = _shipped(card["method"])
            self.checkpoint.options = [*names, *([] if card["name"] in names else [card["name"]])]
            self.checkpoint.value = card["name"]
            self.pooling.value, self.pooling.disabled = self.session.how, model.kind != "context"
            self.threshold.disabled = model.classes > 1
            looks = [LOOKS] if self.session.looks_somewhere else []
            views = [OVERLAYS, MASKS, PROBABILITY, GRAD_CAM, *looks, MATCHES]
            view = self.view.value if self.view.value in views else OVERLAYS
            self.view.options, self.view.value = views, view
            for i, shown in enumerate(self._cards):
                shown.partner.value = i in self.session.partners
            named = tuple((name, i) for i, name in enumerate(self.session.names))
            if self.typed_in.options != named:  # else the one that is chosen stays
                self.typed_in.options, self.typed_in.value = named, 0
            self._list_said()

    # What the user does ----------------------------------------------------------------------------------------------

    def _look_at(self, data: str | Path, group: str = "") -> None:
        """Groups of a data set or a folder, and one of them. Nothing is changed where they cannot be read."""
        self.busy(f"reading {data} …")
        groups = load(data, self._root)
        known = [g.name for g in groups]
        if group and group not in known:
            raise CosegError(f"{data}: no group {group}; one of {', '.join(known[:12])}")
        named = str(data) in dict(self._sources).values()
        place = known.index(group) if group else 0
        self._set_photos(_Looked(groups, place, str(data) if named else FOLDER, str(data), self._wanted))

    def _set_photos(self, looked: _Looked) -> None:
        self.busy("reading …")
        chosen = looked.groups[looked.place]
        count = min(looked.count, MOST, len(chosen))
        faults = self.session.set_photos(chosen.photos[:count], chosen.targets)
        self._looked, self._at = looked._replace(count=count), None
        self._show_photos()
        self.say(*faults)

    def _show_photos(self) -> None:
        """A card for each photograph of the session."""
        changed = partial(self._act, self._on_partner)
        self._cards = []
        for i, (name, o) in enumerate(zip(self.session.names, self.session.photos, strict=True)):
            moved = partial(self._act, partial(self._on_hand, i))
            self._cards.append(Card(name, o.picture.size, moved, changed))
        with self._quietly():
            self.pictures.children = [card.box for card in self._cards]
        self._hand_tool()
        self._agree()
        self._draw()

    def _on_source(self, source: str) -> None:
        if source == UPLOADS:
            self._show_uploads()
        elif source != FOLDER:
            self._look_at(source)

    def _on_group(self, place: int) -> None:
        self._set_photos(self._looked._replace(place=place, count=self._wanted))

    def _on_count(self, count: int) -> None:
        self._set_photos(self._looked._replace(count=count))
        self._wanted = count

    def _on_folder(self, path: str) -> None:
        if path.strip():
            folder = Path(path.strip()).expanduser()
            if not folder.is_dir():
                raise CosegError(f"{folder}: no such folder; check the path")
            self._look_at(folder.absolute())  # a folder, whatever data set or checkpoint is called so too

    def _on_upload(self, files: Sequence[dict]) -> None:
        """Photographs are added to those that were uploaded before."""
        before = self._uploads.photos
        faults = self._uploads.add(files)
        with self._quietly():
            self.upload.value = ()  # its bytes are on disk; the same file can be chosen again
        if len(self._uploads.photos) > len(before):
            self._show_uploads()
        cut = [f"{MOST} photographs are shown, the first ones"] if len(self._uploads.photos) > MOST else []
        self.say(*faults, *cut)

    def _show_uploads(self) -> None:
        self._set_photos(_Looked([Group("folder", "uploads", self._uploads.photos)], 0, UPLOADS, "uploads", MOST))

    def _on_forget(self, _) -> None:
        self._uploads.photos = ()
        if self._looked.source == UPLOADS:
            self._look_at(self._sources[0][1])
        self._agree()

    def _on_system(self, method: str) -> None:
        names = _shipped(method)
        if not names:
            train = f"coseg train --method {method} --output runs/{method}"
            how = "segment with it" if METHODS[method].online else train
            raise CosegError(f"{method}: no checkpoint of it is shipped; {how}, then name its model.safetensors below")
        self._on_checkpoint(DEFAULT_CHECKPOINT if DEFAULT_CHECKPOINT in names else names[0])

    def _on_checkpoint(self, name: str | Path) -> None:
        self.busy(f"loading {name} …")
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

    def _on_partner(self, _) -> None:
        self.session.set_partners([i for i, card in enumerate(self._cards) if card.partner.value])
        self._draw()

    def _on_save(self, _) -> None:
        files = self.session.save(self.save_to.value or ".", *self._asked)
        made = export(files[0].parents[1], self.exports.value)
        more = f", and {', '.join(self.exports.value)}" if made else ""
        self._status(f"{len(files)} masks saved in {files[0].parent.resolve()}{more}")

    def _on_open(self, _) -> None:
        """Go on with what was saved: its system, photographs, and all that was said."""
        folder = Path(self.save_to.value or ".").expanduser()
        found = read(folder)
        if found.sha256 != self.session.model.card.get("sha256"):
            model = load_model(found.checkpoint)
            if found.sha256 != model.card.get("sha256"):
                raise CosegError(
                    f"{folder}: was made by another {found.checkpoint}; name its file on the page, then open"
                )
            self.session.set_model(model)
        self.session.open(folder)
        photos = [o.photo for o in self.session.photos]
        group = Group("folder", folder.absolute().name, tuple(photos))
        self._looked, self._at = _Looked([group], 0, FOLDER, str(folder), len(photos)), None
        with self._quietly():
            self.crf.value, self.threshold.value = found.post == "crf", found.threshold or self.threshold.value
        self._show_photos()

    # What is drawn ---------------------------------------------------------------------------------------------------

    @property
    def _asked(self) -> tuple[float, str]:
        """The threshold, and how logits become masks now."""
        return self.threshold.value, "crf" if self.crf.value else "argmax"

    def _status(self, what: str) -> None:
        card, partners = self.session.model.card, len(self.session.partners)
        group = f"{partners} of {len(self.session.photos)} photographs are partners"
        self.busy(f"{card['name']} ({card['sha256'][:8]}); {group}; {what}", "status")

    @property
    def _clicked(self) -> tuple[int, int]:
        """The photograph and the cell that were clicked; before that, where the first one's foreground is surest."""
        if self._at is not None:
            return self._at
        p = self.session.probability().maps[0]
        row, column = np.unravel_index(int(p.argmax()), p.shape)
        return 0, int(row * CELLS // p.shape[0] * CELLS + column * CELLS // p.shape[1])

    def _draw(self) -> None:
        """All pictures of the view that is chosen; where the CRF is still to be computed, first as they are without."""
        self.busy("computing …")
        started = time.perf_counter()
        if self.crf.value and self.session.model.classes == 1 and not self.session.contours_known:
            self._paint("argmax")
            self.busy("drawing contours …")
        self._paint(self._asked[1])
        self._status(f"drawn in {time.perf_counter() - started:.2f} s")

    def _paint(self, post: str) -> None:
        view = self.view.value
        masks, scores = (ask(self.threshold.value, post) for ask in (self.session.masks, self.session.scores))
        (clicked, place), sizes = self._clicked, [o.picture.size for o in self.session.photos]
        pictures, scale, heat = drawn(self.session, view, masks, post, (clicked, place))
        marks = [
            [{"kind": s.kind, "at": s.at} for s in self.session.said if s.photo == i and s.at]
            for i in range(len(masks))
        ]
        if view == MATCHES:
            marks[clicked].append({"kind": "cell", "at": cell_of(place, sizes[clicked])})
        with self._quietly():
            for i, (card, pixels, mask, score) in enumerate(zip(self._cards, pictures, masks, scores, strict=True)):
                values = [self.session.marked(mask)]
                if score is not None:
                    values.append(f"J {score:.2f}")
                if view == MATCHES and i != clicked and heat.maps[i] is not None:
                    values.append(f"best {float(heat.maps[i].max()):.2g}")
                card.show(pixels, ", ".join(values), marks[i])
        self.scale.value = scale

    # For notebooks ---------------------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """A row a photograph: its name, whether it is a partner, the share that is marked, and J where it is known."""
        masks, scores = self.session.masks(*self._asked), self.session.scores(*self._asked)
        partner = [i in self.session.partners for i in range(len(masks))]
        marked = [float((m != 0).float().mean()) for m in masks]
        return pd.DataFrame({"photo": self.session.names, "partner": partner, "marked": marked, "J": scores})

    def figure(self) -> Figure:
        """The overlays of the present masks, for a report."""
        photos, model = self.session.photos, self.session.model
        truths = [o.truth for o in photos]
        known = None if any(t is None for t in truths) or model.online else truths
        group = self._looked.groups[self._looked.place].name
        title = f"{group}: {model.card['name']}, threshold {self.threshold.value:.2f}"
        masks = self.session.masks(*self._asked, own=True)
        classes = class_names(model.classes) if model.online else ()
        return show_group([o.photo.image() for o in photos], masks, known, self.session.names, 3, title, classes)
