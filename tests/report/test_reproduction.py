import ast
import importlib.util
import re
import shlex

import pandas as pd
import pytest

from coseglib.core.paths import MEASURED, NOTEBOOKS, REPOSITORY
from coseglib.data.reported import anchors
from coseglib.evaluation import cards as of_cards
from coseglib.evaluation import own_protocols
from coseglib.models import METHODS
from coseglib.models.checkpoints import load_model
from coseglib.report import reproduction
from coseglib.scoring.metrics import PROTOCOLS
from coseglib.training.configuration import MAY_CHANGE, TrainConfig, load_profile

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


@pytest.fixture(scope="module")
def blocks(page):
    return reproduction.blocks(page)


@pytest.fixture(scope="module")
def table():
    return reproduction.by_protocols()[0]


@pytest.fixture(scope="module")
def figures(table):
    return reproduction.beside_the_papers([*of_cards.cards(), *of_cards.others()], table)


def block_of(page, name):
    begin, end = reproduction.marks(name)
    return page.split(begin)[1].split(end)[0].strip()


def rows_of(block):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line.startswith("|")][2:]


def test_the_figures_are_those_of_the_cards(page, blocks):
    assert set(blocks) == {"verdict", "claims", "figures", "field", "aims", "cards", "commands"}
    for name, block in blocks.items():
        assert block_of(page, name) == block, f"{name}: run python -m coseglib.report.reproduction"
    places = [page.index(reproduction.marks(name)[0]) for name in ("verdict", "claims", "figures")]
    assert places == sorted(places) and places[1] < page.index("## 1. ") < page.index("## 5. ") < places[2]


def beside(some, figures, **where):
    found = reproduction.beside_the_papers(some, figures)
    for name, value in where.items():
        found = found[found[name].str.startswith(value)]
    return found.to_dict("records")


def test_ours_stands_beside_the_papers_and_what_differs_is_said(monkeypatch, table):
    monkeypatch.setattr(of_cards, "cards", lambda *_: [CARD])
    own, none = reproduction.OWN, reproduction.NOT_YET
    (row,) = beside([CARD], table, system="CA", table="1")
    assert row["printed"] == "0.966 / 0.765" and row["ours"] == "`tiny` (01234567)" and row["set"].startswith("msrc7")
    assert (row["backbone"], row["differs"]) == ("VGG16 → vgg16", "nothing")
    assert (row[own], row["by `common`"]) == (none, "0.900 / 0.712")
    (row,) = beside([CARD], table, system="FCA", table="1")
    assert (row["ours"], row["backbone"], row[own], row["by `common`"]) == ("–", "VGG16", none, none)
    other = {"method": "ssnm", "variant": "workbook", "backbone": "mobilenet_v2", "looks": 2, "post": "crf"}
    (row,) = beside([CARD | other], table, system="SSNM-HRNet", table="1")
    assert row["backbone"] == "HRNet → mobilenet_v2" and row["differs"] == "variant, backbone, two looks, CRF"


def test_of_what_is_not_shipped_only_the_papers_backbone_or_variant_stands_beside_it(table):
    known = CARD | {"method": "dcnet", "variant": "workbook"}
    assert (
        beside([known | {"backbone": "resnet50"}], table, system="DCNet", table="I")[0]["ours"] == "`tiny` (01234567)"
    )
    known["backbone"] = "mobilenet_v2"
    assert beside([known], table, system="DCNet", table="I")[0]["ours"] == "–"
    row, *_ = beside([known | {"variant": "paper"}], table, system="DCNet", table="I")
    assert row["ours"] == "`tiny` (01234567)" and row["differs"] == "backbone"
    assert row[reproduction.OWN] == reproduction.GONE


def test_beside_an_ablation_the_whole_system_as_printed_stands_with_the_small_budget(table):
    known = CARD | {"method": "ssnm", "backbone": "mobilenet_v2"}
    known["figures"] = {"pascal": CARD["figures"]["msrc7"]}
    whole, small = beside([known], table, system="SSNM full", table="5")
    assert whole["ours"] == "`tiny` (01234567)" and small["ours"] == "small budget"
    assert [row["ours"] for row in beside([known], table, system="SSNM -f_spa", table="5")] == ["small budget"] * 2
    known["variant"] = "workbook"
    assert [row["ours"] for row in beside([known], table, system="SSNM full", table="5")] == ["small budget"]


