import ast
import re

import pytest

from coseglib import reproduction
from coseglib.errors import CosegError
from coseglib.metrics import PROTOCOLS
from coseglib.models import METHODS
from coseglib.paths import NOTEBOOKS, REPOSITORY
from coseglib.reported import reported

CARD = {
    "name": "tiny",
    "sha256": "0123456789abcdef",
    "method": "ca",
    "backbone": "vgg16",
    "variant": "paper",
    "figures": {
        "msrc7": {"group": {"P": 0.9, "J": 0.71234, "by_group": {"car": 0.5}}, "other": {"P": 0.8, "J": 0.3}},
        "pascal": {"partner_swap": {"questions": 4, "points": 12.34}, "refusal_auroc": 0.5678},
    },
}


@pytest.fixture(scope="module")
def page():
    return reproduction.PAGE.read_text(encoding="utf-8")


def test_every_test_file_and_notebook_that_is_named_is_there(page):
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 30
    for file, test in named:
        tree = ast.parse((REPOSITORY / "tests" / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"
    paths = set(re.findall(r"(?:coseglib|benchmarks|data|reports)/(?!test_)[\w/.-]+\.(?:py|md|csv)", page))
    assert len(paths) > 12
    for path in paths:
        assert (REPOSITORY / path).is_file(), path
    numbers = set(re.findall(r"notebook (\d\d)", page))
    assert numbers >= {"02", "03", "04", "05", "06"}
    assert all(list(NOTEBOOKS.glob(f"{number}_*.ipynb")) for number in numbers)
    for table in re.findall(r"table `(\d\d_\w+)`", page):
        (notebook,) = NOTEBOOKS.glob(f"{table[:2]}_*.ipynb")
        assert f"{table}.csv" in notebook.read_text(encoding="utf-8"), table


def test_every_paper_has_a_chapter_and_every_protocol_is_one(page):
    for method in METHODS.values():
        assert re.search(rf"^## \d\. .*\(`{method.paper}`\)$", page, flags=re.MULTILINE)
    for names in re.findall(r"protocols? ((?:`[\w-]+`(?:, | and )?)+)", page):
        for name in re.findall(r"`([\w-]+)`", names):
            assert name in PROTOCOLS, name


def test_the_figures_are_those_of_the_cards(page):
    block = reproduction.figures(reproduction.cards(), reported())
    assert reproduction.renewed(page, block) == page, "run python -m coseglib.reproduction"


def test_ours_stands_beside_the_papers_and_variants_do_not_mix():
    text = reproduction.figures([CARD], reported())
    printed, other = (next(r for r in text.splitlines() if f"| {m} | msrc7 |" in r) for m in ("CA", "FCA"))
    assert "| 0.966 / 0.765 | 0.900 / 0.712, vgg16, 01234567 | not yet measured |" in printed
    assert other.endswith("| not yet measured | not yet measured |")
    assert "| msrc7 | P / J, attended by a wrong group | 0.800 / 0.300 |" in text
    assert "| partner swap, 4 questions, points | 12.3 |" in text and "| refusal, AUROC | 0.568 |" in text
    more = reproduction.figures([CARD | {"looks": 2, "post": "crf"}], reported())
    assert "| 0.900 / 0.712, vgg16, two looks, CRF, 01234567 |" in more
    workbook = reproduction.figures([CARD | {"variant": "workbook"}], reported())
    assert "| not yet measured | 0.900 / 0.712, vgg16, 01234567 |" in workbook


def test_rivals_are_left_out_and_groups_stand_where_there_is_no_average():
    rows = reproduction.own(reported())
    assert set(rows.method) >= {"CA", "CA-instant", "SSNM-HRNet", "SSNM -f_sem", "DCNet", "+MCFD"}
    assert not rows.method.str.contains("2018|2013").any()
    assert set(rows[(rows.paper == "zhang2020") & (rows.dataset == "internet")].group) == {"airplane", "car", "horse"}
    assert set(rows[(rows.paper == "chen2018") & (rows.dataset == "icoseg8")].group) == {"all"}


def test_a_page_without_marks_is_refused():
    with pytest.raises(CosegError, match="marks"):
        reproduction.renewed("no marks", "block")
