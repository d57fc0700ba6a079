"""`coseg train`: a model from a profile."""

import os
from pathlib import Path
from typing import Annotated

import typer

from coseglib.cli import options
from coseglib.core.errors import CosegError

EXAMPLES = (
    "coseg train --method ca --profile smoke --output runs/ca",
    "coseg train --method csa --profile cpu --output runs/csa --set steps=6000 --set seed=1 --data /data/sets",
    "coseg train --method ca --profile smoke --output runs/ca --resume",
    "coseg train --method multiclass --profile smoke --output runs/scenes",
    "coseg train --method multiclass --output runs/dogs --group dog+person --data /data/sets",
    "coseg train --method multiclass --output runs/walks --photos walks/ --classes 2",
)

LearnedOn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="multiclass: what it learns on, a group of voc-multiclass (dog+person) or of synthetic-multiclass.  "
        "[default for smoke: star+ring]",
    ),
]
Photos = Annotated[
    list[Path] | None,
    typer.Option(metavar="PHOTO|FOLDER", help="multiclass: or these photographs, with --classes; repeatable."),
]
AllDevices = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Processes: GPUs, or on CPUs over gloo.  [default: all GPUs, or 1]"),
]


def command(
    output: options.OutputFolder,
    method: Annotated[
        str | None,
        typer.Option(metavar=options.METHOD_NAMES, help="The system to train.  [default: what FILE says, else ca]"),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            metavar="smoke|cpu|gpu|workbook|paper|FILE", help="A profile, or YAML like it, or a run's config.yaml."
        ),
    ] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that the folder holds.")] = False,
    set_: options.Set = None,
    group: LearnedOn = None,
    photos: Photos = None,
    classes: options.Classes = None,
    devices: AllDevices = None,
    nodes: options.Nodes = 1,
    accelerator: options.Accelerator = "auto",
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Train a model: the newest state, model.safetensors, log.csv and config.yaml stand in the run's folder.

    A run that was killed at any step and is resumed ends with the weights of an undisturbed one.

    multiclass learns on one group of photographs, in minutes and without masks: --group or --photos say which. It has
    no state in between: with --resume a finished run is kept, and one that was killed starts anew.
    """
    from coseglib.training.configuration import load_profile, method_of

    method = method or method_of(profile)
    if options.learns_online(method):
        several = (devices or 1) * nodes > 1
        typer.echo(str(_train_online(output, profile, resume, set_, group, photos, classes, several, accelerator)))
        return
    options.refuse(f"is for multiclass; {method} learns from the masks of whole data sets", group=group, photos=photos)
    options.refuse("is for multiclass", classes=classes is not None)
    from coseglib.training.loop import train as train_model

    model = train_model(
        load_profile(profile, method, options.fields(set_)),
        output,
        resume,
        devices=devices or "auto",
        num_nodes=nodes,
        accelerator=accelerator,
    )
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        typer.echo(str(model))


def _train_online(output, profile, resume, set_, group, photos, classes, several, accelerator) -> Path:
    from coseglib.unsupervised.checkpoint import train_on_group
    from coseglib.unsupervised.configuration import load_online
    from coseglib.unsupervised.groups import group_of_files, named_group
    from coseglib.unsupervised.job import check_classes

    options.refuse("multiclass learns in one process", devices=several)
    config = load_online(profile, {"device": accelerator, **options.fields(set_)})
    if photos:
        options.refuse("is a group of its own; --photos are another", group=group)
        check_classes(options.number_of_classes(classes))
        chosen = group_of_files(photos, say=options.say)
    elif group or profile == "smoke":
        chosen = named_group(group or "star+ring")
    else:
        raise CosegError("multiclass: learns on one group; name it, --group dog+person, or give --photos and --classes")
    classes = len(chosen.targets) if classes is None else classes
    return train_on_group(chosen, classes, config, output, resume, options.say_at_once)
