"""`coseg ablate`: the papers' claims about their own parts, tested."""

from typing import Annotated

import typer

from coseglib.cli import options

EXAMPLES = (
    "coseg ablate --profile smoke --output runs/ablations-smoke --only dcnet-sccm --seeds 2",
    "coseg ablate --profile cpu --output runs/ablations --data /data/sets",
)


def command(
    output: options.OutputFolder,
    profile: Annotated[str, typer.Option(metavar="smoke|cpu|paper", help="The budget of a training.")] = "cpu",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM|SYSTEM|shares",
            help="Only what this claim, or all claims of a method, needs, or our curve over hard pairs; repeatable.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Trainings of each variant; a verdict needs 3.")] = 3,
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Test the papers' claims about their own parts: a queue of short trainings, one at a time, hours for all.

    DIR/ablations.csv grows by each: J by group, partner swap, refusal, checksum. A queue that was killed goes on where
    it was; a training that fails is named, the others go on, and the exit code is 1. Notebook 09 reads the table.
    """
    from coseglib.claims.queue import ablate

    if ablate(output, profile, only or (), seeds, options.say_at_once).failed:
        raise typer.Exit(1)
