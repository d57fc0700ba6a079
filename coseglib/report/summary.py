"""What a report says of itself: summary.md, and the facts of index.html, from the notebooks as they ran."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
import pandas as pd

from coseglib.core.errors import CosegError
from coseglib.core.paths import MEASURED, NOTEBOOKS, REPOSITORY
from coseglib.core.tables import read_table
from coseglib.evaluation.cards import cards
from coseglib.evaluation.papers import MEASURED_HERE
from coseglib.evaluation.systems import NONE
from coseglib.report import site
from coseglib.report.notebooks import selected
from coseglib.scoring.rows import PARTNERS

SLOWEST = 3  # cells a notebook


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _as_they_ran(folder: Path, notebooks: Path) -> tuple[dict[str, nbformat.NotebookNode], list[Path]]:
    """Name -> the notebook in `folder`/notebooks that a run left, in reading order; and those that no run has left."""
    ran, waiting = {}, []
    for path in selected((), notebooks):
        left = folder / "notebooks" / path.name
        notebook = nbformat.read(left, as_version=4) if left.is_file() else None
        if notebook and notebook.metadata.get("coseg"):
            ran[path.stem] = notebook
        else:
            waiting.append(path)
    return ran, waiting


def _state(runs: dict[str, dict], waiting: list[str]) -> str:
    failed = [name for name, about in runs.items() if about["error"]]
    state = f"{len(runs) - len(failed)} of {len(runs) + len(waiting)} notebooks ran"
    for what, names in (("failed", failed), ("not run", waiting)):
        state += f"; {what}: {', '.join(names)}" if names else ""
    return f"{state}; {duration(sum(about['seconds'] for about in runs.values()))} in all"


def _slowest(runs: dict[str, dict]) -> list[dict]:
    """The cells of `_timings` that took a second or more: name, cell, duration, line."""
    return [
        {"name": name, "cell": c["cell"], "duration": duration(c["seconds"]), "line": c["line"]}
        for name, about in runs.items()
        for c in about["slowest"]
        if c["seconds"] >= 1
    ]


def _machines(runs: dict[str, dict]) -> list[str]:
    return list(dict.fromkeys(f"{a['machine']}; {a['versions']}" for a in runs.values()))


def _csv(folder: Path) -> dict[str, pd.DataFrame]:
    """{name: table} of the CSV files in `folder`/tables that can be read, all text."""
    found = {}
    for file in sorted((folder / "tables").glob("[!.]*.csv")):
        with contextlib.suppress(CosegError):  # `site` names them
            found[file.name] = read_table(file, {})
    return found


def benchmark_figures(folder: Path) -> pd.DataFrame:
    """What the benchmark tables of `folder`/tables come to: a row a set and system, J under `common` by partner.

    Columns set, system, checkpoint, images, group, self, other (NaN where not asked). Empty without such tables.
    """
    needed = {"dataset", "system", "checkpoint", "protocol", "partner", "group", "images", "J", "source"}
    parts = [t for name, t in _csv(folder).items() if name.startswith("08_") and needed <= set(t)]
    if not parts:
        return pd.DataFrame(columns=["set", "system", "checkpoint", "images", *PARTNERS])
    rows = pd.concat(parts)
    rows = rows[(rows.source == MEASURED_HERE) & (rows.group == "all") & (rows.protocol == "common")]
    rows = rows.astype({"J": float, "images": float}).astype({"images": int})
    keys = ["dataset", "system", "checkpoint", "images"]
    wide = rows.drop_duplicates([*keys, "partner"]).set_index([*keys, "partner"]).J.unstack(sort=False)
    wide = wide.reindex(columns=list(PARTNERS)).reset_index()
    return wide.rename(columns={"dataset": "set"}).rename_axis(columns=None)


def origins(folder: Path, runs: dict[str, dict]) -> list[dict]:
    """A row a CSV table: table, notebook, code (commit), lists, checkpoints (8 digits; by name where a card has it).

    runs  {notebook: its `metadata.coseg`}; a table whose name begins with no notebook's number was made by a command
    """
    known = {card["sha256"][:8]: card["name"] for card in (*cards(MEASURED), *cards())}  # of one file: as shipped
    rows = []
    for name, table in _csv(folder).items():
        notebook = next((n for n in runs if n[:3] == name[:3]), "")
        sets, sums = (
            [one for one in table[column].unique() if one] if column in table else []
            for column in ("dataset", "checkpoint")
        )
        lists = {one: f"data/lists/groups_{one}.csv" for one in sets}
        rows.append(
            {
                "table": name,
                "notebook": notebook or ("an earlier run" if re.match(r"\d\d_", name) else "a command"),
                "code": runs[notebook]["commit"] if notebook else NONE,
                "lists": ", ".join(p if (REPOSITORY / p).is_file() else str(s) for s, p in lists.items()) or NONE,
                "checkpoints": ", ".join(f"{known[s]} {s}" if s in known else s for s in sums) or NONE,
            }
        )
    return rows


def markdown_rows(rows: Iterable[Mapping]) -> list[str]:
    rows = [{k: v if isinstance(v, str) else f"{v:.4g}" if v == v else NONE for k, v in row.items()} for row in rows]
    head = [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"] if rows else []
    return [*head, *(f"| {' | '.join(row.values())} |" for row in rows)]


def summary(profile: str, folder: Path, notebooks: Path = NOTEBOOKS) -> str:
    """Markdown, from the notebooks in `folder`/notebooks as they ran: status, durations, errors, seeds, machine.

    And from the tables: what the benchmarks come to (`benchmark_figures`), and what made each table (`origins`).
    """
    ran, waiting = _as_they_ran(folder, notebooks)
    runs = {name: notebook.metadata["coseg"] for name, notebook in ran.items()}
    failed = [name for name, about in runs.items() if about["error"]]
    lines = [
        f"# Report, profile `{profile}`",
        "",
        f"{_state(runs, [path.stem for path in waiting])}. Made by `coseg report --profile {profile}`, which leaves "
        "each notebook as it ran, and a page of it, in `notebooks/`, and all of this in `index.html`.",
        "",
    ]
    status = [
        {"notebook": name, "status": "FAILED" if about["error"] else "ok", "duration": duration(about["seconds"])}
        | {"seeds": about["seeds"] or NONE, "date": about["date"], "code": about["commit"]}
        for name, about in runs.items()
    ]
    lines += markdown_rows(status)
    if failed:
        lines += ["", "## What failed", "", *(f"- `{name}`: {runs[name]['error']}" for name in failed)]
    if len(benchmarks := benchmark_figures(folder)):
        lines += ["", "## J by partner, under protocol `common`", "", *markdown_rows(benchmarks.to_dict("records"))]
    if slow := _slowest(runs):
        lines += ["", "## Slowest cells", ""]
        lines += [f"- `{c['name']}` [{c['cell']}] {c['duration']}: `{c['line']}`" for c in slow]
    files = [p for part in ("tables", "plots") for p in sorted((folder / part).glob("*"))]
    if made := [p.relative_to(folder).as_posix() for p in files]:
        lines += ["", "## Tables and plots", "", *(f"- [{p}]({p})" for p in made)]
    if made_by := origins(folder, runs):
        lines += ["", "## What made each table", "", *markdown_rows(made_by)]
        lines += ["", "Checkpoints without a name were trained by the notebook itself, or are floors."]
    lines += ["", "## Where it ran", "", *(f"- {line}" for line in _machines(runs))]
    return "\n".join(lines) + "\n"


def page(profile: str, folder: Path, notebooks: Path = NOTEBOOKS) -> str:
    """index.html: what `summary` says, with the tables and the plots themselves. Opens from disk, without a network."""
    ran, waiting = _as_they_ran(folder, notebooks)
    runs = {name: notebook.metadata["coseg"] for name, notebook in ran.items()}
    titles = {path.stem: site.title(nbformat.read(path, as_version=4), path.stem) for path in waiting}
    return site.index(
        folder,
        ran,
        titles,
        {name: duration(about["seconds"]) for name, about in runs.items()},
        profile=profile,
        state=_state(runs, list(titles)),
        slowest=_slowest(runs),
        machines=_machines(runs),
    )
