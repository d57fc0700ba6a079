"""`coseg ship`: a checkpoint to hand on."""

from pathlib import Path
from typing import Annotated

import typer

from coseglib.cli import options
from coseglib.core.errors import CosegError
from coseglib.core.paths import CHECKPOINTS, INSTALLED, MEASURED

EXAMPLES = ("coseg ship runs/ca ca-mobilenet_v2 --data /data/sets",)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or a model.safetensors.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the checkpoint: <method>-<backbone>[-<variant>].")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            callback=options.output_folder,
            help="Where to.  [default, in a checkout: data/checkpoints; a card alone: data/measured]",
        ),
    ] = None,
    average: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Another point of the same training, to average weights with; repeatable."),
    ] = None,
    looks: options.Looks = None,
    post: options.PostOption = None,
    card_only: Annotated[
        bool, typer.Option("--card-only", help="Measure, and keep the card without the weights.")
    ] = False,
    data: options.Data = None,
) -> None:
    """Make a checkpoint to hand on: half precision, and a card with the figures that it reaches on the test sets."""
    if output is None and INSTALLED:
        raise CosegError("the installed package is not written to; name a folder with -o")
    from coseglib.evaluation.shipping import ship

    folder = output or (MEASURED if card_only else CHECKPOINTS)
    ship(run, name, folder, say=typer.echo, average=average or (), looks=looks, post=post, card_only=card_only)
