"""The one style of all figures, and what several families share: grids of panels, colours by name, saving.

Colours are told apart by colour-blind readers too (Okabe and Ito): orange is a prediction, blue the truth; values are
shown in cividis.
"""

from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coseglib.core.errors import CosegError
from coseglib.core.files import atomic
from coseglib.segmenting.overlays import OKABE_ITO

ORANGE, BLUE, GREEN, PINK, SKY, VERMILION, _ = OKABE_ITO
SERIES = (BLUE, ORANGE, *OKABE_ITO[2:])
BAR_INKS = ((BLUE, "white"), (SKY, "black"), (GREEN, "white"), (PINK, "black"))  # bars, and what is written in them
COLOUR_MAP = "cividis"
J_AXIS = "Jaccard index J (0 to 1)"
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "figure.titlesize": 10, "axes.titlesize": 9, "axes.labelsize": 9,
    "legend.fontsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "figure.constrained_layout.use": True, "figure.facecolor": "white", "axes.titlelocation": "left",
    "axes.spines.right": False, "axes.spines.top": False, "legend.frameon": False,
    "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#dddddd", "grid.linewidth": 0.6,
    "axes.prop_cycle": matplotlib.cycler(color=SERIES), "image.cmap": COLOUR_MAP, "lines.linewidth": 1.6,
    "figure.dpi": 100, "savefig.dpi": 200, "svg.fonttype": "none",
    "svg.hashsalt": "coseglib",  # the same figure is the same file
}  # fmt: skip


def use_style() -> None:
    """Set the figure style for everything that is drawn from here on, a notebook's own figures for example."""
    plt.rcParams.update(STYLE)


@contextmanager
def styled():
    """The style while a figure is drawn; closed afterwards, so that a notebook shows it once, as a cell's value."""
    with plt.rc_context(STYLE):
        before = set(plt.get_fignums())
        try:
            yield
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)


def grid_of(
    count: int, columns: int, panel: tuple[float, float], margin: tuple[float, float] = (0, 0), **options
) -> tuple[Figure, list[Axes]]:
    """`count` panels in a grid of at most `columns`; of each and around all (width, height), in inches."""
    columns = min(count, columns)
    rows = -(-count // columns)
    size = columns * panel[0] + margin[0], rows * panel[1] + margin[1]
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return fig, list(axes.flat[:count])


def name_rows(ax: Axes, places: Iterable[float], names: Iterable) -> None:
    """Rows named at the left, with values across: no ticks at the names, lines at the values."""
    ax.set_yticks(places, [str(name) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in their order, again from the first where there are more than seven."""
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}


def save_figure(fig: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write `path`.png (200 dpi) and `path`.svg, whole or not at all; a suffix .png or .svg of `path` is dropped.

    Pictures in the SVG have 100 dpi: they are a second copy. Raises CosegError where the folder cannot be written.
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    png, svg = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for target, how in ((png, {}), (svg, {"metadata": {"Date": None}, "dpi": 100})):
            with atomic(target) as part, plt.rc_context(STYLE):
                fig.savefig(part, format=target.suffix[1:], **how)
    except OSError as error:
        raise CosegError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    return png, svg
