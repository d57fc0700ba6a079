"""The command line: `coseg doctor | segment | train | evaluate | ship | ablate | report | download`.

Each command calls one function of the library; the library is imported inside it, so that `coseg --help` costs nothing.
An error is one line on stderr, `coseg: <file>: <what is wrong>; <what to do>`, and an exit code that is not 0.
"""

import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from coseglib.core.errors import CosegError
from coseglib.core.paths import DEFAULT_CHECKPOINT

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a second process tenfold
UsageError = typer.BadParameter.__base__  # click's, of which recent typers carry a copy of their own

METHOD_NAMES = "ca|fca|csa|ssnm|pfcc|dcnet|multiclass"
SYSTEMS = """Systems, the names for --method, and their papers:

\b
  ca fca csa  channel attention; Chen, Huang and Nakayama, ACCV 2018
  ssnm        spatial-semantic modulation; Zhang, Chen, Liu and Liu, AAAI 2020
  pfcc        pyramid cross-correlation; Chen et al., Sci China Inf Sci 2023
  dcnet       dual-cross correlation; Li, Liu, Gong and Liu
  multiclass  several classes at once, without masks, learned on the photographs themselves; a thesis"""

app = typer.Typer(
    name="coseg",
    help=f"Object co-segmentation: what do these photographs have in common, and where is it?\n\n{SYSTEMS}",
    epilog="Start with `coseg doctor`, then `coseg segment photos/ -o out`. With --debug an error shows its traceback.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Pooling(StrEnum):
    """How a group's attention is pooled."""

    mean = "mean"
    min = "min"


class Post(StrEnum):
    """How maps become masks."""

    argmax = "argmax"
    crf = "crf"


class Partner(StrEnum):
    """Whose attention a photograph receives."""

    group = "group"
    self = "self"
    other = "other"


def _root(variable: str):
    """An option's callback: what is named there goes to the environment, for this process and those it starts."""

    def name(folder: Path | None) -> Path | None:
        if folder is not None:
            if not folder.is_dir():
                raise CosegError(f"{folder}: no such folder; mend the option, or leave it out for {variable}")
            os.environ[variable] = str(folder.resolve())
        return folder

    return name


Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", callback=_root("COSEG_DATA"), help="Folder of the data sets.  [else COSEG_DATA, data/]"
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        callback=_root("COSEG_WEIGHTS"),
        help="Folder of ImageNet weights.  [else COSEG_WEIGHTS, else fetched]",
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="A shipped checkpoint, or a model.safetensors of `coseg train`.  [default: what --method multiclass "
        f"learns, else {DEFAULT_CHECKPOINT}]",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar=METHOD_NAMES, help="multiclass: learn on the photographs. Others: of which the checkpoint must be."
    ),
]
Group = Annotated[
    Pooling | None, typer.Option(help="How the group's attention is pooled.  [default: mean; not for multiclass]")
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
PostOption = Annotated[
    Post | None, typer.Option(help="How maps become masks: the larger one, or a dense CRF.  [default: as shipped]")
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


def _example(*lines: str) -> str:
    """The end of a command's help. \\b keeps its lines as they are."""
    shown = "\n".join(f"  {line}" for line in lines)
    return f"Example:\n\n\b\n{shown}\n\nWith --debug an error shows its traceback."


def _fields(given: list[str] | None) -> dict[str, str]:
    """["steps=200"] -> {"steps": "200"}."""
    for item in given or []:
        if "=" not in item:
            raise CosegError(f"--set {item}: not FIELD=VALUE; for example --set steps=200")
    return {field.strip(): value.strip() for field, value in (item.split("=", 1) for item in given or [])}


def _unfit(why: str, **given: object) -> None:
    """An error that names the first option that was given although it does not fit."""
    for option, value in given.items():
        if value:
            raise CosegError(f"--{option}: {why}; leave it out")


def _online(method: str | None) -> bool:
    """Whether the method learns on the photographs that it segments."""
    from coseglib.models import METHODS

    if method is not None and method not in METHODS:
        raise CosegError(f"{method}: no such method; one of {', '.join(METHODS)}")
    return method is not None and METHODS[method].online


def _told(text: str) -> None:
    typer.echo(text, err=True)


@app.command(epilog=_example("coseg doctor", "coseg doctor --data /data/sets --weights /data/weights"))
def doctor(data: Data = None, weights: Weights = None) -> None:
    """Say what works here: a line OK or FAIL for each part. Exit code 1 where photographs cannot be segmented."""
    from coseglib.cli.doctor import examine

    if not examine(print):
        raise typer.Exit(1)


@app.command(
    epilog=_example(
        "coseg segment holiday/dog/ -o out",
        "coseg segment a.jpg b.jpg c.jpg -o out --checkpoint ca-mobilenet_v2-paper --group min",
        "coseg segment walks/ -o out --method multiclass --classes 2",
    )
)
def segment(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTOS_OR_FOLDER", help="Photographs of one group.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder to write to.")],
    checkpoint: Checkpoint = None,
    method: Method = None,
    group: Group = None,
    looks: Looks = None,
    classes: Classes = None,
    post: PostOption = None,
    profile: OnlineProfile = None,
    set_: Set = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Faster where the processor has it; same masks but for single pixels.")
    ] = False,
    devices: Devices = 1,
    nodes: Nodes = 1,
    accelerator: Accelerator = "auto",
    weights: Weights = None,
) -> None:
    """Segment what photographs have in common.

    Writes OUT/masks/<stem>.png (0 and 255, the photograph's own size), OUT/overlays/<stem>.jpg and OUT/result.json. A
    killed run goes on where it was. Exit code 0: all done; 2: some were skipped, named, and the rest is written; 1:
    nothing could be done.

    With --method multiclass a network learns on these very photographs first, in minutes, from --classes K alone; a
    checkpoint of `coseg train --method multiclass` is used as it is. Masks are label maps then: 0 the background, 1 to
    K the classes, in an order of its own. A killed run learns anew.
    """
    from coseglib.answering.inference import segment_photos
    from coseglib.models.checkpoints import load_model

    if _online(method) and not checkpoint:
        model = _learned(photos, output, classes, profile, set_, devices * nodes > 1, accelerator)
    else:
        why = "is for learning, with --method multiclass and without --checkpoint"
        _unfit(why, classes=classes is not None, profile=profile, set=set_)
        model = load_model(checkpoint or DEFAULT_CHECKPOINT, method, looks, post)
    if hasattr(model, "classes"):
        _unfit("multiclass pools no attention", group=group, looks=looks)
    summary = segment_photos(
        photos,
        output,
        model,
        (group or Pooling.mean).value,
        post=post,
        bfloat16=bfloat16,
        devices=devices,
        num_nodes=nodes,
        accelerator=accelerator,
    )
    if summary.rank == 0:
        for file, why in summary.skipped:
            typer.echo(f"coseg: {file}: {why}; left out, {summary.done} photographs done", err=True)
        if summary.note:
            typer.echo(summary.note)
        earlier = f" ({summary.earlier} of them earlier)" if summary.earlier else ""
        others = f", {summary.ignored} files that are no photographs" if summary.ignored else ""
        typer.echo(
            f"{summary.done} of {summary.photos} photographs{earlier} in {summary.seconds:.1f} s{others}: {output}"
        )
    raise typer.Exit(summary.exit_code)


def _learned(photos, output, classes, profile, set_, several, accelerator):
    """The network that has learned on the photographs to segment."""
    from coseglib.unsupervised import learner as online

    _unfit("learning takes one process", devices=several)
    config = online.load_config(profile or "cpu", {"device": accelerator, **_fields(set_)})
    online.check_classes(_asked(classes))
    return online.learn(online.group_of_files(photos, output), classes, config, _told)


def _asked(classes: int | None) -> int:
    if classes is None:
        raise CosegError("multiclass: nobody but you knows how many classes the photographs share; add --classes K")
    return classes


@app.command(
    epilog=_example(
        "coseg train --method ca --profile smoke --output runs/ca",
        "coseg train --method csa --profile cpu --output runs/csa --set steps=6000 --set seed=1 --data /data/sets",
        "coseg train --method ca --profile smoke --output runs/ca --resume",
        "coseg train --method multiclass --profile smoke --output runs/scenes",
        "coseg train --method multiclass --output runs/dogs --group dog+person --data /data/sets",
        "coseg train --method multiclass --output runs/walks --photos walks/ --classes 2",
    )
)
def train(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The run's folder.")],
    method: Annotated[str, typer.Option(metavar=METHOD_NAMES, help="The system to train.")] = "ca",
    profile: Annotated[
        str, typer.Option(metavar="smoke|cpu|gpu|workbook|paper|FILE", help="Configuration: a profile, or YAML.")
    ] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that the folder holds.")] = False,
    set_: Set = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="multiclass: what it learns on, a group of voc-multiclass (dog+person) or of synthetic-multiclass.  "
            "[default for smoke: star+ring]",
        ),
    ] = None,
    photos: Annotated[
        list[Path] | None,
        typer.Option(metavar="PHOTO|FOLDER", help="multiclass: or these photographs, with --classes; repeatable."),
    ] = None,
    classes: Classes = None,
    devices: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Processes: GPUs, or on CPUs over gloo.  [default: all GPUs, or 1]"),
    ] = None,
    nodes: Nodes = 1,
    accelerator: Accelerator = "auto",
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Train a model: the newest state, model.safetensors, log.csv and config.yaml stand in the run's folder.

    A run that was killed at any step and is resumed ends with the weights of an undisturbed one.

    multiclass learns on one group of photographs, in minutes and without masks: --group or --photos say which. It has
    no state in between: with --resume a finished run is kept, and one that was killed starts anew.
    """
    if _online(method):
        several = (devices or 1) * nodes > 1
        typer.echo(str(_train_online(output, profile, resume, set_, group, photos, classes, several, accelerator)))
        return
    _unfit(f"is for multiclass; {method} learns from the masks of whole data sets", group=group, photos=photos)
    _unfit("is for multiclass", classes=classes is not None)
    from coseglib.training.loop import load_profile
    from coseglib.training.loop import train as train_model

    model = train_model(
        load_profile(profile, method, _fields(set_)),
        output,
        resume,
        devices=devices or "auto",
        num_nodes=nodes,
        accelerator=accelerator,
    )
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        typer.echo(str(model))


def _train_online(output, profile, resume, set_, group, photos, classes, several, accelerator) -> Path:
    from coseglib.unsupervised import learner as online

    _unfit("multiclass learns in one process", devices=several)
    config = online.load_config(profile, {"device": accelerator, **_fields(set_)})
    if photos:
        _unfit("is a group of its own; --photos are another", group=group)
        online.check_classes(_asked(classes))
        chosen = online.group_of_files(photos, say=_told)
    elif group or profile == "smoke":
        chosen = online.named_group(group or "star+ring")
    else:
        raise CosegError("multiclass: learns on one group; name it, --group dog+person, or give --photos and --classes")
    classes = len(chosen.targets) if classes is None else classes
    return online.train(chosen, classes, config, output, resume, lambda text: print(text, flush=True))


@app.command(
    epilog=_example(
        "coseg evaluate --checkpoint ca-mobilenet_v2 --dataset icoseg8 -o icoseg8.csv",
        "coseg evaluate --checkpoint runs/ca/model.safetensors --dataset pascal --protocol partner-swap -o swap.csv",
        "coseg evaluate --method multiclass --dataset voc-multiclass --only dog+person --only cat+person -o two.csv",
        "coseg evaluate --method multiclass --dataset synthetic-multiclass --profile smoke --ablations -o four.csv",
    )
)
def evaluate(
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR",
            help="icoseg8, icoseg, msrc7, pascal, voc-val, internet, synthetic, voc-multiclass, …, or a folder with "
            "images/ and ground_truth/.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TABLE.csv", help="Table to write.")],
    checkpoint: Checkpoint = None,
    method: Method = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="common, a paper's own, partner-swap or refusal.  [default: common; for multiclass: multiclass]",
        ),
    ] = None,
    partner: Annotated[Partner, typer.Option(help="Whose attention a photograph receives.")] = Partner.group,
    group: Group = None,
    looks: Looks = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N photographs of each group.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="GROUP", help="multiclass: only the group of this name; repeatable.")
    ] = None,
    classes: Classes = None,
    post: PostOption = None,
    profile: OnlineProfile = None,
    set_: Set = None,
    ablations: Annotated[
        bool,
        typer.Option(
            "--ablations",
            help="multiclass: a larger table; w/o ATT, SA, MA, SA+MA, by argmax and CRF, beside k-means and stripes.",
        ),
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="multiclass: as --ablations, of SA+MA alone beside k-means and stripes.")
    ] = False,
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Score a model on a data set: a row a group, and a last row `all`.

    Columns: dataset, group, images, P, J, protocol, checkpoint sha256, seconds (an image). With --protocol partner-swap
    J_asked, J_other and score stand in the place of P and J, with --protocol refusal AUROC.

    With --method multiclass a network learns on each group first, with as many classes as the group has, or K; a
    checkpoint of its own is used as it is. Labels have no names: once a group they are given to the classes so that J
    is largest. The photographs' rows stand in TABLE.photos.csv, and a run that was killed goes on with the groups that
    are missing there.
    """
    from coseglib.answering.floors import is_floor
    from coseglib.core.tables import write_table
    from coseglib.evaluation.tables import evaluation_table
    from coseglib.models.checkpoints import load_model

    model = None
    if not _online(method) or checkpoint:
        checkpoint = checkpoint or DEFAULT_CHECKPOINT
        why = "is for learning, with --method multiclass and without --checkpoint"
        _unfit(why, classes=classes is not None, profile=profile, set=set_, ablations=ablations, baselines=baselines)
        floor = is_floor(checkpoint) and method is None
        if floor:
            _unfit("a floor looks once, and its masks stay as they are", looks=looks, post=post)
        model = None if floor else load_model(checkpoint, method, looks, post)
    if not checkpoint or hasattr(model, "classes"):
        _unfit("multiclass pools no attention", group=group, looks=looks)
        _unfit("multiclass has no partners to choose", partner=partner != Partner.group)
        _unfit("multiclass has a protocol of its own", protocol=protocol not in (None, "multiclass"))
        systems = None if ablations else ("SA+MA",) if baselines else ()
        table = _evaluate_online(dataset, output, model, limit, only, classes, post, profile, set_, systems)
        _shown(table)
        return
    _unfit("is for multiclass", only=only)
    table = evaluation_table(
        checkpoint,
        dataset,
        protocol or "common",
        partner.value,
        (group or Pooling.mean).value,
        limit,
        lambda name, done, total: typer.echo(f"{done}/{total} {name}", err=True),
        looks=looks,
        post=post,
    )
    write_table(table, output)
    _shown(table)


