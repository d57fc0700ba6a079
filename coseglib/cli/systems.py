"""`coseg segment | name | train`: what systems are for."""

import os
from functools import partial
from pathlib import Path

import typer

from coseglib.cli import options
from coseglib.cli.options import argument, flag, option
from coseglib.core.errors import CosegError, one_line

Photos = argument(list[Path], "Photographs of one group; or a folder, of which each folder is one.", "PHOTOS_OR_FOLDER")
Together = flag("--together", "One group of everything, folders in the folder too.")


def segment(
    photos: Photos,
    output: options.OutputFolder,
    together: Together = False,
    checkpoint: options.Checkpoint = None,
    method: options.Method = None,
    group: options.Group = None,
    looks: options.Looks = None,
    classes: options.Classes = None,
    names: options.Names = None,
    post: options.Post = None,
    reference: options.ReferenceFiles = None,
    reference_mask: options.ReferenceMasks = None,
    box: options.Box = None,
    point: options.Point = None,
    not_point: options.NotPoint = None,
    prior: options.Prior = None,
    prior_weight: options.PriorWeight = None,
    export: options.Export = None,
    profile: options.OnlineProfile = None,
    set_: options.Set = None,
    bfloat16: options.BFloat16 = None,
    devices: options.Devices = 1,
    nodes: options.Nodes = 1,
    accelerator: options.Accelerator = "auto",
    weights: options.Weights = None,
) -> None:
    """Segment what photographs have in common.

    Writes DIR/masks/<stem>.png (0 and 255, the photograph's own size), DIR/overlays/<stem>.jpg and DIR/result.json. A
    killed run goes on where it was. Exit code 0: all done; 2: some were skipped, named; 3: multiclass has learned
    nothing of some group, and says so; in both cases the rest is written; 1: nothing could be done.

    Of a folder, named alone, each folder in it that holds photographs is a group, written to DIR/<folder>/masks/ and so
    on, with one DIR/result.json. What is named one by one is one group.
    --export adds DIR/cutouts/<stem>.png (RGBA), DIR/coco.json and coco_rle.json (polygons, pixels), DIR/page.html.
    --reference: a picture, of these or another, in which the object that is meant is marked by mask, box or points.

    With --method multiclass a network learns on these very photographs first, in minutes, from --classes K alone, or
    auto: as many as are proposed. A checkpoint of it is used as it is. Masks are label maps then: 0 the background, 1
    to K the classes; --names or, after a look, `coseg name` names them. A killed run learns anew.

    Example:
      coseg segment animals/ -o out --export cutouts,coco,page
      coseg segment a.jpg b.jpg c.jpg -o out --checkpoint ca-mobilenet_v2-paper --group min
      coseg segment insects/ -o out --reference insects/1.jpg --box 120,80,340,260
      coseg segment walks/ -o out --method multiclass --classes 2 --export page
    """
    given, exports = options.references(reference, reference_mask, box, point, not_point), options.exports(export)
    learning = {"classes": classes is not None, "profile": profile, "set": set_}
    model = options.loaded(checkpoint, method, looks, post, bfloat16, prior, prior_weight, **learning)
    _refuse_others(model, {"group": group, "looks": looks}, {"reference": given}, {"names": names})
    number = options.number_of(classes) if model is None else model.classes
    called = options.names(names, number)
    if model is None:
        options.refuse("learning takes one process", devices=devices * nodes > 1)
        learned = partial(_learned, exports, number, options.learning(profile, accelerator, set_, bfloat16))
    where = {"devices": devices, "num_nodes": nodes, "accelerator": accelerator}
    how = {"how": group or "mean", "post": post, "references": given, "exports": exports, "names": called}
    raise typer.Exit(_segmented(photos, output, together, learned if model is None else model, where, how))


def _refuse_others(model, pooling: dict, marks: dict, names: dict) -> None:
    """Refuse what does not fit to a system of several classes, to be learned (None) or not, or to one of one class."""
    if model is None or model.online:
        options.refuse("multiclass pools no attention", **pooling)
        options.refuse("multiclass finds its classes without marks", **marks)
    else:
        options.refuse("names the classes of multiclass", **names)


