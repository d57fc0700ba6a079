"""`coseg segment`: masks of what photographs have in common."""

from pathlib import Path
from typing import Annotated

import typer

from coseglib.cli import options

EXAMPLES = (
    "coseg segment holiday/dog/ -o out",
    "coseg segment a.jpg b.jpg c.jpg -o out --checkpoint ca-mobilenet_v2-paper --group min",
    "coseg segment walks/ -o out --method multiclass --classes 2",
)


def command(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTOS_OR_FOLDER", help="Photographs of one group.")],
    output: options.OutputFolder,
    checkpoint: options.Checkpoint = None,
    method: options.Method = None,
    group: options.Group = None,
    looks: options.Looks = None,
    classes: options.Classes = None,
    post: options.Post = None,
    profile: options.OnlineProfile = None,
    set_: options.Set = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Faster where the processor has it; same masks but for single pixels.")
    ] = False,
    devices: options.Devices = 1,
    nodes: options.Nodes = 1,
    accelerator: options.Accelerator = "auto",
    weights: options.Weights = None,
) -> None:
    """Segment what photographs have in common.

    Writes DIR/masks/<stem>.png (0 and 255, the photograph's own size), DIR/overlays/<stem>.jpg and DIR/result.json. A
    killed run goes on where it was. Exit code 0: all done; 2: some were skipped, named, and the rest is written; 1:
    nothing could be done.

    With --method multiclass a network learns on these very photographs first, in minutes, from --classes K alone; a
    checkpoint of `coseg train --method multiclass` is used as it is. Masks are label maps then: 0 the background, 1 to
    K the classes, in an order of its own. A killed run learns anew.
    """
    from coseglib.segmenting.job import segment_photos

    if options.learns_online(method) and not checkpoint:
        model = _learned(photos, output, classes, profile, set_, devices * nodes > 1, accelerator)
    else:
        why = "is for learning, with --method multiclass and without --checkpoint"
        options.refuse(why, classes=classes is not None, profile=profile, set=set_)
        model = options.loaded(checkpoint, method, looks, post)
    if model.online:
        options.refuse("multiclass pools no attention", group=group, looks=looks)
    summary = segment_photos(
        photos,
        output,
        model,
        group or "mean",
        post=post,
        bfloat16=bfloat16,
        devices=devices,
        num_nodes=nodes,
        accelerator=accelerator,
    )
    if summary.rank == 0:
        _say(summary)
    raise typer.Exit(summary.exit_code)


def _say(summary) -> None:
    for file, why in summary.skipped:
        options.say(f"coseg: {file}: {why}; left out, {summary.done} photographs done")
    if summary.note:
        typer.echo(summary.note)
    earlier = f" ({summary.earlier} of them earlier)" if summary.earlier else ""
    others = f", {summary.ignored} files that are no photographs" if summary.ignored else ""
    typer.echo(
        f"{summary.done} of {summary.photos} photographs{earlier} in {summary.seconds:.1f} s{others}: {summary.out}"
    )


def _learned(photos, output, classes, profile, set_, several, accelerator):
    """The network that has learned on the photographs to segment."""
    from coseglib.unsupervised.checkpoint import learn
    from coseglib.unsupervised.configuration import load_online
    from coseglib.unsupervised.groups import group_of_files
    from coseglib.unsupervised.job import check_classes

    options.refuse("learning takes one process", devices=several)
    config = load_online(profile or "cpu", {"device": accelerator, **options.fields(set_)})
    check_classes(options.number_of_classes(classes))
    return learn(group_of_files(photos, output), classes, config, options.say)