def _shown(table) -> None:
    table = table.drop(columns=["protocol", "checkpoint sha256"], errors="ignore")
    typer.echo(table.to_string(index=False, float_format="%.4f", na_rep=""))


def _evaluate_online(dataset, output, model, limit, only, classes, post, profile, set_, systems):
    """systems: those that stand beside the baselines; None: all; (): the plain table."""
    import dataclasses

    from coseglib.data import load
    from coseglib.evaluation import multiclass_tables
    from coseglib.unsupervised import learner as online

    system = online.load_config(profile or "cpu", _fields(set_)) if model is None else model
    if classes is not None:
        online.check_classes(classes)
    systems = tuple(multiclass_tables.ABLATIONS) if systems is None else systems
    if systems:
        _unfit("tables with baselines have the group's number of classes, and both ways", classes=classes, post=post)
    groups = [dataclasses.replace(g, photos=g.photos[:limit]) for g in online.only(load(dataset), only)]
    if not systems:
        return multiclass_tables.evaluate(groups, system, output, classes, post, _told)
    return multiclass_tables.evaluate_groups(groups, system, output, systems, _told)


@app.command(epilog=_example("coseg ship runs/ca ca-mobilenet_v2 --data /data/sets"))
def ship(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or a model.safetensors.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the checkpoint: <method>-<backbone>[-<variant>].")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to.  [default: data/checkpoints; a card alone: data/measured]"
        ),
    ] = None,
    average: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Another point of the same training, to average weights with; repeatable."),
    ] = None,
    looks: Looks = None,
    post: PostOption = None,
    card_only: Annotated[
        bool, typer.Option("--card-only", help="Measure, and keep the card without the weights.")
    ] = False,
    data: Data = None,
) -> None:
    """Make a checkpoint to hand on: half precision, and a card with the figures that it reaches on the test sets."""
    from coseglib.core.paths import CHECKPOINTS, MEASURED
    from coseglib.evaluation.shipping import ship as ship_run

    folder = output or (MEASURED if card_only else CHECKPOINTS)
    ship_run(run, name, folder, say=typer.echo, average=average or (), looks=looks, post=post, card_only=card_only)