def _segmented(photos: list[Path], output: Path, together: bool, system, where: dict, how: dict) -> int:
    """Segment one group or several, and say what was done; the exit code. system: a model, or what learns one."""
    from coseglib.segmenting.groups import earlier_results, find_groups, segment_groups
    from coseglib.segmenting.job import segment_photos

    found, older, models = find_groups(photos, output, together), earlier_results(output), []
    several, learns = len(found.groups) > 1, isinstance(system, partial)

    def model_of(*group):
        models.append(system(*group) if learns else system)
        return models[-1]

    if several and learns and how["names"]:
        raise CosegError("--names: each group learns classes of its own; segment the groups one by one, or --together")
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        for line in (found.note, *(f"{folder}: no photographs of its own, so no group" for folder in found.empty)):
            typer.echo(line, nl=bool(line))
    if several:
        older -= {group.name for group in found.groups}
        summary = segment_groups(found, output, model_of, where=where, say=_say, **how)
    else:
        older -= {"masks"}  # of which the summary knows more
        summary = segment_photos(photos, output, model_of(photos, output), **how, **where)
    if summary.rank == 0:
        for name in sorted(older):
            typer.echo(f"{output / name}: of an earlier run, and not of these photographs; it stays there")
        if several:
            _say_left_out(found.left, summary.done)
            typer.echo(f"{len(found.groups)} groups, {_done(summary)}")
        else:
            _say(summary)
    nothing = any(model.card.get("nothing_learned") for model in models)
    return 3 if nothing and not summary.exit_code else summary.exit_code


def _learned(exports: tuple[str, ...], classes: int | None, config, photos: list[Path], output: Path):
    from coseglib.segmenting.finding import check_output, find_photos, output_names
    from coseglib.unsupervised.configuration import group_of_files
    from coseglib.unsupervised.learner import learn

    names = output_names(find_photos(photos, output)[0])
    check_output(output, names, exports=exports)  # not after minutes of learning
    return learn(group_of_files(photos, output), classes, config, options.say)


def _say(summary, group: str = "") -> None:
    """What was left out of a group, what is to be said of it, and a line of what was done."""
    named = f"{group}: " if group else ""
    _say_left_out(summary.skipped, summary.done)
    if summary.note:
        typer.echo(f"{named}{summary.note}")
    if summary.older:
        these = f"{', '.join(summary.older[:3])}{', …' if len(summary.older) > 3 else ''}"
        of = f"{summary.out}/masks: {len(summary.older)} of an earlier run that are not of these photographs"
        typer.echo(f"{of} stay there ({these})")
    typer.echo(f"{named}{_done(summary)}")


def _say_left_out(skipped, done: int) -> None:
    for file, why in skipped:
        options.say(one_line(f"coseg: {file}: {why}; left out, {done} photographs done", 2000))


def _done(summary) -> str:
    earlier = f" ({summary.earlier} of them earlier)" if summary.earlier else ""
    others = f", {summary.ignored} files that are no photographs" if summary.ignored else ""
    done = f"{summary.done} of {summary.photos} photographs{earlier} in {summary.seconds:.1f} s{others}"
    return f"{done}: {summary.out}"


Results = argument(Path, "A folder that `coseg segment` has written label maps to.", "DIR")
NamesOf = argument(str, "A name for each class, in the order of the labels, by commas.", "NAME,NAME")


def name(results: Results, names: NamesOf) -> None:
    """Name the classes of label maps that are there, after a look at them.

    The names go to DIR/result.json, the overlays' legends and, where they are there, DIR/page.html and the COCO files.
    Nothing is learned or segmented anew.

    Example:
      coseg segment walks/ -o out --method multiclass --classes 2 --export page
      coseg name out dog,person
    """
    from coseglib.segmenting.naming import name_classes

    for entry in name_classes(results, options.names(names)):
        options.say(f"coseg: {results / entry.get('overlay', entry['mask'])}: stays as it is, edited or its photo gone")


