import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from coseglib.answering.floors import FLOORS
from coseglib.core.errors import CosegError
from coseglib.core.paths import REPORTS, reports_root
from coseglib.report import findings, site
from coseglib.report import run as report

RIGHT = ["import sys", "print(profile, seed)", "print(sys.executable)", "from coseglib.core.paths import report_folder",
         "(report_folder(profile, 'tables') / 'a.csv').write_text('x')"]  # fmt: skip
WRONG = ["import math", "2 + 2", "one = 1\none / 0", "print('not reached')"]


def _write(folder, name, cells, values='profile = "smoke"\nseed = 3'):
    first, *rest = [new_code_cell(c) for c in cells]
    tagged = new_code_cell(values, metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "language": "python", "display_name": "a kernel of the author's"}
    nbformat.write(
        new_notebook(cells=[first, tagged, *rest], metadata={"kernelspec": kernel}), folder / f"{name}.ipynb"
    )


def _params(folder, values, profile="smoke"):
    (folder / "params").mkdir(exist_ok=True)
    (folder / "params" / f"{profile}.yaml").write_text(yaml.safe_dump(values))


@pytest.fixture
def notebooks(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    _write(folder, "00_wrong", WRONG)
    _write(folder, "01_right", RIGHT)
    _params(folder, {"01_right": {"seed": 7}})
    return folder


def test_a_failing_notebook_is_named_and_the_others_still_run(notebooks, tmp_path):
    said = []
    failed = report.run_report("smoke", root=tmp_path / "reports", notebooks=notebooks, say=said.append)
    out = tmp_path / "reports" / "smoke"
    assert failed == ["00_wrong"]
    error = "cell [5]: ZeroDivisionError: division by zero"
    assert any(f"00_wrong FAILED, {error}" in line for line in said)
    page = (out / "summary.md").read_text()
    assert "1 of 2 notebooks ran; failed: 00_wrong;" in page and f"(`00_wrong`) **FAILED: {error}**." in page
    assert "| 01_right | ok |" in page and "| seed = 7 |" in page and "(tables/a.csv)" in page
    assert f"Python {'.'.join(map(str, report.sys.version_info[:3]))}" in page
    index = (out / "index.html").read_text()
    assert "1 of 2 notebooks ran; failed: 00_wrong;" in index and error in index and 'id="table-a"' in index
    for name in ("00_wrong", "01_right"):
        assert "<html" in (out / "notebooks" / f"{name}.html").read_text()
        assert f'href="notebooks/{name}.html"' in index
    ran = nbformat.read(out / "notebooks" / "01_right.ipynb", as_version=4)
    printed = "".join(
        o.text for c in ran.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream"
    )
    # The profile's value came in, and the kernel is the interpreter that runs this test.
    assert printed.splitlines() == ["smoke 7", report.sys.executable]
    assert ran.metadata.coseg["error"] == "" and ran.metadata.coseg["slowest"]
    assert [p.name for p in (out / "notebooks").glob(".*")] == []  # nothing half-written is left

    # A later run of one notebook keeps what the summary says of the others.
    assert report.run_report("smoke", ["01"], tmp_path / "reports", notebooks, said.append) == []
    assert "1 of 2 notebooks ran; failed: 00_wrong;" in (out / "summary.md").read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"01_right": {"sede": 7}}, "01_right has no parameter sede; it declares profile, seed"),
        ({"09_missing": {"seed": 7}}, "09_missing: no such notebook; one of 00_wrong, 01_right"),
        (["01_right"], "not a mapping of notebooks to their parameters"),
    ],
)
def test_what_a_profile_may_not_say_is_refused_before_anything_runs(notebooks, tmp_path, values, message):
    _params(notebooks, values)
    with pytest.raises(CosegError, match=r"smoke\.yaml") as error:
        report.run_report("smoke", root=tmp_path / "reports", notebooks=notebooks)
    assert message in str(error.value)
    assert not (tmp_path / "reports").exists()


def test_the_environment_moves_the_reports_of_the_command_and_of_its_notebooks(monkeypatch, tmp_path):
    monkeypatch.setenv("COSEG_REPORTS", str(tmp_path / "elsewhere"))
    assert reports_root() == tmp_path / "elsewhere"
    with pytest.raises(CosegError, match="huge"):
        report.run_report("huge")
    seen = []
    monkeypatch.setattr(
        report, "run_notebook", lambda notebook, values, out, *_: seen.append(out) or {"error": "", "seconds": 1}
    )
    report.run_report("smoke", only=("01",), say=seen.append)
    assert seen[1] == tmp_path / "elsewhere" / "smoke" / "notebooks"
    monkeypatch.setenv("COSEG_REPORTS", "")
    assert reports_root() == REPORTS


