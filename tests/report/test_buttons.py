import json
import subprocess
import sys

import nbformat
import pytest
import yaml

from coseglib.core.errors import CosegError
from coseglib.core.paths import NOTEBOOKS, REPOSITORY
from coseglib.report import buttons


def test_a_button_a_notebook_and_all_of_them_lead_to_this_repository():
    text = buttons.buttons("somebody/workbook")
    numbers = [p.name[:2] for p in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]
    for number in numbers:
        assert text.count(f"[{number}](") == 1
    colab = "colab.research.google.com/github/somebody/workbook/blob/colab/notebooks/00_start_here.ipynb)"
    assert "mybinder.org/v2/gh/somebody/workbook/HEAD?urlpath=lab/tree/notebooks/00_start_here.ipynb)" in text
    assert text.count(colab) == 2


def test_the_readme_takes_them_and_nothing_else_of_it_changes(tmp_path):
    text, (begin, end) = (REPOSITORY / "README.md").read_text(encoding="utf-8"), buttons.MARKS
    once, twice, without = (tmp_path / name for name in ("once", "twice", "without"))
    for file, repositories in ((once, ["a/b"]), (twice, ["c/d", "a/b"])):  # the repository moved
        file.write_text(text, encoding="utf-8")
        for repository in repositories:
            buttons.renew(file, buttons.MARKS, buttons.buttons(repository))
    assert twice.read_text(encoding="utf-8") == (made := once.read_text(encoding="utf-8"))
    assert made.startswith(text.split(begin)[0] + begin) and made.endswith(end + text.split(end)[1])
    without.write_text(text.replace(end, ""), encoding="utf-8")
    with pytest.raises(CosegError, match="put them back"):
        buttons.renew(without, buttons.MARKS, "block")


@pytest.mark.parametrize("name", ["", "a", "a/b/c", "a b/c", "https://github.com/a/b", "a/..", 'a/b"'])
def test_what_is_no_repository_is_refused(name):
    with pytest.raises(CosegError, match="OWNER/NAME"):
        buttons.buttons(name)


def test_a_notebook_sets_itself_up_where_nothing_else_is(tmp_path):
    """As on Colab, with a folder for GitHub and a package of one line for the workbook."""
    hub, there = tmp_path / "hub", tmp_path / "content"
    (hub / "notebooks").mkdir(parents=True), there.mkdir()
    (hub / "onlyhere.py").write_text("found = 'from the clone'\n")
    (hub / "notebooks" / "keep").touch()
    (hub / "pyproject.toml").write_text('[build-system]\nrequires = []\n[project]\nname = "onlyhere"\nversion = "1"\n')
    run = {"cwd": hub, "check": True, "capture_output": True}
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "-q"], **run)
    subprocess.run(["git", "add", "."], **run)
    subprocess.run(["git", *who, "commit", "-qm", "all"], **run)
    notebook = nbformat.read(NOTEBOOKS / "00_start_here.ipynb", as_version=4)
    number = len(notebook.cells)
    cells = buttons.for_colab(notebook, "somebody/workbook").cells
    place = next(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    assert len(cells) == number + 1 and cells[place].id == "set-up"
    nbformat.validate(notebook)
    source = cells[place].source.replace("https://github.com/somebody/workbook", hub.as_uri())
    assert source.count(hub.as_uri()) == 1 and source.count("subprocess.run([*pip, ") == 2
    fetch = "lambda command, **how: run(command, **how) if command[0] == 'git' else print(command)"  # no index here
    source = source.replace(
        "import subprocess\n", f"import subprocess\nrun, subprocess.run = subprocess.run, {fetch}\n"
    )
    told = "import onlyhere\nprint(onlyhere.found, os.path.basename(os.getcwd()))"
    for _ in range(2):  # run again, nothing is fetched
        out = subprocess.run(
            [sys.executable, "-c", f"{source}\n{told}"], cwd=there, check=True, capture_output=True, text=True
        )
        assert out.stdout.splitlines()[-1] == "from the clone notebooks"
    assert "pip" not in out.stdout


def test_the_command_writes_both_and_a_fault_is_one_line(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{buttons.MARKS[0]}\n{buttons.MARKS[1]}\nbelow\n")
    buttons.main(["a/b", "--readme", str(readme), "--colab", str(tmp_path / "colab")])
    assert "/a/b/" in readme.read_text() and readme.read_text().endswith("below\n")
    made = json.loads((tmp_path / "colab" / "03_spatial_semantic_modulation.ipynb").read_text())
    assert sum(cell.get("id") == "set-up" for cell in made["cells"]) == 1
    with pytest.raises(SystemExit, match=r"^error: .*OWNER/NAME"):
        buttons.main(["a", "--readme", str(readme)])


def test_the_workflow_calls_what_there_is():
    steps = yaml.safe_load((REPOSITORY / ".github/workflows/buttons.yml").read_text())["jobs"]["buttons"]["steps"]
    assert any("python -m coseglib.report.buttons" in step.get("run", "") for step in steps)
    assert any(f"checkout --quiet --orphan {buttons.BRANCH}\n" in step.get("run", "") for step in steps)
