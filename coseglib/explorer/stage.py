"""A picture on the page that says where it is clicked and drawn in: an anywidget, for ipywidgets' `Image` does not.

What the browser does is in `stage.js`: it draws what the hand does at once, and sends where it was as shares of the
picture's width and height, so that the size at which it is shown does not matter.
"""

from collections.abc import Sequence
from pathlib import Path

import traitlets
from anywidget import AnyWidget


def pixels_of(path: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """(x, y) in shares of a picture's width and height -> in pixels of a photograph of `size` (H, W).

    A single place, a click, is within it: at its very edge a browser says 1, or a little less than 0.
    """
    height, width = size
    if len(path) == 1:
        path = [[min(max(share, 0.0), 1 - 1e-9) for share in path[0]]]
    return tuple((x * width, y * height) for x, y in path)


def point_of(path: Sequence[Sequence[float]]) -> tuple[int, int]:
    """The pixel (x, y) that a place lies in."""
    ((x, y),) = path[:1]
    return int(x // 1), int(y // 1)


def box_between(path: Sequence[Sequence[float]], size: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
    """The box (x0, y0, x1, y1), upper bounds exclusive, with corners where a path begins and ends.

    size  (H, W): what is beyond is cut off, as of a hand that left the picture; None: it stays
    """
    (x0, x1), (y0, y1) = (sorted((path[0][axis], path[-1][axis])) for axis in (0, 1))
    if size is not None:
        x0, y0, x1, y1 = max(0, x0), max(0, y0), min(size[1], x1), min(size[0], y1)
    return int(x0 // 1), int(y0 // 1), int(-(-x1 // 1)), int(-(-y1 // 1))


class Stage(AnyWidget):
    """value: a picture, kind: "png" or "jpeg". tool: what the hand leaves until Python has heard of it:

    tool    "this" or "not": a dot, and a box where it is drawn; "line": the trail of a brush; "match": nothing
    size    (W, H) of the photograph in its own pixels           radius  of the brush, in these
    marks   what is drawn over it: {kind: point, not_point, box or cell, at: numbers in these pixels}
    moved   called with {path: [(x, y), …] in shares of the picture, shift: was that key down?}
    """

    _esm = Path(__file__).with_name("stage.js")

    value = traitlets.Bytes().tag(sync=True)
    kind = traitlets.Unicode("png").tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    size = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(1, 1)).tag(sync=True)
    tool = traitlets.Unicode("this").tag(sync=True)
    radius = traitlets.Float(1.0).tag(sync=True)
    marks = traitlets.List().tag(sync=True)

    def __init__(self, moved, **values):
        super().__init__(**values)
        self._moved = moved
        self.on_msg(lambda _, content, buffers: self.hear(content))

    def hear(self, content: dict) -> None:
        """What the browser says. Whatever comes of it, it takes its own drawing away then: `marks` is what counts."""
        if isinstance(content, dict) and "path" in content:
            try:
                self._moved(content)
            finally:
                self.send({"done": True})