def test_a_report_that_cannot_be_written_is_told_before_anything_runs(notebooks, tmp_path):
    (tmp_path / "reports" / "smoke").mkdir(parents=True)
    (tmp_path / "reports" / "smoke" / "plots").write_text("a file")
    with pytest.raises(CosegError, match="smoke/plots: is a file; name a folder"):
        report.run_report("smoke", root=tmp_path / "reports", notebooks=notebooks, say=None)


def test_unknown_profiles_and_notebooks_are_refused(notebooks, tmp_path):
    with pytest.raises(CosegError, match="huge: no such profile; one of smoke"):
        report.run_report("huge", root=tmp_path, notebooks=notebooks)
    with pytest.raises(CosegError, match="--only 07: no such notebook; one of 00, 01"):
        report.run_report("smoke", ["07"], tmp_path, notebooks)
    _params(tmp_path, {})
    with pytest.raises(CosegError, match="no notebooks"):
        report.run_report("smoke", root=tmp_path, notebooks=tmp_path)


def test_a_damaged_notebook_is_one_line(notebooks, tmp_path):
    (notebooks / "01_right.ipynb").write_text("{")
    with pytest.raises(CosegError, match=r"01_right.ipynb: not a notebook") as error:
        report.run_report("smoke", root=tmp_path, notebooks=notebooks)
    assert "\n" not in str(error.value)


def test_a_notebook_that_is_not_there_yet_is_listed_as_not_run(notebooks, tmp_path):
    folder = tmp_path / "reports" / "smoke"
    summary = site.pages("smoke", folder, notebooks)["summary.md"]
    assert "0 of 2 notebooks ran; not run: 00_wrong, 01_right;" in summary


def test_the_slowest_cells_come_first():
    cells = [
        new_code_cell(f"# why\nstep_{i}()", execution_count=i, metadata={"papermill": {"duration": d}})
        for i, d in enumerate([0.5, 9.0, None, 2.0, 4.0], start=1)
    ]
    timings = report._timings(new_notebook(cells=cells))
    assert [(t["cell"], t["seconds"]) for t in timings] == [(2, 9.0), (5, 4.0), (4, 2.0)]
    assert timings[0]["line"] == "step_2()"


def test_the_command_ends_with_1_where_a_notebook_fails(monkeypatch):
    from coseglib.cli.main import app

    asked = []
    monkeypatch.setattr(report, "run_report", lambda *given, jobs: asked.append((*given, jobs)) or ["00_wrong"])
    assert CliRunner().invoke(app, ["report", "--profile", "cpu", "--only", "00", "--jobs", "3"]).exit_code == 1
    assert asked == [("cpu", ["00"], 3)]


MEETING = """
import os, time
from pathlib import Path
from joblib import cpu_count
Path("{own}").write_text(f"{{os.environ['OMP_NUM_THREADS']}} threads, {{cpu_count()}} cores")
for _ in range(600):
    if Path("{other}").exists():
        break
    time.sleep(0.1)
print(Path("{other}").exists())
"""
TIMED = """
import os
print(os.path.exists("one"), os.path.exists("two"), *{"OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"} & {*os.environ})
"""


