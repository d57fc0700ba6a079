"""The one exception that people are meant to read, and any message as one line."""


class CosegError(Exception):
    """A fault that the reader can mend, one line: what, which file, what to do. The command line prints that alone."""


def one_line(text: str, most: int = 400) -> str:
    """A text without its line breaks, cut after `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"
