"""`coseg segment`: masks of what photographs have in common."""

from pathlib import Path

import typer

from coseglib.cli import options
from coseglib.cli.options import argument, flag

Photos = argument(list[Path], "Photographs of one group.", "PHOTOS_OR_FOLDER")
BFloat16 = flag("--bfloat16", "Faster where the processor has it; same masks but for single pixels.")


def segment(
    photos: Photos,
    output: options.OutputFolder,
    checkpoint: options.Checkpoint = None,
    method: options.Method = None,
    group: options.Group = None,
    looks: options.Looks = None,
    classes: options.Classes = None,
    post: options.Post = None,
    profile: options.OnlineProfile = None,
    set_: options.Set = None,
    bfloat16: BFloat16 = False,
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

    Example:
      coseg segment holiday/dog/ -o out
      coseg segment a.jpg b.jpg c.jpg -o out --checkpoint ca-mobilenet_v2-paper --group min
      coseg segment walks/ -o out --method multiclass --classes 2
    """
    from coseglib.segmenting.job import segment_photos

    model = options.loaded(checkpoint, method, looks, post, classes=classes is not None, profile=profile, set=set_)
    if model is None or model.online:
        options.refuse("multiclass pools no attention", group=group, looks=looks)
    if model is None:
        from coseglib.unsupervised.configuration import group_of_files
        from coseglib.unsupervised.learner import learn

        options.refuse("learning takes one process", devices=devices * nodes > 1)
        config = options.learning(profile or "cpu", accelerator, set_)
        options.check_number(classes)
        model = learn(group_of_files(photos, output), classes, config, options.say)
    where = {"devices": devices, "num_nodes": nodes, "accelerator": accelerator}
    summary = segment_photos(photos, output, model, group or "mean", post=post, bfloat16=bfloat16, **where)
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
    done = f"{summary.done} of {summary.photos} photographs{earlier} in {summary.seconds:.1f} s{others}"
    typer.echo(f"{done}: {summary.out}")
