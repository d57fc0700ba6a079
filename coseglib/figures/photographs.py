"""Photographs with what is laid over them: masks and their outlines, heat maps.

Images are uint8 (3, H, W), masks uint8 (H, W): what is not 0 is foreground, in truths but for 255.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from coseglib.data.record import VOID
from coseglib.figures.style import BLUE, finish, grid_of, styled, text_width, wrapped
from coseglib.scoring.metrics import jaccard
from coseglib.segmenting.labels import class_colours
from coseglib.segmenting.overlays import MARKS, mark_colour

SIDE = 1.7  # of a panel, in inches
# Outlines stay visible on any photograph, and a truth's beside a mask's: one is a line on black, one dashed on white.
ON_BLACK, ON_WHITE = ([patheffects.withStroke(linewidth=2.7, foreground=c, alpha=0.75)] for c in ("black", "white"))


def _panels(
    images: Sequence, columns: int | None, more: int, margin: tuple[float, float], **of_each: Sequence | None
) -> tuple[Figure, list[Axes]]:
    """A grid of panels with room for names and `more` lines. of_each: as many as images, or None; else ValueError."""
    if len(images) == 0:
        raise ValueError("no images to show")
    for what, given in of_each.items():
        if given is not None and len(given) != len(images):
            raise ValueError(f"{len(images)} images and {len(given)} {what}")
    lines = more + max((len(str(name).splitlines()) for name in of_each["names"] or ()), default=0)
    fig, axes = grid_of(len(images), columns or 6, (SIDE, SIDE + 0.02 + 0.17 * lines), margin)
    for ax in axes:
        ax.set_axis_off()
        ax.set_anchor("W")  # a title begins where its panel does, and has all of its width
    return fig, axes


def _picture(image) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """uint8 (3, H, W) -> (H, W, 3), at most about 1000 pixels a side, and its extent, for what is laid over it."""
    picture = np.asarray(image).transpose(1, 2, 0)
    step = max(1, max(picture.shape[:2]) // 1000)
    picture = picture[::step, ::step]
    height, width = picture.shape[:2]
    return picture, (-0.5, width - 0.5, height - 0.5, -0.5)


def shortened(name: str, inches: float = SIDE - 0.2) -> str:
    """A name that is no wider than that: its end stays, where photographs of one camera differ."""
    cuts = (name, *(f"{name[: most - 9]}…{name[-8:]}" for most in range(len(name) - 1, 8, -1)))
    return next((cut for cut in cuts if text_width(cut) <= inches), cuts[-1])


def _contour(ax: Axes, mask: np.ndarray, size: tuple[int, int], colour: str, truth: bool = False) -> None:
    """The mask's outline over an image of `size` (H, W)."""
    if not mask.any():
        return
    framed = np.pad(mask.astype(float), 1)  # an object that is cut off by the image's border has an outline there too
    y, x = ((np.arange(-1, n + 1) + 0.5) * side / n - 0.5 for n, side in zip(mask.shape, size, strict=True))
    line = {"colors": colour, "linestyles": "dashed" if truth else "solid", "linewidths": 1.3}
    ax.contour(x, y, framed, levels=[0.5], **line).set_path_effects(ON_WHITE if truth else ON_BLACK)


@styled()
def show_group(
    images: Sequence,
    masks: Sequence | None = None,
    truths: Sequence | None = None,
    names: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
    classes: Sequence[str] = (),
) -> Figure:
    """A grid of images: predictions tinted and outlined, truths outlined in blue, J beside the name.

    Predictions have one colour in all panels, the one that differs most from what they lie on (`mark_colour`); label
    maps, whose `classes` are named, their labels' colours (`coseglib.segmenting.labels`).

    images  N of uint8 (3, H, W), each of its own size; masks, truths: N of uint8 (H, W), 255 void; names: N
    Raises ValueError where the numbers differ.
    """
    scored, names = masks is not None and truths is not None, [*map(str, names or [""] * len(images))]
    beside = all(text_width(name.split("\n")[-1]) < SIDE - 0.75 for name in names)  # J fits there
    more = scored and not (beside and any(names))
    fig, axes = _panels(images, columns, more, (0, 0.5), masks=masks, truths=truths, names=names)
    colours = class_colours(len(classes)) or [mark_colour(images, masks) if masks is not None else MARKS[0]]
    for i, ax in enumerate(axes):
        picture, extent = _picture(images[i])
        ax.imshow(picture)
        if masks is not None:
            labels = np.asarray(masks[i])
            parts = [labels == label for label in range(1, len(classes) + 1)] or [labels != 0]
            tint = np.zeros((*labels.shape, 4))
            for part, colour in zip(parts, colours, strict=True):
                tint[part] = matplotlib.colors.to_rgba(colour, 0.4)
            ax.imshow(tint, extent=extent, interpolation="nearest")
            for part, colour in zip(parts, colours, strict=True):
                _contour(ax, part, picture.shape[:2], colour)
        if truths is not None:
            truth = np.asarray(truths[i])
            _contour(ax, (truth != 0) & (truth != VOID), picture.shape[:2], BLUE, truth=True)
        if scored:
            names[i] += ("  " if beside else "\n") + f"J {jaccard(masks[i], truths[i]):.2f}"
        ax.set(xlim=extent[:2], ylim=extent[2:])
        ax.set_title("\n".join(map(shortened, names[i].strip().split("\n"))), fontsize=8)
    looks = zip(colours, classes or ["prediction"], strict=True)
    signs = [Patch(facecolor=(c, 0.5), edgecolor=c, label=name, path_effects=ON_BLACK) for c, name in looks]
    truth = Line2D([], [], color=BLUE, linestyle="dashed", label="truth")
    return finish(fig, title, [*(signs if masks is not None else ()), *([truth] if truths is not None else ())])


@styled()
def show_heat(
    images: Sequence,
    maps: Sequence,
    title: str,
    unit: str,
    names: Sequence[str] | None = None,
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Heat maps over grey images, all on one colour scale with a bar.

    images  N of uint8 (3, H, W); maps N of (h, w), of any size, enlarged bilinearly
    title   what the maps show; unit: of their values ("probability, 0 to 1"), written beside the bar
    limits  of the colour scale; None: the smallest and the largest value of all maps
    Raises ValueError where the numbers differ.
    """
    fig, axes = _panels(images, columns, False, (0.7, 0.25), maps=maps, names=names)
    maps = [np.asarray(m, float) for m in maps]
    low, high = limits or (min(m.min() for m in maps), max(m.max() for m in maps))
    look = {"vmin": low, "vmax": high, "alpha": 0.65, "interpolation": "bilinear"}
    for i, ax in enumerate(axes):
        picture, extent = _picture(images[i])
        ax.imshow(picture @ (0.299, 0.587, 0.114), cmap="gray", vmin=0, vmax=255)
        shown = ax.imshow(maps[i], extent=extent, **look)
        ax.set_title("\n".join(map(shortened, str(names[i]).split("\n"))) if names is not None else "", fontsize=8)
    unit = wrapped(unit, fig.get_figheight() - 0.5, 9)
    bar = fig.colorbar(shown, ax=fig.axes, label=unit, fraction=0.03, pad=0.01, aspect=18)
    bar.outline.set_visible(False)
    return finish(fig, title)
