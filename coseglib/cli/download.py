"""`coseg download`: the data set that a program may fetch."""

from typing import Annotated

import typer

from coseglib.cli import options
from coseglib.core.errors import CosegError

EXAMPLES = ("coseg download voc", "coseg download voc --data /data/sets")


def command(
    dataset: Annotated[
        str, typer.Argument(metavar="voc", help="VOC 2012, 2 GB, by torchvision; its checksum is verified.")
    ],
    data: options.Data = None,
) -> None:
    """Fetch a data set that can be fetched; data/README.md says how to get the others."""
    if dataset != "voc":
        raise CosegError(f"{dataset}: not to be fetched by program; voc is, data/README.md says how to get the others")
    from coseglib.core.paths import data_root
    from coseglib.data.sets.voc import download

    typer.echo(str(download(data_root())))
