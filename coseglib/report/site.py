"""Pages to read in a browser, from disk and without a network: a report's index.html, a notebook with its contents.

The looks are in `templates/report.html.j2` (plain HTML and CSS: phone, desktop, print, light and dark) and
`templates/notebook.html.j2` (nbconvert's page, with a table of contents). What is linked from the index lies beside it.
"""

import copy
import html
import re
from pathlib import Path
from urllib.parse import quote

import nbformat
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from latex2mathml.converter import convert as mathml
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image

from coseglib.core.errors import CosegError
from coseglib.core.tables import read_table

TEMPLATES = Path(__file__).with_name("templates")
ROWS, COLUMNS = 40, 24  # of a table, on the page; its CSV has all
WORDS = 160  # characters of a plot's own text that its description repeats
PICTURES = (".png", ".svg")
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_WIDGET = "<p><em>Here stands a page that answers. It needs JupyterLab: open this notebook there and run it.</em></p>"


def contents(page: str) -> str:
    """A list of links to a page's headings of levels 2 and 3, as nbconvert writes them; "" where there are none."""
    chapters: list[tuple[str, list[str]]] = []
    for level, anchor, inner in re.findall(r'<h([23]) id="([^"]*)">(.*?)<a class="anchor-link"', page, re.DOTALL):
        link = f'<a href="#{anchor}">{re.sub("<[^>]*>", "", inner).strip()}</a>'
        if level == "3" and chapters:
            chapters[-1][1].append(f"<li>{link}</li>")
        else:
            chapters.append((link, []))
    items = [f"<li>{link}" + (f"<ol>{''.join(below)}</ol>" if below else "") + "</li>" for link, below in chapters]
    return f"<details open><summary>Contents</summary><ol>{''.join(items)}</ol></details>" if items else ""


def formula(tex: str, display: str = "inline") -> str:
    """MathML, which browsers draw themselves; the TeX as code where it cannot be read. display: "inline" or "block"."""
    try:
        return mathml(tex, display=display)
    except Exception:  # it has a class for each fault, and others for those that it did not think of
        return f"<code>{html.escape(tex)}</code>"


class _Renderer(IPythonRenderer):
    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_math(self, body: str) -> str:
        return formula(body, "block")


class _Exporter(HTMLExporter):
    """nbconvert's pages with formulas that need no script from the network."""

    @pass_context
    def markdown2html(self, context, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=False, attachments=attachments, anchor_link_text=self.anchor_link_text)
        return MarkdownWithMath(renderer=renderer).render(source)


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
    page, _ = exporter.from_notebook_node(
        _still(notebook), {"metadata": {"name": title(notebook, name)}, "profile": profile}
    )
    return page.replace("<!--contents-->", contents(page), 1)


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


def _words(name: str) -> str:
    """ "02_mean_or_minimum" -> "Mean or minimum"."""
    text = re.sub(r"^\d\d_", "", name).replace("_", " ")
    return text[:1].upper() + text[1:]


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


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _as_numbers(column: pd.Series) -> pd.Series:
    """A column of a table as it is to be shown: of numbers where it holds nothing else and does not name things."""
    known = column[column != ""]
    if re.search(r"checkpoint|sha|key|recipe|code|^(group|name|photo|dataset)$", column.name) or known.empty:
        return column
    if known.str.match(r"-?0\d").any():
        return column
    numbers = pd.to_numeric(known, errors="coerce")
    return column if numbers.isna().any() else numbers.reindex(column.index)


def table_html(file: Path) -> tuple[str, tuple[int, int]]:
    """(head and body of a CSV's first `ROWS` rows and `COLUMNS` columns, how many of both there are).

    Columns of numbers are of class "number".

    Names and checksums stay text, such as look like a number too. Raises CosegError where it cannot be read.
    """
    table = read_table(file, {})
    if table.columns.empty:
        raise CosegError(f"{file}: is empty")
    size, table = table.shape, table.iloc[:, :COLUMNS].apply(_as_numbers)
    numbers = [pd.api.types.is_numeric_dtype(t) for t in table.dtypes]
    text = table.head(ROWS).to_html(index=False, border=0, na_rep="–", float_format=_number, justify="unset")
    inside = text[text.index(">") + 1 : text.rindex("</table>")]
    inside = inside.replace(' style="text-align: unset;"', "")
    classes = [' class="number"' if n else "" for n in numbers]
    for plain, marked in (("<th>", '<th scope="col"{}>'), ("<td>", "<td{}>")):
        first, *rest = inside.split(plain)
        inside = first + "".join(marked.format(classes[i % len(classes)]) + part for i, part in enumerate(rest))
    return inside, size


