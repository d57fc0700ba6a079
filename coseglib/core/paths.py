"""Where things are: what ships with the library, in a checkout and installed alike, and what is the user's.

In a checkout lists, checkpoints and reported figures are `data/` of the repository, and data sets and caches lie beside
them. A wheel holds the former as `coseglib/shipped/` (setup.py), where nothing is written: caches and data sets are in
the user's cache folder then, reports in the working directory. A root is what the caller names, else what `name_root`
named (the command line's --data and --weights), else what the environment says, else our own.
"""

import os
from contextvars import ContextVar
from pathlib import Path

from coseglib.core.errors import CosegError

REPOSITORY = Path(__file__).resolve().parents[2]
_IN_WHEEL = REPOSITORY / "coseglib" / "shipped"
INSTALLED = _IN_WHEEL.is_dir()  # from a wheel: there is no repository around the package
SHIPPED = _IN_WHEEL if INSTALLED else REPOSITORY / "data"  # what every copy of the library has
_USERS = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "coseglib"
OWN = _USERS if INSTALLED else REPOSITORY / "data"  # data sets and caches, where nobody names another folder

LISTS = SHIPPED / "lists"
CHECKPOINTS = SHIPPED / "checkpoints"
SCENES = SHIPPED / "scenes"  # checkpoints, with cards, that were trained on drawn scenes: the notebooks'
PICTURES = SHIPPED / "pictures"  # rendered still lifes of cars and of sheep, with their masks: the notebooks'
NAMING = SCENES / "backbone"  # weights of `resnet10`, which has learned to name what drawn scenes show
MEASURED = SHIPPED / "measured"  # cards of models that are not shipped
REPORTED = SHIPPED / "reported.csv"  # the papers' figures
ANCHORS = SHIPPED / "anchors.csv"  # others' figures on the same sets
DEFAULT_CHECKPOINT = "ca-mobilenet_v2"  # what segments when none is named
CACHE = Path(os.environ.get("COSEG_CACHE") or OWN / "cache").expanduser()
REPORTS = Path("reports") if INSTALLED else REPOSITORY / "reports"
NOTEBOOKS = REPOSITORY / "notebooks"

_NAMED: ContextVar[dict[str, str]] = ContextVar("named", default={})  # noqa: B039 (never changed, only replaced)


def name_root(variable: str, folder: str | Path) -> None:
    """COSEG_DATA or COSEG_WEIGHTS is `folder` in this context (`contextvars`), whatever the environment says."""
    _NAMED.set({**_NAMED.get(), variable: str(_existing(folder, variable).resolve())})


def named_roots() -> dict[str, str]:
    """The folders that are named, as absolute paths: for the environment of a process that is started."""
    found = {name: _named(name) for name in ("COSEG_DATA", "COSEG_WEIGHTS", "COSEG_CACHE")}
    return {name: str(Path(folder).expanduser().resolve()) for name, folder in found.items() if folder}


def _named(variable: str) -> str | None:
    return _NAMED.get().get(variable) or os.environ.get(variable)


def _existing(folder: str | Path, variable: str) -> Path:
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise CosegError(f"{folder}: no such folder; mend the option or {variable}, or leave it out")
    return folder


def data_root(given: str | Path | None = None) -> Path:
    """The folder that holds the data sets: `given`, else --data, else COSEG_DATA, else `OWN`."""
    folder = given or _named("COSEG_DATA") or OWN
    return OWN if folder == OWN else _existing(folder, "COSEG_DATA")  # our own may not have been made yet


def weights_root(given: str | Path | None = None) -> Path | None:
    """The folder of ImageNet weights: `given`, else --weights, else COSEG_WEIGHTS, else None (the libraries' own)."""
    folder = given or _named("COSEG_WEIGHTS")
    return _existing(folder, "COSEG_WEIGHTS") if folder else None


def reports_root() -> Path:
    """`reports/`, or where COSEG_REPORTS moves it."""
    return Path(os.environ.get("COSEG_REPORTS") or REPORTS).expanduser()


def report_folder(profile: str, part: str = "") -> Path:
    """`reports/<profile>/<part>`, made where it is missing: "tables", "plots", …"""
    folder = reports_root() / profile / part
    folder.mkdir(parents=True, exist_ok=True)
    return folder
