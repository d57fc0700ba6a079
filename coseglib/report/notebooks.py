"""What a committed notebook looks like, and `make strip`, which makes it so.

The first code cell imports, the second is tagged `parameters` and holds the smoke profile's values. Outputs and counts
stand on cells tagged `nbval-check-output` alone: nbval compares those, and nothing where every cell is empty. They are
text; pictures are drawn on the reader's machine.
"""

import copy
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import papermill
from nbstripout import strip_output

from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.paths import NOTEBOOKS

CHECKED = "nbval-check-output"
PARAMETERS = "parameters"
INJECTED = "injected-parameters"  # papermill's own cell, in a notebook that `coseg report` left
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# What papermill, widgets and editors leave behind.
LEFTOVERS = [f"metadata.{key}" for key in ("papermill", "coseg", "widgets", "language_info")]
LEFTOVERS += [f"cell.metadata.{key}" for key in ("papermill", "execution")]


def selected(only: Sequence[str] = (), notebooks: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks NN_name.ipynb in reading order; `only`: numbers ("02") or names ("02_semantic_attention")."""
    found = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise CosegError(f"{notebooks}: no notebooks NN_name.ipynb; run this in a clone of the repository")
    for asked in only:
        if not any(asked in (p.stem, p.stem[:2]) for p in found):
            raise CosegError(f"--only {asked}: no such notebook; one of {', '.join(p.stem[:2] for p in found)}")
    return [p for p in found if not only or p.stem in only or p.stem[:2] in only]


def declared(notebook: Path) -> dict[str, str]:
    """The names in a notebook's cell tagged `parameters`, and their defaults as source text."""
    try:
        return {name: p["default"] for name, p in papermill.inspect_notebook(notebook).items()}
    except Exception as error:  # nbformat, json and papermill each have their own
        raise CosegError(f"{notebook}: not a notebook that papermill reads ({error}); mend it") from error


def tags_of(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without outputs, counts and leftovers, but for the outputs of cells that nbval compares. Changed in place."""
    notebook.cells = [c for c in notebook.cells if INJECTED not in tags_of(c)]
    kept = {i: (c.outputs, c.execution_count) for i, c in enumerate(notebook.cells) if CHECKED in tags_of(c)}
    strip_output(notebook, keep_output=False, keep_count=False, keep_id=True, extra_keys=LEFTOVERS)
    for i, (outputs, count) in kept.items():
        notebook.cells[i].update(outputs=outputs, execution_count=count)
    for cell in notebook.cells:
        if not tags_of(cell):
            cell.metadata.pop("tags", None)
    notebook.metadata["kernelspec"] = dict(KERNEL)
    return notebook


def faults(notebook: nbformat.NotebookNode) -> list[str]:
    """What is not as it should be, a line each; none: []."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    places = [n for n, cell in enumerate(code, start=1) if PARAMETERS in tags_of(cell)]
    compared = [cell for cell in code if CHECKED in tags_of(cell)]
    outputs = [output for cell in compared for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})} - {"text/plain"}
    found = {
        "it is not as make strip leaves it; run that": stripped(copy.deepcopy(notebook)) != notebook,
        "the first code cell does not import": not re.match(r"\s*(import |from |%)", code[0].source if code else ""),
        f"the second code cell alone is to be tagged `{PARAMETERS}`, tagged are {places or 'none'}": places != [2],
        f"no cell is tagged {CHECKED}, so nbval compares nothing": not compared,
        f"a cell tagged {CHECKED} holds no output, so nbval compares nothing; run it and save": not all(
            cell.outputs and cell.execution_count for cell in compared
        ),
        "an output is an error; mend it and run it again": any(o.output_type == "error" for o in outputs),
        f"an output is {', '.join(sorted(kinds))}; print figures as text": bool(kinds),
    }
    return [fault for fault, there in found.items() if there]


def main(paths: list[str]) -> None:
    """Strip the notebooks named, in place."""
    for path in map(Path, paths):
        before = path.read_text(encoding="utf-8")
        after = nbformat.writes(stripped(nbformat.reads(before, as_version=4))) + "\n"
        if after != before:
            write_text(path, after)
            print(f"{path}: stripped")


if __name__ == "__main__":
    main(sys.argv[1:])
