"""What a hand does in the page's pictures, or types beside them: saying what is meant, and correcting masks."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from coseglib.core.errors import CosegError
from coseglib.explorer.controls import BRUSH, ERASER, MATCH, NOT_THIS, THIS, TOOLS, Controls
from coseglib.explorer.pictures import CELLS, MATCHES
from coseglib.explorer.said import MASK, Stroke
from coseglib.explorer.stage import box_between, pixels_of, point_of

OTHER = {THIS: NOT_THIS, NOT_THIS: THIS, BRUSH: ERASER, ERASER: BRUSH, MATCH: MATCH}  # with the shift key


class Hand(Controls):
    """The controls, and what a hand does with `session`; of `coseglib.explorer.page.Explorer`, which acts and draws."""

    def _hands_buttons(self) -> dict:
        """What each button does with the session."""
        changes = {self.undo: lambda session: session.undo(), self.clear: lambda session: session.clear()}
        changes[self.example] = lambda session: session.say(self.typed_in.value, mask=True)
        return {button: partial(self._on_change, change) for button, change in changes.items()}

    def _on_hand(self, i: int, told: dict) -> None:
        """A hand in a picture: a click, or a path; in shares of its sides, which may leave it."""
        size = self.session.photos[i].picture.size
        tool = OTHER[self.tool.value] if told["shift"] else self.tool.value
        self._do(i, tool, pixels_of(told["path"], size), size)

    def _on_typed(self, text: str) -> None:
        """The same, typed in pixels: x,y or the corners of a box or the places of a stroke, with blanks between."""
        if not text.strip():
            return
        try:
            path = tuple((float(x), float(y)) for x, y in (place.split(",") for place in text.split()))
            if not all(math.isfinite(number) for place in path for number in place):
                raise ValueError("no number")
        except ValueError:
            raise CosegError(f"{text}: type a place as x,y, a box as x0,y0 x1,y1, in pixels") from None
        self._do(self.typed_in.value, self.tool.value, path)
        with self._quietly():
            self.typed.value = ""

    def _do(self, i: int, tool: str, path: Sequence[tuple[float, float]], cut: tuple[int, int] | None = None) -> None:
        """What a tool does along a path in photograph i, in its pixels. cut: a box is cut to this size."""
        (height, width), point = self.session.photos[i].picture.size, point_of(path)
        if tool == MATCH:
            if not (0 <= point[0] < width and 0 <= point[1] < height):
                raise CosegError(f"{point[0]},{point[1]}: outside the photograph's {width} × {height}; mend it")
            self._at = i, int(path[0][1] * CELLS / height) * CELLS + int(path[0][0] * CELLS / width)
            with self._quietly():
                self.view.value = MATCHES
        elif tool in (BRUSH, ERASER):
            stroke = Stroke(tuple(path), self._radius(i), tool == ERASER)
            self.session.correct(i, stroke, *self._asked)
        elif len(path) == 1:
            self.session.say(i, **{"point" if tool == THIS else "not_point": point})
        elif tool == NOT_THIS:
            raise CosegError("a box says where the object is; click what it is not")
        else:
            self.session.say(i, box=box_between(path, cut))
        self._list_said()
        self._draw()

    def _on_change(self, change: Callable, _) -> None:
        """Of what was said or painted: change(session)."""
        change(self.session)
        self._list_said()
        self._draw()

    def _radius(self, i: int) -> float:
        return self.radius.value / 100 * max(self.session.photos[i].picture.size)

    def _hand_tool(self) -> None:
        """The pictures know what a hand does in them."""
        for i, card in enumerate(self._cards):
            card.stage.tool, card.stage.radius = TOOLS[self.tool.value][0], self._radius(i)

    def _list_said(self) -> None:
        names, lines = self.session.names, []
        for k, (i, kind, at) in enumerate(self.session.said):
            what = {"point": "this, at", "not_point": "not this, at", "box": "this, in", MASK: "its corrected mask"}[
                kind
            ]
            text = f"{names[i]}: {what} {','.join(map(str, at))}".strip()
            lines.append((text, partial(self._act, partial(self._on_change, lambda s, k=k: s.unsay(k)), None)))
        for i, corrected in self.session.marks.corrected.items():
            strokes = len(corrected.strokes)
            text = f"{names[i]}: mask corrected" + (f", {strokes} stroke{'s' * (strokes > 1)}" if strokes else "")
            lines.append((text, partial(self._act, partial(self._on_change, lambda s, i=i: s.uncorrect(i)), None)))
        self.list_said(lines)
