"""What a report shows, from the notebooks as they ran: each as a page, index.html with tables and plots, summary.md.

Pages open from disk, without a network. Their looks are in `templates/report.html.j2` (plain HTML and CSS: phone,
desktop, print, light and dark) and `templates/notebook.html.j2` (nbconvert's page, with a table of contents).
"""

import contextlib
import copy
import html
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import nbformat
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image

from coseglib.core.errors import CosegError
from coseglib.core.paths import MEASURED, NOTEBOOKS, REPOSITORY
from coseglib.core.tables import read_table
from coseglib.evaluation.benchmark import MEASURED_HERE
from coseglib.evaluation.cards import cards
from coseglib.evaluation.systems import NONE
from coseglib.report.notebooks import selected
from coseglib.scoring.rows import PARTNERS

TEMPLATES = Path(__file__).with_name("templates")
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_WIDGET = "<p><em>Here stands a page that answers. It needs JupyterLab: open this notebook there and run it.</em></p>"
ROWS, COLUMNS = 40, 24  # of a table, on the page; its CSV has all
WORDS = 160  # characters of a plot's own text that its description repeats
PICTURES = (".png", ".svg")


# A notebook as a page -------------------------------------------------------------------------------------------------


def formula(tex: str, display: str = "inline") -> str:
    """MathML, which browsers draw themselves; the TeX as code where it cannot be read. display: "inline" or "block"."""
    try:
        return mathml(tex, display=display)
    except Exception:  # it has a class for each fault, and others for those that it did not think of
        return f"<code>{html.escape(tex)}</code>"


class _Renderer(IPythonRenderer):
    """Formulas that browsers draw; headings of level 2, and those of level 3 below them, go to `chapters` as well."""

    def __init__(self, chapters: list[dict], **options):
        super().__init__(**options)
        self.chapters = chapters

    def heading(self, text: str, level: int, **attrs) -> str:
        shown = super().heading(text, level, **attrs)
        anchor = re.search(r' id="([^"]*)"', shown)
        if level in (2, 3) and anchor:
            above = self.chapters[-1]["below"] if level == 3 and self.chapters else self.chapters
            above.append({"anchor": anchor[1], "text": text, "below": []})
        return shown

    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_math(self, body: str) -> str:
        return formula(body, "block")


class _Exporter(HTMLExporter):
    """nbconvert's pages with formulas that need no script from the network, and a table of contents."""

    @pass_context
    def markdown2html(self, context, source: str) -> str:
        options = {"attachments": context.get("cell", {}).get("attachments", {}), "escape": False}
        options["anchor_link_text"] = self.anchor_link_text
        return MarkdownWithMath(renderer=_Renderer(context["resources"]["chapters"], **options)).render(source)