@app.command(
    epilog=_example(
        "coseg ablate --profile smoke --output runs/ablations-smoke --only dcnet-sccm --seeds 2",
        "coseg ablate --profile cpu --output runs/ablations --data /data/sets",
    )
)
def ablate(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The queue's folder.")],
    profile: Annotated[str, typer.Option(metavar="smoke|cpu|paper", help="The budget of a training.")] = "cpu",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM|SYSTEM|shares",
            help="Only what this claim, or all claims of a method, needs, or our curve over hard pairs; repeatable.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Trainings of each variant; a verdict needs 3.")] = 3,
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Test the papers' claims about their own parts: a queue of short trainings, one at a time, hours for all.

    DIR/ablations.csv grows by each: J by group, partner swap, refusal, checksum. A queue that was killed goes on where
    it was; a training that fails is named, the others go on, and the exit code is 1. Notebook 09 reads the table.
    """
    from coseglib.claims.queue import ablate as run_queue

    outcome = run_queue(output, profile, only or (), seeds, lambda text: print(text, flush=True))
    if outcome.failed:
        raise typer.Exit(1)


@app.command(epilog=_example("coseg report --profile smoke", "coseg report --profile cpu --only 02 --data /data/sets"))
def report(
    profile: Annotated[
        str, typer.Option(metavar="smoke|cpu|paper", help="Parameters: notebooks/params/*.yaml.")
    ] = "smoke",
    only: Annotated[
        list[str] | None, typer.Option(metavar="NN", help="Only the notebook of this number or name; repeatable.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Notebooks at a time; they share the cores.  [default: 2 where there are]"
        ),
    ] = None,
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Run the notebooks: reports/<profile>/ holds them as run, HTML, tables, plots and summary.md.

    A notebook that fails is named, the others still run, and the exit code is 1.
    """
    from joblib import cpu_count

    from coseglib.report.run import run_report

    if run_report(profile, only or (), jobs=jobs or min(2, cpu_count())):
        raise typer.Exit(1)


