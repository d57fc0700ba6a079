from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import coseglib
from coseglib.core.errors import CosegError
from coseglib.core.tables import read_table, write_table

KINDS = {"group": str, "images": int, "J": float, "swap": bool}


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    table = pd.DataFrame(
        {
            "group": ["001", "NA", "nan", "", "1e5", 'a, "b"\nc', "True"],
            "images": range(7),
            "J": [0.5, np.nan, np.inf, 1, 0, -1, 0.123456],
            "swap": [True, False] * 3 + [True],
            "key": ["0123", "None", "null", "-", "12e4", "", "7"],
        }
    )
    write_table(table, tmp_path / "new" / "t.csv")
    again = read_table(tmp_path / "new" / "t.csv", KINDS)
    pd.testing.assert_frame_equal(again, table.astype({"group": object, "key": object}))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["t.csv"]


def test_the_library_reads_tables_by_this_reader_alone():
    """pandas guesses: a group called 007 would be 7, one called NA nothing."""
    files = Path(coseglib.__file__).parent.rglob("*.py")
    assert not [file.name for file in files if "read_csv" in file.read_text(encoding="utf-8")]


def test_what_is_missing_is_empty_in_text_and_nan_in_numbers(tmp_path):
    write_table(pd.DataFrame({"group": ["a", None], "J": [None, 1.0]}), tmp_path / "t.csv")
    again = read_table(tmp_path / "t.csv", {"group": str, "J": float})
    assert again.group.tolist() == ["a", ""] and again.J.isna().tolist() == [True, False]


def test_a_table_without_rows_keeps_its_types(tmp_path):
    write_table(pd.DataFrame(columns=list(KINDS)), tmp_path / "t.csv")
    again = read_table(tmp_path / "t.csv", KINDS)
    assert again.empty and again.dtypes.tolist() == [object, int, float, bool]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "lacks the column group"),
        ("group,images,J\na,1,.5\n", "lacks the column swap"),
        ("group,images,J,swap\na,1,.5\n", "line 2 has 3 fields"),
        ("group,images,J,swap\na,1,.5,True,x\n", "line 2 has 5 fields"),
        ("group,images,J,swap,J\na,1,.5,True,.5\n", "one name"),
        ("group,images,J,swap\na,,.5,True\n", "column images"),
        ("group,images,J,swap\na,1,half,True\n", "column J"),
        ("group,images,J,swap\na,1,.5,1\n", "column swap"),
        ("\udcff\udcfe", "cannot be read"),
    ],
)
def test_another_table_is_refused_in_one_line(tmp_path, text, word):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(CosegError, match=word) as fault:
        read_table(tmp_path / "t.csv", KINDS, "run it again")
    assert "\n" not in str(fault.value) and str(fault.value).endswith("run it again")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CosegError, match=r"t\.csv: no such file"):
        read_table(tmp_path / "t.csv", {})


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    table = pd.DataFrame({"J": [1 / 3]})
    write_table(table, tmp_path / "new" / "t.csv")
    assert (tmp_path / "new" / "t.csv").read_text() == "J\n0.333333\n"
    assert len(list((tmp_path / "new").iterdir())) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(CosegError, match=r"file/t\.csv: not written"):
        write_table(table, tmp_path / "file" / "t.csv")


def test_columns_that_need_not_be_there_are_read_as_what_they_hold(tmp_path):
    (tmp_path / "t.csv").write_text("group,J\n001,\n002,.5\n")
    table = read_table(tmp_path / "t.csv", {"group": str}, optional={"J": float, "swap": float})
    assert list(table.columns) == ["group", "J"] and table.group.tolist() == ["001", "002"]
    assert table.J.isna().tolist() == [True, False]
