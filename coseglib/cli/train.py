"""`coseg train`: a model from a profile."""

import os
from pathlib import Path

import typer

from coseglib.cli import options
from coseglib.cli.options import flag, option
from coseglib.core.errors import CosegError

LearnedOn = option(
    str | None,
    "multiclass: what it learns on, a group of voc-multiclass (dog+person) or of synthetic-multiclass.  "
    "[default for smoke: star+ring]",
    "NAME",
)
Photos = option(list[Path] | None, "multiclass: or these photographs, with --classes; repeatable.", "PHOTO|FOLDER")
AllDevices = option(int | None, "Processes: GPUs, or on CPUs over gloo.  [default: all GPUs, or 1]", "N", min=1)
Method = option(str | None, "The system to train.  [default: what FILE says, else ca]", options.METHOD_NAMES)
Profile = option(str, "A profile, or YAML like it, or a run's config.yaml.", "smoke|cpu|gpu|workbook|paper|FILE")
Resume = flag("--resume", "Go on with the run that the folder holds.")


def train(
    output: options.OutputFolder,
    method: Method = None,
    profile: Profile = "cpu",
    resume: Resume = False,
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

    Example:
      coseg train --method ca --profile smoke --output runs/ca
      coseg train --method csa --profile cpu --output runs/csa --set steps=6000 --set seed=1 --data /data/sets
      coseg train --method ca --profile smoke --output runs/ca --resume
      coseg train --method multiclass --profile smoke --output runs/scenes
      coseg train --method multiclass --output runs/dogs --group dog+person --data /data/sets
      coseg train --method multiclass --output runs/walks --photos walks/ --classes 2
    """
    from coseglib.training.configuration import load_profile, method_of

    method = method or method_of(profile)
    if options.learns_online(method):
        options.refuse("multiclass learns in one process", devices=(devices or 1) * nodes > 1)
        config = options.learning(profile, accelerator, set_)
        if profile == "smoke" and not photos:
            group = group or "star+ring"
        typer.echo(str(_train_online(config, output, resume, group, photos, classes)))
        return
    options.refuse(f"is for multiclass; {method} learns from the masks of whole data sets", group=group, photos=photos)
    options.refuse("is for multiclass", classes=classes is not None)
    from coseglib.training import loop

    config = load_profile(profile, method, options.fields(set_))
    where = {"devices": devices or "auto", "num_nodes": nodes, "accelerator": accelerator}
    model = loop.train(config, output, resume, **where)
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        typer.echo(str(model))


def _train_online(config, output, resume, group, photos, classes) -> Path:
    from coseglib.unsupervised.configuration import group_of_files, named_group
    from coseglib.unsupervised.learner import train_on_group

    if photos:
        options.refuse("is a group of its own; --photos are another", group=group)
        options.check_number(classes)
        chosen = group_of_files(photos, say=options.say)
    elif group:
        chosen = named_group(group)
    else:
        raise CosegError("multiclass: learns on one group; name it, --group dog+person, or give --photos and --classes")
    classes = len(chosen.targets) if classes is None else classes
    return train_on_group(chosen, classes, config, output, resume, options.say_at_once)
