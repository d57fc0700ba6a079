import csv

import pytest

from coseglib.core.errors import CosegError
from coseglib.training.state import Log


def _steps(path) -> list[str]:
    with open(path, newline="") as file:
        return [row["step"] for row in csv.DictReader(file)]


def test_rows_after_the_last_state_are_written_again(tmp_path):
    log = Log(tmp_path / "log.csv")
    for step in (2, 4, 6):
        log.row(step=step, loss=0.5)
    assert _steps(tmp_path / "log.csv") == ["2", "4", "6"]
    Log(tmp_path / "log.csv", keep=4).row(step=6, loss=0.4)
    assert _steps(tmp_path / "log.csv") == ["2", "4", "6"]
    Log(tmp_path / "log.csv")
    assert _steps(tmp_path / "log.csv") == [] and [p.name for p in tmp_path.iterdir()] == ["log.csv"]


def test_a_line_that_a_full_disk_cut_is_dropped_and_another_damage_is_named(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(path)
    for step in (2, 4):
        log.row(step=step, loss=0.5)
    whole = path.read_text()
    path.write_text(whole + "6")  # of "60,0.4": not a row of step 6
    Log(path, keep=9)
    assert _steps(path) == ["2", "4"]
    for damaged in (whole.replace("4,", "4;"), whole.replace("loss", "los"), whole.replace("\n2", '\n"2')):
        path.write_text(damaged)
        with pytest.raises(CosegError, match=r"log\.csv: damaged"):
            Log(path, keep=9)
        assert path.read_text() == damaged
