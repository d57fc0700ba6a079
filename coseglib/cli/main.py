"""`coseg`: all commands, and what an error looks like."""

import contextvars
import errno
import gc
import inspect
import os
import sys
import traceback

import typer

from coseglib.cli.doctor import doctor
from coseglib.cli.evaluating import evaluate
from coseglib.cli.systems import name, segment, train
from coseglib.cli.workbook import ablate, download, report, ship
from coseglib.core.errors import CosegError, one_line

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a second process tenfold
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # whichever command it is
OBJECTS = 100_000  # that are made between two searches for garbage
UsageError = typer.BadParameter.__base__  # click's, of which recent typers carry a copy of their own

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
for command in (doctor, segment, name, train, evaluate, ship, ablate, report, download):
    about, _, examples = inspect.getdoc(command).partition("\n\nExample:\n")  # \b keeps them as they are
    more = f"Example:\n\n\b\n{examples}\n\nWith --debug an error shows its traceback."
    app.command(help=about, epilog=more)(command)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors are one line, with --debug a traceback as well.

    It runs in a context of its own: folders that --data and --weights name are so for this call alone.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a file's name may be no text of this terminal
    if arguments is None:  # a process of its own: to import torch makes a million objects, of which none is garbage
        gc.set_threshold(OBJECTS)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"] or ["--help"]
    command = typer.main.get_command(app)
    try:
        code = contextvars.copy_context().run(command.main, arguments, prog_name="coseg", standalone_mode=False)
        if code == 130:  # what typer makes of an interruption
            raise KeyboardInterrupt
        return code or 0
    except UsageError as error:
        asked = error.ctx.command_path if error.ctx else "coseg"
        message = f"{one_line(error.format_message()).rstrip('.')}; `{asked} --help` shows the options and an example"
    except (KeyboardInterrupt, typer.Abort):
        print("coseg: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = f"{one_line(f'{type(error).__name__}: {error}')}; run it again with --debug for the traceback"
        if isinstance(error, CosegError):
            message = one_line(str(error), 2000)
        elif isinstance(error, OSError) and error.errno in FULL:
            where = error.filename or "the output's disk"
            message = one_line(f"{where}: {error.strerror}; make room and start it again: what is whole is kept")
        elif debug:
            return 1
    print(f"coseg: {message}", file=sys.stderr)
    return 1
