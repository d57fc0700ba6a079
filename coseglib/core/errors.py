"""The one exception that people are meant to read."""


class CosegError(Exception):
    """A fault that the reader can mend. Its text is one line: what, which file, what to do.

    The command line prints it as `coseg: <text>` without a traceback (see `coseglib.cli.main.main`).
    """
