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
from coseglib.figures.style import BLUE, ORANGE, grid_of, styled
from coseglib.scoring.metrics import jaccard


def _picture(image) -> np.ndarray:
    """uint8 (3, H, W) -> (H, W, 3), at most about 1000 pixels a side: a figure shows no more."""
    picture = np.asarray(image).transpose(1, 2, 0)
    step = max(1, max(picture.shape[:2]) // 1000)
    return picture[::step, ::step]


def _grid(
    count: int, columns: int | None, titled: bool, below: float = 0.0, beside: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A grid of panels of 1.7 inches, with room in inches below and beside it."""
    if count == 0:
        raise ValueError("no images to show")
    columns = min(count, columns or 6)
    size = columns * 1.7 + beside, -(-count // columns) * (1.9 if titled else 1.72) + 0.25 + below
    fig, axes = grid_of(count, columns, size)
    for ax in axes:
        ax.set_axis_off()
    return fig, axes


def _extent(height: int, width: int) -> tuple[float, float, float, float]:
    """Where an image of this size lies in its panel: a map laid over it has the same, whatever its own size."""
    return -0.5, width - 0.5, height - 0.5, -0.5


def shortened(name: str, most: int = 26) -> str:
    """A name that fits above a panel: the end stays, where photographs of one camera differ."""
    return name if len(name) <= most else f"{name[: most - 9]}…{name[-8:]}"


def _contour(ax: Axes, mask: np.ndarray, colour: str, size: tuple[int, int], **line) -> None:
    """The mask's outline over an image of `size` (H, W), with a halo that keeps it visible on any photograph."""
    if not mask.any():
        return
    framed = np.pad(mask.astype(float), 1)  # an object that is cut off by the image's border has an outline there too
    y, x = ((np.arange(-1, n + 1) + 0.5) * side / n - 0.5 for n, side in zip(mask.shape, size, strict=True))
    outline = ax.contour(x, y, framed, levels=[0.5], colors=[colour], **line)
    halo = "black" if colour == ORANGE else "white"
    outline.set_path_effects([patheffects.withStroke(linewidth=line["linewidths"] + 1.4, foreground=halo, alpha=0.75)])


@styled()
def show_group(
    images: Sequence,
    masks: Sequence | None = None,
    truths: Sequence | None = None,
    names: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
) -> Figure:
    """A grid of images: predictions tinted and outlined in orange, truths outlined in blue, J beside the name.

    images  N of uint8 (3, H, W), each of its own size; masks, truths: N of uint8 (H, W), 255 void; names: N
    Raises ValueError where the numbers differ.
    """
    for what, given in (("masks", masks), ("truths", truths), ("names", names)):
        if given is not None and len(given) != len(images):
            raise ValueError(f"{len(images)} images and {len(given)} {what}")
    fig, axes = _grid(len(images), columns, names is not None or truths is not None, below=0.25)
    scored, handles = masks is not None and truths is not None, []
    for i, ax in enumerate(axes):
        picture = _picture(images[i])
        ax.imshow(picture)
        size = picture.shape[:2]
        label = [shortened(str(names[i]), 18 if scored else 26)] if names is not None else []
        if masks is not None:
            mask = np.asarray(masks[i]) != 0
            tint = np.zeros((*mask.shape, 4))
            tint[mask] = matplotlib.colors.to_rgba(ORANGE, 0.35)
            ax.imshow(tint, extent=_extent(*size), interpolation="nearest")
            _contour(ax, mask, ORANGE, size, linewidths=1.3)
        if truths is not None:
            truth = np.asarray(truths[i])
            _contour(ax, (truth != 0) & (truth != VOID), BLUE, size, linewidths=1.2, linestyles="dashed")
        if scored:
            label.append(f"J {jaccard(masks[i], truths[i]):.2f}")
        left, right, bottom, top = _extent(*size)
        ax.set(xlim=(left, right), ylim=(bottom, top))
        ax.set_title("  ".join(label), fontsize=8)
    if masks is not None:
        handles.append(Patch(facecolor=matplotlib.colors.to_rgba(ORANGE, 0.5), edgecolor=ORANGE, label="prediction"))
    if truths is not None:
        handles.append(Line2D([], [], color=BLUE, linestyle="dashed", label="truth"))
    if handles:
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    fig.suptitle(title)
    return fig


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
    if len(images) != len(maps) or (names is not None and len(names) != len(images)):
        raise ValueError(f"{len(images)} images, {len(maps)} maps and {len(images if names is None else names)} names")
    maps = [np.asarray(m, float) for m in maps]
    fig, axes = _grid(len(images), columns, names is not None, beside=0.7)
    low, high = limits or (min(m.min() for m in maps), max(m.max() for m in maps))
    for i, ax in enumerate(axes):
        picture = _picture(images[i])
        ax.imshow(picture @ (0.299, 0.587, 0.114), cmap="gray", vmin=0, vmax=255)
        look = {"vmin": low, "vmax": high, "alpha": 0.65, "interpolation": "bilinear"}
        shown = ax.imshow(maps[i], extent=_extent(*picture.shape[:2]), **look)
        ax.set_title(shortened(str(names[i])) if names is not None else "", fontsize=8)
    bar = fig.colorbar(shown, ax=fig.axes, fraction=0.03, pad=0.01, aspect=18)
    bar.set_label(unit)
    bar.outline.set_visible(False)
    fig.suptitle(title)
    return fig
