"""`coseg evaluate`: what a system scores on a data set, and how much a prior should count."""

from pathlib import Path
from typing import Literal

import typer

from coseglib.cli import options
from coseglib.cli.options import flag, option
from coseglib.core.errors import CosegError
from coseglib.core.files import writable

Dataset = option(
    str | None,
    "icoseg8, msrc7, pascal, voc-val, icoseg30, internet, synthetic, voc-multiclass, …, or a folder with images/ and "
    "ground_truth/; voc-val, msrc-val and icoseg30 choose, and so does icoseg in part: no tests.",
    "NAME|DIR",
)


def _own_table(path: Path | None) -> Path | None:
    """`writable`, and what is there already is a table of scores, or empty."""
    if path and writable(path, folder=False).is_file() and path.stat().st_size:
        with open(path, "rb") as opened:
            columns = set(opened.readline(1000).decode("utf-8", "replace").strip().split(","))
        if "images" not in columns or not columns & {"dataset", "group"}:
            raise CosegError(f"{path}: is there already, and no table of scores; give another name, or move it away")
    return path


Table = option(Path, "Table to write.", "TABLE.csv", "--output", "-o", callback=_own_table)
Protocol = option(
    str | None,
    "common, a paper's own, partner-swap, refusal or reference.  [default: common; for multiclass: multiclass]",
    "NAME",
)
References = option(int | None, "partner-swap: so many of the partners come with their masks.", "N", min=1, max=20)
Partner = option(Literal["group", "self", "other"], "Whose attention a photograph receives.")
Limit = option(int | None, "Only the first N photographs of each group.", "N", min=1)
Choose = flag(
    "--choose-prior-weight",
    "A table of J by weight of the --prior instead, on validation data: of --dataset, or all there are.",
)
Only = option(list[str] | None, "multiclass: only the group of this name; repeatable.", "GROUP")
Ablations = flag(
    "--ablations", "multiclass: a larger table; w/o ATT, SA, MA, SA+MA, by argmax and CRF, beside k-means and stripes."
)
Baselines = flag("--baselines", "multiclass: as --ablations, of SA+MA alone beside k-means and stripes.")


def evaluate(
    output: Table,
    dataset: Dataset = None,
    checkpoint: options.Checkpoint = None,
    method: options.Method = None,
    protocol: Protocol = None,
    references: References = None,
    partner: Partner = "group",
    group: options.Group = None,
    looks: options.Looks = None,
    limit: Limit = None,
    only: Only = None,
    classes: options.Classes = None,
    post: options.Post = None,
    prior: options.Prior = None,
    prior_weight: options.PriorWeight = None,
    choose_prior_weight: Choose = False,
    profile: options.OnlineProfile = None,
    set_: options.Set = None,
    ablations: Ablations = False,
    baselines: Baselines = False,
    bfloat16: options.BFloat16 = None,
    accelerator: options.Accelerator = "auto",
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Score a model on a data set: a row a group, and a last row `all`.

    Columns: dataset, group, images, P, J, protocol, checkpoint sha256, precision, seconds (an image). With --protocol
    partner-swap J_asked, J_other and score stand in the place of P and J, with --protocol refusal AUROC.
    --prior adds saliency maps to the system's answer, which columns prior, prior weight, prior sha256 name.

    With --method multiclass a network learns on each group first, with as many classes as the group has, or K; a
    checkpoint of its own is used as it is. Labels have no names: once a group they are given to the classes so that J
    is largest. The photographs' rows stand in TABLE.photos.csv, and a run that was killed goes on with the groups that
    are missing there.

    Example:
      coseg evaluate --checkpoint ca-mobilenet_v2 --dataset icoseg8 -o icoseg8.csv
      coseg evaluate --checkpoint runs/ca/model.safetensors --dataset pascal --protocol partner-swap -o swap.csv
      coseg evaluate --prior onnx:saliency.onnx --choose-prior-weight -o weights.csv
      coseg evaluate --method multiclass --dataset voc-multiclass --only dog+person --only cat+person -o two.csv
      coseg evaluate --method multiclass --dataset synthetic-multiclass --profile smoke --ablations -o four.csv
    """
    from coseglib.core.devices import device_of

    _check_named(dataset, choose_prior_weight)
    tables = {"ablations": ablations, "baselines": baselines}
    given = {"classes": classes is not None, "profile": profile, "set": set_, **tables}
    model = options.loaded(checkpoint, method, looks, post, bfloat16, prior, prior_weight, **given)
    model = model and model.to(device_of(accelerator))
    asked = {"protocol": protocol, "partner": partner, "references": references, "prior_weight": prior_weight}
    if model is None or model.online:
        _refuse_for_multiclass({"group": group, "looks": looks}, asked, choose_prior_weight)
        system = model or options.learning(profile, accelerator, set_, bfloat16)
        table = _multiclass_table(dataset, output, system, limit, only, options.number_if_any(classes), post, **tables)
    else:
        options.refuse("is for multiclass", only=only)
        table = _one_class_table(model, dataset, group or "mean", limit, choose_prior_weight, asked, output)
    _say_table(table, model, dataset)


def _check_named(dataset: str | None, chooses: bool) -> None:
    if dataset is None and not chooses:
        raise CosegError("--dataset: missing; name a data set or a folder, such as icoseg8")


def _refuse_for_multiclass(pooling: dict, asked: dict, choose_weight: bool) -> None:
    options.refuse("multiclass pools no attention", **pooling)
    options.refuse("multiclass has no partners to choose", partner=asked["partner"] != "group")
    options.refuse("multiclass has a protocol of its own", protocol=asked["protocol"] not in (None, "multiclass"))
    options.refuse("multiclass finds its classes without marks", references=asked["references"])
    options.refuse("multiclass takes no prior", choose_prior_weight=choose_weight)


def _say_table(table, model, dataset: str | None) -> None:
    """The table, and before it why it would be no test."""
    from coseglib.data import remark
    from coseglib.evaluation.systems import learned_from

    for line in filter(None, (remark(dataset), learned_from(model, dataset))):
        options.say(f"coseg: {line.rstrip('.')}")
    hidden = ["protocol", "checkpoint sha256", "precision", "prior", "prior sha256"]
    typer.echo(table.drop(columns=hidden, errors="ignore").to_string(index=False, float_format="%.4f", na_rep=""))


def _one_class_table(model, dataset, how: str, limit, choose_weight: bool, asked: dict, output: Path):
    from coseglib.core.tables import write_table
    from coseglib.evaluation.tables import evaluation_table, weight_table

    if choose_weight:
        others = asked | {"partner": asked["partner"] != "group", "prior_weight": asked["prior_weight"] is not None}
        options.refuse("--choose-prior-weight asks with the group, by common, at weights of its own", **others)
        table = weight_table(model, dataset, how, limit, quiet=False)
    else:
        about = asked["protocol"] or "common", asked["partner"], how, limit
        table = evaluation_table(model, dataset, *about, quiet=False, references=asked["references"])
    write_table(table, output)
    return table


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
