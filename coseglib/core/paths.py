"""Where data, weights, checkpoints and reports are: what the caller names, else the environment, else our own."""

import os
from pathlib import Path

from coseglib.core.errors import CosegError

REPOSITORY = Path(__file__).resolve().parents[2]
LISTS = REPOSITORY / "data" / "lists"
CHECKPOINTS = REPOSITORY / "data" / "checkpoints"
MEASURED = REPOSITORY / "data" / "measured"  # cards of models that are not shipped
DEFAULT_CHECKPOINT = "ca-mobilenet_v2"  # what segments when none is named
CACHE = REPOSITORY / "data" / "cache"
REPORTS = REPOSITORY / "reports"
NOTEBOOKS = REPOSITORY / "notebooks"


def _folder(given: str | Path | None, variable: str, default: Path) -> Path:
    named = given or os.environ.get(variable)
    if named is None:
        return default
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise CosegError(f"{folder}: no such folder; mend the option or {variable}, or leave it out to use {default}")
    return folder


def data_root(given: str | Path | None = None) -> Path:
    """The folder that holds the data sets: `given` (--data), else COSEG_DATA, else `data/`."""
    return _folder(given, "COSEG_DATA", REPOSITORY / "data")


def weights_root(given: str | Path | None = None) -> Path | None:
    """The folder of ImageNet weights: `given` (--weights), else COSEG_WEIGHTS, else None (the libraries' own)."""
    if given is None and "COSEG_WEIGHTS" not in os.environ:
        return None
    return _folder(given, "COSEG_WEIGHTS", REPOSITORY / "data" / "weights")


def report_folder(profile: str, part: str = "") -> Path:
    """`reports/<profile>/<part>`, made where it is missing: "tables", "plots", … COSEG_REPORTS moves `reports/`."""
    folder = Path(os.environ.get("COSEG_REPORTS") or REPORTS).expanduser() / profile / part
    folder.mkdir(parents=True, exist_ok=True)
    return folder
