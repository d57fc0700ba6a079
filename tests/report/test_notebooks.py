"""What is committed under notebooks/: outputs, tags, and the smoke profile's values."""

import ast
import re

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook, new_output

from coseglib.core.paths import NOTEBOOKS
from coseglib.report.notebooks import CHECKED, KERNEL, PARAMETERS, declared, faults, main, stripped
from coseglib.report.run import parameters

COMMITTED = sorted(NOTEBOOKS.glob("*.ipynb"))
PICTURE = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})


def _text(text: str):
    return new_output("stream", name="stdout", text=text)


def _notebook(*more):
    head = [
        new_code_cell("import math"),
        new_code_cell('profile = "smoke"', metadata={"tags": [PARAMETERS]}),
        new_code_cell("print(2)", metadata={"tags": [CHECKED]}, outputs=[_text("2")], execution_count=3),
    ]
    return new_notebook(cells=[*head, *more], metadata={"kernelspec": dict(KERNEL)})


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_a_committed_notebook_has_its_cells_in_order_and_text_outputs_only(path):
    assert faults(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("profile", ["smoke", "cpu", "paper"])
def test_every_profile_gives_every_notebook_only_parameters_that_it_declares(profile):
    assert set(parameters(profile, COMMITTED)) == {p.stem for p in COMMITTED}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_a_notebook_opened_by_hand_or_by_nbval_has_the_smoke_profile(path):
    given = yaml.safe_load((NOTEBOOKS / "params" / "smoke.yaml").read_text()) or {}
    defaults = declared(path)
    for name, value in {"profile": "smoke", **(given.get(path.stem) or {})}.items():
        assert ast.literal_eval(defaults[name]) == value, name


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_a_notebook_teaches_from_its_first_cell_to_its_last(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    for part in ("**What you will learn.**", "**You need**", "## Exercises"):
        assert part in text
    exercises = re.findall(r"^\d\. ", text.split("## Exercises")[1], re.MULTILINE)
    folded = [c for c in cells if c.metadata.get("jupyter", {}).get("source_hidden")]
    assert len(exercises) >= 2 and {f"# Exercise {i + 1}" for i in range(len(exercises))} <= {
        re.match(r"# Exercise \d", c.source)[0] for c in folded
    }
    later = COMMITTED[COMMITTED.index(path) + 1 :]
    assert not later or f"({later[0].name})" in cells[-1].source  # the way on


def test_a_notebook_as_it_should_be_has_no_faults():
    assert faults(_notebook()) == []


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        (new_code_cell("1", outputs=[_text("1")]), "make strip"),
        (new_code_cell("1", execution_count=4), "make strip"),
        (new_code_cell("1", metadata={"tags": [CHECKED]}), "compares nothing"),
        (new_code_cell("1", metadata={"tags": [CHECKED]}, outputs=[PICTURE], execution_count=4), "image/png"),
        (new_code_cell("x = 1", metadata={"tags": [PARAMETERS]}), "[2, 4]"),
    ],
)
def test_each_fault_is_named(cell, fault):
    (found,) = faults(_notebook(cell))
    assert fault in found


def test_a_notebook_without_a_compared_cell_is_a_fault():
    notebook = _notebook()
    del notebook.cells[2]
    assert any("compares nothing" in f for f in faults(notebook))


def test_stripping_keeps_the_tags_that_the_report_reads():
    tags = [["finding"], ["finding", "headline"], ["picture"]]
    cells = [new_code_cell("print(1)", metadata={"tags": t}, outputs=[_text("1")], execution_count=4) for t in tags]
    notebook = stripped(_notebook(*cells))
    assert [c.metadata.tags for c in notebook.cells[3:]] == tags and not any(c.outputs for c in notebook.cells[3:])
    assert faults(notebook) == []


def test_stripping_keeps_the_compared_cells_and_nothing_else(tmp_path):
    notebook = _notebook(new_code_cell("plot()", outputs=[PICTURE, _text("drawn")], execution_count=4))
    notebook.metadata["papermill"] = {"duration": 1}
    notebook.cells.insert(2, new_code_cell("seed = 9", metadata={"tags": ["injected-parameters"]}, execution_count=3))
    path = tmp_path / "00_a.ipynb"
    nbformat.write(notebook, path)
    main([str(path)])
    again = nbformat.read(path, as_version=4)
    assert faults(again) == [] and "papermill" not in again.metadata
    assert [len(c.outputs) for c in again.cells] == [0, 0, 1, 0]
    assert again.cells[2].execution_count == 3
    assert stripped(nbformat.read(path, as_version=4)) == again


def test_a_notebook_stays_whole_where_stripping_cannot_end(tmp_path, monkeypatch):
    """A source is hours of work: it is replaced at the end, or not at all."""
    path = tmp_path / "00_a.ipynb"
    nbformat.write(_notebook(new_code_cell("1", outputs=[_text("1")])), path)
    before = path.read_bytes()

    def full(*given):
        raise OSError("no space left")

    monkeypatch.setattr("coseglib.core.files.os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        main([str(path)])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_a_notebook_s_cells_write_files_that_are_there_whole_or_not_at_all(path):
    code = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    assert not re.search(r"\.(write_text|write_bytes|to_csv)\(", code)