@app.command(epilog=_example("coseg download voc", "coseg download voc --data /data/sets"))
def download(
    dataset: Annotated[
        str, typer.Argument(metavar="voc", help="VOC 2012, 2 GB, by torchvision; its checksum is verified.")
    ],
    data: Data = None,
) -> None:
    """Fetch a data set that can be fetched; data/README.md says how to get the others."""
    if dataset != "voc":
        raise CosegError(f"{dataset}: not to be fetched by program; voc is, data/README.md says how to get the others")
    from coseglib.core.paths import data_root
    from coseglib.data.sets.voc import download as fetch

    typer.echo(str(fetch(data_root())))


def _one_line(text: str, most: int = 400) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors are one line, with --debug a traceback as well."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments or ["--help"], prog_name="coseg", standalone_mode=False)
        if code == 130:  # what typer makes of an interruption
            raise KeyboardInterrupt
        return code or 0
    except UsageError as error:
        asked = error.ctx.command_path if error.ctx else "coseg"
        message = _one_line(error.format_message()).rstrip(".")
        print(f"coseg: {message}; `{asked} --help` shows the options and an example", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        print("coseg: stopped", file=sys.stderr)
        return 130
    except CosegError as error:
        if debug:
            traceback.print_exc()
        print(f"coseg: {_one_line(str(error), 2000)}", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
            return 1
        message = _one_line(f"{type(error).__name__}: {error}")
        print(f"coseg: {message}; run it again with --debug for the traceback", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
