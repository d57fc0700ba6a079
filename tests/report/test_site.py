import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import matplotlib.pyplot as plt
import nbformat
import pytest
from in_browser import size_in_browser
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from coseglib.core.paths import REPORTS
from coseglib.figures import save_figure
from coseglib.report import findings, site
from coseglib.report import run as report
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
TAGS = {  # of cells, by how they begin
    "save_figure(fig": ["picture"],
    'print(f"CA': ["finding", "headline"],
    'print(f"SSNM': ["finding"],
}
PRINTED = {"print": "CA reaches\n J `.5` of $a < b$.\n", "1 / 0": "nothing that is tagged"}
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


def _code(source):
    tags = next((tags for start, tags in TAGS.items() if source.startswith(start)), None)
    text = next((text for start, text in PRINTED.items() if source.startswith(start)), "")
    outputs = [new_output("stream", text=text)] if text else []
    return new_code_cell(source, metadata={"tags": tags} if tags else {}, outputs=outputs)


def _notebook(name, cells, about):
    notebook = new_notebook(cells=[new_markdown_cell(c) if c.startswith("#") else _code(c) for c in cells])
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
    asked = "# Correlation\n\n*A paper.*\n\n**The question.** In [notebook 02](02_attention.ipynb)\none is told. Why?"
    notebooks = {
        "02_attention": ([*cells, 'print(f"CA reaches J {j}.")'], {}),
        "03_modulation": (["# Modulation", "1 / 0"], {"error": "cell [1]: ZeroDivisionError: <zero>", "seconds": 300}),
        "04_correlation": ([asked, 'print(f"SSNM reaches J {j}.")'], None),
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
    pages = site.pages("smoke", folder, notebooks)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder, pages["index.html"]


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
    row = _between(text, 'scope="row">02_attention<', "</tr>")
    for value in (">ok<", ">64 s<", ">seed = 7<", ">2026-01-31<", ">abc1234<"):
        assert value in row
    assert ">FAILED<" in _between(text, 'scope="row">03_modulation<', "</tr>")
    assert "| 03_modulation | FAILED | 5.0 min | seed = 7 | 2026-01-31 | abc1234 |" in summary
    notebooks = _between(text, '<ul class="notebooks">', "</ul>")
    attention, modulation, correlation = notebooks.split("</li>")[:3]
    assert "Attention &amp; more: a &lt; b</a>" in attention and 'src="plots/02_curve.png"' in attention
    assert ">FAILED: cell [1]: ZeroDivisionError: &lt;zero&gt;<" in modulation
    assert ">not run<" in correlation and "In notebook 02 one is told." in correlation and "Why" not in correlation
    assert "- **Correlation** (`04_correlation`) **not run**. In notebook 02 one is told.\n" in summary
    assert "02_attention [4], 60 s: <code>train(model, &#39;&lt;b&gt;&#39;)</code>" in text
    assert "- `02_attention` [4] 60 s: `train(model, '<b>')`" in summary
    for page in (summary, text):
        assert "Linux, a processor, 2 cores, no GPU; Python 3.11, torch 2" in page


def test_both_pages_open_with_the_sentences_that_the_notebooks_printed(made):
    folder, text = made
    summary = (folder / "summary.md").read_text()
    top = _between(summary, "## What was found", "## ")
    assert "](plots/02_curve.png)" in top and "- CA reaches J `.5` of $a < b$. (`02_attention`)" in top
    found = _between(text, "What was found", "</section>")
    assert "CA reaches J <code>.5</code> of <math" in found and 'src="plots/02_curve.png"' in found
    assert "SSNM" not in text + summary  # of a notebook that was not run
    order = ["What was found", "## Notebooks", "<summary>Tables and plots", "<summary>Timings", "<summary>Where it ran"]
    assert sorted(order, key=summary.index) == order and summary.count("<details>") == summary.count("</details>") == 5
    order = ["What was found", ">Notebooks<", ">Tables and plots<", ">Timings<", ">What made each table<"]
    assert sorted(order, key=text.index) == order and "<details open" not in text


def test_the_plot_that_stands_for_a_notebook_is_the_tagged_one_else_the_last_that_it_saves():
    sources = [
        'save_figure(f, p / "02_a")',
        'save_figure(f, p / f"02_{n}")',
        'print("02_c")',
        'save_figure(f, "02_none")',
    ]
    notebook = new_notebook(cells=[new_code_cell(s) for s in sources])
    stems = ["02_a", "02_b", "02_c", "03_a"]
    assert findings.places(notebook, stems, "save_figure") == {"02_a": 0, "02_b": 1, "02_c": 1}
    assert findings.picture(notebook, ["02_a", "02_b"]) == ("02_b", False)
    notebook.cells[0].metadata["tags"] = ["picture"]
    assert findings.picture(notebook, stems) == ("02_a", True)
    assert findings.picture(notebook, ["03_a"]) == ("", False)
    drawn = 'for what in ["Swap"]:\n    save_figure(f, f"08_{what.lower()}")'
    notebook = new_notebook(cells=[new_code_cell(s) for s in ('save_figure(f, f"08_{name}")', drawn)])
    assert findings.places(notebook, ["08_msrc7", "08_swap"]) == {"08_msrc7": 0, "08_swap": 1}


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
    *_, curve, wide = Page(text).pictures
    assert curve["alt"] == "Plot: Curve. Notebook 02, Training. The loss falls, then stays; step; loss"
    assert (curve["src"], curve["width"], curve["height"]) == ("plots/02_curve.png", "720", "432")
    assert 'href="plots/02_curve.svg"><img' in text and 'href="plots/03_wide.png"><img' in text
    assert wide["alt"] == "Plot: Wide. Notebook 03, Modulation. The loss falls, then stays; a wide one; step; loss"
    assert "notes.txt" not in text


def test_what_is_folded_stays_folded_in_print(made):
    folder, text = made
    assert "<details" in text
    for page in (text, *(p.read_text() for p in (folder / "notebooks").glob("*.html"))):
        assert "details-content" not in page  # what a rule that opens them names


def test_what_the_committed_summary_links_to_is_committed_too():
    text = (REPORTS / "cpu" / "summary.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(((?:plots|tables)/[^)]+)\)", text))
    listed = subprocess.run(["git", "ls-files", "."], cwd=REPORTS / "cpu", capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git here")
    assert len(linked) > 100 and not {unquote(link) for link in linked} - set(listed.stdout.splitlines())


def test_a_report_without_anything_has_a_page_too(tmp_path):
    _, notebooks = make_report(tmp_path / "made")
    pages = site.pages("smoke", tmp_path / "nothing", notebooks)
    page = Page(pages["index.html"])
    assert page.open == [] and page.faults == [] and page.addresses == ["#main", "summary.md"]
    for text in pages.values():
        assert "0 of 3 notebooks ran" in text and "What was found" not in text and "<details" not in text


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
    assert "A still picture" not in page
    drawn = new_output("execute_result", {"image/png": "AAAA", "text/plain": "<Figure>"})
    cells.append(new_code_cell("fig", metadata={"tags": ["picture"]}, outputs=[drawn]))
    page = site.notebook_page(new_notebook(cells=cells), "05_x", "smoke")
    stands = _between(page, "It needs JupyterLab", "Out[")  # nothing else is between the sentence and its still
    assert "A still picture of it:" in stands and 'src="data:image/png;base64,AAAA"' in stands
    bare = new_notebook(cells=[new_code_cell("1", outputs=[new_output("stream", text="1")])])
    assert "Contents</summary>" not in site.notebook_page(bare, "05_x", "smoke")


def test_a_picture_in_a_notebook_has_the_heading_above_it_for_a_text():
    def drawing(**metadata):
        return new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"}, metadata=metadata)

    own = drawing(**{"image/png": {"alt": "its own", "width": 9}})
    cells = [
        new_code_cell("early", outputs=[drawing()]),
        new_markdown_cell('# Whole\n\n## What "a < b" says\n'),
        new_code_cell("two", outputs=[drawing(), own]),
    ]
    notebook = new_notebook(cells=cells)
    page = site.notebook_page(notebook, "05_x", "smoke")
    texts = [picture["alt"] for picture in Page(page).pictures]
    assert texts == ["Plot: Whole", 'Plot: What "a < b" says', "its own"] and "No description" not in page
    assert "image/png" not in notebook.cells[0].outputs[0].metadata  # the notebook itself stays as it ran


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


def test_headings_have_an_anchor_each_and_their_formulas_are_drawn():
    one = "## What $f_a$ is & 1<br>2\n\n### same\n\n## same\n"
    cells = [new_markdown_cell(one), new_markdown_cell("# same")]
    page = site.notebook_page(new_notebook(cells=cells), "00_a", "smoke")
    anchors = re.findall('<h[123] id="([^"]*)"', page)
    assert anchors == ["What-fa-is-&amp;-12", "same", "same-2", "same-3"] and "ns0" not in page
    contents = _between(page, "Contents</summary>", "</nav>")
    assert re.findall('href="#([^"]*)"', contents) == anchors[:3]
    assert page.count("<msub><mi>f</mi><mi>a</mi></msub>") == 2 and contents.count("<msub>") == 1


# In a browser ---------------------------------------------------------------------------------------------------------


def test_the_index_is_four_screens_at_most_and_nothing_overflows_on_a_phone(tmp_path):
    folder = tmp_path / "cpu"
    shutil.copytree(REPORTS / "cpu", folder)
    page = folder / "index.html"
    page.write_text(site.pages("cpu", folder)["index.html"], encoding="utf-8")
    width, height = size_in_browser(page, 1280, tmp_path)
    assert width <= 1280 and height <= 4 * 800
    assert size_in_browser(page, 390, tmp_path)[0] <= 390
    page.write_text(page.read_text(encoding="utf-8").replace("<details>", "<details open>"), encoding="utf-8")
    assert size_in_browser(page, 390, tmp_path)[0] <= 390  # wide tables scroll in themselves


def test_code_and_formulas_of_a_notebook_scroll_in_themselves_on_a_phone(tmp_path):
    text = "$$" + " + ".join(f"x_{{{i}}}" for i in range(80)) + "$$\n\nand `" + "a_long_name" * 12 + "`"
    long = new_output("stream", text="1234567890 " * 40)
    cells = [new_markdown_cell(text), new_code_cell("x = " + "long + " * 40 + "1", outputs=[long])]
    page = tmp_path / "00_a.html"
    page.write_text(site.notebook_page(new_notebook(cells=cells), "00_a", "smoke"), encoding="utf-8")
    assert size_in_browser(page, 390, tmp_path)[0] <= 390
