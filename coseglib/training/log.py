"""log.csv, row by row. Fabric's CSVLogger loses rows when a run is killed or resumed, so this one is ours."""

import csv
from collections.abc import Sequence
from pathlib import Path

from coseglib.core.files import atomic


class Log:
    """A table that grows on disk row by row; the first column counts.

    keep  rows of an earlier run up to this count stay; those after it will be written again. 0: begin anew
    """

    COLUMNS = ("step", "seconds", "loss", "J", "images_per_s", "learning_rate", "val_J", "val_swap", "val_refusal")

    def __init__(self, path: Path, keep: int = 0, columns: Sequence[str] = COLUMNS):
        self.path, self.columns, rows = path, columns, []
        if keep and path.is_file():
            with open(path, newline="") as file:
                rows = [r for r in csv.DictReader(file) if r[columns[0]] and int(r[columns[0]]) <= keep]
        with atomic(path) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def row(self, **values) -> None:
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(values)
