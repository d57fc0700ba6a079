"""`coseg report`: the notebooks, run with a profile's parameters."""

from typing import Annotated

import typer

from coseglib.cli import options

EXAMPLES = ("coseg report --profile smoke", "coseg report --profile cpu --only 02 --data /data/sets")


def command(
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
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Run the notebooks: reports/<profile>/ holds them as run, HTML, tables, plots and summary.md.

    A notebook that fails is named, the others still run, and the exit code is 1.
    """
    from joblib import cpu_count

    from coseglib.report.run import run_report

    if run_report(profile, only or (), jobs=jobs or min(2, cpu_count())):
        raise typer.Exit(1)