def _still(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy in which a sentence stands for each widget: without a kernel it would not move, nor be drawn offline."""
    still = copy.deepcopy(notebook)
    still.metadata.pop("widgets", None)
    for cell in still.cells:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output.data = nbformat.from_dict({"text/html": NO_WIDGET})
    return still


def notebook_page(notebook: nbformat.NotebookNode, name: str, profile: str) -> str:
    """HTML of a notebook as it ran, with a table of contents and a link to the report's index."""
    exporter = _Exporter(template_file=str(TEMPLATES / "notebook.html.j2"))
    about = {"metadata": {"name": title(notebook, name)}, "profile": profile, "chapters": []}
    return exporter.from_notebook_node(_still(notebook), about)[0]


def _headings(cell: nbformat.NotebookNode) -> list[tuple[int, str]]:
    """(level, text) of a text cell's headings; lines inside ``` are none."""
    lines = re.sub(r"^```.*?^```", "", cell.source, flags=re.DOTALL | re.MULTILINE).splitlines()
    found = (re.match(r"(#{1,6})\s+(.*\S)", line) for line in lines)
    return [(len(m[1]), m[2]) for m in found if m]


def title(notebook: nbformat.NotebookNode, name: str) -> str:
    """A notebook's first heading of level 1, else its name."""
    texts = [c for c in notebook.cells if c.cell_type == "markdown"]
    return next((text for c in texts for level, text in _headings(c) if level == 1), name)


def _sections(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """(heading above it, source) of every code cell."""
    above, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            above = next((text for _, text in reversed(_headings(cell))), above)
        elif cell.cell_type == "code":
            found.append((above, cell.source))
    return found


# Tables and plots -----------------------------------------------------------------------------------------------------


def _csv(folder: Path) -> dict[str, pd.DataFrame]:
    """{name: table} of the CSV files in `folder`/tables that can be read, all text."""
    found = {}
    for file in sorted((folder / "tables").glob("[!.]*.csv")):
        with contextlib.suppress(CosegError):  # `_tables` names them
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
        sets, sums = (filter(None, dict.fromkeys(table.get(column, ()))) for column in ("dataset", "checkpoint"))
        lists = {one: f"data/lists/groups_{one}.csv" for one in sets}
        row = {"table": name, "notebook": notebook or ("an earlier run" if re.match(r"\d\d_", name) else "a command")}
        row["code"] = runs[notebook]["commit"] if notebook else NONE
        row["lists"] = ", ".join(p if (REPOSITORY / p).is_file() else s for s, p in lists.items()) or NONE
        row["checkpoints"] = ", ".join(f"{known[s]} {s}" if s in known else s for s in sums) or NONE
        rows.append(row)
    return rows


def _origin(stem: str, ran: dict[str, nbformat.NotebookNode], folder: Path) -> dict:
    """Which notebook made a file, by the number at the head of its name; under which heading, where it says so."""
    name = next((n for n in ran if n[:3] == stem[:3] and re.match(r"\d\d_", stem)), "")
    if not name:
        return {"notebook": "", "number": "", "section": "", "href": ""}
    saves = re.compile(rf"""["']{re.escape(stem)}["'.]""")
    section = next((above for above, source in _sections(ran[name]) if saves.search(source)), "")
    page = folder / "notebooks" / f"{name}.html"
    href = f"notebooks/{name}.html" if page.is_file() else ""
    anchor = quote(section.replace(" ", "-"), safe="?/:@!$&'()*+,;=")  # as nbconvert makes ids
    if href and section and f'id="{html.escape(anchor, quote=False)}"' in page.read_text(encoding="utf-8"):
        href += f"#{anchor}"
    return {"notebook": title(ran[name], name), "number": name[:2], "section": section, "href": href}


def _made(part: str, folder: Path, ran: dict[str, nbformat.NotebookNode], suffixes: Collection[str] = ()):
    """What is said of the files of one name in `folder`/`part`, and these: ({id, title, …}, {suffix: path})."""
    files: dict[str, dict[str, Path]] = {}
    for path in sorted((folder / part).glob("[!.]*")):
        if not suffixes or path.suffix in suffixes:
            files.setdefault(path.stem, {})[path.suffix] = path
    for stem, paths in files.items():
        words = re.sub(r"^\d\d_", "", stem).replace("_", " ")  # "02_mean_or_minimum" -> "Mean or minimum"
        about = {"id": f"{part[:-1]}-{stem}", "title": words[:1].upper() + words[1:], **_origin(stem, ran, folder)}
        links = [(s.lstrip(".").upper() or p.name, quote(f"{part}/{p.name}")) for s, p in paths.items()]
        yield about | {"files": links}, paths


def _as_numbers(column: pd.Series) -> pd.Series:
    """A column of a table as it is to be shown: of numbers where it holds nothing else and does not name things."""
    known = column[column != ""]
    if re.search(r"checkpoint|sha|key|recipe|code|^(group|name|photo|dataset)$", column.name) or known.empty:
        return column
    if known.str.match(r"-?0\d").any():
        return column
    numbers = pd.to_numeric(known, errors="coerce")
    return column if numbers.isna().any() else numbers.reindex(column.index)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def shown_table(file: Path) -> dict:
    """Of a CSV the first `ROWS` rows and `COLUMNS` columns, and how much that leaves out.

    -> columns [(name, whether it holds numbers)], rows [[text]], cut ("" or "the first 40 of 1,096 rows")
    Names and checksums stay text, such as look like a number too. Raises CosegError where it cannot be read.
    """
    table = read_table(file, {})
    if table.columns.empty:
        raise CosegError(f"{file}: is empty")
    parts = zip(table.shape, (ROWS, COLUMNS), ("rows", "columns"), strict=True)
    cut = ", ".join(f"the first {most} of {n:,} {what}" for n, most, what in parts if n > most)
    shown = table.iloc[:, :COLUMNS].apply(_as_numbers)
    numbers = [pd.api.types.is_numeric_dtype(kind) for kind in shown.dtypes]
    rows = shown.head(ROWS).map(_text).to_numpy().tolist()
    return {"columns": list(zip(shown, numbers, strict=True)), "rows": rows, "cut": cut}


def _tables(folder: Path, ran: dict[str, nbformat.NotebookNode]) -> list[dict]:
    found = []
    for made, paths in _made("tables", folder, ran):
        made |= {"columns": [], "why": "no CSV"}
        try:
            made |= shown_table(paths[".csv"]) if ".csv" in paths else {}
        except CosegError as error:
            made["why"] = f"not readable as a table ({' '.join(str(error).split())})"
        found.append(made)
    return found


def _drawn(svg: Path) -> list[str]:
    """The texts of an SVG as our plots write it, the largest first: a figure's title, then its axes and series."""
    sizes: dict[str, float] = {}
    pattern = r'<text style="[^"]*?font-size: ([\d.]+)px[^"]*"[^>]*>([^<]+)<'
    for size, text in re.findall(pattern, svg.read_text(encoding="utf-8", errors="replace")):
        text = " ".join(html.unescape(text).split())
        if re.search(r"[^\W\d_]{2}", text):  # two letters in it: no tick, no score of a panel
            sizes[text] = max(float(size), sizes.get(text, 0))
    return sorted(sizes, key=lambda t: -sizes[t])


def _plots(folder: Path, ran: dict[str, nbformat.NotebookNode]) -> list[dict]:
    found = []
    for made, kinds in _made("plots", folder, ran, PICTURES):
        large, shown = kinds.get(".svg", kinds.get(".png")), kinds.get(".png", kinds.get(".svg"))
        made |= {"large": quote(f"plots/{large.name}"), "shown": quote(f"plots/{shown.name}")}
        made |= dict.fromkeys(("width", "height", "drawn"), 0)  # drawn: its width in CSS pixels, 96 an inch
        if ".png" in kinds:
            try:
                with Image.open(kinds[".png"]) as picture:
                    made["width"], made["height"] = picture.size
                    made["drawn"] = round(96 * picture.width / picture.info.get("dpi", (96,))[0])
            except OSError:
                made["title"] += " (not readable)"
        texts = "; ".join(_drawn(kinds[".svg"])) if ".svg" in kinds else ""
        place = f"Notebook {made['number']}, {made['section'] or made['notebook']}" if made["notebook"] else ""
        parts = (f"Plot: {made['title']}", place, textwrap.shorten(texts, WORDS, placeholder=" …"))
        found.append(made | {"alt": ". ".join(filter(None, parts))})
    return found


# Index and summary ----------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def markdown_rows(rows: Iterable[Mapping]) -> list[str]:
    rows = [{k: v if isinstance(v, str) else f"{v:.4g}" if v == v else NONE for k, v in row.items()} for row in rows]
    head = [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"] if rows else []
    return [*head, *(f"| {' | '.join(row.values())} |" for row in rows)]


def _facts(folder: Path, notebooks: Path) -> dict:
    """What both pages say of the notebooks in `folder`/notebooks.

    names   of all, in reading order   ran       {name: the notebook as a run left it}; runs: its `metadata.coseg`
    failed  names                      slowest   [{name, cell, duration, line}], of cells that took a second or more
    state   a line                     machines  [line]
    """
    names = [path.stem for path in selected((), notebooks)]
    left = {name: folder / "notebooks" / f"{name}.ipynb" for name in names}
    read = {name: nbformat.read(file, as_version=4) for name, file in left.items() if file.is_file()}
    ran = {name: notebook for name, notebook in read.items() if notebook.metadata.get("coseg")}
    runs = {name: notebook.metadata["coseg"] for name, notebook in ran.items()}
    failed = [name for name, about in runs.items() if about["error"]]
    state = f"{len(runs) - len(failed)} of {len(names)} notebooks ran"
    for what, some in (("failed", failed), ("not run", [name for name in names if name not in ran])):
        state += f"; {what}: {', '.join(some)}" if some else ""
    state += f"; {duration(sum(about['seconds'] for about in runs.values()))} in all"
    cells = [{"name": name, **cell} for name, about in runs.items() for cell in about["slowest"]]
    slowest = [{**cell, "duration": duration(cell["seconds"])} for cell in cells if cell["seconds"] >= 1]
    machines = list(dict.fromkeys(f"{a['machine']}; {a['versions']}" for a in runs.values()))
    found = {"names": names, "ran": ran, "runs": runs, "failed": failed}
    return found | {"state": state, "slowest": slowest, "machines": machines}


def summary(profile: str, folder: Path, notebooks: Path = NOTEBOOKS) -> str:
    """Markdown, from the notebooks in `folder`/notebooks as they ran: status, durations, errors, seeds, machine.

    And from the tables: what the benchmarks come to (`benchmark_figures`), and what made each table (`origins`).
    """
    facts = _facts(folder, notebooks)
    runs = facts["runs"]
    lines = [
        f"# Report, profile `{profile}`",
        "",
        f"{facts['state']}. Made by `coseg report --profile {profile}`, which leaves each notebook as it ran, and a "
        "page of it, in `notebooks/`, and all of this in `index.html`.",
        "",
    ]
    status = [
        {"notebook": name, "status": "FAILED" if about["error"] else "ok", "duration": duration(about["seconds"])}
        | {"seeds": about["seeds"] or NONE, "date": about["date"], "code": about["commit"]}
        for name, about in runs.items()
    ]
    lines += markdown_rows(status)
    chapters = {
        "What failed": [f"- `{name}`: {runs[name]['error']}" for name in facts["failed"]],
        "J by partner, under protocol `common`": markdown_rows(benchmark_figures(folder).to_dict("records")),
        "Slowest cells": [f"- `{c['name']}` [{c['cell']}] {c['duration']}: `{c['line']}`" for c in facts["slowest"]],
    }
    files = [f"{part}/{p.name}" for part in ("tables", "plots") for p in sorted((folder / part).glob("*"))]
    chapters["Tables and plots"] = [f"- [{p}]({p})" for p in files]
    if made_by := markdown_rows(origins(folder, runs)):
        unnamed = "Checkpoints without a name were trained by the notebook itself, or are floors."
        chapters["What made each table"] = [*made_by, "", unnamed]
    for heading, said in chapters.items():
        lines += ["", f"## {heading}", "", *said] if said else []
    lines += ["", "## Where it ran", "", *(f"- {line}" for line in facts["machines"])]
    return "\n".join(lines) + "\n"


def page(profile: str, folder: Path, notebooks: Path = NOTEBOOKS) -> str:
    """index.html: what `summary` says, with the tables and the plots themselves."""
    facts = _facts(folder, notebooks)
    rows = []
    for name in facts["names"]:
        about = facts["runs"].get(name)
        notebook = facts["ran"].get(name) or nbformat.read(notebooks / f"{name}.ipynb", as_version=4)
        row = {"name": name, "title": title(notebook, name), "ran": about}
        row["duration"] = duration(about["seconds"]) if about else ""
        for key, file in (("page", f"notebooks/{name}.html"), ("source", f"notebooks/{name}.ipynb")):
            row[key] = quote(file) if (folder / file).is_file() else ""
        rows.append(row)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    shown = {name: facts[name] for name in ("state", "slowest", "machines")}
    shown |= {"notebooks": rows, "failed": [row for row in rows if row["name"] in facts["failed"]]}
    shown |= {"tables": _tables(folder, facts["ran"]), "plots": _plots(folder, facts["ran"])}
    return environment.get_template("report.html.j2").render(profile=profile, **shown)