def test_the_instant_variant_stands_beside_ca_as_printed_and_what_was_not_measured_lacks_its_photographs(figures):
    """CA-instant is CA asked with the whole group: the paper's name for a way of asking, not for another network."""
    instant = figures[(figures.system == "CA-instant") & figures.set.str.startswith(("msrc7", "icoseg8"))]
    assert set(instant.set.str.split(",").str[0]) == {"msrc7", "icoseg8"}
    for _, rows in instant.groupby("set"):
        assert rows.ours.str.contains("`ca-mobilenet_v2-paper`").any() and (rows.differs == "backbone").any()
    assert (instant["by `common`"] != reproduction.NOT_YET).all()
    none = figures[(figures[reproduction.OWN] == f"{reproduction.NOT_YET}{reproduction.LACKING}")]
    assert set(none.set.str.split(",").str[0]) == {"internet", "internet-full"}
    assert not (figures[reproduction.OWN] == reproduction.NOT_YET).any()


def test_the_command_for_sets_that_are_not_here_is_named_beside_their_rows(blocks):
    assert f"{reproduction.LACKING.strip()} Internet is not here." in blocks["figures"]
    module = re.search(r"`python -m ([\w.]+own_protocols)`", blocks["figures"])[1]
    assert importlib.util.find_spec(module) and reproduction.COMMAND.endswith(module)


def test_rows_of_a_set_that_was_not_here_are_filled_by_what_the_command_measures_group_by_group(table):
    (card,) = [card for card in of_cards.cards() if card["method"] == "ssnm"]
    about = {"dataset": "internet", "checkpoint": card["sha256"][:8], "protocol": "ssnm", "mark": ""}
    measured = pd.concat([table, pd.DataFrame([about | {"group": "car", "P": 0.9, "J": 0.66}])])
    filled = [row for row in beside([card], measured, system="SSNM-HRNet", table="2") if row["ours"] != "–"]
    assert [row["set"] for row in filled] == ["internet, car, `ssnm`"]
    assert (filled[0][reproduction.OWN], filled[0]["by `common`"]) == ("0.900 / 0.660", "–")


def test_others_figures_stand_beside_the_best_small_model_s(figures):
    table = reproduction.beside_the_field([CARD, CARD | {"name": "small", "backbone": "mobilenet_v2"}])
    on_msrc = table[table.set == "msrc7"]
    assert len(on_msrc) > 3 and set(on_msrc["ours, by `common`"]) == {"J 0.712, `small` (01234567)"}
    assert set(table[table.set == "pascal-co"]["ours, by `common`"]) == {"–"}
    assert (table.source != "").all() and len(table) == len(anchors())


def test_a_figure_by_the_papers_protocol_is_that_of_the_run_s_table(figures, table, monkeypatch):
    instant = figures[(figures.system == "CA-instant") & figures.set.str.startswith(("msrc7", "icoseg8"))]
    for row in instant.to_dict("records"):
        which = (table.checkpoint == row["ours"][-9:-1]) & (table.protocol == "chen2018-instant")
        which &= (table.dataset == row["set"].split(",")[0]) & (table.group == "all")
        (known,) = table[which].to_dict("records")
        assert row[reproduction.OWN] == f"{known['P']:.3f} / {known['J']:.3f}{known['mark']}"
    assert len(instant) == 4
    monkeypatch.setattr(own_protocols, "TABLE", reproduction.PAGE.with_name("none.csv"))
    none, ran = reproduction.by_protocols()
    assert not len(none) and ran == "no run"


def test_rows_of_ablations_have_the_small_budget_s_figure_and_a_link(figures):
    for table, system, count in (("5", "SSNM", 4), ("IV", "", 4), ("V", "", 2)):
        rows = figures[(figures.table == table) & figures.system.str.startswith(system) & (figures.paper != "chen2018")]
        rows = rows[rows.ours == "small budget"]
        assert len(rows) == count
        for row in rows.to_dict("records"):
            links = re.findall(r"J (0\.\d{3}) ± [\d.]+ on \[[a-z0-9]+\]\(([\w/.]+\.csv)\)", row[reproduction.OWN])
            assert len(links) == 2
            for j, link in links:
                kept = pd.read_csv(reproduction.PAGE.parent / link)
                printed = f"table {table}: {row['printed'].split(' / ')[1]}"
                (known,) = kept[kept["the paper"].fillna("").str.split("; ").map({printed}.issubset)].J
                assert f"{known:.3f}" == j


