import threading
import time

import pandas as pd
import pytest

from coseglib.core.errors import CosegError
from coseglib.evaluation import kept
from coseglib.evaluation.kept import LEARNED, SCORED, Part, code_hash, resumable_rows


@pytest.fixture
def package(tmp_path):
    """A package of one room with one module, and a function that writes the module anew and gives its hash."""
    (tmp_path / "scoring").mkdir()

    def written(text: str) -> str:
        (tmp_path / "scoring" / "rule.py").write_text(text)
        code_hash.cache_clear()
        return code_hash(("scoring",), tmp_path)

    return written


def test_words_are_no_code_and_a_constant_is(package):
    before = package('"""Words."""\nLIMIT = 3\n\ndef f(x):\n    """More."""\n    return x + LIMIT  # why\n')
    assert package('LIMIT = 3\ndef f(x):\n    """Others."""\n\n    return x + LIMIT\n') == before
    assert package("LIMIT = 4\ndef f(x):\n    return x + LIMIT\n") != before
    assert package("LIMIT = 3\ndef f(x):\n    return x - LIMIT\n") != before
    assert package('def f(x):\n    """Only words."""\n') == package("def f(x):\n    'None such.'\n")


def test_the_rooms_that_compute_a_row_are_there():
    code_hash.cache_clear()
    assert len({code_hash((room,)) for room in LEARNED}) == len(LEARNED) == len(SCORED) + 1


def test_rows_of_other_code_are_computed_anew_and_said(tmp_path, monkeypatch):
    file, said, ran = tmp_path / "rows.csv", [], []

    def part(name):
        def run(say):
            ran.append(name)
            return pd.DataFrame({"group": [name], "J": [0.5]})

        return Part(name, run)

    def rows(parts="ab"):
        *_, last = resumable_rows({p: part(p) for p in parts}, file, said.append, {"J": float})
        return last

    first = rows()
    pd.testing.assert_frame_equal(rows(), first, check_dtype=False)
    assert ran == ["a", "b"] and said[-2:] == ["a: done before", "b: done before"]
    monkeypatch.setattr(kept, "code_hash", lambda rooms: "other")
    said.clear()
    again = rows("a")
    assert ran == ["a", "b", "a"] and said == ["rows.csv: 1 rows are of other code and computed anew"]
    assert set(again.code) == {"other"}
    assert pd.read_csv(file).group.tolist() == ["b", "a"]  # what was not asked for stays, and is anew when it is


def test_parts_side_by_side_stand_in_their_order_and_what_ended_before_a_fault_is_kept(tmp_path):
    both, file, order = threading.Barrier(2, timeout=10), tmp_path / "rows.csv", []

    def part(name, fails=False):
        def run(say):
            both.wait()  # of one alone it would never open
            if name == "a":
                time.sleep(0.2)
            if fails:
                raise CosegError("no such photograph")
            order.append(name)
            say("ran")
            return pd.DataFrame({"group": [name], "J": [0.5]})

        return Part(name, run)

    said: list[str] = []
    parts = {"a": part("a", fails=True), "b": part("b")}
    with pytest.raises(CosegError, match="no such photograph"):
        list(resumable_rows(parts, file, said.append, {"J": float}, workers=2))
    assert order == ["b"] and said == ["b: ran"] and pd.read_csv(file).group.tolist() == ["b"]
    both.reset()
    parts = {"a": part("a"), "c": part("c"), "b": part("b")}
    *_, last = resumable_rows(parts, file, said.append, {"J": float}, workers=2)
    assert order == ["b", "c", "a"] and last.group.tolist() == ["a", "c", "b"]
    assert pd.read_csv(file).group.tolist() == ["a", "c", "b"] and said.count("b: ran") == 1


def test_rows_that_say_nothing_of_their_code_are_computed_anew(tmp_path):
    file = tmp_path / "rows.csv"
    pd.DataFrame({"group": ["a"], "J": [0.1], "key": ["a"]}).to_csv(file, index=False)
    part = Part("a", lambda say: pd.DataFrame({"J": [0.9]}))
    (rows,) = resumable_rows({"a": part}, file, print, {"J": float})
    assert rows.J.tolist() == [0.9]


def test_names_that_look_like_numbers_or_like_nothing_come_back_as_they_are(tmp_path):
    names = ["001", "NA", "1e5", ""]
    part = Part("a", lambda say: pd.DataFrame({"group": names, "J": [0.5, float("nan"), 1, 0]}))
    for _ in range(2):
        (rows,) = resumable_rows({"a": part}, tmp_path / "rows.csv", print, {"J": float})
        assert rows.group.tolist() == names and rows.J.isna().tolist() == [False, True, False, False]
