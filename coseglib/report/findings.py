"""What a report found, for the head of its pages, from the notebooks as they ran and from their tables.

A sentence is never typed: a cell tagged `finding` prints it with its numbers. One that is tagged `headline` as well
stands at the head of the report. The plot that a cell tagged `picture` saves stands for its notebook.
"""

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
import pandas as pd

from coseglib.core.errors import CosegError
from coseglib.core.paths import MEASURED, REPOSITORY
from coseglib.core.tables import read_table
from coseglib.evaluation.benchmark import MEASURED_HERE
from coseglib.evaluation.cards import cards
from coseglib.evaluation.systems import NONE
from coseglib.report.notebooks import tags_of
from coseglib.scoring.rows import PARTNERS

FINDING, HEADLINE, PICTURE = "finding", "headline", "picture"


def printed(notebook: nbformat.NotebookNode, *tags: str) -> list[str]:
    """What each cell that bears all these tags printed, on one line, in a notebook that `coseg report` ran."""
    tagged = (c for c in notebook.cells if c.cell_type == "code" and {*tags} <= {*tags_of(c)})
    cells = tagged if "coseg" in notebook.metadata else ()  # what is committed beside the code may be of another run
    streams = ([o.text for o in c.outputs if o.output_type == "stream" and o.name == "stdout"] for c in cells)
    texts = (" ".join("".join(parts).split()) for parts in streams)
    return [text for text in texts if text]


def question(notebook: nbformat.NotebookNode) -> str:
    """The first sentence after "**The question.**" in a notebook's first text cell; without that, after its title."""
    text = next((c.source for c in notebook.cells if c.cell_type == "markdown"), "")
    asked = re.search(r"\*\*The question\.\*\*(.*)", text, re.DOTALL) or re.search(r"\A#.*?\n(.*)", text, re.DOTALL)
    words = " ".join(asked[1].split()) if asked else ""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", words)  # its links lead from the notebook's own folder
    return re.split(r"(?<=[.?!])\s+(?=[A-Z])", words)[0]


def places(notebook: nbformat.NotebookNode, stems: Iterable[str], word: str = "") -> dict[str, int]:
    """{stem of a file: which cell names it in a string}, of code that holds `word`; an f-string fills in anything."""
    best: dict[str, tuple[int, int]] = {}  # of several names that fit the one with most letters from its own cell
    for place, cell in enumerate(notebook.cells):
        names = re.findall(r"""(["'])(\d\d_.*?)\1""", cell.source) if cell.cell_type == "code" else []
        for _, name in names if word in cell.source else []:
            parts = re.split(r"\{.*?\}", re.sub(r"\.\w+$", "", name))
            for stem in stems:
                if filled := re.fullmatch("(.+)".join(map(re.escape, parts)), stem):
                    own = sum(len(part) for part in (*parts, *filled.groups()) if part in cell.source.lower())
                    best[stem] = max(best.get(stem, (0, 0)), (own, place), key=lambda found: found[0])
    return {stem: place for stem, (_, place) in best.items()}


def picture(notebook: nbformat.NotebookNode, stems: Iterable[str]) -> tuple[str, bool]:
    """Which of these plots stands for a notebook, and whether it is tagged; else the last one saved, "" for none."""
    saved = places(notebook, stems, "save_figure")
    tagged = [stem for stem, place in saved.items() if PICTURE in tags_of(notebook.cells[place])]
    return (tagged[0], True) if tagged else (max(saved, key=saved.__getitem__, default=""), False)


def _csv(folder: Path) -> dict[str, pd.DataFrame]:
    """{name: table} of the CSV files in `folder`/tables that can be read, all text."""
    found = {}
    for file in sorted((folder / "tables").glob("[!.]*.csv")):
        with contextlib.suppress(CosegError):  # the page names them
            found[file.name] = read_table(file, {})
    return found


def benchmark_figures(folder: Path) -> pd.DataFrame:
    """A row a system of the benchmark tables in `folder`/tables, as text; empty without such tables.

    Columns (of what, what): ("", system or checkpoint), J under `common` by set and partner ("msrc7, 70 images",
    "group"), and of two questions ("pascal, 238 questions", "swap, points") and ("pascal, 60 photographs", "AUROC"),
    each with its own count: swap is asked of the whole set where a limit cuts the rest.
    """
    keys, parts = ["system", "checkpoint"], []
    needed = {*keys, "dataset", "protocol", "partner", "group", "images", "J", "source"}
    for name, table in _csv(folder).items():
        if name.startswith("08_") and needed <= set(table):
            ours = (table.source == MEASURED_HERE) & (table.group == "all") & (table.protocol == "common")
            rows = table[ours & table.partner.isin(PARTNERS)]
            images = rows.images.astype(float).map("{:.0f} images".format)
            parts.append(rows.assign(of=rows.dataset + ", " + images, what=rows.partner, value=rows.J.astype(float)))
    if not parts:
        return pd.DataFrame()
    known = [*keys, "dataset", "swap", "questions", "AUROC", "photographs"]
    asked = _csv(folder).get("08_two_questions.csv", pd.DataFrame()).reindex(columns=known, fill_value="")
    for what, count, factor in (("swap, points", "questions", 100), ("AUROC", "photographs", 1)):
        value = factor * pd.to_numeric(asked[what.split(",")[0]], errors="coerce")
        parts.append(asked.assign(of=asked.dataset + ", " + asked[count] + f" {count}", what=what, value=value))
    rows = pd.concat(parts).dropna(subset="value").drop_duplicates([*keys, "of", "what"])
    wide = rows.set_index([*keys, "of", "what"]).value.unstack(["of", "what"], sort=False)
    digits = {c: "{:.1f}" if "points" in c[1] else "{:.3f}" for c in wide}
    shown = {c: wide[c].map(lambda v, form=form: NONE if v != v else form.format(v)) for c, form in digits.items()}
    return pd.DataFrame({("", key): wide.index.get_level_values(key) for key in keys} | shown, index=wide.index)


def origins(folder: Path, runs: dict[str, dict]) -> list[dict]:
    """A row a CSV table: table, notebook, code (commit), lists, checkpoints (8 digits; by name where a card has it).

    runs  {notebook: its `metadata.coseg`}; a table whose name begins with no notebook's number was made by a command
    """
    known = {card["sha256"][:8]: card["name"] for card in (*cards(MEASURED), *cards())}  # of one file: as shipped
    rows = []
    for name, table in _csv(folder).items():
        notebook = next((n for n in runs if n[:3] == name[:3]), "")
        sets, sums = (filter(None, dict.fromkeys(table.get(column, ()))) for column in ("dataset", "checkpoint"))
        lists = {one: f"data/lists/groups_{one}.csv" for one in sets}
        row = {"table": name, "notebook": notebook or ("an earlier run" if re.match(r"\d\d_", name) else "a command")}
        row["code"] = runs[notebook]["commit"] if notebook else NONE
        row["lists"] = ", ".join(p if (REPOSITORY / p).is_file() else s for s, p in lists.items()) or NONE
        row["checkpoints"] = ", ".join(f"{known[s]} {s}" if s in known else s for s in sums) or NONE
        rows.append(row)
    return rows