def test_the_verdict_s_words_agree_with_the_figures(page, figures):
    """What is said of J on MSRC-7, of `common` elsewhere, of FCA and of confirmed and contradicted claims."""
    j = figures[figures.ours.str.startswith("`") & ~figures.ours.str.contains("resnet50")].copy()
    for name in ("printed", reproduction.OWN, "by `common`"):
        j[name] = [float(text.rstrip(" †").split(" / ")[-1]) if re.search(r"\d$", text.rstrip(" †")) else None
                   for text in j[name]]  # fmt: skip
    claims = {row[0]: row for row in rows_of(block_of(page, "claims"))}
    assert len(claims) > 10
    for paper, holds, fails, unknown, _, computed in rows_of(block_of(page, "verdict")):
        own = j[j.paper == paper.split("`")[1]]
        msrc = own[own.set.str.startswith("msrc7")].groupby(["system", "printed"])[reproduction.OWN].max()
        reached = len(msrc) and all(best >= printed for (_, printed), best in msrc.items())
        assert ("J on MSRC-7 is reached" in holds) == bool(reached) and "J on" not in fails
        assert all(name in computed for name in own.ours[own.set.str.startswith("msrc7")])
        if "stays below it" in unknown:
            below = own[own.set.str.startswith(("icoseg8", "pascal"))].dropna(subset=[reproduction.OWN])
            assert len(below) and (below[reproduction.OWN] < below.printed).all()
    (chen, zhang, *others) = rows_of(block_of(page, "verdict"))
    assert "withdrawn" in chen[3] and "FCA" in chen[3] and "by CA, FCA and CSA as printed" in chen[1]
    pairs = j[j.set.str.startswith("voc-test-pairs") & j.system.isin(["CA", "FCA"])]
    reached = pairs[reproduction.OWN] > pairs.printed
    assert sorted(pairs.ours[~reached].str.split("`").str[1]) == ["fca-mobilenet_v2-paper"]  # "comes out as printed"
    msrc = j[j.set.str.startswith("msrc7") & j.ours.str.contains("-paper`")].set_index("system")
    assert (msrc[reproduction.OWN] > msrc.printed)[["CA", "FCA", "CSA"]].all()  # "as printed but for their backbone"
    assert not (msrc[reproduction.OWN] > msrc.printed)["DCNet"]
    assert (msrc[reproduction.OWN] > msrc.printed)[["SSNM-VGG16", "SSNM-HRNet"]].all() and "as printed" in zhang[1]
    assert "below it by pairs; by the whole group the workbook's CA reaches it" in chen[3]
    on_icoseg = j[(j.paper == "chen2018") & j.set.str.startswith("icoseg8")].groupby("system")
    reached = on_icoseg[reproduction.OWN].max() >= on_icoseg.printed.max()
    assert reached[["CA", "FCA", "CSA", "CA-instant"]].tolist() == [False, False, False, True]
    assert "minimum of attention" in chen[1] and "1 confirmed" in chen[4]
    assert "balance of (13)" in zhang[2] and "1 contradicted" in zhang[4]
    assert not any(word in row[4] for row in others for word in ("confirmed", "contradicted"))


def test_every_model_is_made_again_by_its_commands(blocks):
    """Loading the profile with the overrides gives the card's fields; a later run starts from the one before."""
    shown = dict(rows_of(blocks["commands"]))
    for card in (*of_cards.cards(), *of_cards.cards(MEASURED)):
        lines, before = of_cards.made_again(card), ""
        assert shown[reproduction.titled(card)] == "<br>".join(f"`{line}`" for line in lines)
        if "averaged" in card:  # the last step of each run, by the run's own folder
            words = shlex.split(lines.pop())
            parts = [words[2], *(words[i + 1] for i, word in enumerate(words) if word == "--average")]
            steps = {
                line.split("--output ")[1]: run["steps"] for line, run in zip(lines, card["training"], strict=True)
            }
            assert words[:2] == ["coseg", "ship"] and words[3] == card["name"]
            assert [steps[part] for part in parts] == [part["step"] for part in card["averaged"]]
        assert len(lines) == len(card["training"])
        for line, training in zip(lines, card["training"], strict=True):
            words = shlex.split(line)
            sets = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--set")
            given = load_profile(words[words.index("--profile") + 1], words[words.index("--method") + 1], sets)
            wanted = TrainConfig(**training).fields() | {"start": before}
            for name, value in given.fields().items():
                assert name in MAY_CHANGE or value == wanted[name], (card["name"], name)
            before = f"{words[words.index('--output') + 1]}/model.safetensors"


