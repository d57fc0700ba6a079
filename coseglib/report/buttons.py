"""Buttons in the README that open the notebooks on Binder and on Colab.

    python -m coseglib.report.buttons OWNER/NAME                   writes them into README.md
    python -m coseglib.report.buttons OWNER/NAME --colab FOLDER    besides: notebooks that set themselves up on Colab

A button holds the address of the public repository, which no file here can know before there is one. So
`.github/workflows/buttons.yml` runs this on GitHub, with the address that it has there: at the first push, and again
where the repository moves. Binder builds the whole repository (`environment.yml`, `postBuild`). Colab opens a notebook
and nothing else, so its buttons lead to a branch, `colab`, whose notebooks begin with a cell that fetches the rest.
"""

import argparse
import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.paths import NOTEBOOKS, REPOSITORY

MARKS = "<!-- buttons: coseglib/report/buttons.py -->", "<!-- end of the buttons -->"
BRANCH = "colab"  # of the notebooks that set themselves up
SET_UP = """\
# Only this notebook is here: the library, the lists and the checkpoints are fetched, a few minutes the first time.
import os
import subprocess
import sys

home = os.path.abspath("{name}")
if not os.path.isdir(home):
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", "{address}", home], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, home, "cython>=3.3"], check=True)
    subprocess.run([*pip, "--no-build-isolation", "pydensecrf2"])  # the dense CRF; where it fails, argmax
sys.path.insert(0, home)
os.chdir(os.path.join(home, "notebooks"))"""


def buttons(repository: str) -> str:
    """Markdown: one button to JupyterLab on Binder, and one a notebook to Colab.

    Raises CosegError for what cannot be OWNER/NAME on GitHub.
    """
    if not re.fullmatch(r"[\w-]+/(?!\.+$)[\w.-]+", repository, re.ASCII):
        raise CosegError(f"{repository}: no repository of GitHub; give OWNER/NAME")
    binder = f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/00_start_here.ipynb"
    colab = f"https://colab.research.google.com/github/{repository}/blob/{BRANCH}/notebooks"
    urls = {p.name[:2]: f"{colab}/{p.name}" for p in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    return (
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})\n"
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({urls['00']})\n"
        f"Colab, by number: {' '.join(f'[{number}]({url})' for number, url in urls.items())}"
    )


def renew(file: Path, marks: tuple[str, str], block: str) -> None:
    """Write a block into a file, between its two marks, whatever stood there. Raises CosegError without the marks."""
    text, (begin, end) = file.read_text(encoding="utf-8"), marks
    if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
        raise CosegError(f"{file}: the marks {begin} and {end} are not both there once, in this order; put them back")
    write_text(file, f"{text.split(begin)[0]}{begin}\n{block}\n{end}{text.split(end)[1]}")


def for_colab(notebook: nbformat.NotebookNode, repository: str) -> nbformat.NotebookNode:
    """The notebook with the cell that fetches the repository before its first code cell. Changed in place."""
    source = SET_UP.format(name=repository.split("/")[1], address=f"https://github.com/{repository}")
    place = next((i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"), len(notebook.cells))
    notebook.cells.insert(place, new_code_cell(source, id="set-up", metadata={"tags": ["set-up"]}))
    return notebook


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the buttons that open the notebooks on Binder and Colab.")
    parser.add_argument("repository", metavar="OWNER/NAME", help="on GitHub")
    parser.add_argument("--readme", type=Path, default=REPOSITORY / "README.md", help="with the buttons' two marks")
    parser.add_argument("--colab", type=Path, metavar="FOLDER", help="where the notebooks for Colab go")
    given = parser.parse_args(arguments)
    try:
        renew(given.readme, MARKS, buttons(given.repository))
        if given.colab:
            given.colab.mkdir(parents=True, exist_ok=True)
            for path in sorted(NOTEBOOKS.glob("*.ipynb")):
                made = for_colab(nbformat.read(path, as_version=4), given.repository)
                write_text(given.colab / path.name, nbformat.writes(made) + "\n")
    except (CosegError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
