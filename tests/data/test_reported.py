import csv

import pytest

from coseglib.core.errors import CosegError
from coseglib.core.paths import LISTS
from coseglib.data.reported import FIELDS, SHARES, anchors, reported
from coseglib.data.sets.binary import TARGETS
from coseglib.models import METHODS

SETS_OF_THE_PAPERS_ALONE = {"voc-test-pairs", "thesis-two-class", "thesis-three-class"}


@pytest.fixture(scope="module")
def table():
    return reported()


def _only(**wanted):
    rows = reported(**wanted)
    assert len(rows) == 1, rows
    return rows.iloc[0]


def test_every_row_has_a_number_a_share_where_it_is_p_or_j(table):
    figures = table[table.value.notna()]
    assert len(figures) == len(table) - 1 and (figures.value > 0).all()
    gains = figures.metric.str.endswith("gain")
    shares = figures.metric.isin(SHARES) | gains
    assert (figures.value[shares] < 1).all()
    assert set(figures.metric[~shares]) == {"seconds", "seconds an image"}
    assert (figures[["paper", "table", "dataset", "group", "method", "metric"]] != "").all(axis=None)


def test_no_figure_stands_twice(table):
    assert not table.duplicated(["paper", "table", "dataset", "group", "method", "metric"]).any()


def test_every_paper_of_the_registry_occurs_and_no_other(table):
    assert set(table.paper) == {model.paper.key for model in METHODS.values()}


def test_the_paper_without_figures_says_why():
    letter = _only(paper="chen2023")
    assert letter.value != letter.value and "appendices" in letter.note


def test_errata_are_applied_and_named():
    car = _only(paper="zhang2020", table="2", dataset="internet", group="car", method="SSNM-HRNet", metric="J")
    assert car.value == 0.739 and "0.825 is printed" in car.note
    third = _only(paper="li2021dcnet", table="III", group="all", method="DCNet", metric="J")
    fifth = _only(paper="li2021dcnet", table="V", method="+DCCM (DCNet)", metric="J")
    assert (third.value, fifth.value) == (0.91, 0.90)
    assert "table V prints 0.9 " in third.note and "table III prints 0.91 " in fifth.note


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [
        ({"paper": "chen2018", "table": "1", "method": "CA", "metric": "J"}, 76.49),
        ({"paper": "chen2018", "table": "4", "group": "all", "method": "CA-instant", "metric": "J"}, 71.7),
        ({"paper": "zhang2020", "table": "4", "group": "Monitor", "method": "SSNM-HRNet", "metric": "J"}, 69),
        ({"paper": "zhang2020", "table": "5", "method": "SSNM -f_sem", "metric": "J"}, 38),
        ({"paper": "li2021dcnet", "table": "I", "method": "DCNet", "metric": "P"}, 96),
        ({"dataset": "thesis-three-class", "method": "SA+MA over w/o ATT", "metric": "J gain"}, 10.59),
    ],
)
def test_figures_are_those_printed_as_shares(wanted, printed):
    assert _only(**wanted).value == pytest.approx(printed / 100, abs=1e-12)


def test_averages_are_the_means_over_groups_that_they_are_said_to_be(table):
    """Within the papers' rounding, but for averages whose note says what they are."""
    figures = table[table.metric.isin(SHARES) & table.value.notna()]
    checked = 0
    for _, rows in figures.groupby(["paper", "table", "dataset", "method", "metric"]):
        groups, average = rows[rows.group != "all"], rows[rows.group == "all"]
        if len(groups) < 3 or average.empty or "mean" in average.note.iloc[0]:
            continue
        whole = (average.value.iloc[0] * 100).round(6).is_integer()  # printed without decimals
        assert groups.value.mean() == pytest.approx(average.value.iloc[0], abs=0.006 if whole else 0.0015), rows
        checked += 1
    assert checked > 20


def test_sets_and_groups_are_named_as_ours(table):
    for dataset, rows in table[table.dataset != ""].groupby("dataset"):
        groups = set(rows.group) - {"all"}
        if dataset in SETS_OF_THE_PAPERS_ALONE:
            assert not groups
        elif dataset in ("internet", "internet-full"):
            assert groups <= set(TARGETS.values())
        else:
            with open(LISTS / f"groups_{dataset}.csv", newline="") as file:
                assert groups <= {row["group"] for row in csv.DictReader(file)}


def test_what_no_row_has_is_an_error_in_one_line(tmp_path):
    for wanted, message in (
        ({"paper": "chen2019"}, "paper chen2019: in no row of reported.csv; one of chen2018, zhang2020, chen2023, "),
        ({"value": "0.5"}, "value: no column to choose rows by; one of paper, table, "),
    ):
        with pytest.raises(CosegError) as error:
            reported(**wanted)
        assert str(error.value).startswith(message) and "\n" not in str(error.value)
    damaged = tmp_path / "reported.csv"
    with pytest.raises(CosegError, match="no such file"):
        reported(damaged)
    for text in ("", "paper,value\n", f"{','.join(FIELDS)}\na,1,b,c,d,J,much,\n"):
        damaged.write_text(text)
        with pytest.raises(CosegError, match="cannot be read"):
            reported(damaged)


def test_anchors_are_shares_each_once_with_a_source_and_supervision():
    table = anchors()
    assert not table.duplicated(["method", "dataset"]).any()
    assert (table[["method", "supervision", "dataset", "source"]] != "").all(axis=None)
    assert table.J.between(0, 1, inclusive="neither").all() and table.P.dropna().between(0, 1).all()
    assert {"msrc7", "icoseg8", "pascal", "internet"} < set(table.dataset)
    assert {"CycleSegNet", "Li et al.", "Amir et al. 2022", "TokenCut"} <= set(table.method)
    assert (table[table.dataset == "msrc7"].note != "").all()  # other photographs than ours
    assert len(anchors("pascal")) == (table.dataset == "pascal").sum() and anchors("synthetic").empty


def test_the_anchor_that_is_printed_as_a_difference_is_that_sum():
    (ours,) = anchors("icoseg8").J
    best = reported(paper="zhang2020", table="3", group="all", method="SSNM-HRNet", metric="J").value.iloc[0]
    assert ours == pytest.approx(best + 0.029)


def test_a_damaged_file_of_anchors_is_said(tmp_path):
    (tmp_path / "anchors.csv").write_text("method,dataset\nx,y\n")
    with pytest.raises(CosegError, match=r"anchors\.csv.*lacks the column"):
        anchors(file=tmp_path / "anchors.csv")