def test_the_trials_call_checkpoints_as_their_cards_do():
    text = (reproduction.PAGE.parent / "trials.md").read_text(encoding="utf-8")
    known = [*of_cards.cards(), *of_cards.cards(MEASURED)]
    names = {card["name"] for card in known}
    assert set(re.findall(r"`((?:\w+)-(?:mobilenet_v2|resnet50)[\w-]*)`", text)) <= names
    for digits in {card["sha256"][:8] for card in known}:
        called = [card["name"] for card in known if card["sha256"].startswith(digits)]
        for name in re.findall(rf"(.{{0,40}})\b{digits}\b", text):
            assert any(name.endswith(f"`{one}` (") for one in called), f"{digits}: {name}"


def test_the_readme_s_figures_are_those_of_the_cards():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    found = {"ca": re.search(r"J (\.\d+) on\s+MSRC-7, (\.\d+) on iCoseg-8 and (\.\d+) on all of PASCAL", text)}
    for name in ("ssnm", "pfcc", "dcnet"):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        found[name] = re.search(r"J (\.\d+) on MSRC-7, (\.\d+) on iCoseg-8, (\.\d+) on PASCAL", row)
    for card in of_cards.cards():
        if (match := found.pop(card["name"].removesuffix("-mobilenet_v2"), None)) is not None:
            figures = [card["figures"][name]["group"]["J"] for name in ("msrc7", "icoseg8", "pascal")]
            assert [float(number) for number in match.groups()] == [round(j, 3) for j in figures], card["name"]
    assert not found


def test_aims_are_set_against_the_best_model_of_their_backbone():
    def card(name, net, j, points=None, other=None):
        swap = {"partner_swap": {"points": points}} if points else {}
        wrong = {"icoseg8": {"other": {"J": other}}} if other else {}
        figures = {"pascal": {"group": {"J": j}, **swap}, **wrong}
        return CARD | {"name": name, "sha256": name, "backbone": net, "looks": 1, "post": "crf", "figures": figures}

    some = [
        card("a", "mobilenet_v2", 0.5, 41.0, 0.4),
        card("b", "mobilenet_v2", 0.6, None, 0.3),
        card("c", "resnet50", 0.8),
    ]
    choices = pd.DataFrame({"sha256": ["a", "b", "b", "d"], "looks": 1, "post": ["crf", "crf", "argmax", "crf"]})
    choices["unseen"] = [0.7, 0.71, 0.75, 0.9]
    table = of_cards.reached(some, choices).set_index(["aim", "backbone"])
    small = [("pascal, J", 0.04), ("icoseg30, J", 0.05), ("icoseg8, J by a wrong group", 0.05)]
    small.append(("pascal, partner swap, points", 0.0))
    assert table.short.to_dict() == pytest.approx(
        {(aim, "mobilenet_v2"): short for aim, short in small} | {("pascal, J", "resnet50"): 0.0}
    )
    assert table.system.loc[:, "mobilenet_v2"].tolist() == ["b", "b", "b", "a"]
    assert len(of_cards.reached(some)) == len(table) - 1


