"""`coseg evaluate`: a table of scores."""

from pathlib import Path
from typing import Literal

import typer

from coseglib.cli import options
from coseglib.cli.options import flag, option, output_option

Dataset = option(
    str,
    "icoseg8, icoseg, msrc7, pascal, voc-val, internet, synthetic, voc-multiclass, …, or a folder with images/ and "
    "ground_truth/.",
    "NAME|DIR",
)
Table = output_option(Path, "Table to write.", "TABLE.csv", folder=False)
Protocol = option(
    str | None,
    "common, a paper's own, partner-swap or refusal.  [default: common; for multiclass: multiclass]",
    "NAME",
)
Partner = option(Literal["group", "self", "other"], "Whose attention a photograph receives.")
Limit = option(int | None, "Only the first N photographs of each group.", "N", min=1)
Only = option(list[str] | None, "multiclass: only the group of this name; repeatable.", "GROUP")
Ablations = flag(
    "--ablations", "multiclass: a larger table; w/o ATT, SA, MA, SA+MA, by argmax and CRF, beside k-means and stripes."
)
Baselines = flag("--baselines", "multiclass: as --ablations, of SA+MA alone beside k-means and stripes.")


def evaluate(
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

    Example:
      coseg evaluate --checkpoint ca-mobilenet_v2 --dataset icoseg8 -o icoseg8.csv
      coseg evaluate --checkpoint runs/ca/model.safetensors --dataset pascal --protocol partner-swap -o swap.csv
      coseg evaluate --method multiclass --dataset voc-multiclass --only dog+person --only cat+person -o two.csv
      coseg evaluate --method multiclass --dataset synthetic-multiclass --profile smoke --ablations -o four.csv
    """
    from coseglib.core.devices import launch
    from coseglib.core.tables import write_table
    from coseglib.evaluation.tables import evaluation_table

    given = {"classes": classes is not None, "profile": profile, "set": set_}
    model = options.loaded(checkpoint, method, looks, post, **given, ablations=ablations, baselines=baselines)
    if model is not None:
        model = model.to(launch(accelerator=accelerator).device)
    if model is None or model.online:
        options.refuse("multiclass pools no attention", group=group, looks=looks)
        options.refuse("multiclass has no partners to choose", partner=partner != "group")
        options.refuse("multiclass has a protocol of its own", protocol=protocol not in (None, "multiclass"))
        system = options.learning(profile or "cpu", accelerator, set_) if model is None else model
        table = _multiclass_table(dataset, output, system, limit, only, classes, post, ablations, baselines)
    else:
        options.refuse("is for multiclass", only=only)
        table = evaluation_table(model, dataset, protocol or "common", partner, group or "mean", limit, quiet=False)
        write_table(table, output)
    shown = table.drop(columns=["protocol", "checkpoint sha256"], errors="ignore")
    typer.echo(shown.to_string(index=False, float_format="%.4f", na_rep=""))


def _multiclass_table(dataset, output, system, limit, only, classes, post, ablations, baselines):
    from dataclasses import replace

    from coseglib.data import load
    from coseglib.evaluation.tables import ABLATIONS, evaluate_groups, multiclass_table
    from coseglib.unsupervised.configuration import named_groups

    systems = tuple(ABLATIONS) if ablations else ("SA+MA",) if baselines else ()
    if systems:
        why = "tables with baselines have the group's number of classes, and both ways"
        options.refuse(why, classes=classes, post=post)
    groups = [replace(group, photos=group.photos[:limit]) for group in named_groups(load(dataset), only)]
    if systems:
        return evaluate_groups(groups, system, output, systems, options.say)
    return multiclass_table(groups, system, output, classes, post, options.say)