def test_two_notebooks_at_a_time_meet_and_what_is_timed_runs_alone(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(report, "cpu_count", lambda: 3)
    monkeypatch.setattr(report, "TIMED", ("02_timed",))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, cells in (
        ("00_one", MEETING.format(own="one", other="two")),
        ("01_two", MEETING.format(own="two", other="one")),
        ("02_timed", TIMED),
    ):
        _write(folder, name, ["profile = 'smoke'", cells])
    _params(folder, {})
    said = []
    assert report.run_report("smoke", (), tmp_path / "reports", folder, said.append, jobs=2) == []
    assert said[0] == "[3/3] 02_timed …" and said[1].startswith("[3/3] 02_timed ok")
    for name, printed in (("00_one", "True"), ("01_two", "True"), ("02_timed", "False False")):
        ran = nbformat.read(tmp_path / "reports" / "smoke" / "notebooks" / f"{name}.ipynb", as_version=4)
        assert ran.cells[-1].outputs[0].text.strip() == printed, name
    assert (folder / "one").read_text() == (folder / "two").read_text() == "1 threads, 1 cores"
    assert "2 notebooks at a time" in (tmp_path / "reports" / "smoke" / "summary.md").read_text()


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_interrupt_ends_what_runs_and_leaves_what_earlier_runs_left(tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(report, "TIMED", ("00_long",))
    monkeypatch.chdir(tmp_path)
    waits = "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '60'])\n"
    _write(
        tmp_path,
        "00_long",
        ["x = 1", waits + "open('pids', 'w').write(f'{os.getpid()} {child.pid}\\n')\ntime.sleep(60)"],
    )
    _write(tmp_path, "01_next", ["x = 1"])
    _params(tmp_path, {})
    earlier = tmp_path / "reports" / "smoke" / "notebooks" / "00_long.html"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("an earlier run's")

    def interrupt():
        while not (tmp_path / "pids").is_file() or not (tmp_path / "pids").read_text().endswith("\n"):
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    # Tests that run in the background ignore interruptions.
    before, said, started = signal.signal(signal.SIGINT, signal.default_int_handler), [], time.monotonic()
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            report.run_report("smoke", (), tmp_path / "reports", tmp_path, said.append, jobs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert said == ["[1/2] 00_long …"] and time.monotonic() - started < 50
    assert [p.read_text() for p in earlier.parent.iterdir()] == ["an earlier run's"]
    for pid in (tmp_path / "pids").read_text().split():
        with contextlib.suppress(FileNotFoundError):  # gone, or a zombie that nobody has collected yet
            assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_long_ones_start_first_where_notebooks_run_side_by_side():
    some = report.selected()
    alone, others = report.in_turn(some, 2)
    assert [n.stem for n in alone] == list(report.TIMED) and [n.stem for n in others][:2] == list(report.LONG)
    assert others[2:] == [n for n in some if n.stem not in (*report.TIMED, *report.LONG)]
    assert report.in_turn(some, 1) == ([], some)


def test_a_changed_report_is_no_changed_code(tmp_path, monkeypatch):
    def git(*command):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(report, "REPOSITORY", tmp_path)
    assert report.commit() == "no git"
    for name in ("code.py", "reports/table.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git("init", "-q"), git("add", "."), git("commit", "-qm", "all")
    clean = report.commit()
    (tmp_path / "reports" / "table.csv").write_text("2")
    assert report.commit() == clean and re.fullmatch("[0-9a-f]{7,}", clean)
    (tmp_path / "code.py").write_text("2")
    assert report.commit() == f"{clean}-dirty"


# What the tables say -----------------------------------------------------------------------------------------------


def _tables(folder, **tables):
    (folder / "tables").mkdir(parents=True)
    for name, rows in tables.items():
        pd.DataFrame(rows).to_csv(folder / "tables" / f"{name}.csv", index=False)


def test_the_summary_holds_the_benchmarks_figures_and_what_made_each_table(tmp_path):
    row = {"dataset": "msrc7", "system": "a", "checkpoint": "01234567", "protocol": "common", "images": 9}
    row |= {"partner": "group", "group": "all", "J": 0.5, "source": findings.MEASURED_HERE}
    others = [{**row, "partner": "other", "J": 0.25}, {**row, "system": "b", "checkpoint": "00000001", "J": 0.75}]
    wrong = [{**row, "group": "cow"}, {**row, "protocol": "ssnm"}, {**row, "source": "printed"}]
    wrong = [{**one, "J": 0.1} for one in wrong]
    asked = {"system": "a", "checkpoint": "01234567", "dataset": "pascal", "swap": 0.3144, "AUROC": ""}
    asked |= {"questions": 238, "photographs": 60}
    tables = {"08_msrc7": [row, *others, *wrong], "08_two_questions": [asked], "by_hand": [{"dataset": "x"}]}
    _tables(tmp_path, **tables)
    (tmp_path / "tables" / "broken.csv").write_bytes(b"\x00\xff")
    table = findings.benchmark_figures(tmp_path)
    assert table.columns.tolist() == [
        ("", "system"),
        ("", "checkpoint"),
        ("msrc7, 9 images", "group"),
        ("msrc7, 9 images", "other"),
        ("pascal, 238 questions", "swap, points"),  # no AUROC, nobody has one
    ]
    rows = [["a", "01234567", "0.500", "0.250", "31.4"], ["b", "00000001", "0.750", "–", "–"]]
    assert table.to_numpy().tolist() == rows
    made = {r["table"]: r for r in findings.origins(tmp_path, {"08_tables": {"commit": "abc"}})}
    assert made["08_msrc7.csv"] == {
        "table": "08_msrc7.csv",
        "notebook": "08_tables",
        "code": "abc",
        "lists": "data/lists/groups_msrc7.csv",
        "checkpoints": "01234567, 00000001",
    }
    assert (made["by_hand.csv"]["notebook"], made["by_hand.csv"]["lists"]) == ("a command", "x")
    page = site.pages("smoke", tmp_path)["summary.md"]
    head = "| system | checkpoint | msrc7, 9 images: group | msrc7, 9 images: other |"
    assert f"{head} pascal, 238 questions: swap, points |" in page
    assert "| a | 01234567 | 0.500 | 0.250 | 31.4 |" in page
    assert "| 08_msrc7.csv | an earlier run | – | data/lists/groups_msrc7.csv | 01234567, 00000001 |" in page
    assert findings.benchmark_figures(tmp_path / "none").empty


def test_each_of_the_two_questions_says_of_how_many_it_is(tmp_path):
    """A limit cuts the photographs that refusal is asked of, and not the questions of the partner swap."""
    row = {"dataset": "pascal", "system": "a", "checkpoint": "01234567", "protocol": "common", "images": 60}
    row |= {"partner": "group", "group": "all", "J": 0.5, "source": findings.MEASURED_HERE}
    asked = {"system": "a", "checkpoint": "01234567", "dataset": "pascal", "swap": 0.3, "AUROC": 0.8}
    _tables(tmp_path, **{"08_pascal": [row], "08_two_questions": [asked | {"questions": 238, "photographs": 60}]})
    assert findings.benchmark_figures(tmp_path).columns.tolist()[2:] == [
        ("pascal, 60 images", "group"),
        ("pascal, 238 questions", "swap, points"),
        ("pascal, 60 photographs", "AUROC"),
    ]
    (tmp_path / "tables" / "08_two_questions.csv").unlink()
    assert findings.benchmark_figures(tmp_path).columns.tolist()[2:] == [("pascal, 60 images", "group")]


def test_the_committed_report_says_what_its_tables_say():
    folder = REPORTS / "cpu"
    text = (folder / "summary.md").read_text(encoding="utf-8")
    table = findings.benchmark_figures(folder)
    assert len(table) > 8, "benchmark tables of the cpu profile are missing"
    for row in table.to_numpy().tolist():
        assert f"| {' | '.join(row)} |" in text, "reports/cpu/summary.md is of other tables"
    known = {card["name"]: card["sha256"][:8] for card in findings.cards()}
    for system, checkpoint in table.iloc[:, :2].to_numpy().tolist():
        assert system in FLOORS or known[system] == checkpoint
    for name in (card["name"] for card in findings.cards() if "withdrawn" not in card):
        assert name in set(table.iloc[:, 0]), f"{name} is shipped, and no table scores it"


def test_a_notebook_that_ends_itself_has_failed(tmp_path):
    cells = [new_code_cell("import sys"), new_code_cell("sys.exit(0)"), new_code_cell("1 / 0")]
    notebook, out = tmp_path / "00_short.ipynb", tmp_path / "out"
    nbformat.write(
        new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": ""}}), notebook
    )
    out.mkdir()
    about = report.run_notebook(notebook, {}, out, {"profile": "smoke"}, dict(os.environ), report.Kernels())
    assert about["error"] == "cell [2]: ended the notebook; 1 cells after it were not run"


def test_names_that_look_like_numbers_or_like_nothing_stay_as_they_are(tmp_path):
    names = ["001", "NA", "1e5", ""]
    _tables(tmp_path, **{"08_x": {"group": names, "seeds": ["0", "1", "2", "3"], "J": [0.5, 0.25, 1.0, None]}})
    shown = site.shown_table(tmp_path / "tables" / "08_x.csv")
    assert shown["columns"] == [("group", False), ("seeds", True), ("J", True)] and shown["cut"] == ""
    assert shown["rows"] == [["001", "0", "0.5"], ["NA", "1", "0.25"], ["1e5", "2", "1"], ["", "3", "–"]]
    table = site.read_table(tmp_path / "tables" / "08_x.csv", {"J": float})
    assert table.group.tolist() == names
