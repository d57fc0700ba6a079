"""What a report shows, from the notebooks as they ran: each as a page, and index.html and summary.md of them all.

These two open with what was found, see `findings`; then come the notebooks, and folded the rest. Pages open from disk,
without a network. Their looks are in `templates/report.html.j2` (plain HTML and CSS: phone, desktop, print, light and
dark) and `templates/notebook.html.j2` (nbconvert's page, with a table of contents).
"""

import copy
import html
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping
from itertools import chain, count
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
from coseglib.core.paths import NOTEBOOKS
from coseglib.core.tables import read_table
from coseglib.evaluation.systems import NONE
from coseglib.report import findings
from coseglib.report.notebooks import selected, tags_of

TEMPLATES = Path(__file__).with_name("templates")
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_WIDGET = "<p><em>Here stands a page that answers. It needs JupyterLab: open this notebook there and run it.</em></p>"
STILL = '<p><em>A still picture of it:</em></p><img src="data:image/png;base64,{}" alt="A still picture of the page">'
HEADLINES = 6  # at the head of the report
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


def _anchor(words: str) -> str:
    """The id of a heading, as nbconvert and JupyterLab make it, escaped for an attribute."""
    return html.escape(quote(words.replace(" ", "-"), safe="?/:@!$&'()*+,;="), quote=False)


class _Renderer(IPythonRenderer):
    """Formulas that browsers draw; headings of level 2, and those of level 3 below them, go to `chapters` as well.

    anchors  of the page so far: a heading whose words stood there before has a number at its anchor's end
    """

    def __init__(self, chapters: list[dict], anchors: set[str], **options):
        super().__init__(**options)
        self.chapters, self.anchors = chapters, anchors

    def heading(self, text: str, level: int, **attrs) -> str:
        # not nbconvert's, which reads it as XML: it gives formulas a prefix, and other HTML no anchor
        words = html.unescape(re.sub("<[^>]*>", "", text))
        named = chain([words], (f"{words}-{number}" for number in count(2)))
        anchor = next(name for name in map(_anchor, named) if name not in self.anchors)
        self.anchors.add(anchor)
        if level in (2, 3):
            above = self.chapters[-1]["below"] if level == 3 and self.chapters else self.chapters
            above.append({"anchor": anchor, "text": re.sub("<(?!/?m)[^>]*>", "", text), "below": []})  # m: MathML
        link = f'<a class="anchor-link" href="#{anchor}">¶</a>'
        return f'<h{level} id="{anchor}">{text}{link}</h{level}>\n'

    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_math(self, body: str) -> str:
        return formula(body, "block")


class _Exporter(HTMLExporter):
    """nbconvert's pages with formulas that need no script from the network, and a table of contents."""

    @pass_context
    def markdown2html(self, context, source: str) -> str:
        options = {"attachments": context.get("cell", {}).get("attachments", {}), "escape": False}
        known = (context["resources"][name] for name in ("chapters", "anchors"))
        return MarkdownWithMath(renderer=_Renderer(*known, **options)).render(source)


