"""`coseg ship`: a checkpoint to hand on."""

from pathlib import Path
from typing import Annotated

import typer

from coseglib.cli import options
from coseglib.core.errors import CosegError
from coseglib.core.paths import CHECKPOINTS, INSTALLED, MEASURED

EXAMPLES = ("coseg ship runs/ca ca-mobilenet_v2 --data /data/sets", "coseg ship --again ca-mobilenet_v2")


def command(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run's folder, or a model.safetensors.", show_default=False)
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Of the checkpoint: <method>-<backbone>[-<variant>].", show_default=False),
    ] = None,
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
    post: options.Post = None,
    card_only: Annotated[
        bool, typer.Option("--card-only", help="Measure, and keep the card without the weights.")
    ] = False,
    again: Annotated[
        str | None, typer.Option(metavar="CARD", help="Measure this card's figures anew, its weights as they are.")
    ] = None,
    data: options.Data = None,
) -> None:
    """Make a checkpoint to hand on: half precision, and a card with the figures that it reaches on the test sets.

    Set by set: a command that was killed goes on with those that are missing.
    """
    if output is None and INSTALLED:
        raise CosegError("the installed package is not written to; name a folder with -o")
    from coseglib.evaluation import shipping

    if again:
        given = {"run": run, "name": name, "output": output, "average": average, "looks": looks, "post": post}
        options.refuse("--again takes a card's name alone", **given, card_only=card_only)
        shipping.again(again, say=options.say_at_once)
        return
    if run is None or name is None:
        raise CosegError("ship: takes a RUN and a NAME, or --again CARD")
    folder = output or (MEASURED if card_only else CHECKPOINTS)
    shipping.ship(
        run, name, folder, say=options.say_at_once, average=average or (), looks=looks, post=post, card_only=card_only
    )
