#!/usr/bin/env bash
# papermill 2.7.0: a notebook that ends itself half-way counts as a success.
#
# Expected   a cell that ends the kernel's process before the notebook is over is an error, or at least not exit code 0.
# Seen       `sys.exit(0)` in a cell: papermill leaves the cells after it unrun and ends with 0, as after the last cell;
#            `sys.exit(1)` is an error. In the notebook that is written the unrun cells have the status "pending".
# What to do look for cells with `metadata.papermill.status == "pending"` in what papermill has written.
# Versions   papermill 2.7.0, CPython 3.11, Linux
# Run by hand, a minute; ends with 1 where the behaviour has changed. Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check papermill==2.7.0 ipykernel 2>/dev/null
cd "$work"
export PATH="$work/venv/bin:$PATH" JUPYTER_DATA_DIR="$work/jupyter" IPYTHONDIR="$work/ipython"
python -m ipykernel install --prefix "$work/venv" --name here > /dev/null 2>&1
cat > make.py <<'PY'
import nbformat
from nbformat.v4 import new_code_cell, new_notebook
for code in (0, 1):
    cells = [new_code_cell(text) for text in ("print('first')", f"import sys\nsys.exit({code})", "print('last')")]
    meta = {"kernelspec": {"name": "here", "display_name": "here", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=meta), f"ends{code}.ipynb")
PY
python make.py
zero=0; papermill --no-progress-bar ends0.ipynb zero.ipynb > /dev/null 2>&1 || zero=$?
one=0; papermill --no-progress-bar ends1.ipynb one.ipynb > /dev/null 2>&1 || one=$?
cat > look.py <<'PY'
import sys
import nbformat
import papermill
zero, one = map(int, sys.argv[1:])
cells = nbformat.read("zero.ipynb", as_version=4).cells
states = [cell.metadata.papermill.get("status") for cell in cells if "papermill" in cell.metadata]
print(f"papermill {papermill.__version__}: sys.exit(0) ends with {zero}, sys.exit(1) with {one}; cells' states: {states}")
sys.exit(not (zero == 0 and one != 0 and states[-1] == "pending" and not cells[-1].outputs))
PY
python look.py "$zero" "$one"
