import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from coseglib.figures import save_figure
from coseglib.report import run as report
from coseglib.report import site
from coseglib.report.site import COLUMNS, ROWS

ABOUT = {
    "profile": "smoke",
    "date": "2026-01-31",
    "commit": "abc1234",
    "versions": "Python 3.11, torch 2",
    "machine": "Linux, a processor, 2 cores, no GPU",
    "parameters": {},
    "seeds": "seed = 7",
    "seconds": 64.0,
    "error": "",
    "slowest": [{"cell": 4, "seconds": 60.0, "line": "train(model, '<b>')"}],
}
VOID = {"meta", "link", "img", "br", "hr", "input", "circle", "path", "use", "rect"}


class Page(HTMLParser):
    """Tags that are open at the end or closed out of turn, ids, addresses, pictures."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.faults, self.ids, self.addresses, self.pictures = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        self.addresses += [given[name] for name in ("href", "src") if given.get(name)]
        if tag == "img":
            self.pictures.append(given)

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.faults.append(tag)


def _notebook(name, cells, about):
    notebook = new_notebook(cells=[new_markdown_cell(c) if c.startswith("#") else new_code_cell(c) for c in cells])
    if about is not None:
        notebook.metadata["coseg"] = ABOUT | about
    return notebook


def make_report(home: Path) -> tuple[Path, Path]:
    """A made-up report of three notebooks, one failed and one not run, with tables and plots; and its notebooks."""
    source, folder = home / "notebooks", home / "reports" / "smoke"
    for part in (source, *(folder / p for p in ("notebooks", "tables", "plots"))):
        part.mkdir(parents=True)
    saves = (
        'save_figure(fig, folder / "02_curve")',
        'table.to_csv(folder / "02_methods.csv")',
    )
    cells = ["# Attention & more: a < b", "## Training", saves[0], "### What's in it?", "## The table", saves[1]]
    notebooks = {
        "02_attention": (cells, {}),
        "03_modulation": (["# Modulation", "1 / 0"], {"error": "cell [1]: ZeroDivisionError: <zero>", "seconds": 300}),
        "04_correlation": (["# Correlation", "1"], None),
    }
    for name, (texts, about) in notebooks.items():
        nbformat.write(_notebook(name, texts, None), source / f"{name}.ipynb")
        if about is not None:
            ran = _notebook(name, texts, about)
            nbformat.write(ran, folder / "notebooks" / f"{name}.ipynb")
            page = site.notebook_page(ran, name, "smoke")
            (folder / "notebooks" / f"{name}.html").write_text(page, encoding="utf-8")
    tables = folder / "tables"
    head = 'system,start,steps,side,seed,images,P,J,"J, wrong group",protocol,checkpoint,source\n'
    rows = [f"CA {i},random,60,64,0,1096,0.9{i},0.{i}2345678,0.1,common,4{i}e51085,ours\n" for i in range(3)]
    (tables / "02_methods.csv").write_text(head + "".join(rows))
    (tables / "02_methods.md").write_text("| a |\n")
    (tables / "03_long.csv").write_text("n,what\n" + "".join(f"{i},<i>\n" for i in range(ROWS + 5)))
    wide = [",".join(f"{name}{i}" for i in range(COLUMNS + 9)) for name in ("c", "")]
    (tables / "03_wide.csv").write_text("\n".join(wide))
    (tables / "03_empty.csv").write_text("")
    (tables / "other.txt").write_text("text")
    fig, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    axes.plot([0.9, 0.5, 0.4], label="CA")
    axes.set(xlabel="step", ylabel="loss")
    fig.suptitle("The loss falls, then stays")
    save_figure(fig, folder / "plots" / "02_curve")
    axes.set_title("a wide one")
    fig.set_size_inches(9, 2)
    save_figure(fig, folder / "plots" / "03_wide")
    plt.close(fig)
    (folder / "plots" / "03_wide.svg").unlink()
    (folder / "plots" / "notes.txt").write_text("no picture")
    return folder, source


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, notebooks = make_report(tmp_path_factory.mktemp("site"))
    (folder / "summary.md").write_text(report.summary("smoke", folder, notebooks))
    text = report.page("smoke", folder, notebooks)
    (folder / "index.html").write_text(text, encoding="utf-8")
    return folder, text


def _between(text, start, end):
    return text.split(start, 1)[1].split(end, 1)[0]


def test_the_page_is_well_formed_and_everything_it_names_lies_beside_it(made):
    folder, text = made
    page = Page(text)
    assert page.open == [] and page.faults == []
    assert len(page.ids) == len(set(page.ids))
    for address in page.addresses:
        path, _, anchor = address.partition("#")
        assert not re.match(r"\w+:|//", address), address  # nothing is fetched from anywhere
        assert not path or (folder / path).is_file(), address
        if anchor:
            assert f'id="{anchor}"' in (text if not path else (folder / path).read_text(encoding="utf-8")), address
    assert "@import" not in text and "url(" not in text and "<script" not in text


def test_the_page_says_of_the_notebooks_what_the_summary_says(made):
    folder, text = made
    summary = (folder / "summary.md").read_text()
    state = "1 of 3 notebooks ran; failed: 03_modulation; not run: 04_correlation; 6.1 min in all"
    assert state in summary and state in text
    row = _between(text, "02_attention.html", "</tr>")
    for value in ("Attention &amp; more: a &lt; b", ">ok<", ">64 s<", ">seed = 7<", ">2026-01-31<", ">abc1234<"):
        assert value in row
    assert ">FAILED<" in _between(text, "03_modulation.html", "</tr>")
    assert ">not run<" in _between(text, "<small>04_correlation", "</tr>") and ">Correlation<" in text
    assert "cell [1]: ZeroDivisionError: &lt;zero&gt;" in text
    assert "02_attention [4], 60 s: <code>train(model, &#39;&lt;b&gt;&#39;)</code>" in text
    assert "Linux, a processor, 2 cores, no GPU; Python 3.11, torch 2" in text


def test_tables_are_rendered_with_captions_numbers_rounded_and_checksums_left_alone(made):
    _, text = made
    table = _between(text, 'id="table-02_methods"', "</table>")
    assert "<strong>Methods</strong>" in table and "Notebook 02, The table" in table
    assert 'href="notebooks/02_attention.html#The-table"' in table
    assert 'href="tables/02_methods.csv">CSV<' in table and 'href="tables/02_methods.md">MD<' in table
    assert '<th scope="col" class="number">J</th>' in table and '<th scope="col">checkpoint</th>' in table
    assert '<td class="number">0.1235</td>' in table and "<td>41e51085</td>" in table
    long = _between(text, 'id="table-03_long"', "</table>")
    assert f"the first {ROWS} of {ROWS + 5} rows" in long and long.count("<tr>") == ROWS + 1
    wide = _between(text, 'id="table-03_wide"', "</table>")
    assert f"the first {COLUMNS} of {COLUMNS + 9} columns" in wide and wide.count("<th ") == COLUMNS
    assert "&lt;i&gt;" in long and "<i>" not in long
    assert "<h3>Empty</h3>" in text and "not readable as a table" in text
    assert 'href="tables/other.txt">TXT<' in text


def test_plots_have_a_size_and_a_text_that_says_what_they_show(made):
    _, text = made
    curve, wide = Page(text).pictures
    assert curve["alt"] == "Plot: Curve. Notebook 02, Training. The loss falls, then stays; step; loss"
    assert (curve["src"], curve["width"], curve["height"]) == ("plots/02_curve.png", "1000", "600")
    assert 'href="plots/02_curve.svg"><img' in text and 'href="plots/03_wide.png"><img' in text
    assert wide["alt"] == "Plot: Wide. Notebook 03, Modulation"
    assert "notes.txt" not in text


def test_a_report_without_anything_has_a_page_too(tmp_path):
    _, notebooks = make_report(tmp_path / "made")
    text = report.page("smoke", tmp_path / "nothing", notebooks)
    page = Page(text)
    assert page.open == [] and page.faults == [] and "0 of 3 notebooks ran" in text
    assert page.addresses == ["#main", "summary.md", "#notebooks"]


def test_a_notebooks_page_has_its_contents_and_a_way_back(made):
    folder, _ = made
    page = (folder / "notebooks" / "02_attention.html").read_text(encoding="utf-8")
    assert "<title>Attention &amp; more: a &lt; b</title>" in page
    links = re.findall(r'<a href="(#[^"]*)">([^<]*)</a>', _between(page, 'class="coseg-contents"', "</nav>"))
    assert links == [("#Training", "Training"), ("#What's-in-it?", "What's in it?"), ("#The-table", "The table")]
    assert '<ol><li><a href="#What\'s-in-it?">' in page
    assert all(f'id="{anchor[1:]}"' in page for anchor, _ in links)
    assert 'href="../index.html"' in page
    assert "require.min.js" not in page and "mermaid" not in page


def test_headings_in_fences_are_none_and_a_sentence_stands_for_a_widget():
    text = "## One\n\n```\n## not this\n```\n"
    widget = new_output("display_data", {site.WIDGET: {"model_id": "a"}, "text/plain": "VBox()"})
    cells = [new_markdown_cell(text), new_code_cell("page", outputs=[widget])]
    notebook = new_notebook(cells=cells, metadata={"widgets": {"a": {}}})
    assert site.title(notebook, "05_x") == "05_x"
    assert [t for _, t in site._headings(notebook.cells[0])] == ["One"]
    page = site.notebook_page(notebook, "05_x", "smoke")
    assert "It needs JupyterLab" in page and "not-this" not in page
    assert "http" not in " ".join(re.findall("<script[^>]*>", page)) and "VBox()" not in page
    assert site.WIDGET in notebook.cells[1].outputs[0].data  # the notebook itself keeps it
    bare = new_notebook(cells=[new_code_cell("1", outputs=[new_output("stream", text="1")])])
    assert "Contents</summary>" not in site.notebook_page(bare, "05_x", "smoke")


def test_formulas_are_drawn_by_the_browser_alone():
    text = "Inline $a_b < 1$, alone\n\n$$\\frac{1}{2}$$\n\nand `$x$` is code."
    page = site.notebook_page(new_notebook(cells=[new_markdown_cell(text)]), "00_a", "smoke")
    assert page.count("<math ") == 2 and len(re.findall('<math[^>]* display="block"', page)) == 1
    assert page.count("<msub>") == 1 and page.count("<mfrac>") == 1 and "<code>$x$</code>" in page
    assert not re.search(r'<script[^>]* src="http', page) and "mathjax" not in page.lower()
    assert site.formula(r"a < \frac") == r"<code>a &lt; \frac</code>"  # what cannot be read is shown as it is


def test_what_is_folded_in_the_notebook_is_folded_on_the_page():
    cells = [new_code_cell("shown = 1"), new_code_cell("solved = 1", metadata={"jupyter": {"source_hidden": True}})]
    page = site.notebook_page(new_notebook(cells=cells), "00_a", "smoke")
    folded = re.findall(r'<details class="coseg-folded">.*?</details>', page, re.DOTALL)
    assert len(folded) == 1 and "solved" in folded[0] and page.count("solved") == 1 and "shown" in page


def test_every_formula_of_the_notebooks_can_be_drawn():
    for path in report.selected():
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                for block, inline in re.findall(r"\$\$(.+?)\$\$|(?<![\\$`])\$([^$\n]+?)\$", cell.source, re.DOTALL):
                    drawn = site.formula(block or inline)
                    assert drawn.startswith("<math") and "\\" not in drawn, f"{path.name}: {block or inline}"


def test_a_third_level_before_any_second_stands_by_itself():
    text = "### first\n\n## x*y* < z\n\n### third\n\n# title\n"
    page = site.notebook_page(new_notebook(cells=[new_markdown_cell(text)]), "00_a", "smoke")
    assert _between(page, "</p>", "</nav>").strip() == (
        '<details open=""><summary>Contents</summary><ol><li><a href="#first">first</a></li>'
        '<li><a href="#xy-%3C-z">xy &lt; z</a><ol><li><a href="#third">third</a></li></ol></li></ol></details>'
    )