def test_what_the_page_says_limits_the_aims_is_what_the_cards_say():
    by_name = {card["name"]: card for card in (*of_cards.cards(), *of_cards.others())}
    systems = [f"{method}-mobilenet_v2" for method in ("ca", "fca", "csa", "ssnm", "pfcc", "dcnet")]
    began = {name: "288" if name.startswith("ca-") else "early" for name in systems}
    late = {name: name if name.startswith(("ca-", "fca-")) else f"{name}-shifted" for name in systems}

    def of(name, dataset="pascal"):
        return pd.Series(by_name[name]["figures"].get(dataset, {}).get("group", {}).get("by_group"), dtype=float)

    def told(value, digits=2):
        return f"{value:.{digits}f}".removeprefix("0")

    found = pd.DataFrame({name: of(name) for name in by_name})
    hard, best = ["Table", "Chair", "Bicycle", "Plant"], found["ca-mobilenet_v2"]
    gained = 100 * pd.DataFrame({name: of(late[name]) - of(f"{name}-{old}") for name, old in began.items()})
    whole, without = gained.mean(), gained.drop(["Train", "Bus"]).mean()
    train, bus = gained.loc["Train"], gained.loc["Bus"]
    wrong = [by_name[name]["figures"]["icoseg8"]["other"]["J"] for name in systems]
    ca, *others = (of(name, "icoseg8")["helicopter"] for name in systems)
    said = [
        f"bicycles have J of {told(found.loc[hard[:3]].max().max())} at most in every network below, "
        f"plants {told(found.loc['Plant'].max())}",
        f"the sixteen others of the best small one have {told(best.drop(hard).mean())} in the mean",
        f"{whole.min():.1f} to {whole.max():.1f} points, is mostly theirs, half",
        f"trains {train.min():.0f} to {train.max():.0f} points, buses {bus.min():.0f} to {bus.max():.0f}",
        f"between {told(-without.min(), 1)} less and {without.max():.1f} more",
        f"finds {told(min(wrong))} to {told(max(wrong))}",
        f"helicopters have {told(max(others))} at most in the other networks",
        f"{told(ca)} in CA at 288",
    ]
    page = " ".join(reproduction.PAGE.read_text(encoding="utf-8").split())
    assert [one for one in said if one not in page] == []


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
    rows = reproduction.papers_own()
    assert set(rows.system) >= {"CA", "CA-instant", "SSNM-HRNet", "SSNM -f_sem", "DCNet", "+MCFD", "PFCC"}
    assert not rows.system.str.contains("2018|2013").any()
    assert set(rows[(rows.paper == "zhang2020") & (rows.dataset == "internet")].group) == {"airplane", "car", "horse"}
    assert set(rows[(rows.paper == "chen2018") & (rows.dataset == "icoseg8")].group) == {"all"}
    assert set(rows[rows.paper == "chen2023"].dataset) == {"msrc7", "icoseg8", "pascal"}


def test_a_withdrawn_card_has_its_reason_where_figures_stood_and_an_earlier_one_a_mark(monkeypatch, table):
    why = "learned by another rule"
    away, earlier = CARD | {"method": "fca", "withdrawn": why}, CARD | {"engine": "earlier"}
    monkeypatch.setattr(of_cards, "cards", lambda *_: [away, earlier])
    (row,) = beside([away, earlier], table, system="FCA", table="1")
    assert (row[reproduction.OWN], row["by `common`"]) == (f"withdrawn: {why}", "–")
    assert beside([away, earlier], table, system="CA", table="1")[0]["ours"] == "`tiny` (01234567) †"
    stated = of_cards.stated([away, earlier])
    assert stated[stated.method == "fca"]["set"].tolist() == [f"withdrawn: {why}"]
    assert stated[stated.method == "fca"].group.isna().all()
    assert set(stated[stated.method == "ca"].checkpoint) == {"01234567 †"}
    pair = [away | {"name": "fca-plain"}, away | {"name": "fca-asking"}, CARD | {"name": "ca-plain"}]
    assert of_cards.both_ways([*pair, CARD | {"name": "ca-asking"}]).method.unique().tolist() == ["ca"]


def test_every_fca_card_of_the_other_rule_is_withdrawn_and_what_ships_is_not():
    fca = {card["name"]: card for card in of_cards.cards(MEASURED) if card["method"] == "fca"}
    assert not any("withdrawn" in fca.pop(f"fca-mobilenet_v2-{name}") for name in ("paper", "early"))
    assert len(fca) == 3 and all("eq. (5)" in card["withdrawn"] for card in fca.values())
    card = load_model("fca-mobilenet_v2").card
    assert "withdrawn" not in card and card["sha256"] in {one["sha256"] for one in of_cards.cards()}
