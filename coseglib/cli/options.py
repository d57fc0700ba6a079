"""Options that several commands have, and what is checked before any work begins."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from coseglib.core.errors import CosegError
from coseglib.core.files import writable
from coseglib.core.paths import DEFAULT_CHECKPOINT, name_root

METHOD_NAMES = "ca|fca|csa|ssnm|pfcc|dcnet|multiclass"
PROFILES = "smoke|cpu|workbook|paper"
ONLINE_PROFILE = "workbook"  # of what learns on the photographs, where none is named

say = partial(typer.echo, err=True)  # a line on stderr
say_at_once = partial(print, flush=True)  # a line on stdout, also where that is a file that somebody watches


def option(kind, help: str, metavar: str | None = None, *names: str, **more):
    """An option of this type: `names` are its flags where they are not the parameter's own, `more` is typer's."""
    return Annotated[kind, typer.Option(*names, help=help, metavar=metavar, **more)]


def flag(name: str, help: str):
    """An option without a value."""
    return option(bool, help, None, name)


def argument(kind, help: str, metavar: str):
    """What is named without a flag."""
    return Annotated[kind, typer.Argument(metavar=metavar, help=help, show_default=False)]


def output_option(kind, help: str, metavar: str, folder: bool):
    """--output."""
    return option(kind, help, metavar, "--output", "-o", callback=lambda path: path and writable(path, folder))


def root_option(variable: str, help: str):
    """--data or --weights: the folder that is named is the root for this call (`coseglib.core.paths`)."""
    # as text: an empty one, of a variable that is not set, would be the current folder as a Path
    return option(str | None, help, "DIR", callback=lambda folder: folder and name_root(variable, folder))


OutputFolder = output_option(Path, "Folder to write to.", "DIR", folder=True)
Data = root_option("COSEG_DATA", "Folder of the data sets.  [else COSEG_DATA, data/]")
Weights = root_option("COSEG_WEIGHTS", "Folder of ImageNet weights.  [else COSEG_WEIGHTS, else fetched]")
Checkpoint = option(
    str | None,
    "A shipped checkpoint, a model.safetensors of `coseg train`, or a system without learning: everything, ellipse, "
    "features, or onnx:FILE, a saliency network of your own.  "
    f"[default: what --method multiclass learns, else {DEFAULT_CHECKPOINT}]",
    "NAME|FILE|FLOOR|onnx:FILE",
)
Method = option(
    str | None, "multiclass: learn on the photographs. Others: of which the checkpoint must be.", METHOD_NAMES
)
Group = option(
    Literal["mean", "min"] | None, "How the group's attention is pooled.  [default: mean; not for multiclass]"
)
Looks = option(
    int | None, "ca, fca, csa: look again where something was found.  [default: as shipped]", "1|2", min=1, max=2
)
Classes = option(
    str | None, "multiclass: how many classes the photographs have in common; auto: as many as are found.", "K|auto"
)
Names = option(
    str | None, "multiclass: what the classes are called, in the order of the labels, by commas.", "NAME,NAME"
)
Post = option(
    Literal["argmax", "crf"] | None, "How maps become masks: the larger one, or a dense CRF.  [default: as shipped]"
)
BFloat16 = option(
    bool | None,
    "Numbers of 16 bits in the network: faster where the processor multiplies them, other masks in single pixels.  "
    "[default: where it does]",
    None,
    "--bfloat16/--no-bfloat16",
)
Prior = option(
    str | None,
    "Saliency maps to add to the system's answer: <group>/<stem>.png or <stem>.png in DIR, 0 to 255; or a network.",
    "DIR|onnx:FILE",
)
PriorWeight = option(float | None, "How much the prior counts beside the system.  [default: 1, as much]", "W", min=0)
Export = option(
    str | None,
    "What else to make of the masks, some of these: cut-out objects, COCO annotations, a page to look through.",
    "cutouts,coco,page",
)
OnlineProfile = option(str | None, f"multiclass: how it learns.  [default: {ONLINE_PROFILE}]", PROFILES)
Set = option(list[str] | None, "One field over the profile's; repeatable.", "FIELD=VALUE", "--set")
Devices = option(int, "Processes: GPUs, or on CPUs over gloo.", "N", min=1)
Nodes = option(int, "Machines; each is started by torchrun or Slurm.", "N", min=1)
Accelerator = option(str, "Where to compute.", "auto|cpu|cuda|mps")


ReferenceFiles = option(
    list[Path] | None, "A photograph in which the object that is meant is marked; repeatable.", "FILE", "--reference"
)
ReferenceMasks = option(
    list[Path] | None,
    "The reference's mask, of its size; the k-th is of the k-th reference.",
    "FILE",
    "--reference-mask",
)
Box = option(
    str | None, "Or, of a single reference: it lies in here, in pixels, upper bounds exclusive.", "X0,Y0,X1,Y1"
)
Point = option(list[str] | None, "Or: this pixel is on it; repeatable.", "X,Y")
NotPoint = option(list[str] | None, "And this pixel is not; repeatable.", "X,Y")


def references(files, masks, box, point, not_point) -> list:
    """The `Reference`s that --reference and what marks them name. Raises CosegError where they do not fit together."""
    from coseglib.answering.reference import Reference
    from coseglib.data.images import read_mask

    def numbers(text: str, count: int, name: str) -> tuple[int, ...]:
        try:
            found = tuple(int(part) for part in text.split(","))
        except ValueError:
            found = ()
        if len(found) != count:
            raise CosegError(f"--{name} {text}: {count} whole numbers of pixels, such as {','.join('1' * count)}")
        return found

    files, masks, point, not_point = files or [], masks or [], point or [], not_point or []
    if not files:
        refuse("marks a --reference, which is missing", reference_mask=masks, box=box, point=point, not_point=not_point)
        return []
    if masks:
        refuse("a reference takes a mask, a box or points; one of them", box=box, point=point, not_point=not_point)
        if len(masks) != len(files):
            raise CosegError(
                f"--reference-mask: {len(masks)} masks for {len(files)} references; give one each, in order"
            )
        return [Reference(file, read_mask(mask)) for file, mask in zip(files, masks, strict=True)]
    if len(files) > 1:
        raise CosegError("--reference: boxes and points are for a single one; give each of several a --reference-mask")
    places = [[numbers(text, 2, name) for text in some] for name, some in (("point", point), ("not-point", not_point))]
    bounds = numbers(box, 4, "box") if box else None
    return [Reference(files[0], box=bounds, points=tuple(places[0]), not_points=tuple(places[1]))]


def exports(named: str | None) -> tuple[str, ...]:
    """What --export names. Raises CosegError for what is no export."""
    from coseglib.segmenting.exports import kinds_of

    return () if named is None else kinds_of(named)


def fields(given: list[str] | None) -> dict[str, str]:
    """["steps=200"] -> {"steps": "200"}."""
    for item in given or ():
        if "=" not in item:
            raise CosegError(f"--set {item}: not FIELD=VALUE; for example --set steps=200")
    return {field.strip(): value.strip() for field, value in (item.split("=", 1) for item in given or ())}


def refuse(why: str, **given: object) -> None:
    """An error that names the first option, or argument (in capitals), that was given although it does not fit."""
    for name, value in given.items():
        if value:
            raise CosegError(f"{name if name.isupper() else '--' + name.replace('_', '-')}: {why}; leave it out")


def learns_online(method: str | None) -> bool:
    """Whether the method learns on the photographs that it segments. Raises CosegError for one that does not exist."""
    from coseglib.models import METHODS

    if method is not None and method not in METHODS:
        raise CosegError(f"{method}: no such method; one of {', '.join(METHODS)}")
    return method is not None and METHODS[method].online


def loaded(
    checkpoint: str | None,
    method: str | None,
    looks: int | None,
    post: str | None,
    bfloat16: bool | None,
    prior: str | None = None,
    weight: float | None = None,
    **learning,
):
    """The model that --checkpoint, --looks, --post, --bfloat16 and --prior name; what is to be known of it is said.

    None where one is to be learned on the very photographs; else the options that say how, `learning`, are refused.
    """
    from coseglib.answering import crf, load
    from coseglib.answering.priors import read_prior

    refuse("is of a --prior, which is missing", prior_weight=weight is not None and prior is None)
    if learns_online(method) and not checkpoint:
        refuse("says where objects are, not of which class; it is for systems of one class", prior=prior)
        return None
    refuse("is for learning, with --method multiclass and without --checkpoint", **learning)
    added = None if prior is None else read_prior(prior, weight)
    model = load(checkpoint or DEFAULT_CHECKPOINT, method, looks, post, _precision(bfloat16), added)
    if model.online and bfloat16 is not None:
        raise CosegError(
            f"--{'' if bfloat16 else 'no-'}bfloat16: what multiclass learned answers as it learned; leave it out"
        )
    if "withdrawn" in model.card:
        say(f"coseg: {model.card['name']}: withdrawn, {model.card['withdrawn']}")
    if model.post == "crf" and not crf.crf_installed():
        lacking = "the dense CRF is not installed (coseg doctor says more)"
        if post:
            raise CosegError(f"--post crf: {lacking}; leave it out for argmax")
        say(f"coseg: {model.card['name']}: its masks are the dense CRF's; {lacking}: argmax in its place")
    return model


def _precision(bfloat16: bool | None) -> str:
    return "auto" if bfloat16 is None else "bf16-mixed" if bfloat16 else "32-true"


def learning(profile: str | None, accelerator: str, set_: list[str] | None, bfloat16: bool | None = None):
    """The configuration by which multiclass learns; profile None: ONLINE_PROFILE."""
    from coseglib.unsupervised.configuration import load_online

    asked = {} if accelerator == "auto" else {"device": accelerator}
    asked |= {} if bfloat16 is None else {"precision": _precision(bfloat16)}
    return load_online(profile or ONLINE_PROFILE, asked | fields(set_))


def names(named: str | None, classes: int | None = None) -> tuple[str, ...]:
    """What --names names, of so many classes where that is known. Raises CosegError for names that cannot be."""
    from coseglib.segmenting.labels import check_names, names_in

    found = () if named is None else names_in(named)
    check_names(found, classes)
    return found


def number_of(classes: str | None) -> int | None:
    """K as it was given; None for auto. Raises CosegError where K was not said, or is none."""
    from coseglib.unsupervised.configuration import check_classes

    if classes is None:
        raise CosegError(
            "multiclass: how many classes the photographs share is not said; add --classes K, or --classes auto"
        )
    if classes == "auto":
        return None
    try:
        number = int(classes)
    except ValueError as error:
        raise CosegError(
            f"--classes {classes}: a whole number, or auto; `coseg segment --help` shows an example"
        ) from error
    check_classes(number)
    return number


def number_if_any(classes: str | None) -> int | None:
    """K where a table is not to have its groups' own; None: it is. Raises CosegError for auto."""
    refuse("a table's groups say how many they have", classes=classes == "auto")
    return None if classes is None else number_of(classes)