def _still(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy in which a sentence stands for each widget: without a kernel it would not move, nor be drawn offline.

    Below it stands what a cell tagged `picture` draws.
    """
    still = copy.deepcopy(notebook)
    still.metadata.pop("widgets", None)
    drawn = [o for c in still.cells if findings.PICTURE in tags_of(c) for o in c.get("outputs", [])]
    picture = next((o.data["image/png"] for o in drawn if "image/png" in o.get("data", {})), "")
    shown = NO_WIDGET + (STILL.format(picture) if picture else "")
    for cell in still.cells:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output.data = nbformat.from_dict({"text/html": shown})
    return still


def _describe(notebook: nbformat.NotebookNode, name: str) -> None:
    """Each picture without a text for those who do not see it gets the heading above it. Changed in place."""
    for place, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                about = output.metadata.setdefault("image/png", nbformat.NotebookNode())
                about.setdefault("alt", f"Plot: {_heading_above(notebook, place) or title(notebook, name)}")


def notebook_page(notebook: nbformat.NotebookNode, name: str, profile: str) -> str:
    """HTML of a notebook as it ran, with a table of contents and a link to the report's index."""
    exporter = _Exporter(template_file=str(TEMPLATES / "notebook.html.j2"))
    about = {"metadata": {"name": title(notebook, name)}, "profile": profile, "chapters": [], "anchors": set()}
    still = _still(notebook)
    _describe(still, name)
    return exporter.from_notebook_node(still, about)[0]


def _headings(cell: nbformat.NotebookNode) -> list[tuple[int, str]]:
    """(level, text) of a text cell's headings; lines inside ``` are none."""
    lines = re.sub(r"^```.*?^```", "", cell.source, flags=re.DOTALL | re.MULTILINE).splitlines()
    found = (re.match(r"(#{1,6})\s+(.*\S)", line) for line in lines)
    return [(len(m[1]), m[2]) for m in found if m]


def title(notebook: nbformat.NotebookNode, name: str) -> str:
    """A notebook's first heading of level 1, else its name."""
    texts = [c for c in notebook.cells if c.cell_type == "markdown"]
    return next((text for c in texts for level, text in _headings(c) if level == 1), name)


def _heading_above(notebook: nbformat.NotebookNode, place: int) -> str:
    headings = (h for cell in notebook.cells[:place] if cell.cell_type == "markdown" for h in _headings(cell))
    return [text for _, text in [(0, ""), *headings]][-1]


def _line(text: str) -> Markup:
    """HTML of a sentence in Markdown: its code and formulas."""
    shown = MarkdownWithMath(renderer=_Renderer([], set(), escape=True)).render(text).strip()
    return Markup(shown.removeprefix("<p>").removesuffix("</p>"))


# Tables and plots -----------------------------------------------------------------------------------------------------


def _made(part: str, folder: Path, read: dict[str, nbformat.NotebookNode], suffixes: Collection[str] = ()):
    """Of the files of one name in `folder`/`part`: what is said of them, who made them among it, and {suffix: path}."""
    files: dict[str, dict[str, Path]] = {}
    for path in sorted((folder / part).glob("[!.]*")):
        if not suffixes or path.suffix in suffixes:
            files.setdefault(path.stem, {})[path.suffix] = path
    word = "save_figure" if part == "plots" else ""
    where = {name: findings.places(notebook, files, word) for name, notebook in read.items()}
    for stem, paths in files.items():
        words = re.sub(r"^\d\d_", "", stem).replace("_", " ")  # "02_mean_or_minimum" -> "Mean or minimum"
        name = next((n for n in read if n[:3] == stem[:3]), "")
        section = _heading_above(read[name], where[name].get(stem, 0)) if name else ""
        about = {"id": f"{part[:-1]}-{stem}", "stem": stem, "title": words[:1].upper() + words[1:], "notebook": name}
        links = [(s.lstrip(".").upper() or p.name, quote(f"{part}/{p.name}")) for s, p in paths.items()]
        about["place"] = f"Notebook {name[:2]}, {section or title(read[name], name)}" if name else ""
        yield about | {"href": _address(folder, name, section), "files": links}, paths


def _address(folder: Path, name: str, section: str) -> str:
    """Of a notebook's page, and of the heading there; "" where there is no page."""
    if not (page := folder / "notebooks" / f"{name}.html").is_file():
        return ""
    known = section and f'id="{_anchor(section)}"' in page.read_text(encoding="utf-8")
    return quote(f"notebooks/{name}.html") + (f"#{html.unescape(_anchor(section))}" if known else "")


def _as_numbers(column: pd.Series) -> pd.Series:
    """A column of a table as it is to be shown: of numbers where it holds nothing else and does not name things."""
    known = column[column != ""]
    names = re.search(r"checkpoint|sha(256)?$|key|recipe|code|^(group|name|photo|dataset)$", column.name)
    if names or known.empty or known.str.match(r"-?0\d").any():
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


def _tables(folder: Path, read: dict[str, nbformat.NotebookNode]):
    for made, paths in _made("tables", folder, read):
        try:
            yield made | (shown_table(paths[".csv"]) if ".csv" in paths else {"columns": [], "why": "no CSV"})
        except CosegError as error:
            yield made | {"columns": [], "why": f"not readable as a table ({' '.join(str(error).split())})"}


def _plots(folder: Path, read: dict[str, nbformat.NotebookNode]) -> list[dict]:
    found = []
    for made, kinds in _made("plots", folder, read, PICTURES):
        shown, large, texts = kinds.get(".png", kinds.get(".svg")), kinds.get(".svg", kinds.get(".png")), ""
        made |= {"large": quote(f"plots/{large.name}"), "shown": quote(f"plots/{shown.name}")}
        made |= dict.fromkeys(("width", "height", "drawn"), 0)  # drawn: its width in CSS pixels, 96 an inch
        if ".png" in kinds:
            try:
                with Image.open(kinds[".png"]) as picture:
                    made["width"], made["height"] = picture.size
                    made["drawn"] = round(96 * picture.width / picture.info.get("dpi", (96,))[0])
                    texts = textwrap.shorten(picture.info.get("Description", ""), WORDS, placeholder=" …")
            except OSError:
                made["title"] += " (not readable)"
        parts = (f"Plot: {made['title']}", made["place"], texts)
        found.append(made | {"alt": ". ".join(filter(None, parts))})
    return found


# Index and summary ----------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def markdown_rows(rows: Iterable[Mapping]) -> list[str]:
    rows = [{k: v if isinstance(v, str) else f"{v:.4g}" if v == v else NONE for k, v in row.items()} for row in rows]
    head = [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"] if rows else []
    return [*head, *(f"| {' | '.join(row.values())} |" for row in rows)]


def _about(name: str, notebook: nbformat.NotebookNode, folder: Path, plots: dict[str, dict]) -> dict:
    """What both pages say of one notebook: as it ran, or as it is in the repository where it did not."""
    ran = notebook.metadata.get("coseg")
    stem, tagged = findings.picture(notebook, plots)
    row = {"name": name, "title": title(notebook, name), "ran": ran, "picture": plots.get(stem), "tagged": tagged}
    row["state"] = "not run" if not ran else f"FAILED: {ran['error']}" if ran["error"] else ""
    row["line"] = " ".join(findings.printed(notebook, findings.FINDING)) or findings.question(notebook)
    row["headlines"] = findings.printed(notebook, findings.FINDING, findings.HEADLINE)
    for key, file in (("page", f"notebooks/{name}.html"), ("source", f"notebooks/{name}.ipynb")):
        row[key] = quote(file) if (folder / file).is_file() else ""
    return row


def _facts(folder: Path, notebooks: Path) -> dict:
    """What both pages say, from the notebooks in `folder`/notebooks as they ran and from what lies beside them.

    headlines  [(sentence, `_about` its notebook)]     picture  of the plots the one on top, or None
    """
    read = {}
    for path in selected((), notebooks):
        file = folder / "notebooks" / path.name
        read[path.stem] = nbformat.read(file if file.is_file() else path, as_version=4)
    ran = {name: notebook.metadata["coseg"] for name, notebook in read.items() if "coseg" in notebook.metadata}
    tables, plots = list(_tables(folder, read)), _plots(folder, read)
    rows = [_about(name, notebook, folder, {p["stem"]: p for p in plots}) for name, notebook in read.items()]
    facts = {"notebooks": rows, "tables": tables, "plots": plots, "systems": findings.benchmark_figures(folder)}
    facts["headlines"] = [(text, row) for row in rows for text in row["headlines"]][:HEADLINES]
    facts["picture"] = next((row["picture"] for row in rows if row["tagged"]), plots[0] if plots else None)
    facts["slowest"] = [{"name": n, **c} for n, about in ran.items() for c in about["slowest"] if c["seconds"] >= 1]
    facts["machines"] = list(dict.fromkeys(f"{a['machine']}; {a['versions']}" for a in ran.values()))
    return facts | {"origins": findings.origins(folder, ran)}


def pages(profile: str, folder: Path, notebooks: Path = NOTEBOOKS) -> dict[str, str]:
    """{"summary.md": …, "index.html": …}: what was found, systems, notebooks; folded the tables, plots and timings."""
    how = {"trim_blocks": True, "undefined": StrictUndefined, "autoescape": lambda name: ".html" in name}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), **how)
    environment.filters |= {"line": _line, "duration": duration, "rows": lambda rows: "\n".join(markdown_rows(rows))}
    facts = {"profile": profile, "none": NONE, **_facts(folder, notebooks)}
    made = (("summary.md", "summary.md.j2"), ("index.html", "report.html.j2"))
    return {name: environment.get_template(template).render(facts) for name, template in made}
