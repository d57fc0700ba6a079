import csv

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
