"""log.csv, row by row. Fabric's CSVLogger loses rows when a run is killed or resumed, so this one is ours."""

import csv
from pathlib import Path

from coseglib.core.files import atomic


class Log:
    """A table that grows on disk row by row. Rows of an earlier run stay up to the step `keep`; 0: begin anew."""

    COLUMNS = ("step", "seconds", "loss", "J", "images_per_s", "learning_rate", "val_J", "val_swap", "val_refusal")

    def __init__(self, path: Path, keep: int = 0):
        self.path, rows = path, []
        if keep and path.is_file():
            with open(path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["step"] and int(row["step"]) <= keep]
        with atomic(path) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def row(self, **values) -> None:
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.COLUMNS).writerow(values)
