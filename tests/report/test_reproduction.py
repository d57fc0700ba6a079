import ast
import re

import pytest

from coseglib.core.paths import MEASURED, NOTEBOOKS, REPOSITORY
from coseglib.data.reported import reported
from coseglib.evaluation import cards as of_cards
from coseglib.models import METHODS
from coseglib.models.checkpoints import load_model
from coseglib.report import reproduction
from coseglib.scoring.metrics import PROTOCOLS

CARD = {
    "name": "tiny",
    "sha256": "0123456789abcdef",
    "method": "ca",
    "backbone": "vgg16",
    "variant": "paper",
    "steps": 5,
    "minutes": 1.5,
    "training": [{"shares": [1.0, 0.0, 0.0]}],
    "figures": {
        "msrc7": {"group": {"P": 0.9, "J": 0.71234, "by_group": {"car": 0.5}}, "other": {"P": 0.8, "J": 0.3}},
        "pascal": {"partner_swap": {"questions": 4, "points": 12.34}, "refusal_auroc": 0.5678},
    },
}


@pytest.fixture(scope="module")
def page():
    return reproduction.PAGE.read_text(encoding="utf-8")


def test_every_test_file_and_notebook_that_is_named_is_there(page):
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`", page)
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
        assert re.search(rf"^## \d\. .*\(`{method.paper.key}`\)$", page, flags=re.MULTILINE)
    for names in re.findall(r"protocols? ((?:`[\w-]+`(?:, | and )?)+)", page):
        for name in re.findall(r"`([\w-]+)`", names):
            assert name in PROTOCOLS, name


def test_the_figures_are_those_of_the_cards(page):
    begin, end = reproduction.MARKS
    block = reproduction.beside_the_papers([*of_cards.cards(), *of_cards.others()], reported())
    assert page.split(begin)[1].split(end)[0] == f"\n\n{block}\n\n", "run python -m coseglib.report.reproduction"


def test_ours_stands_beside_the_papers_and_variants_do_not_mix():
    text = reproduction.beside_the_papers([CARD], reported())
    printed, other = (next(r for r in text.splitlines() if f"| {m} | msrc7 |" in r) for m in ("CA", "FCA"))
    assert "| 0.966 / 0.765 | 0.900 / 0.712, vgg16, 01234567 | not yet measured |" in printed
    assert other.endswith("| not yet measured | not yet measured |")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    first = ["tiny", "ca", "paper", "vgg16", "plain", "1.5"]
    assert [*first, "msrc7", "0.712", "–", "0.300", "–", "–", "01234567"] in cells
    assert [*first, "pascal", "–", "–", "–", "12.3", "0.568", "01234567"] in cells
    more = reproduction.beside_the_papers([CARD | {"looks": 2, "post": "crf"}], reported())
    assert "| 0.900 / 0.712, vgg16, two looks, CRF, 01234567 |" in more
    workbook = reproduction.beside_the_papers([CARD | {"variant": "workbook"}], reported())
    assert "| not yet measured | 0.900 / 0.712, vgg16, 01234567 |" in workbook


def test_aims_are_set_against_the_best_model_of_their_backbone():
    def card(name, net, j, points=None):
        swap = {"partner_swap": {"points": points}} if points else {}
        return CARD | {"name": name, "backbone": net, "figures": {"pascal": {"group": {"J": j}, **swap}}}

    some = [card("a", "mobilenet_v2", 0.5, 31.0), card("b", "mobilenet_v2", 0.6), card("c", "resnet50", 0.8)]
    table = of_cards.reached(some).set_index(["aim", "backbone"])
    assert set(table.index) == {
        ("pascal, J", "mobilenet_v2"),
        ("pascal, J", "resnet50"),
        ("pascal, partner swap, points", "mobilenet_v2"),
    }
    short = table.loc[("pascal, J", "mobilenet_v2")]
    assert short.system == "b" and short.short == pytest.approx(of_cards.AIMS["mobilenet_v2"]["pascal"] - 0.6)
    assert (table.drop(("pascal, J", "mobilenet_v2")).short == 0).all()


def test_plain_pairs_stand_beside_those_that_ask_and_what_has_one_side_is_left_out():
    def card(name, method, j, other):
        found = {"msrc7": {"group": {"J": j}, "other": {"J": other}}}
        return CARD | {"name": name, "method": method, "figures": found}

    some = [card("ca-plain", "ca", 0.8, 0.7), card("ca-asking", "ca", 0.9, 0.2), card("fca-plain", "fca", 0.5, 0.4)]
    (row,) = of_cards.both_ways(some).to_dict("records")
    assert (row["method"], row["set"], row["J: plain"], row["J: asking"]) == ("ca", "msrc7", 0.8, 0.9)
    assert (row["J, wrong group: plain"], row["J, wrong group: asking"]) == (0.7, 0.2)


def test_pairs_are_plain_only_where_no_share_asks_for_the_partner():
    assert of_cards.pairs_of(CARD) == "plain"
    runs = [{"shares": [1.0, 0.0, 0.0]}, {"shares": [0.7, 0.2, 0.1]}]
    assert of_cards.pairs_of(CARD | {"training": runs}) == "hard, empty"


def test_rivals_are_left_out_and_groups_stand_where_there_is_no_average():
    rows = reproduction.papers_own(reported())
    assert set(rows.method) >= {"CA", "CA-instant", "SSNM-HRNet", "SSNM -f_sem", "DCNet", "+MCFD"}
    assert not rows.method.str.contains("2018|2013").any()
    assert set(rows[(rows.paper == "zhang2020") & (rows.dataset == "internet")].group) == {"airplane", "car", "horse"}
    assert set(rows[(rows.paper == "chen2018") & (rows.dataset == "icoseg8")].group) == {"all"}


def test_a_withdrawn_card_has_its_reason_where_figures_stood_and_an_earlier_one_a_mark():
    why = "learned by another rule"
    away, earlier = CARD | {"method": "fca", "withdrawn": why}, CARD | {"engine": "earlier"}
    text = reproduction.beside_the_papers([away, earlier], reported())
    assert f"| withdrawn: {why}, vgg16, 01234567 | not yet measured |" in text
    assert "0.900 / 0.712, vgg16, 01234567 †" in text and text.endswith(of_cards.FOOTNOTE)
    table = of_cards.stated([away, earlier])
    assert table[table.method == "fca"]["set"].tolist() == [f"withdrawn: {why}"]
    assert table[table.method == "fca"].group.isna().all() and set(table[table.method == "ca"].checkpoint) == {
        "01234567 †"
    }
    assert of_cards.FOOTNOTE not in reproduction.beside_the_papers([CARD], reported())
    pair = [away | {"name": "fca-plain"}, away | {"name": "fca-asking"}, CARD | {"name": "ca-plain"}]
    assert of_cards.both_ways([*pair, CARD | {"name": "ca-asking"}]).method.unique().tolist() == ["ca"]


def test_every_fca_card_is_withdrawn_and_stays_usable():
    fca = [card for card in (*of_cards.cards(), *of_cards.cards(MEASURED)) if card["method"] == "fca"]
    assert len(fca) == 4 and all("eq. (5)" in card["withdrawn"] for card in fca)
    assert load_model("fca-mobilenet_v2").card["withdrawn"] == fca[0]["withdrawn"]