LearnedOn = option(
    str | None,
    "multiclass: what it learns on, a group of voc-multiclass (dog+person) or of synthetic-multiclass.  "
    "[default for smoke: star+ring]",
    "NAME",
)
LearnedFrom = option(list[Path] | None, "multiclass: or these photographs, with --classes; repeatable.", "PHOTO|FOLDER")
AllDevices = option(int | None, "Processes: GPUs, or on CPUs over gloo.  [default: all GPUs, or 1]", "N", min=1)
Method = option(
    str | None, "The system to train.  [default: what --start or FILE is of, else ca]", options.METHOD_NAMES
)
Profile = option(
    str | None,
    "A profile, or YAML like it, or a run's config.yaml.  [default: tune with --start, else cpu]",
    "smoke|cpu|gpu|workbook|late|paper|tune|FILE",
)
Start = option(str | None, "A checkpoint to go on from, whose system, backbone and options it keeps.", "NAME|RUN|FILE")
DataFolder = option(
    Path | None, "Photographs and masks of your own, images/<group>/ and ground_truth/<group>/, to train on.", "DIR"
)
Resume = flag("--resume", "Go on with the run that the folder holds.")
Anyway = flag(
    "--resume-anyway", "So also with other photographs or another number of processes; the model's card says so."
)


def train(
    output: options.OutputFolder,
    method: Method = None,
    profile: Profile = None,
    start: Start = None,
    data_folder: DataFolder = None,
    resume: Resume = False,
    anyway: Anyway = False,
    set_: options.Set = None,
    group: LearnedOn = None,
    photos: LearnedFrom = None,
    classes: options.Classes = None,
    devices: AllDevices = None,
    nodes: options.Nodes = 1,
    accelerator: options.Accelerator = "auto",
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Train a model: the newest state, model.safetensors, log.csv and config.yaml stand in the run's folder.

    A run that was killed at any step and is resumed ends with the weights of an undisturbed one.

    --data-folder trains on photographs and masks of your own, checked first; a fifth of each group is kept aside to
    choose the model by. --start goes on from a checkpoint; without, the ImageNet backbone wants many photographs.

    multiclass learns on one group of photographs, in minutes and without masks: --group or --photos say which. It has
    no state in between: --resume keeps a finished run, and one that was killed starts anew. Exit code 3: it has learned
    nothing, and says so.

    Example:
      coseg train --method ca --profile smoke --output runs/ca
      coseg train --method csa --profile cpu --output runs/csa --set steps=6000 --set seed=1 --data /data/sets
      coseg train --method ca --profile smoke --output runs/ca --resume
      coseg train --data-folder mine/ --start ca-mobilenet_v2 --output runs/mine
      coseg train --method multiclass --output runs/dogs --group dog+person --data /data/sets
      coseg train --method multiclass --output runs/walks --photos walks/ --classes 2
    """
    from coseglib.training.configuration import method_of

    named, profile = profile, profile or ("tune" if start else "cpu")
    method = method or (None if start else method_of(profile))
    if options.learns_online(method):
        options.refuse("multiclass learns on one group, without masks", data_folder=data_folder, start=start)
        options.refuse("multiclass learns in one process", devices=(devices or 1) * nodes > 1)
        options.refuse("multiclass has nothing to go on from", resume_anyway=anyway)
        config = options.learning(named, accelerator, set_)
        group = group or ("star+ring" if named == "smoke" and not photos else None)
        _train_online(config, output, resume, group, photos, classes)
        return
    others = "is for multiclass; others learn from masks"
    options.refuse(others, group=group, photos=photos, classes=classes is not None)
    from coseglib.training import loop, tuning

    if data_folder and not start:
        options.say("coseg: no --start: it trains from the ImageNet backbone, as on a whole data set")
    config = tuning.tuned_config(profile, method, start, data_folder, options.fields(set_))
    where = {"devices": devices or "auto", "num_nodes": nodes, "accelerator": accelerator}
    model = loop.train(config, output, resume or anyway, anyway=anyway, **where)
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        typer.echo(str(model))


def _train_online(config, output, resume, group, photos, classes) -> None:
    from coseglib.models.checkpoints import load_model
    from coseglib.unsupervised.configuration import group_of_files, named_group
    from coseglib.unsupervised.learner import train_on_group

    if photos:
        options.refuse("is a group of its own; --photos are another", group=group)
        number = options.number_of(classes)
        chosen = group_of_files(photos, say=options.say)
    elif group:
        chosen = named_group(group)
        number = len(chosen.targets) if classes is None else options.number_of(classes)
    else:
        raise CosegError("multiclass: learns on one group; name it, --group dog+person, or give --photos and --classes")
    file = train_on_group(chosen, number, config, output, resume, options.say_at_once)
    typer.echo(str(file))
    if load_model(file, "multiclass").card.get("nothing_learned"):
        raise typer.Exit(3)
