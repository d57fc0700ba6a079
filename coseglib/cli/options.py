"""Options that several commands have, and what is checked before any work begins."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from coseglib.core.errors import CosegError
from coseglib.core.paths import DEFAULT_CHECKPOINT, name_root

METHOD_NAMES = "ca|fca|csa|ssnm|pfcc|dcnet|multiclass"


def _named(variable: str):
    """A callback: the folder that is named is the root for this call (`coseglib.core.paths`)."""

    def name(folder: Path | None) -> Path | None:
        if folder is not None:
            name_root(variable, folder)
        return folder

    return name


def _writable(path: Path, folder: bool) -> Path:
    """A callback's: hours of work are not to end in a file that cannot be written."""
    if path.is_dir() != folder and path.exists():
        what = "is a file; name a folder" if folder else "is a folder; name a file in it"
        raise CosegError(f"{path}: {what} to write to")
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir() and there != path:
        raise CosegError(f"{path}: {there} is no folder; give another -o")
    if not os.access(there, os.W_OK):
        raise CosegError(f"{path}: not to be written to; mend its rights or give another -o")
    return path


def output_folder(path: Path | None) -> Path | None:
    """A callback: `path` is a folder that can be written to, or can be made. Nothing is made yet."""
    return path and _writable(path, folder=True)


def output_file(path: Path) -> Path:
    """A callback: `path` is a file that can be written. Nothing is made yet."""
    return _writable(path, folder=False)


OutputFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", callback=output_folder, help="Folder to write to.")
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", callback=_named("COSEG_DATA"), help="Folder of the data sets.  [else COSEG_DATA, data/]"
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        callback=_named("COSEG_WEIGHTS"),
        help="Folder of ImageNet weights.  [else COSEG_WEIGHTS, else fetched]",
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE|FLOOR",
        help="A shipped checkpoint, a model.safetensors of `coseg train`, or a system without learning: everything, "
        f"ellipse, features.  [default: what --method multiclass learns, else {DEFAULT_CHECKPOINT}]",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar=METHOD_NAMES, help="multiclass: learn on the photographs. Others: of which the checkpoint must be."
    ),
]
Group = Annotated[
    Literal["mean", "min"] | None,
    typer.Option(help="How the group's attention is pooled.  [default: mean; not for multiclass]"),
]
Looks = Annotated[
    int | None,
    typer.Option(
        metavar="1|2", min=1, max=2, help="ca, fca, csa: look again where something was found.  [default: as shipped]"
    ),
]
Classes = Annotated[
    int | None, typer.Option(metavar="K", help="multiclass: how many classes the photographs have in common.")
]
Post = Annotated[
    Literal["argmax", "crf"] | None,
    typer.Option(help="How maps become masks: the larger one, or a dense CRF.  [default: as shipped]"),
]
OnlineProfile = Annotated[
    str | None, typer.Option(metavar="smoke|cpu|paper", help="multiclass: how it learns.  [default: cpu]")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="One field over the profile's; repeatable.")
]
Devices = Annotated[int, typer.Option(metavar="N", min=1, help="Processes: GPUs, or on CPUs over gloo.")]
Nodes = Annotated[int, typer.Option(metavar="N", min=1, help="Machines; each is started by torchrun or Slurm.")]
Accelerator = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")]


def fields(given: list[str] | None) -> dict[str, str]:
    """["steps=200"] -> {"steps": "200"}."""
    for item in given or []:
        if "=" not in item:
            raise CosegError(f"--set {item}: not FIELD=VALUE; for example --set steps=200")
    return {field.strip(): value.strip() for field, value in (item.split("=", 1) for item in given or [])}


def refuse(why: str, **given: object) -> None:
    """An error that names the first option that was given although it does not fit."""
    for option, value in given.items():
        if value:
            raise CosegError(f"--{option}: {why}; leave it out")


def learns_online(method: str | None) -> bool:
    """Whether the method learns on the photographs that it segments. Raises CosegError for one that does not exist."""
    from coseglib.models import METHODS

    if method is not None and method not in METHODS:
        raise CosegError(f"{method}: no such method; one of {', '.join(METHODS)}")
    return method is not None and METHODS[method].online


def loaded(checkpoint: str | None, method: str | None, looks: int | None, post: str | None):
    """The model that --checkpoint, --looks and --post name; what the user is to know of it is said."""
    from coseglib.answering import crf, load

    model = load(checkpoint or DEFAULT_CHECKPOINT, method, looks, post)
    if "withdrawn" in model.card:
        say(f"coseg: {model.card['name']}: withdrawn, {model.card['withdrawn']}")
    if model.post == "crf" and not crf.crf_installed():
        lacking = "the dense CRF is not installed (coseg doctor says more)"
        if post:
            raise CosegError(f"--post crf: {lacking}; leave it out for argmax")
        say(f"coseg: {model.card['name']}: its masks are the dense CRF's; {lacking}: argmax in its place")
    return model


def number_of_classes(classes: int | None) -> int:
    """K. Raises CosegError where it was not said."""
    if classes is None:
        raise CosegError("multiclass: nobody but you knows how many classes the photographs share; add --classes K")
    return classes


def say(text: str) -> None:
    """A line on stderr."""
    typer.echo(text, err=True)


def say_at_once(text: str) -> None:
    """A line on stdout, also where that is a file that somebody watches."""
    print(text, flush=True)