def _tables(folder: Path, ran: dict[str, nbformat.NotebookNode]) -> list[dict]:
    files: dict[str, list[Path]] = {}
    for path in sorted((folder / "tables").glob("[!.]*")):
        files.setdefault(path.stem, []).append(path)
    found = []
    for stem, paths in files.items():
        made = {"id": f"table-{stem}", "title": _words(stem), **_origin(stem, ran, folder), "html": "", "cut": ""}
        made["files"] = [(p.suffix.lstrip(".").upper() or p.name, quote(f"tables/{p.name}")) for p in paths]
        made["why"] = "no CSV"
        source = next((p for p in paths if p.suffix == ".csv"), None)
        if source:
            try:
                text, size = table_html(source)
                parts = zip(size, (ROWS, COLUMNS), ("rows", "columns"), strict=True)
                told = [f"the first {most} of {n:,} {what}" for n, most, what in parts if n > most]
                made.update(html=Markup(text), cut=", ".join(told))
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
    files: dict[str, dict[str, Path]] = {}
    for path in sorted((folder / "plots").glob("[!.]*")):
        if path.suffix in PICTURES:
            files.setdefault(path.stem, {})[path.suffix] = path
    found = []
    for stem, kinds in files.items():
        made = {"id": f"plot-{stem}", "title": _words(stem), **_origin(stem, ran, folder), "width": 0, "height": 0}
        made["files"] = [(k.lstrip(".").upper(), quote(f"plots/{p.name}")) for k, p in kinds.items()]
        large, shown = kinds.get(".svg", kinds.get(".png")), kinds.get(".png", kinds.get(".svg"))
        made.update(large=quote(f"plots/{large.name}"), shown=quote(f"plots/{shown.name}"))
        if ".png" in kinds:
            try:
                with Image.open(kinds[".png"]) as picture:
                    made["width"], made["height"] = picture.size
            except OSError:
                made["title"] += " (not readable)"
        texts = _drawn(kinds[".svg"]) if ".svg" in kinds else []
        place = f"Notebook {made['number']}, {made['section'] or made['notebook']}" if made["notebook"] else ""
        made["alt"] = ". ".join(filter(None, (f"Plot: {made['title']}", place, _shortened("; ".join(texts)))))
        found.append(made)
    return found


def _shortened(text: str) -> str:
    return text if len(text) <= WORDS else f"{text[:WORDS].rsplit(' ', 1)[0]} …"


def index(folder: Path, facts: dict, ran: dict[str, nbformat.NotebookNode], waiting: dict[str, str]) -> str:
    """The page of a report.

    folder   reports/<profile>, with notebooks/, tables/ and plots/
    facts    profile, state (a line), durations {name: text}, slowest [{name, cell, duration, line}], machines [line]
    ran      name -> the notebook as it ran, with metadata.coseg; waiting: name -> title of those that have not
    """
    notebooks = []
    for name in sorted((*ran, *waiting)):
        about = ran[name].metadata["coseg"] if name in ran else None
        links = {
            key: quote(f"notebooks/{name}{suffix}") if (folder / "notebooks" / f"{name}{suffix}").is_file() else ""
            for key, suffix in (("page", ".html"), ("source", ".ipynb"))
        }
        shown = title(ran[name], name) if about else waiting[name]
        duration = facts["durations"].get(name, "")
        notebooks.append({"name": name, "title": shown, "ran": about, "duration": duration, **links})
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2").render(
        profile=facts["profile"],
        state=facts["state"],
        slowest=facts["slowest"],
        machines=facts["machines"],
        notebooks=notebooks,
        failed=[n for n in notebooks if n["ran"] and n["ran"]["error"]],
        tables=_tables(folder, ran),
        plots=_plots(folder, ran),
    )
