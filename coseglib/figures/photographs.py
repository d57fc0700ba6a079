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


def _panels(
    images: Sequence, columns: int | None, titled: bool, margin: tuple[float, float], **of_each: Sequence | None
) -> tuple[Figure, list[Axes]]:
    """A grid of panels of 1.7 inches. of_each: as many as images, or None; else ValueError."""
    if len(images) == 0:
        raise ValueError("no images to show")
    for what, given in of_each.items():
        if given is not None and len(given) != len(images):
            raise ValueError(f"{len(images)} images and {len(given)} {what}")
    fig, axes = grid_of(len(images), columns or 6, (1.7, 1.9 if titled else 1.72), margin)
    for ax in axes:
        ax.set_axis_off()
    return fig, axes


def _picture(image) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """uint8 (3, H, W) -> (H, W, 3), at most about 1000 pixels a side, and its extent, for what is laid over it."""
    picture = np.asarray(image).transpose(1, 2, 0)
    step = max(1, max(picture.shape[:2]) // 1000)
    picture = picture[::step, ::step]
    height, width = picture.shape[:2]
    return picture, (-0.5, width - 0.5, height - 0.5, -0.5)


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
    titled = names is not None or truths is not None
    fig, axes = _panels(images, columns, titled, (0, 0.5), masks=masks, truths=truths, names=names)
    scored = masks is not None and truths is not None
    for i, ax in enumerate(axes):
        picture, extent = _picture(images[i])
        ax.imshow(picture)
        label = [shortened(str(names[i]), 18 if scored else 26)] if names is not None else []
        if masks is not None:
            mask = np.asarray(masks[i]) != 0
            tint = np.zeros((*mask.shape, 4))
            tint[mask] = matplotlib.colors.to_rgba(ORANGE, 0.35)
            ax.imshow(tint, extent=extent, interpolation="nearest")
            _contour(ax, mask, ORANGE, picture.shape[:2], linewidths=1.3)
        if truths is not None:
            truth = np.asarray(truths[i])
            inside = (truth != 0) & (truth != VOID)
            _contour(ax, inside, BLUE, picture.shape[:2], linewidths=1.2, linestyles="dashed")
        if scored:
            label.append(f"J {jaccard(masks[i], truths[i]):.2f}")
        ax.set(xlim=extent[:2], ylim=extent[2:])
        ax.set_title("  ".join(label), fontsize=8)
    prediction = Patch(facecolor=matplotlib.colors.to_rgba(ORANGE, 0.5), edgecolor=ORANGE, label="prediction")
    truth = Line2D([], [], color=BLUE, linestyle="dashed", label="truth")
    if drawn := [sign for sign, given in ((prediction, masks), (truth, truths)) if given is not None]:
        fig.legend(handles=drawn, loc="outside lower center", ncols=2)
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
    fig, axes = _panels(images, columns, names is not None, (0.7, 0.25), maps=maps, names=names)
    maps = [np.asarray(m, float) for m in maps]
    low, high = limits or (min(m.min() for m in maps), max(m.max() for m in maps))
    look = {"vmin": low, "vmax": high, "alpha": 0.65, "interpolation": "bilinear"}
    for i, ax in enumerate(axes):
        picture, extent = _picture(images[i])
        ax.imshow(picture @ (0.299, 0.587, 0.114), cmap="gray", vmin=0, vmax=255)
        shown = ax.imshow(maps[i], extent=extent, **look)
        ax.set_title(shortened(str(names[i])) if names is not None else "", fontsize=8)
    bar = fig.colorbar(shown, ax=fig.axes, label=unit, fraction=0.03, pad=0.01, aspect=18)
    bar.outline.set_visible(False)
    fig.suptitle(title)
    return fig
