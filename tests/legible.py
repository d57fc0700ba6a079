"""What makes a figure hard to read: texts that its canvas cuts, or that cover each other."""

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from coseglib.core.errors import CosegError


def _outline(text: Text) -> Outline:
    """The rectangle around a text, turned as it is, in pixels; one pixel smaller on each side."""
    angle, box = text.get_rotation(), text.get_window_extent()
    middle = (box.p0 + box.p1) / 2
    text.set_rotation(90 * round(angle / 90))
    size = text.get_window_extent().size
    text.set_rotation(angle)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * np.maximum(size / 2 - 1, 0.5)
    return Outline(Affine2D().rotate_deg(angle - 90 * round(angle / 90)).transform(corners) + middle)


def text_faults(fig: Figure) -> list[str]:
    """What cannot be read in a figure: texts that its canvas cuts, and pairs of which one covers the other."""
    drawn, draw, canvas = [], Text.draw, fig.canvas

    def noted(text, renderer):  # ticks outside of an axis and what is hidden are among the figure's texts, undrawn
        drawn.append(text)
        draw(text, renderer)

    Text.draw = noted
    try:
        FigureCanvasAgg(fig).draw()  # a closed figure's own canvas draws nothing
    finally:
        Text.draw = draw
        fig.set_canvas(canvas)
    texts = [(t.get_text(), _outline(t)) for t in dict.fromkeys(drawn) if t.get_visible() and t.get_text().strip()]
    boxes, faults = [outline.get_extents() for _, outline in texts], []
    for (text, _), box in zip(texts, boxes, strict=True):
        if (box.p0 < -1).any() or (box.p1 > fig.bbox.p1 + 1).any():
            faults.append(f"{text!r} is cut")
    for (i, (one, a)), (j, (other, b)) in combinations(enumerate(texts), 2):
        if boxes[i].overlaps(boxes[j]) and a.intersects_path(b):
            faults.append(f"{one!r} and {other!r} overlap")
    return faults


def refuse_faults(fig: Figure) -> None:
    """An error, for a figure with faults; `make test` has this asked of every figure of the tests and the notebooks."""
    if faults := text_faults(fig):
        raise CosegError(f"figure {fig.get_suptitle()!r}: {'; '.join(faults)}; make it larger, or its texts shorter")
