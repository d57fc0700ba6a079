"""`coseg evaluate`: a table of scores."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from coseglib.cli import options

EXAMPLES = (
    "coseg evaluate --checkpoint ca-mobilenet_v2 --dataset icoseg8 -o icoseg8.csv",
    "coseg evaluate --checkpoint runs/ca/model.safetensors --dataset pascal --protocol partner-swap -o swap.csv",
    "coseg evaluate --method multiclass --dataset voc-multiclass --only dog+person --only cat+person -o two.csv",
    "coseg evaluate --method multiclass --dataset synthetic-multiclass --profile smoke --ablations -o four.csv",
)

Dataset = Annotated[
    str,
    typer.Option(
        metavar="NAME|DIR",
        help="icoseg8, icoseg, msrc7, pascal, voc-val, internet, synthetic, voc-multiclass, …, or a folder with "
        "images/ and ground_truth/.",
    ),
]
Table = Annotated[
    Path, typer.Option("--output", "-o", metavar="TABLE.csv", callback=options.output_file, help="Table to write.")
]
Protocol = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="common, a paper's own, partner-swap or refusal.  [default: common; for multiclass: multiclass]",
    ),
]
Partner = Annotated[Literal["group", "self", "other"], typer.Option(help="Whose attention a photograph receives.")]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N photographs of each group.")]
Only = Annotated[
    list[str] | None, typer.Option(metavar="GROUP", help="multiclass: only the group of this name; repeatable.")
]
Ablations = Annotated[
    bool,
    typer.Option(
        "--ablations",
        help="multiclass: a larger table; w/o ATT, SA, MA, SA+MA, by argmax and CRF, beside k-means and stripes.",
    ),
]
Baselines = Annotated[
    bool, typer.Option("--baselines", help="multiclass: as --ablations, of SA+MA alone beside k-means and stripes.")
]


def command(
    dataset: Dataset,
    output: Table,
    checkpoint: options.Checkpoint = None,
    method: options.Method = None,
    protocol: Protocol = None,
    partner: Partner = "group",
    group: options.Group = None,
    looks: options.Looks = None,
    limit: Limit = None,
    only: Only = None,
    classes: options.Classes = None,
    post: options.Post = None,
    profile: options.OnlineProfile = None,
    set_: options.Set = None,
    ablations: Ablations = False,
    baselines: Baselines = False,
    accelerator: options.Accelerator = "auto",
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Score a model on a data set: a row a group, and a last row `all`.

    Columns: dataset, group, images, P, J, protocol, checkpoint sha256, seconds (an image). With --protocol partner-swap
    J_asked, J_other and score stand in the place of P and J, with --protocol refusal AUROC.

    With --method multiclass a network learns on each group first, with as many classes as the group has, or K; a
    checkpoint of its own is used as it is. Labels have no names: once a group they are given to the classes so that J
    is largest. The photographs' rows stand in TABLE.photos.csv, and a run that was killed goes on with the groups that
    are missing there.
    """
    from coseglib.core.devices import launch
    from coseglib.core.tables import write_table
    from coseglib.evaluation.tables import evaluation_table

    model = None
    if not options.learns_online(method) or checkpoint:
        why = "is for learning, with --method multiclass and without --checkpoint"
        given = {"classes": classes is not None, "profile": profile, "set": set_}
        options.refuse(why, **given, ablations=ablations, baselines=baselines)
        model = options.loaded(checkpoint, method, looks, post).to(launch(accelerator=accelerator).device)
    if model is None or model.online:
        options.refuse("multiclass pools no attention", group=group, looks=looks)
        options.refuse("multiclass has no partners to choose", partner=partner != "group")
        options.refuse("multiclass has a protocol of its own", protocol=protocol not in (None, "multiclass"))
        systems = None if ablations else ("SA+MA",) if baselines else ()
        learning = {"device": accelerator, **options.fields(set_)}
        _shown(_evaluate_online(dataset, output, model, limit, only, classes, post, profile, learning, systems))
        return
    options.refuse("is for multiclass", only=only)
    table = evaluation_table(model, dataset, protocol or "common", partner, group or "mean", limit, _progress)
    write_table(table, output)
    _shown(table)


def _progress(name: str, done: int, total: int) -> None:
    options.say(f"{done}/{total} {name}")


def _shown(table) -> None:
    table = table.drop(columns=["protocol", "checkpoint sha256"], errors="ignore")
    typer.echo(table.to_string(index=False, float_format="%.4f", na_rep=""))


def _evaluate_online(dataset, output, model, limit, only, classes, post, profile, learning, systems):
    """systems: those that stand beside the baselines; None: all; (): the plain table."""
    import dataclasses

    from coseglib.data import load
    from coseglib.evaluation import multiclass_tables
    from coseglib.unsupervised.configuration import load_online
    from coseglib.unsupervised.groups import named_groups
    from coseglib.unsupervised.job import check_classes

    system = load_online(profile or "cpu", learning) if model is None else model
    if classes is not None:
        check_classes(classes)
    systems = tuple(multiclass_tables.ABLATIONS) if systems is None else systems
    if systems:
        why = "tables with baselines have the group's number of classes, and both ways"
        options.refuse(why, classes=classes, post=post)
    groups = [dataclasses.replace(g, photos=g.photos[:limit]) for g in named_groups(load(dataset), only)]
    if not systems:
        return multiclass_tables.multiclass_table(groups, system, output, classes, post, options.say)
    return multiclass_tables.evaluate_groups(groups, system, output, systems, options.say)
