"""The command line: `coseg doctor | segment | train | evaluate | ship | report | download`.

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

from coseglib.errors import CosegError
from coseglib.paths import DEFAULT_CHECKPOINT

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a second process tenfold
UsageError = typer.BadParameter.__base__  # click's, of which recent typers carry a copy of their own

app = typer.Typer(
    name="coseg",
    help="Object co-segmentation: what do these photographs have in common, and where is it?",
    epilog="Start with `coseg doctor`, then `coseg segment photos/ -o out`. With --debug an error shows its traceback.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Pooling(StrEnum):
    """How a group's attention is pooled."""

    mean = "mean"
    min = "min"


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
    str, typer.Option(metavar="NAME|FILE", help="A shipped checkpoint, or a model.safetensors of `coseg train`.")
]
Group = Annotated[Pooling, typer.Option(help="How the group's attention is pooled: its mean, or the minimum.")]
Devices = Annotated[int, typer.Option(metavar="N", min=1, help="Processes: GPUs, or on CPUs over gloo.")]
Nodes = Annotated[int, typer.Option(metavar="N", min=1, help="Machines; each is started by torchrun or Slurm.")]
Accelerator = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")]


def _example(*lines: str) -> str:
    """The end of a command's help. \\b keeps its lines as they are."""
    shown = "\n".join(f"  {line}" for line in lines)
    return f"Example:\n\n\b\n{shown}\n\nWith --debug an error shows its traceback."


@app.command(epilog=_example("coseg doctor", "coseg doctor --data /data/sets --weights /data/weights"))
def doctor(data: Data = None, weights: Weights = None) -> None:
    """Say what works here: a line OK or FAIL for each part. Exit code 1 where photographs cannot be segmented."""
    from coseglib.doctor import examine

    if not examine(print):
        raise typer.Exit(1)


@app.command(
    epilog=_example(
        "coseg segment holiday/dog/ -o out",
        "coseg segment a.jpg b.jpg c.jpg -o out --checkpoint ca-mobilenet_v2-paper --group min",
    )
)
def segment(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTOS_OR_FOLDER", help="Photographs of one group.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder to write to.")],
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    group: Group = Pooling.mean,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Faster where the processor has it; same masks but for single pixels.")
    ] = False,
    devices: Devices = 1,
    nodes: Nodes = 1,
    accelerator: Accelerator = "auto",
) -> None:
    """Segment what photographs have in common.

    Writes OUT/masks/<stem>.png (0 and 255, the photograph's own size), OUT/overlays/<stem>.jpg and OUT/result.json. A
    killed run goes on where it was. Exit code 0: all done; 2: some were skipped, named, and the rest is written; 1:
    nothing could be done.
    """
    from coseglib.checkpoints import load_model
    from coseglib.inference import segment_photos

    summary = segment_photos(
        photos,
        output,
        load_model(checkpoint),
        group.value,
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


def _fields(given: list[str]) -> dict[str, str]:
    """["steps=200"] -> {"steps": "200"}."""
    for item in given:
        if "=" not in item:
            raise CosegError(f"--set {item}: not FIELD=VALUE; for example --set steps=200")
    return {field.strip(): value.strip() for field, value in (item.split("=", 1) for item in given)}


@app.command(
    epilog=_example(
        "coseg train --method ca --profile smoke --output runs/ca",
        "coseg train --method csa --profile cpu --output runs/csa --set steps=6000 --set seed=1 --data /data/sets",
        "coseg train --method ca --profile smoke --output runs/ca --resume",
    )
)
def train(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The run's folder.")],
    method: Annotated[str, typer.Option(metavar="ca|fca|csa|ssnm|pfcc|dcnet", help="The system to train.")] = "ca",
    profile: Annotated[
        str, typer.Option(metavar="smoke|cpu|paper|FILE", help="Configuration: a profile, or YAML.")
    ] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that the folder holds.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="One field over the profile's; repeatable.")
    ] = None,
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
    """
    from coseglib.training import load_profile
    from coseglib.training import train as train_model

    model = train_model(
        load_profile(profile, method, _fields(set_ or [])),
        output,
        resume,
        devices=devices or "auto",
        num_nodes=nodes,
        accelerator=accelerator,
    )
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        typer.echo(str(model))


@app.command(
    epilog=_example(
        "coseg evaluate --checkpoint ca-mobilenet_v2 --dataset icoseg8 -o icoseg8.csv",
        "coseg evaluate --checkpoint runs/ca/model.safetensors --dataset pascal --protocol partner-swap -o swap.csv",
    )
)
def evaluate(
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR",
            help="icoseg8, icoseg, msrc7, pascal, voc-val, internet, synthetic, …, or a folder with images/ and "
            "ground_truth/.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TABLE.csv", help="Table to write.")],
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    protocol: Annotated[
        str, typer.Option(metavar="NAME", help="common, a paper's own, partner-swap or refusal.")
    ] = "common",
    partner: Annotated[Partner, typer.Option(help="Whose attention a photograph receives.")] = Partner.group,
    group: Group = Pooling.mean,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N photographs of each group.")
    ] = None,
    data: Data = None,
) -> None:
    """Score a model on a data set: a row a group, and a last row `all`.

    Columns: dataset, group, images, P, J, protocol, checkpoint sha256, seconds (an image). With --protocol partner-swap
    J_asked, J_other and score stand in the place of P and J, with --protocol refusal AUROC.
    """
    from coseglib.tables import evaluation_table, write_table

    table = evaluation_table(
        checkpoint,
        dataset,
        protocol,
        partner.value,
        group.value,
        limit,
        lambda name, done, total: typer.echo(f"{done}/{total} {name}", err=True),
    )
    write_table(table, output)
    typer.echo(table.drop(columns=["protocol", "checkpoint sha256"]).to_string(index=False, float_format="%.4f"))


@app.command(epilog=_example("coseg ship runs/ca ca-mobilenet_v2 --data /data/sets"))
def ship(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or a model.safetensors.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the checkpoint: <method>-<backbone>[-<variant>].")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to.  [default: data/checkpoints]")
    ] = None,
    data: Data = None,
) -> None:
    """Make a checkpoint to hand on: half precision, and a card with the figures that it reaches on the test sets."""
    from coseglib.paths import CHECKPOINTS
    from coseglib.shipping import ship as ship_run

    ship_run(run, name, output or CHECKPOINTS, say=typer.echo)


@app.command(epilog=_example("coseg report --profile smoke", "coseg report --profile cpu --only 02 --data /data/sets"))
def report(
    profile: Annotated[
        str, typer.Option(metavar="smoke|cpu|paper", help="Parameters: notebooks/params/*.yaml.")
    ] = "smoke",
    only: Annotated[
        list[str] | None, typer.Option(metavar="NN", help="Only the notebook of this number or name; repeatable.")
    ] = None,
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Run the notebooks: reports/<profile>/ holds them as run, HTML, tables, plots and summary.md.

    A notebook that fails is named, the others still run, and the exit code is 1.
    """
    from coseglib.report import run_report

    if run_report(profile, only or ()):
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
    from coseglib.data.voc import download as fetch
    from coseglib.paths import data_root

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
