"""The one style of all figures, and what several families share: grids of panels, names that fit, colours, saving.

Colours are told apart by colour-blind readers too (Okabe and Ito): blue is the truth, values are shown in cividis.
The tests look at every figure for text that is cut or covered: COSEG_CHECK_FIGURES names their "module:function".
"""

import io
import os
import pkgutil
import re
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from coseglib.core.errors import CosegError
from coseglib.core.files import write_bytes
from coseglib.segmenting.labels import OKABE_ITO

ORANGE, BLUE, GREEN, PINK, SKY, VERMILION, _ = OKABE_ITO
SERIES = (BLUE, ORANGE, *OKABE_ITO[2:])
BAR_INKS = ((BLUE, "white"), (SKY, "black"), (GREEN, "white"), (PINK, "black"))  # bars, and what is written in them
COLOUR_MAP = "cividis"
J_AXIS = "Jaccard index J (0 to 1)"
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "figure.titlesize": 10, "axes.titlesize": 9, "axes.labelsize": 9,
    "legend.fontsize": 8, "legend.title_fontsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "figure.constrained_layout.use": True, "figure.facecolor": "white", "axes.titlelocation": "left",
    "axes.spines.right": False, "axes.spines.top": False, "legend.frameon": False,
    "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#dddddd", "grid.linewidth": 0.6,
    "axes.prop_cycle": matplotlib.cycler(color=SERIES), "image.cmap": COLOUR_MAP, "lines.linewidth": 1.6,
    "figure.dpi": 100, "savefig.dpi": 144, "svg.fonttype": "none",
    "svg.hashsalt": "coseglib",  # the same figure is the same file
}  # fmt: skip


def use_style() -> None:
    """Set the figure style for everything that is drawn from here on, a notebook's own figures for example."""
    plt.rcParams.update(STYLE)


def _check(fig: Figure) -> None:
    if check := os.environ.get("COSEG_CHECK_FIGURES"):
        pkgutil.resolve_name(check)(fig)


@contextmanager
def styled():
    """The style while a figure is drawn; closed afterwards, so that a notebook shows it once, as a cell's value."""
    with plt.rc_context(STYLE):
        before = set(plt.get_fignums())
        try:
            yield
            for number in set(plt.get_fignums()) - before:
                _check(plt.figure(number))
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)


@cache
def text_width(text: str, size: float = 8) -> float:
    """Of a text's longest line, in inches."""
    font = FontProperties(family=STYLE["font.family"], size=size)
    return max(text_to_path.get_text_width_height_descent(line, font, False)[0] for line in text.split("\n")) / 72


def wrapped(text: str, inches: float, size: float = 8) -> str:
    """The text, its lines broken where they are wider than that."""

    def broken(line: str) -> str:
        tries = (textwrap.fill(line, count) for count in range(len(line), 0, -1))
        return next((lines for lines in tries if text_width(lines, size) <= inches), line)

    return "\n".join(map(broken, text.split("\n")))


def finish(fig: Figure, title: str | None, signs: Sequence = (), heading: str | None = None) -> Figure:
    """A legend of signs below the panels and a title above, from the left, where narrow pages begin; each fits."""
    width, height = fig.get_size_inches()
    if signs:
        widest = 0.7 + max(text_width(sign.get_label()) for sign in signs)  # with the sign and what is left free
        rows = -(-len(signs) // max(1, int(width / widest)))
        fig.legend(handles=signs, ncols=-(-len(signs) // rows), loc="outside lower center", title=heading)
        width, height = max(width, widest), height + 0.19 * (rows - 1 + bool(heading))  # one row has its room already
    title = wrapped(title or "", width - 0.25, STYLE["figure.titlesize"])
    fig.set_size_inches(width, height + 0.17 * title.count("\n"))
    fig.suptitle(title, x=0.06 / width, ha="left")
    return fig


def grid_of(
    count: int, columns: int, panel: tuple[float, float], margin: tuple[float, float] = (0, 0), **options
) -> tuple[Figure, list[Axes]]:
    """`count` panels in a grid of at most `columns`; of each and around all (width, height), in inches."""
    columns = min(count, columns)
    rows = -(-count // columns)
    size = max(3.0, columns * panel[0] + margin[0]), rows * panel[1] + margin[1]  # narrower, no legend fits
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return fig, list(axes.flat[:count])


def name_rows(ax: Axes, places: Iterable[float], names: Iterable) -> None:
    """Rows named at the left, with values across: no ticks at the names, lines at the values."""
    ax.set_yticks(places, [wrapped(name, max(2.2, 0.55 * text_width(name))) for name in map(str, names)])
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")


def name_columns(ax: Axes, names: Iterable, slot: float, size: float = 8) -> None:
    """Columns 0, 1, … named below, each `slot` inches wide, a quarter at least: turned where a name is wider."""
    names = [wrapped(name, 1.8, size) if slot > 0.5 else name for name in map(str, names)]
    turned = max(text_width(name, size) for name in names) > slot - 0.06
    look = {"rotation": 35, "rotation_mode": "anchor", "ha": "right", "va": "top"} if turned else {}
    ax.set_xticks(range(len(names)), names, fontsize=size, **look)


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in their order, again from the first where there are more than seven."""
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}


def _said(fig: Figure) -> str:
    """What a figure's texts say, the largest first: its title, then axes and series; no ticks, no panels' scores."""
    shown = (text for text in (*fig.texts, *fig.findobj(Text)) if text.get_visible())
    texts = sorted(shown, key=lambda text: -text.get_fontsize())
    words = dict.fromkeys(" ".join(text.get_text().split()) for text in texts)
    return "; ".join(word for word in words if re.search(r"[^\W\d_]{2}", word))


def save_figure(fig: Figure, path: str | Path) -> tuple[Path, ...]:
    """Write `path`.png (144 dpi, what it says in its Description), whole or not at all; a suffix of `path` is dropped.

    What is drawn in lines is written as `path`.svg too; of pictures that would be a second, coarser copy.
    Returns what was written. Raises CosegError where the folder cannot be written.
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    png, svg = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    _check(fig)
    files = {png: {"Description": _said(fig)}}
    if not any(axes.images for axes in fig.axes):
        files[svg] = {"Date": None}
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for target, metadata in files.items():
            with plt.rc_context(STYLE):
                fig.savefig(content := io.BytesIO(), format=target.suffix[1:], metadata=metadata)
            write_bytes(target, content.getvalue())
        if svg not in files:
            svg.unlink(missing_ok=True)  # an earlier one of the same name
    except OSError as error:
        raise CosegError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    return tuple(files)
