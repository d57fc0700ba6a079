"""A notebook as a page to read in a browser, from disk and without a network: `templates/notebook.html.j2`."""

import copy
import html
import re
from pathlib import Path

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

TEMPLATES = Path(__file__).with_name("templates")
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


def sections(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """(heading above it, source) of every code cell."""
    above, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            above = next((text for _, text in reversed(_headings(cell))), above)
        elif cell.cell_type == "code":
            found.append((above, cell.source))
    return found
