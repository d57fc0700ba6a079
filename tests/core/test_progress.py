import io
import subprocess
import sys

import pytest

from coseglib.core import progress as module
from coseglib.core.progress import Progress, clock


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    passing = Clock()
    monkeypatch.setattr(module.time, "monotonic", passing)
    return passing


def test_the_time_as_a_clock_shows_it():
    assert [clock(s) for s in (0, 59.9, 754, 3 * 3600 + 61)] == ["0:00:00", "0:00:59", "0:12:34", "3:01:01"]


def test_lines_with_the_time_left_where_there_is_no_terminal(time, capsys):
    with Progress("masks", 40) as progress:
        for _ in range(40):
            time.now += 1
            progress.add()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "masks: 5 of 40 photos, 1.0 photos/s, 0:00:35 left"
    assert lines[-1] == "masks: 40 of 40 photos, 1.0 photos/s, 0:00:00 left" and len(lines) == 8


def test_what_an_earlier_run_has_done_counts_and_not_for_the_rate(time, capsys):
    progress = Progress("training", 100, "steps", done=60)
    time.now += 20
    progress.add(10, "loss 0.310")
    assert capsys.readouterr().err == "training: 70 of 100 steps, loss 0.310, 0.500 steps/s, 0:01:00 left\n"


def test_a_job_that_ends_at_once_says_one_line_and_a_quiet_one_none(time, capsys):
    Progress("masks", 3).add(3)
    assert capsys.readouterr().err.startswith("masks: 3 of 3 photos")
    Progress("masks", 3, quiet=True).add(3)
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_terminal(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress("masks", 2) as progress:
        progress.add(note="loss 0.3")
        progress.add()
    shown = screen.getvalue()
    assert "\r" in shown and "masks: 100%" in shown and "2/2" in shown and "loss 0.3" in shown


def test_it_loads_no_torch():
    code = "import sys, coseglib.core.progress; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
