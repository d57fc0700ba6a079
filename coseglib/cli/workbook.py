"""`coseg ship | ablate | report | download`: what the workbook's own figures are made with."""

from pathlib import Path

import typer

from coseglib.cli import options
from coseglib.cli.options import argument, flag, option, output_option
from coseglib.core.errors import CosegError
from coseglib.core.paths import INSTALLED, data_root

Run = argument(Path | None, "A run's folder, or a model.safetensors.", "RUN")
Name = argument(str | None, "Of the checkpoint: <method>-<backbone>[-<variant>].", "NAME")
Shelf = output_option(
    Path | None,
    "Where to.  [default, in a checkout: data/checkpoints; a card alone: data/measured]",
    "DIR",
    folder=True,
)
Average = option(list[Path] | None, "Another point of the same training, to average weights with; repeatable.", "RUN")
CardOnly = flag("--card-only", "Measure, and keep the card without the weights.")
Again = option(str | None, "Measure this card's figures anew, its weights as they are.", "CARD")


def ship(
    run: Run = None,
    name: Name = None,
    output: Shelf = None,
    average: Average = None,
    looks: options.Looks = None,
    post: options.Post = None,
    card_only: CardOnly = False,
    again: Again = None,
    data: options.Data = None,
) -> None:
    """Make a checkpoint to hand on: half precision, and a card with the figures that it reaches on the test sets.

    Set by set: a command that was killed goes on with those that are missing.

    Example:
      coseg ship runs/ca ca-mobilenet_v2 --data /data/sets
      coseg ship --again ca-mobilenet_v2
    """
    if output is None and INSTALLED:
        raise CosegError("the installed package is not written to; name a folder with -o")
    from coseglib.evaluation import shipping

    how = {"average": average or (), "looks": looks, "post": post, "card_only": card_only}
    if again:
        options.refuse("--again takes a card's name alone", RUN=run, NAME=name, output=output, **how)
        shipping.again(again, say=options.say_at_once)
        return
    if run is None or name is None:
        raise CosegError("ship: takes a RUN and a NAME, or --again CARD")
    shipping.ship(run, name, output, say=options.say_at_once, **how)


BUDGETS = "smoke|cpu|paper"
Budget = option(str, "The budget of a training.", BUDGETS)
Claims = option(
    list[str] | None,
    "Only what this claim, or all claims of a method, needs, or a question of ours: hard pairs, seeds; repeatable.",
    "CLAIM|SYSTEM|shares|workbook",
)
Seeds = option(int, "Trainings of each variant; a verdict needs 3.", "N", min=1)


def ablate(
    output: options.OutputFolder,
    profile: Budget = "cpu",
    only: Claims = None,
    seeds: Seeds = 3,
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Test the papers' claims about their own parts: a queue of short trainings, one at a time, hours for all.

    DIR/ablations.csv grows by each: J by group, partner swap, refusal, checksum. A queue that was killed goes on where
    it was; a training that fails is named, the others go on, and the exit code is 1. Notebook 09 reads the table.

    Example:
      coseg ablate --profile smoke --output runs/ablations-smoke --only dcnet-sccm --seeds 2
      coseg ablate --profile cpu --output runs/ablations --data /data/sets
    """
    from coseglib.claims import queue

    if queue.ablate(output, profile, only or (), seeds, options.say_at_once).failed:
        raise typer.Exit(1)


Parameters = option(str, "Parameters: notebooks/params/*.yaml.", BUDGETS)
Notebooks = option(list[str] | None, "Only the notebook of this number or name; repeatable.", "NN")
Jobs = option(int | None, "Notebooks at a time; they share the cores.  [default: 2 where there are]", "N", min=1)


def report(
    profile: Parameters = "smoke",
    only: Notebooks = None,
    jobs: Jobs = None,
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Run the notebooks: reports/<profile>/ holds them as run, HTML, tables, plots and summary.md.

    A notebook that fails is named, the others still run, and the exit code is 1.

    Example:
      coseg report --profile smoke
      coseg report --profile cpu --only 02 --data /data/sets
    """
    from joblib import cpu_count

    from coseglib.report.run import run_report

    if run_report(profile, only or (), jobs=jobs or min(2, cpu_count())):
        raise typer.Exit(1)


DataSet = argument(str, "VOC 2012, 2 GB, by torchvision; its checksum is verified.", "voc")


def download(dataset: DataSet, data: options.Data = None) -> None:
    """Fetch a data set that can be fetched; data/README.md says how to get the others.

    Example:
      coseg download voc
      coseg download voc --data /data/sets
    """
    if dataset != "voc":
        raise CosegError(f"{dataset}: not to be fetched by program; voc is, data/README.md says how to get the others")
    from coseglib.data.sets import voc

    typer.echo(str(voc.download(data_root())))
