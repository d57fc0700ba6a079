"""Tables on disk: CSV that is written whole or not at all, and read back as what it was written from.

A CSV holds no types, and guessing makes 1 of a group called 001 and nothing of one called NA: the reader names them.
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from coseglib.core.errors import CosegError
from coseglib.core.files import atomic


def _truth(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(f"{text!r} is neither True nor False")
    return text == "True"


_PARSERS: dict[type, Callable[[str], object]] = {float: lambda text: float(text or "nan"), int: int, bool: _truth}


def read_table(path: str | Path, columns: Mapping[str, type], mend="make it anew", optional=None) -> pd.DataFrame:
    """The table of a CSV file in UTF-8, its rows and columns in the file's order.

    columns   name -> float (an empty field: NaN), int, bool or str, of columns that must be there; others are text too
    mend      what an error tells the reader to do
    optional  as `columns`, of columns that need not be there
    Raises CosegError where the file is missing, no such table, or holds something else than `columns` says.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines, strict=True)
            header, rows = next(reader, []), []
            for row in reader:
                if len(row) not in (0, len(header)):  # 0: a blank line
                    raise ValueError(f"line {reader.line_num} has {len(row)} fields, the first has {len(header)}")
                rows += [row] if row else []
        if missing := [name for name in columns if name not in header]:
            raise ValueError(f"it lacks the column {missing[0]}")
        if len(set(header)) < len(header):
            raise ValueError("two of its columns have one name")
        table = pd.DataFrame(rows, columns=header, dtype=object)
        kinds = {name: kind for name, kind in (optional or {}).items() if name in header} | dict(columns)
        for name, kind in kinds.items():
            try:
                table[name] = table[name] if kind is str else table[name].map(_PARSERS[kind]).astype(kind)
            except ValueError as fault:
                raise ValueError(f"column {name}: {fault}") from fault
        return table
    except FileNotFoundError as fault:
        raise CosegError(f"{path}: no such file; {mend}") from fault
    except (OSError, ValueError, csv.Error) as fault:  # undecodable bytes are ValueErrors
        raise CosegError(f"{path}: cannot be read as a table ({' '.join(str(fault).split())}); {mend}") from fault


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """CSV, six decimals, there whole or not at all; missing folders are made. CosegError where it cannot be written."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            table.to_csv(part, index=False, float_format="%.6f", lineterminator="\n")
    except OSError as error:
        raise CosegError(f"{path}: not written ({error.strerror or error}); give another -o") from error
