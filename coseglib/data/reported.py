"""What the five papers report, to stand beside our own figures: `data/reported.csv`, described in `data/README.md`.

`anchors` has what others report on the same sets, `data/anchors.csv`: where the field is, under other conditions.

paper    key of the paper, as the models know it (`paper.key`)
table    its number there, or "text" and the section
dataset  our name (`coseglib.data.NAMES`) where the set is one of ours
group    our name of the group; "all": the paper's own average
method   the paper's name of the system; "li2018" and the like: a rival that the paper quotes
metric   "J" and "P"; "J gain" and "P gain", differences of these; "time gain", relative; "seconds", "seconds an image"
value    P, J and gains as shares (.765, not 76.5 %); NaN in the row of a paper whose figures we do not have
note     errata, applied, and what else a reader has to know
"""

from pathlib import Path

import pandas as pd

from coseglib.core.errors import CosegError
from coseglib.core.paths import ANCHORS, REPORTED
from coseglib.core.tables import read_table

FIELDS = ("paper", "table", "dataset", "group", "method", "metric", "value", "note")
SHARES = ("P", "J")


def reported(file: Path = REPORTED, **wanted: str) -> pd.DataFrame:
    """The rows whose columns are as wanted, in the papers' order: reported(paper="chen2018", method="CA", metric="J").

    Columns `FIELDS`, all text but value (float64). Raises CosegError for a missing or damaged file, for a column that
    does not exist, and for a value that no row has: a typing error would else look like a paper's silence.
    """
    table = read_table(file, dict.fromkeys(FIELDS, str) | {"value": float}, "get it again from git")
    rows = pd.Series(True, index=table.index)
    for column, value in wanted.items():
        if column not in FIELDS[:-2]:
            raise CosegError(f"{column}: no column to choose rows by; one of {', '.join(FIELDS[:-2])}")
        if value not in set(table[column]):
            known = ", ".join(dict.fromkeys(filter(None, table[column])))
            raise CosegError(f"{column} {value}: in no row of {Path(file).name}; one of {known}")
        rows &= table[column] == value
    return table[rows].reset_index(drop=True)


def anchors(dataset: str | None = None, file: Path = ANCHORS) -> pd.DataFrame:
    """What systems beside the five papers report: method, supervision, dataset, P, J, source, note; P and J as shares.

    dataset  our name of the set; None: all rows, those on sets that we lack too
    None is measured here. They were trained on other masks or on none, and their photographs are another choice of the
    set wherever the note says so. Raises CosegError for a missing or damaged file.
    """
    text = ("method", "supervision", "dataset", "source", "note")
    table = read_table(file, dict.fromkeys(text, str) | {"P": float, "J": float}, "get it again from git")
    table = table[["method", "supervision", "dataset", "P", "J", "source", "note"]]
    return table if dataset is None else table[table.dataset == dataset].reset_index(drop=True)
