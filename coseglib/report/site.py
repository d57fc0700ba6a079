"""Pages to read in a browser, from disk and without a network: a report's index.html, a notebook with its contents.

The looks are in `templates/report.html.j2` (plain HTML and CSS: phone, desktop, print, light and dark) and
`templates/notebook.html.j2` (nbconvert's page, with a table of contents). What is linked from the index lies beside it.
"""

import copy
import html
import re
import textwrap
from collections.abc import Collection
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
from coseglib.core.tables import read_table

TEMPLATES = Path(__file__).with_name("templates")
ROWS, COLUMNS = 40, 24  # of a table, on the page; its CSV has all
WORDS = 160  # characters of a plot's own text that its description repeats
PICTURES = (".png", ".svg")
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_WIDGET = "<p><em>Here stands a page that answers. It needs JupyterLab: open this notebook there and run it.</em></p>"


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


def _made(part: str, folder: Path, ran: dict[str, nbformat.NotebookNode], suffixes: Collection[str] = ()):
    """What is said of the files of one name in `folder`/`part`, and these: ({id, title, …}, {suffix: path})."""
    files: dict[str, dict[str, Path]] = {}
    for path in sorted((folder / part).glob("[!.]*")):
        if not suffixes or path.suffix in suffixes:
            files.setdefault(path.stem, {})[path.suffix] = path
    for stem, paths in files.items():
        about = {"id": f"{part[:-1]}-{stem}", "title": _words(stem), **_origin(stem, ran, folder)}
        links = [(s.lstrip(".").upper() or p.name, quote(f"{part}/{p.name}")) for s, p in paths.items()]
        yield about | {"files": links}, paths


def _tables(folder: Path, ran: dict[str, nbformat.NotebookNode]) -> list[dict]:
    found = []
    for made, paths in _made("tables", folder, ran):
        made |= {"columns": [], "why": "no CSV"}
        try:
            found.append(made | (shown_table(paths[".csv"]) if ".csv" in paths else {}))
        except CosegError as error:
            found.append(made | {"why": f"not readable as a table ({' '.join(str(error).split())})"})
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
        made |= {"large": quote(f"plots/{large.name}"), "shown": quote(f"plots/{shown.name}"), "width": 0, "height": 0}
        if ".png" in kinds:
            try:
                with Image.open(kinds[".png"]) as picture:
                    made["width"], made["height"] = picture.size
            except OSError:
                made["title"] += " (not readable)"
        texts = "; ".join(_drawn(kinds[".svg"])) if ".svg" in kinds else ""
        place = f"Notebook {made['number']}, {made['section'] or made['notebook']}" if made["notebook"] else ""
        parts = (f"Plot: {made['title']}", place, textwrap.shorten(texts, WORDS, placeholder=" …"))
        found.append(made | {"alt": ". ".join(filter(None, parts))})
    return found


def index(
    folder: Path,
    ran: dict[str, nbformat.NotebookNode],
    waiting: dict[str, str],
    durations: dict[str, str],
    **facts: object,
) -> str:
    """The page of a report.

    folder     reports/<profile>, with notebooks/, tables/ and plots/
    ran        name -> the notebook as it ran, with metadata.coseg; waiting: name -> title of those that have not
    durations  name -> text
    facts      profile, state (a line), slowest [{name, cell, duration, line}], machines [line]
    """
    notebooks = []
    for name in sorted((*ran, *waiting)):
        links = {
            key: quote(f"notebooks/{name}{suffix}") if (folder / "notebooks" / f"{name}{suffix}").is_file() else ""
            for key, suffix in (("page", ".html"), ("source", ".ipynb"))
        }
        about = ran[name].metadata["coseg"] if name in ran else None
        shown = title(ran[name], name) if about else waiting[name]
        notebooks.append({"name": name, "title": shown, "ran": about, "duration": durations.get(name, ""), **links})
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    failed = [n for n in notebooks if n["ran"] and n["ran"]["error"]]
    about = {"notebooks": notebooks, "failed": failed, "tables": _tables(folder, ran), "plots": _plots(folder, ran)}
    return environment.get_template("report.html.j2").render(**facts, **about)
