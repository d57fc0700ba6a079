"""The one exception that people are meant to read."""


class CosegError(Exception):
    """A fault that the reader can mend, one line: what, which file, what to do. The command line prints that alone."""
